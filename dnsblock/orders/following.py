"""When each numbered order of an issuer followed the previous ones, as known here. Used by `known`.

An order that comes may close a gap, and an annulment gives a `seq` to another order. So whether an order was
held depends on the time, too.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from dnsblock.orders.chain import Chain
from dnsblock.orders.order import Order

NEVER = datetime.max.replace(tzinfo=UTC)
_ALWAYS = datetime.min.replace(tzinfo=UTC)

Window = tuple[datetime, datetime, Order]  # from (inclusive) and to (exclusive): this order has the seq


@dataclass(frozen=True, slots=True)
class Following:
    """For each `seq`, the orders that it belonged to. Without an entry: as soon as its only order came."""

    windows: Mapping[int, Sequence[Window]] = field(default_factory=dict)

    @classmethod
    def of(cls, orders: Sequence[Order]) -> "Following":
        """`orders` are all orders of an issuer, in the sequence of the ledger."""
        numbered = [order for order in orders if order.seq is not None]
        if _came_in_sequence(numbered):
            return cls()
        return cls(_Pass(numbered).windows())

    def is_regular(self, order: Order) -> bool:
        """Whether an order followed as soon as it came, and for ever. Then its number does not matter."""
        if order.seq is None or order.seq not in self.windows:
            return True
        own = self.windows[order.seq]
        return len(own) == 1 and own[0][:2] == (_came(order), NEVER) and own[0][2].sha256 == order.sha256

    def edges(self, orders: Iterable[Order]) -> set[datetime]:
        """The times at which one of these orders began or ceased to follow."""
        seqs = {order.seq for order in orders if not self.is_regular(order)}
        windows = (window for seq in seqs for window in self.windows.get(seq or 0, ()))
        return {time for start, end, _ in windows for time in (start, end) if time < NEVER}

    def at(self, seqs: Collection[int], when: datetime) -> Chain:
        """The orders that these numbers belonged to at a time."""
        found = ((seq, window) for seq in seqs for window in self.windows.get(seq, ()))
        return Chain.of_followed({seq: own for seq, (start, end, own) in found if start <= when < end})


def _came(order: Order) -> datetime:
    return order.received_at or _ALWAYS


def _came_in_sequence(numbered: Iterable[Order]) -> bool:
    """Whether each order followed as soon as it came, and none was annulled."""
    seq, at = 0, _ALWAYS
    digests: tuple[str | None, ...] = (None,)
    for order in numbered:
        came = order.received_at or _ALWAYS
        if order.annulled is not None or order.seq != seq + 1 or order.prev not in digests or came < at:
            return False
        seq, at, digests = order.seq, came, order.digests
    return True


class _Pass:
    """One pass over the arrivals and annulments of an issuer's numbered orders."""

    def __init__(self, numbered: Sequence[Order]) -> None:
        self._events: list[tuple[datetime, int, int, Order]] = []  # annulments come first
        for place, order in enumerate(numbered):
            self._events.append((_came(order), 1, place, order))
            if order.annulled is not None:
                self._events.append((order.annulled.at, 0, place, order))
        self._events.sort(key=lambda one: one[:3])
        self._chain = Chain()
        self._came: dict[int, Order] = {}  # by place in the ledger, as known so far
        self._last = -1  # the highest place of these
        self._windows: dict[int, list[Window]] = {}
        self._open: dict[int, tuple[datetime, Order]] = {}

    def windows(self) -> Mapping[int, Sequence[Window]]:
        """The orders of each number."""
        for at, kind, place, order in self._events:
            seqs = self._arrive(place, order, at) if kind else self._annul(place, order)
            for seq in seqs:
                self._note(seq, at)
        for seq, (start, order) in self._open.items():
            self._windows.setdefault(seq, []).append((start, NEVER, order))
        return self._windows

    def _note(self, seq: int, at: datetime) -> None:
        """Notes the order that a number belongs to from now on."""
        now = self._chain.followed.get(seq)
        before = self._open.get(seq)
        if before is not None and now is not None and before[1].sha256 == now.sha256:
            return
        if before is not None:
            del self._open[seq]
            if before[0] < at:
                self._windows.setdefault(seq, []).append((before[0], at, before[1]))
        self._windows.setdefault(seq, [])
        if now is not None:
            self._open[seq] = (at, now)

    def _arrive(self, place: int, order: Order, at: datetime) -> Iterator[int]:
        is_annulled = order.annulled is None or order.is_annulled(at)
        known = order if is_annulled else replace(order, annulled=None)
        is_last, self._last = place > self._last, max(place, self._last)
        self._came[place] = known
        touched = self._chain.add(known) if is_last else self._made_again()
        yield order.seq or 0
        yield from (one.seq or 0 for one in touched)

    def _annul(self, place: int, order: Order) -> Iterable[int]:
        if place not in self._came:
            return ()  # it comes later, as one that was annulled: the clock was set back
        self._came[place] = order
        if self._chain.annul(order):
            return (order.seq or 0,)
        return [one.seq or 0 for one in self._made_again()]

    def _made_again(self) -> list[Order]:
        """The whole chain, from the orders that are known so far."""
        self._chain = Chain()
        known = [self._came[place] for place in sorted(self._came)]
        for order in known:
            self._chain.add(order)
        return known
