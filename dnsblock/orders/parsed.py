"""Parsed orders in a file of the state folder, so that a startup need not parse a million entries again.

It can always be made again from the ledger, and is never trusted more. Each order must have the
digest that the ledger recorded when the order was accepted. An order that does not fit is parsed again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel
from pydantic_core import from_json

from dnsblock import __version__
from dnsblock.orders.copies import made
from dnsblock.orders.entry import Entry, OrderEntries, PlainEntries
from dnsblock.orders.order import Order, RefusedEntry, Target, TargetEntry
from dnsblock.orders.schema import (
    Conditions,
    EarlierContact,
    EntriesFile,
    KeyChanges,
    OriginalDocument,
    Reason,
    Statement,
    Subject,
)

FILE = "orders.cache"
_HEADER = f"dnsblock {__version__} orders 1\n".encode()  # another version may parse differently
MAX_BYTES = 4 << 30
# Fields that are not in the document, or that are stored in another way.
_LATER = {
    *("file", "source", "judgement", "annulled", "accepted_n"),
    *("received_at", "verified_at", "enforced_at", "activated_at", "ended_at", "lifted"),
}
_MODELS: dict[str, type[BaseModel]] = {
    "reason": Reason,
    "original": OriginalDocument,
    "subject": Subject,
    "conditions": Conditions,
    "statement": Statement,
    "keys": KeyChanges,
    "entries_file": EntriesFile,
}
# How a field is read that is not stored as it is.
_READERS: dict[str, Callable[[Any], Any]] = {
    **{key: model.model_validate for key, model in _MODELS.items()},
    **dict.fromkeys(
        ("issued_at", "effective_at", "expires_at", "deadline_at", "review_at"), datetime.fromisoformat
    ),
    **dict.fromkeys(("legal_basis", "acks", "twins"), tuple),
}
_OTHERS = {"entries", "targets", "refused", "notices"}


def entries_sha256(order: Order) -> str:
    """The digest of an order's entries, which the ledger records when it is accepted."""
    names, special = _packed(order.entries)
    return hashlib.sha256(f"{names}\0{special}".encode()).hexdigest()


def _packed(entries: OrderEntries) -> tuple[str, str]:
    """The names, one per line, and as JSON what differs from a plain entry."""
    if isinstance(entries, PlainEntries):
        return entries.text, "{}"
    names = "\n".join(entry.name for entry in entries)
    special = {index: entry[1:] for index, entry in enumerate(entries) if not entry.is_plain}
    return names, json.dumps(special, ensure_ascii=False, separators=(",", ":"))


def _unpacked(names: str, special: str) -> OrderEntries:
    plain = PlainEntries(names)
    if special == "{}":
        return plain
    entries = list(plain)
    for index, (match, note, answer) in from_json(special).items():
        entries[int(index)] = Entry(entries[int(index)].name, match, note, answer)
    return tuple(entries)


class ParsedOrders:
    """The parsed orders of a state folder, by the SHA-256 of their documents."""

    def __init__(self, path: Path, found: Mapping[str, tuple[Order, str]], *, is_usable: bool) -> None:
        """`found`: each order with the digest of all its fields. `is_usable`: the file can be extended."""
        self._path, self._found, self._is_usable = path, dict(found), is_usable
        self._new: dict[str, Order] = {}
        self.proven: set[str] = set()  # the SHA-256 of the orders that the ledger says the same about

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads the file. One that is missing, corrupt or of another version has no order."""
        path = folder / FILE
        try:
            with path.open("rb") as file:
                if file.readline(200) != _HEADER or os.fstat(file.fileno()).st_size > MAX_BYTES:
                    return cls(path, {}, is_usable=False)
                found = {order.sha256: (order, digest) for order, digest in filter(None, map(_read, file))}
                return cls(path, found, is_usable=True)
        except OSError:
            return cls(path, {}, is_usable=False)

    @property
    def orders(self) -> Iterable[Order]:
        """All orders. Nothing proves yet that the ledger has them."""
        return (order for order, _ in self._found.values())

    def find(self, sha256: str) -> tuple[Order, str] | None:
        """A parsed order, with the digest of all its fields. The caller compares it with the ledger's."""
        return self._found.get(sha256)

    def put(self, order: Order) -> None:
        """Adds an order that was parsed."""
        self._new[order.sha256] = order

    def keep(self) -> None:
        """Adds the new orders to the file. Raises `OSError`."""
        if not self._new:
            return
        lines = ((sha256, _line(order)) for sha256, order in self._new.items())
        data = b"".join(
            f"{sha256} {hashlib.sha256(line).hexdigest()} ".encode() + line + b"\n" for sha256, line in lines
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if self._is_usable else os.O_TRUNC)
        descriptor = os.open(self._path, flags, 0o600)
        with open(descriptor, "wb") as out:
            out.write(data if self._is_usable else _HEADER + data)
        self._is_usable = True
        self._new.clear()

    def forget(self) -> None:
        """Frees the memory of the orders that were read."""
        self._found.clear()


# ------- One order as JSON -------


def parsed_sha256(order: Order) -> str:
    """The digest of everything in a document, which the ledger records when it is accepted."""
    return hashlib.sha256(_line(order)).hexdigest()


def _line(order: Order) -> bytes:
    refused = tuple(one for one in order.refused if not one.code.startswith("UNKNOWN"))
    order = replace(order.own, refused=refused)
    names, special = _packed(order.entries)
    found: dict[str, Any] = {"names": names, "special": special}
    for field in fields(order):
        value = getattr(order, field.name)
        if field.name in _LATER | _OTHERS or value == field.default:
            continue
        found[field.name] = _as_json(value)
    found["targets"] = [
        [one.order_id, None if one.entries is None else [list(entry) for entry in map(_pair, one.entries)]]
        for one in order.targets
    ]
    found["refused"] = [[one.line, one.value, one.code, one.reason, one.index] for one in order.refused]
    found["notices"] = [one.model_dump(mode="json") for one in order.notices]
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _pair(entry: TargetEntry) -> tuple[str, str | None]:
    return entry.name, entry.match


def _as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _read(line: bytes) -> tuple[Order, str] | None:
    """The order in a line, and the digest of all its fields; None if the line is corrupt."""
    sha256, written, content = line[:64], line[65:129], line[130:].rstrip(b"\n")
    digest = hashlib.sha256(content).hexdigest()
    if written != digest.encode():
        return None
    try:
        return _order(from_json(content), sha256.decode()), digest
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _order(found: dict[str, Any], sha256: str) -> Order:
    entries = _unpacked(found.pop("names"), found.pop("special"))
    targets = tuple(
        Target(order_id, None if own is None else tuple(TargetEntry(name, match) for name, match in own))
        for order_id, own in found.pop("targets")
    )
    refused = tuple(RefusedEntry(*one) for one in found.pop("refused"))
    notices = tuple(EarlierContact.model_validate(one) for one in found.pop("notices"))
    for key, value in found.items():
        if key in _READERS:
            found[key] = _READERS[key](value)
    if found.pop("sha256") != sha256:
        raise ValueError("another order")
    return made(
        Order,
        file="ledger.jsonl",
        sha256=sha256,
        entries=entries,
        targets=targets,
        refused=refused,
        notices=notices,
        **found,
    )
