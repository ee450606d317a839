"""Failures are cached for a moment, so that retrying clients cost nothing (RFC 9520)."""

import socket
import time

import pytest

from . import wire
from .asking import is_forwarded, is_sinkholed
from .harness import ORDERS_ZONE, Subject
from .orders import block
from .tools import wait_for
from .upstreams import StubUpstream, decent, silent

LOST, BLOCKED = "lost.example", "blocked.example"
QUICK = {"timeout_ms": 400, "tries": 2}


def start(subject: Subject, upstream: StubUpstream) -> None:
    upstream.script = silent
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=[upstream.address], upstream=QUICK)


def ask(sock: socket.socket, name: str = LOST) -> wire.Reply:
    """Over one socket, which is one flow and one worker thread: each remembers its own failures."""
    sock.send(wire.query(name, edns=True))
    return wire.read(sock.recv(4096))


def test_a_failed_question_is_not_queried_again_for_a_second(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 3.2: at least one second; RFC 8914 section 4.14: 13 is Cached Error."""
    start(subject, upstream)
    with subject.udp() as sock:
        assert list(ask(sock).extended_errors) == [22]
        until = time.monotonic() + 0.8
        asked, replies = len(upstream.queries), []
        while time.monotonic() < until:
            replies.append(ask(sock, LOST if len(replies) % 2 else LOST.upper()))
            if time.monotonic() > until:
                replies.pop()  # a slow machine: this one may have come too late
    assert {(reply.rcode, *reply.extended_errors) for reply in replies} == {("SERVFAIL", 13)}
    assert len(upstream.queries) <= asked + QUICK["tries"]


def test_a_retry_storm_costs_each_worker_thread_one_query_a_second(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 1: a storm of retries is what a failure makes of its clients."""
    start(subject, upstream)
    began = time.monotonic()
    for transport in ("udp", "tcp") * 10:
        assert subject.query(LOST, transport=transport).rcode == "SERVFAIL"
    seconds, workers = time.monotonic() - began, 2
    assert len(upstream.queries) <= (1 + seconds) * workers * QUICK["tries"]


def test_the_failure_is_forgotten_after_a_second(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 3.2: and never longer than five minutes; an upstream that is back is used."""
    start(subject, upstream)
    with subject.udp() as sock:
        began = time.monotonic()
        assert ask(sock).rcode == "SERVFAIL"
        upstream.script = decent
        wait_for(lambda: is_forwarded(ask(sock)), "it is asked again")
    tries = QUICK["timeout_ms"] * QUICK["tries"] / 1000  # it cannot have failed before
    assert time.monotonic() - began >= tries + 0.8


@pytest.mark.parametrize(
    ("name", "qtype", "flags"),
    [(LOST, "AAAA", wire.RD), (f"www.{LOST}", "A", wire.RD), ("example", "A", wire.RD)],
)
def test_a_failure_is_remembered_for_its_question_only(
    subject: Subject, upstream: StubUpstream, name: str, qtype: str, flags: int
):
    """RFC 9520 section 3.2: the failure is of the name, type and class that was asked."""
    start(subject, upstream)
    assert subject.query(LOST).rcode == "SERVFAIL"
    upstream.script = decent
    assert subject.query(name, qtype, flags=flags).rcode == "NOERROR"


def test_a_servfail_of_the_upstream_is_passed_on_each_time(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 2: the upstream answered; its SERVFAIL and its next answer are passed on."""
    start(subject, upstream)
    upstream.script = lambda asked: asked.response(rcode=2)
    assert subject.query(LOST).rcode == "SERVFAIL"
    upstream.script = decent
    assert is_forwarded(subject.query(LOST))


def test_a_block_applies_to_a_remembered_failure(subject: Subject, upstream: StubUpstream):
    """Trap 11: the policy is asked before what is remembered."""
    start(subject, upstream)
    assert subject.query(LOST).rcode == "SERVFAIL"
    subject.put_order(block("B-2", [LOST]))
    subject.reload()
    assert is_sinkholed(subject.query(LOST))


def test_a_failed_lookup_of_a_landing_page_is_remembered_too(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 3.2: a blocked name is answered at once, by its CNAME alone, during an outage."""
    upstream.script = silent
    subject.start(
        zones=[{**ORDERS_ZONE, "answer": "landing"}],
        answers={"landing": {"action": "cname", "target": "landing.example"}},
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        upstream=QUICK,
        workers=1,
    )
    began = time.monotonic()
    for number in range(20):
        reply = subject.query(f"n{number}.{BLOCKED}")
        assert (reply.rcode, reply.target, len(reply.answer)) == ("NOERROR", "landing.example.", 1)
    assert len(upstream.queries) <= (2 + time.monotonic() - began) * QUICK["tries"]


def test_remembered_failures_are_bounded(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 3.2, and a bound on every size: many failures, and the answers go on."""
    start(subject, upstream)
    with subject.udp() as sock:
        for batch in range(20):
            for number in range(100):
                sock.send(wire.query(f"n{batch}-{number}.{LOST}", qid=number))
            for _ in range(100):
                assert wire.read(sock.recv(4096)).rcode == "SERVFAIL"
    assert is_sinkholed(subject.query(BLOCKED))
