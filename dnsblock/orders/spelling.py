"""The spelling of names in orders: parses a name, or refuses it with a hint what to write instead.

`order` parses names with it. The intake uses its remarks on accepted names that may be mistakes.
"""

import re
import unicodedata
from collections.abc import Iterator

from dnsblock.names import NameRefused, address, canonical


def read_name(text: str) -> str:
    """The canonical name. Raises `NameRefused` with a hint what to write instead."""
    if _QUOTATION_MARK.search(text):
        raise NameRefused("contains a quotation mark: write the name without it")
    try:
        return canonical(text)
    except NameRefused as err:
        raise NameRefused(_advice(text.strip()) or str(err)) from err


_QUOTATION_MARK = re.compile("[\"'`´‘’‚“”„«»‹›]")  # noqa: RUF001  # including those of word processors
_WEB = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+-]*):(?=/))?/{0,2}(?P<host>[^/?#@\s]+)(?P<page>[/?#]\S*)?", re.I
)
_ACCOUNT = re.compile(r"(?:mailto:)?[^@/\s]*@(?P<host>[^@/\s]*)", re.I)


def _advice(text: str) -> str | None:
    """The hint for a web address or an account; None if it is neither."""
    if found := _ACCOUNT.fullmatch(text):
        what = "an account or an e-mail address: an order blocks names, not accounts"
        return f"{what}; {_all_of(found['host'])}"
    found = _WEB.fullmatch(text)
    if found is None:
        return None
    host, _, port = found["host"].partition(":")
    page = (found["page"] or "").strip("/")
    if address(found["host"].strip("[]")) is not None or address(host) is not None:
        return "an IP address, not a name: list it in a zone of addresses"
    if page:
        return f"a web address: an order blocks names, not pages; {_all_of(host)}"
    if found["scheme"] or found["page"] or text.startswith("/"):
        return f"a web address: write only the name in it{_written(host)}"
    if port.isdigit():
        what = "contains a colon: an order blocks a name on all ports"
        return f"{what}; write it without the port{_written(host)}"
    return None


def _all_of(host: str) -> str:
    what = "a name" if "." not in host else f"the name{_written(host).removeprefix(':')}"
    return f"{what} would block everything there, not only this"


def _written(host: str) -> str:
    try:
        return f": {canonical(host)}"
    except NameRefused:
        return ""


# ------- Accepted names that may be mistakes -------


def remarks(name: str) -> Iterator[str]:
    """Remarks on a non-ASCII canonical name: its readable form, and how it may deceive."""
    if "xn--" not in name:
        return
    shown = ".".join(_readable(label) for label in name.split("."))
    if shown == name:
        yield f"{name}: an A-label that stands for no text; it is blocked as it is asked"
        return
    yield f"{shown} is the A-label {name}"
    for label in shown.split("."):
        if len(scripts := sorted(_scripts(label))) > 1:
            yield f"MIXED_SCRIPT: {label} mixes {' and '.join(scripts)} letters: is this name meant?"


def _readable(label: str) -> str:
    """The U-label of a label; unchanged if it cannot be decoded to printable text."""
    if not label.startswith("xn--"):
        return label
    try:
        decoded = label[4:].encode("ascii").decode("punycode")
    except (UnicodeError, ValueError, OverflowError):
        return label
    return decoded if decoded.isprintable() and decoded else label


# Scripts that one language writes together (UTS 39, section 5.1: Japanese, Korean, Taiwanese).
_TOGETHER = ({"CJK", "HIRAGANA", "KATAKANA"}, {"CJK", "HANGUL"}, {"CJK", "BOPOMOFO"})
_COMMON = {"COMBINING", "MODIFIER", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "FEMININE", "MASCULINE"}


def _scripts(label: str) -> set[str]:
    """The scripts of the letters in a label; one if they may be combined.

    The single-script check of UTS 39, section 5.1. The script of a letter is the first word of its Unicode
    name, since Python's database has no script property; digits, hyphens and marks are common to all.
    """
    characters = (char for char in label if unicodedata.category(char).startswith("L"))
    found = {unicodedata.name(char, "UNKNOWN").split()[0] for char in characters} - _COMMON
    return {"CJK"} if any(found <= together for together in _TOGETHER) and found else found
