"""Any text a person may send becomes one canonical domain name, or is refused with a reason.

Orders, lists, settings and the command line all come through `canonical`; inside, no name is checked again.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna


class NameRefused(ValueError):  # noqa: N818  # house style: named for what happened
    """The text is not a domain name; the message says why."""


def canonical(text: str) -> str:
    """The name in lower-case A-labels, without the trailing dot.

    Letters, digits, hyphens and underscores are taken as they are; any other script is mapped as browsers do
    (UTS 46, non-transitional) and encoded by IDNA 2008. An `xn--` label is what is asked on the wire and is
    kept even where it decodes to nothing. Raises only `NameRefused`.
    """
    if text.isascii():
        name = text.lower()
        if _NAME.fullmatch(name) and not _IPV4.fullmatch(name):
            return name.removesuffix(".")
        raise NameRefused(_reason(name))
    if len(text) > _LONGEST_INPUT:  # UTS 46 is slow on long text, so length is judged first
        raise NameRefused("longer than 253 characters")
    name = _ascii(text)
    if not _NAME.fullmatch(name) or _IPV4.fullmatch(name):
        raise NameRefused(_reason(name))
    return name.removesuffix(".")


def address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is, if it is one and no name."""
    try:
        return ip_address(text)
    except ValueError:
        return None


# RFC 1035 2.3.4: 63 octets a label and 255 on the wire, which is 253 characters without the trailing dot.
_NAME = re.compile(r"(?=.{1,253}\.?\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_IPV4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}\.?")
_IPV6 = re.compile(r"\[?[0-9a-f.]*:[0-9a-f.]*:")  # a port needs one colon only
_LABEL = re.compile(r"[a-z0-9_-]*")
_LONGEST_INPUT = 1024  # several characters may map to one


def _ascii(text: str) -> str:
    """UTS 46 mapping first, over the whole name: it turns ideographic full stops into dots."""
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        labels = [
            label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split(".")
        ]
    except (idna.IDNAError, UnicodeError) as err:
        raise NameRefused(f"not a valid internationalised name: {err}") from err
    return ".".join(labels).lower()


def _reason(name: str) -> str:
    """Why this ASCII text is not a name: the most helpful reason first."""
    if name in ("", "."):
        return "empty: a name has at least one label"
    if "://" in name:
        return "a web address: write only the domain name in it"
    if re.search(r"\s", name):
        return "holds a space: one name, without spaces"
    if not name.isprintable():
        return "holds a control character"
    if _IPV4.fullmatch(name) or _IPV6.match(name):
        return "an IP address, not a name"
    if ":" in name:
        return "holds a colon: write the domain name without a port"
    if name.startswith("*."):
        return "a wildcard: write the name without `*.` and `match: below`"
    return _reason_of_labels(name)


def _reason_of_labels(name: str) -> str:
    for label in name.removesuffix(".").split("."):
        if not label:
            return "holds an empty label (two dots in a row, or a dot at the start)"
        if not _LABEL.fullmatch(label):
            return "a label holds other characters than letters, digits, hyphens and underscores"
        if len(label) > 63:
            return "a label is longer than 63 characters"
    return "longer than 253 characters"
