"""Records that are queried shortly before they expire are prefetched (trap 16)."""

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
PATIENT = {"timeout_ms": 30_000, "tries": 1}
TTL = 4  # the last tenth of it is long enough for a busy machine to ask in


def begin(subject: Subject, upstream: StubUpstream, /, script: Script, **config: object) -> None:
    upstream.script = script
    start(subject, upstream, **{"cache": PREFETCH, "upstream": PATIENT, "workers": 4} | config)


def test_a_record_queried_in_the_last_tenth_of_its_ttl_is_prefetched(
    subject: Subject, upstream: StubUpstream
):
    """RFC 1035 section 3.2.1 allows it at any time; no client ever waits for a popular name."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    for again in again_and_again(lambda: timed(subject)):
        if number_of(again.reply) == 2:
            break
        assert again.sent_at < first.got_at + TTL + SLACK
    refreshed = upstream.count(NAME)
    assert refreshed == 2, "by one question"
    assert first.sent_at + TTL * 0.9 - SLACK <= again.got_at <= first.got_at + TTL + SLACK
    wait_for(lambda: subject.metrics().total("dnsblock_cache_prefetches_total") == 1, "it is counted")
    assert subject.metrics().total("dnsblock_queries_total", outcome="forwarded") == 1


def test_the_client_that_causes_a_prefetch_gets_the_cached_response_at_once(
    subject: Subject, upstream: StubUpstream
):
    """Trap 16: however slow the upstream is, until the cached response expires."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    upstream.script = silent
    waits = []
    for again in again_and_again(lambda: timed(subject)):
        assert number_of(again.reply) == 1
        waits.append(again.seconds)
        if again.got_at > first.sent_at + TTL - SLACK:
            break
    assert max(waits) < PATIENT["timeout_ms"] / 2000, "no client waits for the upstream"
    assert upstream.count(NAME) == 2, "asked once more, and once only, by however many clients"
    upstream.asked_for(NAME)[1].reply(gives("192.0.2.9")(upstream.asked_for(NAME)[1]))
    wait_for(lambda: subject.query(NAME).addresses == ["192.0.2.9"], "the fresh answer")
    assert upstream.count(NAME) == 2


def test_a_prefetched_response_has_its_full_ttl(subject: Subject, upstream: StubUpstream):
    """RFC 2181 section 5.4.1: its TTL counts from when it came."""
    begin(subject, upstream, numbered(TTL))
    before = timed(subject)
    upstream.script = gives("192.0.2.9", ttl=300)
    for fresh in again_and_again(lambda: timed(subject)):
        if fresh.reply.addresses == ["192.0.2.9"]:
            break
        before = fresh
    (ttl,) = fresh.reply.ttls
    assert 299 - int(fresh.got_at - before.sent_at) <= ttl <= 300, "it came between these two"
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
def test_a_prefetch_sends_the_same_question(
    subject: Subject, upstream: StubUpstream, flags: int, edns: bytes | bool, qtype: str
):
    """RFC 4035 section 3.2: with the flags of the cached query, and with an id of its own."""
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


def test_a_name_that_is_not_queried_is_not_prefetched(subject: Subject, upstream: StubUpstream):
    """Trap 16: a name that was asked for once is no load for the upstream for ever."""
    begin(subject, upstream, numbered(1))
    subject.query("forgotten.example")
    wait_for(lambda: number_of(subject.query(NAME)) >= 5, "the time of several lives is over")
    assert upstream.count("forgotten.example") == 1


def test_a_query_before_the_last_tenth_causes_no_prefetch(subject: Subject, upstream: StubUpstream):
    """Trap 16: the last tenth alone, else a popular name would be asked for all the time."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    for again in again_and_again(lambda: timed(subject)):
        if again.got_at > first.sent_at + TTL * 0.9 - SLACK:
            break
        assert upstream.count(NAME) == 1
    assert first.got_at < again.sent_at


def test_prefetch_can_be_switched_off(subject: Subject, upstream: StubUpstream):
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
def test_a_failed_prefetch_leaves_the_cached_response(subject: Subject, upstream: StubUpstream, rcode: int):
    """RFC 8767 section 4: a failure does not remove data that is still valid."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    upstream.script = says(rcode=rcode)
    for again in again_and_again(lambda: timed(subject, edns=True)):
        if again.reply.rcode != "NOERROR":
            break
        assert number_of(again.reply) == 1
        assert not is_stale(again.reply)
    assert again.got_at >= first.sent_at + TTL - SLACK


def test_a_prefetched_negative_answer_replaces_the_cached_response(subject: Subject, upstream: StubUpstream):
    """RFC 2181 section 5.4.1: the newer answer is the one that counts, also a negative one without SOA."""
    begin(subject, upstream, numbered(TTL))
    first = timed(subject)
    upstream.script = says(rcode=3)
    for again in again_and_again(lambda: timed(subject)):
        if again.reply.rcode == "NXDOMAIN":
            break
        assert again.sent_at <= first.got_at + TTL + SLACK, "cached longer than its TTL"


# ------- Policy -----------------------------------------------------------------------------------


def test_a_blocked_name_is_not_prefetched(subject: Subject, upstream: StubUpstream):
    """Trap 11: a blocked name never reaches the upstream; its cached records expire."""
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


def test_a_block_during_a_prefetch_applies(subject: Subject, upstream: StubUpstream):
    """Trap 11: the prefetched response is used for no client; after the unblock it may be."""
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
