"""Load over restarts: a client that sends at a steady rate and forgets no query."""

import re
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import wire
from .harness import Subject
from .tools import run, tool

SOCKETS = 32  # as many flows, which the kernel spreads over the worker threads
TIMEOUT = 60.0  # a query that is answered later is lost
# Outstanding queries of dnsperf. All responses may arrive at once while it gets no processor time. The
# receive buffers of its sockets must hold them, or the kernel drops some. 16 buffers of 416 KiB
# (net.core.rmem_max of 208 KiB, doubled) hold 8,800 small packets of 768 bytes.
OUTSTANDING = 4000
GOOD = Callable[[wire.Reply], bool]


@dataclass
class Asked:
    """The outcome of the queries for one name."""

    name: str
    is_right: GOOD
    sent: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)


class Load(threading.Thread):
    """Asks these names in turn, at this rate while the `with` block runs; then waits for the rest.

    Sends nothing while more than `most` queries are outstanding: the daemon's sockets must hold them.
    """

    def __init__(self, subject: Subject, names: dict[str, GOOD], rate: int, most: int = OUTSTANDING) -> None:
        super().__init__(name="load")
        self.asked = [Asked(name, is_right) for name, is_right in names.items()]
        self.slowest = 0.0
        self._subject, self._rate, self._most = subject, rate, most
        self._ended = threading.Event()
        self._open: dict[tuple[int, int], tuple[Asked, float]] = {}  # by socket and id

    def __enter__(self) -> "Load":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    @property
    def lost(self) -> int:
        return len(self._open)

    @property
    def wrong(self) -> list[str]:
        return [f"{asked.name}: {text}" for asked in self.asked for text in asked.wrong]

    @property
    def answered(self) -> int:
        return sum(asked.answered for asked in self.asked)

    def run(self) -> None:
        port = self._subject.ports[4]
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
        with selectors.DefaultSelector() as selector:
            for sock in sockets:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
                sock.connect(("127.0.0.1", port))
                selector.register(sock, selectors.EVENT_READ)
            begun, number = time.monotonic(), 0
            while not self._ended.is_set():
                while number < (time.monotonic() - begun) * self._rate and len(self._open) < self._most:
                    self._send(sockets[number % SOCKETS], number)
                    number += 1
                self._receive(selector, 0.001)
            end = time.monotonic() + TIMEOUT
            while self._open and time.monotonic() < end:
                self._receive(selector, 0.1)
        for sock in sockets:
            sock.close()

    def _send(self, sock: socket.socket, number: int) -> None:
        asked, qid = self.asked[number % len(self.asked)], number // SOCKETS & 0xFFFF
        assert (sock.fileno(), qid) not in self._open, "all ids of a socket are in use"
        self._open[sock.fileno(), qid] = asked, time.monotonic()
        asked.sent += 1
        sock.send(wire.query(asked.name, "A", qid=qid))

    def _receive(self, selector: selectors.BaseSelector, timeout: float) -> None:
        for key, _ in selector.select(timeout):
            while True:
                try:
                    data = key.fileobj.recv(4096)
                except BlockingIOError:
                    break
                reply = wire.read(data)
                asked, sent_at = self._open.pop((key.fd, reply.qid), (None, 0.0))
                if asked is None:
                    self.asked[0].wrong.append(f"an answer that nobody waits for: {reply}")
                    continue
                self.slowest = max(self.slowest, time.monotonic() - sent_at)
                asked.answered += 1
                if not asked.is_right(reply):
                    asked.wrong.append(f"{reply.rcode} {reply.addresses}")


@contextmanager
def half_load(subject: Subject, names: Path, most: int) -> Iterator[list[str]]:
    """dnsperf at half of what the daemon can do, at most `most` queries a second; then its report."""
    place = ["-s", "127.0.0.1", "-p", str(subject.ports[4]), "-d", str(names), "-T", "1", "-c", "16"]
    command = [tool("dnsperf"), *place, "-t", str(int(TIMEOUT)), "-q", str(OUTSTANDING), "-b", "4096"]
    measured = run([*command, "-l", "2", "-q", "200"]).stdout
    rate = min(figure(measured, "Queries per second") / 2, most)
    report: list[str] = []
    with subprocess.Popen(
        [*command, "-l", "86400", "-Q", str(int(rate))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as load:
        try:
            yield report
        finally:
            load.send_signal(signal.SIGINT)
            report.append(load.communicate(timeout=2 * TIMEOUT)[0])


def figure(output: str, label: str) -> float:
    """A figure of dnsperf's report."""
    return float(re.search(rf"{label}:\s+([\d.]+)", output)[1])
