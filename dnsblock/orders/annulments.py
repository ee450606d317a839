"""Annulments by the operator: finds the order in the ledger that each one refers to.

An annulment ends the entries of its order, and frees its `order_id` and `seq`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from dnsblock.errors import Problem, Refused
from dnsblock.orders.order import Annulled, Order
from dnsblock.orders.records import Annulment, Record
from dnsblock.principal import Principal

Received = tuple[datetime, Order]  # the time of acceptance, and the order


def received(records: Iterable[Record]) -> tuple[Received, ...]:
    """The orders in the records, each with its annulment if there is one."""
    found: list[Received] = []
    live: dict[tuple[str, str], int] = {}
    for record in records:
        fact = record.fact
        if isinstance(fact, Order):
            live[fact.issuer, fact.order_id] = len(found)
            found.append((record.at, fact))
        elif isinstance(fact, Annulment):
            place = live.pop((fact.issuer, fact.order_id), None)
            if place is not None:
                at, order = found[place]
                found[place] = (at, replace(order, annulled=Annulled(record.at, record.by, fact.reason)))
    return tuple(found)


def annul(
    orders: Sequence[Order], annulments: Sequence[Annulment], at: datetime, by: Principal
) -> tuple[Order, ...]:
    """The orders with these annulments applied. Raises `Refused` for an annulment without an order."""
    ended = {(one.issuer, one.order_id): one for one in annulments}
    found: list[Order] = []
    for order in orders:
        one = None if order.annulled is not None else ended.pop((order.issuer, order.order_id), None)
        found.append(order if one is None else replace(order, annulled=Annulled(at, by, one.reason)))
    if ended:
        reason = "no order with this order_id is in the ledger and not annulled: see `dnsblock status`"
        raise Refused(Problem(f"issuer {issuer}", None, order_id, reason) for issuer, order_id in ended)
    return tuple(found)
