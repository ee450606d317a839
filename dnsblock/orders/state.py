"""The orders in force at a time: a pure function of the orders in the ledger and the time.

This state is never stored; the compiler, `status` and the timer derive it here. Parts that did not change
since a former state are taken from it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from dnsblock.orders.copies import made
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.life import InForce, Life, Part, StateName
from dnsblock.orders.name_index import MANY, MANY_SHARE, Names
from dnsblock.orders.orders import Orders
from dnsblock.orders.schema import Action
from dnsblock.orders.shared import Lineage, SharedDict


@dataclass(frozen=True, slots=True)
class OrderState:
    """The state of an order. One with targets only has no entries in force itself."""

    issuer: str
    order_id: str
    sha256: str
    action: Action
    state: StateName
    entries: int  # for an unblock or a revoke: the number of entries that it names
    in_force: int
    held: int  # entries that a guard holds
    refused: int  # entries that are refused
    effective_at: datetime
    expires_at: datetime | None
    notes: tuple[str, ...]


class _Counted(NamedTuple):
    """How some entries came from earlier ones, how many they are, and the index of their names."""

    lineage: Lineage
    entries: int
    answers: int
    names: Names
    lacking: frozenset[str] = frozenset()  # orders that the index may lack

    @classmethod
    def of(cls, parts: Mapping[str, Part], names: Names | None = None) -> "_Counted":
        """Without earlier ones."""
        answers = sum(len(part.answers) for part in parts.values())
        index = None if names is None else names.index
        known = () if index is None else (sha256 for sha256 in parts if not index.knows(sha256))
        return cls(Lineage(), sum(map(len, parts.values())), answers, names or Names(), frozenset(known))


class Entries:
    """The entries of one issuer that are in force, by the SHA-256 of their order.

    A part that stays the same in a later state is the same object.
    """

    def __init__(self, parts: Mapping[str, Part], counted: "_Counted | None" = None) -> None:
        """`counted`: their lineage and counts, if these are known."""
        self.parts = parts
        self._counted = counted or _Counted.of(parts)

    @property
    def answers(self) -> int:
        """The number of orders and answer profiles: as many rules are needed."""
        return self._counted.answers

    def with_parts(self, changed: Mapping[str, Part | None], names: Names) -> "Entries":
        """With other parts of some orders; None: without one."""
        parts, counted = SharedDict.of(self.parts), self._counted
        entries, answers, index = counted.entries, counted.answers, names.index
        for sha256, part in changed.items():
            if (before := parts.get(sha256)) is not None:
                entries, answers = entries - len(before), answers - len(before.answers)
            if part is not None:
                entries, answers = entries + len(part), answers + len(part.answers)
                parts[sha256] = part
            elif before is not None:
                del parts[sha256]
        lacking = {*counted.lacking, *changed}
        if index is not None:
            lacking = {sha256 for sha256 in lacking if not index.knows(sha256)}
        lineage = counted.lineage.then(frozenset(changed))
        return Entries(parts, _Counted(lineage, entries, answers, names, frozenset(lacking)))

    def without(self, sha256: str) -> "Entries":
        """The entries of other orders."""
        return self.with_parts({sha256: None}, self._counted.names)

    def only(self, names: Collection[str]) -> "Entries":
        """The entries with one of these names."""
        found = ((sha256, part.only(names)) for sha256, part in self._near(names))
        return Entries({sha256: part for sha256, part in found if part is not None})

    def __iter__(self) -> Iterator[InForce]:
        for part in self.parts.values():
            yield from part.items

    def __len__(self) -> int:
        return self._counted.entries

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entries) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def changed_since(self, former: "Entries") -> tuple[set[str], set[str]]:
        """The names of the entries that only `former` has, and those of entries that only these have."""
        keys = self._counted.lineage.between(former._counted.lineage)
        if keys is None:
            keys = {*former.parts, *self.parts}
        pairs = [(former.parts.get(key), self.parts.get(key)) for key in keys]
        differing = [
            (before, now)
            for before, now in pairs
            if before is not now and (before is None or now is None or not now.is_alike(before))
        ]
        gone = [before.beside(now).names for before, now in differing if before is not None]
        come = [now.beside(before).names for before, now in differing if now is not None]
        return set().union(*gone), set().union(*come)

    def named(self, names: Collection[str]) -> list[InForce]:
        """The entries with one of these names."""
        return [
            InForce(entry, part.kind, part.order.order_id, part.order.effective_at)
            for _, near in self._near(names)
            if (part := near.only(names)) is not None
            for entry in part.entries
        ]

    def having(self, names: set[str]) -> set[str]:
        """Those of the names that have an entry."""
        return set().union(*(names.intersection(part.names) for _, part in self._near(names)))

    def _near(self, names: Collection[str]) -> Iterable[tuple[str, Part]]:
        """The parts that may have entries with one of these names."""
        index = self._counted.names.index
        if index is None or len(names) > max(MANY, len(self) // MANY_SHARE):
            return self.parts.items()
        candidates = index.candidates(names) | self._counted.lacking
        return ((sha256, self.parts[sha256]) for sha256 in candidates if sha256 in self.parts)


NO_ENTRIES = Entries({})


@dataclass(frozen=True, slots=True)
class IssuerState:
    """The state of one issuer's orders at a time."""

    orders: IssuerOrders
    at: datetime
    in_force: Entries
    states: Mapping[str, OrderState]  # by SHA-256 of the document, in ledger order
    held: Mapping[str, OrderState]  # of these, the orders that are held
    lineage: Lineage

    def changed_since(self, former: "IssuerState | None") -> Iterable[str]:
        """The orders whose state may differ from a former one."""
        keys = None if former is None else self.lineage.between(former.lineage)
        if keys is None:
            return self.states.keys()
        own = keys & self.states.keys()
        return sorted(own, key=lambda key: (self.states[key].effective_at, self.states[key].order_id))


@dataclass(frozen=True, slots=True)
class State:
    """The state of all orders at one time."""

    known: Orders
    at: datetime
    by_issuer: Mapping[str, IssuerState] = field(default_factory=dict)

    @property
    def in_force(self) -> Mapping[str, Entries]:
        """The entries in force by issuer, including every issuer with an order."""
        return {issuer: state.in_force for issuer, state in self.by_issuer.items()}

    @property
    def orders(self) -> tuple[OrderState, ...]:
        """The states of all orders, in ledger order."""
        return tuple(self.by_issuer[issuer].states[sha256] for issuer, sha256 in self.known.sequence)

    def order(self, issuer: str, order_id: str) -> OrderState | None:
        """The state of the latest order with this number."""
        life = self.known.of(issuer).latest(order_id)
        return None if life is None else self.by_issuer[issuer].states[life.order.sha256]

    def entries_of(self, issuer: str | None) -> Entries:
        """The entries of an issuer that are in force."""
        state = self.by_issuer.get(issuer or "")
        return NO_ENTRIES if state is None else state.in_force

    def next_change_of(self, issuer: str | None) -> datetime | None:
        """When the next entry of an issuer starts or ends without a new order."""
        state = self.by_issuer.get(issuer or "")
        return None if state is None else state.orders.next_change_of_answers(state.at)

    @property
    def next_change_at(self) -> datetime | None:
        """When the state of the next order changes without a new one, or the next allowance ends."""
        found = [state.orders.next_change(state.at) for state in self.by_issuer.values()]
        found.append(self.known.allowances.next_change(self.at))
        return min((time for time in found if time is not None), default=None)


def derive(orders: Orders, at: datetime, former: State | None = None) -> State:
    """Derives the entries in force `at` an aware time.

    In force means effective_at <= at < expires_at, neither held nor refused, and not ended by an order with
    effective_at <= at. `former` is any state: the parts that are the same are taken from it.
    """
    before = {} if former is None else former.by_issuer
    return State(
        orders, at, {issuer: _issuer(own, at, before.get(issuer)) for issuer, own in orders.issuers.items()}
    )


def _issuer(orders: IssuerOrders, at: datetime, former: IssuerState | None) -> IssuerState:
    changed = None if former is None else orders.lineage.between(former.orders.lineage)
    if former is None or changed is None:  # the first state, or another ledger
        return _derived(orders, at)
    changed |= orders.changed_between(former.at, at)
    if not changed:
        return IssuerState(orders, at, former.in_force, former.states, former.held, former.lineage)
    states, held = SharedDict.of(former.states), dict(former.held)
    parts: dict[str, Part | None] = {}
    for sha256 in changed:
        life = orders.lives.get(sha256)
        if life is None:  # another ledger: the operator has accepted a restore, or a draft was dropped
            states.pop(sha256, None)
            held.pop(sha256, None)
            if sha256 in former.in_force.parts:
                parts[sha256] = None
            continue
        now, before = life.in_force(at), former.in_force.parts.get(sha256)
        if before is not None if now is None else not now.is_same(before):
            parts[sha256] = now
        states[sha256] = _state(life, 0 if now is None else len(now), at)
        held.pop(sha256, None)
        if states[sha256].state == "held":
            held[sha256] = states[sha256]
    in_force = former.in_force
    if parts:
        in_force = in_force.with_parts(parts, orders.names)
    return IssuerState(orders, at, in_force, states, held, former.lineage.then(frozenset(changed)))


def _derived(orders: IssuerOrders, at: datetime) -> IssuerState:
    """The state of all orders, without a former one."""
    parts: dict[str, Part] = {}
    states: dict[str, OrderState] = {}
    for sha256, life in orders.lives.items():
        now = life.in_force(at)
        if now is not None:
            parts[sha256] = now
        states[sha256] = _state(life, 0 if now is None else len(now), at)
    held = {sha256: state for sha256, state in states.items() if state.state == "held"}
    in_force = Entries(SharedDict(parts), _Counted.of(parts, orders.names))
    return IssuerState(orders, at, in_force, SharedDict(states), held, Lineage())


def _state(life: Life, in_force: int, at: datetime) -> OrderState:
    order = life.order
    state, notes = life.state(at)
    return made(
        OrderState,
        issuer=order.issuer,
        order_id=order.order_id,
        sha256=order.sha256,
        action=order.action,
        state=state,
        entries=len(order.entries) or life.named,
        in_force=in_force,
        held=order.judgement.count("held"),
        refused=len(order.refused) + order.judgement.count("refused"),
        effective_at=order.effective_at,
        expires_at=order.expires_at,
        notes=notes,
    )
