"""The HTTP listeners: a crowd of connections cannot lock out those who need them."""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from .harness import Subject, is_sinkholed
from .orders import block, unblock
from .tools import tool, wait_for
from .upstreams import StubUpstream

DESCRIPTORS = 1024
CROWD = 1056
TIMEOUT = 45.0  # seconds; more than any limit of the daemon
BLOCKED = "blocked.example"
# The bytes that each client sends before it stops sending.
SILENT, HALF_A_HEAD, HALF_A_BODY = (
    b"",
    b"GET /metrics HTTP/1.1\r\nHo",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
)


def start(subject: Subject, upstream: StubUpstream, **config: object) -> None:
    subject.under = [tool("prlimit"), f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=[upstream.address], **config)


def connect(subject: Subject, listener: str) -> socket.socket:
    """A connection to the metrics port, or to the control socket."""
    if listener == "control":
        client = socket.socket(socket.AF_UNIX)
        client.connect(subject.ready["control"])  # waits where many connect
        client.settimeout(TIMEOUT)
        return client
    host, port = subject.ready["metrics"].rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=TIMEOUT)


@contextmanager
def a_crowd(subject: Subject, listener: str, sends: bytes, count: int = CROWD) -> Iterator[None]:
    """Clients that hold connections while the block runs, as far as they are let."""
    with ExitStack() as held:
        for _ in range(count):
            client = held.enter_context(connect(subject, listener))
            if sends:
                try:
                    client.sendall(sends)
                except OSError:
                    continue  # closed by now: it made room
        yield


@pytest.mark.parametrize("sends", [SILENT, HALF_A_HEAD, HALF_A_BODY], ids=["silent", "head", "body"])
def test_a_crowd_on_the_metrics_port_stops_nothing_else(
    subject: Subject, upstream: StubUpstream, sends: bytes
):
    """1,056 connections and 1,024 descriptors: Prometheus, orders, SIGHUP and DNS over TCP go on."""
    start(subject, upstream)
    with a_crowd(subject, "metrics", sends):
        assert subject.metrics().total("dnsblock_http_connections", listener="metrics") <= 256
        assert is_sinkholed(subject.query(BLOCKED, transport="tcp"))
        subject.put_order(unblock("U-1", "B-1"))
        assert subject.reload()["changed"] is True
        assert not is_sinkholed(subject.query(BLOCKED))
        subject.put_order(block("B-2", ["later.example"]))
        subject.hup()
        wait_for(lambda: is_sinkholed(subject.query("later.example")), "SIGHUP publishes")


def test_a_crowd_on_the_control_socket_stops_no_order(subject: Subject, upstream: StubUpstream):
    """One user of the control socket must not lock out the others."""
    start(subject, upstream)
    with a_crowd(subject, "control", HALF_A_HEAD, count=300):
        subject.put_order(unblock("U-1", "B-1"))
        assert subject.reload()["changed"] is True
        assert subject.metrics().total("dnsblock_http_closed_connections_total", reason="full") > 0


@pytest.mark.parametrize(
    ("sends", "reason"), [(SILENT, "first_byte"), (HALF_A_HEAD, "head")], ids=["silent", "head"]
)
def test_a_connection_without_a_request_is_closed(
    subject: Subject, upstream: StubUpstream, sends: bytes, reason: str
):
    """5 seconds for the first byte, 10 for the head of a request; a byte now and then extends neither."""
    start(subject, upstream)
    with connect(subject, "metrics") as client:
        client.sendall(sends)
        answer = client.recv(100)  # before the client's own timeout
        assert answer.startswith(b"HTTP/1.1 408 ") if sends else answer == b""
    assert subject.metrics().total("dnsblock_http_closed_connections_total", reason=reason) == 1


def test_a_client_that_reads_nothing_is_disconnected(subject: Subject, upstream: StubUpstream):
    """Requests without end, and no response is read: the connection is closed."""
    start(subject, upstream)
    with connect(subject, "metrics") as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100

        def is_closed() -> bool:
            try:
                client.send(request)
            except BlockingIOError:
                pass
            except OSError:
                return True
            return subject.metrics().total("dnsblock_http_closed_connections_total", reason="write") > 0

        wait_for(is_closed, "the connection is closed")


def test_http_max_connections_is_changed_by_a_reload(subject: Subject, upstream: StubUpstream):
    """`http.max_connections`; the oldest idle connection makes room."""
    start(subject, upstream)
    subject.configure(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        listen=subject.ready["listening"],
        metrics=subject.ready["metrics"],
        http={"max_connections": 8},
    )
    subject.reload()
    with a_crowd(subject, "metrics", HALF_A_HEAD, count=20):
        assert subject.metrics().total("dnsblock_http_connections", listener="metrics") <= 8
        assert subject.metrics().total("dnsblock_http_closed_connections_total", reason="full") >= 12


# ------- What a stranger makes us log


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300) + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: " + b"y" * 400_000 + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: " + b"z" * 9000 + b"\r\n\r\n",
        b"GET /" + b"%41" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["tls", "header", "upgrade", "path"],
)
def test_garbage_does_not_fill_the_log(subject: Subject, upstream: StubUpstream, garbage: bytes):
    """Each kind of line from a library is limited to 10 a minute, each line in length; a metric counts on."""
    start(subject, upstream)
    before = len(subject.stderr().splitlines())
    for _ in range(200):
        with connect(subject, "metrics") as client:
            try:
                client.sendall(garbage)
                client.recv(100)
            except OSError:
                continue  # refused before all of it was sent
    with urllib.request.urlopen(f"http://{subject.ready['metrics']}/metrics", timeout=TIMEOUT) as response:
        assert response.status == 200
    lines = subject.stderr().splitlines()
    assert len(lines) - before <= 40
    assert max(map(len, lines)) < 24_000
