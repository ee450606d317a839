"""The ledger: the append-only file of all orders that were accepted and of what the operator did about them.

Each line is a record (`dnsblock/orders/records.py`) with the SHA-256 of the record before it, so that a court
can see that nothing was taken out or put in. The daemon is the only writer; `check` reads beside it.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from dnsblock import document, durable
from dnsblock.errors import LedgerUnwritable, Problem, Refused
from dnsblock.orders.annulments import received
from dnsblock.orders.order import MAX_DOCUMENT_BYTES, MAX_ENTRIES_FILE_BYTES, Order, parse_entries
from dnsblock.orders.records import Fact, NotARecord, Position, Record, decode, encode, end_of_record

FILE = "ledger.jsonl"
LOCK = "ledger.lock"
ENTRIES = "entries"  # folder of the entries files, each under its sha256
MAX_LINE_BYTES = 8 * MAX_DOCUMENT_BYTES  # JSON writes a byte as six at most


class Ledger:
    """An open ledger. `records` are all records in order; `notes` say what was repaired."""

    def __init__(self, folder: Path, read: "_Content", *, file: int | None, lock: int | None) -> None:
        self.records = read.records
        self.notes = read.notes
        self._folder = folder
        self._file = file  # None: read only, or closed
        self._lock = lock
        self._size = read.size
        self._last = read.last

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Opens the ledger in `folder`, which is made where it is missing, and keeps every other writer out.

        A last record that was only half written, by a crash, is cut off: it was never acknowledged. A whole
        one whose line end was lost or changed gets a line end. Any other damage raises `Refused`, as does a
        folder without rights. `read_only` makes, locks and mends nothing.
        """
        try:
            if read_only:
                return cls(folder, _read(folder / FILE), file=None, lock=None)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(folder)
            try:
                file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    durable.sync_folder(folder)  # the file itself, in case it is new
                    read = _read(folder / FILE)
                    _mend(file, read)
                    return cls(folder, read, file=file, lock=lock)
                except BaseException:
                    os.close(file)
                    raise
            except BaseException:
                os.close(lock)
                raise
        except OSError as err:
            advice = "run as the user that owns the folder `state`, or give it the right"
            if isinstance(err, FileExistsError | NotADirectoryError):
                advice = "`state` must be a folder, or a path where one can be made"
            reason = f"{err.strerror}: {advice}"
            raise Refused([Problem(str(err.filename or folder), None, "", reason)]) from err

    @property
    def received(self) -> tuple[tuple[datetime, Order], ...]:
        """The orders, with the times at which they were accepted, and with what was annulled of them."""
        return received(self.records)

    @property
    def orders(self) -> tuple[Order, ...]:
        """The orders alone."""
        return tuple(order for _, order in self.received)

    @property
    def position(self) -> Position:
        """How far the ledger goes."""
        return Position(len(self.records), self._last)

    def append(self, facts: Sequence[Fact]) -> None:
        """Writes facts, all or none; when it returns, they are on the disk. An order must have its `source`.

        Raises `LedgerUnwritable` where they are not, and then the ledger is what it was.
        """
        if self._file is None:
            raise LedgerUnwritable(f"{self._folder / FILE}: was opened to be read only")
        lines: list[bytes] = []
        added: list[Record] = []
        last = self._last
        at = datetime.now(UTC)
        try:
            for n, fact in enumerate(facts, start=len(self.records) + 1):
                if isinstance(fact, Order):
                    _store_entries(self._folder / ENTRIES, fact)
                line = encode(Record(n, at, fact), last)
                last = hashlib.sha256(line).hexdigest()
                lines.append(line + b"\n")
                kept = replace(fact, source=None) if isinstance(fact, Order) else fact
                added.append(Record(n, at, kept))
            self._write(b"".join(lines))
        except OSError as err:
            raise LedgerUnwritable(f"{self._folder / FILE}: {err.strerror}: nothing was accepted") from err
        self._last = last
        self.records += tuple(added)

    def close(self) -> None:
        """Lets the next process have the ledger."""
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101  # append has checked it
        try:
            # Whatever a failed attempt has left behind the last record goes first.
            os.ftruncate(self._file, self._size)
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], self._size + written)
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)


# ------- Reading -------


@dataclass(frozen=True, slots=True)
class _Content:
    records: tuple[Record, ...]
    notes: tuple[str, ...]
    size: int  # bytes of the records that are whole
    last: str | None  # sha256 of the last record's line
    lacks_end: bool  # the last record is whole but for its line end


def _read(path: Path) -> _Content:
    records: list[Record] = []
    notes: list[str] = []
    size = 0
    last: str | None = None
    lacks_end = False
    for number, line in enumerate(_lines(path), start=1):
        record = line.removesuffix(b"\n")
        lacks_end = record == line
        if lacks_end:
            end = end_of_record(line)
            if end is None:
                notes.append(f"{path}:{number}: cut off a record that was only half written")
                lacks_end = False
                break
            if end_of_record(line[end:]) is not None:
                raise _damaged(path, number, "records have run together")
            record = line[:end]
            notes.append(f"{path}:{number}: the last record lacked its line end")
        try:
            read = decode(record, number, last)
        except NotARecord as err:
            raise _damaged(path, number, str(err)) from err
        records.append(replace(read, fact=_with_entries(path.parent / ENTRIES, read.fact)))
        last = hashlib.sha256(record).hexdigest()
        size += len(record) + 1
    return _Content(tuple(records), tuple(notes), size, last, lacks_end)


def _damaged(path: Path, line: int, why: str) -> Refused:
    advice = "the ledger is damaged; restore it from a backup, it is the proof of what was ordered"
    return Refused([Problem(str(path), line, "", f"{why}: {advice}")])


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a ledger, each of them bounded: of one without an end only the beginning counts."""
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line
                if not line.endswith(b"\n"):
                    return
    except FileNotFoundError:
        return  # a ledger that has not begun


def _with_entries(folder: Path, fact: Fact) -> Fact:
    if not isinstance(fact, Order) or fact.entries_file is None:
        return fact
    stored = folder / f"{fact.entries_file.sha256}.txt"
    content = document.read_bytes(stored, max_bytes=MAX_ENTRIES_FILE_BYTES)
    return replace(fact, entries=parse_entries(fact.entries_file, str(stored), content))


# ------- Writing -------


def _lock(folder: Path) -> int:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        os.close(lock)
        if not isinstance(err, BlockingIOError):
            raise
        reason = (
            "another dnsblock runs with this state folder: stop it, or give this one a `state` of its own"
        )
        raise Refused([Problem(str(folder), None, "", reason)]) from err
    return lock


def _mend(file: int, read: _Content) -> None:
    """Leaves whole records, each with its line end."""
    if read.lacks_end:
        os.pwrite(file, b"\n", read.size - 1)
    if read.notes:
        os.ftruncate(file, read.size)
        os.fsync(file)


def _store_entries(folder: Path, order: Order) -> None:
    """Keeps an entries file beside the ledger, whole and on the disk before any record speaks of it."""
    if order.entries_file is None or order.source is None or order.source.entries_data is None:
        return
    stored = folder / f"{order.entries_file.sha256}.txt"
    if stored.exists():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    durable.sync_folder(folder.parent)
    durable.write(stored, order.source.entries_data)
