"""The steady workloads: each server saturated, then at half load.

Each server runs between two runs of the limit program, so that disturbances affect both. Figures are compared
only within a round.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from . import processes
from .figures import Run
from .load import Loader, Workload
from .servers import Server


@dataclass(frozen=True, slots=True)
class Measured:
    """A run of a server, and the runs of the limit program before and after it."""

    workload: str
    server: str
    round: int
    mode: str  # "saturated" or "half"
    rate: float  # offered queries per second; 0 when saturated
    run: Run
    limits: tuple[Run, ...]
    waited: float  # share of the window in which the server's threads waited for a processor
    rss_kib: int

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def measure_round(
    loader: Loader,
    workload: Workload,
    servers: Sequence[Server],
    number: int,
    say: Callable[[Measured], None],
) -> list[Measured]:
    """One round of a workload: saturated, then at half load. The first server is the limit program."""
    limit, *others = servers
    measured: list[Measured] = []
    before = loader.run(limit, workload)
    for server in others:
        run, waited = watched(loader, server, workload, 0)
        after = loader.run(limit, workload)
        found = Measured(
            workload.name, server.name, number, "saturated", 0, run, (before, after), waited, rss(server)
        )
        before = after
        measured.append(found)
        say(found)
    for saturated in list(measured):
        server = next(server for server in others if server.name == saturated.server)
        rate = saturated.run.useful_qps / 2
        if rate < 1:
            continue
        run, waited = watched(loader, server, workload, rate)
        alike = loader.run(limit, workload, rate)
        found = Measured(workload.name, server.name, number, "half", rate, run, (alike,), waited, rss(server))
        measured.append(found)
        say(found)
    return measured


def watched(loader: Loader, server: Server, workload: Workload, rate: float) -> tuple[Run, float]:
    """A run, and the share of it in which the server waited for a processor."""
    before = processes.waited_ns(server.pid)
    run = loader.run(server, workload, rate)
    waited = processes.waited_ns(server.pid) - before
    return run, waited / 1e9 / (loader.warm_up + run.seconds)


def rss(server: Server) -> int:
    return processes.rss_kib(server.pid)
