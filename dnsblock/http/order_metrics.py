"""How long orders take to be enforced and verified, and how many queries they block, for `metrics.py`.

The times are those of the ledger, so a restart changes nothing. An order counts once: when it is first
enforced, and when it is first verified.
"""

from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime
from heapq import nlargest
from typing import Literal

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from dnsblock.http.control import View
from dnsblock.orders.order import Order
from dnsblock.orders.state import IssuerState
from dnsblock.policy import Counts
from dnsblock.policy.order_counters import ORDER_COUNTERS

Effect = Literal["block", "unblock"]
EFFECTS: tuple[Effect, ...] = ("block", "unblock")
# In seconds: from one publish to the deadlines of orders (4 hours, a day, a week).
BOUNDS = (0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 604_800.0)

MOST_SHOWN = 500  # orders in the metric of blocked queries


def blocked_by_orders(counts: Counts) -> Metric:
    """The blocked queries of the orders that have blocked the most."""
    family = CounterMetricFamily(
        "dnsblock_order_blocked",
        f"Queries decided by an order, for the {MOST_SHOWN} orders with the most.",
        labels=["issuer", "order_id"],
    )
    blocked = ORDER_COUNTERS.blocked(counts.order_blocked)
    # Of equal ones the newest: Prometheus sees the first query only if the series was there before.
    for labels in sorted(nlargest(MOST_SHOWN, reversed(blocked), key=blocked.__getitem__)):
        family.add_metric(labels, blocked[labels])
    return family


class _Durations:
    """A histogram of orders, by effect. Each order counts once."""

    def __init__(self) -> None:
        self._counted: set[str] = set()  # the SHA-256 of orders
        self._buckets = {effect: [0] * (len(BOUNDS) + 1) for effect in EFFECTS}
        self._seconds = dict.fromkeys(EFFECTS, 0.0)

    def count(self, order: Order, until: datetime | None) -> None:
        effect = effect_of(order)
        if until is None or effect is None or order.sha256 in self._counted:
            return
        self._counted.add(order.sha256)
        # Never below zero: the clock may have been set back between two records.
        seconds = max(0.0, (until - due_at(order)).total_seconds())
        self._buckets[effect][bisect_left(BOUNDS, seconds)] += 1
        self._seconds[effect] += seconds

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        family = HistogramMetricFamily(name, text, labels=["action"])
        for effect in EFFECTS:
            total, cumulative = 0, []
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._buckets[effect], strict=True):
                total += count
                cumulative.append((bound, total))
            family.add_metric([effect], cumulative, self._seconds[effect])
        return family


def effect_of(order: Order) -> Effect | None:
    """Whether an order blocks or opens names; None: it enforces nothing itself."""
    match order.action:
        case "block" | "supersede":
            return "block"
        case "unblock" | "revoke" | "exempt":
            return "unblock"
        case _:
            return None


def due_at(order: Order) -> datetime:
    """From when on an order can be enforced: it is effective, and it is in the ledger."""
    return max(order.effective_at, order.received_at or order.effective_at)


class OrderTimes:
    """The times of all orders. A scrape reads only the orders that have changed since the last one."""

    def __init__(self) -> None:
        self._enforced, self._verified = _Durations(), _Durations()
        self._seen: dict[str, IssuerState] = {}

    def collect(self, view: View) -> Iterator[Metric]:
        """Called at each scrape."""
        for issuer, own in view.state.by_issuer.items():
            for sha256 in own.changed_since(self._seen.get(issuer)):
                order = own.orders.lives[sha256].order
                self._enforced.count(order, order.enforced_at)
                self._verified.count(order, order.verified_at)
            self._seen[issuer] = own
        yield self._enforced.family(
            "dnsblock_order_enforced_seconds",
            "Time from when an order is effective and accepted until it is enforced, by effect.",
        )
        yield self._verified.family(
            "dnsblock_order_verified_seconds",
            "Time from when an order is effective and accepted until probes have verified it, by effect.",
        )
