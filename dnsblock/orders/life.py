"""One order and its effect at each time: when its entries start, and when and by what they end."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal, NamedTuple

from dnsblock.orders.entry import Entry, PlainEntries
from dnsblock.orders.order import Order
from dnsblock.orders.schema import Action, Match

StateName = Literal[
    "held",
    "proposed",
    "notice",
    "scheduled",
    "active",
    "verified",
    "partially lifted",
    "lifted",
    "expired",
    "superseded",
    "revoked",
    "annulled",
    "refused",  # every entry, the last ones by the operator
]
_ENDED: Mapping[Action, StateName] = {"unblock": "lifted", "revoke": "revoked", "supersede": "superseded"}


_NO_PROFILE: frozenset[str | None] = frozenset([None])
_SUBTREE: frozenset[Match] = frozenset(["subtree"])


class InForce(NamedTuple):
    """An entry in force, and its order."""

    entry: Entry
    kind: Literal["block", "exempt"]
    order_id: str
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class Part:
    """The entries of one order that are in force. They are not copied: there may be millions."""

    order: Order
    indexes: tuple[int, ...] | None  # of its entries; None: all
    answers: frozenset[str | None] = field(compare=False)  # the answer profiles of these entries

    @classmethod
    def of(cls, order: Order, indexes: Iterable[int] | None = None) -> "Part":
        """All entries of an order, or those with these indexes."""
        own = None if indexes is None else tuple(indexes)
        if isinstance(order.entries, PlainEntries):
            return cls(order, own, _NO_PROFILE)
        entries = order.entries if own is None else (order.entries[index] for index in own)
        return cls(order, own, frozenset(entry.answer for entry in entries))

    def __len__(self) -> int:
        return len(self.order.entries) if self.indexes is None else len(self.indexes)

    @property
    def matches(self) -> Collection[Match]:
        """The match types of the entries, each once."""
        is_plain = isinstance(self.order.entries, PlainEntries)
        return _SUBTREE if is_plain else {entry.match for entry in self.entries}

    @property
    def kind(self) -> Literal["block", "exempt"]:
        """The effect of the entries."""
        return "exempt" if self.order.action == "exempt" else "block"

    @property
    def entries(self) -> Iterable[Entry]:
        """The entries."""
        every = self.order.entries
        return every if self.indexes is None else (every[index] for index in self.indexes)

    @property
    def text(self) -> str:
        """The names of the entries, one per line."""
        every = self.order.entries
        if self.indexes is None and isinstance(every, PlainEntries):
            return every.text
        return "\n".join(self.names)

    @property
    def names(self) -> list[str]:
        """The name of each entry."""
        every = self.order.names
        return every if self.indexes is None else [every[index] for index in self.indexes]

    @property
    def items(self) -> Iterator[InForce]:
        """The entries with their order."""
        kind, order = self.kind, self.order
        return (InForce(entry, kind, order.order_id, order.effective_at) for entry in self.entries)

    @property
    def _effect(self) -> tuple[str, str, datetime]:
        """All that an item has besides its entry."""
        return self.kind, self.order.order_id, self.order.effective_at

    def beside(self, other: "Part | None") -> "Part":
        """The entries that another part of the same order does not have."""
        if other is None or self._effect != other._effect or self.order.entries != other.order.entries:
            return self
        if other.indexes is None:
            return Part.of(self.order, ())
        had = set(other.indexes)
        among = range(len(self.order.entries)) if self.indexes is None else self.indexes
        return Part.of(self.order, (index for index in among if index not in had))

    def is_alike(self, other: "Part") -> bool:
        """Whether another part of the same order has the same items: nothing is `beside` either."""
        return (
            self.indexes == other.indexes
            and self.order.entries == other.order.entries
            and self._effect == other._effect
        )

    def is_same(self, other: "Part | None") -> bool:
        """Whether another part has the same entries of the same order."""
        return other is not None and (other.order.sha256, other.indexes) == (self.order.sha256, self.indexes)

    def only(self, names: Collection[str]) -> "Part | None":
        """The part of these entries with one of the names."""
        own = self.order.names
        among = range(len(own)) if self.indexes is None else self.indexes
        found = [index for index in among if own[index] in names]
        if not found:
            return None
        return self if len(found) == len(among) else Part.of(self.order, found)


@dataclass(frozen=True, slots=True)
class End:
    """An order that ends entries of another one, from `at` (inclusive) to `until` (exclusive)."""

    at: datetime
    by: Order
    until: datetime | None = None  # it was annulled then; None: for ever

    def covers(self, at: datetime) -> bool:
        """Whether it applies at a time."""
        return self.at <= at and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class Standing:
    """Why a whole order is not enforced, with a note for people."""

    state: Literal["held", "annulled", "proposed", "notice"]
    note: str


_Ends = Mapping[int, tuple[End, ...]]
_NO_ENDS: _Ends = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Life:
    """An order, as known from all orders of its issuer. Immutable: a new order makes a new life."""

    order: Order
    standing: Standing | None = None
    whole: tuple[End, ...] = ()  # ends of all its entries
    ends: _Ends = field(default_factory=lambda: _NO_ENDS)  # ends of single entries, by index
    named: int = 0  # of an order with targets: the entries that it names
    had_ended: int = 0  # of these: entries that something else had ended before
    notes: tuple[str, ...] = ()  # on orders that are missing, although this one applies

    def is_annulled(self, at: datetime) -> bool:
        """Whether the operator had annulled it by that time."""
        return self.order.is_annulled(at)

    def has_started(self, at: datetime) -> bool:
        """Whether it takes or took effect."""
        return at >= self.order.effective_at

    def is_over(self, at: datetime) -> bool:
        """Whether it has expired."""
        return self.order.expires_at is not None and at >= self.order.expires_at

    def in_force(self, at: datetime) -> Part | None:
        """The entries in force at a time; None if there are none."""
        order = self.order
        if not order.entries or not self._may_apply(at) or any(end.covers(at) for end in self.whole):
            return None
        if not order.judgement.idle and not self.ends:
            return Part.of(order)
        free = tuple(index for index in range(len(order.entries)) if self._is_free(index, at))
        if not free:
            return None
        return Part.of(order, None if len(free) == len(order.entries) else free)

    def _may_apply(self, at: datetime) -> bool:
        order = self.order
        if self.standing is not None or order.action not in ("block", "supersede", "exempt"):
            return False
        return self.has_started(at) and not self.is_over(at) and not self.is_annulled(at)

    def is_in_force(self, index: int, at: datetime) -> bool:
        """Whether one entry is in force at a time."""
        if not self._may_apply(at) or any(end.covers(at) for end in self.whole):
            return False
        return self._is_free(index, at)

    def _is_free(self, index: int, at: datetime) -> bool:
        """Whether an entry is neither held, nor refused, nor ended."""
        if index in self.order.judgement.idle:
            return False
        return not any(end.covers(at) for end in self.ends.get(index, ()))

    def ended(self, index: int, at: datetime) -> End | None:
        """The end of an entry at a time: the earliest one."""
        found = (end for end in (*self.whole, *self.ends.get(index, ())) if end.covers(at))
        return min(found, key=lambda end: end.at, default=None)

    def count_ended(self, at: datetime) -> int:
        """The number of entries that another order has ended."""
        return len(self._ended_indexes(at))

    def count_ended_only_by(self, by: Order) -> int:
        """The number of entries that an order ends, and that nothing else has ended when it takes effect."""
        at = by.effective_at
        others = [end for end in self.whole if end.by.sha256 != by.sha256]
        if any(end.covers(at) for end in others):
            return 0
        found = 0
        for index in range(len(self.order.entries)):
            ends = self.ends.get(index, ())
            is_by_it = len(others) < len(self.whole) or any(end.by.sha256 == by.sha256 for end in ends)
            found += is_by_it and not any(end.by.sha256 != by.sha256 and end.covers(at) for end in ends)
        return found

    def _ended_indexes(self, at: datetime) -> Collection[int]:
        if not self.whole and not self.ends:
            return ()
        if any(end.covers(at) for end in self.whole):
            return range(len(self.order.entries))
        return {index for index, ends in self.ends.items() if any(end.covers(at) for end in ends)}

    def boundaries(self) -> Iterator[datetime]:
        """Every time at which its state or its entries in force change without a new record."""
        order = self.order
        if order.annulled is not None:
            yield order.annulled.at
        if self.standing is not None and self.standing.state != "notice":
            return
        yield order.effective_at
        if order.statement is not None:
            yield order.statement.valid_until
        if order.expires_at is not None and not self._is_ended_for_ever():
            yield order.expires_at
        if order.statement is not None:
            yield order.statement.valid_until
        if order.verified_at is not None:
            yield order.verified_at
        for end in (*self.whole, *(end for ends in self.ends.values() for end in ends)):
            yield end.at
            if end.until is not None:
                yield end.until

    def changes_answers(self, at: datetime) -> bool:
        """Whether entries start or end at a time. A notice, for example, has none that do."""
        if len(self.order.judgement.idle) == len(self.order.entries):
            return False
        before = at - timedelta(microseconds=1)
        was_idle, is_idle = (
            not self._may_apply(time) or any(end.covers(time) for end in self.whole) for time in (before, at)
        )
        if was_idle or is_idle:
            return was_idle != is_idle
        return any(
            any(end.covers(at) for end in ends) != any(end.covers(before) for end in ends)
            for ends in self.ends.values()
        )

    def _is_ended_for_ever(self) -> bool:
        if any(end.until is None for end in self.whole):
            return True
        lasting = sum(any(end.until is None for end in ends) for ends in self.ends.values())
        return lasting == len(self.order.entries)

    def state(self, at: datetime) -> tuple[StateName, tuple[str, ...]]:
        """The state at a time, and notes on it."""
        order = self.order
        if order.annulled is not None and order.is_annulled(at):
            return "annulled", (f"ANNULLED: by {order.annulled.by.public()}: {order.annulled.reason}",)
        if self.standing is not None and self.standing.state != "notice":
            return self.standing.state, (self.standing.note,)
        return self._name(at), self._notes()

    def _notes(self) -> tuple[str, ...]:
        notes = list(self.notes)
        if self.standing is not None:
            notes.append(self.standing.note)
        if self.had_ended:
            notes.append(f"NOT_BLOCKED: {self.had_ended:,} of {self.named:,} entries had ended already")
        for code, count in self._held_by_code().items():
            entries = "1 entry is" if count == 1 else f"{count:,} entries are"
            notes.append(f"HELD: {entries} held by the guard {code}")
        return tuple(notes)

    def _held_by_code(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in self.order.judgement.held:
            found[one.code] = found.get(one.code, 0) + 1
        return found

    def _name(self, at: datetime) -> StateName:
        order = self.order
        ended = self._ended_indexes(at)
        refused = {one.index for one in order.judgement.refused} if ended else set()
        if ended and len(refused.union(ended)) == len(order.entries):
            own = (*self.whole, *(end for ends in self.ends.values() for end in ends))
            last = max((end for end in own if end.covers(at)), key=lambda end: end.at)
            return _ENDED[last.by.action]
        if not self.has_started(at):
            return "notice" if order.action == "notice" else "scheduled"
        if self.is_over(at):
            return "expired"
        if order.action == "notice":
            return "notice"
        if order.statement is not None and at >= order.statement.valid_until:
            return "expired"
        if order.entries and len(order.judgement.idle) == len(order.entries):
            return "held" if order.judgement.held else "refused"
        if ended:
            return "partially lifted"
        return "verified" if order.verified_at is not None and order.verified_at <= at else "active"
