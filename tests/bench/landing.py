"""DNS while the landing page is flooded: 10,000 HTTP requests per second, for one name or for random names.

    PYTHONPATH=tests .venv/bin/python -m bench.landing

Rounds without and with a flood take turns. dnsperf sends blocked names at a fixed rate.
"""

import argparse
import json
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ports import free_port

from . import processes
from .servers import dnsblock

NAME = "blocked.bench.example"
CONNECTIONS = 64
TICK_SECONDS = 0.01
START_SECONDS = 120


# ------- The flood: a process of its own


class Flood:
    """Sends requests at a fixed rate, whatever is answered, and reads the responses."""

    def __init__(self, port: int, *, is_random: bool) -> None:
        self._port, self._is_random = port, is_random
        self._selector = selectors.DefaultSelector()
        self._numbers = count()
        self.sent = self.answered = self.connects = 0
        self._open = [self._connect() for _ in range(CONNECTIONS)]

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)
        self.connects += 1
        return sock

    def _request(self) -> bytes:
        host = f"r{next(self._numbers)}.example" if self._is_random else NAME
        return (
            f"GET /page HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept-Language: id\r\n\r\n".encode()
        )

    def run(self, rate: float, seconds: float) -> None:
        began = due = time.monotonic()
        owed = 0.0
        while (now := time.monotonic()) < began + seconds:
            owed += rate * TICK_SECONDS
            for place in range(CONNECTIONS):
                number = int(owed * (place + 1) / CONNECTIONS) - int(owed * place / CONNECTIONS)
                self._send(place, number)
            owed -= int(owed)
            due += TICK_SECONDS
            while True:
                left = max(0.0, due - time.monotonic())
                for key, _ in self._selector.select(left):
                    self._read(key.fileobj)
                if left == 0.0:
                    break
            if now > due + 1:
                due = now  # late for a second: the machine has no time

    def _send(self, place: int, number: int) -> None:
        data = b"".join(self._request() for _ in range(number))
        try:
            # A part that the server does not accept is not sent later: it reads too slowly.
            sent = self._open[place].send(data) if data else 0
            self.sent += number * sent // max(1, len(data))
        except BlockingIOError:
            pass
        except OSError:
            self._renew(self._open[place])

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.answered += data.count(b"\r\nContent-Length: ")
        if not data:
            self._renew(sock)

    def _renew(self, sock: socket.socket) -> None:
        place = self._open.index(sock)
        self._selector.unregister(sock)
        sock.close()
        self._open[place] = self._connect()


# ------- The daemon and the queries


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[int, int]]:
    """A daemon with a blocked name and a landing page: its ports."""
    dns, http = free_port(), free_port()
    (folder / "names.txt").write_text(f"{NAME}\n")
    config = {
        "listen": [f"127.0.0.1:{dns}"],
        "upstream": {"servers": ["127.0.0.1:9"], "health_check": None},
        "zones": [{"name": "list", "list": "names.txt", "answer": "nxdomain"}],
        "limits": {"queries_per_second": 0},
        "probes": None,
        "metrics": None,
        "control": str(folder / "control.sock"),
        "landing": {
            "listen": [f"127.0.0.1:{http}"],
            "url": "http://landing.bench.example",
            "organization": "Bench",
            "contact": "mailto:bench@bench.example",
        },
    }
    (folder / "dnsblock.yaml").write_text(json.dumps(config))
    command = [dnsblock(), "serve", "-c", str(folder / "dnsblock.yaml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        processes.wait_until(lambda: processes.is_blocked(dns, NAME), process, "it blocks", START_SECONDS)
        processes.wait_until(lambda: is_served(http), process, "the page is served", START_SECONDS)
        yield dns, http
    finally:
        processes.stop(process)


def is_served(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            return sock.recv(100).startswith(b"HTTP/1.1 451")
    except OSError:
        return False


def measure(port: int, queries: Path, rate: int, seconds: float) -> dict[str, float]:
    """Sends queries at a rate; the share that was answered, and the latency in microseconds."""
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(queries), "-l", f"{seconds:g}"]
    command += ["-Q", str(rate), "-q", "1000"] if rate else []
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    sent, answered = (
        int(re.search(rf"Queries {word}:\s+(\d+)", said.stdout)[1]) for word in ("sent", "completed")
    )
    average = float(re.search(r"Average Latency \(s\):\s+([\d.]+)", said.stdout)[1])
    return {"answered": answered / max(1, sent), "latency_us": average * 1e6, "qps": answered / seconds}


def flood(kind: str, port: int, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Starts a flood. It stands for other machines, so it has a low priority, too."""
    command = [sys.executable, "-m", "bench.landing", "--flood", kind, str(port), str(rate), str(seconds)]
    return subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE, text=True)


def main() -> None:
    if sys.argv[1:2] == ["--flood"]:
        kind, port, rate, seconds = sys.argv[2:]
        one = Flood(int(port), is_random=kind == "random")
        one.run(float(rate), float(seconds))
        print(json.dumps({"sent": one.sent, "answered": one.answered, "connects": one.connects}))
        return
    parser = argparse.ArgumentParser(prog="python -m bench.landing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument(
        "--dns", type=int, default=5000, help="queries per second; 0: the most that it answers"
    )
    parser.add_argument("--http", type=int, default=10_000, help="requests per second")
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"none": [], "one name": [], "random": []}
    floods: dict[str, list[dict[str, float]]] = {"one name": [], "random": []}
    with tempfile.TemporaryDirectory() as folder, daemon(Path(folder)) as (dns, http):
        queries = Path(folder) / "queries"
        queries.write_text(f"{NAME} A\n" * 1000)
        for _ in range(options.rounds):
            for kind, rounds in found.items():
                if kind != "none":
                    process = flood(kind, http, options.http, options.seconds + 2)
                    time.sleep(1)
                rounds.append(measure(dns, queries, options.dns, options.seconds))
                if kind != "none":
                    said, _ = process.communicate()
                    floods[kind].append(json.loads(said))
    report(found, floods, options.seconds + 2)


def report(
    found: dict[str, list[dict[str, float]]], floods: dict[str, list[dict[str, float]]], seconds: float
) -> None:
    """Medians, and the median of the ratios to the round without a flood."""
    for kind, rounds in found.items():
        middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        pairs = zip(rounds, found["none"], strict=True)
        ratios = [(one["latency_us"] / base["latency_us"], one["qps"] / base["qps"]) for one, base in pairs]
        latency, qps = (statistics.median(column) for column in zip(*ratios, strict=True))
        text = f"{kind:9} {middle['qps']:,.0f} answers/s ({middle['answered']:.2%}), "
        text += f"{middle['latency_us']:.0f} µs"
        text += f"; to the round without a flood: latency {latency:.2f}, answers {qps:.2f}"
        if kind in floods:
            rates = {
                key: statistics.median(one[key] for one in floods[kind]) / seconds for key in floods[kind][0]
            }
            text += f"; HTTP: {rates['sent']:,.0f} sent/s, {rates['answered']:,.0f} answered/s"
        print(text)


if __name__ == "__main__":
    main()
