"""A ledger that contradicts what is known about it: the reasons, the missing records, and what is served."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dnsblock.errors import Problem, Refused
from dnsblock.orders.claims import Claim
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.reading import Content, read
from dnsblock.orders.records import LostCheckpoint, Position, Record


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why the ledger is not used."""

    reasons: tuple[str, ...]
    acknowledged: Position | None  # minimum end of the ledger; None: unknown
    found: Position
    missing: tuple[Record, ...]  # acknowledged records that are not in the ledger, if they are known
    known: int = 0  # the number of records that there must be
    checkpoint: LostCheckpoint | None = None  # a signed checkpoint that the ledger does not extend

    def now(self, before: Ledger, real: Ledger, served: Content) -> "Mismatch":
        """The same, after somebody has changed the ledger again: it was `before`, and is `real` now."""
        reasons = [reason for reason in self.reasons if reason != str(before.damage)]
        reasons += [] if real.damage is None else [str(real.damage)]
        missing = tuple(served.records[_same(real, served) :])
        return replace(self, reasons=tuple(reasons), found=real.position, missing=missing)

    def __str__(self) -> str:
        found = f"{'; '.join(self.reasons)}; the ledger contains {_phrase(self.found)}"
        if self.missing:
            first, last = self.missing[0].n, self.missing[-1].n
        elif self.known > self.found.records:
            first, last = self.found.records + 1, self.known
        else:
            return found
        records = f"record {first} is" if first == last else f"records {first} to {last} are"
        return f"{found}; {records} missing or replaced"


def _phrase(position: Position) -> str:
    if position.last is None:
        return "no record"
    records = "1 record" if position.records == 1 else f"{position.records} records"
    return f"{records} (SHA-256 of the last: {position.last})"


def mismatch_of(
    real: Ledger,
    reasons: Sequence[str],
    claims: Sequence[Claim],
    served: Content,
    acknowledged: Position | None,
) -> Mismatch:
    """The mismatch of the ledger on the disk, while other records are served."""
    highest = max(claims, key=lambda claim: claim.records, default=None)
    if highest is not None and not highest.is_signed:
        acknowledged = Position(highest.records, highest.last)
    broken = [claim for claim in claims if not claim.is_met_by(real.content)]
    lost = [claim.lost for claim in broken if claim.lost is not None]
    return Mismatch(
        reasons=tuple(reasons),
        acknowledged=acknowledged,
        found=real.position,
        missing=tuple(served.records[_same(real, served) :]),
        known=0 if highest is None else highest.records,
        checkpoint=max(lost, key=lambda one: one.records, default=None),
    )


def _same(real: Ledger, served: Content) -> int:
    """The number of records at the beginning that are the same."""
    pairs = enumerate(zip(real.hashes, served.hashes, strict=False))
    shorter = min(len(real.hashes), len(served.hashes))
    return next((number for number, (mine, other) in pairs if mine != other), shorter)


def acknowledged(
    real: Ledger, path: Path, own: Sequence[Claim], signed: Sequence[Claim], reasons: Sequence[str]
) -> Content:
    """The acknowledged records, from the copy at `path` or the ledger. Raises `Refused` if both lack some.

    `own`: the claims of checkpoint.json and of the history of lists; `signed`: those of signed checkpoints.
    """
    why = ""
    try:
        copy = read(path) if path.exists() else None
    except OSError as err:
        copy, why = None, f"; {path}: {err.strerror}"
    if copy is not None and copy.damage is None:
        if signed and all(claim.is_met_by(copy) for claim in signed):
            return copy
        met = [claim for claim in own if claim.is_met_by(copy)]
        if met or not own:
            # Records after the end in checkpoint.json were not acknowledged, unless others name them.
            highest = max((*own, *signed), key=lambda claim: claim.records, default=None)
            is_at_end = highest is not None and highest is own[0] and highest in met
            return copy.until(highest.records) if highest is not None and is_at_end else copy
    content = real.content
    if own and content.damage is None and all(claim.is_met_by(content) for claim in own):
        return content  # a signed checkpoint knows more than anything else in the state folder
    advice = "restore a backup of the state folder"
    found = f"{'; '.join(reasons)}{why}; {path} does not contain the acknowledged records either: {advice}"
    raise Refused([Problem(str(real.path), None, "", found)])
