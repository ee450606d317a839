"""Judges a name that an order wants to block or exempt. Asked by the intake, once for each entry."""

import hashlib
from functools import lru_cache
from pathlib import Path

from publicsuffixlist import PSLFILE, PublicSuffixList

from dnsblock.names import canonical


def public_suffix(name: str) -> str | None:
    """Why a canonical name is too wide for an order, or None.

    A top-level domain, or a name under which a registry sells names (`co.id`): such a block takes a country
    down. The list is the one that ships with the publicsuffixlist package; nothing is fetched.
    """
    if "." not in name:
        return "PUBLIC_SUFFIX: a top-level domain; an order names single domains"
    if _icann_suffixes().is_public(name):
        return "PUBLIC_SUFFIX: names are sold below it; an order names single domains"
    return None


@lru_cache(maxsize=1)
def _icann_suffixes() -> PublicSuffixList:
    # The ICANN section only: below the private ones (pages.dev) one name is one customer.
    return PublicSuffixList(only_icann=True)


@lru_cache(maxsize=1)
def public_suffixes() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Of the same list, for judging a whole list at once: every name under which a registry sells names;
    every name whose children all are such (`*.` rules); and those of these children that are not (`!` rules).
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
    """By which `public_suffixes` of one version of the list are told from those of another, in hexadecimal.

    Of the rules as they stand there: to make names of them takes twenty times as long, at each start.
    """
    return hashlib.sha256("\n".join(_icann_rules()).encode()).hexdigest()


def _ascii(rule: str) -> str:
    # Nearly all rules are in lower case and ASCII, which is canonical: the rest takes most of the time.
    return rule if rule.isascii() and rule.islower() else canonical(rule)


def _icann_rules() -> list[str]:
    icann, _, _ = Path(PSLFILE).read_text(encoding="utf-8").partition("===END ICANN DOMAINS===")
    lines = (line.strip() for line in icann.splitlines())
    return [line for line in lines if line and not line.startswith("/")]
