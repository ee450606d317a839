"""The effect of publishes on clients: latency at half load with and without a hundred publishes.

A publish is an order for one name, and an order that lifts the previous one, in one POST to the control
socket. The time until the first blocked answer is measured from the request.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from . import processes
from .figures import Run, percentile
from .load import Loader, Running, Workload
from .pushing import LOOK_SECONDS
from .servers import Daemon

PUBLISHES = 100


@dataclass(frozen=True, slots=True)
class Published:
    """Latencies at the same load in microseconds; times of publishes in seconds."""

    workload: str
    rate: float
    publishes: int
    without: Run
    during: tuple[Run, ...]
    in_force_seconds: tuple[float, ...]  # from the request to the first blocked answer
    rss_kib: int  # before the publishes
    peak_kib: int  # maximum, loading included

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @property
    def p99_us(self) -> int:
        """The worst run."""
        return max(run.p99_us for run in self.during)

    @property
    def lost(self) -> int:
        return sum(run.lost for run in self.during)

    def in_force(self, share: float) -> float:
        return percentile(self.in_force_seconds, share)


def measure_publishes(
    loader: Loader, daemon: Daemon, workload: Workload, rate: float, publishes: int = PUBLISHES
) -> Published:
    rss = processes.rss_kib(daemon.pid)
    numbers = iter(range(1, publishes + 1))
    seconds: list[float] = []
    with loader.running(daemon, workload, rate) as quiet:
        while not quiet.is_over():
            look(daemon, "nobody.bench.example")
    during: list[Run] = []
    while len(seconds) < publishes:
        with loader.running(daemon, workload, rate) as running:
            time.sleep(loader.warm_up)
            seconds.extend(publish_until_over(daemon, running, numbers))
        during.append(running.result)
    peak = processes.rss_kib(daemon.pid, "VmHWM")
    return Published(workload.name, rate, publishes, quiet.result, tuple(during), tuple(seconds), rss, peak)


def publish_until_over(daemon: Daemon, running: Running, numbers: Iterator[int]) -> Iterator[float]:
    """Publishes one order after the other while the load runs. Returns the seconds of each."""
    while not running.is_over():
        number = next(numbers, None)
        if number is None:
            look(daemon, "nobody.bench.example")
            continue
        yield daemon.push(number).in_force


def look(daemon: Daemon, name: str) -> bool:
    """Whether a name is blocked, as each publish asks."""
    time.sleep(LOOK_SECONDS)
    return processes.is_blocked(daemon.port, name)
