"""A folder of signed checkpoints, one file for each. The state folder has one; there may be a second one.

A file name has the identifier of the key, the number of records and the beginning of the root. So instances
can share a folder. A checkpoint of another history of the same ledger never replaces one.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from dnsblock import durable
from dnsblock.orders.transparency.instance import identifier
from dnsblock.orders.transparency.merkle import Tree
from dnsblock.signatures.notes import MAX_NOTE_BYTES, Checkpoint, NotANote, SignedCheckpoint

NAME = "checkpoints"  # in the state folder
KEPT = 100  # the last checkpoints, which `remove_old` leaves
DAY_SECONDS = 86_400
_FILE = re.compile(r"([0-9a-f]{8})-([0-9]{12,19})-[0-9a-f]{8}\.checkpoint")


@dataclass(frozen=True, slots=True)
class Found:
    """A file in the folder, by its name."""

    path: Path
    key: str  # the identifier of the key
    size: int

    def read(self) -> SignedCheckpoint:
        """Its content; its signature is not verified yet. Raises `NotANote` and `OSError`."""
        with self.path.open("rb") as file:
            note = SignedCheckpoint.from_bytes(file.read(MAX_NOTE_BYTES + 1))
        if note.checkpoint.size != self.size:
            raise NotANote(f"has {note.checkpoint.size} records, unlike its name")
        return note


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """A folder of signed checkpoints."""

    path: Path
    # Two receipts at the same time store the same checkpoint.
    _writing: Lock = field(default_factory=Lock, repr=False, compare=False)

    def keep(self, note: SignedCheckpoint, public: bytes) -> Path:
        """Stores a checkpoint durably. A stored file of it keeps its other signatures. Raises `OSError`."""
        with self._writing:
            return self._keep(note, public)

    def _keep(self, note: SignedCheckpoint, public: bytes) -> Path:
        path = self.path / file_name(note, public)
        try:
            stored = SignedCheckpoint.from_bytes(path.read_bytes()[: MAX_NOTE_BYTES + 1])
        except (FileNotFoundError, NotANote):  # another writer may have crashed in it
            pass
        else:
            if stored.text == note.text:
                note = stored.with_signatures(note.signatures)
                if note == stored:
                    return path
        durable.write(path, str(note).encode())
        return path

    def found(self) -> Iterator[Found]:
        """All files, those with the most records first. Raises `OSError`."""
        names = [path.name for path in self.path.iterdir()]
        matches = [match for name in names if (match := _FILE.fullmatch(name))]
        matches.sort(key=lambda match: (-int(match[2]), match[0]))
        for match in matches:
            yield Found(self.path / match[0], match[1], int(match[2]))

    def remove_old(self, public: bytes) -> None:
        """Removes old checkpoints of a key, except the last of each day (UTC). Raises `OSError`.

        There is one for each order and receipt, and a later one proves all that an earlier one did.
        """
        own = [found.path for found in self.found() if found.key == identifier(public)]
        days: set[int] = set()
        for path in own[KEPT:]:  # those with the most records come first
            day = int(path.stat().st_mtime // DAY_SECONDS)
            if day in days:
                path.unlink()
            days.add(day)

    def contradiction(
        self, tree: Tree, public: bytes | None, is_accepted: Callable[[Checkpoint], bool]
    ) -> "Contradiction | None":
        """The checkpoint with the most records that the ledger does not extend. Raises `OSError`.

        `public`: only checkpoints with a signature of this key count; None: all, also of a lost key.
        `is_accepted`: whether the operator has accepted that the ledger does not extend a checkpoint.
        """
        worst: tuple[Path, Checkpoint] | None = None
        for found in self.found():
            if public is not None and found.key != identifier(public):
                continue
            try:
                note = found.read()
                if public is not None and not note.verified([note.own_key(public)]):
                    continue
            except NotANote:
                continue  # `dnsblock log verify` names it
            if extends(tree, note.checkpoint):
                return None if worst is None else Contradiction(*worst, note.checkpoint.size)
            if worst is None and not is_accepted(note.checkpoint):
                worst = found.path, note.checkpoint
        return None if worst is None else Contradiction(*worst, 0)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A checkpoint that the ledger does not extend."""

    path: Path
    checkpoint: Checkpoint
    extended: int  # the most records of another checkpoint that it does extend


def extends(tree: Tree, checkpoint: Checkpoint) -> bool:
    """Whether a ledger still has all records of a checkpoint."""
    return checkpoint.size <= tree.size and tree.root(checkpoint.size) == checkpoint.root


def file_name(note: SignedCheckpoint, public: bytes) -> str:
    """The name of the file of a checkpoint."""
    checkpoint = note.checkpoint
    return f"{identifier(public)}-{checkpoint.size:012d}-{checkpoint.root.hex()[:8]}.checkpoint"
