"""The issuers' API: reading orders and following events. Each client sees only its own issuers."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .asking import TIMEOUT
from .harness import ISSUER
from .issuing import CLIENTS, COURT, TOKENS, IssuersApi, by_token, problem
from .orders import block, in_seconds, stamp, unblock
from .tools import wait_for


@pytest.fixture
def started(api: IssuersApi) -> IssuersApi:
    """With one order of each of two issuers."""
    api.start()
    assert api.submit(block("84/2017", ["one.example", "two.example"])).status_code == 201
    assert api.submit(block("84/2017", ["court.example"], issuer=COURT), token="court").status_code == 201
    return api


# ------- Receipts


def test_a_client_gets_only_so_many_receipts_an_hour(started: IssuersApi):
    """Each is a record: a client that may only read must not fill the disk. Others are not affected."""
    path = f"/v1/orders/{ISSUER}/84%2F2017/receipt"
    with closing(started.client("ministry")) as client:
        for _ in range(300):
            assert client.get(path).status_code == 200
        refused = client.get(path)
    assert "300 receipts an hour" in problem(refused, 503, "BUSY")["detail"]
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert started.get(f"/v1/orders/{ISSUER}/84%2F2017").status_code == 200
    assert started.get(f"/v1/orders/{COURT}/84%2F2017/receipt", "court").status_code == 200


# ------- Orders


def test_each_client_sees_only_the_orders_of_its_issuers(started: IssuersApi):
    """An order of another issuer does not exist: 404, not 403, so that nobody can guess numbers."""
    for token, issuer, other in (("ministry", ISSUER, COURT), ("court", COURT, ISSUER)):
        listed = started.get("/v1/orders", token).json()
        assert [(one["issuer"], one["order_id"]) for one in listed["orders"]] == [(issuer, "84/2017")]
        assert listed["total"] == 1
        assert started.get(f"/v1/orders?issuer={other}", token).json()["orders"] == []
        own = started.get(f"/v1/orders/{issuer}/84%2F2017", token)
        assert (own.status_code, own.json()["issuer"]) == (200, issuer)
        foreign = started.get(f"/v1/orders/{other}/84%2F2017", token)
        missing = started.get(f"/v1/orders/{other}/none", token)
        hidden, expected = (problem(one, 404, "NOT_FOUND") for one in (foreign, missing))
        assert hidden == expected | {"detail": expected["detail"].replace("none", "84/2017")}
    text = started.get("/v1/orders", "ministry").text + started.get(f"/v1/orders/{ISSUER}/84%2F2017").text
    assert "court" not in text


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/orders/{ISSUER}/84/2017",
        f"/v1/orders/{ISSUER}/84%252F2017",
        f"/v1/orders/{ISSUER}%2F84%2F2017",
        f"/v1/orders/{ISSUER}/84%2F2017/",
        "/v1/orders//84%2F2017",
        f"/v1/orders/{ISSUER}/",
        f"/v1/orders/{ISSUER}/%2E%2E%2F%2E%2E%2Fstatus",
        f"/v1/orders/{ISSUER}/84%2f2017%00",
    ],
)
def test_a_number_is_one_percent_encoded_segment(started: IssuersApi, path: str):
    """RFC 3986, section 2.1: only %2F is a slash of the number, in either case."""
    assert started.get(f"/v1/orders/{ISSUER}/84%2f2017").status_code == 200
    problem(started.get(path), 404, "NOT_FOUND")


def test_a_path_that_is_not_utf_8_is_refused(started: IssuersApi):
    """400, not an internal error."""
    problem(started.get(f"/v1/orders/{ISSUER}/%ff"), 400, "MALFORMED")


def test_an_order_has_its_facts(started: IssuersApi):
    """When it was received and enforced, what is in force, and what each name gets."""
    order = started.get(f"/v1/orders/{ISSUER}/84%2F2017").json()
    assert (order["state"], order["in_force"], order["entries"]) == ("active", 2, 2)
    assert order["received_at"] <= order["enforced_at"]
    assert order["verified_at"] is None
    assert [one["name"] for one in order["names"]] == ["one.example", "two.example"]
    assert order["names"][0]["answer"]["action"] == "sinkhole"
    assert started.get(f"/v1/orders/{ISSUER}/84%2F2017?entries=all").json() == order
    problem(started.get(f"/v1/orders/{ISSUER}/84%2F2017?entries=x"), 422, "INVALID")
    started.submit(unblock("U-1", "84/2017", ["one.example"]))
    order = started.get(f"/v1/orders/{ISSUER}/84%2F2017").json()
    assert (order["state"], order["in_force"]) == ("partially lifted", 1)
    assert [one["ended_by"] for one in order["names"]] == ["U-1", None]


def test_orders_are_listed_in_pages(api: IssuersApi):
    """The last ones by default; `offset` counts from the first."""
    api.start()
    api.submit(*(block(f"B-{number}", [f"n{number}.example"]) for number in range(7)))
    api.submit(unblock("U-1", "B-3"))

    def ids(query: str) -> tuple[list[str], int, int]:
        page = api.get(f"/v1/orders?{query}").json()
        return [one["order_id"] for one in page["orders"]], page["offset"], page["total"]

    assert ids("limit=3") == (["B-5", "B-6", "U-1"], 5, 8)
    assert ids("limit=3&offset=0") == (["B-0", "B-1", "B-2"], 0, 8)
    assert ids("limit=3&offset=9") == ([], 9, 8)
    assert ids("state=lifted") == (["B-3"], 0, 1)
    for query in ("limit=0", "limit=10001", "limit=x", "offset=-1", "state=lift", f"issuer={'x' * 64}"):
        problem(api.get(f"/v1/orders?{query}"), 422, "INVALID")


def test_the_control_socket_serves_the_same_orders_of_all_issuers(started: IssuersApi):
    """One set of handlers: `dnsblock order show` prints the same, and the count that issuers do not see."""
    control = started.subject.control
    own = started.get(f"/v1/orders/{ISSUER}/84%2F2017").json()
    assert {**control.order(ISSUER, "84/2017"), "blocked_queries": None} == own
    assert control.order(COURT, "84/2017")["issuer"] == COURT


def test_log_show_names_the_client_that_sent_an_order(started: IssuersApi):
    """Several clients may push the orders of one issuer."""
    said = started.subject.cli("log show", "--order", "84/2017", "--issuer", COURT, as_json=False).stdout
    received = next(line for line in said.splitlines() if " received " in line)
    assert received.split()[5:8] == ["court", COURT, "84/2017"]


SEGMENTS = st.sampled_from(
    [
        *("v1", "orders", "events", "receipt", ISSUER, COURT, "84%2F2017", "84%2f2017", "status", "annul"),
        *(
            "",
            ".",
            "..",
            "%",
            "%2",
            "%00",
            "%ff",
            "%2F",
            "%E2%80%AE",
            "x" * 300,
            "*",
            ";a=b",
            "last",
            "check",
        ),
    ]
)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(["issuer", "number", "state", "limit", "offset", "entries", "after", "x"]),
        st.sampled_from(["", "0", "1", "-1", "all", "first", ISSUER, COURT, "9" * 30, "1e3", "\0", "\u0661"])
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    ),
    max_size=3,
)


@settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "x"]),
    st.lists(SEGMENTS, max_size=5),
    QUERIES,
    st.sampled_from([None, "", "0", "1", "-1", "x", "9" * 15, "9" * 400]),
)
def test_no_request_fails_or_shows_another_issuer(
    started: IssuersApi, method: str, path: list[str], query: list[tuple[str, str]], last: str | None
):
    """Whatever is asked: an answer or a problem, never a fault, and never an order of somebody else."""
    with closing(started.connection()) as connection:
        headers = {"Authorization": f"Bearer {TOKENS['ministry']}"}
        headers |= {} if last is None else {"Last-Event-ID": last}
        connection.request(method, f"/v1/{'/'.join(path)}?{urlencode(query)}", headers=headers)
        response = connection.getresponse()
        assert response.status < 500
        if response.headers["content-type"].startswith("application/"):
            text = response.read().decode()
            assert response.status >= 400 or COURT not in text


# ------- Events


@dataclass
class Stream:
    """A stream of server-sent events."""

    response: httpx.Response
    lines: Iterator[str]

    def next(self) -> dict:
        """The next event; heartbeats are skipped."""
        event: dict = {}
        for line in self.lines:
            key, _, value = line.partition(": ")
            if not line and "data" in event:
                return {**event, "data": json.loads(event["data"])}
            if key:
                event[key] = value
        raise AssertionError("the stream has ended")

    def kinds(self, count: int) -> list[tuple[str, str]]:
        return [(one["event"], one["data"]["order_id"]) for one in (self.next() for _ in range(count))]


@contextmanager
def following(
    api: IssuersApi, token: str = "ministry", query: str = "", last: str | None = None
) -> Iterator[Stream]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with api.client(token) as client, client.stream("GET", f"/v1/events{query}", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response, response.iter_lines())


def test_events_follow_the_ledger(started: IssuersApi):
    """New events by default; each is a record of the ledger, and its id is the number of the record."""
    with following(started) as stream:
        assert next(stream.lines).startswith("retry: ")
        started.submit(block("B-2", ["later.example"]))
        assert stream.kinds(3) == [("received", "B-2"), ("accepted", "B-2"), ("activated", "B-2")]
        started.submit(unblock("U-2", "B-2"))
        received = stream.next()
    assert received["data"]["action"] == "unblock"
    assert received["data"]["by"] == {"kind": "issuer", "client": "ministry"}
    record = (
        (started.subject.folder / "state" / "ledger.jsonl").read_text().splitlines()[int(received["id"]) - 1]
    )
    assert json.loads(record)["order_id"] == "U-2"
    assert json.loads(record)["n"] == received["data"]["n"] == int(received["id"])


def test_events_of_another_issuer_are_not_sent(started: IssuersApi):
    """Neither old ones nor new ones."""
    with following(started, "court", "?after=0") as stream:
        started.submit(block("B-2", ["later.example"]))
        started.submit(block("C-2", ["more.example"], issuer=COURT), token="court")
        seen = [stream.next()["data"] for _ in range(6)]
    assert {one["issuer"] for one in seen} == {COURT}
    assert [one["order_id"] for one in seen] == ["84/2017"] * 3 + ["C-2"] * 3


def test_a_stream_is_resumed_without_a_gap_and_without_a_repetition(started: IssuersApi):
    """`Last-Event-ID`, as every client of server-sent events sends it; over a restart, too."""
    with following(started, query="?after=0") as stream:
        first, second = stream.next(), stream.next()
    started.submit(block("B-2", ["later.example"]))
    started.subject.restart()
    with following(started, last=second["id"], query="?after=0") as stream:
        assert stream.kinds(4) == [
            ("activated", "84/2017"),
            *(("received", "B-2"), ("accepted", "B-2"), ("activated", "B-2")),
        ]
    assert int(first["id"]) < int(second["id"])


@pytest.mark.parametrize(
    ("last", "status", "code"),
    [
        ("x", 400, "MALFORMED"),
        ("-1", 400, "MALFORMED"),
        ("9" * 15, 409, "UNKNOWN_EVENT"),
        ("9" * 16, 400, "MALFORMED"),
    ],
)
def test_an_unknown_event_is_refused(started: IssuersApi, last: str, status: int, code: str):
    """A client of a ledger that is gone must not wait for an event that never comes."""
    with started.client("ministry") as client:
        problem(client.get("/v1/events", headers={"Last-Event-ID": last}), status, code)
        problem(client.get("/v1/events?after=-1"), 422, "INVALID")


def test_a_scheduled_order_sends_its_event_at_its_time(started: IssuersApi):
    """Without any request: the clock causes it."""
    with following(started) as stream:
        started.submit(block("B-2", ["later.example"], effective_at=stamp(in_seconds(3))))
        assert stream.kinds(3)[-1] == ("activated", "B-2")


def test_a_client_has_a_limited_number_of_streams(started: IssuersApi):
    """503 with Retry-After; a stream that ends makes room, and other clients are not affected."""
    streams = [following(started) for _ in range(8)]
    opened = [stream.__enter__() for stream in streams]
    try:
        assert [next(stream.lines)[:5] for stream in opened] == ["retry"] * 8
        assert started.subject.metrics().total("dnsblock_api_streams") == 8
        refused = started.get("/v1/events")
        problem(refused, 503, "BUSY")
        assert refused.headers["retry-after"]
        with following(started, "court", "?after=0") as other:
            assert other.next()["data"]["issuer"] == COURT
        assert started.submit(block("B-2", ["later.example"])).status_code == 201
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
    wait_for(lambda: started.subject.metrics().total("dnsblock_api_streams") == 0, "the streams end")
    with following(started, query="?after=0") as stream:
        assert stream.next()["data"]["order_id"] == "84/2017"


def test_a_slow_reader_is_dropped_and_can_resume(api: IssuersApi):
    """A client that stops reading is closed, uses no memory, and gets everything when it returns."""
    api.start()
    with closing(raw_stream(api)) as client:
        for number in range(6):  # more events than the buffers of both sides hold
            orders = (block(f"B-{number}-{one}-{'x' * 150}", ["a.example"]) for one in range(100))
            assert api.submit(*orders).status_code == 201
        wait_for(lambda: api.closed("write") == 1, "the slow reader is closed")
        assert b"retry:" in client.recv(65536) + client.recv(65536)
    total = api.get("/v1/orders").json()["total"]
    with following(api, query="?after=0") as stream:
        seen = [stream.next()["data"]["order_id"] for _ in range(total * 3)]
    assert len(set(seen)) == total


def raw_stream(api: IssuersApi) -> ssl.SSLSocket:
    """A client with a small receive buffer that asks for events and then reads nothing."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(TIMEOUT)
    raw.connect(api.address)
    client = api.tls().wrap_socket(raw, server_hostname="127.0.0.1")
    request = (
        f"GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['ministry']}\r\n\r\n"
    )
    client.sendall(request.encode())
    return client


def test_a_reload_of_the_credentials_ends_streams(started: IssuersApi):
    """A client whose token is revoked follows no more; the others resume."""
    started.know([*CLIENTS, by_token("old")])
    started.subject.reload()
    with following(started, "old") as revoked, following(started, "ministry", "?after=0") as kept:
        last = kept.next()["id"]
        started.know(CLIENTS)
        started.subject.reload()
        assert not [line for line in revoked.lines if line.startswith("data")]
        assert list(kept.lines), "this one has sent what it had, and ends, too"
    problem(started.get("/v1/events", token="old"), 401, "UNAUTHENTICATED")
    with following(started, last=last) as resumed:
        assert resumed.next()["id"] > last


def test_the_daemon_stops_while_clients_follow(started: IssuersApi):
    """Streams end at once: an upgrade must not wait for them."""
    with following(started) as stream:
        next(stream.lines)
        assert started.subject.stop() == 0
        assert not [line for line in stream.lines if line.startswith("data")]
    errors = [line for line in started.subject.stderr().splitlines() if '"error"' in line]
    assert errors == []
