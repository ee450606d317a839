"""Finds the orders with entries for a few names among a million, without a look at every entry."""

from collections.abc import Collection, Iterable

from dnsblock.orders.order import Order

WORTH_IT = 20_000  # entries; fewer are faster to look through
MANY = 1000  # names: more are found faster by looking through all entries
MANY_SHARE = 4  # unless they are fewer than this fraction of the entries


class NameIndex:
    """An index of the names of orders. Orders are added, never removed: their names do not change.

    All versions of an issuer's orders share one. It may lack orders that came just now, and know others.
    """

    def __init__(self, orders: Iterable[Order]) -> None:
        """Takes about a third of a second for a million entries."""
        self._known: dict[str, int] = {}  # the number of each order, by SHA-256
        self._sha256: list[str] = []  # of each order, by number
        self._first: dict[str, int] = {}  # the number of the first order with a name
        self._others: dict[str, list[int]] = {}  # of names that more than one order has
        self.add(orders)

    def add(self, orders: Iterable[Order]) -> None:
        """Adds orders that are not in it."""
        for order in orders:
            if order.sha256 in self._known:
                continue
            number = self._known[order.sha256] = len(self._sha256)
            self._sha256.append(order.sha256)
            names = order.names
            if self._first.keys().isdisjoint(names):
                self._first.update(dict.fromkeys(names, number))
                continue
            for name in names:
                if self._first.setdefault(name, number) != number:
                    self._others.setdefault(name, []).append(number)

    def knows(self, sha256: str) -> bool:
        """Whether it has the names of an order."""
        return sha256 in self._known

    def candidates(self, names: Collection[str]) -> set[str]:
        """The SHA-256 of all orders that have entries for one of the names."""
        first = (self._first.get(name) for name in names)
        found = {number for number in first if number is not None}
        for name in names:
            found.update(self._others.get(name, ()))
        return {self._sha256[number] for number in found}


class Names:
    """The place of an index that is made later, in the background."""

    def __init__(self) -> None:
        self.index: NameIndex | None = None

    def update(self, orders: Collection[Order]) -> None:
        """Makes the index, or adds orders that it lacks. Not for drafts: their orders may be dropped."""
        if self.index is not None:
            self.index.add(orders)
        elif sum(len(order.entries) for order in orders) >= WORTH_IT:
            self.index = NameIndex(orders)
