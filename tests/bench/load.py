"""Builds the load tools, generates the lists, and runs the load tool against a server."""

import lzma
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import machine, processes
from .figures import Run, parse_run
from .servers import BUILD, Server

TOOLS = Path(__file__).parent / "tools"
PACKAGE = Path(__file__).parents[2] / "dnsblock"
OPEN_NAMES = 35_000  # in open.txt, see names.c
FILLING_RUNS = 10  # at most, to fill a cache
SAMPLE_BYTES = 20_000_000  # of the list, to measure how well it compresses


@dataclass(frozen=True, slots=True)
class Workload:
    """The queries of a workload."""

    name: str
    file: str  # in the folder of the list
    cached: bool  # whether servers cache the upstream's responses
    limit: str  # the program with the same system calls
    note: str


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("blocked", "blocked.txt", True, "limit_echo", "names of the list"),
        Workload("cached", "open.txt", True, "limit_echo", "35,000 names that are not listed"),
        Workload("mix", "mix.txt", True, "limit_echo", "5 % blocked, 95 % cached"),
        Workload("uncached", "open.txt", False, "limit_forward", "not listed, each name once, no cache"),
    )
}


@dataclass(frozen=True, slots=True)
class Loader:
    """The load tool on its processor, with the options of all its runs."""

    lists: Path
    processor: str
    upstream_port: int
    seconds: float
    warm_up: float
    quiet: float = 0  # seconds to wait for an idle machine before a run

    def command(
        self, server: Server, workload: Workload, rate: float = 0, seconds: float = 0, lag_us: int = 1_000_000
    ) -> list[str]:
        """`rate`: queries per second, whatever the server does; 0: as many as the server answers."""
        options = {
            "port": server.port,
            "queries": self.lists / workload.file,
            "pid": server.pid,
            "upstream": self.upstream_port,
            # Without a cache, the TTL is 0 (RFC 1035 3.2.1), and no name is queried twice.
            "ttl": 3600 if workload.cached else 0,
            "seconds": seconds or self.seconds,
            "warm-up": self.warm_up,
        }
        if rate:
            options |= {"rate": f"{rate:.0f}", "lag": lag_us}
        flags = [] if workload.cached else ["--unique"]
        flags += ["--any"] if server.name == "limit_echo" else []
        command = [str(BUILD / "load"), *flags, *(f"--{key}={value}" for key, value in options.items())]
        return processes.pinned(self.processor, command)

    def run(self, server: Server, workload: Workload, rate: float = 0) -> Run:
        machine.wait_for_quiet(self.quiet)
        with self.running(server, workload, rate) as running:
            pass
        return running.result

    @contextmanager
    def running(
        self, server: Server, workload: Workload, rate: float, seconds: float = 0, lag_us: int = 1_000_000
    ) -> Iterator["Running"]:
        """A run in the background. The end of the block waits for it."""
        command = self.command(server, workload, rate, seconds, lag_us)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                running = Running(process)
                yield running
                out, err = process.communicate(timeout=self.warm_up + (seconds or self.seconds) + 300)
            finally:
                process.kill()
        if process.returncode != 0:
            raise RuntimeError(f"the load tool: {err}")
        running.result = parse_run(out)


def fill_cache(loader: Loader, server: Server) -> None:
    """Sends queries until each name that is not listed was queried."""
    answered = 0
    for _ in range(FILLING_RUNS):
        answered += loader.run(server, WORKLOADS["cached"]).arrived
        if answered > 2 * OPEN_NAMES:
            return


class Running:
    """A run of the load tool, with its result after its end."""

    result: Run

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def is_over(self) -> bool:
        return self.process.poll() is not None


def make_tools() -> None:
    """Builds the tools, and the byte code of the daemon.

    An installation has that, too. Without it, each startup compiles three hundred modules.
    """
    subprocess.run(["make", "--silent", "-C", str(TOOLS), f"BUILD={BUILD}"], check=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(PACKAGE)], check=True)


def make_lists(count: int) -> Path:
    """Generates the list, its queries, and a list of one name; again if the tool changed."""
    folder, program = BUILD / f"names-{count}", BUILD / "names"
    if not folder.exists() or folder.stat().st_mtime < program.stat().st_mtime:
        shutil.rmtree(folder, ignore_errors=True)
        partial = BUILD / f"names-{count}.part"
        partial.mkdir(parents=True, exist_ok=True)
        subprocess.run([str(program), str(partial), str(count)], check=True)
        (partial / "one.txt").write_text("only.bench.example\n")
        partial.rename(folder)
    return folder


def reading_seconds(names: Path) -> float:
    """The time to read the file: the lower bound for loading the list."""
    began = time.monotonic()
    with names.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
    return time.monotonic() - began


def compressed_bytes(names: Path, count: int) -> float:
    """Bytes per name of the list, compressed by xz: the lower bound for memory."""
    with names.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    return len(lzma.compress(sample, preset=1)) / (sample.count(b"\n") or count)
