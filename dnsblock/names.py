"""Any text a person may send becomes one canonical domain name, or is refused with a reason.

Orders, lists, settings and the command line all use the engine's parser; inside, no name is checked again.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from dnsblock._engine import NotAName, canonical_name


class NameRefused(ValueError):  # noqa: N818  # house style: named for what happened
    """The text is not a domain name; the message says why."""


def canonical(text: str) -> str:
    """The name in lower-case A-labels, without the trailing dot.

    Letters, digits, hyphens and underscores are taken as they are; any other script is mapped and encoded as
    browsers do (UTS 46, non-transitional). An `xn--` label is what is asked on the wire and is kept even if
    it decodes to nothing. Raises only `NameRefused`.
    """
    try:
        return canonical_name(text)
    except NotAName as err:
        raise NameRefused(_advice(text) or str(err)) from err
    except UnicodeEncodeError as err:  # a lone surrogate
        raise NameRefused("not a valid internationalised name: not Unicode text") from err


def address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is, if it is one and no name."""
    try:
        return ip_address(text)
    except ValueError:
        return None


_PORT = re.compile(r"[^:]+:[0-9]+")


def _advice(text: str) -> str | None:
    """What to write instead of a text that is not a name, where that is known."""
    if text in ("", "."):
        return "empty: a name has at least one label"
    if "://" in text:
        return "a web address: write only the domain name in it"
    if re.search(r"\s", text):
        return "holds a space: one name, without spaces"
    if text.isascii() and not text.isprintable():
        return "holds a control character"
    if _PORT.fullmatch(text):
        return "holds a colon: write the domain name without a port"
    if text.startswith("*."):
        return "a wildcard: write the name without `*.` and `match: below`"
    return None
