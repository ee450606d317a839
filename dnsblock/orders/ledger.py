"""The ledger: the append-only file of every order that was ever accepted, one JSON record a line.

Each record holds the document's own bytes and the SHA-256 of the record before it, so that a court can see
that nothing was taken out or put in. The daemon is the only writer; `check` reads beside it.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from dnsblock import document
from dnsblock.errors import LedgerUnwritable, Problem, Refused
from dnsblock.orders.order import MAX_ENTRIES_FILE_BYTES, Order, parse, parse_entries

FILE = "ledger.jsonl"
LOCK = "ledger.lock"
ENTRIES = "entries"  # folder of the entries files, each under its sha256


class Ledger:
    """An open ledger. `received` are the orders with the times at which they were accepted, in that order;
    `notes` tell what was mended.
    """

    def __init__(self, folder: Path, read: "_Content", *, file: int | None, lock: int | None) -> None:
        self.received = read.received
        self.notes = read.notes
        self._folder = folder
        self._file = file  # None: read only, or closed
        self._lock = lock
        self._size = read.size
        self._last = read.last

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Opens the ledger in `folder`, which is made where it is missing, and keeps every other writer out.

        A last record that was only half written, by a crash, is cut off: it was never acknowledged. Any other
        damage raises `Refused`, as does a folder without rights. `read_only` makes, locks and mends nothing.
        """
        try:
            if read_only:
                return cls(folder, _read(folder / FILE), file=None, lock=None)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(folder)
            try:
                file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    sync_folder(folder)  # the file itself, in case it is new
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
    def orders(self) -> tuple[Order, ...]:
        """The orders alone."""
        return tuple(order for _, order in self.received)

    def append(self, orders: Sequence[Order]) -> None:
        """Writes orders that were just read, all or none; when it returns, they are on the disk.

        Raises `LedgerUnwritable` where they are not, and then the ledger is what it was.
        """
        if self._file is None:
            raise LedgerUnwritable(f"{self._folder / FILE}: was opened to be read only")
        lines: list[bytes] = []
        last = self._last
        received_at = datetime.now(UTC)
        try:
            for order in orders:
                _store_entries(self._folder / ENTRIES, order)
                line = _record(len(self.orders) + len(lines) + 1, received_at, order, last)
                last = hashlib.sha256(line).hexdigest()
                lines.append(line + b"\n")
            self._write(b"".join(lines))
        except OSError as err:
            raise LedgerUnwritable(f"{self._folder / FILE}: {err.strerror}: no order was accepted") from err
        self._last = last
        self.received += tuple((received_at, replace(order, source=None)) for order in orders)

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
    received: tuple[tuple[datetime, Order], ...]
    notes: tuple[str, ...]
    size: int  # octets of the records that are whole
    last: str | None  # sha256 of the last record's line
    lacks_end: bool  # the last record is whole but for its line end


def _read(path: Path) -> _Content:
    received: list[tuple[datetime, Order]] = []
    notes: list[str] = []
    size = 0
    last: str | None = None
    lacks_end = False
    for number, line in enumerate(_lines(path), start=1):
        record = line.removesuffix(b"\n")
        try:
            received.append(_order(path, number, record, last))
        except Refused:
            if line.endswith(b"\n"):
                raise
            notes.append(f"{path}:{number}: cut off a record that was only half written")
            break
        if not line.endswith(b"\n"):
            lacks_end = True
            notes.append(f"{path}:{number}: the last record lacked its line end")
        last = hashlib.sha256(record).hexdigest()
        size += len(record) + 1
    return _Content(tuple(received), tuple(notes), size, last, lacks_end)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return  # a ledger that has not begun


def _order(path: Path, number: int, record: bytes, last: str | None) -> tuple[datetime, Order]:
    def damaged(reason: str) -> Refused:
        advice = "the ledger is damaged; restore it from a backup, it is the proof of what was ordered"
        return Refused([Problem(str(path), number, "", f"{reason}: {advice}")])

    try:
        fields: Any = json.loads(record)
        data: bytes = fields["document"].encode()
        digests = (fields["n"], fields["prev_record"], fields["sha256"])
        entries_file: str | None = fields["entries_file"]
        received_at = datetime.fromisoformat(fields["at"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise damaged("not a record") from err
    if digests != (number, last, hashlib.sha256(data).hexdigest()):
        raise damaged("this record, or the one before it, is not what was written")
    try:
        order = parse(f"{path.name} record {number}", data)
    except Refused as err:
        raise damaged(f"its order cannot be read ({err.problems[0].reason})") from err
    if order.entries_file is not None:
        if entries_file != order.entries_file.sha256:
            raise damaged("it does not name the entries file of its order")
        stored = path.parent / ENTRIES / f"{entries_file}.txt"
        content = document.read_bytes(stored, max_bytes=MAX_ENTRIES_FILE_BYTES)
        order = replace(order, entries=parse_entries(order.entries_file, str(stored), content))
    return received_at, replace(order, source=None)


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


def _record(number: int, at: datetime, order: Order, last: str | None) -> bytes:
    assert order.source is not None  # noqa: S101  # what was just read has its bytes
    record = {
        "n": number,
        "at": at.isoformat(timespec="milliseconds"),
        "issuer": order.issuer,
        "order_id": order.order_id,
        "sha256": order.sha256,
        "prev_record": last,
        "document": order.source.data.decode(),
        "entries_file": order.entries_file.sha256 if order.entries_file else None,
    }
    return json.dumps(record, separators=(",", ":")).encode()


def _store_entries(folder: Path, order: Order) -> None:
    """Keeps an entries file beside the ledger, whole and on the disk before any record speaks of it."""
    if order.entries_file is None or order.source is None or order.source.entries_data is None:
        return
    stored = folder / f"{order.entries_file.sha256}.txt"
    if stored.exists():
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)
    half = stored.with_suffix(".tmp")
    try:
        with half.open("wb") as file:
            file.write(order.source.entries_data)
            file.flush()
            os.fsync(file.fileno())
        half.rename(stored)
    finally:
        half.unlink(missing_ok=True)  # a full disk is not made fuller
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """A new name in a folder is on the disk only when the folder is (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
