"""The ledger: the append-only file of all accepted orders and of the operator's annulments and restores.

Each line is a record (`dnsblock/orders/records.py`) with the SHA-256 of the previous record, so that a court
can see that nothing was removed or inserted. Only the daemon writes; `check` may read at the same time.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from dnsblock import document, durable
from dnsblock.errors import LedgerUnwritable, Problem, Refused
from dnsblock.orders.facts import Judged, without
from dnsblock.orders.order import MAX_DOCUMENT_BYTES, MAX_ENTRIES_FILE_BYTES, Order, parse_entries
from dnsblock.orders.orders import fold
from dnsblock.orders.parsed import ParsedOrders, entries_sha256, parsed_sha256
from dnsblock.orders.records import (
    VERSION,
    Fact,
    NewerRecord,
    NotARecord,
    Position,
    Record,
    decode,
    encode,
    end_of_record,
)
from dnsblock.orders.transparency.merkle import Tree
from dnsblock.orders.verdict import ACCEPTED
from dnsblock.principal import Principal

FILE = "ledger.jsonl"
LOCK = "ledger.lock"
ENTRIES = "entries"  # folder of the entries files, named by their SHA-256
MAX_LINE_BYTES = 8 * MAX_DOCUMENT_BYTES  # JSON escapes a byte to six at most
_WRITING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Ledger:
    """An open ledger. `records` are all records in order; `notes` describe repairs.

    `orders`: all accepted orders, with what later records say about them.
    `damage`: why reading stopped before the end of the file. Such a ledger is read-only.
    """

    def __init__(self, folder: Path, read: "Content", *, file: int | None, lock: int | None) -> None:
        self.records = read.records
        self.orders = fold(read.records)
        self.notes = read.notes
        self.damage = read.damage
        self._content = read
        self._folder = folder
        self._file = file  # None: read-only, or closed
        self._lock = lock
        self._size = read.size
        self._last = read.last
        self._seen = self._look()
        self._parsed: ParsedOrders | None = None

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False, acknowledged: int = 0) -> Self:
        """Opens the ledger in `folder`, creates a missing folder, and locks out other writers.

        An incomplete last record, left by a crash, is removed: it was never acknowledged. A complete one
        with a lost or changed line end gets a line end. Nothing is repaired if there is any other damage, or
        if there are fewer than `acknowledged` records. Raises `Refused` for a folder without permission, and
        for records of a newer dnsblock.
        `read_only` creates, locks and repairs nothing.
        """
        try:
            if read_only:
                return cls(folder, read(folder / FILE, ParsedOrders.load(folder)), file=None, lock=None)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(folder)
            try:
                file = os.open(folder / FILE, _WRITING, 0o600)
                try:
                    durable.sync_folder(folder)  # the file may be new
                    parsed = ParsedOrders.load(folder)
                    content = read(folder / FILE, parsed)
                    ledger = cls(folder, content, file=file, lock=lock)
                    ledger._parsed = parsed
                    if len(content.records) >= acknowledged:
                        ledger.repair()
                    return ledger
                except BaseException:
                    os.close(file)
                    raise
            except BaseException:
                os.close(lock)
                raise
        except OSError as err:
            advice = "run as the user that owns the folder `state`, or change its permissions"
            if isinstance(err, FileExistsError | NotADirectoryError):
                advice = "`state` must be a folder, or a path where one can be created"
            reason = f"{err.strerror}: {advice}"
            raise Refused([Problem(str(err.filename or folder), None, "", reason)]) from err

    def correct_times(self, now: datetime) -> None:
        """Call it before the orders are derived for now: the clock may have been set back."""
        self.orders = self.orders.not_after(now)

    def keep_parsed(self) -> None:
        """Stores the parsed orders for the next startup. Raises `OSError`."""
        if self._parsed is not None:
            self._parsed.keep()

    @property
    def position(self) -> Position:
        """The end of the ledger."""
        return Position(len(self.records), self._last)

    def extends(self, position: Position) -> bool:
        """Whether the ledger still contains everything up to a position."""
        return self._content.extends(position)

    @property
    def hashes(self) -> Sequence[str]:
        """The SHA-256 of each record's line."""
        return self._content.hashes

    @property
    def path(self) -> Path:
        """The file."""
        return self._folder / FILE

    @property
    def size(self) -> int:
        """The number of bytes of complete records."""
        return self._size

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be appended."""
        return self._file is None

    @property
    def content(self) -> "Content":
        """The content that was read, with what was appended since."""
        return self._content

    @property
    def tree(self) -> Tree:
        """The Merkle tree of the records."""
        return self._content.tree

    def is_untouched(self) -> bool:
        """Whether the file is the one that this process opened, as its last write has left it."""
        try:
            return _identity(self.path.stat()) == self._seen
        except OSError:
            return False

    def has_written(self) -> bool:
        """Whether the file contains the lines that this process has read or written. It reads all of them."""
        hashes = tuple(self.hashes)
        try:
            lines = islice(_lines(self.path), len(hashes))
            found = [hashlib.sha256(line.removesuffix(b"\n")).hexdigest() for line in lines]
        except OSError:
            return False
        return found == list(hashes)

    def distrust(self) -> None:
        """Makes `is_untouched` false."""
        self._seen = None

    def reopened(self) -> "Ledger":
        """The file as it is on the disk now. The new ledger gets the lock, and this one becomes read-only.

        Raises `OSError`. A record of a newer dnsblock counts as damage.
        """
        file = os.open(self.path, _WRITING, 0o600)
        seen = _identity(os.fstat(file))  # before it is read: a change meanwhile must be noticed
        try:
            content = read(self.path)
        except Refused as err:
            content = Content([], [], Tree(), (), 0, lacks_end=False, damage=err.problems[0])
        except BaseException:
            os.close(file)
            raise
        if self._file is not None:
            os.close(self._file)
        ledger = Ledger(self._folder, content, file=file, lock=self._lock)
        ledger._seen = seen
        self._file = self._lock = None
        return ledger

    def repair(self) -> None:
        """Removes an incomplete last record and adds a missing line end, unless the file is corrupt.

        Raises `OSError`.
        """
        content = self._content
        if content.damage is not None or not content.notes or self._file is None:
            return
        os.ftruncate(self._file, content.size - content.lacks_end)
        if content.lacks_end:
            os.write(self._file, b"\n")
        os.fsync(self._file)
        self._seen = self._look()

    def append(self, facts: Sequence[Fact], by: Principal, at: datetime) -> None:
        """Writes facts durably, all or none. An order must have its `source`.

        Raises `LedgerUnwritable` on failure; the ledger is unchanged then.
        """
        if self._file is None:
            raise LedgerUnwritable(f"{self._folder / FILE}: was opened read-only")
        if self.damage is not None:
            raise LedgerUnwritable(str(self.damage))
        lines: list[bytes] = []
        added: list[Record] = []
        hashes: list[str] = []
        last = self._last
        try:
            for n, fact in enumerate(facts, start=len(self.records) + 1):
                if isinstance(fact, Order):
                    _store_entries(self._folder / ENTRIES, fact)
                line = encode(Record(n, at, by, fact), last)
                last = hashlib.sha256(line).hexdigest()
                hashes.append(last)
                lines.append(line)
                cached = _as_received(fact) if isinstance(fact, Order) else fact
                added.append(Record(n, at, by, cached))
                if isinstance(cached, Order) and self._parsed is not None:
                    self._parsed.put(cached)
            self._write(b"".join(line + b"\n" for line in lines))
        except OSError as err:
            raise LedgerUnwritable(f"{self._folder / FILE}: {err.strerror}: nothing was accepted") from err
        self._last = last
        for line in lines:
            self._content.tree.append(line)
        self._content.hashes.extend(hashes)
        self.records.extend(added)
        self.orders = fold(added, self.orders)

    def close(self) -> None:
        """Releases the ledger for the next process."""
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101  # `append` has checked it
        if not self.is_untouched():
            raise LedgerUnwritable(f"{self.path}: somebody else has changed it: nothing was accepted")
        try:
            # First remove what a failed try left after the last record.
            if os.fstat(self._file).st_size != self._size:
                os.ftruncate(self._file, self._size)
            # Appended at the end of the file, wherever that is: if somebody truncates it now, the size tells.
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            seen = os.fstat(self._file)  # before fsync, which takes time: a later change must be noticed
            os.fsync(self._file)
        except OSError:
            try:
                os.ftruncate(self._file, self._size)
            finally:
                self._seen = self._look()  # what it left is its own: the next write removes it
            raise
        self._size += len(data)
        self._seen = _identity(seen) if seen.st_size == self._size else None

    def _look(self) -> tuple[int, ...] | None:
        return None if self._file is None else _identity(os.fstat(self._file))


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """Facts that change when a file is written, truncated or replaced."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


# ------- Reading -------


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
    tree = Tree()
    notes: list[str] = []
    size = 0
    lacks_end = False
    damage: Problem | None = None
    orders = _Orders(path.parent / ENTRIES, parsed)
    for number, line in enumerate(_lines(path), start=1):
        record = line.removesuffix(b"\n")
        lacks_end = record == line
        if lacks_end:
            end = end_of_record(line)
            if end is None:
                notes.append(f"{path}:{number}: removed an incomplete last record")
                lacks_end = False
                break
            if end_of_record(line[end:]) is not None:
                damage = _damage(path, number, "two records are on one line")
                break
            record = line[:end]
            notes.append(f"{path}:{number}: the last record lacked its line end")
        try:
            orders.add(_Line(record, number, hashes[-1] if hashes else None), records)
        except NewerRecord as err:
            raise Refused([_newer(path, number, err)]) from err
        except NotARecord as err:
            damage = _damage(path, number, str(err))
            break
        except Refused as err:
            damage = err.problems[0]
            break
        hashes.append(hashlib.sha256(record).hexdigest())
        tree.append(record)
        size += len(record) + 1
    return Content(records, hashes, tree, tuple(notes), size, lacks_end, damage)


class _Orders:
    """The orders in the records that are read, each as it was parsed when it was accepted."""

    def __init__(self, folder: Path, parsed: ParsedOrders | None) -> None:
        self._folder, self._parsed = folder, parsed
        self._entries: dict[str, str] = {}  # the digest of the entries, by document
        self._whole: dict[str, Order] = {}  # by document
        # Taken from `parsed`, until a record says what they must be: the digest, and the place of the order.
        self._unproven: dict[str, str] = {}
        self._lines: dict[str, _Line] = {}
        self._parsed_now: set[str] = set()

    def find(self, sha256: str, file: str) -> Order | None:
        """An order that was parsed before."""
        found = None if self._parsed is None else self._parsed.find(sha256, file)
        if found is None:
            return None
        order, self._entries[sha256], self._unproven[sha256] = found
        return order

    def add(self, line: "_Line", records: list[Record]) -> None:
        """Adds the record in a line. Raises `NotARecord`, `NewerRecord` and `Refused`."""
        record = decode(*line, self.find)
        fact = record.fact
        if isinstance(fact, Order):
            record = self._with_whole(record, fact, line)
        elif isinstance(fact, Judged):
            self._prove(fact, records)
        records.append(record)

    def _with_whole(self, record: Record, order: Order, line: "_Line") -> Record:
        if order.sha256 in self._unproven:
            self._lines[order.sha256] = line
            if order.entries_file is not None:
                _check_entries_file(self._folder, order.entries_file.sha256)
        elif order.sha256 in self._whole:  # received again, after a crash
            order = self._whole[order.sha256]
        else:
            order = _with_entries(self._folder, order)
            self._entries[order.sha256] = entries_sha256(order)
            self._parsed_now.add(order.sha256)
        self._whole[order.sha256] = order
        return record if order is record.fact else replace(record, fact=order)

    def _prove(self, judged: Judged, records: list[Record]) -> None:
        """Compares an order with what the record says about it. Raises `NotARecord` and `Refused`."""
        sha256 = judged.sha256
        digest, line = self._unproven.pop(sha256, None), self._lines.pop(sha256, None)
        if line is not None and digest != judged.parsed_sha256:
            # Somebody has changed the file of parsed orders, or this version parses otherwise.
            del self._whole[sha256]
            again = decode(*line)
            if isinstance(again.fact, Order):
                records[again.n - 1] = self._with_whole(again, again.fact, line)
        if judged.entries_sha256 not in (None, self._entries.get(sha256)):
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
        self._whole[order.sha256], self._entries[order.sha256] = order, judged.entries_sha256 or ""
        for place, record in enumerate(records):
            if isinstance(record.fact, Order) and record.fact.sha256 == order.sha256:
                records[place] = replace(record, fact=order)


class _Line(NamedTuple):
    """A record that is read: its line, its number, and the SHA-256 of the previous line."""

    line: bytes
    n: int
    prev_record: str | None


def _newer(path: Path, line: int, err: NewerRecord) -> Problem:
    reason = (
        f"a newer dnsblock wrote this record (version {err}; this one reads version {VERSION}): install the "
        "newer one again, or restore a backup of the state folder from before the upgrade"
    )
    return Problem(str(path), line, "", reason)


def _damage(path: Path, line: int, why: str) -> Problem:
    advice = "the ledger is corrupt; restore it from a backup, since it is the evidence of all orders"
    return Problem(str(path), line, "", f"{why}: {advice}")


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a ledger, of bounded length: of a longer line, only the beginning is read."""
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line
                if not line.endswith(b"\n"):
                    return
    except FileNotFoundError:
        return  # a ledger without records yet


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


# ------- Writing -------


def _lock(folder: Path) -> int:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        os.close(lock)
        if not isinstance(err, BlockingIOError):
            raise
        reason = "another dnsblock is using this state folder: stop it, or give this one its own `state`"
        raise Refused([Problem(str(folder), None, "", reason)]) from err
    return lock


def _as_received(order: Order) -> Order:
    """The order as it is read from its record: without what other records say about it."""
    refused = tuple(one for one in order.refused if not one.code.startswith("UNKNOWN"))
    return replace(order.own, source=None, judgement=ACCEPTED, refused=refused)


def _store_entries(folder: Path, order: Order) -> None:
    """Stores an entries file beside the ledger, durably, before a record refers to it."""
    if order.entries_file is None or order.source is None or order.source.entries_data is None:
        return
    stored = folder / f"{order.entries_file.sha256}.txt"
    if stored.exists():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    durable.sync_folder(folder.parent)
    durable.write(stored, order.source.entries_data)
