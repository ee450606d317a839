"""Queries for names that are not blocked: forwarded safely, and passed on unchanged."""

import socket
import struct
from collections.abc import Callable
from itertools import pairwise

import pytest
from ports import free_port

from . import wire
from .harness import CLOSED_UPSTREAM, TIMEOUT, Subject, is_forwarded, is_sinkholed
from .orders import block
from .tools import wait_for
from .upstreams import Asked, MakeUpstream, StubUpstream, decent, silent

BLOCKED = "blocked.example"
ERRORS = "dnsblock_upstream_errors_total"
QUICK = {"timeout_ms": 500, "tries": 3}
PATIENT = {"timeout_ms": 30_000, "tries": 1}


def start(subject: Subject, *upstreams: StubUpstream | str, **upstream: int) -> None:
    addresses = [one if isinstance(one, str) else one.address for one in upstreams]
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=addresses, upstream=upstream)


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, shared_upstream, **PATIENT)
    return shared_subject


# ------- Spoofing (RFC 5452) -------------------------------------------------------


def test_ids_and_source_ports_cannot_be_guessed(subject: Subject, upstream: StubUpstream):
    """Trap 10, RFC 5452 section 9.2: a random id and port for each query, and never the client's id."""
    start(subject, upstream)
    with subject.udp() as client:
        for number in range(200):
            client.send(wire.query(f"n{number}.example", qid=0x1234))
            assert client.recv(4096)[:2] == b"\x12\x34"
    asked = upstream.queries
    assert len(asked) == 200
    ids = [one.message.qid for one in asked]
    assert len(set(ids)) > 190
    assert ids.count(0x1234) <= 1
    assert sum(abs(a - b) <= 16 for a, b in pairwise(ids)) < 10, "ids are not counted up"
    ports = [one.source[1] for one in asked]
    assert len(set(ports)) > 100
    assert sum(abs(a - b) <= 2 for a, b in pairwise(ports)) < 20, "nor are ports"


def wrong_id(asked: Asked) -> bytes:
    return asked.address("192.0.2.66", qid=asked.message.qid ^ 0x0101)


def wrong_name(asked: Asked) -> bytes:
    return asked.address("192.0.2.66", question=wire.question("other.example"))


def wrong_type(asked: Asked) -> bytes:
    return asked.address("192.0.2.66", question=wire.question("late.example", "AAAA"))


def wrong_class(asked: Asked) -> bytes:
    return asked.address("192.0.2.66", question=wire.question("late.example", "A", 3))


def no_question(asked: Asked) -> bytes:
    return asked.response([wire.address_record("late.example", "192.0.2.66")], question=b"")


def two_questions(asked: Asked) -> bytes:
    forged = bytearray(asked.address("192.0.2.66", question=asked.message.question * 2))
    forged[4:6] = b"\0\2"
    return bytes(forged)


def not_a_response(asked: Asked) -> bytes:
    forged = bytearray(asked.address("192.0.2.66"))
    forged[2] &= 0x7F
    return bytes(forged)


def cut_in_the_question(asked: Asked) -> bytes:
    return asked.address()[:15]


def cut_in_the_header(asked: Asked) -> bytes:
    return asked.address()[:7]


@pytest.mark.parametrize(
    "forge",
    [
        wrong_id,
        wrong_name,
        wrong_type,
        wrong_class,
        no_question,
        two_questions,
        not_a_response,
        cut_in_the_question,
        cut_in_the_header,
    ],
)
def test_a_mismatched_response_is_counted_and_ignored(
    running: Subject, seen: StubUpstream, forge: Callable[[Asked], bytes]
):
    """RFC 5452 section 9.1, trap 10: the right one, which comes after it, is delivered."""
    seen.script = lambda asked: [forge(asked), forge(asked), decent(asked)]
    before = running.metrics().total(ERRORS, reason="mismatch")
    assert is_forwarded(running.query("late.example"))
    assert len(seen.queries) == 1
    running.wait_for_metric(ERRORS, at_least=before + 2, reason="mismatch")


def test_a_response_of_another_address_is_ignored(running: Subject, seen: StubUpstream):
    """Trap 10, RFC 5452 section 9.1: the answer comes from where the question went."""

    def spoof(asked: Asked) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(asked.address("192.0.2.66"), asked.source)
        return decent(asked)

    seen.script = spoof
    assert is_forwarded(running.query("late.example"))


def test_a_late_response_does_not_answer_the_next_query(subject: Subject, upstream: StubUpstream):
    """Trap 10: a response after the timeout belongs to no query."""
    upstream.script = silent
    impatient = {"timeout_ms": 500, "tries": 1}
    subject.start(workers=1, upstreams=[upstream.address], upstream=impatient)
    assert subject.query("same.example").rcode == "SERVFAIL"
    late = upstream.wait_for_query("same.example")

    def answer_late_first(asked: Asked) -> bytes:
        late.reply(late.address("192.0.2.66"))
        return decent(asked)

    upstream.script = answer_late_first

    def is_answered() -> bool:
        reply = subject.query("same.example")
        assert reply.addresses != ["192.0.2.66"]
        return is_forwarded(reply)

    wait_for(is_answered, "the failure is remembered for a second (RFC 9520)")
    for _ in range(20):
        assert is_answered()


def test_the_case_of_the_client_survives_an_upstream_that_folds_it(running: Subject, seen: StubUpstream):
    """Trap 4: names match in any case, and the client gets its own case back (0x20)."""
    seen.script = lambda asked: asked.address(question=asked.message.question.lower())
    mixed = "wWw.FoRwArD.eXaMpLe"
    reply = running.query(mixed)
    assert reply.question == wire.question(mixed)
    assert is_forwarded(reply)


# ------- Upstreams that fail ---------------------------------------------------------


def test_a_query_is_retried_when_an_upstream_is_silent(subject: Subject, make_upstream: MakeUpstream):
    """RFC 1035 section 4.2.1: another upstream, within the time that the client waits."""
    mute, good = make_upstream(silent), make_upstream()
    start(subject, mute, good, **QUICK)
    assert [n for n in range(20) if not is_forwarded(subject.query(f"n{n}.example"))] == []
    assert mute.queries, "the silent one was asked, or the test shows nothing"
    subject.wait_for_metric(ERRORS, reason="timeout", upstream=mute.address)


def test_a_closed_upstream_costs_no_timeout(subject: Subject, upstream: StubUpstream):
    """ICMP port unreachable: the next upstream is queried long before the timeout."""
    closed = f"127.0.0.1:{free_port()}"
    start(subject, closed, upstream, timeout_ms=20000, tries=3)
    assert [n for n in range(20) if not is_forwarded(subject.query(f"n{n}.example"))] == []
    subject.wait_for_metric(ERRORS, reason="network", upstream=closed)


def test_servfail_with_extended_error_22_when_no_upstream_answers(subject: Subject, upstream: StubUpstream):
    """RFC 8914 section 4.23: EDE 22; blocked names are still answered; tries are bounded."""
    upstream.script = silent
    start(subject, upstream, **QUICK)
    reply = subject.query("lost.example", edns=True)
    assert (reply.rcode, list(reply.extended_errors)) == ("SERVFAIL", [22])
    assert reply.flags & 0xFFF0 == wire.QR | wire.RD | wire.RA
    assert len(upstream.asked_for("lost.example")) == QUICK["tries"]
    assert is_sinkholed(subject.query(BLOCKED))
    subject.wait_for_metric("dnsblock_queries_total", outcome="failed")


def test_servfail_comes_at_once_when_every_upstream_is_closed(subject: Subject):
    """RFC 792, RFC 4443: port unreachable ends the wait; no timeout has to pass."""
    start(subject, CLOSED_UPSTREAM, timeout_ms=20000, tries=3)
    assert subject.query("lost.example").rcode == "SERVFAIL"
    assert is_sinkholed(subject.query(BLOCKED))


def test_queries_above_max_outstanding_get_servfail_at_once(subject: Subject, upstream: StubUpstream):
    """Bound every count: outstanding queries continue."""
    upstream.script = silent
    subject.start(upstreams=[upstream.address], workers=1, upstream=PATIENT | {"max_outstanding": 8})
    with subject.udp() as client:
        for number in range(12):
            client.send(wire.query(f"n{number}.example", qid=number))
        over = {wire.read(client.recv(4096)).qid for _ in range(4)}
        assert over == {8, 9, 10, 11}
        for asked in upstream.wait_until(lambda all_asked: len(all_asked) == 8):
            asked.reply(asked.address())
        assert {wire.read(client.recv(4096)).rcode for _ in range(8)} == {"NOERROR"}
    subject.wait_for_metric("dnsblock_queries_total", at_least=4, outcome="overloaded")


def test_a_failure_that_the_upstream_reports_is_passed_on(running: Subject, seen: StubUpstream):
    """Trap 13: SERVFAIL (bogus) and REFUSED stay what they are."""
    for rcode, name in ((2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED")):
        seen.script = lambda asked, rcode=rcode: asked.response(rcode=rcode)
        assert running.query("bogus.example").rcode == name


def test_an_ipv6_upstream_is_used(subject: Subject, make_upstream: MakeUpstream):
    """A resolver may listen on IPv6 only."""
    six = make_upstream(decent, host="::1")
    start(subject, six)
    assert is_forwarded(subject.query("six.example"))
    assert six.queries[0].transport == "udp"


def test_garbage_from_an_upstream_stops_no_response(subject: Subject, upstream: StubUpstream):
    """Hostile until proven otherwise: replies with a true header and question and rubbish behind them."""
    rubbish = [
        b"\xc0\x0c" * 9,
        b"\xff" * 40,
        b"\0" * 40,
        b"\xc0\xff\0\1\0\1\0\0\0\1\xff\xff",
        struct.pack("!BHHIH", 0, 41, 1232, 0, 9) + b"\0",
        wire.opt() * 2,
    ]

    def send_rubbish(asked: Asked) -> bytes:
        number = len(upstream.queries)
        counts = struct.pack("!3H", *((number >> shift) % 3 for shift in (0, 1, 2)))
        head = struct.pack("!HHH", asked.message.qid, wire.QR | wire.RD | wire.RA, 1)
        return head + counts + asked.message.question + rubbish[number % len(rubbish)]

    upstream.script = send_rubbish
    start(subject, upstream, timeout_ms=500, tries=1)
    for number in range(60):
        subject.exchange(wire.query(f"n{number}.example", edns=number % 2 == 0))
    upstream.script = decent
    assert is_forwarded(subject.query("good.example"))
    assert is_sinkholed(subject.query(BLOCKED))


def test_a_response_after_the_block_is_not_passed_on(subject: Subject, upstream: StubUpstream):
    """Trap 11: what returns is judged by the snapshot of now, also when it was asked before."""
    upstream.script = silent
    start(subject, upstream, **PATIENT)
    with subject.udp() as client:
        question = wire.query("soon.example", edns=True)
        client.send(question)
        asked = upstream.wait_for_query("soon.example")
        subject.put_order(block("B-2", ["soon.example"]))
        subject.reload()
        asked.reply(asked.address())
        reply = wire.read(client.recv(4096))
    assert reply.qid == int.from_bytes(question[:2])
    assert is_sinkholed(reply)
    assert reply.extended_errors[16] == "B-2"


def test_a_response_leaves_from_the_queried_address(subject: Subject, upstream: StubUpstream):
    """RFC 2181 section 4.1: a client believes no other; with a wildcard bind the kernel chooses."""
    subject.start(
        orders=[block("B-1", [BLOCKED])], upstreams=[upstream.address], listen=["0.0.0.0:0", "[::]:0"]
    )
    for address in ("127.0.0.1", "127.0.0.9", "127.77.88.99"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(TIMEOUT)
            client.connect((address, subject.ports[4]))
            client.send(wire.query(BLOCKED))
            assert is_sinkholed(wire.read(client.recv(4096)))
            client.send(wire.query("free.example"))
            assert is_forwarded(wire.read(client.recv(4096)))
    assert is_sinkholed(subject.query(BLOCKED, family=6))
    assert is_forwarded(subject.query("free.example", family=6))
