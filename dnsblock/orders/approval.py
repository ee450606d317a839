"""The operator's decisions about what is held in an order: to release it, or to refuse it."""

from collections.abc import Sequence

from dnsblock.errors import Problem, Refused, capped
from dnsblock.names import NameRefused
from dnsblock.orders.facts import MAX_RANGES, Approval, EntriesRefused
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Order
from dnsblock.orders.spelling import read_name

MAX_NAMES = 100_000  # in one decision
MAX_PROBLEMS = 1000  # with its names


def approval_of(
    orders: IssuerOrders, issuer: str, order_id: str, names: Sequence[str], reason: str
) -> tuple[Approval, int]:
    """The approval of held entries by name, or without names of everything held; and their number.

    Raises `Refused` if there is nothing to approve.
    """
    life = orders.latest(order_id)
    if life is None or life.order.annulled is not None:
        why = "no order with this order_id is in the ledger and not annulled: see `dnsblock order list`"
        raise Refused([Problem(f"issuer {issuer}", None, order_id, why)])
    order = life.order
    if order.judgement.is_proposed:
        why = "is only proposed: an officer of the issuer must sign it; the operator cannot approve it"
        raise Refused([Problem(f"issuer {issuer}", None, order_id, why)])
    if life.standing is not None and life.standing.state == "annulled":
        why = f"cannot be approved: {life.standing.note}"
        raise Refused([Problem(f"issuer {issuer}", None, order_id, why)])
    if len(names) > MAX_NAMES:
        why = f"more than {MAX_NAMES:,} entries: approve the whole order, or do it in several steps"
        raise Refused([Problem(f"order {order_id}", None, "", why)])
    is_held = life.standing is not None and life.standing.state == "held"
    if not names:
        held = order.judgement.count("held")
        if not held and not is_held:
            raise Refused([Problem(f"issuer {issuer}", None, order_id, "nothing in this order is held")])
        count = len(order.entries) - order.judgement.count("refused") if is_held else held
        return Approval(issuer, order_id, None, reason), count
    indexes = _held_named(order, names)
    return Approval(issuer, order_id, indexes, reason), len(indexes)


def refusal_of(
    orders: IssuerOrders, issuer: str, order_id: str, names: Sequence[str], reason: str
) -> tuple[EntriesRefused, int]:
    """The refusal of held entries by name, or without names of all held ones; and their number.

    Raises `Refused` if there is nothing to refuse.
    """
    order = orders.order(order_id)
    if order is None:
        why = "no order with this order_id is in the ledger and not annulled: see `dnsblock order list`"
        raise Refused([Problem(f"issuer {issuer}", None, order_id, why)])
    if len(names) > MAX_NAMES:
        why = f"more than {MAX_NAMES:,} entries: refuse all that are held, or do it in several steps"
        raise Refused([Problem(f"order {order_id}", None, "", why)])
    indexes = _held_named(order, names) if names else {one.index for one in order.judgement.held}
    if not indexes:
        why = "no entry of this order is held by a guard: `dnsblock order annul` ends a whole order"
        raise Refused([Problem(f"issuer {issuer}", None, order_id, why)])
    refusal = EntriesRefused.of(issuer, order_id, indexes, reason)
    if len(refusal.runs) > MAX_RANGES:
        why = f"more than {MAX_RANGES:,} separate entries: name fewer of them with --entry"
        raise Refused([Problem(f"order {order_id}", None, "", why)])
    return refusal, len(indexes)


def check_still_held(decision: Approval | EntriesRefused, order: Order) -> None:
    """Raises `Refused` if another decision about these entries came first.

    A refusal must not end an entry that was released since: only its issuer, or an annulment, ends a block.
    """
    if decision.entries is not None and not {one.index for one in order.judgement.held}.issuperset(
        decision.entries
    ):
        why = "some of these entries are no longer held: somebody else has released or refused them"
        raise Refused([Problem(f"issuer {order.issuer}", None, order.order_id, why)])


def _held_named(order: Order, names: Sequence[str]) -> tuple[int, ...]:
    """The indexes of the held entries with these names. Raises `Refused` if one has none."""
    by_name: dict[str, list[int]] = {}
    for index in {one.index for one in order.judgement.held}:
        by_name.setdefault(order.entries[index].name, []).append(index)
    wanted = list(dict.fromkeys(_canonical(name) for name in names))
    if unknown := [name for name in wanted if name not in by_name]:
        why = "no held entry has this name: `dnsblock order show` lists them"
        problems = [Problem(f"order {order.order_id}", None, name, why) for name in unknown]
        raise Refused(capped(problems, MAX_PROBLEMS))
    return tuple(sorted(index for name in wanted for index in by_name[name]))


def _canonical(name: str) -> str:
    try:
        return read_name(name)
    except NameRefused as err:
        raise Refused([Problem("--entry", None, name, str(err))]) from err
