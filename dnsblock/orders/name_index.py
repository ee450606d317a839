"""Finds the orders with entries for a few names among a million, without a look at every entry.

It answers with candidates: orders that may have such entries. Names are compared by a part of their hash, so
that an entry takes eight bytes.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping

from dnsblock.orders.order import Order

WORTH_IT = 20_000  # entries; fewer are faster to look through
_ORDER_BITS = 20
_MAX_ORDERS = 1 << _ORDER_BITS
_HASH_MASK = (1 << (64 - _ORDER_BITS)) - 1
MANY = 1000  # names: more are found faster by looking through all entries


class NameIndex:
    """An index of the names of orders. Orders are added, never removed: their names do not change."""

    def __init__(self, orders: Collection[Order]) -> None:
        """Takes about a second for a million entries."""
        self._orders = [order.sha256 for order in orders]
        keys = [
            (hash(entry.name) & _HASH_MASK) << _ORDER_BITS | number
            for number, order in enumerate(orders)
            for entry in order.entries
        ]
        keys.sort()
        self._keys = array("Q", keys)
        self._known = set(self._orders)
        self._later: dict[str, list[str]] = {}  # by name: orders that were added since

    @classmethod
    def of(cls, orders: Mapping[str, Order]) -> "NameIndex | None":
        """The index of these orders; None if they have too few entries, or are too many."""
        total = sum(len(order.entries) for order in orders.values())
        return cls(orders.values()) if total >= WORTH_IT and len(orders) < _MAX_ORDERS else None

    def add(self, orders: Iterable[Order]) -> None:
        """Adds orders that are not in it."""
        for order in orders:
            if order.sha256 not in self._known:
                self._known.add(order.sha256)
                for entry in order.entries:
                    self._later.setdefault(entry.name, []).append(order.sha256)

    def candidates(self, names: Iterable[str]) -> set[str]:
        """The SHA-256 of all orders that have entries for one of the names, and perhaps of others."""
        found: set[str] = set()
        for name in names:
            found.update(self._later.get(name, ()))
            key = (hash(name) & _HASH_MASK) << _ORDER_BITS
            place = bisect_left(self._keys, key)
            while place < len(self._keys) and self._keys[place] >> _ORDER_BITS == key >> _ORDER_BITS:
                found.add(self._orders[self._keys[place] & (_MAX_ORDERS - 1)])
                place += 1
        return found
