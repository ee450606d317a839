"""Limits the connections of an HTTP listener: their number, and how long each may be idle.

Every client that can reach a listener can open connections. Without limits, idle ones would lock out
Prometheus, and use the descriptors that orders and DNS over TCP need.
"""

import asyncio
import resource
import socket

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dnsblock.config import Config
from dnsblock.principal import peer_uid

FIRST_BYTE_SECONDS = 5.0
HEAD_SECONDS = 10.0  # from the first byte to the end of a request's head
BODY_SECONDS = 60.0  # from then to the end of its body
WRITE_SECONDS = 10.0  # for a client that stops reading its response
REASONS = ("first_byte", "head", "body", "write", "garbage", "full")
DESCRIPTORS_SHARE = 16  # each listener may use this fraction of the descriptors; DNS and orders need the rest
FEWEST = 4


def connections_of(config: Config) -> "dict[str, Connections]":
    """The connections of each listener, by its name."""
    return {name: Connections(config.http.max_connections) for name in ("control", "metrics")}


class Connections:
    """The connections of one listener, the oldest first, and how many were closed and why."""

    def __init__(self, most: int) -> None:
        self.open: dict[_Bounded, None] = {}
        self.closed = dict.fromkeys(REASONS, 0)
        self.limit(most)

    def limit(self, most: int) -> None:
        """Allows at most `most` connections, or fewer if this process may open only few files."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = most if descriptors < 0 else min(most, max(FEWEST, descriptors // DESCRIPTORS_SHARE))

    def protocol(self) -> type[asyncio.Protocol]:
        """The protocol class that uvicorn creates for each connection."""
        return type("Bounded", (_Bounded,), {"_all": self})

    def add(self, new: "_Bounded") -> None:
        """Adds a new connection. If there are too many, closes the oldest one without a request."""
        self.open[new] = None
        if len(self.open) > self._most:
            idle = (connection for connection in self.open if not connection.is_served)
            next(idle, new).close("full")


class _Bounded(H11Protocol):
    """A connection with a deadline for each phase."""

    _all: Connections
    _deadline: asyncio.TimerHandle | None = None
    _waits_for = ""  # the reason of the deadline

    @property
    def is_served(self) -> bool:
        """Whether a complete request is being answered."""
        return self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            self.app_state = {**self.app_state, "peer_uid": peer_uid(sock)}
        self._all.add(self)
        self._wait_for("first_byte", FIRST_BYTE_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        # A deadline counts from the start of its phase: a byte now and then does not extend it.
        if self.conn.their_state is h11.IDLE:
            self._wait_for("head", HEAD_SECONDS)
        elif self.conn.their_state is h11.SEND_BODY:
            self._wait_for("body", BODY_SECONDS)
        else:
            self._go_on()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # it limits the time until the next request
        self._go_on()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._wait_for("write", WRITE_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for("write", WRITE_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._go_on()

    def send_400_response(self, msg: str) -> None:
        self._all.closed["garbage"] += 1
        super().send_400_response(msg)
        self._wait_for("write", WRITE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.open.pop(self, None)
        self._wait_for("", 0)
        super().connection_lost(exc)

    def close(self, reason: str) -> None:
        """Closes immediately, even if the client does not read."""
        self._all.open.pop(self, None)
        self._all.closed[reason] += 1
        self.transport.abort()

    def _go_on(self) -> None:
        """Clears the deadline: the client has sent its request and only has to read the response."""
        if self.transport.is_closing() or self.flow.write_paused:
            self._wait_for("write", WRITE_SECONDS)
        else:
            self._wait_for("", 0)

    def _wait_for(self, reason: str, seconds: float) -> None:
        if reason == self._waits_for:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._waits_for = reason
        self._deadline = self.loop.call_later(seconds, self.close, reason) if reason else None
