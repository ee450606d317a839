"""The input of the guards for one order: the protected names, and what its issuer has ordered before."""

from functools import lru_cache

from dnsblock.orders.authority import Authority
from dnsblock.orders.context import Context
from dnsblock.orders.guards import GuardContext, Key, protected_names
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Order
from dnsblock.orders.popular import NameSet


def guard_context(order: Order, authority: Authority, context: Context) -> GuardContext:
    """The input of the guards for a new order."""
    own = context.known.of(order.issuer)
    config = context.config
    landing = tuple(answer.target for answer in config.answers.values() if answer.target)
    return GuardContext(
        protected=_protected(config.protected, landing),
        popular=context.references.popular.names,
        bulk=config.guards.bulk,
        may_override=authority.may_override,
        sizes=_sizes(own) if len(order.entries) > (config.guards.bulk.entries or 0) else (),
        superseded=_superseded(order, own, context),
    )


@lru_cache(maxsize=4)
def _protected(names: tuple[str, ...], landing: tuple[str, ...]) -> NameSet:
    return protected_names(names, landing)


def _sizes(orders: IssuerOrders) -> list[int]:
    """The accepted entries of the issuer's earlier blocks."""
    return [
        len(order.entries) - len(order.judgement.idle)
        for order in orders.orders
        if order.action in ("block", "supersede") and order.annulled is None
    ]


def _superseded(order: Order, orders: IssuerOrders, context: Context) -> frozenset[Key]:
    """The entries in force that a supersede ends: to replace them by the same needs no release."""
    if order.action != "supersede":
        return frozenset()
    found: set[Key] = set()
    for target, life in orders.targets_of(order):
        wanted = None if target.entries is None else {(one.name, one.match) for one in target.entries}
        for item in life.in_force(context.now):
            key = (item.entry.name, item.entry.match)
            if wanted is None or wanted & {key, (item.entry.name, None)}:
                found.add(key)
    return frozenset(found)
