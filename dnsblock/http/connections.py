"""Limits the connections of an HTTP listener: their number, and how long each may be idle. Adds TLS to them.

Every client that can reach a listener can open connections. Without limits, idle ones would lock out
Prometheus, and use the descriptors that orders and DNS over TCP need.
"""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections import Counter

import h11
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from dnsblock.access import PeerCertificate
from dnsblock.config import Config
from dnsblock.principal import peer_uid

HANDSHAKE_SECONDS = 10.0  # of TLS
FIRST_BYTE_SECONDS = 5.0
HEAD_SECONDS = 10.0  # from the first byte to the end of a request's head
BODY_SECONDS = 60.0  # from then to the end of its body
SEND_BUFFER, WRITE_BUFFER = 128 << 10, 64 << 10  # bytes, in the kernel and in this process
CLOSE_SECONDS = 5.0  # for the end of a TLS connection
WRITE_SECONDS = 10.0  # for a client that stops reading its response
SLOWEST_BYTES = 64 << 10  # per second; a large body of a known client may take as long as this takes
HEAD_BYTES = 16 << 10  # of a request's head; up to twice as many if it comes in large pieces
UNWANTED_BYTES = (
    65 << 20
)  # of a body that is not wanted; as much as the largest one that may be refused early
TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 32\r\nconnection: close\r\n\r\nThe request did not come in time"
)
REASONS = ("handshake", "first_byte", "head", "body", "write", "garbage", "full")
DESCRIPTORS_SHARE = 16  # each listener may use this fraction of the descriptors; DNS and orders need the rest
FEWEST = 4


def connections_of(config: Config) -> "dict[str, Connections]":
    """The connections of each listener without TLS, by its name."""
    return {name: Connections(config.http.max_connections) for name in ("control", "metrics")}


class Connections:
    """The connections of one listener, the oldest first, and how many were closed and why."""

    def __init__(self, most: int) -> None:
        self.open: dict[_Bounded, None] = {}
        self.closed = dict.fromkeys(REASONS, 0)
        self.refused: Counter[str] = Counter()  # requests, by code; the API and the console count their own
        self.limit(most)

    def count_refused(self, code: str) -> None:
        """Counts a request that is refused."""
        self.refused[code] += 1

    def limit(self, most: int) -> None:
        """Allows at most `most` connections, or fewer if this process may open only few files."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = most if descriptors < 0 else min(most, max(FEWEST, descriptors // DESCRIPTORS_SHARE))

    def protocol(self) -> "type[_Bounded]":
        """The protocol class that uvicorn creates for each connection."""
        return type("Bounded", (_Bounded,), {"_all": self})

    def add(self, new: "_Bounded") -> None:
        """Adds a new connection. If there are too many, closes the oldest one without a request."""
        self.open[new] = None
        if len(self.open) > self._most:
            idle = (connection for connection in self.open if not connection.is_served)
            next(idle, new).close("full")

    def abort_closing(self) -> None:
        """Closes connections whose clients have not confirmed the end of TLS."""
        for connection in list(self.open):
            if connection.transport.is_closing():
                connection.transport.abort()


class TlsConnections(Connections):
    """The connections of a listener with TLS. A reload may replace the `context`."""

    context: ssl.SSLContext | None = None  # None: no connection is accepted

    def protocol(self) -> "type[_Bounded]":
        """The protocol class that uvicorn creates for each connection."""
        return type("Secured", (_Secured,), {"_all": self})

    def renew(self, context: ssl.SSLContext) -> None:
        """Uses this context for new connections. Existing ones end after their current response."""
        self.context = context
        for connection in list(self.open):
            connection.retire()


class _Bounded(H11Protocol):
    """A connection with a deadline for each phase."""

    _all: Connections
    _deadline: asyncio.TimerHandle | None = None
    _waits_for = ""  # the reason of the deadline
    _body_seconds = BODY_SECONDS
    _unwanted = 0  # bytes of a body that came after the response

    @property
    def is_served(self) -> bool:
        """Whether a complete request is being answered."""
        return self.cycle is not None and not (self.cycle.more_body or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        self.app_state = {**self.app_state, "connection": self}
        if sock.family == socket.AF_UNIX:
            self.app_state["peer_uid"] = peer_uid(sock)
        self._all.add(self)
        self._wait_for("first_byte", FIRST_BYTE_SECONDS)

    def data_received(self, data: bytes) -> None:
        # h11 limits a head that is not complete yet. In small pieces, none is complete before its limit.
        for start in range(0, len(data), HEAD_BYTES):
            super().data_received(data[start : start + HEAD_BYTES])
            if self.transport.is_closing():
                return
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            self._unwanted += len(data)
            if self._unwanted > UNWANTED_BYTES:
                self.close("body")
                return
        # A deadline counts from the start of its phase: a byte now and then does not extend it.
        if self.conn.their_state is h11.IDLE:
            self._wait_for("head", HEAD_SECONDS)
        elif self.conn.their_state is h11.SEND_BODY:
            self._wait_for("body", self._body_seconds)
        else:
            self._go_on()

    def expect(self, size: int) -> float:
        """Gives a known client the time for a body of this size, and returns the seconds.

        The connection stays open for longer, so that the client gets a response.
        """
        seconds = BODY_SECONDS + size / SLOWEST_BYTES
        self._body_seconds = seconds + CLOSE_SECONDS
        if self._waits_for == "body":
            self._wait_for("", 0)
            self._wait_for("body", self._body_seconds)
        return seconds

    def on_response_complete(self) -> None:
        self._body_seconds, self._unwanted = BODY_SECONDS, 0
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
        self.app_state = {}  # no cycle with this object
        super().connection_lost(exc)

    def close(self, reason: str) -> None:
        """Closes immediately, even if the client does not read. A client that is too slow gets 408."""
        self._wait_for("", 0)
        self._all.open.pop(self, None)
        self._all.closed[reason] += 1
        if reason in ("head", "body") and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(TOO_SLOW)
        self.transport.abort()

    def retire(self) -> None:
        """Closes after the current response, or immediately if there is none."""
        try:
            self.shutdown()
        except h11.LocalProtocolError:  # the client has sent garbage
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


def body_seconds(request: Request, size: int) -> float:
    """The time that a known client has for a body of this size."""
    connection: _Bounded | None = getattr(request.state, "connection", None)
    return BODY_SECONDS if connection is None else connection.expect(size)


class _Secured(_Bounded):
    """A connection that begins with a TLS handshake. Until its end, the transport is that of TCP."""

    _all: TlsConnections
    _early = b""  # decrypted before this protocol has its transport
    _shaking: asyncio.Task[None] | None = None  # asyncio itself keeps only a weak reference

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._all.add(self)
        # A reader that is slow is dropped with less in memory: the kernel's own limit is some megabytes.
        raw_socket = transport.get_extra_info("socket")
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._wait_for("handshake", HANDSHAKE_SECONDS)
        self._shaking = self.loop.create_task(self._shake_hands(transport))

    def data_received(self, data: bytes) -> None:
        if self._shaking is None:
            super().data_received(data)
        else:
            self._early += data

    def shutdown(self) -> None:
        if self._shaking is None:
            super().shutdown()
        else:
            self.transport.abort()

    async def _shake_hands(self, raw: asyncio.Transport) -> None:
        transport: asyncio.Transport | None = None
        context = self._all.context
        if context is not None:
            with contextlib.suppress(OSError, ValueError):  # ssl.SSLError is an OSError
                transport = await self.loop.start_tls(
                    *(raw, self, context),
                    server_side=True,
                    # Our own deadline ends a slow handshake: asyncio would not count it.
                    ssl_handshake_timeout=2 * HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=CLOSE_SECONDS,
                )
        if self not in self._all.open:  # closed meanwhile
            return
        if transport is None:
            self.close("handshake")
            return
        self._shaking = None
        transport.set_write_buffer_limits(WRITE_BUFFER)  # asyncio's own limit with TLS is 512 KiB
        self.app_state = {**self.app_state, "certificate": PeerCertificate.of(transport)}
        super().connection_made(transport)
        if early := self._early:
            self._early = b""
            self.data_received(early)
