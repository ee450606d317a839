"""Claims of other places about the ledger: how many records it had, and a hash of them.

The ledger must extend each of them. If it does not, it was truncated, replaced, rewritten or rolled back.
"""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Thread

from dnsblock.orders.reading import Content
from dnsblock.orders.records import AcceptedRestore, LostCheckpoint, Position, Record
from dnsblock.orders.transparency.folder import CheckpointFolder, Contradiction
from dnsblock.signatures.notes import Checkpoint

SECOND_FOLDER_SECONDS = 5.0  # at startup; a network file system may hang


@dataclass(frozen=True, slots=True)
class Claim:
    """A place says that the ledger has these records."""

    place: str
    records: int
    last: str | None = None  # the SHA-256 of the last record's line
    root: bytes | None = None  # of the tree
    is_signed: bool = False
    extended: int = 0  # the most records of a signed checkpoint that the ledger does extend

    @classmethod
    def of_position(cls, place: str, position: Position, root: bytes | None = None) -> "Claim":
        """The claim of a file of this daemon."""
        return cls(f"named in {place}", position.records, position.last, root)

    @classmethod
    def of_checkpoint(cls, found: Contradiction) -> "Claim":
        """The claim of a signed checkpoint."""
        size, root = found.checkpoint.size, found.checkpoint.root
        return cls(f"signed in {found.path}", size, root=root, is_signed=True, extended=found.extended)

    @property
    def lost(self) -> LostCheckpoint | None:
        """The claim of a signed checkpoint, as it is recorded if the operator accepts the ledger."""
        if self.root is None or not self.is_signed:
            return None
        return LostCheckpoint(self.extended, self.records, base64.b64encode(self.root).decode("ascii"))

    def is_met_by(self, content: Content) -> bool:
        """Whether a ledger has all these records."""
        if self.records > content.tree.size:
            return False
        if self.root is not None and content.tree.root(self.records) != self.root:
            return False
        return self.is_signed or content.extends(Position(self.records, self.last))

    def __str__(self) -> str:
        if self.records == 0:
            return f"no record, {self.place}"
        records = "1 record" if self.records == 1 else f"{self.records} records"
        if not self.is_signed:
            return f"{records} (SHA-256 of the last: {self.last}), {self.place}"
        root = base64.b64encode(self.root or b"").decode("ascii")
        return f"{records} (root: {root}), {self.place}"


class Accepted:
    """The signed checkpoints that the ledger need not extend, since the operator has accepted that."""

    def __init__(self, records: Iterable[Record]) -> None:
        restores = (record.fact for record in records if isinstance(record.fact, AcceptedRestore))
        self._lost = [fact.checkpoint for fact in restores if fact.checkpoint is not None]

    def has(self, checkpoint: Checkpoint) -> bool:
        """Whether it is of records that were missing then."""
        return any(lost.extended < checkpoint.size <= lost.records for lost in self._lost)


def contradictions(
    content: Content, state: CheckpointFolder, second: CheckpointFolder | None, public: bytes | None
) -> Iterator[Claim | str]:
    """The claims of signed checkpoints that the ledger does not extend, and why a folder cannot be read.

    In the state folder all checkpoints count, also those of a lost key. In the second folder only those with
    a signature of this instance count, since others may write there.
    """
    accepted = Accepted(content.records)
    places = [(state, None)] if second is None or public is None else [(state, None), (second, public)]
    for folder, key in places:
        try:
            found = folder.contradiction(content.tree, key, accepted.has)
        except FileNotFoundError as err:
            if folder is not state:
                yield f"{folder.path}: {err.strerror}"
        except OSError as err:
            yield f"{folder.path}: {err.strerror}"
        else:
            if found is not None:
                yield Claim.of_checkpoint(found)


def within_seconds(seconds: float, work: Iterator[Claim | str], otherwise: str) -> list[Claim | str]:
    """The findings within a time limit. A thread that hangs does not delay the end of the process."""
    found: list[Claim | str] = []
    thread = Thread(target=lambda: found.extend(work), daemon=True, name="compare")
    thread.start()
    thread.join(seconds)
    return [*found, otherwise] if thread.is_alive() else found
