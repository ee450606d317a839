"""Five times as many queries as a server can answer, and whether it still answers and reloads.

No load tool can send five times what a server with a whole processor answers, so busy loops share its
processor.
"""

import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from . import processes
from .figures import Run
from .load import Loader, Workload
from .servers import Daemon, Server

FACTOR = 5
LAG_US = 1000  # later queries are skipped, because they would only come in bursts


@dataclass(frozen=True, slots=True)
class Overloaded:
    """Rates are per second, times in seconds. A time is `None` after a failure."""

    workload: str
    server: str
    best_qps: float  # useful answers when saturated, while busy loops run on the same processors
    wanted_qps: float
    offered_qps: float  # sent by the load tool
    run: Run
    rss_before_kib: int
    rss_after_kib: int
    metrics_seconds: float | None
    reload_seconds: float | None

    def as_json(self) -> dict[str, object]:
        return asdict(self)

    @property
    def share_of_best(self) -> float:
        return self.run.useful_qps / self.best_qps if self.best_qps else 0


def measure_overload(loader: Loader, server: Server, workload: Workload) -> Overloaded:
    with slowed_down(server):
        best = loader.run(server, workload).useful_qps
        return measure_flood(loader, server, workload, best)


@contextmanager
def slowed_down(server: Server) -> Iterator[None]:
    """Busy loops that leave the server a sixth of its processors."""
    loops = [
        processes.launch(server.setting.server_processors, ["sh", "-c", "while :; do :; done"], server.folder)
        for _ in range(FACTOR * server.setting.workers)
    ]
    try:
        yield
    finally:
        for loop in loops:
            processes.stop(loop)


def measure_flood(loader: Loader, server: Server, workload: Workload, best_qps: float) -> Overloaded:
    wanted = best_qps * FACTOR
    before = processes.rss_kib(server.pid)
    metrics_seconds = reload_seconds = None
    with loader.running(server, workload, wanted, lag_us=LAG_US) as running:
        time.sleep(loader.warm_up)
        if isinstance(server, Daemon):
            metrics_seconds = timed(lambda: read_metrics(server))
            reload_seconds = timed(server.reload)
    run = running.result
    after = processes.rss_kib(server.pid)
    return Overloaded(
        workload.name,
        server.name,
        best_qps,
        wanted,
        run.offered / run.seconds,
        run,
        before,
        after,
        metrics_seconds,
        reload_seconds,
    )


def timed(action: Callable[[], object]) -> float | None:
    """The duration, or `None` after a failure, which is a result and does not end the run."""
    began = time.monotonic()
    try:
        action()
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None
    return time.monotonic() - began


def read_metrics(daemon: Daemon) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics", timeout=60) as response:
        body: bytes = response.read()
        return body
