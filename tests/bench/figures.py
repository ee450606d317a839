"""What the load tool said, and the arithmetic on it. Pure: no clock, no file, no process.

The word for what is reported is ratio: a figure of a server over the same figure of the limit program, both
taken in one round, one next to the other in time. Absolute figures of a shared machine drift by half.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Where the design puts the bound of the daemon's CPU per query, as a ratio to the limit, for 1,000,000 names.
TARGETS = {"blocked": 1.15, "cached": 1.25, "uncached": 1.40, "mix": 1.25}
# Above so many names the bounds are a tenth wider: the list is no longer in the processor's cache.
MANY = 2_000_000
MANY_ALLOWANCE = 1.1
# Share of a run for which the load tool may stand in line for its processor.
DISTURBED = 0.03


class NotARun(ValueError):  # noqa: N818
    """The load tool printed something else than its one line of JSON."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the load tool; its line, field by field. Rates are per second, latencies in microseconds."""

    seconds: float
    qps: float  # answers
    useful_qps: float  # right ones, within a second
    arrived: int
    useful: int
    offered: int
    skipped: int  # what the load tool itself could not offer in time
    lost: int  # not answered within a second
    wrong: int
    octets: int
    cpu_ns: int  # user and system time of the server in the window
    waited_ns: int  # how long the load tool was ready and had no processor
    idle: float  # share of the load tool's turns in which nothing had come: not the bottleneck
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
        """Whether something else had the load tool's processor, which is to have it alone."""
        return self.waited_ns > DISTURBED * self.seconds * 1e9

    @property
    def busy(self) -> float:
        """Processors that the server used, in the mean."""
        return self.cpu_ns / 1e9 / self.seconds


def parse_run(line: str) -> Run:
    try:
        fields = json.loads(line)
        return Run(**fields)
    except (ValueError, TypeError) as err:
        raise NotARun(f"not a line of the load tool: {line!r}") from err


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the least and the most that were seen."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def spread(values: Iterable[float]) -> Spread | None:
    """`None` where there is no value."""
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
    """The value over the mean of the limit's, those before and after it; `None` where that says nothing."""
    if not limits or min(limits) <= 0:
        return None
    return value / statistics.fmean(limits)


def target(workload: str, names: int) -> float | None:
    """The bound of the daemon's CPU per query for a list of so many names, as a ratio to the limit."""
    bound = TARGETS.get(workload)
    if bound is None:
        return None
    return round(bound * MANY_ALLOWANCE, 3) if names > MANY else bound
