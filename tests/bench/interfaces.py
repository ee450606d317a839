"""DNS while the HTTP listeners are flooded: queries lost and latency, with and without each flood.

    make bench-interfaces

dnsperf sends queries for a blocked name at a fixed rate. The daemon has the first processor, dnsperf and the
flood share the last one. Each measurement with a flood comes right after one without.
"""

import argparse
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ports import free_port
from unit.https_server import Authority

from . import machine, processes
from .flooding import Target, facts
from .servers import dnsblock

NAME = "blocked.bench.example"
TOKEN = "dnsblock-bench"
START_SECONDS = 120
WORKER = "packets-"  # the names of the worker threads
SIDES = ("without", "with")
LATENCY = re.compile(r"^> \S+ \S+ \S+ ([\d.]+)$", re.MULTILINE)
SENT, LOST = (re.compile(rf"Queries {what}:\s+(\d+)") for what in ("sent", "lost"))
LEAD_SECONDS = 1.0  # of a flood, before the measurement
# The floods of each listener. "random" sends valid requests for random names to the landing page.
FLOODS = {
    "api": ("valid", "bad", "handshakes", "idle", "slow"),
    "console": ("valid", "bad", "handshakes", "idle", "slow"),
    "metrics": ("valid", "bad", "idle", "slow"),
    "landing": ("valid", "random", "bad", "idle", "slow"),
}


# ------- The daemon


def configure(folder: Path, authority: Authority, ports: dict[str, int]) -> Path:
    """A daemon with a blocked name and all listeners."""
    certificate, key = authority.issue("server")
    shutil.copy(certificate, folder / "server.pem")
    shutil.copy(key, folder / "server.key")
    (folder / "names.txt").write_text(f"{NAME}\n")
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    clients = [{"name": "bench", "sha256": digest, "roles": ["watch"]}]
    (folder / "clients.yaml").write_text(json.dumps(clients))
    config = {
        "listen": [f"127.0.0.1:{ports['dns']}"],
        "workers": 1,
        "upstream": {"servers": ["127.0.0.1:9"], "health_check": None},
        "zones": [{"name": "list", "list": "names.txt", "answer": "nxdomain"}],
        "limits": {"queries_per_second": 0},
        "probes": None,
        "metrics": f"127.0.0.1:{ports['metrics']}",
        "control": str(folder / "control.sock"),
        "api": {
            "listen": f"127.0.0.1:{ports['api']}",
            "certificate": "server.pem",
            "key": "server.key",
            "tokens": "clients.yaml",
        },
        "console": {"listen": f"127.0.0.1:{ports['console']}"},
        "landing": {
            "listen": [f"127.0.0.1:{ports['landing']}"],
            "url": "http://landing.bench.example",
            "organization": "Bench",
            "contact": "mailto:bench@bench.example",
        },
    }
    path = folder / "dnsblock.yaml"
    path.write_text(json.dumps(config))
    return path


@dataclass(frozen=True, slots=True)
class Running:
    """The daemon under test."""

    pid: int
    port: int  # of DNS
    targets: Mapping[str, Target]  # of the floods


@contextmanager
def daemon(folder: Path, processor: str) -> Iterator[Running]:
    """Runs the daemon on a processor, until the end of the block."""
    authority = Authority(folder / "ca")
    ports = {name: free_port() for name in ("dns", *FLOODS)}
    path = configure(folder, authority, ports)
    process = processes.launch(processor, [dnsblock(), "serve", "-c", str(path)], folder)

    def is_ready() -> bool:
        listening = all(processes.is_listening(ports[name]) for name in FLOODS)
        return listening and processes.is_blocked(ports["dns"], NAME)

    try:
        processes.wait_until(is_ready, process, "all listeners are served", START_SECONDS)
        yield Running(process.pid, ports["dns"], targets(ports, str(authority.pem)))
    finally:
        processes.stop(process)


def targets(ports: dict[str, int], authority: str) -> dict[str, Target]:
    """The target of each listener, and of random names."""

    def request(path: str, host: str = "127.0.0.1", more: str = "") -> str:
        return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n{more}\r\n"

    orders = request("/v1/orders", more=f"Authorization: Bearer {TOKEN}\r\n")
    return {
        "api": Target(ports["api"], orders, authority),
        "console": Target(ports["console"], request("/console/login"), authority),
        "metrics": Target(ports["metrics"], request("/metrics")),
        "landing": Target(ports["landing"], request("/page", NAME), batch=16),
        "random": Target(ports["landing"], request("/page", "r{}.example"), batch=4),
    }


# ------- The measurements


@dataclass(frozen=True, slots=True)
class Dns:
    """The queries beside the floods."""

    running: Running
    queries: Path
    rate: int  # per second
    seconds: float
    processor: str

    def measure(self) -> dict[str, float]:
        """Sends the queries: how many were answered and lost, and percentiles of the latency.

        On a busy machine, dnsperf may get no processor while it should send. Then it is run again.
        """
        command = ["dnsperf", "-v", "-s", "127.0.0.1", "-p", str(self.running.port), "-d", str(self.queries)]
        command += ["-l", f"{self.seconds:g}", "-Q", str(self.rate), "-q", "10000"]
        sent = 0
        while not sent:
            before = self._usage()
            said = subprocess.run(
                processes.pinned(self.processor, command), capture_output=True, text=True, check=True
            ).stdout
            sent = int(SENT.search(said)[1])
        waited, busy, own = (now - then for now, then in zip(self._usage(), before, strict=True))
        latencies = sorted(float(text) * 1e6 for text in LATENCY.findall(said))
        return {
            "answered": len(latencies),
            "lost": int(LOST.search(said)[1]),
            "p50_us": percentile(latencies, 0.5),
            "p99_us": percentile(latencies, 0.99),
            "waited_us": waited / 1000 / max(1, len(latencies)),
            "others_percent": 100 * max(0, busy - own) / self.seconds,
        }

    def _usage(self) -> tuple[float, float, float]:
        """The run delay of the worker thread, the work of its processor, and of that the daemon's own."""
        pid = self.running.pid
        busy = machine.busy_seconds(machine.processors()[0])
        return processes.waited_ns(pid, WORKER), busy, processes.cpu_seconds(pid)


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def flood(target: Target, kind: str, seconds: float, processor: str, niceness: int) -> subprocess.Popen[str]:
    """Starts a flood. It stands for other machines, so by default it has the lowest priority."""
    command = [sys.executable, "-m", "bench.flooding", facts(target, kind, seconds)]
    nice = ["nice", "-n", str(niceness), *command]
    return subprocess.Popen(processes.pinned(processor, nice), stdout=subprocess.PIPE, text=True)


def beside(dns: Dns, listener: str, kind: str, niceness: int) -> dict[str, Any]:
    """One measurement without a flood, and one with it."""
    without = dns.measure()
    is_random = kind == "random"
    target = dns.running.targets["random" if is_random else listener]
    seconds = dns.seconds + 2 * LEAD_SECONDS
    process = flood(target, "valid" if is_random else kind, seconds, dns.processor, niceness)
    time.sleep(LEAD_SECONDS)
    flooded = dns.measure()
    said, _ = process.communicate()
    http = {key: count / seconds for key, count in json.loads(said).items()}
    return {"listener": listener, "flood": kind, "without": without, "with": flooded, "per_second": http}


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds, one flood after the other in each of them."""
    server, loader = str(machine.processors()[0]), str(machine.processors()[-1])
    with tempfile.TemporaryDirectory() as name, daemon(Path(name), server) as running:
        queries = Path(name) / "queries"
        queries.write_text(f"{NAME} A\n" * 1000)
        dns = Dns(running, queries, options.dns, options.seconds, loader)
        return [
            beside(dns, listener, kind, options.niceness)
            for _ in range(options.rounds)
            for listener, kinds in FLOODS.items()
            for kind in kinds
        ]


FIGURES = ("p50_us", "p99_us", "waited_us", "others_percent")
COLUMNS = (
    *("listener", "flood", "lost", "p50, µs", "p99, µs", "worker waited, µs/query", "others, %"),
    *("connections/s", "closed/s", "requests/s", "responses/s"),
)


def report(rounds: list[dict[str, Any]]) -> Iterator[str]:
    """A table in Markdown: medians without and with the flood; lost queries are the sum."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for listener, kinds in FLOODS.items():
        for kind in kinds:
            own = [one for one in rounds if (one["listener"], one["flood"]) == (listener, kind)]
            yield f"| {listener} | {kind} | {' | '.join(row(own))} |"


def row(own: list[dict[str, Any]]) -> Iterator[str]:
    """The figures of one flood."""
    yield ", ".join(f"{sum(one[side]['lost'] for one in own):.0f}" for side in SIDES)
    for key in FIGURES:
        yield ", ".join(f"{statistics.median(one[side][key] for one in own):,.0f}" for side in SIDES)
    http: Counter[str] = Counter()
    for one in own:
        http.update({key: value / len(own) for key, value in one["per_second"].items()})
    for key in ("connections", "closed", "sent"):
        yield f"{http[key]:,.0f}"
    yield ", ".join(f"{http[key]:,.0f} of {key}" for key in sorted(http) if key.endswith("xx")) or "0"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.interfaces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--dns", type=int, default=2000, help="queries per second")
    parser.add_argument(
        "--niceness", type=int, default=39, help="of the floods, added to that of this program"
    )
    parser.add_argument("--results", type=Path, help="a file for all results, as JSON")
    options = parser.parse_args()
    facts_of_machine = machine.describe()
    rounds = run(options)
    if options.results is not None:
        options.results.write_text(json.dumps({"machine": facts_of_machine, "rounds": rounds}, indent=1))
    print("\n".join(report(rounds)))


if __name__ == "__main__":
    main()
