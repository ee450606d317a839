"""The steady workloads: each server saturated, and then at half of what it takes.

A server's run is between two of the limit program, which its neighbours share: what the machine does to one
it does to the other. Figures are compared within a round and never across.
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
    rate: float  # queries per second that were offered; 0 when saturated
    run: Run
    limits: tuple[Run, ...]
    waited: float  # share of the window that the server's threads were ready and had no processor
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
    """One round of a workload: saturated, then at half of that. The first server is the limit program."""
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
    """A run, and how much of it the server stood in line for a processor."""
    before = processes.waited_ns(server.pid)
    run = loader.run(server, workload, rate)
    waited = processes.waited_ns(server.pid) - before
    return run, waited / 1e9 / (loader.warm_up + run.seconds)


def rss(server: Server) -> int:
    return processes.rss_kib(server.pid)
