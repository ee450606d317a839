"""The facts about an order as JSON: for `order list`, `order show`, the issuers' API, probes and receipts."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypedDict

from dnsblock.config import Config
from dnsblock.orders.entry import Entry
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.life import Life
from dnsblock.orders.order import Order
from dnsblock.orders.state import OrderState, State
from dnsblock.policy.verdicts import EntryFacts, entry_facts
from dnsblock.principal import Principal
from dnsblock.times import utc

MAX_ENTRIES = 1000  # shown of one order, unless all are asked for
_OVER = frozenset({"lifted", "expired", "superseded", "revoked", "annulled", "refused"})
_AT_WORK = frozenset({"active", "verified", "partially lifted"})


class OrderFacts(TypedDict):
    """An order in a list. Times are RFC 3339 in UTC."""

    issuer: str
    order_id: str
    sha256: str
    seq: int | None
    action: str
    state: str
    last_stage: str  # that it can reach: accepted, enforced or verified
    entries: int
    in_force: int
    held: int
    refused: int
    issued_at: str
    received_at: str | None
    effective_at: str
    enforced_at: str | None
    verified_at: str | None
    ended_at: str | None
    expires_at: str | None
    deadline_at: str | None
    breached: bool  # the deadline has passed, and the order is not verified or at least enforced
    seconds_left: int | None  # until the deadline, if it is not met yet
    urgency: str | None
    category: str | None
    notes: list[str]


class OrderEntry(TypedDict):
    """One entry of an order."""

    name: str
    match: str
    in_force: bool
    verdict: str  # accepted, held or refused
    ended_by: str | None  # the order that ended it
    ended_at: str | None
    answer: Mapping[str, Any] | None  # what a blocked query gets; None: an exemption


def list_orders(
    state: State, config: Config, now: datetime, issuers: frozenset[str] | None
) -> list[OrderFacts]:
    """All orders, or those of some issuers, in ledger order."""
    return [
        order_facts(life, own.states[sha256], own.orders, config, now)
        for issuer, sha256 in state.known.sequence
        if issuers is None or issuer in issuers
        for own in (state.by_issuer[issuer],)
        for life in (state.known.issuers[issuer].lives[sha256],)
    ]


def order_facts(
    life: Life, state: OrderState, own: IssuerOrders, config: Config, now: datetime
) -> OrderFacts:
    """One order, among all of its issuer."""
    order = life.order
    due = open_deadline(order, state, own, config)
    left = None if due is None else due - now
    return {
        "issuer": order.issuer,
        "order_id": order.order_id,
        "sha256": order.sha256,
        "seq": order.seq,
        "action": order.action,
        "state": state.state,
        "last_stage": own.last_stage(order),
        "entries": state.entries,
        "in_force": state.in_force if _is_enforced(order, config) else 0,
        "held": state.held,
        "refused": state.refused,
        "issued_at": utc(order.issued_at),
        "received_at": _time(order.received_at),
        "effective_at": utc(order.effective_at),
        "enforced_at": _time(order.enforced_at),
        "verified_at": _time(order.verified_at),
        "ended_at": _time(order.ended_at),
        "expires_at": _time(order.expires_at),
        "deadline_at": _time(order.deadline_at),
        "breached": left is not None and left <= timedelta(),
        "seconds_left": None if left is None else int(left.total_seconds()),
        "urgency": order.urgency,
        "category": order.category,
        "notes": list(_notes(order, state, config)),
    }


def open_deadline(order: Order, state: OrderState, own: IssuerOrders, config: Config) -> datetime | None:
    """The deadline of an order that is neither met nor over. Proof meets it; without any, its effect."""
    is_met = order.verified_at is not None
    if not is_met and order.enforced_at is not None and order.deadline_at is not None:
        is_met = not config.probes_orders or own.last_stage(order) != "verified"
    return None if is_met or state.state in _OVER else order.deadline_at


def _notes(order: Order, state: OrderState, config: Config) -> Iterator[str]:
    yield from state.notes
    if not _is_enforced(order, config):
        yield "no zone enforces the orders of this issuer"


def _is_enforced(order: Order, config: Config) -> bool:
    return any(zone.issuer == order.issuer and not zone.is_shadow for zone in config.zones)


def _time(time: datetime | None) -> str | None:
    return None if time is None else utc(time)


def whole_order(
    life: Life,
    state: State,
    config: Config,
    now: datetime,
    most: int | None = MAX_ENTRIES,
    *,
    named: Callable[[Principal], str] = str,
) -> dict[str, Any]:
    """Everything about one order. `most` limits the entries; None: all of them.

    `named`: the name of who released or annulled, as the caller may see it.
    """
    order, own = life.order, state.by_issuer[life.order.issuer]
    facts = order_facts(life, own.states[order.sha256], own.orders, config, now)
    entries = _entries(life, own.orders, config, now)
    return {
        **facts,
        "prev": order.prev,
        "legal_basis": list(order.legal_basis),
        "reason": _dumped(order.reason),
        "contact": order.contact,
        "document": _dumped(order.original),
        "subject": _dumped(order.subject),
        "notices": [_dumped(one) for one in order.notices],
        "conditions": _dumped(order.conditions),
        "review_at": _time(order.review_at),
        "statement": _dumped(order.statement),
        "keys": _dumped(order.keys),
        "notice": order.notice,
        "acks": list(order.acks),
        "targets": [
            {"order_id": target.order_id, "entries": None if target.entries is None else len(target.entries)}
            for target in order.targets
        ],
        "signers": list(_signers(order, config)),
        "releases": [
            {
                "at": utc(one.at),
                "by": named(one.by),
                "reason": one.reason,
                "entries": _named(order, one.entries),
            }
            for one in order.judgement.releases
        ],
        "refusals": [
            {
                "at": utc(one.at),
                "by": named(one.by),
                "reason": one.reason,
                "entries": _named(order, tuple(sorted(one.entries))),
            }
            for one in order.judgement.refusals
        ],
        "annulled": None
        if order.annulled is None
        else {"at": utc(order.annulled.at), "by": named(order.annulled.by), "reason": order.annulled.reason},
        "verdicts": list[EntryFacts](islice(entry_facts(order), most)),
        "names": list(islice(entries, most)),
    }


def _signers(order: Order, config: Config) -> Iterator[dict[str, Any]]:
    """The signers of an order. The signatures of flaggers, who proposed it, do not count."""
    judgement, issuer = order.judgement, config.issuer(order.issuer)
    for one in (*judgement.proposers, *judgement.signers):
        is_proposer = one in judgement.proposers
        if judgement.is_proposed and issuer is not None:
            is_proposer = "propose" in issuer.roles_of((one.principal,), ())
        names = {"principal": one.principal, "fingerprint": one.fingerprint, "algorithm": one.algorithm}
        yield {**names, "proposed": is_proposer}


def _dumped(model: Any) -> Any:
    """A part of the document as JSON. Times in it are RFC 3339 in UTC."""
    if model is None:
        return None
    return {
        key: utc(value) if isinstance(value, datetime) else list(value) if isinstance(value, tuple) else value
        for key, value in ((name, getattr(model, name)) for name in type(model).model_fields)
    }


def _named(order: Order, indexes: tuple[int, ...] | None) -> list[str] | None:
    """The names of released entries; None: everything that was held."""
    return None if indexes is None else [order.entries[index].name for index in indexes[:MAX_ENTRIES]]


def _entries(life: Life, orders: IssuerOrders, config: Config, now: datetime) -> Iterator[OrderEntry]:
    """The entries of an order, and those that it ends."""
    order = life.order
    idle = _idle(order)
    yield from (_entry(life, index, config, now, idle) for index in range(len(order.entries)))
    for target, aimed in orders.targets_of(order):
        wanted = None if target.entries is None else {(one.name, one.match) for one in target.entries}
        idle = _idle(aimed.order)
        for index, entry in enumerate(aimed.order.entries):
            if wanted is None or wanted & {(entry.name, None), (entry.name, entry.match)}:
                yield _entry(aimed, index, config, now, idle)


def _idle(order: Order) -> dict[int, str]:
    """The verdicts on entries that are held or refused, by index."""
    judgement = order.judgement
    return {one.index: one.verdict for one in judgement.verdicts if one.index in judgement.idle}


def _entry(life: Life, index: int, config: Config, now: datetime, idle: Mapping[int, str]) -> OrderEntry:
    order, entry = life.order, life.order.entries[index]
    end = life.ended(index, now)
    return {
        "name": entry.name,
        "match": entry.match,
        "in_force": life.is_in_force(index, now),
        "verdict": idle.get(index, "accepted"),
        "ended_by": None if end is None else end.by.order_id,
        "ended_at": None if end is None else utc(end.at),
        "answer": None if order.action == "exempt" else answer_of(order, entry, config),
    }


def answer_of(order: Order, entry: Entry, config: Config) -> Mapping[str, Any] | None:
    """The answer to a blocked query for an entry. None if no zone is for its issuer."""
    zone = next((zone for zone in config.zones if zone.issuer == order.issuer), None)
    if zone is None:
        return None
    profile = config.answer(entry.answer if entry.answer in config.answer_names else zone.answer)
    return {
        "action": profile.action,
        "ipv4": [str(one) for one in profile.ipv4],
        "ipv6": [str(one) for one in profile.ipv6],
        "target": None if profile.target is None else str(profile.target),
        "ttl": profile.ttl,
        "extended_error": profile.extended_error_of(zone),
    }
