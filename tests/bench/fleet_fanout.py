"""How Knot DNS notifies many secondaries: in what time, and one after the other or all at once.

The secondaries are sockets of this process. They answer NOTIFY, after a delay or never, and fetch nothing.
"""

import selectors
import socket
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from .fleet_servers import ZONE, Knot

WAIT_SECONDS = 60.0
EXCHANGE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Fanout:
    """Seconds from the first NOTIFY to the last one."""

    secondaries: int
    plain: float  # each answers at once
    delay: float
    delayed: float  # each answers after `delay`
    timeout_ms: int  # of Knot DNS, for a secondary that does not answer
    silent: float  # one in the middle never answers

    @property
    def each(self) -> float:
        """Seconds that Knot DNS needs for one secondary that answers at once."""
        return self.plain / (self.secondaries - 1)


def measure_fanout(folder: Path, secondaries: int, *, delay: float = 0.01, timeout_ms: int = 5000) -> Fanout:
    """Three changes of a zone."""
    zone = folder / "policy.zone"
    _write(zone, 1)
    with ExitStack() as stack:
        sockets = [stack.enter_context(_bound()) for _ in range(secondaries)]
        knot = stack.enter_context(closing(Knot(folder, "fanout", file=zone)))
        knot.timeout_ms = timeout_ms
        knot.start([one.getsockname()[1] for one in sockets], signed=False)
        _spread(sockets, 0, silent=None)  # those of the startup

        def change(serial: int, delay: float, silent: int | None) -> float:
            _write(zone, serial)
            knot.reload_zone()
            return _spread(sockets, delay, silent)

        plain, delayed = change(2, 0, None), change(3, delay, None)
        silent = change(4, 0, secondaries // 2)
        return Fanout(secondaries, plain, delay, delayed, timeout_ms, silent)


def _bound() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.settimeout(EXCHANGE_SECONDS)
    return sock


def _write(zone: Path, serial: int) -> None:
    partial = zone.with_suffix(".tmp")
    partial.write_text(f"$ORIGIN {ZONE}.\n@ 60 SOA localhost. nobody.invalid. {serial} 3600 900 604800 60\n")
    partial.replace(zone)


def _spread(sockets: list[socket.socket], delay: float, silent: int | None) -> float:
    """Answers the NOTIFY messages, each over its own connection (Knot DNS sends them over TCP)."""
    seen: dict[int, float] = {}
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number, sock in enumerate(sockets):
            selector.register(sock, selectors.EVENT_READ, number)
        until = time.monotonic() + WAIT_SECONDS
        while len(seen) < len(sockets):
            ready = selector.select(until - time.monotonic())
            if not ready:
                missing = len(sockets) - len(seen)
                raise RuntimeError(f"{missing} of {len(sockets)} secondaries were not notified")
            for key, _ in ready:
                connection, _ = sockets[key.data].accept()
                stack.enter_context(connection)
                connection.settimeout(EXCHANGE_SECONDS)
                message = connection.recv(4096)
                seen.setdefault(key.data, time.monotonic())
                if key.data != silent:
                    time.sleep(delay)
                    connection.sendall(_answer(message))
    return max(seen.values()) - min(seen.values())


def _answer(message: bytes) -> bytes:
    """The same question, with QR set and no records (RFC 1996 section 4.7). Its length precedes it."""
    end = message.index(0, 14) + 5
    head = message[2:4] + bytes([message[4] | 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    answer = head + message[14:end]
    return len(answer).to_bytes(2) + answer
