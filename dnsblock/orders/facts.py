"""The facts in the ledger beside order documents: verdicts, decisions of the operator, and events."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cache, lru_cache
from itertools import groupby
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

from dnsblock.orders.copies import made, replaced
from dnsblock.orders.order import Order, RefusedEntry
from dnsblock.orders.verdict import ACCEPTED, EntryVerdict, Judgement, Release, Signed
from dnsblock.principal import Principal

# ------- An accepted order -------

# Bounds of one record, whose line must stay shorter than the ledger reads.
MAX_REASONS = 1000  # different ones
MAX_RANGES = 200_000  # runs of entries with the same verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """The order with this digest is accepted, with these verdicts on its entries.

    A later record for the same document, which came with more signatures, replaces an earlier one.
    """

    issuer: str
    order_id: str
    sha256: str
    judgement: Judgement
    acks: tuple[str, ...] = ()  # guard codes that the issuer's signatures have released
    entries_sha256: str | None = None  # of its entries, as they were parsed then
    parsed_sha256: str | None = None  # of the whole document, as it was parsed then
    unreadable: tuple[tuple[int, int], ...] = ()  # runs of written entries that could not be read then

    def applied_to(self, order: Order, at: datetime, by: Principal, n: int) -> Order:
        """The order with this judgement, which record `n` has. Earlier releases still apply."""
        before, now = order.judgement, self.judgement
        refused = order.refused
        if now.ignored or now.unknown:
            readable = (one for one in refused if not one.code.startswith("UNKNOWN"))
            refused = (*readable, *_refused_targets(now))
        if before == ACCEPTED:  # the first judgement
            received_at, accepted_n = order.received_at or at, order.accepted_n or n
            facts = {"received_at": received_at, "accepted_n": accepted_n}
            return replaced(order, judgement=now, refused=refused, **facts)
        approved_at, proposers = before.approved_at, before.proposers
        if before.is_proposed and not now.is_proposed:
            approved_at, officers = at, {one.fingerprint for one in now.signers}
            proposers = tuple(one for one in before.signers if one.fingerprint not in officers)
        judgement = replace(
            now,
            releases=before.releases,
            refusals=before.refusals,
            passes_gap=before.passes_gap,
            approved_at=approved_at,
            proposers=proposers,
        ).with_verdicts(now.verdicts)
        if freed := tuple(sorted(before.idle - judgement.idle)):
            judgement = judgement.released(Release(at, by, "more signatures", freed))
            order = replace(order, verified_at=None)  # no probe has queried the released names yet
        accepted_n = order.accepted_n or n
        return replace(order, judgement=judgement, refused=refused, accepted_n=accepted_n)

    def as_json(self) -> dict[str, Any]:
        """The fields of a record."""
        judgement = self.judgement
        return {
            "issuer": self.issuer,
            "order_id": self.order_id,
            "sha256": self.sha256,
            "proposed": judgement.is_proposed,
            "signers": [[one.principal, one.fingerprint, one.algorithm] for one in judgement.signers],
            "entries": _grouped(judgement.verdicts),
            "acks": list(self.acks),
            "entries_sha256": self.entries_sha256,
            "parsed_sha256": self.parsed_sha256,
            "unreadable": [list(one) for one in self.unreadable],
            "ignored_targets": list(judgement.ignored),
            "unknown_entries": [[order_id, list(entries)] for order_id, entries in judgement.unknown],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Judged":
        """Parses the fields of a record. Raises `ValueError`, `KeyError` and `TypeError`."""
        # Lists, since a startup makes many of these, nearly all of them empty.
        signers = tuple([Signed(str(one), str(two), str(three)) for one, two, three in value["signers"]])
        verdicts = list(_ungrouped(value["entries"]))
        ignored = tuple([_text(one) for one in value["ignored_targets"]])
        unknown = tuple(
            [
                (_text(order_id), tuple([_text(one) for one in entries]))
                for order_id, entries in value["unknown_entries"]
            ]
        )
        judgement = _judgement(signers, value["proposed"] is True, ignored, unknown).with_verdicts(verdicts)
        acks = tuple([str(one) for one in value["acks"]])
        digests = (value["entries_sha256"], value["parsed_sha256"])
        names = (_text(value["issuer"]), _text(value["order_id"]), _text(value["sha256"]))
        entries, whole = [None if one is None else _text(one) for one in digests]
        ranges = [_range(first, last) for first, last in value["unreadable"]]
        unreadable = tuple([(one.start, one.stop - 1) for one in ranges])
        return made(cls, *names, judgement, acks, entries, whole, unreadable)


@lru_cache(maxsize=1000)
def _judgement(
    signers: tuple[Signed, ...],
    is_proposed: bool,
    ignored: tuple[str, ...],
    unknown: tuple[tuple[str, tuple[str, ...]], ...],
) -> Judgement:
    """A judgement without verdicts. Most orders of an issuer have the same one."""
    return Judgement(signers, is_proposed=is_proposed, ignored=ignored, unknown=unknown)


def _refused_targets(judgement: Judgement) -> Iterator[RefusedEntry]:
    for order_id in judgement.ignored:
        reason = "no order that it may end had this order_id when it was accepted"
        yield RefusedEntry(None, order_id, "UNKNOWN_ORDER", reason)
    for order_id, entries in judgement.unknown:
        for entry in entries:
            yield RefusedEntry(None, entry, "UNKNOWN_ENTRY", f"the order {order_id} has no such entry")


def _grouped(verdicts: Iterable[EntryVerdict]) -> list[dict[str, Any]]:
    """Verdicts with the same reason as one object. `BULK` holds a hundred thousand entries at once."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for one in verdicts:
        reason = one.reason if len(found) < MAX_REASONS else "as other entries"
        found.setdefault((one.verdict, one.code, reason), []).append(one.index)
    return [
        {"verdict": verdict, "code": code, "reason": reason, "indexes": list(_ranges(sorted(indexes)))}
        for (verdict, code, reason), indexes in found.items()
    ]


def count_ranges(verdicts: Iterable[EntryVerdict]) -> int:
    """The runs of entries that a record of these verdicts names."""
    return sum(len(group["indexes"]) for group in _grouped(verdicts))


def unreadable_in(order: Order) -> tuple[tuple[int, int], ...]:
    """The runs of entries that cannot be read, among all that are written in a document."""
    found = sorted(one.index for one in order.refused if one.index is not None)
    return tuple((first, last) for first, last in _ranges(found))


def without(order: Order, unreadable: Iterable[tuple[int, int]]) -> Order:
    """The order without entries that could not be read when it was accepted, if they can be read now.

    Another version may read more names. Nobody has ordered that they are blocked from then on.
    """
    then = {index for first, last in unreadable for index in _range(first, last)}
    now = {one.index for one in order.refused if one.index is not None}
    readable = (index for index in range(len(order.entries) + len(now)) if index not in now)
    pairs = list(zip(readable, order.entries, strict=False))
    reason = "could not be read when the order was accepted"
    gone = [RefusedEntry(None, one.name, "SYNTAX", reason, index) for index, one in pairs if index in then]
    kept = tuple(one for index, one in pairs if index not in then)
    return replace(order, entries=kept, refused=(*order.refused, *gone))


def _ranges(indexes: list[int]) -> Iterator[list[int]]:
    """Sorted numbers as [first, last] of each run."""
    for _, run in groupby(enumerate(indexes), key=lambda item: item[1] - item[0]):
        numbers = [number for _, number in run]
        yield [numbers[0], numbers[-1]]


def _ungrouped(value: Any) -> Iterator[EntryVerdict]:
    for one in value:
        verdict = one["verdict"]
        if verdict not in ("held", "refused"):
            raise ValueError("not a verdict")
        code, reason = _text(one["code"]), _text(one["reason"])
        for first, last in one["indexes"]:
            indexes = _range(first, last)
            yield from (EntryVerdict(index, verdict, code, reason) for index in indexes)


def _range(first: int, last: int) -> range:
    """The numbers of a run. Raises `ValueError`."""
    if not 0 <= first <= last < 20_000_000:
        raise ValueError("not a range of entries")
    return range(first, last + 1)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


# ------- Facts whose fields are plain values -------


@dataclass(frozen=True, slots=True)
class SignatureVerified:
    """These signatures of a document were verified."""

    KIND: ClassVar[str] = "signature_verified"
    issuer: str
    order_id: str
    sha256: str  # of the document
    signers: tuple[str, ...]  # principal and fingerprint of each
    signatures: str  # the armoured signatures, so that others can verify them again


@dataclass(frozen=True, slots=True)
class Held:
    """Entries of an order, or the whole order, are not enforced yet."""

    KIND: ClassVar[str] = "held"
    issuer: str
    order_id: str
    entries: int
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Approval:
    """The operator released held entries of an order, or everything that is held in it."""

    KIND: ClassVar[str] = "approved"
    issuer: str
    order_id: str
    entries: tuple[int, ...] | None  # indexes; None: everything that is held
    reason: str


@dataclass(frozen=True, slots=True)
class EntriesRefused:
    """The operator refused held entries of an order. They never take effect."""

    KIND: ClassVar[str] = "entries_refused"
    issuer: str
    order_id: str
    runs: tuple[tuple[int, ...], ...]  # the first and the last index of each run of entries
    reason: str

    @classmethod
    def of(cls, issuer: str, order_id: str, entries: Iterable[int], reason: str) -> "EntriesRefused":
        """The refusal of the entries with these indexes."""
        return cls(issuer, order_id, tuple((first, last) for first, last in _ranges(sorted(entries))), reason)

    @property
    def entries(self) -> frozenset[int]:
        """The indexes of the entries. Raises `ValueError`."""
        return frozenset(index for first, last in self.runs for index in _range(first, last))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A document was refused. Only its digest is recorded, since anybody may send anything."""

    KIND: ClassVar[str] = "refused"
    file: str
    issuer: str | None  # None: unknown, since the document cannot be read
    order_id: str | None
    sha256: str
    reasons: tuple[str, ...]  # the first ones


@dataclass(frozen=True, slots=True)
class Annulment:
    """The operator annulled an accepted order that was erroneous."""

    KIND: ClassVar[str] = "annulled"
    issuer: str
    order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Activated:
    """Entries of an order are in force: the engine answers by them since the serial."""

    KIND: ClassVar[str] = "activated"
    issuer: str
    order_id: str
    entries: int
    serial: int


@dataclass(frozen=True, slots=True)
class Lifted:
    """Entries of an order are no longer in force: another order has ended them."""

    KIND: ClassVar[str] = "lifted"
    issuer: str
    order_id: str
    entries: int
    serial: int


@dataclass(frozen=True, slots=True)
class Expired:
    """The entries of an order are no longer in force: its time is over."""

    KIND: ClassVar[str] = "expired"
    issuer: str
    order_id: str
    entries: int
    serial: int


@dataclass(frozen=True, slots=True)
class Probed:
    """Resolvers were queried for the names of an order."""

    KIND: ClassVar[str] = "probed"
    issuer: str
    order_id: str
    queries: int
    misses: int
    missed: tuple[str, ...]  # resolver, name and type of the first misses


@dataclass(frozen=True, slots=True)
class Verified:
    """Every name of an order gave the expected answer on every resolver."""

    KIND: ClassVar[str] = "verified"
    issuer: str
    order_id: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt was signed."""

    KIND: ClassVar[str] = "receipt"
    issuer: str
    order_id: str
    sha256: str  # of the receipt


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """A checkpoint of the ledger was signed and stored."""

    KIND: ClassVar[str] = "checkpoint"
    size: int  # records
    root: str  # of the tree, in base64


@dataclass(frozen=True, slots=True)
class Allowed:
    """The operator exempts a name from lists until a time; a time that has passed ends this."""

    KIND: ClassVar[str] = "allowed"
    name: str  # canonical
    match: str
    until: str  # RFC 3339, in UTC
    reason: str


@dataclass(frozen=True, slots=True)
class ListAccepted:
    """A version of a bulk list took effect. Its zone stands for an issuer that signs nothing."""

    KIND: ClassVar[str] = "list_accepted"
    zone: str
    list_version: int
    entries: int
    added: int | None  # None: there was nothing to compare with
    removed: int | None
    sha256: str  # of the source's content


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon started, and serves this content."""

    KIND: ClassVar[str] = "start"
    software: str  # version of dnsblock
    serial: int
    content: str  # digest of the snapshot


@dataclass(frozen=True, slots=True)
class Stopped:
    """The daemon stopped regularly."""

    KIND: ClassVar[str] = "stop"
    serial: int


Decision = Annulment | Approval | EntriesRefused  # of the operator about an order
PlainFact = (
    SignatureVerified
    | Held
    | Approval
    | EntriesRefused
    | Refusal
    | Annulment
    | Activated
    | Lifted
    | Expired
    | Probed
    | Verified
    | Receipt
    | PublishedCheckpoint
    | Allowed
    | ListAccepted
    | Started
    | Stopped
)
_PLAIN: dict[str, type[Any]] = {one.KIND: one for one in get_args(PlainFact)}
_HINTS = {
    kind: {field.name: get_type_hints(one)[field.name] for field in fields(one)}
    for kind, one in _PLAIN.items()
}


def plain_as_json(fact: PlainFact) -> dict[str, Any]:
    """The fields of a record."""
    values = ((field.name, getattr(fact, field.name)) for field in fields(fact))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


def plain_from_json(kind: str, value: dict[str, Any]) -> PlainFact:
    """Parses the fields of a record of this kind. Raises `ValueError`, `KeyError` and `TypeError`."""
    values = {name: _typed(value[name], hint) for name, hint in _HINTS[kind].items()}
    fact: PlainFact = made(_PLAIN[kind], **values)
    if isinstance(fact, EntriesRefused):
        _ = fact.entries  # raises for a run that is none
    return fact


def _typed(value: Any, hint: Any) -> Any:
    """A value with the type of its field."""
    if type(value) is hint:
        return value
    for kind, inner in _kinds(hint):
        if inner is not None and isinstance(value, list):
            return tuple(_typed(one, inner) for one in value)
        if kind in (str, int) and type(value) is kind:
            return value
        if kind is type(None) and value is None:
            return None
    raise TypeError("a field has another type")


@cache
def _kinds(hint: Any) -> list[tuple[Any, Any]]:
    """The types that a field may have, and of a tuple the type of its items."""
    kinds = get_args(hint) if get_origin(hint) is not tuple else (hint,)
    return [(kind, get_args(kind)[0] if get_origin(kind) is tuple else None) for kind in kinds or (hint,)]
