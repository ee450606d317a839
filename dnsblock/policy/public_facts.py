"""The public facts about an order or a blocked name: for the landing page, which anybody may read.

An order is public from the moment at which this instance first enforced it. Orders that are held, refused or
proposed, that have not started, or that were annulled before, are not: their names may never be blocked.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import TypedDict

from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.orders.life import Life
from dnsblock.orders.schema import Conditions, Reason
from dnsblock.orders.state import State
from dnsblock.policy.explain import CoveringEntry, explain
from dnsblock.policy.snapshot import Policy
from dnsblock.times import utc

MAX_TEXT = 2000  # characters of reason and conditions; the ledger and `order show` have all of it
MAX_SHORT = 500  # of other texts
MAX_ITEMS = 10  # of a list
_ABOUT_NAMES = frozenset({"block", "supersede", "exempt", "unblock", "revoke"})


class Contacted(TypedDict):
    """How the authority contacted the operator of the names before it ordered the block."""

    at: str
    by: str
    about: str | None


class PublicOrder(TypedDict):
    """An order, without the names in it. Times are RFC 3339 in UTC."""

    issuer: str
    order_id: str
    action: str
    state: str
    is_in_force: bool
    entries: int
    issued_at: str
    effective_at: str
    expires_at: str | None
    review_at: str | None
    ended_at: str | None
    ended_by: str | None  # the number of the order that ended it last
    category: str | None
    legal_basis: list[str]
    reason: Mapping[str, str]  # by language, id and en
    conditions: Mapping[str, str]
    contact: str | None
    subject: str | None  # the operator of the names
    notices: list[Contacted]
    document: str | None


class Block(TypedDict):
    """Why a name is blocked."""

    name: str
    entry: str
    zone: str
    is_list: bool
    is_legal: bool  # a legal demand (RFC 7725), not the provider's own policy or the client's wish
    order: PublicOrder | None
    others: list[str]  # numbers of other orders that block the name, too


def block_of(name: str, policy: Policy, config: Config, state: State) -> Block | None:
    """Why a canonical name is blocked now; None if it is not.

    A name that only zones for certain clients block counts as blocked: who sees the page is such a client.
    """
    found = explain(name, policy, config)
    decisive = found["decided_over_tcp_by"] if found["verdict_over_tcp"] == "blocked" else None
    zones = {zone.name: zone for zone in config.zones}
    if found["verdict_over_tcp"] == "not blocked" and not found["allowed"]:
        limited = (one for one in found["covering"] if zones[one["zone"]].clients is not None)
        decisive = next(filter(_blocks, limited), None)
    if decisive is None:
        return None
    zone = zones[decisive["zone"]]
    own = (public_order(state, config, zone.issuer or "", number) for number in decisive["orders"])
    others = [number for one in found["covering"] if _blocks(one) for number in one["orders"]]
    order = next((one for one in own if one is not None), None)
    return {
        "name": name,
        "entry": decisive["entry"],
        "zone": zone.name,
        "is_list": zone.kind != "orders",
        "is_legal": is_legal(zone, config),
        "order": order,
        "others": list(dict.fromkeys(one for one in others if order and one != order["order_id"]))[
            :MAX_ITEMS
        ],
    }


def _blocks(entry: CoveringEntry) -> bool:
    return entry["mode"] == "enforce" and entry["action"] not in ("exemption", "passthru", "truncate")


def is_legal(zone: Zone, config: Config) -> bool:
    """Whether a zone is a legal demand: unless its answer says that it is the provider's policy or a wish.

    RFC 8914 sections 4.16 and 4.18: Blocked (15) and Filtered (17).
    """
    if zone.kind == "orders":
        return True
    if zone.rpz is not None and zone.gives_answers:
        return zone.rpz.extended_error not in ("15", "17")
    return config.answer(zone.answer).extended_error not in ("15", "17")


def public_order(state: State, config: Config, issuer: str, number: str) -> PublicOrder | None:
    """The latest order with this number that has been in force; None if there is none."""
    own = state.by_issuer.get(issuer)
    if own is None or not any(zone.issuer == issuer and not zone.is_shadow for zone in config.zones):
        return None
    latest = own.orders.latest(number)
    if latest is None:
        return None
    # An annulled order may have given its number to a later one.
    former = (one for one in own.orders.lives.values() if one.order.order_id == number)
    life = next((one for one in chain([latest], former) if is_public(one)), None)
    if life is None:
        return None
    return _facts(life, state, own.states[life.order.sha256].state)


def is_public(life: Life) -> bool:
    """Whether an order has been in force here."""
    return life.order.action in _ABOUT_NAMES and life.order.enforced_at is not None


def _facts(life: Life, state: State, name: str) -> PublicOrder:
    order, now = life.order, state.at
    last = max(_ends(life, now), key=lambda end: end[0], default=None)
    return {
        "issuer": order.issuer,
        "order_id": order.order_id,
        "action": order.action,
        "state": name,
        "is_in_force": life.in_force(now) is not None,
        "entries": len(order.entries) or life.named,
        "issued_at": utc(order.issued_at),
        "effective_at": utc(order.effective_at),
        "expires_at": None if order.expires_at is None else utc(order.expires_at),
        "review_at": None if order.review_at is None else utc(order.review_at),
        "ended_at": None if order.ended_at is None else utc(order.ended_at),
        "ended_by": None if last is None else last[1],
        "category": order.category,
        "legal_basis": [_cut(one) for one in order.legal_basis[:MAX_ITEMS]],
        "reason": _by_language(order.reason),
        "conditions": _by_language(order.conditions),
        "contact": _cut_or_none(order.contact),
        "subject": None if order.subject is None else _cut(order.subject.name),
        "notices": [
            {"at": utc(one.at), "by": _cut(one.by), "about": _cut_or_none(one.about)}
            for one in order.notices[:MAX_ITEMS]
        ],
        "document": None if order.original is None else _cut_or_none(order.original.uri),
    }


def _ends(life: Life, now: datetime) -> Iterator[tuple[datetime, str]]:
    """When, and by which orders, entries have ended."""
    for end in (*life.whole, *(end for ends in life.ends.values() for end in ends)):
        if end.covers(now):
            yield end.at, end.by.order_id


def _by_language(text: Reason | Conditions | None) -> dict[str, str]:
    pairs = (("id", text.id), ("en", text.en)) if text is not None else ()
    return {language: _cut(part, MAX_TEXT) for language, part in pairs if part is not None}


def _cut_or_none(text: str | None) -> str | None:
    return None if text is None else _cut(text)


def _cut(text: str, most: int = MAX_SHORT) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
