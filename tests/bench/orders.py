"""Many orders: startup, one order more, and one large order. `make bench-orders` prints the figures.

The daemon is real, and so is each order: it is pushed to the control socket, and a client queries its name
until it is blocked. Times are in milliseconds; the processor time is that of the daemon.
"""

import argparse
import hashlib
import http.client
import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ports import free_port

from . import processes
from .figures import percentile

ISSUER = "bench.example"
START_SECONDS = 600.0
IN_FORCE_SECONDS = 60.0
TICK = os.sysconf("SC_CLK_TCK")


class Orders:
    """A daemon with a number of orders in its ledger."""

    def __init__(self, folder: Path, base: Path | None) -> None:
        self._folder, self.port = folder, free_port()
        (folder / "orders").mkdir()
        zones = [{"name": "orders", "issuer": ISSUER, "unsigned": "accept", "answer": "nxdomain"}]
        zones += [] if base is None else [{"name": "base", "list": str(base), "answer": "nxdomain"}]
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

    def order(self, names: list[str]) -> tuple[str, bytes]:
        """The next order of the issuer: its file name and its bytes."""
        self._seq += 1
        entries = "".join(f"  - {name}\n" for name in names)
        prev = f"prev: sha256:{self._prev}\n" if self._prev else ""
        text = (
            f"schema: dnsblock.order/1\nissuer: {ISSUER}\norder_id: o-{self._seq}\nseq: {self._seq}\n{prev}"
            f"action: block\nissued_at: 2026-01-01T00:00:00Z\nentries:\n{entries}end: o-{self._seq}\n"
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
        began = time.monotonic()
        self._process = processes.launch("0-1", command, self._folder)
        done = lambda: processes.is_blocked(self.port, blocked)  # noqa: E731
        processes.wait_until(done, self._process, "it blocks", START_SECONDS)
        return time.monotonic() - began, self.cpu()

    def cpu(self) -> float:
        """The processor time of the daemon in seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def push(self, names: list[str]) -> tuple[float, float]:
        """Pushes an order. Returns the seconds until its last name is blocked, and until the response."""
        name, data = self.order(names)
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self._folder / "control.sock"))
        head = f'--x\r\nContent-Disposition: form-data; name="document"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--x--\r\n"
        began = time.monotonic()
        connection.request("POST", "/v1/orders", body, {"Content-Type": "multipart/form-data; boundary=x"})
        while not processes.is_blocked(self.port, names[-1]):
            if time.monotonic() - began > IN_FORCE_SECONDS:
                raise RuntimeError(f"{names[-1]} is not blocked after {IN_FORCE_SECONDS:.0f} s")
        in_force = time.monotonic() - began
        response = connection.getresponse()
        answer = response.read()
        if response.status != 201:
            raise RuntimeError(f"the order is refused: {answer[:500].decode()}")
        connection.close()
        return in_force, time.monotonic() - began

    def stop(self) -> None:
        processes.stop(self._process)


def figures(asked: argparse.Namespace) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        daemon = Orders(Path(folder), asked.base)
        daemon.fill(asked.orders, asked.entries)
        first = "n0-0.names0.example"
        seconds, cpu = daemon.start(first)
        yield f"first startup, all documents read: {seconds:.2f} s, processor {cpu:.2f} s"
        daemon.stop()
        seconds, cpu = daemon.start(first)
        yield f"startup: {seconds:.2f} s, processor {cpu:.2f} s"
        before, times = daemon.cpu(), []
        for number in range(asked.publishes):
            times.append(daemon.push([f"one{number}.more.example"])[0] * 1000)
        cpu = (daemon.cpu() - before) / max(1, asked.publishes) * 1000
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        yield f"one order more until blocked: p50 {p50:.1f} ms, p99 {p99:.1f} ms, processor {cpu:.1f} ms each"
        in_force, answered = daemon.push([f"large{number}.example" for number in range(asked.large)])
        yield f"an order with {asked.large:,} entries: blocked {in_force:.2f} s, verdict {answered:.2f} s"
        daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=9_000, help="orders in the ledger (%(default)s)")
    parser.add_argument("--entries", type=int, default=111, help="entries of each (%(default)s)")
    parser.add_argument("--publishes", type=int, default=100, help="orders that are pushed (%(default)s)")
    parser.add_argument("--large", type=int, default=30_000, help="entries of one large order (%(default)s)")
    parser.add_argument("--base", type=Path, help="a list with one name per line, as a second zone")
    parser.add_argument("--folder", type=Path, help="where the files are written")
    asked = parser.parse_args()
    total = asked.orders * asked.entries
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} processors, {platform.machine()}")
    print(f"{asked.orders:,} orders with {total:,} entries")
    for line in figures(asked):
        print(line, flush=True)


if __name__ == "__main__":
    main()
