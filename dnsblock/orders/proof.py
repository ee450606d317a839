"""Signs checkpoints of the ledger, and proves that it has the records of an order.

A proof is JSON: the records as they are in the ledger, their inclusion proofs, and a signed checkpoint. With
the public key of the instance, it is verified without dnsblock (`docs/ledger.md`).
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnsblock.errors import Problem, Refused
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.records import Record
from dnsblock.orders.transparency.folder import CheckpointFolder, extends
from dnsblock.orders.transparency.instance import Instance
from dnsblock.orders.transparency.merkle import Tree
from dnsblock.signatures.notes import Checkpoint, NotANote, SignedCheckpoint

SCHEMA = "dnsblock.proof/1"


@dataclass(frozen=True, slots=True)
class ProvedRecord:
    """A record and its inclusion proof (RFC 6962, section 2.1.1)."""

    index: int  # of the leaf, from 0; one less than `n` in the record
    line: bytes  # without the line end: the leaf
    inclusion: tuple[bytes, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON."""
        proof = [base64.b64encode(sibling).decode("ascii") for sibling in self.inclusion]
        return {"index": self.index, "record": self.line.decode(), "inclusion": proof}


class Signer:
    """Signs checkpoints of a ledger that is open for writing."""

    def __init__(self, instance: Instance, folder: CheckpointFolder, ledger: Callable[[], Ledger]) -> None:
        self.instance = instance
        self._folder = folder
        self._ledger = ledger

    def checkpoint(self) -> SignedCheckpoint:
        """Signs the present state, and stores it in the state folder. Raises `OSError`."""
        tree = self._ledger().tree
        size = tree.size
        note = Checkpoint(self.instance.origin, size, tree.root(size)).signed(self.instance.key)
        self.keep(note)
        return note

    def keep(self, note: SignedCheckpoint) -> None:
        """Stores a checkpoint, or its cosignatures, in the state folder. Raises `OSError`."""
        self._folder.path.mkdir(mode=0o700, exist_ok=True)
        self._folder.keep(note, self.instance.public)

    def remove_old(self) -> None:
        """Removes old checkpoints from the state folder, except one for each day. Raises `OSError`."""
        self._folder.remove_old(self.instance.public)

    def inclusion(self, n: int, size: int) -> tuple[bytes, ...]:
        """The proof that record `n`, from 1, is among the first `size` records."""
        return self._ledger().tree.inclusion(n - 1, size)

    def consistency(self, old: int, size: int) -> tuple[bytes, ...]:
        """The proof that the first `size` records extend the first `old` ones."""
        return self._ledger().tree.consistency(old, size)

    def proof(self, issuer: str, order_id: str) -> dict[str, Any]:
        """The proof of all records of an order up to now, as JSON. Raises `OSError`."""
        note = self.checkpoint()
        return proof_of(self._ledger(), issuer, order_id, note, str(self.instance.verifier))


def proof_of(ledger: Ledger, issuer: str, order_id: str, note: SignedCheckpoint, key: str) -> dict[str, Any]:
    """The proof of the records of an order that a checkpoint covers. Raises `OSError`."""
    size = note.checkpoint.size
    numbers = [record.n for record in records_of(ledger.records, issuer, order_id)]
    wanted = [n for n in numbers if n <= size]
    lines = lines_of(ledger.path, wanted)
    proved = (ProvedRecord(n - 1, lines[n], ledger.tree.inclusion(n - 1, size)) for n in wanted)
    return {
        "schema": SCHEMA,
        "issuer": issuer,
        "order_id": order_id,
        "key": key,
        "checkpoint": str(note),
        "records": [one.as_json() for one in proved],
        "later_records": [n for n in numbers if n > size],  # which this checkpoint does not cover
    }


def records_of(records: Sequence[Record], issuer: str, order_id: str) -> Iterator[Record]:
    """The records that name an order."""
    for record in records:
        fact = record.fact
        if (getattr(fact, "issuer", None), getattr(fact, "order_id", None)) == (issuer, order_id):
            yield record


def issuers_of(records: Sequence[Record], order_id: str) -> list[str]:
    """The issuers with an order of this number."""
    named = (record.fact for record in records if getattr(record.fact, "order_id", None) == order_id)
    return sorted({issuer for fact in named if (issuer := getattr(fact, "issuer", None)) is not None})


def lines_of(path: Path, wanted: Sequence[int]) -> dict[int, bytes]:
    """Lines of the ledger by their number, from 1. Raises `OSError`."""
    found: dict[int, bytes] = {}
    numbers = set(wanted)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number in numbers:
                found[number] = line.removesuffix(b"\n")
                if len(found) == len(numbers):
                    break
    return found


def covering(
    folders: Sequence[CheckpointFolder], tree: Tree, records: int, public: bytes | None
) -> SignedCheckpoint:
    """The stored checkpoint with the most records that covers the first `records`. Raises `Refused`.

    `public`: the key that must have signed it; None: any.
    """
    best: SignedCheckpoint | None = None
    for folder in folders:
        try:
            for found in folder.found():
                if found.size < max(records, 1 if best is None else best.checkpoint.size + 1):
                    break
                try:
                    note = found.read()
                    if extends(tree, note.checkpoint) and _is_signed(note, public):
                        best = note
                        break
                except NotANote:
                    continue  # `dnsblock log verify` names it
        except OSError:
            continue
    if best is None:
        reason = (
            f"no signed checkpoint covers record {records} yet. A running daemon signs one within seconds; "
            "try again, or start it"
        )
        raise Refused([Problem(str(folders[0].path), None, "", reason)])
    return best


def _is_signed(note: SignedCheckpoint, public: bytes | None) -> bool:
    return public is None or bool(note.verified([note.own_key(public)]))
