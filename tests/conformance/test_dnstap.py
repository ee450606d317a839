"""dnstap: each response that a policy decided reaches a real reader, with the policy that decided it."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import wire
from .dnstap import Capture, Event, Policy, printed
from .harness import Subject
from .orders import block
from .policy_zones import chain, rpz, start
from .upstreams import Asked, StubUpstream, decent

MakeCapture = Callable[..., Capture]


@pytest.fixture
def make_capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCapture]:
    """Starts readers. Their sockets have short paths."""
    made: list[Capture] = []

    def make(**options: bool) -> Capture:
        made.append(Capture(tmp_path_factory.mktemp("tap"), **options).start())
        return made[-1]

    yield make
    for capture in made:
        capture.close()


@pytest.fixture
def capture(make_capture: MakeCapture) -> Capture:
    return make_capture()


def collected(subject: Subject, capture: Capture, count: int = 1) -> list[Event]:
    """All events in the order of their queries, once so many are sent and the daemon has ended the stream.

    Each worker thread has a queue of its own. At a stop, a slow reader or writer costs events.
    """
    subject.wait_for_metric("dnsblock_dnstap_frames_total", at_least=count)
    assert subject.stop() == 0
    capture.wait_closed()
    return sorted(capture.end(), key=lambda event: event.queried_at)


def tap(capture: Capture, **options: object) -> dict[str, object]:
    return {"dnstap": capture.options | options}


# ------- One event -------


@pytest.mark.parametrize("over_tcp", [False, True], ids=["unix", "tcp"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("qtype", ["A", "AAAA"])
def test_an_event_has_what_was_asked_and_answered(
    subject: Subject, make_capture: MakeCapture, *, qtype: str, transport: str, family: int, over_tcp: bool
):
    """The response of an order, over a Unix socket and over TCP."""
    capture = make_capture(over_tcp=over_tcp)
    dnstap = capture.options | {"identity": "ns1.example", "version": "dnsblock 0"}
    subject.start(orders=[block("12/2026", ["blocked.example"])], dnstap=dnstap)
    capture.wait_connected()
    began = time.time()
    reply = subject.query("www.blocked.example", qtype, transport=transport, family=family)
    ended = time.time()
    server = (subject.hosts[family], subject.ports[family])
    (event,) = collected(subject, capture)
    assert event.kind == "CLIENT_RESPONSE"
    assert event.raw == reply.raw
    assert event.transport == f"{transport.upper()} {'INET' if family == 4 else 'INET6'}"
    assert event.server == server
    assert event.client == ("127.0.0.0" if family == 4 else "::", 0)
    assert began - 1 <= event.queried_at <= event.responded_at <= ended + 1
    assert (event.dnstap.identity, event.dnstap.version) == (b"ns1.example", b"dnsblock 0")
    assert event.extra == "zone=ministry order=12/2026"
    owner, name = "blocked.example", "www.blocked.example"
    assert event.policy == Policy("ORDERS", owner, "LOCAL_DATA", "QNAME", name)


def test_dig_and_dnstap_ldns_agree(subject: Subject, capture: Capture):
    """Both print the same response."""
    subject.start(orders=[block("1", ["blocked.example"])], **tap(capture, identity="ns1.example"))
    capture.wait_connected()
    dug = subject.dig("blocked.example", "+norecurse", "+nocookie")
    collected(subject, capture)
    shown = printed(capture, "-y")
    assert "type: CLIENT_RESPONSE" in shown
    assert 'identity: "ns1.example"' in shown
    for pattern in (r"blocked\.example\.\s+30\s+IN\s+A\s+192\.0\.2\.53", r"id: \d+"):
        in_dig, in_tap = re.search(pattern, dug), re.search(pattern, shown)
        assert in_dig is not None, dug
        assert in_tap is not None, shown
        assert in_dig[0].split() == in_tap[0].split()
    assert " CR " in printed(capture, "-q")


# ------- Policies -------

RECORDS = [
    "nxdomain.example CNAME .",
    "*.nxdomain.example CNAME .",
    "nodata.example CNAME *.",
    "drop.example CNAME rpz-drop.",
    "truncate.example CNAME rpz-tcp-only.",
    "passthru.example CNAME rpz-passthru.",
    "local.example A 192.0.2.80",
    "cname.example CNAME landing.test.",
    "*.wild.example CNAME .",
    "24.0.2.0.192.rpz-ip CNAME .",
    "48.zz.1.db8.2001.rpz-ip CNAME *.",
]
BY_NAME = {
    "nxdomain.example": ("nxdomain.example", "NXDOMAIN"),
    "www.nxdomain.example": ("*.nxdomain.example", "NXDOMAIN"),
    "nodata.example": ("nodata.example", "NODATA"),
    "truncate.example": ("truncate.example", "TRUNCATE"),
    "passthru.example": ("passthru.example", "PASS"),
    "local.example": ("local.example", "LOCAL_DATA"),
    "cname.example": ("cname.example", "LOCAL_DATA"),
    "a.b.wild.example": ("*.wild.example", "NXDOMAIN"),
}


def policies(events: list[Event]) -> list[tuple[str, Policy | None]]:
    return [(event.kind, event.policy) for event in events]


def test_each_action_of_a_policy_zone_is_reported(subject: Subject, upstream: StubUpstream, capture: Capture):
    """RPZ: the rule is the owner of the record, relative to the zone."""
    start(subject, upstream, rpz(), files={"rpz.zone": RECORDS}, **tap(capture))
    capture.wait_connected()
    for name in BY_NAME:
        subject.query(name)
    subject.query("free.example")
    events = collected(subject, capture, len(BY_NAME))
    expected = [
        ("CLIENT_RESPONSE", Policy("RPZ", rule, action, "QNAME", name))
        for name, (rule, action) in BY_NAME.items()
    ]
    assert sorted(policies(events), key=str) == sorted(expected, key=str)
    assert {event.extra for event in events} == {"zone=rpz"}


def test_a_dropped_query_is_reported_as_a_query(subject: Subject, upstream: StubUpstream, capture: Capture):
    """There is no response; the message is the query itself."""
    start(subject, upstream, rpz(), files={"rpz.zone": RECORDS}, **tap(capture))
    capture.wait_connected()
    asked = wire.query("drop.example")
    with subject.udp() as sock:
        sock.send(asked)
        sock.send(wire.query("nodata.example"))
        sock.recv(65535)
    dropped, answered = collected(subject, capture, 2)
    assert dropped.policy == Policy("RPZ", "drop.example", "DROP", "QNAME", "drop.example")
    assert (dropped.kind, dropped.raw, dropped.message.response_time_sec) == ("CLIENT_QUERY", asked, 0)
    assert answered.policy.action == "NODATA"


def test_a_query_that_is_dropped_for_its_answer_is_reported(
    subject: Subject, upstream: StubUpstream, capture: Capture
):
    """The message is header and question as they were asked."""
    start(subject, upstream, rpz(), files={"rpz.zone": RECORDS}, **tap(capture))
    upstream.script = lambda asked: asked.response(chain("a.example", "drop.example"))
    capture.wait_connected()
    asked = wire.query("a.example")
    with subject.udp() as sock:
        sock.send(asked)
        subject.wait_for_metric("dnsblock_dnstap_frames_total")
    (event,) = collected(subject, capture)
    assert event.policy == Policy("RPZ", "drop.example", "DROP", "QNAME", "drop.example")
    assert (event.kind, event.raw) == ("CLIENT_QUERY", asked)


def addressed(address: str) -> Callable[[Asked], bytes]:
    return lambda asked: asked.address(address) if asked.qtype != wire.QTYPES["NS"] else decent(asked)


@pytest.mark.parametrize(
    ("address", "rule", "action"),
    [
        ("192.0.2.7", "24.0.2.0.192.rpz-ip", "NXDOMAIN"),
        ("2001:db8:1::7", "48.zz.1.db8.2001.rpz-ip", "NODATA"),
    ],
)
def test_a_response_that_is_blocked_for_an_address_is_reported(
    subject: Subject, upstream: StubUpstream, capture: Capture, *, address: str, rule: str, action: str
):
    """RESPONSE_IP: the value is the address in the upstream's response."""
    start(subject, upstream, rpz(), files={"rpz.zone": RECORDS}, **tap(capture))
    upstream.script = addressed(address)
    capture.wait_connected()
    subject.query("any.example", "AAAA" if ":" in address else "A")
    (event,) = collected(subject, capture)
    assert event.policy == Policy("RPZ", rule, action, "RESPONSE_IP", address)


def test_a_list_of_addresses_reports_its_prefix(subject: Subject, upstream: StubUpstream, capture: Capture):
    """The type is LIST; the rule is written as in RPZ."""
    zone = {"name": "nets", "addresses": "nets.txt", "answer": "nodata"}
    start(subject, upstream, zone, files={"nets.txt": "198.51.100.0/24\n"}, **tap(capture))
    capture.wait_connected()
    subject.query("any.example")
    (event,) = collected(subject, capture)
    assert event.policy == Policy("LIST", "24.0.100.51.198.rpz-ip", "NODATA", "RESPONSE_IP", "198.51.100.7")
    assert event.extra == "zone=nets"


def test_the_blocked_name_of_a_chain_is_the_value(subject: Subject, upstream: StubUpstream, capture: Capture):
    """A CNAME chain is blocked by a name that was not asked for; from the cache, too."""
    zone = {"name": "ads", "list": "ads.txt", "answer": "sinkhole"}
    landing = {"name": "gone", "list": "gone.txt", "answer": "landing"}
    answers = {
        "sinkhole": {"action": "sinkhole", "ipv4": ["192.0.2.53"]},
        "landing": {"action": "cname", "target": "landing.test"},
    }
    files = {"ads.txt": "tracker.example\n", "gone.txt": "gone.example\n"}
    start(
        subject, upstream, zone, landing, files=files, answers=answers, cache={"size_mb": 1}, **tap(capture)
    )
    upstream.script = lambda asked: asked.response(
        chain(asked.name, "x.tracker.example" if asked.name == "a.example" else "gone.example")
        if asked.name in ("a.example", "b.example")
        else chain(asked.name)
    )
    capture.wait_connected()
    for _ in range(2):
        assert subject.query("a.example").addresses == ["192.0.2.53"]
        assert subject.query("b.example").answer[0].rtype == wire.QTYPES["CNAME"]
    events = collected(subject, capture, 4)
    blocked = Policy("LIST", "tracker.example", "LOCAL_DATA", "QNAME", "x.tracker.example")
    followed = Policy("LIST", "gone.example", "LOCAL_DATA", "QNAME", "gone.example")
    assert [event.policy for event in events] == [blocked, followed] * 2


def test_refused_has_no_action_in_the_schema(subject: Subject, upstream: StubUpstream, capture: Capture):
    """The rest of the policy is there, and the response has its code."""
    zone = {"name": "list", "list": "list.txt", "answer": "refused"}
    start(subject, upstream, zone, files={"list.txt": "refused.example\n"}, **tap(capture))
    capture.wait_connected()
    subject.query("refused.example")
    (event,) = collected(subject, capture)
    assert event.policy == Policy("LIST", "refused.example", None, "QNAME", "refused.example")
    assert event.dns.rcode == "REFUSED"


# ------- Which messages -------


def test_responses_that_no_policy_decided_are_sent_on_request(
    subject: Subject, upstream: StubUpstream, capture: Capture
):
    """`messages: responses`: all responses, with and without a policy."""
    start(subject, upstream, rpz(), files={"rpz.zone": RECORDS}, **tap(capture, messages="responses"))
    capture.wait_connected()
    replies = [subject.query(name) for name in ("free.example", "nodata.example", "localhost")]
    events = collected(subject, capture, 3)
    assert {event.raw for event in events} == {reply.raw for reply in replies}
    assert [event.policy is None for event in events] == [True, False, True]
    assert {event.kind for event in events} == {"CLIENT_RESPONSE"}


def test_queries_are_sent_on_request(subject: Subject, upstream: StubUpstream, capture: Capture):
    """`messages: all`: each query once, also one that is refused or dropped by a policy."""
    whole = {"client_prefix": {"ipv4": "32", "ipv6": "128"}}
    start(subject, upstream, rpz(), files={"rpz.zone": RECORDS}, **tap(capture, messages="all", **whole))
    capture.wait_connected()
    asked = [wire.query("free.example", edns=wire.opt(options=wire.option(10, b"8 octets")))]
    asked += [wire.query("drop.example"), wire.query("nodata.example", opcode=5)]
    answered = [subject.exchange(asked[0])]
    with subject.udp() as sock:
        client = sock.getsockname()
        sock.send(asked[1])
        sock.send(asked[2])
        answered.append(sock.recv(65535))
    events = collected(subject, capture, 5)
    queries = {event.raw: event for event in events if event.kind == "CLIENT_QUERY"}
    assert sorted(queries) == sorted(asked)
    assert [queries[query].policy is not None for query in asked] == [False, True, False]
    assert [event.raw for event in events if event.kind == "CLIENT_RESPONSE"] == answered
    assert len(events) == 5
    assert queries[asked[1]].client == client


# ------- Clients -------


@pytest.mark.parametrize(
    ("prefix", "source", "shown"),
    [
        ({}, "127.1.2.3", "127.1.2.0"),
        ({"ipv4": "20"}, "127.1.18.3", "127.1.16.0"),
        ({"ipv4": "0"}, "127.1.2.3", "0.0.0.0"),
        ({"ipv4": "32"}, "127.1.2.3", "127.1.2.3"),
    ],
)
def test_the_address_of_a_client_is_truncated(
    subject: Subject, capture: Capture, prefix: dict, source: str, shown: str
):
    """To /24 by default, and then without its port. Whole addresses need an option."""
    subject.start(orders=[block("1", ["blocked.example"])], **tap(capture, client_prefix=prefix))
    capture.wait_connected()
    with subject.udp(source=source) as sock:
        port = sock.getsockname()[1]
        sock.send(wire.query("blocked.example"))
        sock.recv(65535)
    (event,) = collected(subject, capture)
    assert event.client == (shown, port if shown == source else 0)


def test_no_event_identifies_a_client(subject: Subject, upstream: StubUpstream, capture: Capture):
    """Cookies, client subnets and unknown options are removed, and a trigger that is the client's address."""
    records = ["32.66.0.0.127.rpz-client-ip CNAME .", "24.0.1.0.127.rpz-client-ip CNAME *."]
    start(subject, upstream, rpz(), files={"rpz.zone": records}, **tap(capture, messages="all"))
    capture.wait_connected()
    cookie, subnet = b"8 octets", bytes([0, 1, 32, 0, 127, 0, 0, 66])
    options = wire.option(10, cookie) + wire.option(8, subnet) + wire.option(65001, b"mac of the client")
    asked = wire.query("a.example", edns=wire.opt(options=options))
    for source in ("127.0.0.66", "127.0.1.66"):
        with subject.udp(source=source) as sock:
            sock.send(asked)
            reply = wire.read(sock.recv(65535))
            assert dict(reply.options)[10].startswith(cookie)
    events = collected(subject, capture, 4)
    assert [event.kind for event in events] == ["CLIENT_QUERY", "CLIENT_RESPONSE"] * 2
    for event in events:
        frame = event.dnstap.SerializeToString()
        assert cookie not in frame
        assert subnet[4:] not in frame
        assert b"mac of" not in frame
        assert b"\x0266\x010\x010\x03127" not in frame
        assert {code for code, _ in event.dns.options} <= {15}
        assert event.dns.opt is not None
    first, second = (event.policy for event in events if event.kind == "CLIENT_RESPONSE")
    assert first == Policy("RPZ", "", "NXDOMAIN", "CLIENT_IP", "127.0.0.0")
    assert second == Policy("RPZ", "24.0.1.0.127.rpz-client-ip", "NODATA", "CLIENT_IP", "127.0.1.0")


def test_a_rejected_configuration_says_what_to_do(subject: Subject, tmp_path: Path):
    """Both ends, no end, and an address without a port."""
    wrong = {
        "set either socket or tcp": [{"socket": "a", "tcp": "127.0.0.1:1"}, {"messages": "all"}],
        "has no port": [{"tcp": "127.0.0.1"}],
        "must be at most 32": [{"socket": "a", "client_prefix": {"ipv4": "33"}}],
    }
    for reason, several in wrong.items():
        for dnstap in several:
            subject.configure(dnstap=dnstap)
            said = subject.serve_refused()
            assert any(reason in line for line in said.refusal), said.refusal
