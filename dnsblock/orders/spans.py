"""The time spans in which entries for a few names were in force here, and will be by the orders known now.

Used by `history` and `why`. An order is never in force before it was received, released or approved here.
That is the difference to `state.derive`, which tells the law. So the records about these names are replayed,
each at its time.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from dnsblock.orders.entry import Entry
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.known import Related
from dnsblock.orders.life import Life
from dnsblock.orders.order import Order
from dnsblock.orders.orders import Orders
from dnsblock.orders.records import Record

_Key = tuple[str, int]  # the SHA-256 of an order, and the index of an entry


@dataclass(frozen=True, slots=True)
class Span:
    """A time span in which an entry is in force: from `start` (inclusive) to `end` (exclusive)."""

    order: Order
    entry: Entry
    start: datetime
    end: datetime | None  # None: no known end
    why_ended: str  # in words


def spans_of(records: Iterable[Record], orders: Orders, issuer: str, names: Collection[str]) -> list[Span]:
    """The spans of one issuer's entries for these names, past and scheduled. `orders`: of all records."""
    related = Related.of(issuer, orders.of(issuer), names)
    if related is None:
        return []
    watch = _Watch(names)
    for at, known in related.replayed(records):
        watch.see(known, at)
    return watch.finished()


def scheduled_spans(orders: IssuerOrders, names: Collection[str], now: datetime) -> list[Span]:
    """The same from now on. A span that has begun starts now."""
    own = orders.only(orders.about(names))
    watch = _Watch(names)
    watch.see(own, now)
    for at in own.changes_after(now, None):
        watch.see(own, at)
    return watch.finished()


class _Watch:
    """Follows which entries are in force."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._indexes: dict[str, list[int]] = {}  # of the entries for these names, by order
        self._seen: tuple[IssuerOrders, datetime] | None = None
        self._open: dict[_Key, datetime] = {}
        self._spans: list[Span] = []
        self._lives: dict[str, Life] = {}

    def see(self, orders: IssuerOrders, at: datetime) -> None:
        """The orders that are known at a time, not before the last one."""
        for sha256 in self._changed(orders, at):
            life = self._lives[sha256] = orders.lives[sha256]
            for index in self._indexes_of(life.order):
                key, is_open = (sha256, index), (sha256, index) in self._open
                if life.is_in_force(index, at) == is_open:
                    continue
                if not is_open:
                    self._open[key] = at
                elif (start := self._open.pop(key)) < at:
                    self._spans.append(_span(life, index, start, at))
        self._seen = (orders, at)

    def _changed(self, orders: IssuerOrders, at: datetime) -> Iterable[str]:
        if self._seen is None:
            return list(orders.lives)
        before, then = self._seen
        new = {sha256 for sha256, life in orders.lives.items() if before.lives.get(sha256) is not life}
        return new | orders.changed_between(then, at)

    def _indexes_of(self, order: Order) -> list[int]:
        if order.sha256 not in self._indexes:
            found = (index for index, entry in enumerate(order.entries) if entry.name in self._names)
            self._indexes[order.sha256] = list(found)
        return self._indexes[order.sha256]

    def finished(self) -> list[Span]:
        """All spans, in the sequence of their start."""
        for (sha256, index), start in self._open.items():
            order = self._lives[sha256].order
            self._spans.append(Span(order, order.entries[index], start, None, ""))
        return sorted(self._spans, key=lambda span: span.start)


def _span(life: Life, index: int, start: datetime, end: datetime) -> Span:
    return Span(life.order, life.order.entries[index], start, end, _why_ended(life, index, end))


def _why_ended(life: Life, index: int, at: datetime) -> str:
    number = life.order.order_id
    if life.is_annulled(at):
        return f"order {number}, annulled"
    enders = [end for end in (*life.whole, *life.ends.get(index, ())) if end.covers(at)]
    if enders:
        by = dict.fromkeys(end.by.order_id for end in enders)
        return f"order {', '.join(by)}, of {number}"
    if life.is_over(at):
        return f"order {number}, expired"
    return f"order {number}, held"
