"""The verdict on each submitted or annulled order and its effect, printed by `order submit`."""

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from typing import Any, TypedDict

from dnsblock.config import Config
from dnsblock.errors import Problem, Refused, printable
from dnsblock.orders.order import Order
from dnsblock.orders.remarks import remarks
from dnsblock.orders.state import OrderState, State, derive
from dnsblock.orders.submission import Judged
from dnsblock.policy.explain import explain
from dnsblock.policy.snapshot import Policy
from dnsblock.times import local, utc

MAX_NAMES = 1000  # names of an unblock to look up
MAX_SHOWN = 10


class Verdict(TypedDict):
    """The verdict on one document: accepted, held (in the ledger but not enforced) or refused."""

    file: str
    issuer: str | None
    order_id: str | None
    sha256: str | None
    verdict: str
    state: str | None
    in_force: int  # entries
    entries: int
    effective_at: str | None
    expires_at: str | None
    changes: list[str]
    notes: list[str]
    problems: list[dict[str, Any]]


def verdicts(
    judged: Judged, before: Sequence[Order], now: Sequence[Order], policy: Policy, config: Config
) -> list[Verdict]:
    """The verdict on each document. The ledger contained the orders `before`, and contains those of `now`."""
    was, accepted = ({order.sha256 for order in orders} for orders in (before, now))
    problems = {one.file: one.problems for one in judged.intake.refused}
    found: list[Verdict] = []
    for one in judged.documents:
        order = judged.orders.get(one.file)
        if order is not None and order.sha256 in accepted:
            is_new = order.sha256 not in was
            found.append(_in_ledger(one.file, order, now, policy, config, is_new=is_new))
        else:
            overtaken = Problem(
                one.file, None, "", "another order was accepted in the meantime: submit it again"
            )
            found.append(_refused(one.file, problems.get(one.file, (overtaken,)), order))
    return found


def _refused(file: str, problems: tuple[Problem, ...], order: Order | None = None) -> Verdict:
    """The verdict on a refused document."""
    return {
        "file": printable(file),
        "issuer": order.issuer if order else None,
        "order_id": order.order_id if order else None,
        "sha256": order.sha256 if order else None,
        "verdict": "refused",
        "state": None,
        "in_force": 0,
        "entries": 0,
        "effective_at": None,
        "expires_at": None,
        "changes": [],
        "notes": [],
        "problems": Refused(problems).as_json(),
    }


def _in_ledger(
    file: str, order: Order, orders: Sequence[Order], policy: Policy, config: Config, *, is_new: bool
) -> Verdict:
    """The verdict on a document that is in the ledger with `orders`, and its effect."""
    state = _state_of(order, policy.state) or _state_of(order, derive(orders, policy.at))
    assert state is not None  # noqa: S101  # the order is in the ledger
    changes = (
        ["already in the ledger: nothing changed"]
        if not is_new
        else list(_changes(order, state, config.time_zone))
    )
    return {
        "file": printable(file),
        "issuer": order.issuer,
        "order_id": order.order_id,
        "sha256": order.sha256,
        "verdict": "held" if state.state == "held" else "accepted",
        "state": state.state,
        "in_force": state.in_force,
        "entries": state.entries,
        "effective_at": utc(state.effective_at),
        "expires_at": None if state.expires_at is None else utc(state.expires_at),
        "changes": changes,
        "notes": [
            *state.notes,
            *remarks(order, policy.at),
            *_still_blocked(order, state, orders, policy, config),
        ],
        "problems": [],
    }


def _state_of(order: Order, state: State) -> OrderState | None:
    # Take the last one: an annulled order may have had the same number.
    own = [one for one in state.orders if (one.issuer, one.order_id) == (order.issuer, order.order_id)]
    return own[-1] if own else None  # it may be recorded but not enforced yet


def _changes(order: Order, state: OrderState, zone: tzinfo) -> Iterator[str]:
    if state.state == "held":
        yield "nothing is enforced until the missing orders before it arrive"
        return
    verb = {"block": "blocks", "exempt": "exempts", "unblock": "lifts"}[order.action]
    count = f"{state.entries:,} {'entry' if state.entries == 1 else 'entries'}"
    when = f" from {local(state.effective_at, zone)}" if state.state == "scheduled" else ""
    until = f" until {local(state.expires_at, zone)}" if state.expires_at else ""
    over = " (nothing is in force now)" if state.state in ("expired", "lifted", "annulled") else ""
    yield f"{verb} {count}{when}{until}{over}"


def _still_blocked(
    order: Order, state: OrderState, orders: Sequence[Order], policy: Policy, config: Config
) -> Iterator[str]:
    """Names of an unblock in effect that another order or list still blocks."""
    if order.action != "unblock" or state.state != "active":
        return
    still: list[str] = []
    for name in _lifted_names(order, orders)[:MAX_NAMES]:
        explanation = explain(name, policy, config)
        by = explanation["decided_by"]
        if explanation["verdict"] == "blocked" and by is not None:
            order_ids = f", order {', '.join(by['orders'])}" if by["orders"] else ""
            still.append(f"STILL_BLOCKED: {name} by zone {by['zone']}, entry {by['entry']}{order_ids}")
    yield from still[:MAX_SHOWN]
    if len(still) > MAX_SHOWN:
        yield f"STILL_BLOCKED: {len(still) - MAX_SHOWN:,} more names"


def _lifted_names(order: Order, orders: Sequence[Order]) -> list[str]:
    names: dict[str, None] = {}
    by_id = {(one.issuer, one.order_id): one for one in orders if one.annulled is None}
    for target in order.targets:
        if target.entries is not None:
            names |= dict.fromkeys(entry.name for entry in target.entries)
        elif (block := by_id.get((order.issuer, target.order_id))) is not None:
            names |= dict.fromkeys(entry.name for entry in block.entries)
    return list(names)
