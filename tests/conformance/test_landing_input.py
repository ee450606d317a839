"""Hostile input to the landing page is refused with a clear answer and counted, and others are served."""

import itertools
import socket
from contextlib import ExitStack, suppress

import pytest

from .harness import TIMEOUT, Subject, is_sinkholed
from .landing import BLOCKED, Landing, Response, parse, read_all
from .tools import tool, wait_for

DESCRIPTORS = 640  # the process, which gives way to every other, must be able to fill them in seconds
CROWD = 2500
GET = f"GET / HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def page(shared_subject: Subject) -> Landing:
    return Landing(shared_subject).start()


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\n\r\n",  # RFC 9112 section 3.2: no Host
        b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example/path\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: <script>\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a..example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example:http\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"a" * 64 + b".example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: " + b"a." * 200 + b"example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: xn--\x00.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\n folded: x\r\n\r\n",
        b"GET relative HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http:///path HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/3.7\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),  # TLS: no certificate exists
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n" * 10 + b"garbage\r\n\r\n",
    ],
)
def test_a_malformed_request_gets_400(page: Landing, request_head: bytes):
    """Counted as malformed, and the connection ends."""
    before = page.metric("requests_total", kind="malformed")
    got = page.send(request_head)
    assert got.status in (400, 405)
    assert got.fields["connection"] == "close"
    assert page.metric("requests_total", kind="malformed") == before + 1


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x.example\r\nX: " + b"y" * 400_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"%41" * 20_000 + b" HTTP/1.1\r\nHost: x.example\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x.example\r\nContent-Length: 999999\r\n\r\n" + b"z" * 99_999, 413),
        (b"POST / HTTP/1.1\r\nHost: x.example\r\nContent-Length: 4\r\n\r\nbody", 405),
        (b"GET / HTTP/1.1\r\nHost: blocked.example\r\nContent-Length: 4\r\n\r\nbody", 451),
        (b"CONNECT x.example:443 HTTP/1.1\r\nHost: x.example\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: x.example\r\n\r\n", 405),
        (b"GET http://blocked.example/x HTTP/1.1\r\nHost: open.example\r\n\r\n", 451),  # RFC 9112 3.2.2
        (b"GET HTTPS://Blocked.Example:443 HTTP/1.1\r\nHost: open.example\r\n\r\n", 451),
        (b"GET http://blocked.example?q HTTP/1.1\r\nHost: open.example\r\n\r\n", 451),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.0\r\nHost: blocked.example\r\n\r\n", 451),
        (b"GET / HTTP/1.1\r\nHost: blocked.example\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", 451),
        (b"GET / HTTP/1.1\r\nHost: blocked.example\r\nExpect: 100-continue\r\n\r\n", 451),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_a_request_of_an_unusual_form_gets_a_clear_answer(page: Landing, request_head: bytes, status: int):
    """Large heads, bodies, absolute forms, old versions, other protocols."""
    if b"onnection" not in request_head:
        request_head = request_head.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n", 1)
    assert page.send(request_head).status == status


def responses(sock: socket.socket, count: int) -> list[Response]:
    """So many responses on one connection."""
    data, found = b"", []
    while len(found) < count:
        head, separator, rest = data.partition(b"\r\n\r\n")
        size = (
            int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0) if separator else 0
        )
        if separator and len(rest) >= size:
            found.append(parse(head + separator + rest[:size]))
            data = rest[size:]
            continue
        chunk = sock.recv(65536)
        assert chunk, f"the connection ended after {len(found)} responses"
        data += chunk
    return found


def test_requests_on_one_connection_are_answered_in_their_sequence(page: Landing):
    """RFC 9112 section 9.3.2: also those that need the daemon, and in one packet."""
    hosts = [BLOCKED, "listed.example", "new-1.example", BLOCKED, "new-2.example", "127.0.0.1", BLOCKED]
    with page.connection() as sock:
        sock.sendall(b"".join(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() for host in hosts))
        assert [one.status for one in responses(sock, 7)] == [451, 451, 421, 451, 421, 200, 451]


def test_a_request_may_come_byte_by_byte(page: Landing):
    """A slow network is not an attack."""
    with page.connection() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GET:
            sock.send(bytes([byte]))
        assert responses(sock, 1)[0].status == 451


def test_too_many_requests_that_need_the_daemon_on_one_connection_end_it(page: Landing):
    """Requests that wait for the daemon take memory."""
    names = (f"GET / HTTP/1.1\r\nHost: pipelined-{number}.example\r\n\r\n" for number in range(100))
    with page.connection() as sock:
        sock.sendall("".join(names).encode())
        with suppress(ConnectionResetError):
            while sock.recv(65536):
                pass
    assert page.metric("closed_connections_total", reason="pipelined") == 1


@pytest.mark.parametrize(
    ("sends", "reason"), [(b"", "idle"), (GET, "idle"), (b"GET / HTTP/1.1\r\nHo", "head")]
)
def test_a_connection_without_a_request_is_closed(page: Landing, sends: bytes, reason: str):
    """5 seconds without a request, 10 from its first byte to its end; a byte now and then extends neither."""
    before = page.metric("closed_connections_total", reason=reason)
    with page.connection() as sock, suppress(ConnectionResetError):
        sock.sendall(sends)
        while sock.recv(65536):
            pass
    assert page.metric("closed_connections_total", reason=reason) == before + 1


def test_a_client_that_reads_nothing_is_disconnected(page: Landing):
    """Its responses take memory."""
    with page.connection() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)

        def is_closed() -> bool:
            try:
                sock.send(GET * 100)
            except BlockingIOError:
                pass
            except OSError:
                return True
            return page.metric("closed_connections_total", reason="write") > 0

        wait_for(is_closed, "the connection is closed")


def test_thousands_of_idle_connections_keep_nobody_out(subject: Subject):
    """The one that has waited longest makes room; DNS, orders and the metrics have their own descriptors."""
    subject.under = [tool("prlimit"), f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"]
    page = Landing(subject).start()
    with ExitStack() as stack:
        for number in range(CROWD):
            sock = stack.enter_context(page.connection(f"127.0.{1 + number // 200}.1"))
            if number % 2:
                with suppress(ConnectionError):
                    sock.sendall(b"GET / HTTP/1.1\r\nHo")
        assert page.get(BLOCKED).status == 451
        assert is_sinkholed(subject.query(BLOCKED, transport="tcp"))
        assert subject.reload()["changed"] is False
        assert page.metric("closed_connections_total", reason="full") > 0
        assert page.metric("connections") <= DESCRIPTORS
    assert "rror" not in subject.stderr().replace("errors", "")


def test_random_names_neither_lock_out_known_ones_nor_slow_the_daemon(subject: Subject):
    """Each is a question to the daemon, which answers them at its own rate. Beyond it, visitors get 503."""
    page = Landing(subject).start()
    assert page.get(BLOCKED).status == 451
    with ExitStack() as stack:
        crowd = [stack.enter_context(page.connection()) for _ in range(200)]
        turns = itertools.count()

        def ask() -> int:
            """One name for each connection; as many turns as a slow machine needs."""
            turn = next(turns)
            for number, sock in enumerate(crowd):
                with suppress(OSError):
                    sock.setblocking(False)
                    sock.send(f"GET / HTTP/1.1\r\nHost: r{turn}-{number}.example\r\n\r\n".encode())
            assert page.get(BLOCKED).status == 451
            return turn

        wait_for(
            lambda: ask() >= 19 and page.metric("questions_total", result="refused") > 0, "some are refused"
        )
        assert is_sinkholed(subject.query(BLOCKED))
        assert subject.status()["landing"] == subject.ready["landing"]
    assert page.metric("requests_total", kind="busy", status="5xx") > 0
    page.wait_until_served()


def test_garbage_is_not_logged(page: Landing):
    """A stranger must not fill the disk."""
    before = len(page.subject.stderr())
    for _ in range(200):
        page.send(b"\x00GARBAGE " + b"x" * 100 + b"\r\n\r\n")
    logged = page.subject.stderr()[before:]
    # The daemon may log something else meanwhile, such as a look at a list.
    assert "GARBAGE" not in logged
    assert len(logged.splitlines()) < 20, logged


def test_a_half_closed_connection_gets_its_response(page: Landing):
    """A client may end its own direction after the request (RFC 9112 section 9.6)."""
    with page.connection() as sock:
        sock.settimeout(TIMEOUT)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: half-closed.example\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).status == 421
