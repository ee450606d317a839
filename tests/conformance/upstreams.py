"""The upstreams of the tests: a real Unbound, and a scripted one.

The scripted upstream records each query with its socket. A function of the test makes the response: late,
wrong, truncated, or none.
"""

import queue
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ports import free_port

from . import proxied, wire
from .asking import TIMEOUT
from .tools import tool, wait_for

TELEGRAM = (
    "t.me", "telegram.me", "telegram.org", "core.telegram.org", "desktop.telegram.org", "macos.telegram.org",
    "web.telegram.org", "venus.web.telegram.org", "pluto.web.telegram.org", "flora.web.telegram.org",
    "flora-1.web.telegram.org",
)  # fmt: skip
TELEGRAM_ADDRESSES = {name: f"198.51.100.{11 + i}" for i, name in enumerate(TELEGRAM)}


# ------- The scripted upstream -----------------------------------------------

HEALTH_CHECK = wire.question(".", "NS")  # of the default configuration


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One query as the upstream saw it; `reply` answers it at any time, from any thread."""

    data: bytes
    transport: str
    source: tuple[str, int]
    message: wire.Reply
    _send: Callable[[bytes], None] = field(repr=False)
    hang_up: Callable[[], None] = field(repr=False, default=lambda: None)  # ends its connection, over TCP
    header: proxied.ProxyHeader | None = None  # of the PROXY protocol, where it is expected

    @property
    def name(self) -> str:
        labels, at = [], 12
        while self.data[at]:
            labels.append(self.data[at + 1 : at + 1 + self.data[at]].decode("latin-1"))
            at += 1 + self.data[at]
        return ".".join(labels)

    @property
    def qtype(self) -> int:
        return struct.unpack("!H", self.message.question[-4:-2])[0]

    @property
    def is_health_check(self) -> bool:
        return self.message.question == HEALTH_CHECK

    def reply(self, data: bytes) -> None:
        self._send(data)

    def response(
        self,
        answer: Iterable[bytes] = (),
        authority: Iterable[bytes] = (),
        additional: Iterable[bytes] = (),
        *,
        flags: int = wire.RA,
        rcode: int = 0,
        question: bytes | None = None,
        qid: int | None = None,
        edns: bytes | None = None,
    ) -> bytes:
        """A response to this query as a decent resolver sends it, but for what is given."""
        extra = list(additional)
        if self.message.opt is not None:
            extra.append(wire.opt() if edns is None else edns)
        flags |= wire.QR | (self.message.flags & (wire.RD | wire.CD)) | rcode
        asked = self.message.question if question is None else question
        return wire.message(
            self.message.qid if qid is None else qid,
            flags,
            [asked] if asked else [],
            answers=answer,
            authority=authority,
            additional=extra,
        )

    def address(self, address: str = "198.51.100.7", **more: object) -> bytes:
        """A response with one address, its owner a pointer to the question."""
        return self.response([wire.address_record(b"\xc0\x0c", address)], **more)


def bind_both(family: socket.AddressFamily, host: str) -> tuple[socket.socket, socket.socket]:
    """A UDP socket and a listening TCP socket on the same free port."""
    for _ in range(100):
        port = free_port()
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            udp.bind((host, port))
            tcp.bind((host, port))
        except OSError:  # another program was quicker
            udp.close()
            tcp.close()
            continue
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        tcp.listen(64)
        return udp, tcp
    pytest.fail(f"no free port on {host}")


Script = Callable[[Asked], "bytes | Iterable[bytes] | None"]


def decent(asked: Asked) -> bytes:
    """Every name has one A and one AAAA record, and nothing else."""
    if asked.qtype == wire.QTYPES["A"]:
        return asked.address("198.51.100.7")
    if asked.qtype == wire.QTYPES["AAAA"]:
        return asked.address("2001:db8:7::7")
    soa = wire.name_to_wire("ns.upstream.example") * 2 + struct.pack("!5I", 7, 60, 60, 60, 60)
    return asked.response(authority=[wire.record(b"\0", "SOA", soa)])


def silent(_asked: Asked) -> None:
    """The query arrives and nothing comes back, unless the test replies later."""


@contextmanager
def answering_after(milliseconds: int) -> Iterator[Script]:
    """A script whose answers are right, and as late as this."""
    owed: queue.SimpleQueue[tuple[float, Asked] | None] = queue.SimpleQueue()
    finished = threading.Event()

    def answer() -> None:
        for due, asked in iter(owed.get, None):
            finished.wait(max(0.0, due - time.monotonic()))
            asked.reply(decent(asked))

    thread = threading.Thread(target=answer, name="late")
    thread.start()
    try:
        yield lambda asked: owed.put((time.monotonic() + milliseconds / 1000, asked))
    finally:
        owed.put(None)
        finished.set()
        thread.join()


def only_health_checks(asked: Asked) -> bytes | None:
    """Healthy but slow: only health checks are answered, unless the test replies later."""
    return decent(asked) if asked.is_health_check else None


class StubUpstream:
    """A scripted upstream on UDP and TCP of one loopback port; without `tcp`, connections are refused.

    Health checks are recorded separately and always answered, so that the upstream stays up whatever its
    script does. With `may_die`, the script answers them, too.
    """

    def __init__(
        self,
        script: Script = decent,
        host: str = "127.0.0.1",
        *,
        tcp: bool = True,
        expects_header: bool = False,
        may_die: bool = False,
    ) -> None:
        self.script = script
        self._may_die = may_die
        self._expects_header = expects_header  # of the PROXY protocol
        self._headers: dict[socket.socket, proxied.ProxyHeader] = {}
        self.errors: list[Exception] = []
        self._asked: list[Asked] = []
        self._health_checks: list[Asked] = []
        self._changed = threading.Condition()
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._host = host
        self._udp, self._listener = bind_both(self._family, host)
        self.port = self._udp.getsockname()[1]
        if not tcp:
            self._listener.close()
        self._begin()
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _begin(self) -> None:
        self._wake, self._woken = socket.socketpair()
        self._buffers: dict[socket.socket, bytearray] = {}
        self._thread = threading.Thread(target=self._serve, name=f"upstream-{self.port}")
        self._thread.start()

    def reopen(self) -> None:
        """Listens again on its port, once closed; may be called again."""
        if self._thread.is_alive():
            return
        self._udp = socket.socket(self._family, socket.SOCK_DGRAM)
        self._listener = socket.socket(self._family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._udp.bind((self._host, self.port))
        self._listener.bind((self._host, self.port))
        self._listener.listen(64)
        self._begin()

    @property
    def queries(self) -> list[Asked]:
        with self._changed:
            return list(self._asked)

    @property
    def health_checks(self) -> list[Asked]:
        with self._changed:
            return list(self._health_checks)

    @property
    def open_connections(self) -> list[socket.socket]:
        return list(self._buffers)

    def forget(self) -> None:
        with self._changed:
            self._asked.clear()
            self._health_checks.clear()

    def asked_for(self, name: str) -> list[Asked]:
        return [asked for asked in self.queries if asked.name.lower() == name.lower()]

    def count(self, name: str, qtype: str | int | None = None) -> int:
        """How often it was asked about a name, or about one type of it."""
        number = None if qtype is None else wire.qtype_number(qtype)
        return sum(number in (None, asked.qtype) for asked in self.asked_for(name))

    def wait_until(self, condition: Callable[[list[Asked]], bool], timeout: float = TIMEOUT) -> list[Asked]:
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._asked), timeout):
                names = [(asked.name, asked.transport) for asked in self._asked]
                pytest.fail(f"upstream {self.port} waited {timeout} s in vain; it was asked {names}")
            return list(self._asked)

    def wait_for_query(self, name: str, timeout: float = TIMEOUT) -> Asked:
        def has_come(asked: list[Asked]) -> bool:
            return any(one.name.lower() == name.lower() for one in asked)

        return next(one for one in self.wait_until(has_come, timeout) if one.name.lower() == name.lower())

    def kill(self) -> None:
        """From now on nothing listens there, so ICMP port unreachable is sent; recorded queries stay."""
        self.close()

    def close(self) -> None:
        """Nothing listens any more; may be called again."""
        if not self._thread.is_alive():
            return
        self._wake.send(b"x")
        self._thread.join()
        for sock in [self._udp, self._listener, self._wake, self._woken, *self._buffers]:
            sock.close()
        assert not self.errors, self.errors

    # One thread serves all sockets, so that queries are recorded in the order in which they came.
    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._listener, self._woken):
                if sock.fileno() >= 0:
                    selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = key.fileobj
                    if sock is self._woken:
                        return
                    if sock is self._udp:
                        self._read_udp()
                    elif sock is self._listener:
                        connection, _ = self._listener.accept()
                        self._buffers[connection] = bytearray()
                        selector.register(connection, selectors.EVENT_READ)
                    elif not self._read_tcp(sock):
                        selector.unregister(sock)
                        del self._buffers[sock]
                        self._headers.pop(sock, None)
                        sock.close()

    def _read_udp(self) -> None:
        try:
            data, source = self._udp.recvfrom(65535)
        except OSError:
            return  # an ICMP error of an earlier reply
        header = None
        if self._expects_header:
            try:
                header, data = proxied.read(data)
            except ValueError as err:  # shown at the end of the test
                self.errors.append(err)
                return
        self._take(data, "udp", source[:2], lambda reply: self._send_udp(reply, source), header=header)

    def _send_udp(self, reply: bytes, source: tuple[str, int]) -> None:
        self._udp.sendto(reply, source)

    def _send_tcp(self, reply: bytes, sock: socket.socket) -> None:
        with suppress(ConnectionError):  # who asked may have given up
            sock.sendall(len(reply).to_bytes(2) + reply)

    def _read_tcp(self, sock: socket.socket) -> bool:
        try:
            data = sock.recv(65535)
            source = sock.getpeername()[:2]
        except OSError:
            return False
        buffer = self._buffers[sock]
        buffer += data
        if self._expects_header and sock not in self._headers:
            if not proxied.is_whole(buffer):
                return bool(data)
            self._headers[sock], buffer[:] = proxied.read(bytes(buffer))
        while len(buffer) >= 2 and len(buffer) >= 2 + int.from_bytes(buffer[:2]):
            end = 2 + int.from_bytes(buffer[:2])
            self._take(
                bytes(buffer[2:end]),
                "tcp",
                source,
                lambda reply: self._send_tcp(reply, sock),
                hang_up=lambda: self._hang_up(sock),
                header=self._headers.get(sock),
            )
            del buffer[:end]
        return bool(data)

    def _hang_up(self, sock: socket.socket) -> None:
        with suppress(OSError):  # the other side was quicker
            sock.shutdown(socket.SHUT_RDWR)

    def _take(
        self,
        data: bytes,
        transport: str,
        source: tuple[str, int],
        send: Callable[[bytes], None],
        *,
        hang_up: Callable[[], None] = lambda: None,
        header: proxied.ProxyHeader | None = None,
    ) -> None:
        try:
            asked = Asked(data, transport, source, wire.read(data), send, hang_up, header)
            with self._changed:
                (self._health_checks if asked.is_health_check else self._asked).append(asked)
                self._changed.notify_all()
            replies = decent(asked) if asked.is_health_check and not self._may_die else self.script(asked)
            for reply in [replies] if isinstance(replies, bytes) else replies or ():
                send(reply)
        except Exception as err:  # shown at the end of the test
            self.errors.append(err)


MakeUpstream = Callable[..., StubUpstream]


# ------- The real resolver ---------------------------------------------------

UNBOUND_DATA = [
    "example.com. 300 IN A 203.0.113.80",
    "example.com. 300 IN AAAA 2001:db8:80::80",
    "example.com. 300 IN MX 10 mail.example.com.",
    'example.com. 300 IN TXT "v=spf1 -all"',
    "example.com. 300 IN NS ns.example.com.",
    "example.com. 300 IN SOA ns.example.com. hostmaster.example.com. 7 3600 900 604800 300",
    "example.com. 300 IN HTTPS 1 . alpn=h2,h3 ipv4hint=203.0.113.80",
    "www.example.com. 300 IN CNAME example.com.",
    "other.example.com. 300 IN TYPE65280 \\# 4 0a000001",
    "www.telegram.org. 300 IN A 198.51.100.99",
]


class Unbound:
    """A real Unbound with UNBOUND_DATA, the 11 Telegram names and BIG_TEXTS; it sends no queries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        for _ in range(5):  # another program may take the port between looking and binding
            self.port = free_port()
            (self.folder / "unbound.conf").write_text(self._config(), encoding="ascii")
            if self.start_again():
                return
        pytest.fail(f"Unbound does not start: {(self.folder / 'unbound.out').read_text()}")

    def start_again(self) -> bool:
        """Start on the port that it had; true once it answers."""
        command = [tool("unbound"), "-d", "-c", str(self.folder / "unbound.conf")]
        with (self.folder / "unbound.out").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(lambda: self._answers() or self._process.poll() is not None, "Unbound answers")
        return self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            try:
                sock.connect(("127.0.0.1", self.port))
                sock.send(wire.query("example.com"))
                return wire.read(sock.recv(4096)).addresses == ["203.0.113.80"]
            except OSError:
                return False

    def _config(self) -> str:
        data = list(UNBOUND_DATA)
        for name, address in TELEGRAM_ADDRESSES.items():
            data += [f"{name}. 300 IN A {address}", f'{name}. 300 IN TXT "{name} itself"']
        data += [
            f'{name}. 300 IN TXT "{i:03} {"x" * 200}"' for name, n in BIG_TEXTS.items() for i in range(n)
        ]
        data += [f"n{i}.load.example. 300 IN A 203.0.113.{i % 250}" for i in range(5000)]
        lines = "\n".join(f"  local-data: '{line}'" for line in data)
        return f"""
server:
  interface: 127.0.0.1@{self.port}
  interface: ::1@{self.port}
  do-ip6: yes
  username: ""
  chroot: ""
  directory: "{self.folder}"
  pidfile: "{self.folder}/unbound.pid"
  use-syslog: no
  logfile: ""
  do-daemonize: no
  num-threads: 1
  so-rcvbuf: 1m
  module-config: "iterator"
  edns-buffer-size: 4096
  max-udp-size: 4096
  access-control: 127.0.0.0/8 allow
  access-control: ::1/128 allow
  local-zone: "." static
{lines}
remote-control:
  control-enable: no
"""


BIG_TEXTS = {"big.example": 8, "huge.example": 28}  # TXT records of 204 bytes each
