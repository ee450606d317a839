"""The cache stays within its size, keeps popular names and exposes its figures (trap 16)."""

import socket
from collections.abc import Iterable

import pytest

from . import wire
from .caching import NAME, gives, numbered, says, soa, start
from .clients import Metrics
from .harness import Subject
from .tools import wait_for
from .upstreams import Asked, StubUpstream

MEBIBYTE = 1 << 20
SCAN = 20_000  # several times as many as a mebibyte holds
BATCH = 100


def ask_all(sock: socket.socket, names: Iterable[str], qtype: str | int = "A") -> None:
    """A batch at a time; each is answered."""
    names = list(names)
    for begin in range(0, len(names), BATCH):
        batch = names[begin : begin + BATCH]
        for number, name in enumerate(batch):
            sock.send(wire.query(name, qtype, qid=number))
        assert sorted(int.from_bytes(sock.recv(4096)[:2]) for _ in batch) == list(range(len(batch)))


def cache_figures(metrics: Metrics) -> dict[str, float]:
    return {
        what: metrics.total(f"dnsblock_cache_{what}")
        for what in ("entries", "bytes", "evictions_total", "prefetches_total")
    }


def scanned(first: int, count: int) -> list[str]:
    return [f"n{number}.scan.example" for number in range(first, first + count)]


def test_many_names_take_no_more_than_size_mb(subject: Subject, upstream: StubUpstream):
    """Trap 16: random names fill the cache, and no more than the cache."""
    upstream.script = gives()
    start(subject, upstream, cache={"size_mb": 1})
    resident = subject.metrics().total("process_resident_memory_bytes")
    with subject.udp() as sock:
        for first in range(0, SCAN, 4000):
            ask_all(sock, scanned(first, 4000))
            assert 0 < cache_figures(subject.metrics())["bytes"] <= MEBIBYTE
    figures = cache_figures(subject.metrics())
    assert 1000 < figures["entries"] < SCAN, "it is used, and full"
    assert figures["bytes"] > MEBIBYTE / 2
    assert figures["evictions_total"] >= SCAN - figures["entries"] - 1000, "what made room is counted"
    grown = subject.metrics().total("process_resident_memory_bytes") - resident
    assert grown < 16 * MEBIBYTE, "memory is used by cached responses only"


@pytest.mark.parametrize("size", [4000, 60_000])
def test_large_responses_take_no_more_than_size_mb(subject: Subject, upstream: StubUpstream, size: int):
    """Trap 16: a response counts with its bytes, not as one of many."""

    def large(asked: Asked) -> bytes:
        if asked.transport == "udp":
            return asked.response(flags=wire.RA | wire.TC)
        return asked.response([wire.record(b"\xc0\x0c", "TYPE65280", b"\xaa" * size)])

    upstream.script = large
    start(subject, upstream, cache={"size_mb": 1}, workers=1)
    resident = subject.metrics().total("process_resident_memory_bytes")
    with subject.tcp() as stream:
        for number in range(4 * MEBIBYTE // size):
            stream.send(wire.query(f"n{number}.large.example", "TYPE65280"))
            assert len(stream.reply().answer[0].rdata) == size
            assert cache_figures(subject.metrics())["bytes"] <= MEBIBYTE
    assert subject.metrics().total("process_resident_memory_bytes") - resident < 16 * MEBIBYTE


def test_negative_answers_and_failures_are_bounded_as_well(subject: Subject, upstream: StubUpstream):
    """Trap 16: names that do not exist are the cheapest to make up (a random subdomain attack)."""
    upstream.script = lambda asked: says(authority=[soa()], rcode=3 if len(asked.name) % 2 else 2)(asked)
    start(subject, upstream, cache={"size_mb": 1})
    resident = subject.metrics().total("process_resident_memory_bytes")
    with subject.udp() as sock:
        ask_all(sock, scanned(0, SCAN))
    assert cache_figures(subject.metrics())["bytes"] <= MEBIBYTE
    assert subject.metrics().total("process_resident_memory_bytes") - resident < 16 * MEBIBYTE


def test_popular_names_survive_a_scan(subject: Subject, upstream: StubUpstream):
    """Trap 16: once-asked names, however many, do not drive out the popular ones."""
    upstream.script = gives()
    start(subject, upstream, cache={"size_mb": 1})
    popular = [f"popular{number}.example" for number in range(50)]
    with subject.udp() as sock:
        for _ in range(5):
            ask_all(sock, popular)
        for first in range(0, SCAN, 1000):
            ask_all(sock, scanned(first, 1000))
            ask_all(sock, popular)
    lost = {name: upstream.count(name) - 1 for name in popular if upstream.count(name) > 1}
    assert len(lost) <= len(popular) // 10, f"driven out: {lost}"
    assert sum(lost.values()) <= len(popular) // 10


def test_popular_names_survive_a_scan_during_which_they_are_not_queried(
    subject: Subject, upstream: StubUpstream
):
    """Trap 16: after a flood of random names with no other query, most popular names are still cached."""
    upstream.script = gives()
    start(subject, upstream, cache={"size_mb": 1})
    popular = [f"popular{number}.example" for number in range(50)]
    with subject.udp() as sock:
        for _ in range(5):
            ask_all(sock, popular)
        ask_all(sock, scanned(0, 5000))
        ask_all(sock, popular)
    assert sum(upstream.count(name) > 1 for name in popular) <= len(popular) // 4


def test_a_full_cache_costs_no_response(subject: Subject, upstream: StubUpstream):
    """Trap 16: a cache that is full costs upstream queries, and no answers."""
    upstream.script = gives()
    start(subject, upstream, cache={"size_mb": 1})
    with subject.udp() as sock:
        for _ in range(2):
            ask_all(sock, scanned(0, SCAN // 2))
    metrics = subject.metrics()
    assert metrics.total("dnsblock_queries_total", outcome="failed") == 0
    answered = [
        metrics.total("dnsblock_queries_total", outcome=outcome) for outcome in ("forwarded", "cached")
    ]
    assert sum(answered) == SCAN


# ------- Figures -----------------------------------------------------------------------------------


def test_each_query_from_the_cache_is_counted_as_cached(subject: Subject, upstream: StubUpstream):
    """By transport, like every outcome; and the number of entries is exposed."""
    upstream.script = numbered()
    start(subject, upstream)
    for transport in ("udp", "tcp"):
        for name in ("one.example", "two.example"):
            for _ in range(5):
                subject.query(name, transport=transport)

    def counted() -> dict[tuple[str, str], float]:
        metrics = subject.metrics()
        return {
            (outcome, transport): metrics.total(
                "dnsblock_queries_total", outcome=outcome, transport=transport
            )
            for outcome in ("forwarded", "cached", "stale", "failed")
            for transport in ("udp", "tcp")
        }

    expected = dict.fromkeys(counted(), 0.0) | {
        ("forwarded", "udp"): 2,
        ("cached", "udp"): 8,
        ("cached", "tcp"): 10,
    }
    wait_for(lambda: counted() == expected, f"{expected}, and not {counted()}")
    assert cache_figures(subject.metrics())["entries"] == 2
    assert subject.metrics().total("dnsblock_upstream_queries_total") == 2
    assert subject.metrics().total("dnsblock_coalesced_queries_total") == 0


def test_local_responses_are_not_cached(subject: Subject, upstream: StubUpstream):
    """Trap 16: what nothing was asked for takes no memory."""
    start(subject, upstream)
    before = cache_figures(subject.metrics())
    for name in ("localhost", "x.test", "1.168.192.in-addr.arpa"):
        subject.query(name)
    assert cache_figures(subject.metrics()) == before
    upstream.script = gives()
    subject.query(NAME)
    after = cache_figures(subject.metrics())
    assert (after["entries"], before["entries"]) == (1, 0)
    assert 0 < after["bytes"] - before["bytes"] < 4096
