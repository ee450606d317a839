"""The transparency report: what was ordered, enforced and lifted in a period, by the records of the ledger.

It is for the public. It names no person: no signer, no contact, no user, no client. Orders that were never
enforced here are counted, and neither listed nor named: their names may never be blocked.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from dnsblock import __version__
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.errors import Refused
from dnsblock.orders.entry import Entry
from dnsblock.orders.facts import Refusal
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.life import Life
from dnsblock.orders.order import Order, Target
from dnsblock.orders.orders import fold
from dnsblock.orders.records import Record
from dnsblock.orders.state import OrderState, derive
from dnsblock.orders.transparency.instance import Instance
from dnsblock.policy.log_report import readable
from dnsblock.times import utc

SCHEMA = "dnsblock.transparency/1"
MOMENT = timedelta(microseconds=1)
_ENDED = frozenset({"lifted", "expired", "superseded", "revoked"})
_WITH_NAMES = frozenset({"block", "supersede", "exempt"})
_LIFTING = frozenset({"unblock", "revoke"})
_COUNTED = ("held", "proposed", "notice", "scheduled", "refused")
Kind = Literal["in_force", "ended", "lifting", "annulled"]
KINDS: tuple[Kind, ...] = ("in_force", "ended", "lifting", "annulled")


class Row(TypedDict):
    """One order. Times are RFC 3339 in UTC. Durations are from receipt or effect, whichever is later."""

    issuer: str
    order_id: str
    action: str
    state: str  # at the end of the period
    category: str | None
    legal_basis: list[str]
    issued_at: str
    received_at: str | None
    effective_at: str
    enforced_at: str | None
    verified_at: str | None
    ended_at: str | None
    expires_at: str | None
    deadline_at: str | None
    breached: bool
    seconds_to_enforce: float | None
    seconds_to_verify: float | None
    seconds_to_lift: float | None  # of an order that lifts
    names: int  # without held and refused ones
    names_in_force: int
    listed_names: Mapping[str, list[str]] | None  # by match; None: not asked for


class Times(TypedDict):
    """A distribution of durations in seconds; None: there are none."""

    count: int
    median: float | None
    p90: float | None
    max: float | None


class Group(TypedDict):
    """The orders with the same issuer, category and legal basis."""

    issuer: str
    category: str | None
    legal_basis: list[str]
    orders_in_force: int
    names_in_force: int
    orders_ended: int
    names_ended: int
    orders_lifting: int
    orders_annulled: int
    breached: int


class Report(TypedDict):
    """The whole report. Times are RFC 3339 in UTC."""

    schema: str
    software: str
    instance: str | None  # the name of the ledger
    made_at: str
    period: Mapping[str, str | None]  # from (inclusive) and to (exclusive)
    time_zone: str
    ledger: Mapping[
        str, int | str | None
    ]  # its records up to the end of the period, and the last one's digest
    totals: Mapping[str, int]
    counted_only: Mapping[str, int]  # orders, names and documents that are not enforced
    times: Mapping[str, Times]
    deadlines: Mapping[str, int]
    groups: list[Group]
    orders: Mapping[Kind, list[Row]]


@dataclass(frozen=True, slots=True)
class Period:
    """A period; `begin` is inclusive, None: since the first record. `end` is exclusive."""

    begin: datetime | None
    end: datetime

    def has(self, time: datetime | None) -> bool:
        """Whether a time is in it."""
        return time is not None and time < self.end and (self.begin is None or time >= self.begin)

    @property
    def last(self) -> datetime:
        """Its last moment."""
        return self.end - MOMENT


def report_of(config: Config, begin: datetime | None, end: datetime, *, with_names: bool) -> Report:
    """Makes the report of a period. Needs no daemon. Raises `Refused`."""
    with readable(config):
        instance = Instance.load(config.state, config.ledger.origin)
        ledger = Ledger.open(config.state, read_only=True)
    if ledger.damage is not None:
        raise Refused([ledger.damage])
    period = Period(begin, end)
    records = [record for record in ledger.records if record.at < end]
    orders = fold(records).not_after(end)
    state = derive(orders, period.last)
    made = _Made(config, period, with_names)
    for issuer, sha256 in orders.sequence:
        own = state.by_issuer[issuer]
        made.add(own.orders.lives[sha256], own.states[sha256], own.orders)
    last = ledger.hashes[records[-1].n - 1] if records else None
    return {
        "schema": SCHEMA,
        "software": f"dnsblock {__version__}",
        "instance": None if instance is None else instance.origin,
        "made_at": utc(utc_now()),
        "period": {"from": None if begin is None else utc(begin), "to": utc(end)},
        "time_zone": config.time_zone.key,
        "ledger": {"records": len(records), "last": last},
        **made.result(records),
    }


class _Result(TypedDict):
    totals: Mapping[str, int]
    counted_only: Mapping[str, int]
    times: Mapping[str, Times]
    deadlines: Mapping[str, int]
    groups: list[Group]
    orders: Mapping[Kind, list[Row]]


@dataclass(slots=True)
class _Made:
    """The parts of a report, while orders are added."""

    config: Config
    period: Period
    with_names: bool
    rows: dict[Kind, list[Row]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    counted: Counter[str] = field(default_factory=Counter)
    durations: dict[str, list[float]] = field(
        default_factory=lambda: {"enforce": [], "verify": [], "lift": []}
    )
    due: int = 0
    breached: int = 0

    def add(self, life: Life, now: OrderState, own: IssuerOrders) -> None:
        """Adds an order with its state at the end of the period."""
        order, period = life.order, self.period
        is_breached = _is_breached(life, own, self.config, period)
        if period.has(order.deadline_at) and now.state != "annulled" and not _came_late(order):
            self.due += 1
            self.breached += is_breached
        self._add_durations(order, now)
        if now.state != "annulled":
            self.counted["names_held"] += now.held
            self.counted["names_refused"] += now.refused
        kind = self._kind(order, now)
        if kind is not None:
            names = self._names(life, now, own) if self.with_names else None
            self.rows[kind].append(_row(life, now, names, is_breached=is_breached))

    def _kind(self, order: Order, now: OrderState) -> Kind | None:
        """Where an order is listed; None: it is counted only, or ended before the period."""
        if now.state == "annulled":
            is_new = order.annulled is not None and self.period.has(order.annulled.at)
            self.counted["orders_annulled"] += is_new and order.enforced_at is None
            return "annulled" if is_new and order.enforced_at is not None else None
        if now.state in _COUNTED:
            self.counted[f"orders_{now.state}"] += 1
            return None
        if order.action in _LIFTING:
            return "lifting" if self.period.has(order.enforced_at) else None
        if order.action not in _WITH_NAMES:
            return None
        if order.enforced_at is None:
            self.counted["orders_never_enforced"] += 1
            return None
        if now.state not in _ENDED:
            return "in_force"
        begin = self.period.begin
        was_over = begin is not None and order.ended_at is not None and order.ended_at < begin
        return None if was_over else "ended"

    def _add_durations(self, order: Order, now: OrderState) -> None:
        if now.state == "annulled":
            return
        what = "lift" if order.action in _LIFTING else "enforce"
        for kind, time in ((what, order.enforced_at), ("verify", order.verified_at)):
            took = _seconds(order, time)
            if took is not None and self.period.has(time):
                self.durations[kind].append(took)

    def _names(self, life: Life, now: OrderState, own: IssuerOrders) -> Mapping[str, list[str]]:
        """The names of an order by match: those in force at the end of the period, or those that it had.

        For an order that lifts: those that it has lifted, if they were enforced.
        """
        if life.order.action in _LIFTING:
            return _by_match(entry for one in own.targets_of(life.order) for entry in _lifted(*one))
        if now.in_force and (part := life.in_force(self.period.last)) is not None:
            return _by_match(part.entries)
        return _by_match(_enforceable(life.order))

    def result(self, records: Iterable[Record]) -> _Result:
        """The report, but for its head."""
        refused = sum(isinstance(one.fact, Refusal) and self.period.has(one.at) for one in records)
        in_force, ended = self.rows["in_force"], self.rows["ended"]
        counted = {f"orders_{state}": self.counted[f"orders_{state}"] for state in _COUNTED}
        counted["orders_never_enforced"] = self.counted["orders_never_enforced"]
        counted["orders_annulled_before_enforcement"] = self.counted["orders_annulled"]
        counted |= {key: self.counted[key] for key in ("names_held", "names_refused")}
        return {
            "totals": {
                "orders_in_force": len(in_force),
                "names_in_force": sum(row["names_in_force"] for row in in_force),
                "orders_ended": len(ended),
                "names_ended": sum(row["names"] for row in ended),
                "orders_lifting": len(self.rows["lifting"]),
                "orders_annulled": len(self.rows["annulled"]),
            },
            "counted_only": {**counted, "documents_refused": refused},
            "times": {kind: _times(found) for kind, found in self.durations.items()},
            "deadlines": {"due": self.due, "breached": self.breached},
            "groups": _groups(self.rows),
            "orders": self.rows,
        }


def _row(life: Life, now: OrderState, names: Mapping[str, list[str]] | None, *, is_breached: bool) -> Row:
    order, is_lifting = life.order, life.order.action in _LIFTING
    took = _seconds(order, order.enforced_at)
    return {
        "issuer": order.issuer,
        "order_id": order.order_id,
        "action": order.action,
        "state": now.state,
        "category": order.category,
        "legal_basis": list(order.legal_basis),
        "issued_at": utc(order.issued_at),
        "received_at": _time(order.received_at),
        "effective_at": utc(order.effective_at),
        "enforced_at": _time(order.enforced_at),
        "verified_at": _time(order.verified_at),
        "ended_at": _time(order.ended_at if order.annulled is None else order.annulled.at),
        "expires_at": _time(order.expires_at),
        "deadline_at": _time(order.deadline_at),
        "breached": is_breached,
        "seconds_to_enforce": None if is_lifting else took,
        "seconds_to_verify": _seconds(order, order.verified_at),
        "seconds_to_lift": took if is_lifting else None,
        "names": now.entries if is_lifting else order.enforceable,
        "names_in_force": now.in_force,
        "listed_names": names,
    }


def _seconds(order: Order, time: datetime | None) -> float | None:
    """Seconds from the receipt of an order, or from its effect if that is later."""
    if time is None or order.received_at is None:
        return None
    begin = max(order.received_at, order.effective_at)
    return round(max(0.0, (time - begin).total_seconds()), 3)


def _is_breached(life: Life, own: IssuerOrders, config: Config, period: Period) -> bool:
    """Whether the deadline has passed without the proof, or without the effect if nothing can prove it."""
    order, due = life.order, life.order.deadline_at
    if due is None or due >= period.end or _came_late(order):
        return False
    if life.state(due)[0] in {*_ENDED, "annulled"}:
        return False
    is_proved = config.probes_orders and own.last_stage(order) == "verified"
    met = order.verified_at if is_proved else order.enforced_at
    return own.last_stage(order) != "accepted" and (met is None or met > due)


def _came_late(order: Order) -> bool:
    """Whether an order came after its deadline, so that nobody could meet it."""
    due, received = order.deadline_at, order.received_at
    return due is not None and received is not None and received > due


def _enforceable(order: Order) -> Iterator[Entry]:
    """The entries that are neither held nor refused."""
    idle = order.judgement.idle
    return (entry for index, entry in enumerate(order.entries) if index not in idle)


def _lifted(target: Target, aimed: Life) -> Iterator[Entry]:
    """The entries of a target that were enforced here."""
    if aimed.order.enforced_at is None:
        return
    wanted = None if target.entries is None else {(one.name, one.match) for one in target.entries}
    for entry in _enforceable(aimed.order):
        if wanted is None or wanted & {(entry.name, None), (entry.name, entry.match)}:
            yield entry


def _by_match(entries: Iterable[Entry]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(entry.match, []).append(entry.name)
    return found


def _times(seconds: Sequence[float]) -> Times:
    if not seconds:
        return {"count": 0, "median": None, "p90": None, "max": None}
    ranked = sorted(seconds)
    return {
        "count": len(ranked),
        "median": round(statistics.median(ranked), 3),
        "p90": ranked[math.ceil(0.9 * len(ranked)) - 1],  # nearest rank
        "max": ranked[-1],
    }


def _groups(rows: Mapping[Kind, Sequence[Row]]) -> list[Group]:
    found: dict[tuple[str, str, tuple[str, ...]], Any] = {}
    for kind, some in rows.items():
        for row in some:
            key = (row["issuer"], row["category"] or "", tuple(row["legal_basis"]))
            group = found.setdefault(key, Counter())
            group[f"orders_{kind}"] += 1
            group["breached"] += row["breached"] and kind != "annulled"
            if kind in ("in_force", "ended"):
                group[f"names_{kind}"] += row["names_in_force" if kind == "in_force" else "names"]
    return [
        {
            "issuer": issuer,
            "category": category or None,
            "legal_basis": list(basis),
            "orders_in_force": group["orders_in_force"],
            "names_in_force": group["names_in_force"],
            "orders_ended": group["orders_ended"],
            "names_ended": group["names_ended"],
            "orders_lifting": group["orders_lifting"],
            "orders_annulled": group["orders_annulled"],
            "breached": group["breached"],
        }
        for (issuer, category, basis), group in sorted(found.items())
    ]


def _time(time: datetime | None) -> str | None:
    return None if time is None else utc(time)
