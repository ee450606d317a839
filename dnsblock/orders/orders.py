"""All orders in the ledger, by issuer, with everything that later records say about them.

Immutable, as `IssuerOrders`: adding records costs what they change.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import is_

from dnsblock.errors import Problem, Refused
from dnsblock.orders.allowances import NO_ALLOWANCES, Allowances, Recorded
from dnsblock.orders.copies import replaced
from dnsblock.orders.facts import (
    Activated,
    Allowed,
    Annulment,
    Approval,
    Decision,
    EntriesRefused,
    Expired,
    Judged,
    Lifted,
    Verified,
)
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Annulled, Order
from dnsblock.orders.records import Record
from dnsblock.orders.shared import SharedDict, editable, shared
from dnsblock.orders.verdict import EntryRefusal, Release
from dnsblock.principal import Principal

_NONE = IssuerOrders()
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders in the sequence of the ledger."""

    issuers: Mapping[str, IssuerOrders] = field(default_factory=dict)
    by_digest: Mapping[str, Order] = field(default_factory=dict)  # every digest that identifies a document
    sequence: tuple[tuple[str, str], ...] = ()  # issuer and SHA-256
    last_annulment: datetime = _LONG_AGO  # the latest time of one
    allowances: Allowances = NO_ALLOWANCES

    def __iter__(self) -> Iterator[Order]:
        return (self.issuers[issuer].lives[sha256].order for issuer, sha256 in self.sequence)

    def __len__(self) -> int:
        return len(self.sequence)

    def of(self, issuer: str) -> IssuerOrders:
        """The orders of one issuer."""
        return self.issuers.get(issuer, _NONE)

    def index_names(self) -> None:
        """Makes questions about single names fast, also of later versions. In the background."""
        for own in self.issuers.values():
            own.names.update([life.order for life in own.lives.values()])

    def plus(self, orders: Iterable[Order]) -> "Orders":
        """With new orders."""
        wanted = tuple(orders)
        if not wanted:
            return self
        for known, added, result in _LATEST:
            if known is self and len(added) == len(wanted) and all(map(is_, added, wanted)):
                return result
        result = self._with_new(wanted)
        _LATEST[:] = [(self, wanted, result)]
        return result

    def _with_new(self, orders: Iterable[Order]) -> "Orders":
        new: list[Order] = []
        for order in orders:
            new.append(self._with_entries_of_notice(order, new))
        by_issuer: dict[str, list[Order]] = {}
        for order in new:
            by_issuer.setdefault(order.issuer, []).append(order)
        issuers = dict(self.issuers)
        for issuer, own in by_issuer.items():
            issuers[issuer] = (self.issuers.get(issuer) or IssuerOrders()).plus(own)
        digests = editable(self.by_digest)
        for order in new:
            digests.update(dict.fromkeys(order.digests, order))
        added = tuple((order.issuer, order.sha256) for order in new)
        last = max(self.last_annulment, *map(_annulled_at, new))
        sequence = self.sequence + added
        return replace(
            self, issuers=issuers, by_digest=shared(digests), sequence=sequence, last_annulment=last
        )

    def _with_entries_of_notice(self, order: Order, others: Sequence[Order]) -> Order:
        """A block that only refers to a notice has the entries of that notice."""
        if order.notice is None or not order.borrows or order.entries:
            return order
        # The latest one before this order: when this order came, it was not annulled.
        new = (one for one in reversed(others) if (one.issuer, one.order_id) == (order.issuer, order.notice))
        notice = next(new, None)
        if notice is None and (life := self.of(order.issuer).latest(order.notice)) is not None:
            notice = life.order
        return order if notice is None else replace(order, entries=notice.entries)

    def putting(self, order: Order) -> "Orders":
        """With another judgement of one of the orders."""
        issuers = {**self.issuers, order.issuer: self.of(order.issuer).putting(order)}
        return replace(self, issuers=issuers, by_digest=self._with_digests(order))

    def annulling(self, order: Order) -> "Orders":
        """With one order annulled: everything of its issuer is derived again."""
        own = [order if one.sha256 == order.sha256 else one for one in self.of(order.issuer).orders]
        names = self.of(order.issuer).names
        issuers = {**self.issuers, order.issuer: IssuerOrders.of(own, names)}
        last = max(self.last_annulment, _annulled_at(order))
        return replace(self, issuers=issuers, by_digest=self._with_digests(order), last_annulment=last)

    def not_after(self, now: datetime) -> "Orders":
        """With annulments until now. A later one was recorded while the clock was ahead, and holds anyway.

        Otherwise the annulled orders would be in force again until that time.
        """
        if self.last_annulment <= now:
            return self
        found = self
        for order in self:
            if order.annulled is not None and order.annulled.at > now:
                found = found.annulling(replace(order, annulled=replace(order.annulled, at=now)))
        return replace(found, last_annulment=now)

    def _with_digests(self, order: Order) -> Mapping[str, Order]:
        digests = SharedDict.of(self.by_digest)
        digests.update(dict.fromkeys(order.digests, order))
        return digests

    def with_all(self, orders: Iterable[Order]) -> "Orders":
        """With new orders, and with others instead of those with the same document."""
        new: list[Order] = []
        result = self
        for order in orders:
            before = self.by_digest.get(order.sha256)
            if before is None:
                new.append(order)
            elif before.annulled != order.annulled:
                result = result.annulling(order)
            else:
                result = result.putting(order)
        return result.plus(new)

    # ------- Decisions of the operator that are not recorded yet -------

    def allowing(self, allowed: Iterable[Allowed], at: datetime, by: Principal) -> "Orders":
        """With names that the operator exempts from lists."""
        new = [(fact, at, by) for fact in allowed]
        return replace(self, allowances=self.allowances.with_facts(new)) if new else self

    def decided(self, decisions: Iterable[Decision], at: datetime, by: Principal) -> "Orders":
        """With decisions of the operator. Raises `Refused` for one without an order."""
        orders = self
        for one in decisions:
            order = orders.of(one.issuer).order(one.order_id)
            if order is None:
                raise Refused([_unknown(one.issuer, one.order_id)])
            decided = _decided(one, order, at, by)
            is_end = isinstance(one, Annulment)
            orders = orders.annulling(decided) if is_end else orders.putting(decided)
        return orders


def _annulled_at(order: Order) -> datetime:
    return _LONG_AGO if order.annulled is None else order.annulled.at


EMPTY = Orders()
# The latest result of `plus`, if any: a publish needs it for the verdicts, the snapshot and the ledger. Only
# one, since each result is as large as the ledger.
_LATEST: list[tuple[Orders, tuple[Order, ...], Orders]] = []
_Later = Decision | Verified | Activated | Lifted | Expired  # facts about an order that was accepted before


def fold(records: Iterable[Record], base: Orders = EMPTY) -> Orders:
    """The orders of a ledger, or those of `base` with more records.

    It does not matter when something was said about an order, except for the end by an annulment. So all
    records of an order are combined first.
    """
    found: dict[str, Order] = {}  # by digest, in the sequence of acceptance
    received: dict[str, Order] = {}  # not accepted: the process was killed before it was recorded
    newest: dict[tuple[str, str], str] = {}  # even if it was annulled
    allowed: list[Recorded] = []

    def latest(issuer: str, order_id: str) -> Order | None:
        if (sha256 := newest.get((issuer, order_id))) is not None:
            return found[sha256]
        life = base.of(issuer).latest(order_id)
        return None if life is None else life.order

    for record in records:
        fact = record.fact
        order: Order | None = None
        match fact:
            case Order():
                received[fact.sha256] = fact
                order = (
                    replace(fact, received_at=record.at, accepted_n=record.n) if record.version == 1 else None
                )
            case Judged(sha256=sha256):
                known = found.get(sha256) or received.get(sha256) or base.by_digest.get(sha256)
                order = None if known is None else fact.applied_to(known, record.at, record.by, record.n)
            case _ if isinstance(fact, _Later):
                known = latest(fact.issuer, fact.order_id)
                order = None if known is None else _applied(fact, known, record)
            case Allowed():
                allowed.append((fact, record.at, record.by))
        if order is not None:
            found[order.sha256] = order
            newest[order.issuer, order.order_id] = order.sha256
    orders = base.with_all(found.values())
    return replace(orders, allowances=base.allowances.with_facts(allowed)) if allowed else orders


def _applied(fact: _Later, order: Order, record: Record) -> Order:
    match fact:
        case Annulment() | Approval() | EntriesRefused():
            is_over = order.annulled is not None
            return order if is_over else _decided(fact, order, record.at, record.by, record.n)
        case Verified():
            return replaced(order, verified_at=record.at)
        case Activated():
            first, lifted = order.enforced_at or record.at, max(0, order.enforceable - fact.entries)
            return replaced(order, enforced_at=first, activated_at=record.at, ended_at=None, lifted=lifted)
        case Lifted() if order.lifted + fact.entries < order.enforceable:  # others are still in force
            return replaced(order, lifted=order.lifted + fact.entries)
        case Lifted() | Expired():
            return replaced(order, ended_at=record.at)


def _decided(fact: Decision, order: Order, at: datetime, by: Principal, n: int | None = None) -> Order:
    match fact:
        case Annulment():
            return replace(order, annulled=Annulled(at, by, fact.reason, n))
        case Approval():
            return order.released(Release(at, by, fact.reason, fact.entries))
        case EntriesRefused():
            return order.refusing(EntryRefusal(at, by, fact.reason, fact.entries))


def _unknown(issuer: str, order_id: str) -> Problem:
    reason = "no order with this order_id is in the ledger and not annulled: see `dnsblock order list`"
    return Problem(f"issuer {issuer}", None, order_id, reason)
