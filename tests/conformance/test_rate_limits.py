"""Rate limits over UDP: spoofed sources gain nothing, and verified clients are not limited."""

import time
from contextlib import ExitStack

import pytest

from . import wire
from .asking import is_forwarded, is_sinkholed
from .harness import Subject
from .orders import block
from .tools import wait_for
from .upstreams import Asked, StubUpstream

BLOCKED = "blocked.example"
CLIENT = b"12345678"
PADDING = 12
SMALL = {"queries_per_second": 5, "errors_per_second": 3, "slip": 2, "amplification": 10, "exempt": []}
ROOMY = {**SMALL, "queries_per_second": 100_000, "errors_per_second": 100_000}
LIMITED = "dnsblock_rate_limited_total"
BATCH = 250  # queries that one socket holds while the daemon has no processor, by the kernel's defaults


def cookie_opt(cookie: bytes) -> bytes:
    return wire.opt(options=wire.option(wire.COOKIE_OPTION, cookie))


def flood(
    subject: Subject, packet: bytes, count: int = 200, source: str | None = None
) -> tuple[list[wire.Reply], float]:
    """The responses to many queries of one client, and the seconds until all were counted."""
    replies, before = [], counted(subject)
    with subject.udp(source=source) as sock:
        began = time.monotonic()
        for number in range(count):
            sock.send(number.to_bytes(2) + packet[2:])
        wait_for(lambda: counted(subject) >= before + count, "each is counted")
        took = time.monotonic() - began
        sock.settimeout(0.3)
        try:
            while True:
                replies.append(wire.read(sock.recv(4096)))
        except TimeoutError:
            pass
    return replies, took


def start(subject: Subject, upstream: StubUpstream | None = None, **limits: object) -> None:
    more = {"upstreams": [upstream.address]} if upstream else {}
    subject.start(orders=[block("B-1", [BLOCKED])], workers=1, limits={**SMALL, **limits}, **more)


# ------- Queries ---------------------------------------------------------------------


def test_above_the_rate_every_second_query_is_truncated_and_others_are_dropped(subject: Subject):
    """RFC 5358 section 4, BIND's RRL: a real client retries over TCP, a victim gets half as much."""
    start(subject)
    replies, took = flood(subject, wire.query(BLOCKED))
    whole = [reply for reply in replies if is_sinkholed(reply)]
    cut = [reply for reply in replies if reply.truncated]
    assert len(whole) + len(cut) == len(replies)
    assert 1 <= len(whole) <= 2 * SMALL["queries_per_second"] * (1 + took)
    assert abs(len(cut) - (200 - len(whole)) / 2) <= 5
    assert all((reply.rcode, reply.answer) == ("NOERROR", ()) for reply in cut)
    metrics = subject.metrics()
    assert metrics.total(LIMITED, answer="truncated") == len(cut)
    assert metrics.total(LIMITED, answer="dropped") == 200 - len(replies)
    assert metrics.total("dnsblock_queries_total", outcome="limited") == 200 - len(whole)


def test_all_worker_threads_share_the_rate_limit_of_a_client(subject: Subject):
    """RFC 5358 section 4: the kernel spreads a client's queries over threads whose clocks differ a little."""
    limits = {**SMALL, "queries_per_second": 100, "slip": 0}
    subject.start(orders=[block("B-1", [BLOCKED])], workers=4, limits=limits)
    with ExitStack() as stack:
        socks = [stack.enter_context(subject.udp()) for _ in range(16)]
        began = time.monotonic()
        for first in range(0, 8000, BATCH):
            for number in range(first, first + BATCH):
                socks[number % len(socks)].send(wire.query(BLOCKED, qid=number))
            wait_for(lambda sent=first + BATCH: counted(subject) == sent, "each is counted")
        seconds = time.monotonic() - began
    answered = subject.metrics().total("dnsblock_queries_total", outcome="blocked")
    assert 100 <= answered <= 1.1 * 100 * (1 + seconds)


def counted(subject: Subject) -> float:
    return subject.metrics().total("dnsblock_queries_total")


def test_forwarded_queries_are_rate_limited_too(subject: Subject, upstream: StubUpstream):
    """And what is limited does not reach the upstream."""
    start(subject, upstream)
    replies, took = flood(subject, wire.query("free.example"))
    forwarded = [reply for reply in replies if is_forwarded(reply)]
    assert len(upstream.queries) <= len(forwarded) <= 2 * SMALL["queries_per_second"] * (1 + took)


def test_above_the_rate_a_client_cookie_gets_badcookie(subject: Subject):
    """RFC 7873 section 5.2.3: BADCOOKIE (23); a real client retries with its cookie, over UDP."""
    start(subject)
    replies, _ = flood(subject, wire.query(BLOCKED, edns=cookie_opt(CLIENT)))
    bad = [reply for reply in replies if reply.rcode == "BADCOOKIE"]
    assert len(bad) >= 80
    assert not any(reply.truncated or reply.answer for reply in bad)
    cookie = dict(bad[-1].options)[wire.COOKIE_OPTION]
    assert (len(cookie), cookie[:8]) == (24, CLIENT)
    assert is_sinkholed(subject.query(BLOCKED, edns=cookie_opt(cookie)))
    assert subject.metrics().total(LIMITED, answer="bad_cookie") == len(bad)


def test_queries_with_a_valid_cookie_are_not_rate_limited(subject: Subject):
    """RFC 7873 section 5.2.4: the address is not forged, so there is nothing to be limited."""
    start(subject)
    cookie = dict(subject.query(BLOCKED, edns=cookie_opt(CLIENT)).options)[wire.COOKIE_OPTION]
    replies, _ = flood(subject, wire.query(BLOCKED, edns=cookie_opt(cookie)))
    assert [is_sinkholed(reply) for reply in replies] == [True] * 200


def test_queries_over_tcp_are_not_rate_limited(subject: Subject):
    """RFC 7766 section 10: a handshake proves the address."""
    start(subject)
    flood(subject, wire.query(BLOCKED), 50)
    with subject.tcp() as stream:
        stream.send(*(wire.query(BLOCKED, qid=number) for number in range(50)))
        assert all(is_sinkholed(stream.reply()) for _ in range(50))


def test_each_client_has_its_own_rate_limit(subject: Subject):
    """RFC 5358 section 4: an IPv4 address is a client."""
    start(subject)
    flood(subject, wire.query(BLOCKED), 100, source="127.0.0.1")
    replies, _ = flood(subject, wire.query(BLOCKED), 1, source="127.0.0.2")
    assert [is_sinkholed(reply) for reply in replies] == [True]


def test_a_client_below_the_rate_is_answered_again(subject: Subject):
    """A limit is a rate and no ban."""
    start(subject)
    flood(subject, wire.query(BLOCKED), 100)
    wait_for(lambda: is_sinkholed_now(subject), "the rate allows a query again")


def is_sinkholed_now(subject: Subject) -> bool:
    replies, _ = flood(subject, wire.query(BLOCKED), 1)
    return any(is_sinkholed(reply) for reply in replies)


def test_slip_1_answers_every_query(subject: Subject):
    """BIND's RRL: slip 1 answers each with TC=1."""
    start(subject, slip=1)
    replies, _ = flood(subject, wire.query(BLOCKED))
    assert len(replies) == 200


@pytest.mark.parametrize("exempt", [None, ["127.0.0.1/32"]])
def test_exempt_networks_are_not_rate_limited(subject: Subject, exempt: list[str] | None):
    """A resolver or a monitor of one's own; this machine, where nothing else is said."""
    limits = {**SMALL, "exempt": exempt}
    if exempt is None:
        del limits["exempt"]
    subject.start(orders=[block("B-1", [BLOCKED])], workers=1, limits=limits)
    replies, _ = flood(subject, wire.query(BLOCKED))
    assert [is_sinkholed(reply) for reply in replies] == [True] * 200


# ------- Errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (wire.query(BLOCKED, flags=wire.TC), "FORMERR"),
        (wire.query(BLOCKED, opcode=6), "NOTIMP"),
        (wire.query(BLOCKED, edns=wire.opt(version=1)), "BADVERS"),
        (wire.query("version.bind", "TXT", qclass=3), "REFUSED"),
    ],
    ids=["FORMERR", "NOTIMP", "BADVERS", "REFUSED"],
)
def test_errors_above_their_rate_are_dropped(subject: Subject, packet: bytes, rcode: str):
    """Trap 0: whatever is wrong with a query, its source may be forged."""
    start(subject, queries_per_second=100_000)
    replies, took = flood(subject, packet)
    assert {reply.rcode for reply in replies} == {rcode}
    assert len(replies) <= 2 * SMALL["errors_per_second"] * (1 + took)
    assert is_sinkholed(subject.query(BLOCKED)), "and good queries have a rate of their own"


def test_refused_responses_are_rate_limited(subject: Subject):
    """Trap 0, RFC 8914 section 4.19: a denied address may be the victim of a reflection."""
    limits = {**SMALL, "queries_per_second": 100_000}
    subject.start(limits=limits, access_control={"allow": ["127.9.9.0/24"]}, workers=1)
    replies, took = flood(subject, wire.query(BLOCKED))
    assert len(replies) <= 2 * SMALL["errors_per_second"] * (1 + took)


# ------- Amplification ------------------------------------------------------------------


def texts(asked: Asked) -> bytes:
    """About 900 bytes."""
    record = wire.record(b"\xc0\x0c", "TXT", b"\xc8" + b"x" * 200)
    return asked.response([record[:-1] + bytes([65 + number]) for number in range(4)])


def test_no_response_is_larger_than_ten_times_the_query(subject: Subject, upstream: StubUpstream):
    """Trap 5, RFC 5358 section 3: what does not fit is TC=1, and whole over TCP."""
    upstream.script = texts
    start(subject, upstream, **ROOMY)
    packet = wire.query("free.example", "TXT", edns=wire.opt(4096))
    reply = wire.read(subject.exchange(packet))
    assert (reply.truncated, reply.answer) == (True, ())
    assert len(reply.raw) <= 10 * len(packet)
    assert len(subject.query("free.example", "TXT", edns=True, transport="tcp").answer) == 4


def test_a_padded_query_gets_the_complete_response(subject: Subject, upstream: StubUpstream):
    """RFC 7830 section 3: padding costs the sender what the answer costs us."""
    upstream.script = texts
    start(subject, upstream, **ROOMY)
    padded = wire.opt(4096, options=wire.option(PADDING, b"\0" * 100))
    assert len(subject.query("free.example", "TXT", edns=padded).answer) == 4


def test_a_valid_cookie_gets_the_complete_response(subject: Subject, upstream: StubUpstream):
    """RFC 7873 section 5.2.4."""
    upstream.script = texts
    start(subject, upstream, **ROOMY)
    cookie = dict(subject.query(BLOCKED, edns=cookie_opt(CLIENT)).options)[wire.COOKIE_OPTION]
    assert subject.query("free.example", "TXT", edns=cookie_opt(CLIENT)).truncated
    assert len(subject.query("free.example", "TXT", edns=cookie_opt(cookie)).answer) == 4


def test_the_text_of_an_extended_error_is_dropped_before_the_answer(subject: Subject):
    """Trap 5, RFC 8914 section 3: the number of the order is for people; the address is the answer."""
    subject.start(orders=[block("N" * 100, [BLOCKED])], limits={**ROOMY, "amplification": 3})
    reply = subject.query(BLOCKED, edns=True)
    assert is_sinkholed(reply)
    assert reply.extended_errors == {4: "", 16: ""}
    assert subject.query(BLOCKED, edns=True, transport="tcp").extended_errors[16] == "N" * 100
