"""The cost of the dnstap output: CPU time per query with it, as a ratio to the same daemon without it.

PYTHONPATH=tests python -m bench.dnstap --names 100000 --rounds 7 --seconds 1

Each run with the output is between two runs without it, and is divided by their mean.
"""

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ports import free_port

from . import processes
from .load import WORKLOADS, Loader, fill_cache, make_lists, make_tools
from .servers import Daemon, Setting

SERVER, LOAD = "0", "1"  # processors
WORKLOADS_MEASURED = ("blocked", "cached")


class Tapped(Daemon):
    """dnsblock with the output. `messages` and whether a reader listens are in its name: `policy-read`."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.name = name
        super().__init__(setting)

    @property
    def socket(self) -> Path:
        return self.folder / "reader.sock"

    def settings(self) -> dict[str, object]:
        messages = self.name.partition("-")[0]
        return super().settings() | {"dnstap": {"socket": str(self.socket), "messages": messages}}


@contextmanager
def capturing(tapped: Tapped) -> Iterator[None]:
    """fstrm_capture, which writes nothing to a disk."""
    command = ["fstrm_capture", "-t", "protobuf:dnstap.Dnstap", "-u", str(tapped.socket), "-w", "/dev/null"]
    with subprocess.Popen(processes.pinned(LOAD, command)) as reader:
        try:
            yield
        finally:
            reader.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    make_tools()
    lists, upstream = make_lists(options.names), free_port()
    loader = Loader(lists, LOAD, upstream, options.seconds, warm_up=0.3)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        setting = Setting(
            Path(folder), workers=1, server_processors=SERVER, upstream_port=upstream,
            cached=True, limited=False, load_timeout=300,
        )  # fmt: skip
        without = Daemon(setting)
        others = [Tapped(setting, name) for name in ("policy-read", "policy-alone", "all-read", "all-alone")]
        for tapped in others:
            if tapped.name.endswith("-read"):
                stack.enter_context(capturing(tapped))
        for server in (without, *others):
            server.start(lists / "names.txt")
            stack.callback(server.stop)
            fill_cache(loader, server)
        for name in WORKLOADS_MEASURED:
            measure(loader, name, without, others, options.rounds)


def measure(loader: Loader, name: str, without: Daemon, others: list[Tapped], rounds: int) -> None:
    """Prints the ratios of one workload: median, lowest and highest."""
    ratios: dict[str, list[float]] = {tapped.name: [] for tapped in others}
    workload = WORKLOADS[name]
    for _ in range(rounds):
        before = loader.run(without, workload)
        for tapped in others:
            run = loader.run(tapped, workload)
            after = loader.run(without, workload)
            ratios[tapped.name].append(run.cpu_us * 2 / (before.cpu_us + after.cpu_us))
            before = after
    for tapped in others:
        found = ratios[tapped.name]
        figures = f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        print(f"{name:8} {tapped.name:13} {figures}", flush=True)


if __name__ == "__main__":
    main()
