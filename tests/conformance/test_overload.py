"""Overload: responses that are sent are useful, and everything else keeps working (trap 17)."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from . import wire
from .asking import is_forwarded, is_sinkholed
from .caching import NAME, gives, start
from .clocks import HOUR, FakeClock
from .floods import USEFUL, flood, offer
from .harness import Subject
from .orders import block
from .scheduling import RunDelays
from .stalls import STALL
from .storms import Record, measured
from .tools import wait_for
from .upstreams import StubUpstream, answering_after, silent

BLOCKED = "blocked.example"
MEBIBYTE = 1 << 20
OLD = 20  # queries; not so many that a socket's buffer could not hold them


def begin(subject: Subject, upstream: StubUpstream, /, **config: object) -> None:
    upstream.script = gives()
    start(subject, upstream, orders=[block("B-1", [BLOCKED])], **config)
    assert is_forwarded(subject.query(NAME)), "it is kept"


def wait_since(moment: float, seconds: float) -> None:
    wait_for(lambda: time.monotonic() >= moment + seconds, f"{seconds} s have passed")


# ------- Nothing for who has gone ------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    "name", [BLOCKED, NAME, "fresh.example", "localhost"], ids=["blocked", "kept", "new", "local"]
)
def test_a_query_older_than_a_second_is_dropped(
    subject: Subject, upstream: StubUpstream, name: str, family: int
):
    """Trap 17: its client has asked again or gone; a late answer is one that somebody else does not get."""
    begin(subject, upstream)
    before = subject.metrics()
    with subject.udp(family) as old, subject.udp(family) as young:
        subject.pause()
        for number in range(OLD):
            old.send(wire.query(name, qid=number))
        last_at = time.monotonic()
        wait_since(last_at, 1.2)
        subject.resume()
        for number in range(OLD):
            young.send(wire.query(name, qid=1000 + number))
        assert {int.from_bytes(young.recv(4096)[:2]) for _ in range(OLD)} == set(range(1000, 1000 + OLD))
        # A query of now on the old socket comes to the same worker thread, behind the old ones.
        old.send(wire.query(name, qid=5000))
        assert int.from_bytes(old.recv(4096)[:2]) == 5000, "an old query was answered"
    queries = "dnsblock_queries_total"
    wait_for(
        lambda: (
            subject.metrics().total(queries, outcome="late") == before.total(queries, outcome="late") + OLD
        ),
        "each is counted as late",
    )
    assert upstream.count("fresh.example") <= OLD + 1, "the upstream is not asked for who has gone"


def test_a_dropped_query_does_not_reach_the_upstream(subject: Subject, upstream: StubUpstream):
    """RFC 9520 section 1: a backlog is not passed on to upstreams, which have their own."""
    begin(subject, upstream)
    with subject.udp() as sock:
        subject.pause()
        for number in range(OLD):
            sock.send(wire.query(f"gone{number}.example"))
        wait_since(time.monotonic(), 1.2)
        subject.resume()
        sock.send(wire.query("here.example"))
        assert is_forwarded(wire.read(sock.recv(4096)))
    assert [asked.name for asked in upstream.queries if asked.name != NAME] == ["here.example"]


@pytest.mark.parametrize("seconds", [0.1, 0.6])
def test_a_query_younger_than_a_second_is_answered(subject: Subject, upstream: StubUpstream, seconds: float):
    """Trap 17: a client waits for seconds; a short pause of the server costs no response."""
    begin(subject, upstream)
    for _ in range(10):  # more than once only where it took these tests too long to ask
        with subject.udp() as sock:
            subject.pause()
            began = time.monotonic()
            for number in range(OLD):
                sock.send(wire.query(BLOCKED if number % 2 else NAME, qid=number))
            wait_since(began, seconds)
            subject.resume()
            # Only a stall of the daemon makes them late then, and after a stall a test is run again.
            if time.monotonic() - began < 1 - STALL:
                assert {int.from_bytes(sock.recv(4096)[:2]) for _ in range(OLD)} == set(range(OLD))
                return
    pytest.fail(f"the machine is too slow: the queries could not be sent in {1 - STALL} s")


def test_a_late_query_over_tcp_is_answered(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.3: a client that holds its connection open is still there."""
    begin(subject, upstream)
    with subject.tcp() as stream:
        stream.send(wire.query(BLOCKED))
        assert is_sinkholed(stream.reply())
        subject.pause()
        stream.send(wire.query(BLOCKED), wire.query(NAME))
        wait_since(time.monotonic(), 1.2)
        subject.resume()
        assert {is_sinkholed(stream.reply()), is_sinkholed(stream.reply())} == {True, False}


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_step_makes_no_query_late(
    subject: Subject, upstream: StubUpstream, clock: FakeClock, offset: int
):
    """Trap 17: the wall clock may step, and queries are timed by another clock."""
    begin(subject, upstream)
    with subject.udp() as sock:
        for step in (offset, 0):
            subject.pause()
            for number in range(OLD):
                sock.send(wire.query(BLOCKED, qid=number))
            clock.step_to(step)
            subject.resume()
            for _ in range(OLD):
                assert is_sinkholed(wire.read(sock.recv(4096)))
            for name in (BLOCKED, NAME, f"new{step}.example"):
                assert subject.query(name).rcode == "NOERROR"


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_late_query_is_dropped_after_a_clock_step_too(
    subject: Subject, upstream: StubUpstream, clock: FakeClock, offset: int
):
    """Trap 17: a clock that is hours off must not revive queries of clients that are gone."""
    begin(subject, upstream)
    clock.step_to(offset)
    assert is_sinkholed(subject.query(BLOCKED))
    with subject.udp() as sock:
        subject.pause()
        for number in range(OLD):
            sock.send(wire.query(BLOCKED, qid=number))
        wait_since(time.monotonic(), 1.2)
        subject.resume()
        sock.send(wire.query(BLOCKED, qid=5000))
        assert int.from_bytes(sock.recv(4096)[:2]) == 5000, "an old query was answered"


# ------- Five times what it can do ----------------------------------------------------------------

PLACES, LATENCY_MS = 64, 50  # so what it can do is a little less than 1280 answers a second
LIMITED = {"max_outstanding": PLACES, "timeout_ms": 1000, "tries": 1}


def fresh(label: str) -> Callable[[int], str]:
    """Names that were never asked before."""
    return lambda number: f"n{number}.{label}.example"


def mixed(number: int) -> str:
    """Blocked and cached names in turns."""
    return NAME if number % 2 else f"n{number}.{BLOCKED}"


def test_at_five_times_its_capacity_useful_answers_stay_above_nine_tenths(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Trap 17: excess queries get SERVFAIL at once and cost no other client a response."""
    begin(subject, upstream, workers=1, upstream=LIMITED)
    can_do = PLACES * 1000 / LATENCY_MS
    calm, flooded, left_out = [], [], []
    with (
        answering_after(LATENCY_MS) as late,
        RunDelays(subject) as delays,
        measured(subject, record_property) as figures,
    ):
        upstream.script = late
        while len(flooded) < 4 and len(left_out) < 12:
            turn = f"{len(flooded)}-{len(left_out)}"
            best = max(
                offer(subject, fresh(f"calm{turn}-{share}"), rate=can_do * share, seconds=1).useful
                for share in (0.9, 1.1)
            )
            began = time.monotonic()
            result = offer(subject, fresh(f"flood{turn}"), rate=5 * can_do, seconds=1)
            if result.useful < 0.9 * best and (waited := delays.of_all(began)) > 0.1:
                left_out.append(f"best {best}, {result}: {waited:.2f} s without a processor")
            else:
                calm.append(best)
                flooded.append(result)
        record_property("useful", f"best {calm}, {flooded}; left out: {left_out}")
    if len(flooded) < 4:
        pytest.skip(f"the daemon or its upstream, which is one of these tests, had no processor: {left_out}")
    assert sum(result.sent for result in flooded) > 3 * can_do * 4, "the tests could ask so fast"
    assert sum(result.useful for result in flooded) >= 0.9 * sum(calm), (calm, flooded)
    assert max(result.slowest for result in flooded) < USEFUL + 0.25, "an answer that nobody waited for"
    assert figures.rise("process_resident_memory_bytes") < 32 * MEBIBYTE


def test_a_slow_upstream_costs_no_blocked_and_no_cached_response(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Trap 17: outstanding queries are bounded and delay no response that needs no upstream."""
    begin(subject, upstream, workers=1, upstream=LIMITED)
    upstream.script = silent
    with measured(subject, record_property) as figures, subject.udp() as sock:
        waits = []
        with flood(subject, fresh("flood"), rate=3000) as results:
            for number in range(300):
                began = time.monotonic()
                sock.send(wire.query(BLOCKED if number % 2 else NAME))
                reply = wire.read(sock.recv(4096))
                assert is_sinkholed(reply) if number % 2 else is_forwarded(reply)
                waits.append(time.monotonic() - began)
    assert sum(result.sent for result in results) > 2000
    assert set(results[0].rcodes) == {"SERVFAIL"}
    assert sorted(waits)[270] < 0.1
    assert figures.rise("process_resident_memory_bytes") < 32 * MEBIBYTE


def test_the_control_plane_works_under_overload(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Trap 17: orders, metrics, status and why, however busy the worker threads are."""
    begin(subject, upstream, workers=1)
    with measured(subject, record_property) as figures, flood(subject, mixed, rate=1e6) as results:
        for number in range(3):
            assert subject.cli("why", BLOCKED).json["verdict"] == "blocked"
            subject.put_order(block(f"MORE-{number}", [f"more{number}.example"]))
            assert subject.reload()["changed"] is True
            assert subject.metrics().total("dnsblock_snapshot_serial") == subject.status()["serial"]
            assert is_sinkholed(subject.query(f"more{number}.example", transport="tcp"))
    assert all(set(result.rcodes) == {"NOERROR"} for result in results)
    assert all(result.slowest < USEFUL + 0.25 for result in results), "an answer that nobody waited for"
    assert figures.rise("process_resident_memory_bytes") < 64 * MEBIBYTE


def test_the_control_plane_has_a_lower_priority_than_worker_threads(subject: Subject):
    """Where processors are few, a list that is compiled must not hold up an answer."""
    subject.start()
    packets, control = set(), None
    for thread in Path(f"/proc/{subject.process.pid}/task").iterdir():
        try:
            name, _, rest = (thread / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has ended
            continue
        niceness = int(rest.split()[16])
        if name.startswith("packets-"):
            packets.add(niceness)
        elif int(thread.name) == subject.process.pid:  # its main thread, and so those that it starts
            control = niceness
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert (packets, control) == ({own}, own + 10)
