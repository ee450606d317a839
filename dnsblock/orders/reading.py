"""Reads a file of records, such as the ledger, up to its end or the first damage."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dnsblock import document
from dnsblock._engine import sealed_lines
from dnsblock.errors import Problem, Refused
from dnsblock.orders.facts import Judged, without
from dnsblock.orders.order import MAX_DOCUMENT_BYTES, MAX_ENTRIES_FILE_BYTES, Order, parse_entries
from dnsblock.orders.parsed import ParsedOrders, entries_sha256, parsed_sha256
from dnsblock.orders.records import (
    VERSION,
    Find,
    NewerRecord,
    NotARecord,
    Position,
    Promise,
    Record,
    decode,
    end_of_record,
    promise_of,
)
from dnsblock.orders.transparency.merkle import Tree

ENTRIES = "entries"  # folder of the entries files, named by their SHA-256
MAX_LINE_BYTES = 8 * MAX_DOCUMENT_BYTES  # JSON escapes a byte to six at most
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a file of records."""

    records: list[Record]
    hashes: list[str]  # the sha256 of each line
    tree: Tree  # its leaves are the lines
    notes: tuple[str, ...]
    size: int  # bytes of complete records
    lacks_end: bool  # the last record lacks only its line end
    damage: Problem | None

    @property
    def last(self) -> str | None:
        """The sha256 of the last record's line."""
        return self.hashes[-1] if self.hashes else None

    def extends(self, position: Position) -> bool:
        """Whether the file still contains everything up to a position."""
        n = position.records
        return n <= len(self.hashes) and (n == 0 or self.hashes[n - 1] == position.last)

    def until(self, records: int) -> "Content":
        """Only the first `records` records."""
        hashes, tree = self.hashes[:records], self.tree.until(records)
        return replace(self, records=self.records[:records], hashes=hashes, tree=tree, notes=())


def read(path: Path, parsed: ParsedOrders | None = None) -> Content:
    """Reads a file of records up to its end or the first damage. `parsed`: orders that were parsed before.

    Raises `OSError`, and `Refused` for a record of a newer dnsblock: what it orders is unknown.
    """
    records: list[Record] = []
    hashes: list[str] = []
    leaves = bytearray()
    notes: list[str] = []
    size = 0
    lacks_end = False
    damage: Problem | None = None
    orders = _Orders(path.parent / ENTRIES, parsed)
    for number, found in enumerate(lines_of(path), start=1):
        line = found
        if len(line.data) >= MAX_LINE_BYTES:
            damage = _damage(path, number, "longer than any record")
            break
        if not line.hash:
            end = end_of_record(line.data)
            if end is None:
                notes.append(f"{path}:{number}: removed an incomplete last record")
                break
            if end_of_record(line.data[end:]) is not None:
                damage = _damage(path, number, "two records are on one line")
                break
            lacks_end = True
            notes.append(f"{path}:{number}: the last record lacked its line end")
            line = next(_hashed(sealed_lines(line.data[:end] + b"\n")))
        try:
            orders.add(_Place(line, number, hashes[-1] if hashes else None), records)
        except NewerRecord as err:
            raise Refused([_newer(path, number, err)]) from err
        except NotARecord as err:
            damage = _damage(path, number, str(err))
            break
        except Refused as err:
            damage = err.problems[0]
            break
        hashes.append(line.hash)
        leaves += line.leaf
        size += len(line.data) + 1
    return Content(records, hashes, Tree.of_hashes(leaves), tuple(notes), size, lacks_end, damage)


class Line(NamedTuple):
    """A line without its line end, and its hashes: as of `sealed_lines`."""

    data: bytes
    hash: str  # its SHA-256, in hexadecimal; empty for a line without a line end
    leaf: bytes  # its hash as a leaf of the Merkle tree
    is_sealed: bool  # its digest is that of its content


def lines_of(path: Path) -> Iterator[Line]:
    """The lines of a ledger, up to one that is longer than any record. It is not read to its end.

    A thread hashes some lines while the caller decodes those before.
    """
    try:
        ledger = path.open("rb")
    except FileNotFoundError:
        return  # a ledger without records yet
    with ledger as file, ThreadPoolExecutor(1) as thread:
        data, rest = _block(file)
        while data:
            hashing = thread.submit(sealed_lines, data)
            data, rest = (b"", rest) if rest else _block(file)
            yield from _hashed(hashing.result())
    if rest:
        yield Line(rest, "", b"", False)


def _block(file: BinaryIO) -> tuple[bytes, bytes]:
    """The next complete lines, and a line without its end: the last one, or one that is too long."""
    data = file.read(_BLOCK_BYTES)
    data += file.readline(MAX_LINE_BYTES)
    end = data.rfind(b"\n") + 1
    return (data, b"") if end == len(data) else (data[:end], data[end:])


def _hashed(lines: list[tuple[bytes, str, bytes, bool]]) -> Iterator[Line]:
    return map(partial(tuple.__new__, Line), lines)  # without a call in Python for each


class _Orders:
    """The orders in the records that are read, each as it was parsed when it was accepted."""

    def __init__(self, folder: Path, parsed: ParsedOrders | None) -> None:
        self._folder, self._parsed = folder, parsed
        self._whole: dict[str, Order] = {}  # by document
        # Taken from `parsed`, until a record says what they must be: the digest, and the place of the order.
        self._unproven: dict[str, str] = {}
        self._places: dict[str, _Place] = {}
        self._parsed_now: set[str] = set()

    def find(self, promised: Promise) -> Order | None:
        """An order that was parsed before, and has the fields that its record repeats."""
        _, _, sha256, _ = promised
        found = None if self._parsed is None else self._parsed.find(sha256)
        if found is None or promise_of(found[0]) != promised:
            return None
        order, self._unproven[sha256] = found
        return order

    def add(self, place: "_Place", records: list[Record]) -> None:
        """Adds the record of a line. Raises `NotARecord`, `NewerRecord` and `Refused`."""
        record = place.record(self.find)
        fact = record.fact
        if isinstance(fact, Order):
            record = self._with_whole(record, fact, place)
        elif isinstance(fact, Judged):
            self._prove(fact, records)
        records.append(record)

    def _with_whole(self, record: Record, order: Order, place: "_Place") -> Record:
        if order.sha256 in self._unproven:
            self._places[order.sha256] = place
            if order.entries_file is not None:
                _check_entries_file(self._folder, order.entries_file.sha256)
        elif order.sha256 in self._whole:  # received again, after a crash
            order = self._whole[order.sha256]
        else:
            order = _with_entries(self._folder, order)
            self._parsed_now.add(order.sha256)
        self._whole[order.sha256] = order
        return record if order is record.fact else record._replace(fact=order)

    def _prove(self, judged: Judged, records: list[Record]) -> None:
        """Compares an order with what the record says about it. Raises `NotARecord` and `Refused`."""
        sha256 = judged.sha256
        digest, place = self._unproven.pop(sha256, None), self._places.pop(sha256, None)
        if place is not None and digest == judged.parsed_sha256:
            if self._parsed is not None:
                self._parsed.proven.add(sha256)
            return
        if place is not None:
            # Somebody has changed the file of parsed orders, or this version parses otherwise.
            del self._whole[sha256]
            again = place.record()
            if isinstance(again.fact, Order):
                records[again.n - 1] = self._with_whole(again, again.fact, place)
        if judged.entries_sha256 is not None and (
            sha256 not in self._whole or entries_sha256(self._whole[sha256]) != judged.entries_sha256
        ):
            self._read_as_then(judged, records)
        if self._parsed is not None and sha256 in self._parsed_now:
            self._parsed_now.remove(sha256)
            # Not if this version parses it otherwise: it would never be taken.
            if parsed_sha256(self._whole[sha256]) == judged.parsed_sha256:
                self._parsed.put(self._whole[sha256])

    def _read_as_then(self, judged: Judged, records: list[Record]) -> None:
        """Leaves out what can be read only now. Raises `NotARecord`."""
        order = self._whole.get(judged.sha256)
        order = None if order is None else without(order, judged.unreadable)
        if order is None or entries_sha256(order) != judged.entries_sha256:
            raise NotARecord("the order has other entries than those that were accepted")
        self._whole[order.sha256] = order
        for index, record in enumerate(records):
            if isinstance(record.fact, Order) and record.fact.sha256 == order.sha256:
                records[index] = record._replace(fact=order)


class _Place(NamedTuple):
    """The line of a record, its number, and the SHA-256 of the previous line."""

    line: Line
    n: int
    prev_record: str | None

    def record(self, find: Find | None = None) -> Record:
        """The record. Raises `NotARecord` and `NewerRecord`."""
        return decode(self.line.data, self.n, self.prev_record, find, is_sealed=self.line.is_sealed)


def _newer(path: Path, line: int, err: NewerRecord) -> Problem:
    reason = (
        f"a newer dnsblock wrote this record (version {err}; this one reads version {VERSION}): install the "
        "newer one again, or restore a backup of the state folder from before the upgrade"
    )
    return Problem(str(path), line, "", reason)


def _damage(path: Path, line: int, why: str) -> Problem:
    advice = "the ledger is corrupt; restore it from a backup, since it is the evidence of all orders"
    return Problem(str(path), line, "", f"{why}: {advice}")


def _check_entries_file(folder: Path, sha256: str) -> None:
    """Raises `Refused` if a stored entries file is missing or was changed."""
    stored = folder / f"{sha256}.txt"
    content = document.read_bytes(stored, max_bytes=MAX_ENTRIES_FILE_BYTES)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Refused([Problem(str(stored), None, "", "was changed: restore a backup of the state folder")])


def _with_entries(folder: Path, fact: Order) -> Order:
    if fact.entries_file is None:
        return fact
    stored = folder / f"{fact.entries_file.sha256}.txt"
    content = document.read_bytes(stored, max_bytes=MAX_ENTRIES_FILE_BYTES)
    entries, refused = parse_entries(fact.entries_file, str(stored), content)
    return replace(fact, entries=entries, refused=(*fact.refused, *refused))
