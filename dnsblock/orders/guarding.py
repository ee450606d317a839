"""The verdicts on the entries of one order, from the configuration, its signers and earlier orders."""

from functools import lru_cache

from dnsblock.orders.authority import Authority
from dnsblock.orders.context import Context
from dnsblock.orders.guards import GuardContext, Key, judge, protected_names
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Order
from dnsblock.orders.popular import NameSet
from dnsblock.orders.verdict import EntryVerdict

ANSWER = "ANSWER"  # refused: the entry names an answer profile that the configuration does not have


def verdicts_on(order: Order, authority: Authority, context: Context) -> list[EntryVerdict]:
    """The verdicts on the entries of a new order, by index, before its acks release any."""
    known = context.config.answer_names
    unknown = {
        index: EntryVerdict(
            index, "refused", ANSWER, f"no answer profile {entry.answer} in the configuration"
        )
        for index, entry in enumerate(order.entries)
        if entry.answer is not None and entry.answer not in known
    }
    found = [
        one for one in judge(order, guard_context(order, authority, context)) if one.index not in unknown
    ]
    return sorted([*unknown.values(), *found], key=lambda one: one.index) if unknown else found


def guard_context(order: Order, authority: Authority, context: Context) -> GuardContext:
    """The input of the guards for a new order."""
    own = context.known.of(order.issuer)
    config = context.config
    landing = tuple(answer.target for answer in config.answers.values() if answer.target)
    if config.landing is not None:
        landing = (*landing, config.landing.name)
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
    """The entries that a supersede ends, if they were accepted: to replace them by the same needs no release.

    An entry that has ended already is none of them: to block its name again is a new block.
    """
    if order.action != "supersede":
        return frozenset()
    found: set[Key] = set()
    for target, life in orders.targets_of(order):
        wanted = None if target.entries is None else {(one.name, one.match) for one in target.entries}
        if life.is_annulled(context.now) or life.is_over(context.now):
            continue
        for index, entry in enumerate(life.order.entries):
            key: Key = (entry.name, entry.match)
            is_meant = wanted is None or bool(wanted & {key, (entry.name, None)})
            is_accepted = index not in life.order.judgement.idle
            if is_meant and is_accepted and life.ended(index, context.now) is None:
                found.add(key)
    return frozenset(found)
