"""Public and private suffixes: names below which each name belongs to somebody else.

A public suffix, such as `co.id`, is run by a registry: no order may block it. A private suffix, such as
`pages.dev`, is run by a hosting company for its customers. Both are in the Public Suffix List. The package
publicsuffixlist bundles it; nothing is fetched.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from publicsuffixlist import PSLFILE

from dnsblock.names import above, canonical


@dataclass(frozen=True, slots=True)
class Suffixes:
    """One section of the list."""

    names: frozenset[str]  # suffixes
    parents: frozenset[str]  # names whose children all are suffixes (`*.` rules)
    exceptions: frozenset[str]  # children of these that are none (`!` rules)
    shown_below: Mapping[str, str]  # each name above a suffix, with the first such suffix

    def is_suffix(self, name: str) -> bool:
        """Whether this name is a suffix. The name above a `*.` rule counts as one."""
        if name in self.names or name in self.parents:
            return True
        return name.partition(".")[2] in self.parents and name not in self.exceptions


def public_suffix(name: str, *, is_wide: bool = True) -> str | None:
    """Why a canonical name is too wide for an order; None if it is not.

    A block of a top-level domain or a public suffix would take down a country. `is_wide`: whether the entry
    covers the names below, too.
    """
    if "." not in name:
        return "a top-level domain; an order names single domains"
    suffixes = icann_suffixes()
    if suffixes.is_suffix(name):
        return "a public suffix; an order names single domains"
    if is_wide and name in suffixes.shown_below:
        return f"covers the public suffix {suffixes.shown_below[name]}"
    return None


def private_suffix(name: str, *, is_wide: bool = True) -> str | None:
    """Why a block of a canonical name may hit many customers of a hosting company; None if it does not."""
    suffixes = private_suffixes()
    if suffixes.is_suffix(name):
        return "a hosting suffix: each name below it belongs to another customer"
    if is_wide and name in suffixes.shown_below:
        return (
            f"covers the hosting suffix {suffixes.shown_below[name]}, below which each name is a customer's"
        )
    return None


@lru_cache(maxsize=1)
def icann_suffixes() -> Suffixes:
    """The public suffixes. Not the private ones: below `pages.dev`, one name is one customer."""
    names, parents, exceptions = public_suffixes()
    return _section(names, parents, exceptions)


@lru_cache(maxsize=1)
def private_suffixes() -> Suffixes:
    """The private suffixes, of hosting companies and dynamic DNS."""
    return _section(*_sorted(_rules(is_private=True)))


def _section(names: Iterable[str], parents: Iterable[str], exceptions: Iterable[str]) -> Suffixes:
    shown_below: dict[str, str] = {}
    for name in names:
        for higher in above(name):
            shown_below.setdefault(higher, name)
    for parent in parents:
        for higher in above(parent):
            shown_below.setdefault(higher, parent)
    return Suffixes(frozenset(names), frozenset(parents), frozenset(exceptions), shown_below)


@lru_cache(maxsize=1)
def public_suffixes() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The rules for public suffixes, to check whole lists at once.

    Names that are public suffixes, names whose children all are (`*.` rules), and exceptions of these (`!`
    rules).
    """
    return _sorted(_rules())


def _sorted(rules: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    parents: list[str] = []
    exceptions: list[str] = []
    for rule in rules:
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
    return hashlib.sha256("\n".join(_rules()).encode()).hexdigest()


def _ascii(rule: str) -> str:
    # Nearly all rules are lower-case ASCII, which is canonical. Converting the others takes most of the time.
    return rule if rule.isascii() and rule.islower() else canonical(rule)


def _rules(*, is_private: bool = False) -> list[str]:
    icann, _, private = Path(PSLFILE).read_text(encoding="utf-8").partition("===END ICANN DOMAINS===")
    lines = (line.strip() for line in (private if is_private else icann).splitlines())
    return [line for line in lines if line and not line.startswith("/")]
