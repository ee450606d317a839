"""The consecutive numbers (`seq`) of one issuer's orders. Used by `issuer`.

After a gap or a wrong `prev`, later orders are held: the missing order may be an unblock that is withheld.
"""

from collections.abc import Mapping, MutableMapping
from typing import Literal

from dnsblock.orders.order import Order
from dnsblock.orders.shared import editable, shared


class Chain:
    """The numbered orders of an issuer. Orders without a number are not part of it.

    An annulled order keeps its place, so that later orders are not affected. It gives up its number, which
    another order may take.
    """

    def __init__(self) -> None:
        self.followed: MutableMapping[int, Order] = {}  # by seq
        self._annulled: MutableMapping[int, list[Order]] = {}
        self._numbered: MutableMapping[int, list[Order]] = {}
        self._digests: list[tuple[str | None, ...]] = [(None,)]  # the valid values of `prev` after each seq
        self._highest = 0  # seq
        self._is_part = False

    @classmethod
    def of_followed(cls, followed: Mapping[int, Order]) -> "Chain":
        """A part of a chain: the orders of some numbers. Nothing is known about the others."""
        new = cls()
        new.followed, new._is_part = dict(followed), True
        return new

    def copy(self) -> "Chain":
        """A chain that can be extended without changing this one."""
        new = Chain()
        new.followed, new._annulled = editable(self.followed), editable(self._annulled)
        new._numbered, new._digests = editable(self._numbered), list(self._digests)
        new._highest, new._is_part = self._highest, self._is_part
        return new

    def finished(self) -> "Chain":
        """This chain, after it was extended: copies of it share what they do not change."""
        self.followed, self._annulled = shared(self.followed), shared(self._annulled)
        self._numbered = shared(self._numbered)
        return self

    def add(self, order: Order) -> list[Order]:
        """Adds an order, which may close a gap. Returns the orders whose verdict may have changed."""
        if order.seq is None:
            return []
        # One more order after the gap changes nothing for the others there.
        waiting = self.waiting if order.seq <= len(self._digests) else []
        among = self._numbered if order.annulled is None else self._annulled
        among[order.seq] = [*among.get(order.seq, ()), order]
        self._highest = max(self._highest, order.seq)
        return [*self._numbered.get(order.seq, ()), *waiting, *self._follow(order.seq)]

    def annul(self, order: Order) -> bool:
        """Annuls an order that was added, if no other one has its number. False: make the chain again."""
        if order.seq is None or [one.sha256 for one in self._numbered.get(order.seq, ())] != [order.sha256]:
            return False
        del self._numbered[order.seq]
        self._annulled[order.seq] = [*self._annulled.get(order.seq, ()), order]
        self.followed.pop(order.seq, None)
        return True

    @property
    def waiting(self) -> list[Order]:
        """The orders after a gap."""
        missing = len(self._digests)
        if self._highest < missing:
            return []
        return [order for seq, own in self._numbered.items() if seq >= missing for order in own]

    @property
    def gap(self) -> int | None:
        """The first missing `seq` if later orders have been received; None without a gap."""
        missing = len(self._digests)
        return missing if self._highest >= missing else None

    @property
    def last(self) -> Order | None:
        """The last order without a gap before it. It may be annulled: the next one has the next number."""
        seq = len(self._digests) - 1
        digests = self._digests[seq]
        annulled = (order for order in self._annulled.get(seq, ()) if order.sha256 in digests)
        return self.followed.get(seq) or next(annulled, None)

    def fits(self, order: Order) -> bool:
        """Whether a numbered order would be enforced if it were added now."""
        if order.seq is None or order.seq > len(self._digests) or order.seq in self.followed:
            return False
        return order.prev in self._digests[order.seq - 1]

    def verdict(self, order: Order) -> tuple[Literal["held", "annulled"], str] | None:
        """Why an added order does not follow the previous ones; None if it does."""
        if order.seq is None:
            return None
        followed = self.followed.get(order.seq)
        if followed is not None and followed.sha256 == order.sha256:
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
        if self._is_part:
            return "an earlier order was missing, or did not fit"
        missing = len(self._digests)
        if seq <= missing:
            expected = self._digests[seq - 1][0]
            return f"prev is not the sha256 of the order with seq {seq - 1}, which is sha256:{expected}"
        if missing in self._numbered:
            return f"the order with seq {missing} has a wrong prev"
        return f"the order with seq {missing} has not been received"

    def _follow(self, seq: int) -> list[Order]:
        """Follows the numbers from `seq` up to the next gap. Returns the orders that follow now."""
        new: list[Order] = []
        while seq <= len(self._digests):
            previous = self._digests[seq - 1]
            if seq not in self.followed:
                fitting = (order for order in self._numbered.get(seq, ()) if order.prev in previous)
                if (first := next(fitting, None)) is not None:
                    self.followed[seq] = first
                    new.append(first)
            own = [self.followed[seq]] if seq in self.followed else []
            own += [order for order in self._annulled.get(seq, ()) if order.prev in previous]
            if not own:
                return new
            digests = tuple(digest for order in own for digest in order.digests)
            self._digests[seq : seq + 1] = [digests]
            seq += 1
        return new
