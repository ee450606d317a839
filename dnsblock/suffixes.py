"""Public suffixes, such as `co.id`: names under which a registry sells names. No order may block them."""

import hashlib
from functools import lru_cache
from pathlib import Path

from publicsuffixlist import PSLFILE, PublicSuffixList

from dnsblock.names import canonical


def public_suffix(name: str) -> str | None:
    """Why a canonical name is too wide for an order; None if it is not.

    A block of a top-level domain or a public suffix would take down a country. The list is bundled with the
    package publicsuffixlist; nothing is fetched.
    """
    if "." not in name:
        return "PUBLIC_SUFFIX: a top-level domain; an order names single domains"
    if _icann_suffixes().is_public(name):
        return "PUBLIC_SUFFIX: a public suffix; an order names single domains"
    return None


@lru_cache(maxsize=1)
def _icann_suffixes() -> PublicSuffixList:
    # Only the ICANN section: below a private suffix (pages.dev), one name is one customer.
    return PublicSuffixList(only_icann=True)


@lru_cache(maxsize=1)
def public_suffixes() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The rules of the same list, to check whole lists at once.

    Names that are public suffixes, names whose children all are (`*.` rules), and exceptions of these (`!`
    rules).
    """
    names: list[str] = []
    parents: list[str] = []
    exceptions: list[str] = []
    for rule in _icann_rules():
        if rule.startswith("*."):
            parents.append(_ascii(rule[2:]))
        elif rule.startswith("!"):
            exceptions.append(_ascii(rule[1:]))
        else:
            names.append(_ascii(rule))
    return tuple(names), tuple(parents), tuple(exceptions)


@lru_cache(maxsize=1)
def public_suffixes_digest() -> str:
    """The SHA-256 of the rules in hexadecimal. It identifies the version of the list.

    It covers the raw rules: converting them to names at each startup would take twenty times as long.
    """
    return hashlib.sha256("\n".join(_icann_rules()).encode()).hexdigest()


def _ascii(rule: str) -> str:
    # Nearly all rules are lower-case ASCII, which is canonical. Converting the others takes most of the time.
    return rule if rule.isascii() and rule.islower() else canonical(rule)


def _icann_rules() -> list[str]:
    icann, _, _ = Path(PSLFILE).read_text(encoding="utf-8").partition("===END ICANN DOMAINS===")
    lines = (line.strip() for line in icann.splitlines())
    return [line for line in lines if line and not line.startswith("/")]
