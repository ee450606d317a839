"""Bad requests to each HTTP listener: a clear answer, a counter, and nothing changes. DNS goes on.

The landing page has tests of its own (`test_landing_input.py`), since its server is another one.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from unit.https_server import Authority

from .harness import Subject, is_sinkholed
from .issuing import TOKENS, IssuersApi
from .landing import OPTIONS as LANDING
from .orders import block
from .tools import run, tool, wait_for

TIMEOUT = 180.0  # seconds; more than any limit of the daemon
LISTENERS = ("control", "metrics", "api", "console", "landing")
BLOCKED = "blocked.example"
BOUNDARY = b"--b\r\nContent-Disposition: form-data; name="


class Listeners:
    """A daemon with every listener, and raw connections to each of them."""

    def __init__(self, api: IssuersApi) -> None:
        self.api, self.subject = api, api.subject
        self.tls = {name: name in ("api", "console") for name in LISTENERS}

    def start(self, **config: object) -> "Listeners":
        self.api.start(console={"listen": "127.0.0.1:0"}, landing=LANDING, **config)
        assert self.api.submit(block("B-1", [BLOCKED])).status_code == 201
        self.subject.wait_recorded()
        status = self.subject.status()
        self.places = {name: status[name] for name in ("metrics", "api", "console")}
        self.places["landing"] = status["landing"][0]
        self.context = self.api.tls()
        wait_for(lambda: self.send("landing", get("/")), "the landing page is served")
        return self

    def raw(self, listener: str) -> socket.socket:
        """A connection without TLS."""
        if listener == "control":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.subject.ready["control"])  # waits where many connect
            sock.settimeout(TIMEOUT)
            return sock
        host, port = self.places[listener].rsplit(":", 1)
        return socket.create_connection((host, int(port)), TIMEOUT)

    def connect(self, listener: str) -> socket.socket:
        """A connection on which a request can be sent."""
        sock = self.raw(listener)
        return self.context.wrap_socket(sock, server_hostname="127.0.0.1") if self.tls[listener] else sock

    def send(self, listener: str, data: bytes) -> bytes:
        """All that is received after these bytes."""
        with self.connect(listener) as sock:
            with suppress(OSError):  # refused before all of it was sent
                sock.sendall(data)
            return read_all(sock)

    def closed(self, listener: str, reason: str) -> float:
        """Connections that were closed early."""
        if listener == "landing":
            return self.subject.metrics().total("dnsblock_landing_closed_connections_total", reason=reason)
        name = "dnsblock_http_closed_connections_total"
        return self.subject.metrics().total(name, listener=listener, reason=reason)

    def refused(self, listener: str, code: str) -> float:
        """Requests that were refused."""
        if listener in ("api", "console"):
            return self.subject.metrics().total(f"dnsblock_{listener}_refused_total", code=code)
        return self.subject.metrics().total("dnsblock_http_refused_total", listener=listener, code=code)

    def facts(self) -> dict:
        """The state that no bad request may change."""
        status = self.subject.status()
        last = status["ledger"]["last_record"]
        return {key: status[key] for key in ("serial", "digest", "entries", "pid")} | {"last_record": last}


def read_all(sock: socket.socket) -> bytes:
    data = b""
    with suppress(OSError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


def get(path: str, *fields: str) -> bytes:
    """A request that is the last one of its connection."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *fields, "", ""]).encode()


def status_of(response: bytes) -> int:
    assert response.startswith(b"HTTP/1.1 "), response[:200]
    return int(response.split()[1])


@pytest.fixture
def every(api: IssuersApi) -> Listeners:
    return Listeners(api)


@pytest.fixture(scope="module")
def running(shared_subject: Subject, authority: Authority, client_authority: Authority) -> Listeners:
    """For the tests that change nothing."""
    return Listeners(IssuersApi(shared_subject, authority, client_authority)).start()


@pytest.fixture
def unchanged(running: Listeners) -> Iterator[Listeners]:
    """The shared daemon, which must be as before afterwards."""
    before = running.facts()
    yield running
    assert running.facts() == before
    assert is_sinkholed(running.subject.query(BLOCKED))
    assert is_sinkholed(running.subject.query(BLOCKED, transport="tcp"))


# ------- One request


GARBAGE = {
    "binary": bytes(range(128, 256)) * 4 + b"\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9 with an end": b"GET /\r\n\r\n",
    "no Host (RFC 9112 section 3.2)": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\x00c\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "one long field": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000 + b"\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 40_000 + b"\r\n",
    "a long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}
KNOWN = [name for name in LISTENERS if name != "landing"]


@pytest.mark.parametrize("listener", KNOWN)
@pytest.mark.parametrize("case", GARBAGE)
def test_a_malformed_request_gets_400_and_is_counted(unchanged: Listeners, listener: str, case: str):
    """Also a head over 16 KiB that arrives in one piece (over a Unix socket, 200 KB do)."""
    before = unchanged.closed(listener, "garbage")
    response = unchanged.send(listener, GARBAGE[case])
    # If the daemon has not read all of it, the end of the connection may overtake the response.
    assert not response or b"HTTP/1.1 400 " in response
    assert response or len(GARBAGE[case]) > 16_000
    assert unchanged.closed(listener, "garbage") == before + 1


@pytest.mark.parametrize(
    ("request_line", "status", "code"),
    [
        ("GET /nothing", 404, "NOT_FOUND"),
        ("GET /metrics/..", 404, "NOT_FOUND"),
        ("GET /%2e%2e/%2e%2e/etc/passwd", 404, "NOT_FOUND"),
        ("GET http://other.example/", 404, "NOT_FOUND"),
        ("POST /metrics", 405, "METHOD_NOT_ALLOWED"),
        ("TRACE /metrics", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE /livez", 405, "METHOD_NOT_ALLOWED"),
        ("PURGE /livez", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_the_metrics_listener_has_three_paths(
    unchanged: Listeners, request_line: str, status: int, code: str
):
    """GET of /metrics, /livez and /readyz. Everything else is refused and counted."""
    before = unchanged.refused("metrics", code)
    request = f"{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    assert status_of(unchanged.send("metrics", request)) == status
    assert unchanged.refused("metrics", code) == before + 1


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (get("/nothing"), 404, "NOT_FOUND"),
        (get("/v1/reload"), 405, "METHOD_NOT_ALLOWED"),
        (get("/v1/why"), 422, "INVALID"),
        (get("/v1/why?name=a&name=b"), 422, "INVALID"),
        (get("/v1/why?name=a..b"), 400, "INVALID"),
        (get("/v1/orders/ministry.example/X-1"), 404, "NOT_FOUND"),
        (get("/v1/events", "Last-Event-ID: x"), 400, "MALFORMED"),
        (get("/v1/events?after=999999"), 409, "UNKNOWN_EVENT"),
        (b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 415, None),
    ],
)
def test_a_refused_request_on_the_control_socket_is_counted(
    unchanged: Listeners, request_head: bytes, status: int, code: str | None
):
    """By code, as on the issuers' API."""
    code = code or "UNSUPPORTED_MEDIA_TYPE"
    before = unchanged.refused("control", code)
    response = unchanged.send("control", request_head)
    assert status_of(response) == status
    assert f'"code":"{code}"'.encode() in response
    assert unchanged.refused("control", code) == before + 1


@pytest.mark.parametrize("listener", ["control", "api"])
def test_pipelined_requests_are_answered_in_their_sequence(unchanged: Listeners, listener: str):
    """RFC 9112 section 9.3.2; a refused one does not end the connection, a malformed one does."""
    paths = ["/livez", "/nothing", "/livez", "/v1/reload", "/livez"]
    requests = b"".join(get(path).replace(b"Connection: close\r\n", b"") for path in paths)
    received = unchanged.send(listener, requests * 20 + b"GARBAGE\r\n\r\n" + requests)
    statuses = [int(part.split()[0]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 404, 200, 405, 200] * 20 + [400]


# ------- TLS


@pytest.mark.parametrize("listener", ["api", "console"])
@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
        b"\x17\x03\x03\x00\x10" + bytes(16),
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(50),
    ],
    ids=["hello of zeros", "large record", "data first", "alert", "SSLv2", "plain HTTP", "zeros"],
)
def test_a_malformed_handshake_is_ended_and_counted(unchanged: Listeners, listener: str, data: bytes):
    """Nothing is answered in the clear, except an alert of TLS."""
    before = unchanged.closed(listener, "handshake")
    with unchanged.raw(listener) as sock:
        sock.sendall(data)
        received = read_all(sock)
    assert b"HTTP" not in received
    assert len(received) < 50
    wait_for(lambda: unchanged.closed(listener, "handshake") == before + 1, "it is counted")


@pytest.mark.parametrize("listener", ["api", "console"])
def test_no_session_is_resumed_or_renegotiated(unchanged: Listeners, listener: str):
    """Early data of a resumed session could be replayed (RFC 8446 section 8): no session gets a ticket."""
    command = [tool("openssl"), "s_client", "-connect", unchanged.places[listener]]
    shown = run([*command, "-ign_eof"], input=get("/livez").decode(), timeout=60)
    assert "HTTP/1.1 " in shown.stdout
    assert "Protocol version: TLSv1.3" in shown.stdout or "TLSv1.3, Cipher" in shown.stdout
    assert "Session Ticket" not in shown.stdout
    before = unchanged.closed(listener, "handshake")
    assert run([*command, "-tls1_2", "-legacy_renegotiation"], input="R\n", timeout=60).returncode != 0
    wait_for(lambda: unchanged.closed(listener, "handshake") == before + 1, "it is counted")


# ------- Slowness


def drip(sock: socket.socket, sent: bytes, drop: bytes) -> bytes:
    """Sends a request, then one byte a second, until something is received or the connection ends."""
    sock.sendall(sent)
    sock.settimeout(1)
    began = time.monotonic()
    while time.monotonic() < began + TIMEOUT:
        try:
            return sock.recv(65536)
        except TimeoutError:
            with suppress(OSError):
                sock.sendall(drop)
        except OSError:
            return b""
    raise AssertionError("still open")


def slow_body(path: str, *, form: bool = False, token: str | None = "chief") -> bytes:
    """The head of a request with a body, and the beginning of the body."""
    kind = "multipart/form-data; boundary=b" if form else "text/plain"
    begun = BOUNDARY + b'"document"; filename="a"\r\n\r\n' if form else b"one.example\n"
    fields = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", "Content-Length: 5000"]
    fields += [] if token is None else [f"Authorization: Bearer {TOKENS[token]}"]
    return "\r\n".join([*fields, "", ""]).encode() + begun


DECISION = "issuer=ministry.example&order_id=B-1&reason=r"
SLOW_BODIES = {
    "approve": slow_body(f"/v1/orders/approve?{DECISION}"),
    "impact": slow_body("/v1/impact?file=x&seconds=1&top=1"),
    "past impact": slow_body("/v1/impact/past?file=x&top=1&days=1"),
    "resend": slow_body("/v1/webhooks/resend?webhook=x"),
    "submit": slow_body("/v1/orders", form=True),
    "check": slow_body("/v1/orders/check", form=True),
}


def at_once(work: dict[str, Callable[[], bytes]]) -> dict[str, bytes]:
    """Does all of it at the same time."""
    found: dict[str, bytes] = {}
    threads = [
        threading.Thread(target=lambda key=key, one=one: found.update({key: one()}))
        for key, one in work.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("listener", ["control", "api"])
def test_a_body_of_one_byte_a_second_gets_408_and_changes_nothing(every: Listeners, listener: str):
    """60 seconds for a body (and more for a large one), on every route that takes one."""
    every.start()
    before, closed = every.facts(), every.closed(listener, "body")
    with ExitStack() as stack:
        connections = {case: stack.enter_context(every.connect(listener)) for case in SLOW_BODIES}
        answers = at_once(
            {
                case: lambda sock=sock, sent=SLOW_BODIES[case]: drip(sock, sent, b"x")
                for case, sock in connections.items()
            }
        )
        for case, answer in answers.items():
            assert status_of(answer) == 408, case
    assert every.refused(listener, "TOO_SLOW") == len(SLOW_BODIES)
    assert every.closed(listener, "body") == closed
    assert every.facts() == before


def test_a_head_of_one_byte_a_second_gets_408_on_every_listener(unchanged: Listeners):
    """10 seconds from its first byte. A request of HTTP/0.9 is a head without an end, too."""
    before = {name: unchanged.closed(name, "head") for name in LISTENERS}
    begun = {"head": b"GET / HTTP/1.1\r\nHost: x\r\nX: ", "0.9": b"GET /"}
    with ExitStack() as stack:
        work = {}
        for name in LISTENERS:
            for case, sent in begun.items():
                sock = stack.enter_context(unchanged.connect(name))
                work[f"{name}, {case}"] = lambda sock=sock, sent=sent: drip(sock, sent, b"x")
        answers = at_once(work)
    assert {key: status_of(answer) for key, answer in answers.items()} == dict.fromkeys(answers, 408)
    assert {name: unchanged.closed(name, "head") for name in LISTENERS} == {
        name: count + 2 for name, count in before.items()
    }


@pytest.mark.parametrize("listener", ["metrics", "control", "api"])
def test_a_body_that_nobody_wants_is_not_read_without_end(unchanged: Listeners, listener: str):
    """The response comes first. Of the body, at most 65 MiB are read; then the connection is closed."""
    before = unchanged.closed(listener, "body")
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent = 0
    with unchanged.connect(listener) as sock:
        sock.sendall(head)
        assert status_of(sock.recv(65536)) == 200
        with suppress(OSError):
            while sent < 1 << 30:
                sock.sendall(chunk)
                sent += len(chunk)
    assert sent < 100 << 20  # with the buffers of the kernel
    assert unchanged.closed(listener, "body") == before + 1


# ------- Crowds


CROWD = 2500


@pytest.mark.parametrize("listener", LISTENERS)
def test_thousands_of_idle_connections_keep_nobody_out(every: Listeners, listener: str):
    """Nothing is sent, or half a head, or half a handshake. The oldest one makes room."""
    every.start()
    halves = [b"", b"GET /metrics HTTP/1.1\r\nHo", b"\x16\x03\x01\x02\x00\x01\x00"]
    with ExitStack() as stack:
        for number in range(CROWD):
            sock = stack.enter_context(every.raw(listener))
            with suppress(OSError):  # closed by now: it made room
                sock.sendall(halves[number % 3])
        path = "/livez" if listener != "console" else "/console/login"
        assert status_of(every.send(listener, get(path))) in (200, 421)
        assert is_sinkholed(every.subject.query(BLOCKED, transport="tcp"))
        assert every.api.submit(block("B-2", ["two.example"])).status_code == 201
        assert is_sinkholed(every.subject.query("two.example"))
    if listener != "landing":  # its own limit is 4,096
        assert every.closed(listener, "full") > 0


def test_a_thousand_requests_for_events_open_eight_streams(every: Listeners):
    """For one client. Each of the others gets 503 BUSY and is counted."""
    every.start()
    request = get("/v1/events", f"Authorization: Bearer {TOKENS['ministry']}")
    with ExitStack() as stack:
        opened = []
        for _ in range(1000):
            sock = every.connect("api")
            sock.sendall(request)
            response = sock.recv(65536)
            if status_of(response) == 200:
                opened.append(stack.enter_context(closing(sock)))
            else:
                assert b'"code":"BUSY"' in response + read_all(sock)
                sock.close()
        assert len(opened) == 8
        assert every.subject.metrics().total("dnsblock_api_streams") == 8
        assert every.refused("api", "BUSY") == 992
        assert every.api.submit(block("B-2", ["two.example"])).status_code == 201
        for sock in opened:
            assert read_until(sock, b"event: accepted")
    assert is_sinkholed(every.subject.query("two.example"))


def read_until(sock: ssl.SSLSocket, wanted: bytes) -> bool:
    data = b""
    while wanted not in data and (chunk := sock.recv(65536)):
        data += chunk
    return wanted in data


def test_a_thousand_sessions_of_one_token_are_ten(every: Listeners):
    """A new session replaces the oldest one. A form that is replayed changes nothing more."""
    every.start()
    body = BOUNDARY + b'"token"\r\n\r\n' + TOKENS["chief"].encode() + b"\r\n--b--\r\n"
    head = (
        f"POST /console/login HTTP/1.1\r\nHost: x\r\nOrigin: https://x\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    ).encode()
    before = every.facts()
    cookies = set()
    with every.connect("console") as sock:
        for _ in range(1000):
            sock.sendall(head + body)
            response = sock.recv(65536)
            assert status_of(response) == 303, response
            cookies.add(response.lower().partition(b"set-cookie: ")[2].partition(b";")[0])
    assert len(cookies) == 1000
    assert every.subject.metrics().total("dnsblock_console_sessions") == 10
    assert every.facts() == before


def test_replayed_requests_change_nothing_more(every: Listeners):
    """An order is the same order a hundred times; a decision that is carried out is refused again."""
    every.start()
    order = block("B-2", ["two.example"])
    assert every.api.submit(order).status_code == 201
    before = every.facts()
    for _ in range(100):
        assert every.api.submit(order).status_code == 200
    assert every.facts() == before
    with every.api.client("chief") as chief:
        annul = f"/v1/orders/annul?{DECISION.replace('B-1', 'B-2')}"
        assert chief.post(annul).status_code == 200
        after = every.facts()
        for _ in range(20):
            assert chief.post(annul).status_code == 409
    assert every.refused("api", "REFUSED") == 20
    assert every.facts() == after
