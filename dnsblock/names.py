"""Parses any text into a canonical domain name, or refuses it with a reason.

Orders, lists, settings and the command line all use the engine's parser. No name is checked again later.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from dnsblock._engine import NotAName, canonical_name


class NameRefused(ValueError):  # noqa: N818  # house style: named for what happened
    """The text is not a domain name; the message says why."""


def canonical(text: str) -> str:
    """The name in lower-case A-labels, without the trailing dot.

    Letters, digits, hyphens and underscores are accepted as they are. Other scripts are mapped and encoded as
    in browsers (UTS 46, non-transitional). An `xn--` label is accepted even if it cannot be decoded, since
    queries may contain it. Raises only `NameRefused`.
    """
    try:
        return canonical_name(text)
    except NotAName as err:
        raise NameRefused(_advice(text) or str(err)) from err
    except UnicodeEncodeError as err:  # a lone surrogate
        raise NameRefused("not a valid internationalised name: not Unicode text") from err


def above(name: str) -> Iterator[str]:
    """Every name above a canonical name, the nearest first: `b.example` and `example` for `a.b.example`."""
    while name := name.partition(".")[2]:
        yield name


def suffixes(name: str) -> list[str]:
    """A canonical name and all its parents, longest first."""
    return [name, *above(name)]


def address(text: str) -> IPv4Address | IPv6Address | None:
    """The text as an IP address, or None if it is a name."""
    try:
        return ip_address(text)
    except ValueError:
        return None


_PORT = re.compile(r"[^:]+:[0-9]+")


def _advice(text: str) -> str | None:
    """The correction for a text that is not a name, if known."""
    if text in ("", "."):
        return "empty: a name has at least one label"
    if "://" in text:
        return "a web address: write only the domain name in it"
    if re.search(r"\s", text):
        return "contains a space: write one name, without spaces"
    if text.isascii() and not text.isprintable():
        return "contains a control character"
    if _PORT.fullmatch(text):
        return "contains a colon: write the domain name without a port"
    if text.startswith("*."):
        return "a wildcard: write the name without `*.` and `match: below`"
    return None
