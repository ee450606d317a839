"""Observes the servers of `fleet_tree.py`: when each has a change, seen as a client sees it.

One loop sends a query to each server that does not have it yet, every few milliseconds.
"""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import processes
from .fleet_servers import ZONE, Knot

WATCH_SECONDS = 60.0
FILE_SECONDS = 0.002  # between two looks at the file
NXDOMAIN, NOERROR = 3, 0
CNAME = 5


@dataclass(frozen=True, slots=True)
class Sight:
    """A server and the response code that shows that it has the change."""

    port: int
    query: bytes
    rcode: int

    @classmethod
    def of_resolver(cls, port: int, name: str, *, blocked: bool) -> Self:
        """A name that is blocked does not exist; any other has an address upstream."""
        return cls(port, processes.query(name), NXDOMAIN if blocked else NOERROR)

    @classmethod
    def of_primary(cls, port: int, name: str, *, blocked: bool) -> Self:
        """A name is blocked if the zone has its record. Not SOA: queries of secondaries are counted."""
        query = processes.query(f"{name}.{ZONE}")[:-4] + bytes([0, CNAME, 0, 1])
        return cls(port, query, NOERROR if blocked else NXDOMAIN)


def watch(sights: Sequence[Sight], every: float) -> list[float]:
    """When each server first gave its response, in the order of `sights`, as of `time.monotonic`.

    Raises `RuntimeError` after a minute.
    """
    seen: dict[int, float] = {}
    with contextlib.ExitStack() as stack:
        poll = select.epoll()
        stack.callback(poll.close)
        sockets = {}
        for number, sight in enumerate(sights):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.setblocking(False)
            sock.connect(("127.0.0.1", sight.port))
            poll.register(sock, select.EPOLLIN)
            sockets[sock.fileno()] = number, sock
        deadline = time.monotonic() + WATCH_SECONDS
        while len(seen) < len(sights):
            if time.monotonic() > deadline:
                missing = [sight.port for number, sight in enumerate(sights) if number not in seen]
                raise RuntimeError(f"no change after {WATCH_SECONDS:g} s at the ports {missing}")
            for number, sock in sockets.values():
                if number not in seen:
                    with contextlib.suppress(OSError):
                        sock.send(sights[number].query)
            due = time.monotonic() + every
            while (left := due - time.monotonic()) > 0:
                for descriptor, _ in poll.poll(left):
                    number, sock = sockets[descriptor]
                    with contextlib.suppress(OSError):
                        if sock.recv(4096)[3] & 15 == sights[number].rcode:
                            seen.setdefault(number, time.monotonic())
    return [seen[number] for number in range(len(sights))]


class Upstream:
    """Answers every query with NOERROR and no records: a name that is not blocked."""

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        threading.Thread(target=self._run, name="upstream", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                query, sender = self._sock.recvfrom(4096)
            except OSError:
                return
            end = query.index(0, 12) + 5  # the question: a name, a type and a class
            head = query[:2] + b"\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00"
            with contextlib.suppress(OSError):
                self._sock.sendto(head + query[12:end], sender)

    def close(self) -> None:
        self._sock.close()


class Reloader:
    """Makes Knot DNS read the file again whenever it is replaced, as the path unit of docs/export.md does."""

    def __init__(self, file: Path, root: Knot) -> None:
        self._file, self._root = file, root
        self._is_over = threading.Event()
        self.written: list[float] = []  # the times of the changes
        self.reloaded: list[float] = []
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)
        self._before = file.stat().st_ino
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(FILE_SECONDS):
            if (now := self._file.stat().st_ino) != self._before:
                self._before = now
                self.written.append(time.monotonic())
                self._root.reload_zone()
                self.reloaded.append(time.monotonic())

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


class Notifier:
    """Makes a second-level server notify its leaves as soon as it has a change: Knot DNS waits a second."""

    def __init__(self, middle: Knot) -> None:
        self._middle, self._is_over = middle, threading.Event()
        self._log = middle.folder / "log"
        self._read = self._log.stat().st_size
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(FILE_SECONDS):
            if (size := self._log.stat().st_size) > self._read:
                with self._log.open("rb") as log:
                    log.seek(self._read)
                    new = log.read(size - self._read)
                self._read = size
                if b", zone updated, " in new:
                    self._middle.control("zone-notify", ZONE)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()
