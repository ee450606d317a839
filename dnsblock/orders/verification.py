"""`dnsblock log verify`: the whole ledger against everything that is known about it, without a daemon.

It verifies the hash of each record, the chain, the copy, and the tree against every signed checkpoint.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dnsblock.errors import Problem, counted
from dnsblock.orders import ledger_copy
from dnsblock.orders.claims import Accepted, Claim
from dnsblock.orders.ledger import FILE
from dnsblock.orders.order import Order
from dnsblock.orders.reading import Content, read
from dnsblock.orders.records import Record
from dnsblock.orders.transparency.folder import NAME, CheckpointFolder, Found, extends
from dnsblock.orders.transparency.instance import identifier
from dnsblock.signatures.notes import NotANote, SignedCheckpoint, VerifierKey


@dataclass(slots=True)
class VerifiedFolder:
    """The signed checkpoints of one folder."""

    path: str
    checkpoints: int = 0  # that were read
    extended: int = 0  # by the ledger, and signed by a known key
    accepted: int = 0  # not extended, which the operator has accepted
    most_records: int = 0
    cosigned: dict[str, int] = field(default_factory=dict)  # by witness: the most records


@dataclass(frozen=True, slots=True)
class Verification:
    """The result."""

    path: Path
    records: int
    root: bytes
    folders: tuple[VerifiedFolder, ...]
    missing: tuple[Record, ...]  # in the copy, and not in the ledger
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "ledger": str(self.path),
            "records": self.records,
            "root": base64.b64encode(self.root).decode("ascii"),
            "folders": [asdict(folder) for folder in self.folders],
            "missing": [summary(record) for record in self.missing],
            "problems": [problem.as_json() for problem in self.problems],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys whose signatures count."""

    own: Sequence[bytes]  # public keys of this instance: its own, and others that the operator names
    witnesses: Sequence[VerifierKey] = ()

    def of(self, note: SignedCheckpoint) -> list[VerifierKey]:
        """The keys of this instance, with the name that the ledger has in a checkpoint."""
        return [note.own_key(public) for public in self.own]


def verify(
    state: Path, second: Path | None, claims: Sequence[Claim], keys: Keys, progress: Callable[[int], None]
) -> Verification:
    """Verifies the ledger in a state folder. Raises `OSError`, and `Refused` for a newer version.

    `claims`: what other files say about the end of the ledger. `progress` gets the number of those read.
    """
    path = state / FILE
    # All else is read before the ledger: a daemon may append to it at the same time.
    listings = [_list(CheckpointFolder(state / NAME), None)]
    if second is not None:
        listings.append(_list(CheckpointFolder(second), {identifier(public) for public in keys.own}))
    copy = read(state / ledger_copy.FILE)
    content = read(path)
    problems = [] if content.damage is None else [content.damage]
    if not path.exists():
        problems.append(Problem(str(path), None, "", "there is no ledger"))
    for claim in claims:
        if not claim.is_met_by(content):
            problems.append(Problem(str(path), None, "", f"does not extend {claim}"))
    accepted = Accepted(content.records)
    for listing in listings:
        problems += listing.problems
        for found in listing.found:
            problems += _verify_checkpoint(found, content, keys, accepted, listing.result)
            listing.result.checkpoints += 1
            progress(listing.result.checkpoints)
    missing, of_copy = _compare_copy(state / ledger_copy.FILE, copy, content)
    folders = tuple(listing.result for listing in listings)
    root = content.tree.root()
    return Verification(path, content.tree.size, root, folders, missing, (*problems, *of_copy), content.notes)


@dataclass(slots=True)
class _Listing:
    """The files of a folder."""

    result: VerifiedFolder
    found: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _list(folder: CheckpointFolder, own: set[str] | None) -> _Listing:
    """The checkpoints in a folder. `own`: the keys that count in a shared folder; None: all."""
    listing = _Listing(VerifiedFolder(str(folder.path)))
    try:
        listing.found = [one for one in folder.found() if own is None or one.key in own]
    except OSError as err:
        if own is not None or not isinstance(err, FileNotFoundError):
            listing.problems = [Problem(str(folder.path), None, "", f"cannot be read: {err.strerror}")]
    return listing


def _verify_checkpoint(
    found: Found, content: Content, keys: Keys, accepted: Accepted, result: VerifiedFolder
) -> Iterator[Problem]:
    try:
        note = found.read()
        if not note.verified(keys.of(note)):
            yield Problem(
                str(found.path), None, "", "is not signed by this instance: name its key with --key"
            )
            return
        witnesses = note.verified(keys.witnesses)
    except (NotANote, OSError) as err:
        yield Problem(str(found.path), None, "", f"is not a checkpoint: {err}")
        return
    size = note.checkpoint.size
    if extends(content.tree, note.checkpoint):
        result.extended += 1
        result.most_records = max(result.most_records, size)
        for witness in witnesses:
            result.cosigned[witness.name] = max(size, result.cosigned.get(witness.name, 0))
    elif accepted.has(note.checkpoint):
        result.accepted += 1
    else:
        have = content.tree.size
        lacks = "other records were there" if size <= have else f"{_span(have + 1, size)} missing"
        yield Problem(
            str(found.path), None, "", f"the ledger does not extend this checkpoint of {size:,}: {lacks}"
        )


def _span(first: int, last: int) -> str:
    """The records from one number to another, as the subject of a sentence."""
    return f"record {first:,} is" if first == last else f"records {first:,} to {last:,} are"


def _compare_copy(path: Path, copy: Content, content: Content) -> tuple[tuple[Record, ...], list[Problem]]:
    """The records of the copy that the ledger does not have."""
    if copy.damage is not None:
        return (), [copy.damage]
    same = 0
    for mine, other in zip(content.hashes, copy.hashes, strict=False):
        if mine != other:
            break
        same += 1
    missing = tuple(copy.records[same:])
    if not missing:
        return (), []
    verb, first = "is" if len(missing) == 1 else "are", missing[0].n
    reason = f"has {counted(len(missing), 'record')} that {verb} not in the ledger, from record {first:,} on"
    return missing, [Problem(str(path), None, "", reason)]


def summary(record: Record) -> dict[str, Any]:
    """A record in a few words, for lists of missing records."""
    fact = record.fact
    return {
        "n": record.n,
        "kind": fact.action if isinstance(fact, Order) else record.kind,
        "issuer": getattr(fact, "issuer", None),
        "order_id": getattr(fact, "order_id", None),
    }
