"""The ledger, and the checks that it still contains every acknowledged record.

The ledger must extend the positions in the checkpoint and in the history of lists, and the signed checkpoints
in the state folder and in the second folder. While the daemon runs, its file must stay as it was written. If
not, somebody has truncated it, replaced it or restored an old backup: orders would be lost, and lifted blocks
would return. Then the acknowledged records are enforced, from the copy or from memory. Nothing is published
until the operator accepts the current ledger.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from dnsblock.clock import Clock
from dnsblock.config_ledger import LedgerOptions
from dnsblock.errors import Problem, Refused, as_refused
from dnsblock.orders.checkpoint import Checkpoint, CheckpointFile
from dnsblock.orders.claims import SECOND_FOLDER_SECONDS, Claim, contradictions, within_seconds
from dnsblock.orders.ledger import FILE, Ledger
from dnsblock.orders.ledger_copy import LedgerCopy
from dnsblock.orders.mismatch import Mismatch, acknowledged, mismatch_of
from dnsblock.orders.parsed import ParsedOrders
from dnsblock.orders.proof import Signer
from dnsblock.orders.records import AcceptedRestore, Fact, Position
from dnsblock.orders.transparency.folder import NAME, CheckpointFolder
from dnsblock.orders.transparency.instance import Instance
from dnsblock.orders.transparency.merkle import EMPTY_ROOT
from dnsblock.principal import Principal
from dnsblock.signatures.notes import SignedCheckpoint

ADVICE = (
    "stop the daemon, restore the state folder from the latest backup and start; or, to use the ledger as it "
    "is, run `dnsblock log accept-restore --reason TEXT`"
)


class Book:
    """Ledger, checkpoints and copy. `ledger` is the enforced one: after a mismatch, the acknowledged records.

    `instance` is the key; None only if the state folder has none and is read-only.
    """

    def __init__(
        self, folder: Path, checkpoint: CheckpointFile, ledger: Ledger, instance: Instance | None
    ) -> None:
        self.checkpoint = checkpoint
        self.ledger = ledger
        self.instance = instance
        self.mismatch: Mismatch | None = None
        self.unread: list[str] = []  # folders of signed checkpoints that cannot be read, and why
        self.clock = Clock()
        self.notes = CheckpointFolder(folder / NAME)
        self._copy = LedgerCopy(folder)
        self._folder = folder
        self._second: Path | None = None
        self._real = ledger
        self._writing = threading.Lock()  # a write in progress is no change by somebody else

    @classmethod
    def open(
        cls,
        folder: Path,
        options: LedgerOptions,
        *,
        read_only: bool = False,
        parsed: ParsedOrders | None = None,
    ) -> Self:
        """Opens the ledger, reads the checkpoint and reads or makes the key. Raises `Refused`.

        See `Ledger.open`. Call `compare` next.
        """
        checkpoint = CheckpointFile(folder)
        position = None if checkpoint.content is None else checkpoint.content.ledger
        acknowledged = 0 if position is None else position.records
        ledger = Ledger.open(folder, read_only=read_only, acknowledged=acknowledged, parsed=parsed)
        try:
            instance_of = Instance.load if read_only else Instance.load_or_create
            return cls(folder, checkpoint, ledger, instance_of(folder, options.origin))
        except BaseException:
            ledger.close()
            raise

    def compare(self, history: Position | None, second: Path | None = None) -> None:
        """Compares the ledger with all that is known about it. `history`: the end in the history of lists.

        `second`: the second folder of signed checkpoints. Raises `Refused` if the ledger must not be used and
        there is nothing to serve instead.
        """
        self._second = second
        content = self.checkpoint.content
        position = None if content is None else content.ledger
        root = None if content is None else content.root
        own: list[Claim] = []
        if position is not None:
            own.append(Claim.of_position(self.checkpoint.path.name, position, root))
        if history is not None:
            own.append(Claim.of_position("the history of lists", history))
        signed = self._contradictions(second)
        if self._real.is_read_only and self._reasons(own, signed):
            # A daemon may have appended records, and signed a checkpoint, since the ledger was read.
            self._real = self.ledger = Ledger.open(self._folder, read_only=True)
            signed = [claim for claim in signed if not claim.is_met_by(self._real.content)]
        reasons = self._reasons(own, signed)
        if not reasons:
            self._start_clock(content)
            if not self._real.is_read_only:
                self._begin()
                self._copy.renew(self._real)
            return
        served = acknowledged(self._real, self._copy.path, own, signed, reasons)
        claims = [*own, *signed]
        self.mismatch = mismatch_of(self._real, reasons, claims, served, position or history)
        self.ledger = Ledger(self._folder, served, file=None, lock=None)
        self._start_clock(content)

    def _begin(self) -> None:
        """Writes a checkpoint before the first record: from now on, its absence means that it was lost."""
        try:
            self.notes.path.mkdir(mode=0o700, exist_ok=True)
            if self.checkpoint.content is None:
                self.checkpoint.keep(Checkpoint(Position(0, None), EMPTY_ROOT))
        except OSError as err:
            raise as_refused(err) from err

    def _contradictions(self, second: Path | None) -> list[Claim]:
        """The signed checkpoints that the ledger does not extend."""
        folder = None if second is None else CheckpointFolder(second)
        public = None if self.instance is None else self.instance.public
        found = within_seconds(
            SECOND_FOLDER_SECONDS,
            contradictions(self._real.content, self.notes, folder, public),
            f"{second}: cannot be read within {SECOND_FOLDER_SECONDS:g} s",
        )
        self.unread += [one for one in found if isinstance(one, str)]
        return [one for one in found if isinstance(one, Claim)]

    def _reasons(self, own: Sequence[Claim], signed: Sequence[Claim]) -> list[str]:
        ledger, file = self._real, self.checkpoint
        reasons: list[str] = []
        if ledger.damage is not None:
            reasons.append(str(ledger.damage))
        if file.is_corrupt:
            reasons.append(f"{file.path} is corrupt")
        elif file.content is None and (ledger.records or self._copy.size):
            reasons.append(f"{file.path} is missing")
        elif file.content is not None and file.content.ledger is None and (ledger.records or self._copy.size):
            reasons.append(f"{file.path} does not name the end of the ledger")
        broken = (claim for claim in (*own, *signed) if not claim.is_met_by(ledger.content))
        return [*reasons, *(f"{ledger.path} does not extend {claim}" for claim in broken)]

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

    @property
    def signer(self) -> Signer:
        """Signs checkpoints of the ledger, unless it is read-only."""
        assert self.instance is not None  # noqa: S101  # `open` has made it
        return Signer(self.instance, self.notes, lambda: self.ledger)

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

    def watch(self) -> None:
        """Compares the file with what this process has written, if somebody else has touched it."""
        with self._writing:
            self._watch()

    @property
    def is_touched(self) -> bool:
        """Whether the file is not as this process has read or left it, perhaps since it is writing."""
        return not self._real.is_read_only and not self._real.is_untouched()

    def is_as_written(self) -> bool:
        """Whether the file contains what this process has read or written. It reads all of it.

        `is_touched` costs almost nothing, but cannot see a change in the middle of an own write. Orders may
        be written meanwhile.
        """
        real = self._real
        return self.mismatch is not None or real.is_read_only or real.has_written()

    def distrust(self) -> None:
        """Makes the next `watch` read and compare the file."""
        self._real.distrust()

    def _watch(self) -> None:
        real = self._real
        if not self.is_touched:
            return
        if self.mismatch is not None:
            with contextlib.suppress(OSError):  # it is still missing
                self._real = real.reopened()
                self.mismatch = self.mismatch.now(real, self._real, self.ledger.content)
            return
        try:
            found = real.reopened()
        except OSError as err:
            reason = f"{real.path}: {err.strerror}: it was changed while the daemon ran"
            self.mismatch = Mismatch((reason,), real.position, real.position, ())
            return
        self._real = found
        if found.damage is None and found.hashes == real.hashes:
            found.repair()
            self.ledger = found
            return
        reasons = [f"{real.path} was changed while the daemon ran"]
        reasons += [] if found.damage is None else [str(found.damage)]
        claim = Claim("written by this process", len(real.hashes), real.position.last)
        claims = [claim, *self._contradictions(self._second)]
        self.mismatch = mismatch_of(found, reasons, claims, real.content, real.position)

    def contradict(self, claim: Claim) -> None:
        """A signed checkpoint was found later that the ledger does not extend. Nothing is published then."""
        if self.mismatch is None:
            reasons = [f"{self._real.path} does not extend {claim}"]
            end = self._real.position
            self.mismatch = mismatch_of(self._real, reasons, [claim], self._real.content, end)

    def append(self, facts: Sequence[Fact], by: Principal) -> None:
        """Writes facts to the ledger. Raises `LedgerUnwritable`, and `Refused` after a mismatch."""
        with self._writing:
            self._watch()
            self.check()
            self.ledger.append(facts, by, self.clock.now())
            self.clock.recorded(self.ledger.records[-1].at)

    @property
    def position_and_root(self) -> tuple[Position | None, bytes | None]:
        """The end of the ledger for the next checkpoint: after a mismatch, the previous one."""
        if self.mismatch is None:
            return self._real.position, self._real.tree.root()
        return self.recorded_end

    @property
    def recorded_end(self) -> tuple[Position | None, bytes | None]:
        """The end of the ledger in the checkpoint file."""
        content = self.checkpoint.content
        return (None, None) if content is None else (content.ledger, content.root)

    def copy_new(self) -> None:
        """Copies new records before they are enforced. Raises `OSError`."""
        if self.mismatch is None:
            self._copy.extend(self._real)

    def sync_copy(self) -> None:
        """Makes the copy durable, without delaying orders. Raises `OSError`."""
        self._copy.sync()

    def complete(self) -> SignedCheckpoint | None:
        """Completes the copy, and signs a checkpoint of all records. Nothing after a mismatch.

        Raises `OSError`.
        """
        if self.mismatch is not None:
            return None
        self._copy.extend(self._real)
        self._copy.sync()
        return self.signer.checkpoint()

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
        if self.is_touched:  # the operator accepts what `status` has shown
            self.watch()
            again = "was changed again: see in `dnsblock status` what is missing now, and repeat the command"
            raise Refused([Problem(str(self._folder / FILE), None, "", again)])
        if self._real.damage is not None:
            raise Refused([self._real.damage])
        self._real.repair()
        was = self.mismatch
        fact = AcceptedRestore(reason, was.acknowledged, was.found, was.checkpoint)
        self._real.append([fact], by, self.clock.now())
        forget()
        self._copy.put_aside(self.ledger.position)
        content = self.checkpoint.content or Checkpoint()
        position, root = self._real.position, self._real.tree.root()
        self.checkpoint.keep(replace(content, ledger=position, root=root, at=self.clock.now()))
        self.ledger, self.mismatch = self._real, None
        self._copy.renew(self._real)
