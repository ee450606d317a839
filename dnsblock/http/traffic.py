"""Statistics of the last minute for `dnsblock status`: queries, RCODEs, latency, upstreams."""

import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from dnsblock.policy import Counts

WINDOW_SECONDS = 60.0
SAMPLE_SECONDS = 10.0
PERCENTILES = (50, 90, 99)

Buckets = list[tuple[float, int]]  # upper bounds in seconds, and the count of each


class Traffic:
    """Samples of the counters, to compute the last minute from totals since startup."""

    def __init__(self, counts: Counts) -> None:
        self._samples = deque([(time.monotonic(), counts)])

    def is_due(self) -> bool:
        """Whether the next sample is due."""
        return time.monotonic() - self._samples[-1][0] >= SAMPLE_SECONDS

    def sample(self, counts: Counts) -> None:
        """Stores the current counters. Of samples older than a minute, only the newest is kept."""
        now = time.monotonic()
        self._samples.append((now, counts))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()

    def facts(self, now: Counts) -> dict[str, Any]:
        """Queries, responses and latency since the oldest sample; latency in milliseconds."""
        since, before = self._samples[0]
        seconds = max(time.monotonic() - since, 0.001)
        queries = sum(now.queries.values()) - sum(before.queries.values())
        responses = {rcode: count - before.rcodes[rcode] for rcode, count in now.rcodes.items()}
        return {
            "seconds": round(seconds, 1),
            "queries": queries,
            "queries_per_second": round(queries / seconds, 1),
            "blocked": blocked_of(now) - blocked_of(before),
            "responses": {rcode: count for rcode, count in responses.items() if count},
            "latency_ms": {
                made: latency(subtract(buckets, before.waited[made][0]))
                for made, (buckets, _) in now.waited.items()
            },
        }

    def upstreams(self, now: Counts) -> list[dict[str, Any]]:
        """Each upstream: its state, since when and why, and its latency since the oldest sample."""
        before = {one.address: one for one in self._samples[0][1].upstreams}
        found = []
        for one in now.upstreams:
            old = before.get(one.address)
            buckets = (
                one.latency_buckets if old is None else subtract(one.latency_buckets, old.latency_buckets)
            )
            host, port = one.address
            state = "up" if one.is_up else "suspected" if one.is_suspected else "down"
            changed_at, reason = one.changed or (None, None)
            found.append(
                {
                    "address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                    "state": state,
                    "since": None
                    if changed_at is None
                    else datetime.fromtimestamp(changed_at, UTC).isoformat(),
                    "reason": reason,
                    "outstanding": one.outstanding,
                    "latency_ms": latency(buckets),
                }
            )
        return found


def subtract(now: Buckets, before: Buckets) -> Buckets:
    """The counts between two samples; the total if the counters were reset in between."""
    between = [(bound, count - old) for (bound, count), (_, old) in zip(now, before, strict=True)]
    return now if any(count < 0 for _, count in between) else between


def latency(buckets: Buckets) -> dict[str, float | None]:
    """Percentiles in milliseconds; null without data."""
    return {f"p{percent}": percentile(buckets, percent) for percent in PERCENTILES}


def percentile(buckets: Iterable[tuple[float, int]], percent: float) -> float | None:
    """The latency of a percentile, interpolated in its bucket as Prometheus does."""
    counted = list(buckets)
    total = sum(count for _, count in counted)
    if total == 0:
        return None
    wanted, lower, below = total * percent / 100, 0.0, 0
    for bound, count in counted:
        if below + count >= wanted and count:
            if bound == float("inf"):
                return round(lower * 1000, 3)  # the last bucket has no upper bound
            return round((lower + (bound - lower) * (wanted - below) / count) * 1000, 3)
        lower, below = bound, below + count
    return round(lower * 1000, 3)


def blocked_of(counts: Counts) -> int:
    """Queries of blocked names."""
    return sum(count for (_, outcome), count in counts.queries.items() if outcome == "blocked")
