"""What is about to expire and is asked for is refreshed in the background (trap 16)."""

import time

import pytest

from . import wire
from .asking import is_sinkholed
from .caching import (
    NAME,
    SLACK,
    again_and_again,
    gives,
    is_stale,
    number_of,
    numbered,
    says,
    set_cache,
    start,
    timed,
)
from .harness import Subject
from .orders import block, unblock
from .tools import wait_for
from .upstreams import Script, StubUpstream, silent

PREFETCH = {"prefetch": True}
PATIENT = {"timeout_ms": 5000, "tries": 1}
TTL = 4  # the last tenth of it is long enough for a busy machine to ask in


def begin(subject: Subject, upstream: StubUpstream, /, script: Script, **config: object) -> None:
    upstream.script = script
    start(subject, upstream, **{"cache": PREFETCH, "upstream": PATIENT, "workers": 4} | config)


def test_what_is_asked_for_in_its_last_tenth_is_refreshed(subject: Subject, upstream: StubUpstream):
    """RFC 1035 section 3.2.1 allows it at any time; so nobody who asks for a popular name ever waits."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    for again in again_and_again(lambda: timed(subject)):
        assert again.seconds < 1, "no client waits for the upstream"
        if number_of(again.reply) == 2:
            break
        assert again.sent_at < first.got_at + TTL + SLACK
    refreshed = upstream.count(NAME)
    assert refreshed == 2, "by one question"
    assert first.sent_at + TTL * 0.9 - SLACK <= again.got_at <= first.got_at + TTL + SLACK
    wait_for(lambda: subject.metrics().total("dnsblock_cache_prefetches_total") == 1, "it is counted")
    assert subject.metrics().total("dnsblock_queries_total", outcome="forwarded") == 1


def test_who_causes_the_refreshing_gets_the_kept_answer_at_once(subject: Subject, upstream: StubUpstream):
    """Trap 16: however slow the upstream is, until the kept answer has ended."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    upstream.script = silent
    waits = []
    for again in again_and_again(lambda: timed(subject)):
        assert number_of(again.reply) == 1
        waits.append(again.seconds)
        if again.got_at > first.sent_at + TTL - SLACK:
            break
    assert max(waits) < 1
    assert upstream.count(NAME) == 2, "asked once more, and once only, by however many clients"
    upstream.asked_for(NAME)[1].reply(gives("192.0.2.9")(upstream.asked_for(NAME)[1]))
    wait_for(lambda: subject.query(NAME).addresses == ["192.0.2.9"], "the fresh answer")
    assert upstream.count(NAME) == 2


def test_the_fresh_answer_has_a_whole_life_of_its_own(subject: Subject, upstream: StubUpstream):
    """RFC 2181 section 5.4.1: its TTL counts from when it came."""
    begin(subject, upstream, numbered(TTL))
    subject.query(NAME)
    upstream.script = gives("192.0.2.9", ttl=300)
    wait_for(lambda: subject.query(NAME).addresses == ["192.0.2.9"], "the fresh answer")
    assert 299 <= max(subject.query(NAME).ttls) <= 300
    assert upstream.count(NAME) == 2


@pytest.mark.parametrize(
    ("flags", "edns", "qtype"),
    [
        (wire.RD | wire.CD, wire.opt(do=True), "A"),
        (wire.RD, wire.opt(flags=wire.DE), "AAAA"),
        (0, True, "TXT"),
    ],
    ids=["DO, CD", "DE", "not RD"],
)
def test_the_same_question_is_asked_again(
    subject: Subject, upstream: StubUpstream, flags: int, edns: bytes | bool, qtype: str
):
    """RFC 4035 section 3.2: with the flags that the kept answer was asked with; and with an id of its own."""
    begin(subject, upstream, numbered(2))
    wait_for(
        lambda: number_of(subject.query(NAME, qtype, flags=flags, edns=edns)) >= 2,
        "it is refreshed",
        timeout=60,
    )
    first, second = upstream.asked_for(NAME)[:2]
    assert (first.message.flags, first.qtype) == (second.message.flags, second.qtype)
    assert first.message.opt.ttl == second.message.opt.ttl
    assert first.name.lower() == second.name.lower()
    assert first.message.options == second.message.options == []
    assert (first.message.qid, first.source) != (second.message.qid, second.source)


def test_what_nobody_asks_for_is_not_refreshed(subject: Subject, upstream: StubUpstream):
    """Trap 16: a name that was asked for once is no load for the upstream for ever."""
    begin(subject, upstream, numbered(1))
    subject.query("forgotten.example")
    wait_for(lambda: number_of(subject.query(NAME)) >= 5, "the time of several lives is over")
    assert upstream.count("forgotten.example") == 1


def test_what_is_asked_for_earlier_is_not_refreshed(subject: Subject, upstream: StubUpstream):
    """Trap 16: the last tenth alone, else a popular name would be asked for all the time."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    for again in again_and_again(lambda: timed(subject)):
        if again.got_at > first.sent_at + TTL * 0.9 - SLACK:
            break
        assert upstream.count(NAME) == 1
    assert first.got_at < again.sent_at


def test_refreshing_can_be_switched_off(subject: Subject, upstream: StubUpstream):
    """`prefetch: false`: nothing is asked before its end; and a reload switches it on and off."""
    begin(subject, upstream, numbered(2))
    set_cache(subject, upstream, cache={"prefetch": False}, upstream=PATIENT, workers=1)
    first = timed(subject)
    number = number_of(first.reply)
    for again in again_and_again(lambda: timed(subject)):
        if number_of(again.reply) != number:
            break
    assert again.got_at >= first.sent_at + 2 - SLACK
    assert subject.metrics().total("dnsblock_cache_prefetches_total") == 0
    set_cache(subject, upstream, cache=PREFETCH, upstream=PATIENT, workers=1)
    for _ in again_and_again(lambda: timed(subject)):
        if subject.metrics().total("dnsblock_cache_prefetches_total") >= 1:
            break


@pytest.mark.parametrize("rcode", [2, 5], ids=["SERVFAIL", "REFUSED"])
def test_a_refreshing_that_fails_leaves_the_kept_answer(subject: Subject, upstream: StubUpstream, rcode: int):
    """RFC 8767 section 4: a failure takes nothing away that is still true; it is told when that has ended."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    upstream.script = says(rcode=rcode)
    for again in again_and_again(lambda: timed(subject, edns=True)):
        if again.reply.rcode != "NOERROR":
            break
        assert number_of(again.reply) == 1
        assert not is_stale(again.reply)
    assert again.got_at >= first.sent_at + TTL - SLACK


def test_that_it_is_gone_takes_the_place_of_the_kept_answer(subject: Subject, upstream: StubUpstream):
    """RFC 2181 section 5.4.1: the newer answer is the one that counts, also a negative one without SOA."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    upstream.script = says(rcode=3)
    wait_for(lambda: subject.query(NAME).rcode == "NXDOMAIN", "it is gone")
    assert time.monotonic() < first.got_at + TTL + 1


# ------- Policy -----------------------------------------------------------------------------------


def test_what_is_blocked_is_not_refreshed(subject: Subject, upstream: StubUpstream):
    """Trap 11: a blocked name never reaches the upstream, and what is kept of it is left to die."""
    begin(subject, upstream, numbered(2))
    subject.query(NAME)
    subject.put_order(block("B-1", [NAME]))
    subject.reload()
    asked = upstream.count(NAME)
    until = time.monotonic() + 2.5
    for again in again_and_again(lambda: timed(subject)):
        assert is_sinkholed(again.reply)
        if again.sent_at > until:
            break
    assert upstream.count(NAME) == asked


def test_a_refreshing_under_way_opens_no_block_that_came_meanwhile(subject: Subject, upstream: StubUpstream):
    """Trap 11: its answer is nobody's; after the lifting it may be used."""
    begin(subject, upstream, numbered(TTL))
    subject.query(NAME)
    upstream.script = silent
    for _ in again_and_again(lambda: timed(subject)):
        if upstream.count(NAME) == 2:
            break
    asked = upstream.asked_for(NAME)[1]
    subject.put_order(block("B-1", [NAME]))
    subject.reload()
    assert is_sinkholed(subject.query(NAME))
    asked.reply(gives("192.0.2.9")(asked))
    for _ in range(20):
        assert is_sinkholed(subject.query(NAME))
    upstream.script = gives("192.0.2.10")
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert subject.query(NAME).addresses in (["192.0.2.9"], ["192.0.2.10"])
