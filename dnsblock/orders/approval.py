"""The operator's approval of what is held in an order."""

from collections.abc import Sequence

from dnsblock.errors import Problem, Refused
from dnsblock.names import NameRefused
from dnsblock.orders.facts import Approval
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.spelling import read_name

MAX_NAMES = 100_000  # in one approval


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
    held = {one.index for one in order.judgement.held}
    is_held = life.standing is not None and life.standing.state == "held"
    if not names:
        if not held and not is_held:
            raise Refused([Problem(f"issuer {issuer}", None, order_id, "nothing in this order is held")])
        return Approval(issuer, order_id, None, reason), len(order.entries) if is_held else len(held)
    by_name: dict[str, list[int]] = {}
    for index in held:
        by_name.setdefault(order.entries[index].name, []).append(index)
    wanted = list(dict.fromkeys(_canonical(name) for name in names))
    if unknown := [name for name in wanted if name not in by_name]:
        why = "no held entry has this name: `dnsblock order show` lists them"
        raise Refused([Problem(f"order {order_id}", None, name, why) for name in unknown])
    indexes = tuple(sorted(index for name in wanted for index in by_name[name]))
    return Approval(issuer, order_id, indexes, reason), len(indexes)


def _canonical(name: str) -> str:
    try:
        return read_name(name)
    except NameRefused as err:
        raise Refused([Problem("--entry", None, name, str(err))]) from err
