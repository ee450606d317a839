"""All orders of one issuer, and how they affect each other: numbers, targets, and the ends of entries.

Immutable: `plus` returns a new object that shares everything an order did not change. So one more order costs
its own entries and targets, not those of the ten thousand before it.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain as joined
from itertools import islice
from types import MappingProxyType
from typing import Literal

from dnsblock.orders.chain import Chain
from dnsblock.orders.copies import made
from dnsblock.orders.following import Following
from dnsblock.orders.life import End, Life, Standing
from dnsblock.orders.name_index import Names
from dnsblock.orders.order import ENDS, MAY_END, Order, Target, TargetEntry
from dnsblock.orders.shared import Lineage, editable, shared

Stage = Literal["accepted", "enforced", "verified"]  # of an order, in this sequence

MANY = 20  # boundaries: more are sorted at once
_PROPOSED = Standing("proposed", "PROPOSED: by a flagger; an officer of the issuer must sign it too")
_NOTICE = Standing("notice", "NOTICE: enforces nothing itself; a block order that refers to it does")


@dataclass(frozen=True, slots=True)
class IssuerOrders:
    """The orders of one issuer. `lives` is in the sequence of the ledger, by SHA-256 of the document."""

    lives: Mapping[str, Life] = field(default_factory=dict)
    chain: Chain = field(default_factory=Chain)
    by_id: Mapping[str, str] = field(default_factory=dict)  # the SHA-256 of the latest order with a number
    # The order that each target meant when it came, by the SHA-256 of the later order and the number. An
    # annulled order may give its number to another one, which the target does not mean.
    _aims: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    _pending: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # orders whose target has not come yet
    _boundaries: Sequence[tuple[datetime, str]] = ()  # sorted; with the order that changes
    _rotating: tuple[str, ...] = ()  # the SHA-256 of the orders that change keys
    lineage: Lineage = field(default_factory=Lineage, compare=False, repr=False)
    names: Names = field(default_factory=Names, compare=False, repr=False)
    _following: list[Following] = field(init=False, default_factory=list, compare=False, repr=False)

    @classmethod
    def of(cls, orders: Iterable[Order], names: Names | None = None) -> "IssuerOrders":
        """All orders, in the sequence of the ledger. `names`: the index of the same orders."""
        return cls(names=names or Names()).plus(orders)

    @classmethod
    def among(cls, orders: Iterable[Order], chain: Chain) -> "IssuerOrders":
        """Some orders among others that do not matter for them, except for the numbers in the `chain`."""
        draft = _Draft(cls(chain=chain))
        for order in orders:
            draft.add(order, is_in_chain=True)
        return draft.finished()

    def plus(self, orders: Iterable[Order]) -> "IssuerOrders":
        """With more orders."""
        draft = _Draft(self)
        for order in orders:
            draft.add(order)
        return draft.finished()

    def putting(self, order: Order) -> "IssuerOrders":
        """With another judgement of an order, such as a release."""
        draft = _Draft(self)
        draft.put(order)
        return draft.finished()

    @property
    def orders(self) -> Iterator[Order]:
        """The orders, in the sequence of the ledger."""
        return (life.order for life in self.lives.values())

    @property
    def rotations(self) -> list[Order]:
        """The orders that change the issuer's keys and were not annulled."""
        own = (self.lives[sha256].order for sha256 in self._rotating)
        return [order for order in own if order.annulled is None]

    @property
    def following(self) -> Following:
        """When each numbered order followed the previous ones. It is made at the first use."""
        if not self._following:
            self._following.append(Following.of(list(self.orders)))
        return self._following[0]

    def about(self, names: Collection[str]) -> list[str]:
        """The SHA-256 of the orders that have entries for one of these names."""
        index, wanted = self.names.index, frozenset(names)
        among: Iterable[str] = self.lives
        if index is not None:
            found = index.candidates(names)
            among = [sha256 for sha256 in self.lives if sha256 in found or not index.knows(sha256)]
        return [sha256 for sha256 in among if not wanted.isdisjoint(self.lives[sha256].order.names)]

    def only(self, wanted: Iterable[str]) -> "IssuerOrders":
        """Only the orders with these SHA-256, each with what all others mean for it."""
        lives = {sha256: self.lives[sha256] for sha256 in wanted}
        times = {(time, sha256) for sha256, life in lives.items() for time in life.boundaries()}
        return replace(self, lives=lives, _boundaries=sorted(times), lineage=Lineage())

    def order(self, order_id: str) -> Order | None:
        """The order with a number; None if there is none, or if it was annulled."""
        life = self.lives.get(self.by_id.get(order_id, ""))
        return None if life is None or life.order.annulled is not None else life.order

    def latest(self, order_id: str) -> Life | None:
        """The latest order with a number, even if it was annulled."""
        return self.lives.get(self.by_id.get(order_id, ""))

    def next_change(self, at: datetime) -> datetime | None:
        """When the state of the next order changes without a new one."""
        place = bisect_right(self._boundaries, at, key=lambda one: one[0])
        return self._boundaries[place][0] if place < len(self._boundaries) else None

    def next_change_of_answers(self, at: datetime) -> datetime | None:
        """When the next entry starts or ends without a new order: caches must not keep answers longer."""
        place = bisect_right(self._boundaries, at, key=lambda one: one[0])
        later = islice(self._boundaries, place, None)
        return next((time for time, sha256 in later if self.lives[sha256].changes_answers(time)), None)

    def changes_after(self, at: datetime, until: datetime | None) -> Iterator[datetime]:
        """The times after one and before another at which an entry starts or ends without a new order."""
        change = self.next_change(at)
        while change is not None and (until is None or change < until):
            yield change
            change = self.next_change(change)

    def changed_between(self, one: datetime, other: datetime) -> set[str]:
        """The orders that change in the time after the earlier and up to the later of two times."""
        start = bisect_right(self._boundaries, min(one, other), key=lambda item: item[0])
        end = bisect_right(self._boundaries, max(one, other), key=lambda item: item[0])
        return {sha256 for _, sha256 in self._boundaries[start:end]}

    def is_never_held(self, order: Order) -> bool:
        """Whether an order only opens names. To revoke an exemption blocks again, so a gap holds that."""
        if order.action != "revoke":
            return order.is_lifting
        return not any(life.order.action == "exempt" for _, life in self.targets_of(order))

    def last_stage(self, order: Order) -> Stage:
        """The last stage that an order can reach.

        Statements, notices and rotations enforce nothing. A name whose exemption ends may be blocked or not,
        so no probe can prove that. Neither can one prove a lifting whose targets are missing.
        """
        if order.action in ("snapshot", "rotate", "notice"):
            return "accepted"
        if order.action not in ("unblock", "revoke"):
            return "verified"
        is_opening = any(life.order.action in ("block", "supersede") for _, life in self.targets_of(order))
        return "verified" if is_opening else "enforced"

    def targets_of(self, order: Order) -> Iterator[tuple[Target, Life]]:
        """The orders that an order ends, if they are known and it may end them."""
        for target in order.targets:
            aim = self._aims.get((order.sha256, target.order_id), self.by_id.get(target.order_id))
            if aim is None or target.order_id in order.judgement.ignored:
                continue
            if self.lives[aim].order.action in MAY_END[order.action]:
                yield target, self.lives[aim]


class _Draft:
    """Mutable copies of an issuer's orders, while some are added."""

    def __init__(self, base: IssuerOrders) -> None:
        self._lineage, self._names = base.lineage, base.names
        self._lives = editable(base.lives)
        self._chain = base.chain.copy()
        self._by_id = editable(base.by_id)
        self._aims = editable(base._aims)
        self._pending = editable(base._pending)
        self._rotating = base._rotating
        self._boundaries = list(base._boundaries)
        self._touched: dict[str, Life | None] = {}  # the lives before this draft
        self._indexes: dict[str, Mapping[str, list[int]]] = {}  # of the entries of orders, by name

    def finished(self) -> IssuerOrders:
        """The result. The boundaries of all changed orders are sorted again."""
        fresh: list[tuple[datetime, str]] = []
        for sha256, before in self._touched.items():
            times = set(self._lives[sha256].boundaries())
            if before is not None:
                former = set(before.boundaries())
                for time in former - times:
                    del self._boundaries[bisect_left(self._boundaries, (time, sha256))]
                times -= former
            fresh += [(time, sha256) for time in times]
        if len(fresh) > MANY:
            self._boundaries.extend(fresh)
            self._boundaries.sort()
        else:
            for one in fresh:
                insort(self._boundaries, one)
        lives, by_id = shared(self._lives), shared(self._by_id)
        aims, pending = shared(self._aims), shared(self._pending)
        parts = (lives, self._chain.finished(), by_id, aims, pending, self._boundaries)
        lineage = self._lineage.then(frozenset(self._touched))
        return IssuerOrders(*parts, self._rotating, lineage, self._names)

    def add(self, order: Order, *, is_in_chain: bool = False) -> None:
        """Adds one order, and applies it to the others."""
        self._set(made(Life, order))
        self._by_id[order.order_id] = order.sha256
        if order.keys is not None:
            self._rotating += (order.sha256,)
        for target in order.targets:
            if target.order_id not in order.judgement.ignored:
                self._aims[order.sha256, target.order_id] = self._meant(target.order_id, order)
        affected = [] if is_in_chain else self._chain.add(order)
        standing, notes = self._standing(order), tuple(self._missing(order))
        if standing is not None or notes:
            self._set(Life(order, standing, notes=notes))
        self._end_targets(order, is_new=True)
        for other in {one.sha256: one for one in affected if one.sha256 != order.sha256}.values():
            self.stand(other.sha256)
        for waiting in self._pending.pop(order.order_id, ()):
            self._aims[waiting, order.order_id] = order.sha256
            self.stand(waiting)  # a revoke may be held now, since this is an exemption
            self._end_targets(self._lives[waiting].order)

    def _meant(self, order_id: str, by: Order) -> str | None:
        """The order that a target means; None if it has not come yet.

        Not one that was annulled before: the number may come again, with the right order.
        """
        sha256: str | None = self._by_id.get(order_id)
        annulled = None if sha256 is None else self._lives[sha256].order.annulled
        if annulled is None or annulled.n is None:
            return sha256
        # Not by their times: the clock may have been set meanwhile.
        return None if by.accepted_n is None or annulled.n < by.accepted_n else sha256

    def put(self, order: Order) -> None:
        """Replaces an order by one with the same document and another judgement."""
        self._set(replace(self._lives[order.sha256], order=order))
        self.stand(order.sha256)

    def stand(self, sha256: str) -> None:
        """Whether an order is enforced, after others came. If that has changed, its targets end or return."""
        life = self._lives[sha256]
        standing, notes = self._standing(life.order), tuple(self._missing(life.order))
        if notes != life.notes:
            self._set(replace(life, notes=notes))
        if standing != life.standing:
            self._set(replace(self._lives[sha256], standing=standing))
            self._end_targets(life.order)

    def _set(self, life: Life) -> None:
        sha256 = life.order.sha256
        self._touched.setdefault(sha256, self._lives.get(sha256))
        self._lives[sha256] = life

    def _standing(self, order: Order) -> Standing | None:
        if order.judgement.is_proposed:
            return _PROPOSED
        if order.action == "notice":
            return _NOTICE
        if self._is_never_held(order) or order.annulled is not None:
            return None
        verdict = self._chain.verdict(order)
        # An approval releases an order after a gap. It does not bring back one that was replaced.
        is_free = verdict is None or (verdict[0] == "held" and order.judgement.passes_gap)
        return None if verdict is None or is_free else Standing(*verdict)

    def _is_never_held(self, order: Order) -> bool:
        if order.action != "revoke":
            return order.is_lifting
        return IssuerOrders(self._lives, self._chain, self._by_id, self._aims).is_never_held(order)

    def _missing(self, order: Order) -> Iterator[str]:
        """Notes on missing orders before one that opens names: it applies anyway."""
        if not order.is_lifting or order.annulled is not None or order.judgement.is_proposed:
            return
        verdict = self._chain.verdict(order)
        if verdict is not None and verdict[0] == "held" and self._standing(order) is None:
            yield f"GAP: {verdict[1].removeprefix('HELD: ')}; this order applies anyway"
        for target in order.targets:
            if self._aims.get((order.sha256, target.order_id), "") is None:
                number = target.order_id
                yield f"UNKNOWN_ORDER: {number} has not been received: it will be ended when it comes"

    # ------- Ends -------

    def _end_targets(self, ender: Order, *, is_new: bool = False) -> None:
        """Applies an order to its targets: all ends by it are replaced. `is_new`: there are none yet."""
        if ender.action not in ENDS:
            return
        standing = self._lives[ender.sha256].standing
        named, had_ended = 0, 0
        for target in ender.targets:
            if target.order_id in ender.judgement.ignored:
                continue
            aimed = self._aims[ender.sha256, target.order_id]
            if aimed is None:
                self._pending[target.order_id] = tuple(
                    dict.fromkeys((*self._pending.get(target.order_id, ()), ender.sha256))
                )
            elif self._lives[aimed].order.action in MAY_END[ender.action]:
                life = self._lives[aimed] if is_new else _without(self._lives[aimed], ender)
                one, two = self._end(ender, standing, target, life)
                named, had_ended = named + one, had_ended + two
        self._set(replace(self._lives[ender.sha256], named=named, had_ended=had_ended))

    def _end(self, ender: Order, standing: Standing | None, target: Target, aimed: Life) -> tuple[int, int]:
        """Ends entries of one order. Returns how many are named, and how many of these had ended before."""
        order = aimed.order
        until = None if ender.annulled is None else ender.annulled.at
        end = End(ender.effective_at, ender, until)
        indexes = None if target.entries is None else self._named(order, target.entries)
        if standing is not None:
            # The part that opens names is not held, and stays if another order has the seq by now.
            if standing.state == "proposed" or order.action == "exempt":
                self._set(aimed)
                return (len(order.entries) if indexes is None else len(indexes)), 0
            kept = {(entry.name, entry.match) for entry in ender.entries}
            among = range(len(order.entries)) if indexes is None else indexes
            indexes = [
                index
                for index in among
                if (order.entries[index].name, order.entries[index].match) not in kept
            ]
        count = len(order.entries) if indexes is None else len(indexes)
        if aimed.is_over(ender.effective_at):  # there is nothing left to end
            self._set(aimed)
            return count, count
        if indexes is None:
            before = aimed.count_ended(ender.effective_at)
            self._set(replace(aimed, whole=(*aimed.whole, end)))
            return count, before
        before = sum(aimed.ended(index, ender.effective_at) is not None for index in indexes)
        ends = dict(aimed.ends)
        for index in indexes:
            ends[index] = (*ends.get(index, ()), end)
        self._set(replace(aimed, ends=ends))
        return count, before

    def _named(self, order: Order, wanted: Sequence[TargetEntry]) -> list[int]:
        """The indexes of the entries that a target names."""
        by_name = self._indexes.get(order.sha256)
        if by_name is None:
            # An index costs more than one search, and most orders are looked into once.
            names = {one.name for one in wanted}
            by_name = _by_name((index, name) for index, name in enumerate(order.names) if name in names)
            self._indexes[order.sha256] = _EMPTY
        elif by_name is _EMPTY:
            by_name = self._indexes[order.sha256] = _by_name(enumerate(order.names))
        return list(
            dict.fromkeys(
                index
                for one in wanted
                for index in by_name.get(one.name, ())
                if one.match in (None, order.entries[index].match)
            )
        )


_EMPTY: Mapping[str, list[int]] = MappingProxyType({})  # an order whose index is not made yet


def _by_name(names: Iterable[tuple[int, str]]) -> Mapping[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, name in names:
        found.setdefault(name, []).append(index)
    return found


def _without(life: Life, ender: Order) -> Life:
    """A life without the ends by one order."""
    if not any(end.by.sha256 == ender.sha256 for end in joined(life.whole, *life.ends.values())):
        return life
    ends = {
        index: left
        for index, own in life.ends.items()
        if (left := tuple(end for end in own if end.by.sha256 != ender.sha256))
    }
    return replace(life, whole=tuple(e for e in life.whole if e.by.sha256 != ender.sha256), ends=ends)
