"""The orders in force at a time: a pure function of the orders in the ledger and the time.

This state is never stored; the compiler, `status` and the timer derive it here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from dnsblock.orders.chain import Chain
from dnsblock.orders.order import Entry, Order, Target

StateName = Literal["held", "scheduled", "active", "partially lifted", "lifted", "expired", "annulled"]


@dataclass(frozen=True, slots=True)
class InForce:
    """An entry in force, and its order."""

    entry: Entry
    kind: Literal["block", "exempt"]
    order_id: str
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class OrderState:
    """The state of an order. An unblock is scheduled or active, and has no entries in force itself."""

    issuer: str
    order_id: str
    action: Literal["block", "unblock", "exempt"]
    state: StateName
    entries: int  # for an unblock: the number of entries that it names
    in_force: int
    effective_at: datetime
    expires_at: datetime | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class State:
    """The state of all orders at one time."""

    in_force: dict[str, tuple[InForce, ...]]  # by issuer, including every issuer with an order
    orders: tuple[OrderState, ...]  # in ledger order
    next_change_by_issuer: dict[str, datetime]  # only issuers with a future change

    @property
    def next_change_at(self) -> datetime | None:
        """When the next entry starts or ends without a new order."""
        return min(self.next_change_by_issuer.values(), default=None)


def derive(orders: Sequence[Order], at: datetime) -> State:
    """Derives the entries in force `at` an aware time. Linear in the number of entries and targets.

    In force means effective_at <= at < expires_at, and not ended by an unblock with effective_at <= at.
    """
    by_issuer: dict[str, list[Order]] = {}
    for order in orders:
        by_issuer.setdefault(order.issuer, []).append(order)
    in_force: dict[str, tuple[InForce, ...]] = {}
    next_change: dict[str, datetime] = {}
    states: dict[str, OrderState] = {}
    for issuer, own in by_issuer.items():
        chain = Chain.at(own, at)
        idle = {order.sha256: why for order in own if (why := _why_idle(order, chain, at)) is not None}
        enforced = [order for order in own if order.sha256 not in idle]
        freed = {order.order_id for order in own if order.is_annulled(at)}
        lifting = _lift(enforced, freed)
        entries: list[InForce] = []
        for order in own:
            now = [] if order.sha256 in idle else list(_in_force(order, lifting, at))
            entries.extend(now)
            states[order.sha256] = _state(order, idle.get(order.sha256), lifting, len(now), at)
        in_force[issuer] = tuple(entries)
        if changes := [time for time in _changes(enforced, lifting) if time > at]:
            next_change[issuer] = min(changes)
    return State(in_force, tuple(states[order.sha256] for order in orders), next_change)


_Idle = tuple[Literal["held", "annulled"], str]  # the state, and a note with the reason


def _why_idle(order: Order, chain: Chain, at: datetime) -> _Idle | None:
    """Why an order is not enforced at any time; None if it is."""
    if order.annulled is not None and order.is_annulled(at):
        return "annulled", f"ANNULLED: by {order.annulled.by}: {order.annulled.reason}"
    return chain.verdict(order)


# ------- Unblocks -------


@dataclass(slots=True)
class _Lifting:
    """The entries that one issuer's unblock orders end, now or in the future."""

    ended: dict[str, dict[int, datetime]] = field(default_factory=dict)  # by order_id: entry index -> end
    named: dict[str, int] = field(default_factory=dict)  # by order_id of the unblock: entries it names
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _lift(orders: Sequence[Order], freed: set[str]) -> _Lifting:
    lifting = _Lifting()
    lifted_by = _targets(orders, freed)
    by_name: dict[str, dict[str, list[int]]] = {}
    # By time, so that the first one that names an entry ends it.
    unblocks = sorted((o for o in orders if o.action == "unblock"), key=lambda order: order.effective_at)
    for unblock in unblocks:
        named = 0
        lifted = 0
        for target, block in lifted_by[unblock.order_id]:
            if target.order_id not in by_name:
                by_name[target.order_id] = _index(block)
            indexes = _named(block, target, by_name[target.order_id])
            ended = lifting.ended.setdefault(target.order_id, {})
            named += len(indexes)
            lifted += _end(block, ended, indexes, unblock.effective_at)
        lifting.named[unblock.order_id] = named
        if lifted < named:
            note = f"NOT_BLOCKED: {named - lifted} of {named} entries had ended already"
            lifting.notes[unblock.order_id] = (note,)
    return lifting


def _targets(orders: Sequence[Order], freed: set[str]) -> dict[str, list[tuple[Target, Order]]]:
    """The targets of each unblock with their blocks, by its order_id. `orders` excludes held blocks.

    `freed` are the numbers of annulled orders. An unblock refers to the order that had the number when the
    unblock was accepted, not to a later order that took the number.
    """
    blocks = {order.order_id: (place, order) for place, order in enumerate(orders) if order.action == "block"}
    found: dict[str, list[tuple[Target, Order]]] = {}
    for place, unblock in enumerate(orders):
        own = found.setdefault(unblock.order_id, [])
        for target in unblock.targets:
            if target.order_id in blocks:
                place_of_block, block = blocks[target.order_id]
                if place_of_block < place or target.order_id not in freed:
                    own.append((target, block))
    return found


def _end(block: Order, ended: dict[int, datetime], indexes: Sequence[int], at: datetime) -> int:
    """Ends the entries that have not ended yet; returns their number."""
    if len(ended) == len(block.entries) or (block.expires_at is not None and block.expires_at <= at):
        return 0
    before = len(ended)
    for index in indexes:
        ended.setdefault(index, at)
    return len(ended) - before


def _named(block: Order, target: Target, by_name: dict[str, list[int]]) -> Sequence[int]:
    """The indexes of the entries that a target names."""
    if target.entries is None:
        return range(len(block.entries))
    return list(
        dict.fromkeys(
            index
            for wanted in target.entries
            for index in by_name.get(wanted.name, ())
            if wanted.match in (None, block.entries[index].match)
        )
    )


def _index(order: Order) -> dict[str, list[int]]:
    by_name: dict[str, list[int]] = {}
    for index, entry in enumerate(order.entries):
        by_name.setdefault(entry.name, []).append(index)
    return by_name


# ------- One order at one time -------


def _in_force(order: Order, lifting: _Lifting, at: datetime) -> Iterator[InForce]:
    if order.action == "unblock" or at < order.effective_at:
        return
    if order.expires_at is not None and at >= order.expires_at:
        return
    ended = lifting.ended.get(order.order_id, {})
    for index, entry in enumerate(order.entries):
        if index not in ended or at < ended[index]:
            yield InForce(entry, order.action, order.order_id, order.effective_at)


def _changes(orders: Iterable[Order], lifting: _Lifting) -> Iterator[datetime]:
    """Every time at which something starts or ends."""
    for order in orders:
        yield order.effective_at
        is_lifted = len(lifting.ended.get(order.order_id, ())) == len(order.entries)
        if order.expires_at is not None and not is_lifted:
            yield order.expires_at


def _state(order: Order, idle: _Idle | None, lifting: _Lifting, in_force: int, at: datetime) -> OrderState:
    return OrderState(
        issuer=order.issuer,
        order_id=order.order_id,
        action=order.action,
        state=idle[0] if idle else _state_name(order, lifting, at),
        entries=lifting.named.get(order.order_id, 0) if order.action == "unblock" else len(order.entries),
        in_force=in_force,
        effective_at=order.effective_at,
        expires_at=order.expires_at,
        notes=(idle[1],) if idle else lifting.notes.get(order.order_id, ()),
    )


def _state_name(order: Order, lifting: _Lifting, at: datetime) -> StateName:
    lifted = sum(end <= at for end in lifting.ended.get(order.order_id, {}).values())
    if lifted and lifted == len(order.entries):
        return "lifted"
    if at < order.effective_at:
        return "scheduled"
    if order.expires_at is not None and at >= order.expires_at:
        return "expired"
    return "partially lifted" if lifted else "active"
