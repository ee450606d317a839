"""The effect of publishes on clients: latency at half load with and without a hundred publishes.

A publish is an order for one name, in a POST to the control socket. The time until the first blocked answer
is measured from the request. The next order follows without a pause.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count

from . import processes
from .figures import Run, percentile
from .load import Loader, Workload
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
    numbers = count(1)
    seconds: list[float] = []
    during: list[Run] = []
    with beside(loader):
        with loader.running(daemon, workload, rate) as quiet:
            while not quiet.is_over():
                look(daemon, "nobody.bench.example")
        while len(seconds) < publishes:
            with loader.running(daemon, workload, rate) as running:
                time.sleep(loader.warm_up)
                until = time.monotonic() + loader.seconds
                seconds.extend(publish_until(until, daemon, numbers))
                while not running.is_over():
                    look(daemon, "nobody.bench.example")
            during.append(running.result)
    peak = processes.rss_kib(daemon.pid, "VmHWM")
    return Published(
        workload.name, rate, len(seconds), quiet.result, tuple(during), tuple(seconds), rss, peak
    )


@contextmanager
def beside(loader: Loader) -> Iterator[None]:
    """Runs this process on the processor of the load tool: the daemon has its own for itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [int(loader.processor)])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def publish_until(end: float, daemon: Daemon, numbers: Iterator[int]) -> Iterator[float]:
    """Publishes one order after the other until the load ends. Returns the seconds of each."""
    while time.monotonic() < end:
        yield daemon.push(next(numbers)).in_force


def look(daemon: Daemon, name: str) -> bool:
    """Whether a name is blocked, as each publish asks."""
    time.sleep(LOOK_SECONDS)
    return processes.is_blocked(daemon.port, name)
