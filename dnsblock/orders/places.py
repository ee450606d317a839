"""The places where the entries of an order are written, for problems and notes."""

from bisect import bisect_right

from dnsblock.errors import Problem
from dnsblock.orders.order import Order, RefusedEntry


class Places:
    """Finds the line of each entry, also behind entries that were left out."""

    def __init__(self, order: Order) -> None:
        self._order = order
        left_out = sorted(one.index for one in order.refused if one.index is not None)
        self._before = [index - number for number, index in enumerate(left_out)]  # the entries before each

    def problem(self, index: int, value: str, reason: str) -> Problem:
        """A problem with an entry of the order, by its index."""
        order = self._order
        written = index if order.borrows else index + bisect_right(self._before, index)
        if order.entries_file is not None:
            return Problem(order.entries_file.path, written + 1, value, reason)
        return order.problem(("entries", written), value, reason)

    def refused(self, one: RefusedEntry) -> Problem:
        """The problem with an entry or a target that was left out."""
        names = self._order.entries_file
        file = self._order.file if names is None or one.index is None else names.path
        return Problem(file, one.line, one.value, f"{one.code}: {one.reason}")
