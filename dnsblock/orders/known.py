"""The orders about a few names: by the law, or as they were known here at a time.

Used by `why` and `history`. A question about one name must cost neither a look at every entry of every order
nor a replay of the whole ledger. So only the orders that matter for the names are combined again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from dnsblock.orders.facts import Annulment, Approval, EntriesRefused, Judged
from dnsblock.orders.following import Following
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Order
from dnsblock.orders.orders import EMPTY, Orders, fold
from dnsblock.orders.records import Record

# The records that may change which entries are in force.
_DECISIVE = (Order, Judged, Annulment, Approval, EntriesRefused)


def about(orders: Orders, names: Collection[str]) -> Orders:
    """The orders with entries for these names. Their states and ends are those by all orders."""
    found = {issuer: own.only(own.about(names)) for issuer, own in orders.issuers.items()}
    return _of({issuer: own for issuer, own in found.items() if own.lives})


def known_about(records: Iterable[Record], orders: Orders, names: Collection[str], when: datetime) -> Orders:
    """The same as it was known at a time: only the records up to then count. `orders`: of all records."""
    related = {
        issuer: found
        for issuer, own in orders.issuers.items()
        if (found := Related.of(issuer, own, names)) is not None
    }
    if not related:
        return EMPTY
    by_issuer: dict[str, list[Record]] = {}
    for issuer, record in _said(records, {issuer: own.numbers for issuer, own in related.items()}):
        if record.at <= when:
            by_issuer.setdefault(issuer, []).append(record)
    return about(_of({issuer: related[issuer].known(own, when) for issuer, own in by_issuer.items()}), names)


def _of(issuers: Mapping[str, IssuerOrders]) -> Orders:
    sequence = tuple((issuer, sha256) for issuer, own in issuers.items() for sha256 in own.lives)
    return Orders(issuers, {}, sequence)


def _said(records: Iterable[Record], numbers: Mapping[str, Collection[str]]) -> Iterator[tuple[str, Record]]:
    """The decisive records about the orders with these numbers, with their issuer."""
    for record in records:
        fact = record.fact
        if isinstance(fact, _DECISIVE) and fact.order_id in numbers.get(fact.issuer, ()):
            yield fact.issuer, record


@dataclass(frozen=True, slots=True)
class Related:
    """The orders of an issuer that matter for some names.

    These are the orders with entries for the names, those that may end them, and all that these refer to. Of
    the other orders, only their `seq` matters: whether one of them was missing.
    """

    issuer: str
    numbers: frozenset[str]  # the order_id of each; a later order may have that of an annulled one
    following: Following

    @classmethod
    def of(cls, issuer: str, orders: IssuerOrders, names: Collection[str]) -> Self | None:
        """None if there is no order for these names."""
        own = [orders.lives[sha256].order for sha256 in orders.about(names)]
        if not own:
            return None
        numbers = {order.order_id for order in own}
        numbers |= {order.notice for order in own if order.notice is not None}
        enders = [
            order for order in orders.orders if any(target.order_id in numbers for target in order.targets)
        ]
        numbers |= {order.order_id for order in enders}
        numbers |= {target.order_id for order in enders for target in order.targets}
        return cls(issuer, frozenset(numbers), orders.following)

    def known(self, records: Iterable[Record], when: datetime) -> IssuerOrders:
        """The orders by these records, with the numbers of others that had come by a time."""
        orders = fold(records).of(self.issuer)
        own = [self._as_followed(order) for order in orders.orders]
        chain = self.following.at([order.seq for order in own if order.seq is not None], when)
        return IssuerOrders.among(own, chain)

    def _as_followed(self, order: Order) -> Order:
        """The order without its `seq`, if that never held it."""
        return replace(order, seq=None, prev=None) if self.following.is_regular(order) else order

    def replayed(self, records: Iterable[Record]) -> Iterator[tuple[datetime, IssuerOrders]]:
        """The orders at each time at which a record or the clock may have changed what is in force."""
        said = [self._without_number(record) for _, record in _said(records, {self.issuer: self.numbers})]
        documents = [record.fact for record in said if isinstance(record.fact, Order)]
        are_regular = all(order.seq is None for order in documents)
        times = sorted({record.at for record in said} | self.following.edges(documents))
        orders, seen = EMPTY, list[Record]()
        for place, at in enumerate(times):
            now = [record for record in said if record.at <= at]
            if are_regular and now[: len(seen)] == seen:
                orders = fold(now[len(seen) :], orders)
                own = orders.of(self.issuer)
            else:
                orders, own = fold(now), self.known(now, at)
            seen = now
            yield at, own
            until = times[place + 1] if place + 1 < len(times) else None
            for boundary in own.changes_after(at, until):
                yield boundary, own

    def _without_number(self, record: Record) -> Record:
        order = record.fact
        if not isinstance(order, Order) or order.seq is None:
            return record
        # An order is received when it is accepted.
        return record._replace(fact=self._as_followed(replace(order, received_at=record.at)))
