"""The ledger, and the checks that it still contains every acknowledged record.

The ledger must extend the positions in the checkpoint and in the history of lists. If it does not, somebody
has truncated it, replaced it or restored an old backup: orders would be lost, and lifted blocks would return.
In this case, the copy of the acknowledged records is enforced. Nothing is published until the operator
accepts the current ledger.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from dnsblock import durable
from dnsblock.clock import Clock
from dnsblock.errors import Problem, Refused
from dnsblock.orders.checkpoint import Checkpoint, CheckpointFile
from dnsblock.orders.ledger import FILE, Content, Ledger, read
from dnsblock.orders.records import AcceptedRestore, Fact, Position, Record
from dnsblock.principal import Principal

COPY = "acknowledged.jsonl"
ADVICE = (
    "stop the daemon, restore the state folder from the latest backup and start; or, to use the ledger as it "
    "is, run `dnsblock log accept-restore --reason TEXT`"
)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why the ledger is not used."""

    reasons: tuple[str, ...]
    acknowledged: Position | None  # minimum end of the ledger; None: unknown
    found: Position
    missing: tuple[Record, ...]  # acknowledged records that are not in the ledger

    def __str__(self) -> str:
        found = f"the ledger contains {_phrase(self.found)}"
        if not self.missing:
            return f"{'; '.join(self.reasons)}; {found}"
        first, last = self.missing[0].n, self.missing[-1].n
        records = f"record {first} is" if first == last else f"records {first} to {last} are"
        return f"{'; '.join(self.reasons)}; {found}; {records} missing or replaced"


class Book:
    """Ledger, checkpoint and copy. `ledger` is the enforced one: after a mismatch, the copy."""

    def __init__(self, folder: Path, checkpoint: CheckpointFile, ledger: Ledger) -> None:
        self.checkpoint = checkpoint
        self.ledger = ledger
        self.mismatch: Mismatch | None = None
        self.clock = Clock()
        self._folder = folder
        self._real = ledger
        self._copied = 0  # bytes of the ledger that are in the copy
        self._is_copy_synced = True

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Opens the ledger and reads the checkpoint. Raises `Refused`; see `Ledger.open`.

        Call `compare` next.
        """
        checkpoint = CheckpointFile(folder)
        position = None if checkpoint.content is None else checkpoint.content.ledger
        acknowledged = 0 if position is None else position.records
        return cls(folder, checkpoint, Ledger.open(folder, read_only=read_only, acknowledged=acknowledged))

    def compare(self, history: Position | None) -> None:
        """Compares the ledger with the checkpoint, and with the history of lists if it has a position.

        Raises `Refused` if the ledger must not be used and there is no copy to serve instead.
        """
        content = self.checkpoint.content
        position = None if content is None else content.ledger
        reasons = list(self._reasons(position, history))
        if not reasons:
            self._start_clock(content)
            if not self._real.is_read_only:
                self._renew_copy()
            return
        claims = [one for one in (position, history) if one is not None]
        copy = self._acknowledged_records(position, history, "; ".join(reasons))
        same = 0
        for mine, stored in zip(self._real.hashes, copy.hashes, strict=False):
            if mine != stored:
                break
            same += 1
        self.mismatch = Mismatch(
            reasons=tuple(reasons),
            acknowledged=max(claims, key=lambda one: one.records, default=None),
            found=self._real.position,
            missing=tuple(copy.records[same:]),
        )
        self.ledger = Ledger(self._folder, copy, file=None, lock=None)
        self._start_clock(content)

    def _reasons(self, position: Position | None, history: Position | None) -> Iterator[str]:
        ledger, file = self._real, self.checkpoint
        if ledger.damage is not None:
            yield str(ledger.damage)
        if file.is_corrupt:
            yield f"{file.path} is corrupt"
        elif position is None and (ledger.records or self._copy_size()):
            yield (
                f"{file.path} is missing"
                if file.content is None
                else f"{file.path} does not name the end of the ledger"
            )
        elif position is not None and not ledger.extends(position):
            yield f"{self._folder / FILE} does not extend {_phrase(position)}, named in {file.path.name}"
        if history is not None and not ledger.extends(history):
            yield f"{self._folder / FILE} does not extend {_phrase(history)}, named in the history of lists"

    def _copy_size(self) -> int:
        try:
            return (self._folder / COPY).stat().st_size
        except OSError:
            return 0

    def _acknowledged_records(self, position: Position | None, history: Position | None, why: str) -> Content:
        """The acknowledged records, from the copy. Raises `Refused` if the copy is incomplete."""
        path = self._folder / COPY
        try:
            copy = read(path) if path.exists() else None
        except OSError as err:
            copy, why = None, f"{why}; {path}: {err.strerror}"
        if copy is not None and copy.damage is None:
            if position is not None and copy.extends(position):
                is_longer = history is not None and history.records > position.records
                return copy if is_longer else copy.until(position.records)
            if (position is None and history is None) or (history is not None and copy.extends(history)):
                return copy
        advice = "restore a backup of the state folder"
        reason = f"{why}; {path} does not contain the acknowledged records either: {advice}"
        raise Refused([Problem(str(self._folder / FILE), None, "", reason)])

    def _start_clock(self, content: Checkpoint | None) -> None:
        """Sets the earliest time: that of the checkpoint, or of the last record if that was added after it.

        Only after a crash is the last record later than the checkpoint. If the clock was set back while the
        daemon ran, the checkpoint has the right time, and the record does not.
        """
        records = self.ledger.records
        is_current = content is not None and content.ledger == self.ledger.position
        if content is not None:
            self.clock.recorded(content.at)
        if records and not is_current:
            self.clock.recorded(records[-1].at)

    def close(self) -> None:
        """Releases the ledger for the next process."""
        self._real.close()

    # ------- Publishing -------

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems that block publishing."""
        if self.mismatch is None:
            return ()
        reason = f"nothing is published, and the previous state stays in force: {self.mismatch}: {ADVICE}"
        return (Problem(str(self._folder / FILE), None, "", reason),)

    def check(self) -> None:
        """Raises `Refused` if nothing may be published."""
        if self.problems:
            raise Refused(self.problems)

    def append(self, facts: Sequence[Fact], by: Principal) -> None:
        """Writes facts to the ledger. Raises `LedgerUnwritable`, and `Refused` after a mismatch."""
        self.check()
        self.ledger.append(facts, by, self.clock.now())
        self.clock.recorded(self.ledger.records[-1].at)

    @property
    def position(self) -> Position | None:
        """The position for the next checkpoint: after a mismatch, the previous one."""
        if self.mismatch is None:
            return self._real.position
        return None if self.checkpoint.content is None else self.checkpoint.content.ledger

    def copy_new(self) -> None:
        """Copies new records before they are enforced. Raises `OSError`."""
        if self.mismatch is None and self._copied != self._real.size:
            _append(self._real.path, self._folder / COPY, self._copied, self._real.size)
            self._copied, self._is_copy_synced = self._real.size, False

    def sync_copy(self) -> None:
        """Makes the copy durable, without delaying orders. Raises `OSError`."""
        if not self._is_copy_synced:
            descriptor = os.open(self._folder / COPY, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._is_copy_synced = True

    def _renew_copy(self) -> None:
        """Brings the copy up to date. A crash may have left it incomplete, or an editor changed it."""
        path, real, size = self._folder / COPY, self._real.path, self._real.size
        # A hard link means that it was set aside: write a new file then.
        if path.exists() and path.stat().st_nlink == 1 and _is_beginning(path, real, size):
            self._copied = path.stat().st_size
            self.copy_new()
        else:
            with real.open("rb") as file:
                durable.write(path, file.read(size))
            self._copied = size
        self.sync_copy()

    # ------- Recovery -------

    def accept_restore(self, reason: str, by: Principal, forget: Callable[[], None]) -> None:
        """Accepts the current ledger, or without a mismatch the clock, and records this in the ledger.

        `forget` deletes the positions in the history of lists. Nothing is accepted until the checkpoint is
        written. Raises `Refused`, `LedgerUnwritable` and `OSError`.
        """
        if self.mismatch is None:
            if not self.clock.behind:
                why = "nothing to accept: no acknowledged record is missing, and the clock is right"
                raise Refused([Problem(str(self._folder / FILE), None, "", why)])
            position = self._real.position
            fact = AcceptedRestore(reason, position, position)
            self._real.append([fact], by, self.clock.wall())
            self.clock.accept()
            return
        if self._real.damage is not None:
            raise Refused([self._real.damage])
        self._real.repair()
        fact = AcceptedRestore(reason, self.mismatch.acknowledged, self.mismatch.found)
        self._real.append([fact], by, self.clock.now())
        forget()
        self._put_copy_aside()
        content = self.checkpoint.content or Checkpoint()
        self.checkpoint.keep(replace(content, ledger=self._real.position, at=self.clock.now()))
        self.ledger, self.mismatch = self._real, None
        self._renew_copy()

    def _put_copy_aside(self) -> None:
        """Keeps the discarded records as evidence of the blocks that were in force."""
        path, position = self._folder / COPY, self.ledger.position
        if position.last is not None and path.exists():
            aside = path.with_name(f"acknowledged-{position.records}-{position.last[:16]}.jsonl")
            aside.unlink(missing_ok=True)
            os.link(path, aside)


def _phrase(position: Position) -> str:
    if position.last is None:
        return "no record"
    records = "1 record" if position.records == 1 else f"{position.records} records"
    return f"{records} (SHA-256 of the last: {position.last})"


def _is_beginning(path: Path, whole: Path, size: int) -> bool:
    """Whether a file is a prefix of the first `size` bytes of another."""
    length = path.stat().st_size
    if length > size:
        return False
    with path.open("rb") as one, whole.open("rb") as other:
        while part := one.read(1 << 20):
            if part != other.read(len(part)):
                return False
    return True


def _append(source: Path, target: Path, begin: int, end: int) -> None:
    """Copies bytes `begin` to `end` of `source` to the same offset in `target`, and truncates it there."""
    with source.open("rb") as read_from:
        read_from.seek(begin)
        data = read_from.read(end - begin)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, begin)
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], begin + written)
    finally:
        os.close(descriptor)
