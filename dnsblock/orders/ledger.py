"""The ledger: the append-only file of all accepted orders and of the operator's annulments and restores.

Each line is a record (`dnsblock/orders/records.py`) with the SHA-256 of the previous record, so that a court
can see that nothing was removed or inserted. Only the daemon writes; `check` may read at the same time.
"""

import fcntl
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Self

from dnsblock import durable
from dnsblock.errors import LedgerUnwritable, Problem, Refused
from dnsblock.orders.order import Order
from dnsblock.orders.orders import fold
from dnsblock.orders.parsed import ParsedOrders
from dnsblock.orders.reading import ENTRIES, MAX_LINE_BYTES, Content, lines_of, read
from dnsblock.orders.records import (
    Fact,
    Position,
    Record,
    encode,
)
from dnsblock.orders.transparency.merkle import Tree
from dnsblock.orders.verdict import ACCEPTED
from dnsblock.principal import Principal

FILE = "ledger.jsonl"
LOCK = "ledger.lock"
_WRITING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class Ledger:
    """An open ledger. `records` are all records in order; `notes` describe repairs.

    `orders`: all accepted orders, with what later records say about them.
    `damage`: why reading stopped before the end of the file. Such a ledger is read-only.
    """

    def __init__(self, folder: Path, read: Content, *, file: int | None, lock: int | None) -> None:
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
    def open(
        cls,
        folder: Path,
        *,
        read_only: bool = False,
        acknowledged: int = 0,
        parsed: ParsedOrders | None = None,
    ) -> Self:
        """Opens the ledger in `folder`, creates a missing folder, and locks out other writers.

        An incomplete last record, left by a crash, is removed: it was never acknowledged. A complete one
        with a lost or changed line end gets a line end. Nothing is repaired if there is any other damage, or
        if there are fewer than `acknowledged` records. Raises `Refused` for a folder without permission, and
        for records of a newer dnsblock.
        `read_only` creates, locks and repairs nothing. `parsed`: those of the folder, if they were loaded.
        """
        try:
            if read_only:
                parsed = parsed or ParsedOrders.load(folder)
                return cls(folder, read(folder / FILE, parsed), file=None, lock=None)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(folder)
            try:
                file = os.open(folder / FILE, _WRITING, 0o600)
                try:
                    durable.sync_folder(folder)  # the file may be new
                    parsed = parsed or ParsedOrders.load(folder)
                    content = read(folder / FILE, parsed)
                    parsed.forget()
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
    def content(self) -> Content:
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
        hashes = list(self.hashes)
        try:
            return [line.hash for line in islice(lines_of(self.path), len(hashes))] == hashes
        except OSError:
            return False

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
                if len(line) >= MAX_LINE_BYTES:  # the next process would take it for damage
                    raise LedgerUnwritable(f"{self.path}: a record is too long: nothing was accepted")
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
