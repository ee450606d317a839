"""The verdict on each submitted or annulled order and its effect, printed by `order submit`."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import tzinfo
from itertools import islice
from typing import Any, TypedDict

from dnsblock.config import Config
from dnsblock.errors import Problem, Refused, counted, printable, shown
from dnsblock.names import above
from dnsblock.orders.guards import Note, is_covered
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Order
from dnsblock.orders.orders import Orders
from dnsblock.orders.remarks import remarks
from dnsblock.orders.state import Entries, OrderState, derive
from dnsblock.orders.statement import compare
from dnsblock.orders.submission import Examined
from dnsblock.policy.lifting import OPENS, Lifting, lifting_of
from dnsblock.policy.snapshot import Policy, policy_at
from dnsblock.times import local, utc

MAX_SHOWN = 10
MAX_ENTRIES_SHOWN = 1000  # entries that are held or refused


class EntryFacts(TypedDict):
    """The verdict on one entry that is held or refused."""

    name: str
    match: str | None
    verdict: str
    code: str
    reason: str
    line: int | None


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
    held: int
    refused: int
    entry_verdicts: list[EntryFacts]  # the first ones; entries that are not named here are accepted
    effective_at: str | None
    expires_at: str | None
    changes: list[str]
    notes: list[str]
    lifting: Lifting | None  # of an order that opens names: what stays blocked
    problems: list[dict[str, Any]]


def verdicts(
    examined: Examined,
    before: Orders,
    now: Orders,
    policy: Policy,
    config: Config,
    *,
    sees: frozenset[str] | None = None,
) -> list[Verdict]:
    """The verdict on each document. The ledger contained the orders `before`, and contains those of `now`.

    `sees`: the issuers whose orders the sender may see; None: all.
    """
    problems = {one.file: one.problems for one in examined.intake.refused}
    judged = {one.sha256: one for one in examined.intake.new}
    found: list[Verdict] = []
    for one in examined.documents:
        order = examined.orders.get(one.file)
        known = None if order is None else now.by_digest.get(order.sha256)
        if order is not None and known is not None and one.file not in problems:
            was = before.by_digest.get(order.sha256)
            is_new = was is None or was.judgement != known.judgement
            # The document has lines; the ledger does not.
            unknown = [one for one in known.refused if one.code.startswith("UNKNOWN")]
            readable = [one for one in order.refused if not one.code.startswith("UNKNOWN")]
            refused = judged[order.sha256].refused if order.sha256 in judged else (*readable, *unknown)
            known = replace(known, file=order.file, refused=refused, source=order.source)
            found.append(_in_ledger(one.file, known, policy, config, now, sees=sees, is_new=is_new))
        else:
            overtaken = Problem(
                one.file, None, "", "another order was accepted in the meantime: submit it again"
            )
            found.append(refused_verdict(one.file, problems.get(one.file, (overtaken,)), order))
    return found


def refused_verdict(file: str, problems: tuple[Problem, ...], order: Order | None = None) -> Verdict:
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
        "held": 0,
        "refused": 0,
        "entry_verdicts": [],
        "effective_at": None,
        "expires_at": None,
        "changes": [],
        "notes": [],
        "lifting": None,
        "problems": Refused(problems).as_json(),
    }


def _in_ledger(
    file: str,
    order: Order,
    policy: Policy,
    config: Config,
    now: Orders,
    *,
    sees: frozenset[str] | None,
    is_new: bool,
) -> Verdict:
    """The verdict on a document that is in the ledger, and its effect."""
    known = policy.state.by_issuer.get(order.issuer)
    if known is None or order.sha256 not in known.states:  # recorded, but not enforced yet
        known = derive(now, policy.at).by_issuer[order.issuer]
    state = known.states[order.sha256]
    changes = (
        ["already in the ledger: nothing changed"]
        if not is_new
        else list(_changes(order, state, known.orders, config.time_zone))
    )
    lifting = _lifting(order, state, now, policy, config, sees=sees)
    zone = config.time_zone
    statement = [] if order.statement is None else compare(order, known.orders).notes(policy.at, zone)
    return {
        "file": printable(file),
        "issuer": order.issuer,
        "order_id": order.order_id,
        "sha256": order.sha256,
        "verdict": "held" if state.state in ("held", "proposed") else "accepted",
        "state": state.state,
        "in_force": state.in_force,
        "entries": state.entries,
        "held": state.held,
        "refused": len(order.refused) + order.judgement.count("refused"),
        "entry_verdicts": list(islice(entry_facts(order), MAX_ENTRIES_SHOWN)),
        "effective_at": utc(state.effective_at),
        "expires_at": None if state.expires_at is None else utc(state.expires_at),
        "changes": changes,
        "notes": [
            *state.notes,
            *statement,
            *(_already_blocked(order, known.in_force) if is_new else ()),
            *remarks(order, policy.at),
            *_still_blocked(lifting),
        ],
        "lifting": lifting,
        "problems": [],
    }


def entry_facts(order: Order) -> Iterator[EntryFacts]:
    """The entries of an order that are held or refused, with the reason."""
    for one in order.refused:
        value, reason = shown(one.value), printable(one.reason)
        yield EntryFacts(
            name=value, match=None, verdict="refused", code=one.code, reason=reason, line=one.line
        )
    idle = order.judgement.idle
    for verdict in order.judgement.verdicts:
        if verdict.index not in idle:
            continue
        entry = order.entries[verdict.index]
        yield EntryFacts(
            name=entry.name,
            match=entry.match,
            verdict=verdict.verdict,
            code=verdict.code,
            reason=verdict.reason,
            line=None,
        )


_VERBS = {
    "block": "blocks",
    "supersede": "blocks",
    "exempt": "exempts",
    "unblock": "lifts",
    "revoke": "revokes",
    "notice": "announces",
}


def _changes(order: Order, state: OrderState, own: IssuerOrders, zone: tzinfo) -> Iterator[str]:
    if state.state == "held" and state.held < state.entries:
        yield "nothing is enforced until the missing orders before it arrive"
        return
    if state.state in ("held", "proposed", "refused"):  # the notes and the verdicts say why
        if state.state != "proposed":
            yield from _superseded(order, own)
        return
    if order.action not in _VERBS:
        yield (
            "the keys of the issuer are changed" if order.action == "rotate" else "the statement is recorded"
        )
        return
    number = state.entries - state.held - order.judgement.count("refused")
    count = counted(number, "entry", "entries")
    when = f" from {local(state.effective_at, zone)}" if state.state == "scheduled" else ""
    until = f" until {local(state.expires_at, zone)}" if state.expires_at else ""
    is_over = state.state in ("expired", "lifted", "revoked", "superseded", "annulled")
    over = " (nothing is in force now)" if is_over else ""
    yield f"{_VERBS[order.action]} {count}{when}{until}{over}"
    yield from _superseded(order, own, when)


def _superseded(order: Order, own: IssuerOrders, when: str = "") -> Iterator[str]:
    """The ends by a supersede. They take effect even if all of its own entries are held or refused."""
    if order.action == "supersede":
        for target, aimed in own.targets_of(order):
            ended = counted(aimed.count_ended_only_by(order), "entry", "entries")
            yield f"ends {ended} of {target.order_id}{when}"


def _already_blocked(order: Order, in_force: Entries) -> Iterator[str]:
    """Names of a block that another order of the issuer blocks already."""
    if order.action not in ("block", "supersede"):
        return
    covering = {higher for entry in order.entries for higher in (entry.name, *above(entry.name))}
    # Its own entries are left out first: there may be a hundred thousand.
    others = {
        (item.entry.name, item.entry.match)
        for item in in_force.without(order.sha256).named(covering)
        if item.kind == "block" and item.order_id != order.order_id
    }
    found = [entry.name for entry in order.entries if others and is_covered(entry.name, entry.match, others)]
    if found:
        yield str(Note("ALREADY_BLOCKED", len(found), tuple(found[:MAX_SHOWN])))


_IN_EFFECT = frozenset({"active", "verified", "partially lifted"})


def _lifting(
    order: Order,
    state: OrderState,
    orders: Orders,
    policy: Policy,
    config: Config,
    *,
    sees: frozenset[str] | None,
) -> Lifting | None:
    """The effect of an order that opens names, now or when it takes effect."""
    if order.action not in OPENS or state.state not in (*_IN_EFFECT, "scheduled"):
        return None
    at = policy.at
    if state.state == "scheduled":
        policy = policy_at(policy, orders, order.effective_at, config)
    return lifting_of(order, orders.of(order.issuer), policy, config, at, sees=sees)


def _still_blocked(lifting: Lifting | None) -> Iterator[str]:
    """Names that an order opens, and that something else still blocks."""
    if lifting is None:
        return
    for one in lifting["still_blocked"][:MAX_SHOWN]:
        yield f"STILL_BLOCKED: {one['text']}"
    if (rest := lifting["still_blocked_total"] - MAX_SHOWN) > 0:
        yield f"STILL_BLOCKED: {rest:,} more names"
    if (unchecked := lifting["entries"] - lifting["checked"]) > 0:
        yield f"UNCHECKED: {unchecked:,} more entries were not looked up: something else may still block them"
    if not lifting["is_below_checked"]:
        yield "UNCHECKED: orders that block names below these were not looked for: too many are in force"
