"""The output of the load tool, and arithmetic on it. Pure: no clock, no file, no process.

Ratios are reported: the figure of a server divided by the same figure of the limit program. Both are
measured in one round, one after the other, because absolute figures of a shared machine drift by half.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Targets for the daemon's CPU time per query, as a ratio to the limit, for 1,000,000 names.
TARGETS = {"blocked": 1.15, "cached": 1.25, "uncached": 1.40, "mix": 1.25}
# With more names, the targets are a tenth higher: the list no longer fits into the processor's cache.
MANY = 2_000_000
MANY_ALLOWANCE = 1.1
# Share of a run for which the load tool may wait for its processor.
DISTURBED = 0.03


class NotARun(ValueError):  # noqa: N818
    """The load tool did not print its line of JSON."""


@dataclass(frozen=True, slots=True)
class Run:
    """The result of the load tool, field by field. Rates are per second, latencies in microseconds."""

    seconds: float
    qps: float  # answers
    useful_qps: float  # right ones, within a second
    arrived: int
    useful: int
    offered: int
    skipped: int  # queries that the load tool could not send in time
    lost: int  # not answered within a second
    wrong: int
    bytes: int
    cpu_ns: int  # user and system time of the server in the window
    waited_ns: int  # time that the load tool waited for a processor
    idle: float  # share of the load tool's turns without a response: if high, it is not the bottleneck
    p50_us: int
    p90_us: int
    p99_us: int
    p999_us: int
    max_us: int
    rcodes: dict[str, int]

    @property
    def cpu_us(self) -> float:
        """CPU of the server per answer, in microseconds."""
        return self.cpu_ns / 1000 / self.arrived if self.arrived else float("inf")

    @property
    def disturbed(self) -> bool:
        """Whether another process used the load tool's processor."""
        return self.waited_ns > DISTURBED * self.seconds * 1e9

    @property
    def busy(self) -> float:
        """Processors that the server used on average."""
        return self.cpu_ns / 1e9 / self.seconds


def parse_run(line: str) -> Run:
    try:
        fields = json.loads(line)
        return Run(**fields)
    except (ValueError, TypeError) as err:
        raise NotARun(f"invalid output of the load tool: {line!r}") from err


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, minimum and maximum."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def spread(values: Iterable[float]) -> Spread | None:
    """`None` without values."""
    seen = sorted(values)
    return Spread(statistics.median(seen), seen[0], seen[-1]) if seen else None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ranked = sorted(values)
    rank = math.ceil(share * len(ranked) - 1e-9)  # 0.99 * 100 is a little more than 99 to a float
    return ranked[min(max(rank, 1), len(ranked)) - 1]


def ratio(value: float, limits: Sequence[float]) -> float | None:
    """The ratio to the mean of the limit's runs before and after it. `None` if that has no meaning."""
    if not limits or min(limits) <= 0:
        return None
    return value / statistics.fmean(limits)


def target(workload: str, names: int) -> float | None:
    """The target for the daemon's CPU time per query with this many names, as a ratio to the limit."""
    bound = TARGETS.get(workload)
    if bound is None:
        return None
    return round(bound * MANY_ALLOWANCE, 3) if names > MANY else bound
