"""The connections of the landing page: HTTP/1.1, GET and HEAD only, with limits for everything.

httptools (llhttp) parses the requests: 40 times as fast as h11, which alone would use a whole processor at
3,000 requests per second.
"""

import asyncio
import socket
import time
from collections import deque
from email.utils import formatdate

import httptools

from dnsblock.landing.counts import OPEN, Counts
from dnsblock.landing.places import place_of
from dnsblock.web.landing.pages import Response
from dnsblock.web.landing.questions import Questions
from dnsblock.web.landing.requests import MalformedRequest, Visit, visit
from dnsblock.web.landing.site import Site

MAX_REQUEST = 16 << 10  # bytes, with the body
MAX_WAITING = 8  # requests of one connection that wait for the daemon
IDLE_SECONDS = 5.0  # without a request
HEAD_SECONDS = 10.0  # from the first byte to the end of a request
WRITE_SECONDS = 10.0  # for a client that does not read
SWEEP_SECONDS = 0.5
SEND_BUFFER, WRITE_BUFFER = 128 << 10, 64 << 10  # bytes, in the kernel and in this process
_METHODS = (b"GET", b"HEAD")
_ACCEPTS = 16  # connections in a row
BACKLOG = 1024  # connections that may wait to be accepted


class Server:
    """All connections, the oldest first."""

    def __init__(self, site: Site, questions: Questions, counts: Counts, most: int) -> None:
        self.site, self.counts = site, counts
        self._questions = questions
        self._most = most
        self._open: dict[Connection, None] = {}
        self._date = (0, b"")
        self.invalid = {status: site.pages.malformed(status) for status in (400, 405, 408, 413, 431)}
        self.fault = site.pages.fault()
        self.loop = asyncio.get_running_loop()

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serves until the process ends."""
        for sock in sockets:
            sock.setblocking(False)
            await self.loop.create_server(lambda: Connection(self), sock=sock, backlog=_ACCEPTS)
            sock.listen(BACKLOG)
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self.loop.time()
            for connection in [one for one in self._open if one.deadline < now]:
                connection.close_early(connection.waits_for)

    def add(self, new: "Connection") -> None:
        """Adds a connection. If there are too many, the one that has waited longest makes room."""
        self._open[new] = None
        if len(self._open) > self._most:
            next(iter(self._open)).close_early("full")
        self.counts.set(OPEN, len(self._open))

    def remove(self, old: "Connection") -> None:
        """Removes a closed connection."""
        self._open.pop(old, None)
        self.counts.set(OPEN, len(self._open))

    def used(self, connection: "Connection") -> None:
        """Moves a connection behind those that have waited longer."""
        if connection in self._open:
            self._open[connection] = self._open.pop(connection)

    def date(self) -> bytes:
        """The field Date, which RFC 9110 section 6.6.1 requires."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode())
        return self._date[1]

    def failed(self, error: BaseException | None) -> None:
        """Reports a defect of dnsblock, without anything that a visitor sent."""
        if isinstance(error, OSError):
            return  # the kernel has no resources for a connection; asyncio accepts it a second later
        self._questions.report("unknown" if error is None else place_of(error))


class Connection(asyncio.Protocol):
    """One connection. Responses come in the sequence of the requests (RFC 9112 section 9.3.2)."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Visit, bool, bytes, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_paused = self._is_last = False
        self._begin()
        self.waits_for, self.deadline = "idle", server.loop.time() + IDLE_SECONDS

    # ------- The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # for the type checker
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        transport.set_write_buffer_limits(WRITE_BUFFER)
        self._server.add(self)

    def data_received(self, data: bytes) -> None:
        if self._is_last or self._transport is None or self._transport.is_closing():
            return
        if self.waits_for == "idle":
            # The deadline counts from the first byte: a byte now and then does not extend it.
            self._wait_for("head", HEAD_SECONDS)
        self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._end()  # the response is sent already: no other protocol is spoken here
        except httptools.HttpParserError:
            self._refuse(400)
        if self._size > MAX_REQUEST and not self._is_last:
            self._refuse(413 if self._is_in_body else 431)

    def eof_received(self) -> bool:
        """The client sends nothing more, but may still read."""
        self._is_last = True
        return bool(self._waiting)

    def pause_writing(self) -> None:
        self._is_paused = True
        self._wait_for("write", WRITE_SECONDS)

    def resume_writing(self) -> None:
        self._is_paused = False
        self._wait_for("idle", IDLE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.remove(self)
        if self._task is not None:
            self._task.cancel()
        self._waiting.clear()

    def close_early(self, reason: str) -> None:
        """Closes immediately, even if the client does not read. A client that is too slow gets 408."""
        if reason == "head":
            self._respond(self._server.invalid[408], 0, is_last=True)
        self._is_last = True
        self._server.counts.add(("closed", reason))
        self._server.remove(self)
        if self._transport is not None:
            self._transport.abort()

    def _wait_for(self, reason: str, seconds: float) -> None:
        self.waits_for, self.deadline = reason, self._server.loop.time() + seconds

    # ------- The parser calls these

    def _begin(self) -> None:
        self._target = self._accepted = self._etag = b""
        self._hosts: list[bytes] = []
        self._is_in_body = False
        self._size = self._head = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field; most are ignored."""
        self._count(len(name) + len(value) + 4)
        match name.lower():
            case b"host":
                self._hosts.append(value)
            case b"accept-language":
                self._accepted += b"," + value
            case b"if-none-match":
                self._etag += b"," + value

    def _count(self, size: int) -> None:
        """Limits the head of one request, even if it came in one piece."""
        self._head += size
        if self._head > MAX_REQUEST and not self._is_last:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self._is_in_body = True

    def on_message_complete(self) -> None:
        """The end of a request."""
        if self._is_last:
            return
        parser, server = self._parser, self._server
        method, version = parser.get_method(), parser.get_http_version()
        is_last = not parser.should_keep_alive() or parser.should_upgrade()
        hosts, target = self._hosts, self._target
        accepted, etag = self._accepted[1:], self._etag[1:]
        self._begin()
        if method not in _METHODS:
            self._refuse(405)
            return
        try:
            asked = visit(target, hosts, accepted, needs_host=version == "1.1")
            found = None if self._waiting else server.site.at_once(asked)
        except MalformedRequest:
            self._refuse(400)
            return
        except Exception as err:
            self._fail(err)
            return
        self._is_last = is_last
        if found is not None:
            self._respond(*found, is_head=method == b"HEAD", etag=etag, is_last=is_last)
        elif len(self._waiting) >= MAX_WAITING:
            self.close_early("pipelined")
        else:
            self._waiting.append((asked, method == b"HEAD", etag, is_last))
            self._wait_for("write", WRITE_SECONDS)
            if self._task is None:
                self._task = server.loop.create_task(self._answer_waiting())

    # ------- Responses

    async def _answer_waiting(self) -> None:
        """Responds to the requests that wait for the daemon, in their sequence."""
        while self._waiting:
            asked, is_head, etag, is_last = self._waiting[0]
            try:
                found = await self._server.site.later(asked)
            except Exception as err:
                self._fail(err)
                break
            self._waiting.popleft()
            self._respond(*found, is_head=is_head, etag=etag, is_last=is_last)
        self._task = None
        if self._is_last:  # the client has sent everything
            self._end()

    def _respond(
        self, page: Response, seconds: int, *, is_head: bool = False, etag: bytes = b"", is_last: bool = False
    ) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._is_paused:
            self.close_early("write")  # it sends requests, and reads no responses
            return
        kind, status = page.counted
        is_same = bool(page.etag) and page.etag in etag
        self._server.counts.add((kind, "3xx") if is_same else (kind, status))
        head = (
            page.head
            if not is_same
            else b"HTTP/1.1 304 Not Modified\r\nVary: Accept-Language\r\nETag: " + page.etag + b"\r\n"
        )
        fresh = f"public, max-age={seconds}" if page.is_cacheable else "no-store"
        end = "Connection: close\r\n\r\n" if is_last else "\r\n"
        body = b"" if is_head or is_same else page.body
        transport.write(head + self._server.date() + f"Cache-Control: {fresh}\r\n{end}".encode() + body)
        self._server.used(self)
        if is_last:
            self._end()
        elif not self._is_paused and not self._waiting:
            self._wait_for("idle", IDLE_SECONDS)

    def _refuse(self, status: int) -> None:
        """Responds to a request that is not understood, and closes the connection."""
        self._is_last = True
        if self._waiting:
            self.close_early("pipelined")
        else:
            self._respond(self._server.invalid[status], 0, is_last=True)

    def _fail(self, error: Exception) -> None:
        self._server.failed(error)
        self._is_last = True
        self._waiting.clear()
        self._respond(self._server.fault, 0, is_last=True)

    def _end(self) -> None:
        """Closes after what is written has been read."""
        self._is_last = True
        if self._transport is not None and not self._waiting:
            self._transport.close()
            self._wait_for("write", WRITE_SECONDS)
