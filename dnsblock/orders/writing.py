"""Writes order documents, for `order new`. The reader is `order`; a written document always passes it."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from dnsblock.orders.entry import Entry
from dnsblock.orders.order import TargetEntry
from dnsblock.orders.schema import Action

MAX_IN_DOCUMENT = 1000  # names; more go to an entries file

Value = str | Sequence["Value"] | Mapping[str, "Value"]


@dataclass(frozen=True, slots=True)
class NewOrder:
    """The content of a new document. Each field is the key of the document with its name."""

    issuer: str
    order_id: str
    action: Action
    issued_at: datetime
    seq: int | None = None
    prev: str | None = None  # SHA-256 in hexadecimal
    effective_at: datetime | None = None
    deadline_at: datetime | None = None
    expires_at: datetime | None = None
    review_at: datetime | None = None
    urgency: str | None = None
    category: str | None = None
    legal_basis: tuple[str, ...] = ()
    reason: Mapping[str, str] | None = None  # by language
    contact: str | None = None
    document: Mapping[str, str] | None = None  # the letter: sha256, uri
    subject: Mapping[str, str] | None = None  # name, contact
    notices: tuple[Mapping[str, str], ...] = ()  # at, by, about
    conditions: Mapping[str, str] | None = None  # by language
    notice: str | None = None
    statement: Mapping[str, str] | None = None  # seq, entries, digest, valid_until
    keys: Mapping[str, Sequence[str]] | None = None  # add, remove
    acks: tuple[str, ...] = ()
    targets: tuple[tuple[str, tuple[TargetEntry, ...] | None], ...] = ()
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """The bytes of a document, and those of its entries file if it has one."""

    document: bytes
    entries: bytes | None = None


def written(order: NewOrder, entries_file: str) -> Written:
    """The document in YAML. `entries_file` is the name of the file for its names if they are many.

    An entries file has no match, so names with another match than `subtree` always stay in the document.
    """
    separate = len(order.entries) > MAX_IN_DOCUMENT and all(one.match == "subtree" for one in order.entries)
    content = "".join(f"{entry.name}\n" for entry in order.entries).encode() if separate else None
    value: dict[str, Value] = {"schema": "dnsblock.order/1"}
    for field in fields(order):
        part = getattr(order, field.name)
        if part is None or part == ():
            continue
        if field.name == "entries" and content is not None:
            digest, lines = hashlib.sha256(content).hexdigest(), str(len(order.entries))
            value["entries_file"] = {"path": entries_file, "sha256": digest, "lines": lines}
        else:
            value[field.name] = _value(field.name, part)
    value["end"] = order.order_id
    return Written("".join(f"{line}\n" for line in _mapping(value, 0)).encode(), content)


def rfc3339(time: datetime) -> str:
    """A time with its own offset."""
    return time.isoformat(timespec="seconds")


def _value(key: str, part: object) -> Value:
    match key, part:
        case _, datetime():
            return rfc3339(part)
        case "prev", str():
            return f"sha256:{part}"
        case _, int():
            return str(part)
        case "entries", tuple():
            return [_entry(one) for one in part]
        case "targets", tuple():
            return [
                {"order_id": order_id, "entries": "all" if own is None else [_target(one) for one in own]}
                for order_id, own in part
            ]
    return part  # type: ignore[return-value]  # texts, and lists and mappings of texts


def _entry(entry: Entry) -> Value:
    return entry.name if entry.match == "subtree" else {"name": entry.name, "match": entry.match}


def _target(entry: TargetEntry) -> Value:
    return entry.name if entry.match is None else {"name": entry.name, "match": entry.match}


# ------- YAML: block style, so that people can read it -------


def _mapping(value: Mapping[str, Value], depth: int) -> Iterator[str]:
    for key, part in value.items():
        yield from _part(f"{'  ' * depth}{key}:", part, depth)


def _part(before: str, part: Value, depth: int) -> Iterator[str]:
    """The lines of a value after its key, or after the dash of a list."""
    if isinstance(part, str):
        yield f"{before} {_scalar(part)}"
    elif isinstance(part, Mapping):
        yield before
        yield from _mapping(part, depth + 1)
    else:
        yield before
        for item in part:
            yield from _item(item, depth + 1)


def _item(item: Value, depth: int) -> Iterator[str]:
    dash = f"{'  ' * depth}-"
    if isinstance(item, str):
        yield f"{dash} {_scalar(item)}"
    elif isinstance(item, Mapping):
        for number, line in enumerate(_mapping(item, depth + 1)):
            yield f"{dash} {line.lstrip()}" if number == 0 else line


_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._/+()-]|:(?! ))*")


def _scalar(text: str) -> str:
    """A text, in quotation marks unless it is plain."""
    is_plain = _PLAIN.fullmatch(text) and not text.endswith((" ", ":")) and text != "null"
    return text if is_plain else '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\\n\t':
        return json.dumps(character)[1:-1]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
