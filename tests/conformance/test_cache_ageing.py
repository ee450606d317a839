"""Cached responses age second by second and expire (trap 16)."""

import time

import pytest

from . import wire
from .asking import is_forwarded
from .caching import (
    NAME,
    SLACK,
    again_and_again,
    all_ttls,
    assert_counted_down,
    assert_lives,
    cname,
    gives,
    number_of,
    numbered,
    says,
    soa,
    start,
    timed,
)
from .clocks import HOUR, FakeClock
from .harness import Subject
from .tools import wait_for
from .upstreams import StubUpstream


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, shared_upstream)
    return shared_subject


def test_ttls_are_counted_down(running: Subject, seen: StubUpstream):
    """RFC 2181 section 8, RFC 1035 section 3.2.1: the time that is left, for each record its own."""
    name = "counted.example"
    originals = (300, 250, 200, 86400)
    seen.script = says(
        [
            cname(b"\xc0\x0c", "edge.example", ttl=300),
            wire.address_record("edge.example", "198.51.100.7", ttl=250),
        ],
        [wire.record("example", "NS", wire.name_to_wire("ns1.example"), ttl=200)],
        [wire.address_record("ns1.example", "192.0.2.1", ttl=86400)],
    )
    first = timed(running, name, edns=wire.opt(do=True))
    assert tuple(all_ttls(first.reply)) == originals
    for later in again_and_again(lambda: timed(running, name, edns=wire.opt(do=True))):
        for original, ttl in zip(originals, all_ttls(later.reply), strict=True):
            assert_counted_down(original, ttl, first, later)
        assert later.reply.opt.ttl == wire.DO, "what stands there in OPT is no time"
        if all_ttls(later.reply)[0] <= 298:
            break
    assert seen.count(name) == 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("seconds", [1, 3])
def test_an_answer_lives_as_long_as_its_ttl_says(
    running: Subject, seen: StubUpstream, seconds: int, transport: str
):
    """RFC 1035 section 3.2.1: the time for which a record may be cached."""
    name = f"{transport}{seconds}.lives.example"
    seen.script = numbered(seconds)
    assert_lives(running, seen, seconds, name, transport=transport)


@pytest.mark.parametrize("place", ["alias", "address", "authority", "additional"])
def test_an_answer_lives_as_long_as_its_shortest_ttl(running: Subject, seen: StubUpstream, place: str):
    """RFC 2181 section 5.2: a cached message expires with the first of its records."""
    ttl = {"alias": 300, "address": 300, "authority": 300, "additional": 300} | {place: 2}
    seen.script = says(
        [
            cname(b"\xc0\x0c", "edge.example", ttl=ttl["alias"]),
            wire.address_record("edge.example", "198.51.100.7", ttl=ttl["address"]),
        ],
        [wire.record("example", "NS", wire.name_to_wire("ns1.example"), ttl=ttl["authority"])],
        [wire.address_record("ns1.example", "192.0.2.1", ttl=ttl["additional"])],
    )
    assert_lives(running, seen, 2, f"{place}.shortest.example")


def test_a_new_response_replaces_the_cached_one(running: Subject, seen: StubUpstream):
    """RFC 2181 section 5.4.1: and lives a life of its own, with its own TTL."""
    name = "renewed.example"
    seen.script = numbered(1)
    assert_lives(running, seen, 1, name)
    seen.script = gives(ttl=300)
    wait_for(lambda: is_forwarded(running.query(name)), "a fresh answer")
    asked = seen.count(name)
    for later in again_and_again(lambda: timed(running, name)):
        if max(later.reply.ttls) <= 298:
            break
    assert seen.count(name) == asked


@pytest.mark.parametrize(
    "ttl", [300, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], ids=["300", "2^31-1", "2^31", "2^32-1"]
)
def test_nothing_is_cached_longer_than_max_ttl(subject: Subject, upstream: StubUpstream, ttl: int):
    """RFC 8767 section 4: capped, and a TTL with its highest bit set is no more than a very long one."""
    start(subject, upstream, cache={"max_ttl": 2})
    upstream.script = gives(ttl=ttl)
    assert_lives(subject, upstream, 2)


def test_a_response_cached_shorter_than_its_ttl_gets_the_shorter_ttl(
    subject: Subject, upstream: StubUpstream
):
    """RFC 8767 section 4, RFC 2181 section 8: no client gets a TTL longer than max_ttl."""
    start(subject, upstream, cache={"max_ttl": 10})
    upstream.script = gives(ttl=300)
    subject.query(NAME)
    (ttl,) = subject.query(NAME).ttls
    assert 1 <= ttl <= 10


# ------- Clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_step_changes_the_age_of_no_cached_response(
    subject: Subject, upstream: StubUpstream, clock: FakeClock, offset: int
):
    """RFC 1035 section 3.2.1: a TTL is an interval, and is measured by a clock that only goes forward."""
    start(subject, upstream)
    upstream.script = gives(ttl=300)
    first = timed(subject, "long.example")
    clock.step_to(offset)
    for _ in range(5):
        later = timed(subject, "long.example")
        (ttl,) = later.reply.ttls
        assert_counted_down(300, ttl, first, later)
    assert upstream.count("long.example") == 1
    upstream.script = numbered(2)
    first = timed(subject)
    clock.step_to(0)
    for again in again_and_again(lambda: timed(subject)):
        if number_of(again.reply) == 2:
            break
        assert again.sent_at <= first.got_at + 2 + SLACK, "cached longer than its TTL"
    assert again.got_at >= first.sent_at + 2 - SLACK, "queried again before its TTL is over"


def test_time_while_the_daemon_is_paused_counts_towards_ttls(subject: Subject, upstream: StubUpstream):
    """RFC 1035 section 3.2.1: records also expire while the daemon does not run."""
    start(subject, upstream)
    upstream.script = numbered(1)
    first = timed(subject)
    subject.pause()
    wait_for(lambda: time.monotonic() > first.got_at + 1 + SLACK, "the life is over")
    subject.resume()
    assert number_of(subject.query(NAME)) == 2


def test_a_negative_answer_is_counted_down_too(running: Subject, seen: StubUpstream):
    """RFC 2308 section 5: the TTL of the SOA record that comes with it is decremented like any other."""
    name = "counted-negative.example"
    seen.script = says(authority=[soa(200, 100)], rcode=3)
    first = timed(running, name)
    for later in again_and_again(lambda: timed(running, name)):
        most = 200 - int(max(0.0, later.sent_at - first.got_at))
        assert 1 <= later.reply.soa.ttl <= most
        if later.sent_at > first.got_at + 1.1:
            break
    assert seen.count(name) == 1
