"""Many orders: startup, one order more, and one large order. `make bench-orders` prints the figures.

The daemon is real, and so is each order: it is pushed to the control socket, and a client queries its name
until it is blocked. Times are in milliseconds; the processor time is that of the daemon.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from ports import free_port

from . import processes
from .figures import percentile
from .load import make_lists, make_tools
from .pushing import Pushed, push
from .servers import dnsblock

ISSUER = "bench.example"
START_SECONDS = 600.0
TICK = os.sysconf("SC_CLK_TCK")


class Orders:
    """A daemon with a number of orders in its ledger."""

    def __init__(self, folder: Path, base: Path | None, processors: str) -> None:
        self._folder, self._processors, self.port = folder, processors, free_port()
        (folder / "orders").mkdir()
        zones = [{"name": "orders", "issuer": ISSUER, "unsigned": "accept", "answer": "nxdomain"}]
        if base is not None:
            shutil.copyfile(base, folder / "base.txt")
            zones.append({"name": "base", "list": "base.txt", "answer": "nxdomain"})
        config = {
            "listen": [f"127.0.0.1:{self.port}"],
            "upstream": {"servers": ["127.0.0.1:9"], "health_check": None},
            "orders": "orders",
            "zones": zones,
            "guards": {"bulk": {"entries": "off"}},
            "probes": None,
            "state": "state",
            "control": str(folder / "control.sock"),
            "metrics": None,
        }
        (folder / "dnsblock.yaml").write_text(json.dumps(config))
        self._seq, self._prev = 0, ""
        self._starts = 0

    def order(self, names: list[str], entries_file: bytes = b"") -> tuple[str, bytes]:
        """The next order of the issuer: its file name and its bytes."""
        self._seq += 1
        if entries_file:
            digest = hashlib.sha256(entries_file).hexdigest()
            entries = f"entries_file: {{path: entries.txt, sha256: {digest}, lines: {len(names)}}}\n"
        else:
            entries = "entries:\n" + "".join(f"  - {name}\n" for name in names)
        prev = f"prev: sha256:{self._prev}\n" if self._prev else ""
        text = (
            f"schema: dnsblock.order/1\nissuer: {ISSUER}\norder_id: o-{self._seq}\nseq: {self._seq}\n{prev}"
            f"action: block\nissued_at: 2026-01-01T00:00:00Z\n{entries}end: o-{self._seq}\n"
        )
        data = text.encode()
        self._prev = hashlib.sha256(data).hexdigest()
        return f"{self._seq:06}.yaml", data

    def fill(self, orders: int, entries: int) -> None:
        """Puts orders into the inbox."""
        for number in range(orders):
            name, data = self.order(
                [f"n{number}-{entry}.names{number % 97}.example" for entry in range(entries)]
            )
            (self._folder / "orders" / name).write_bytes(data)

    def start(self, blocked: str) -> tuple[float, float]:
        """Starts the daemon. Returns the seconds until a name is blocked, and its processor time."""
        command = [str(Path(sys.executable).with_name("dnsblock")), "serve", "-c", "dnsblock.yaml"]
        self._starts += 1
        began = time.monotonic()
        self._process = processes.launch(self._processors, command, self._folder)
        done = lambda: processes.is_blocked(self.port, blocked)  # noqa: E731
        processes.wait_until(done, self._process, "it blocks", START_SECONDS)
        return time.monotonic() - began, self.cpu()

    def wait_ready(self) -> None:
        """Waits for the records of the startup. An order that comes before waits for them, too."""
        log = self._folder / "log"
        done = lambda: log.read_bytes().count(b'"event": "ready"') >= self._starts  # noqa: E731
        processes.wait_until(done, self._process, "it is ready", START_SECONDS)

    def cpu(self) -> float:
        """The processor time of the daemon in seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def push(self, names: list[str], *, from_file: bool = False) -> Pushed:
        """Pushes an order and waits until its last name is blocked."""
        entries = "".join(f"{name}\n" for name in names).encode() if from_file else b""
        name, data = self.order(names, entries)
        return push(self._folder / "control.sock", self.port, {name: data}, names[-1], entries=entries)

    @contextmanager
    def reading_lists(self) -> Iterator[Callable[[], bool]]:
        """Reads the base list again. Yields whether that still goes on."""
        with (self._folder / "base.txt").open("a") as file:
            file.write(f"added{time.monotonic_ns()}.example\n")
        command = [dnsblock(), "reload", "-c", "dnsblock.yaml", "--json"]
        with subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL) as reload:
            yield lambda: reload.poll() is None

    def stop(self) -> None:
        processes.stop(self._process)


def figures(asked: argparse.Namespace) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        base = make_lists(asked.base) / "names.txt" if asked.base else None
        daemon = Orders(Path(folder), base, asked.processors)
        daemon.fill(asked.orders, asked.entries)
        first = "n0-0.names0.example"
        seconds, cpu = daemon.start(first)
        yield f"first startup, all documents read: {seconds:.2f} s, processor {cpu:.2f} s"
        daemon.stop()
        seconds, cpu = daemon.start(first)
        yield f"startup: {seconds:.2f} s, processor {cpu:.2f} s"
        daemon.wait_ready()
        before = daemon.cpu()
        times = [daemon.push([f"one{number}.more.example"]).in_force for number in range(asked.publishes)]
        cpu = (daemon.cpu() - before) / max(1, asked.publishes) * 1000
        yield f"one order more until blocked: {spread(times)}, processor {cpu:.1f} ms each"
        if base is not None:
            yield f"the same while the list is read: {spread(list(meanwhile(daemon, asked.publishes)))}"
        large = daemon.push([f"large{number}.example" for number in range(asked.large)], from_file=True)
        times = (large.in_force, large.response)
        yield "an order with {:,} entries: blocked {:.2f} s, verdict {:.2f} s".format(asked.large, *times)
        daemon.stop()


def meanwhile(daemon: Orders, publishes: int) -> Iterator[float]:
    """The seconds until each order is in force that is pushed while a list is read."""
    done, numbers = 0, count()
    while done < publishes:
        with daemon.reading_lists() as is_reading:
            while is_reading() and done < publishes:
                seconds = daemon.push([f"meanwhile{next(numbers)}.more.example"]).in_force
                if is_reading():  # otherwise part of it was afterwards
                    done += 1
                    yield seconds


def spread(seconds: list[float]) -> str:
    p50, p99 = percentile(seconds, 0.5) * 1000, percentile(seconds, 0.99) * 1000
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, of {len(seconds)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=9_000, help="orders in the ledger (%(default)s)")
    parser.add_argument("--entries", type=int, default=111, help="entries of each (%(default)s)")
    parser.add_argument("--publishes", type=int, default=100, help="orders that are pushed (%(default)s)")
    parser.add_argument("--large", type=int, default=100_000, help="entries of one large order (%(default)s)")
    parser.add_argument("--base", type=int, default=0, help="names of a list beside the orders (%(default)s)")
    parser.add_argument("--processors", default="0-1", help="of the daemon, as of taskset(1) (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    asked = parser.parse_args()
    make_tools()
    total = asked.orders * asked.entries
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} processors, {platform.machine()}")
    print(f"{asked.orders:,} orders with {total:,} entries")
    for line in figures(asked):
        print(line, flush=True)


if __name__ == "__main__":
    main()
