"""Which counter of the packet path counts the queries that an order blocks."""

import threading
from collections.abc import Mapping

MOST = (1 << 14) - 1  # orders with a counter (`counters::ORDERS` in the engine)


class OrderCounters:
    """Gives each order a counter, for the life of the process. Thread-safe.

    The counters count on when an order ends or its zone is compiled again, as a Prometheus counter must.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._numbers: dict[tuple[str, str], int] = {}
        self._adding = threading.Lock()

    def number(self, issuer: str, order_id: str) -> int:
        """The counter of an order, from 1 on; 0 if all are in use."""
        key = (issuer, order_id)
        number = self._numbers.get(key)
        if number is not None:
            return number
        with self._adding:
            if len(self._numbers) >= self._most:
                return self._numbers.get(key, 0)
            return self._numbers.setdefault(key, len(self._numbers) + 1)

    def blocked(self, counts: Mapping[int, int]) -> dict[tuple[str, str], int]:
        """The blocked queries of each order by issuer and number, the newest order last.

        `counts`: those of the engine by counter, without zeros.
        """
        with self._adding:
            return {order: counts.get(number, 0) for order, number in self._numbers.items()}

    def blocked_by(self, issuer: str, order_id: str, counts: Mapping[int, int]) -> int | None:
        """The queries that one order has blocked; None if it has no counter."""
        number = self._numbers.get((issuer, order_id))
        return None if number is None else counts.get(number, 0)


ORDER_COUNTERS = OrderCounters()
