"""The consecutive numbers (`seq`) of one issuer's orders. Used by `state` and the intake.

After a gap or a wrong `prev`, later orders are held: the missing order may be an unblock that is withheld.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Literal, Self

from dnsblock.errors import Problem
from dnsblock.orders.order import Order


class Chain:
    """The numbered orders of an issuer. Orders without a number are not part of it and are never held.

    An annulled order keeps its place, so that later orders are not affected. It gives up its number, which
    another order may take.
    """

    def __init__(self, orders: Iterable[Order], annulled: Iterable[Order] = ()) -> None:
        self.followed: dict[int, Order] = {}  # by seq
        self._annulled: dict[int, list[Order]] = {}
        self._numbered: dict[int, list[Order]] = {}
        self._digests: list[tuple[str | None, ...]] = [(None,)]  # the valid values of `prev` after each seq
        for order in annulled:
            if order.seq is not None:
                self._annulled.setdefault(order.seq, []).append(order)
        for order in orders:
            if order.seq is not None:
                self._numbered.setdefault(order.seq, []).append(order)
        self._follow(1)

    @classmethod
    def at(cls, orders: Sequence[Order], at: datetime) -> Self:
        """The chain of an issuer's orders at a time."""
        return cls(
            (order for order in orders if not order.is_annulled(at)),
            (order for order in orders if order.is_annulled(at)),
        )

    def add(self, order: Order) -> None:
        """Adds an order, which may close a gap."""
        if order.seq is not None:
            self._numbered.setdefault(order.seq, []).append(order)
            self._follow(order.seq)

    def fits(self, order: Order) -> bool:
        """Whether a numbered order would be enforced if it were added now."""
        if order.seq is None or order.seq > len(self._digests) or order.seq in self.followed:
            return False
        return order.prev in self._digests[order.seq - 1]

    def verdict(self, order: Order) -> tuple[Literal["held", "annulled"], str] | None:
        """Why an added order is not enforced; None if it is."""
        if order.seq is None or self.followed.get(order.seq) is order:
            return None
        if order.seq in self.followed:
            other = self.followed[order.seq].order_id
            return "annulled", f"ANNULLED: another order with seq {order.seq} was accepted: {other}"
        return "held", f"HELD: {self._why_held(order.seq)}"

    def expected_prev(self, order: Order) -> str | None:
        """The correct `prev` of an order that is held only because of its `prev`."""
        if order.seq is None or order.seq in self.followed or not 1 < order.seq <= len(self._digests):
            return None
        return self._digests[order.seq - 1][0]

    def _why_held(self, seq: int) -> str:
        missing = len(self._digests)
        if seq <= missing:
            expected = self._digests[seq - 1][0]
            return f"prev is not the sha256 of the order with seq {seq - 1}, which is sha256:{expected}"
        if missing in self._numbered:
            return f"the order with seq {missing} is held"
        return f"the order with seq {missing} has not been received"

    def _follow(self, seq: int) -> None:
        """Follows the numbers from `seq` up to the next gap."""
        while seq <= len(self._digests):
            previous = self._digests[seq - 1]
            if seq not in self.followed:
                fitting = (order for order in self._numbered.get(seq, ()) if order.prev in previous)
                if (first := next(fitting, None)) is not None:
                    self.followed[seq] = first
            own = [self.followed[seq]] if seq in self.followed else []
            own += [order for order in self._annulled.get(seq, ()) if order.prev in previous]
            if not own:
                return
            digests = tuple(digest for order in own for digest in order.digests)
            self._digests[seq : seq + 1] = [digests]
            seq += 1


def wrong_links(orders: Iterable[Order], at: datetime) -> Iterator[Problem]:
    """The orders that are held only because of their `prev`, each with the correct one."""
    by_issuer: dict[str, list[Order]] = {}
    for order in orders:
        by_issuer.setdefault(order.issuer, []).append(order)
    for own in by_issuer.values():
        chain = Chain.at(own, at)
        for order in own:
            if not order.is_annulled(at) and (expected := chain.expected_prev(order)) is not None:
                reason = (
                    f"prev: is not the sha256 of the order with seq {(order.seq or 0) - 1}: it should be "
                    f"sha256:{expected}; the order is held until one with this prev is accepted"
                )
                yield order.problem(("prev",), order.prev or "", reason)
