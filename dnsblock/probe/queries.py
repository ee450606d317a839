"""Queries DNS servers over UDP and TCP, IPv4 and IPv6, within limits for each server.

Each query has a random ID and leaves from a random port, and each response is checked against it (RFC 5452).
A `Client` is used by a probe run, and closed after it.
"""

import asyncio
import os
import random
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Literal, Self, cast

from dnsblock.probe.messages import HEADER_BYTES, NotAReply, Question, Reply, query, read
from dnsblock.values import Endpoint

Transport = Literal["udp", "tcp"]
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp")

ALIVE = Question("", "NS")  # every DNS server responds to it, if only with REFUSED
UDP_SOCKETS = 16  # per server; a query leaves from one of them at random
QUERIES_PER_SOCKET = 200  # then another socket, with another random port, replaces it
STREAMS = 4  # TCP connections to a server
PAUSE_SECONDS = 0.25  # before another try, if the error came immediately
BURST_SECONDS = 0.02  # queries that the rate limit lets through at once
SILENCE_SECONDS = 2.0  # no response within this time is the answer `drop`

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Server:
    """A server to query."""

    endpoint: Endpoint
    source: str | None = None  # the address to send from; None: the system chooses

    def __str__(self) -> str:
        return str(self.endpoint)

    @classmethod
    def own(cls, listening: str) -> Self:
        """A listener of this machine, queried from a loopback address: the default ACL allows that."""
        endpoint = Endpoint.parse(listening)
        loopback = ip_address("127.0.0.1" if endpoint.host.version == 4 else "::1")
        host = loopback if endpoint.host.is_unspecified else endpoint.host
        return cls(Endpoint(host, endpoint.port), str(loopback))


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the queries to one server."""

    outstanding: int = 64  # queries, for each transport
    per_second: int = 900  # queries, for each transport; below the default rate limit of dnsblock
    timeout_s: float = 5.0  # of one try
    tries: int = 3


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a query: a reply, or the reason why there is none."""

    reply: Reply | None
    failure: str = ""
    milliseconds: float | None = None  # from sending to the response


class Client:
    """Queries any number of servers. A context: it closes all sockets at the end."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._servers: dict[Server, ServerQueries] = {}

    def server(self, server: Server) -> "ServerQueries":
        """The queries to one server."""
        if server not in self._servers:
            self._servers[server] = ServerQueries(server, self._limits)
        return self._servers[server]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._servers.values():
            one.close()


class ServerQueries:
    """The queries to one server: sockets, rate limit, and whether it responds at all."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self.server = server
        self.sent = 0
        self.dead: dict[Transport, str] = {}  # why the server is not queried any more over a transport
        self._limits = limits
        self._slots = {one: asyncio.Semaphore(limits.outstanding) for one in TRANSPORTS}
        self._due = dict.fromkeys(TRANSPORTS, 0.0)  # when the next query may leave
        self._sockets: list[_UdpSocket] = []
        self._streams: list[_Stream] = []
        self._opening = asyncio.Lock()
        self._checking = {one: asyncio.Lock() for one in TRANSPORTS}

    async def ask(
        self,
        question: Question,
        transport: Transport,
        *,
        follows_truncation: bool = True,
        expects_silence: bool = False,
    ) -> Result:
        """Queries the server. A truncated response over UDP is followed by a query over TCP.

        A server that does not respond to a control query either is not queried again. `expects_silence`: one
        try is enough, and no response is no reason for a control query.
        """
        async with self._slots[transport]:
            if transport in self.dead:
                return Result(None, self.dead[transport])
            if expects_silence:
                return await self._tries(question, transport, 1, min(SILENCE_SECONDS, self._limits.timeout_s))
            result = await self._tries(question, transport, self._limits.tries, self._limits.timeout_s)
            if result.reply is None:
                await self._check_alive(transport)
        if (
            result.reply is not None
            and result.reply.is_truncated
            and transport == "udp"
            and follows_truncation
        ):
            return await self.ask(question, "tcp")
        return result

    async def reach(self, transport: Transport) -> Result:
        """The control query: any response proves that the server is there."""
        result = await self._tries(ALIVE, transport, self._limits.tries, self._limits.timeout_s)
        if result.reply is None:
            self.dead[transport] = result.failure
        return result

    def close(self) -> None:
        """Closes all sockets."""
        for channel in (*self._sockets, *self._streams):
            channel.close()

    async def _check_alive(self, transport: Transport) -> None:
        """After a query without response. Concurrent checks wait for the first one."""
        is_first = not self._checking[transport].locked()
        async with self._checking[transport]:
            if is_first and transport not in self.dead:
                await self.reach(transport)

    # ------- Tries -------

    async def _tries(self, question: Question, transport: Transport, tries: int, timeout_s: float) -> Result:
        failure, began, left = "", time.monotonic(), tries
        while left > 0:
            await self._pace(transport)
            tried_at = time.monotonic()
            try:
                async with asyncio.timeout(timeout_s):
                    reply, seconds = await self._exchange(question, transport)
                return Result(reply, milliseconds=round(seconds * 1000, 3))
            except TimeoutError:
                failure = f"no response within {timeout_s:g} s, {tries} tries" if tries > 1 else "no response"
            except StreamClosed as err:
                failure = str(err)
                if err.has_answered and time.monotonic() - began < tries * timeout_s:
                    continue  # RFC 7766 section 6.2.3: it may close whenever it likes; this was no try
            except OSError as err:
                failure = (os.strerror(err.errno) if err.errno else str(err)).lower()
            left -= 1
            if left and time.monotonic() - tried_at < PAUSE_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)
        return Result(None, failure or "no response")

    async def _pace(self, transport: Transport) -> None:
        """Waits for the next query that the rate limit allows."""
        now = time.monotonic()
        due = self._due[transport] = (
            max(self._due[transport], now - BURST_SECONDS) + 1 / self._limits.per_second
        )
        self.sent += 1
        if due > now:
            await asyncio.sleep(due - now)

    async def _exchange(self, question: Question, transport: Transport) -> tuple[Reply, float]:
        channel = await (self._udp() if transport == "udp" else self._stream())
        return await channel.exchange(question)

    # ------- Sockets -------

    async def _udp(self) -> "_UdpSocket":
        self._sockets = [one for one in self._sockets if one.is_usable or not one.close_if_idle()]
        usable = [one for one in self._sockets if one.is_usable]
        if len(usable) >= UDP_SOCKETS:
            return _random.choice(usable)
        endpoint, source = self.server.endpoint, self.server.source
        family = socket.AF_INET6 if endpoint.host.version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if source is not None:
                sock.bind((source, 0))
            sock.connect((str(endpoint.host), endpoint.port))  # other senders are not heard
        except OSError:
            sock.close()
            raise
        loop = asyncio.get_running_loop()
        _, made = await loop.create_datagram_endpoint(_UdpSocket, sock=sock)
        self._sockets.append(made)
        return made

    async def _stream(self) -> "_Stream":
        async with self._opening:
            self._streams = [one for one in self._streams if one.is_open]
            least = min(self._streams, key=lambda one: len(one.waiting), default=None)
            if least is not None and (not least.waiting or len(self._streams) >= STREAMS):
                return least
            endpoint, source = self.server.endpoint, self.server.source
            loop = asyncio.get_running_loop()
            local = None if source is None else (source, 0)
            host, port = str(endpoint.host), endpoint.port
            _, made = await loop.create_connection(_Stream, host, port, local_addr=local)
            self._streams.append(made)
            return made


# ------- One socket -------


class StreamClosed(OSError):  # noqa: N818  # house style: named for what happened
    """The server closed a TCP connection with a query outstanding."""

    def __init__(self, *, has_answered: bool) -> None:
        super().__init__("the server closed the connection")
        self.has_answered = has_answered  # another query on this connection


class _Channel(ABC):
    """A socket, and its outstanding queries by ID."""

    def __init__(self) -> None:
        self.waiting: dict[int, tuple[Question, asyncio.Future[Reply]]] = {}
        self.answered = 0

    @abstractmethod
    def send(self, message: bytes) -> None:
        """Sends a message, as its transport does."""

    @abstractmethod
    def close(self) -> None:
        """Closes the socket."""

    async def exchange(self, question: Question) -> tuple[Reply, float]:
        """Sends a query and waits for its response; returns it and the time in seconds."""
        number = _random.getrandbits(16)
        while number in self.waiting:
            number = _random.getrandbits(16)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.waiting[number] = (question, future)
        began = time.perf_counter()
        try:
            self.send(query(question, number))
            reply = await future
        finally:
            del self.waiting[number]
        return reply, time.perf_counter() - began

    def receive(self, data: bytes) -> None:
        """Takes a message from the server. Messages that answer no outstanding query are ignored."""
        waiting = self.waiting.get(int.from_bytes(data[:2])) if len(data) >= HEADER_BYTES else None
        if waiting is None or waiting[1].done():
            return
        question, future = waiting
        try:
            future.set_result(read(data, question))
        except NotAReply:
            return  # the response may still come: this message may be forged
        self.answered += 1

    def fail(self, err: OSError) -> None:
        """Ends all outstanding queries."""
        for _, future in self.waiting.values():
            if not future.done():
                future.set_exception(err)


class _UdpSocket(_Channel, asyncio.DatagramProtocol):
    """A connected UDP socket, on a random port."""

    def __init__(self) -> None:
        super().__init__()
        self._left = QUERIES_PER_SOCKET

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @property
    def is_usable(self) -> bool:
        return self._left > 0

    def close_if_idle(self) -> bool:
        if not self.waiting:
            self.close()
        return not self.waiting

    def send(self, message: bytes) -> None:
        self._left -= 1
        self._transport.sendto(message)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.receive(data)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError):
            self.fail(exc)

    def close(self) -> None:
        self._transport.close()


class _Stream(_Channel, asyncio.Protocol):
    """A TCP connection with pipelined queries (RFC 7766 section 6.2.1.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, message: bytes) -> None:
        self._transport.write(len(message).to_bytes(2) + message)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2 and len(self._buffer) >= (end := 2 + int.from_bytes(self._buffer[:2])):
            self.receive(bytes(self._buffer[2:end]))
            del self._buffer[:end]

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self.fail(StreamClosed(has_answered=self.answered > 0))

    def close(self) -> None:
        self.is_open = False
        self._transport.abort()
