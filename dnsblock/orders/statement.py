"""Status statements (action `snapshot`): what an issuer says is in force, compared with the orders here.

A difference reveals an order that was withheld from this server, even the last one. Guards, gaps and
approvals do not matter for the comparison: it is about the documents. docs/orders.md describes the digest.
"""

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from dnsblock.errors import counted
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.life import InForce, Life
from dnsblock.orders.order import Order
from dnsblock.orders.orders import Orders
from dnsblock.orders.schema import Statement
from dnsblock.orders.verdict import Judgement
from dnsblock.times import local


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that one issuer's orders have in force at a time."""

    seq: int | None  # of the last order; None: the issuer does not number its orders
    entries: int
    digest: str  # SHA-256 in hexadecimal


@dataclass(frozen=True, slots=True)
class Comparison:
    """A statement of an issuer, and the content of its orders here at the time of the statement."""

    order: Order
    missing: int | None  # the first `seq`, up to that of the statement, that was not received
    here: Content

    @property
    def statement(self) -> Statement:
        """The statement itself."""
        assert self.order.statement is not None  # noqa: S101  # `compare` takes only such orders
        return self.order.statement

    @property
    def differs(self) -> bool:
        """Whether orders are missing here, or others are known."""
        stated = self.statement
        is_same = (stated.entries, stated.digest) == (self.here.entries, self.here.digest)
        return self.missing is not None or not is_same

    def is_past(self, at: datetime) -> bool:
        """Whether the issuer should have sent another statement."""
        return at >= self.statement.valid_until

    def notes(self, at: datetime, zone: tzinfo) -> list[str]:
        """Everything that is wrong, for people, with times in a time zone."""
        notes: list[str] = []
        if self.missing is not None:
            notes.append(f"MISSING_SEQ: the order with seq {self.missing} has not been received here")
        elif self.differs:
            stated = self.statement
            here = f"{self.here.entries:,} here"
            counts = f"{counted(stated.entries, 'entry', 'entries')} by the statement, {here}"
            notes.append(f"STATEMENT_DIFFERS: an order was not received here, or is wrong: {counts}")
        if self.is_past(at):
            until = local(self.statement.valid_until, zone)
            notes.append(f"STATEMENT_PAST: valid until {until}: a later one, or an order, may be withheld")
        return notes


def compare(order: Order, orders: IssuerOrders) -> Comparison:
    """Compares an order with the action `snapshot` with all orders of its issuer here.

    Orders that the issuer made after the statement do not count.
    """
    statement = order.statement
    if statement is None:
        raise ValueError(f"order {order.order_id} is not a statement")
    covered = [one for one in orders.orders if _is_covered(one, orders, statement.seq, order.issued_at)]
    received = {one.seq for one in orders.orders}
    missing = next((seq for seq in range(1, (statement.seq or 0) + 1) if seq not in received), None)
    return Comparison(order, missing, _content(covered, order.effective_at, statement.seq))


def content_of(orders: IssuerOrders, at: datetime) -> Content:
    """The content for a statement that is made at a time, from all orders of its issuer."""
    last = orders.chain.last
    seq = None if last is None else last.seq
    return _content([one for one in orders.orders if _is_covered(one, orders, seq, at)], at, seq)


def latest(orders: IssuerOrders) -> Order | None:
    """The last statement of an issuer."""
    found = (
        life.order
        for life in orders.lives.values()
        if life.order.statement is not None and _is_authentic(life.order, orders)
    )
    return max(found, key=lambda one: (one.seq or 0, one.issued_at), default=None)


def _is_covered(order: Order, orders: IssuerOrders, seq: int | None, at: datetime) -> bool:
    """Whether a statement with this `seq`, made at a time, is about an order."""
    if not _is_authentic(order, orders):
        return False
    return order.issued_at <= at if order.seq is None or seq is None else order.seq <= seq


def _is_authentic(order: Order, orders: IssuerOrders) -> bool:
    """Whether the issuer itself made an order, and nothing has annulled it."""
    standing = orders.lives[order.sha256].standing
    is_replaced = standing is not None and standing.state == "annulled"  # by another one with its `seq`
    return order.annulled is None and not order.judgement.is_proposed and not is_replaced


def _content(covered: list[Order], at: datetime, seq: int | None) -> Content:
    meant = (
        replace(one, judgement=Judgement(ignored=one.judgement.ignored, passes_gap=True)) for one in covered
    )
    lines = [
        f"{item.kind} {item.entry.match} {item.entry.name} {item.order_id}\n".encode()
        for life in IssuerOrders.of(meant).lives.values()
        for item in _items(life, at)
    ]
    lines.sort()
    return Content(seq, len(lines), hashlib.sha256(b"".join(lines)).hexdigest())


def _items(life: Life, at: datetime) -> Iterable[InForce]:
    part = life.in_force(at)
    return () if part is None else part.items


class Statements:
    """The comparison of each issuer's last statement. A million entries take a second, so it is kept."""

    def __init__(self) -> None:
        self._found: Mapping[str, tuple[Hashable, Comparison]] = {}

    def update(self, orders: Orders) -> None:
        """Compares again where an order that a statement covers was added or has changed."""
        found: dict[str, tuple[Hashable, Comparison]] = {}
        for issuer, own in orders.issuers.items():
            order = latest(own)
            if order is None or order.statement is None:
                continue
            key = (order.sha256, *_facts(order, order.statement, own))
            before = self._found.get(issuer)
            same = before is not None and before[0] == key
            found[issuer] = before if before is not None and same else (key, compare(order, own))
        self._found = found

    async def run(self, orders: Callable[[], Orders], changed: asyncio.Event) -> None:
        """Updates now and whenever orders may have changed, until cancelled."""
        while True:
            changed.clear()
            await asyncio.to_thread(self.update, orders())
            await changed.wait()

    def of(self, issuer: str) -> Comparison | None:
        """The comparison of an issuer's last statement; None if it has made none."""
        found = self._found.get(issuer)
        return None if found is None else found[1]

    def notes(self, issuer: str, sha256: str, at: datetime, zone: tzinfo) -> list[str]:
        """The notes on an order, if it is the issuer's last statement."""
        found = self.of(issuer)
        return [] if found is None or found.order.sha256 != sha256 else found.notes(at, zone)


def _facts(order: Order, statement: Statement, orders: IssuerOrders) -> list[Hashable]:
    """Everything about the orders of an issuer that the comparison depends on."""
    return [
        (one.sha256, one.judgement.ignored)
        for one in orders.orders
        if _is_covered(one, orders, statement.seq, order.issued_at)
    ]
