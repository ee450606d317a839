"""The figures of the last hours for charts: queries, blocked queries, latency and names. In memory only."""

from collections import deque
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dnsblock.http.traffic import Buckets, blocked_of, percentile, subtract
from dnsblock.policy import Counts
from dnsblock.times import utc

RECENT = 360  # points: an hour, if one is added every ten seconds
EARLIER = 288  # points: a day before that
MERGED = 30  # recent points that become an earlier one
PERCENTS = (50, 99)


@dataclass(frozen=True, slots=True)
class Point:
    """The figures of an interval that ends at `at`."""

    at: datetime
    seconds: float
    queries: int
    blocked: int
    here_ms: tuple[float | None, float | None]  # p50 and p99 of responses that are made here
    upstream_ms: tuple[float | None, float | None]
    names: int  # enforced at the end of the interval

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {**asdict(self), "at": utc(self.at)}


class Series:
    """Two series of points: the recent ones, and those before them at a longer interval."""

    def __init__(self, counts: Counts, now: float) -> None:
        """`now`: of a monotonic clock."""
        self._recent: deque[Point] = deque(maxlen=RECENT)
        self._earlier: deque[Point] = deque(maxlen=EARLIER)
        self._last, self._before = (now, counts), (now, counts)
        self._since = 0

    def add(self, counts: Counts, names: int, at: datetime, now: float) -> None:
        """Adds the interval since the last call."""
        self._recent.append(_between(self._last, (now, counts), names, at))
        self._last = (now, counts)
        self._since += 1
        if self._since == MERGED:
            self._earlier.append(_between(self._before, (now, counts), names, at))
            self._before, self._since = (now, counts), 0

    def as_json(self) -> dict[str, list[dict[str, Any]]]:
        """Both series, the oldest points first."""
        return {
            "recent": [one.as_json() for one in self._recent],
            "earlier": [one.as_json() for one in self._earlier],
        }


def _between(before: tuple[float, Counts], now: tuple[float, Counts], names: int, at: datetime) -> Point:
    (then, old), (moment, new) = before, now
    return Point(
        at,
        round(moment - then, 3),
        sum(new.queries.values()) - sum(old.queries.values()),
        blocked_of(new) - blocked_of(old),
        _latency(new.waited["here"][0], old.waited["here"][0]),
        _latency(new.waited["upstream"][0], old.waited["upstream"][0]),
        names,
    )


def _latency(now: Buckets, before: Buckets) -> tuple[float | None, float | None]:
    buckets = subtract(now, before)
    median, high = (percentile(buckets, percent) for percent in PERCENTS)
    return median, high
