"""The asking half of whatever is tested: a resolver that is spoken to through its sockets."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from . import wire
from .clients import Stream
from .tools import run, tool

SINKHOLE4, SINKHOLE6 = "192.0.2.53", "2001:db8::53"
TIMEOUT = 45.0  # seconds; a busy machine may be slow, and a lost response fails the test anyway


class Asking:
    """A resolver at known addresses; a subclass fills `ports` once it listens."""

    timeout = TIMEOUT  # how long an answer may take, in seconds

    def __init__(self) -> None:
        self.hosts = {4: "127.0.0.1", 6: "::1"}
        self.ports: dict[int, int] = {}

    @contextmanager
    def udp(self, family: int = 4, source: str | None = None) -> Iterator[socket.socket]:
        """A connected UDP socket: what comes from another address than was asked is not seen."""
        with socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(self.timeout)
            if source:
                sock.bind((source, 0))
            sock.connect(self._place(family))
            yield sock

    @contextmanager
    def tcp(self, family: int = 4, source: str | None = None) -> Iterator[Stream]:
        bound = (source, 0) if source else None
        with socket.create_connection(self._place(family), self.timeout, bound) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Stream(sock)

    def _place(self, family: int) -> tuple[str, int]:
        return self.hosts[family], self.ports[family]

    def exchange(self, data: bytes, transport: str = "udp", family: int = 4) -> bytes | None:
        """The first response to these bytes; None if the timeout or the connection ends without one."""
        if transport == "tcp":
            with self.tcp(family) as stream:
                stream.send(data)
                return stream.receive()
        with self.udp(family) as sock:
            sock.send(data)
            try:
                return sock.recv(65535)
            except TimeoutError:
                return None

    def query(
        self,
        name: str | bytes,
        qtype: str | int = "A",
        *,
        transport: str = "udp",
        family: int = 4,
        **flags: object,
    ) -> wire.Reply:
        """Ask once; the response must repeat id and question (RFC 5452 section 9.1)."""
        asked = wire.query(name, qtype, **flags)
        raw = self.exchange(asked, transport, family)
        assert raw is not None, f"no answer to {name!r} {qtype}"
        reply = wire.read(raw)
        assert (reply.qid, reply.flags & wire.QR) == (int.from_bytes(asked[:2]), wire.QR)
        assert reply.question == wire.question(name, qtype, flags.get("qclass", 1))
        return reply

    def dig(self, *arguments: str, family: int = 4) -> str:
        return self._client("dig", *arguments, family=family)

    def kdig(self, *arguments: str, family: int = 4) -> str:
        return self._client("kdig", *arguments, family=family)

    def _client(self, name: str, *arguments: str, family: int) -> str:
        host, port = self._place(family)
        done = run([tool(name), f"@{host}", "-p", str(port), *arguments])
        assert done.returncode == 0, done
        return done.stdout


def is_sinkholed(reply: wire.Reply) -> bool:
    """The A record of the profile and nothing else."""
    return reply.rcode == "NOERROR" and reply.addresses == [SINKHOLE4] and len(reply.answer) == 1


def is_forwarded(reply: wire.Reply) -> bool:
    """The decent upstream's A record and nothing else."""
    return reply.rcode == "NOERROR" and reply.addresses == ["198.51.100.7"]


def assert_silent(resolver: Asking, *unanswered: bytes, ask: str = "blocked.example") -> None:
    """None of the messages is answered: a valid query sent after them is answered first, and alone.

    One socket is one flow and stays with one worker thread, so responses keep their order.
    """
    with resolver.udp() as sock:
        for packet in unanswered:
            sock.send(packet)
        for _ in range(2):
            good = wire.query(ask)
            sock.send(good)
            reply = sock.recv(65535)
            assert reply[:2] == good[:2], f"answered: {reply.hex()}"
