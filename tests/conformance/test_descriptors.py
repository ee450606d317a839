"""More TCP clients than descriptors: everything else keeps working, and TCP recovers."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import wire
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import block
from .storms import BLOCKED, Record, measured, traffic
from .tools import tool, wait_for
from .upstreams import StubUpstream, silent

LIMIT = 64


def start(subject: Subject, upstream: StubUpstream) -> None:
    """With few descriptors, also as the hard limit, which the daemon would rise to."""
    subject.under = [tool("prlimit"), f"--nofile={LIMIT}:{LIMIT}"]
    subject.start(
        orders=[block("B-1", [BLOCKED])], upstreams=[upstream.address], tcp={"idle_timeout_ms": 60_000}
    )
    assert subject.metrics().total("process_max_fds") == LIMIT


@contextmanager
def a_crowd_of_clients(subject: Subject) -> Iterator[None]:
    """More clients than there are descriptors hold connections while the block runs."""
    with ExitStack() as held:
        for number in range(2 * LIMIT):
            held.enter_context(subject.tcp(family=4 if number % 2 else 6))
        yield


@contextmanager
def no_descriptors_left(subject: Subject) -> Iterator[None]:
    """The process may open no more than it has open while the block runs; clients wait to be accepted."""
    pid = subject.process.pid
    open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now, hard))
    try:
        with a_crowd_of_clients(subject):
            wait_for(lambda: "cannot accept" in subject.stderr(), "the log tells why")
            yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def is_served_over_tcp(subject: Subject) -> bool:
    return is_sinkholed(subject.query(BLOCKED, transport="tcp"))


def processor_seconds(subject: Subject) -> float:
    """Processor time of the daemon so far; its metrics may take no connection now."""
    fields = Path(f"/proc/{subject.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_descriptors_blocked_names_are_answered_and_tcp_comes_back(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Fault of others: EMFILE of accept must not end the listener, nor take the processor."""
    start(subject, upstream)
    with measured(subject, record_property) as figures:
        with traffic(subject, rate=300) as stream:
            with no_descriptors_left(subject):
                began, spent = time.monotonic(), processor_seconds(subject)
                stream.wait_for_more(600)
                spent, elapsed = processor_seconds(subject) - spent, time.monotonic() - began
            wait_for(lambda: is_served_over_tcp(subject), "TCP works again", timeout=60)
            stream.wait_for_more(100)
        tally = stream.tally()
        print(f"processor time of two seconds without descriptors: {spent:.2f} s")
        record_property("processor seconds of two without descriptors", f"{spent:.2f}")
    assert set(tally) <= {"blocked", "right", "SERVFAIL"}
    assert figures.outcomes(transport="udp") == {
        outcome: tally[kind]
        for outcome, kind in (("blocked", "blocked"), ("forwarded", "right"), ("failed", "SERVFAIL"))
        if tally[kind]
    }
    assert spent < elapsed / 2
    assert all(is_forwarded(subject.query(f"n{number}.example")) for number in range(20))
    subject.put_order(block("B-2", ["more.example"]))
    assert subject.reload()["changed"] is True
    wait_for(
        lambda: subject.metrics().total("dnsblock_tcp_connections") == 0, "all connections are let go of"
    )


def test_without_descriptors_queries_are_still_forwarded(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """A flood of TCP connections must not take the upstream sockets from UDP clients."""
    start(subject, upstream)
    with measured(subject, record_property) as figures:
        with traffic(subject, rate=300) as stream, no_descriptors_left(subject):
            stream.wait_for_more(300)
        tally = stream.tally()
    assert set(tally) == {"blocked", "right"}
    assert figures.rise("dnsblock_upstream_errors_total") == 0, "a lack of our own is no upstream's failure"


def test_tcp_clients_take_at_most_half_of_the_descriptors(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Bound every count: half of what the process may have is for TCP clients, however many come."""
    start(subject, upstream)
    wait_for(lambda: "raise LimitNOFILE" in subject.stderr(), "the log tells what to do")
    with measured(subject, record_property) as figures:
        with traffic(subject, rate=300) as stream, a_crowd_of_clients(subject):
            stream.wait_for_more(300)
            assert 0 < subject.metrics().total("dnsblock_tcp_connections") <= LIMIT / 2
            subject.put_order(block("B-2", ["more.example"]))
            assert subject.reload()["changed"] is True
        tally = stream.tally()
    assert set(tally) == {"blocked", "right"}
    assert figures.rise("dnsblock_upstream_errors_total") == 0
    assert "cannot accept" not in subject.stderr()


def test_silent_upstreams_leave_descriptors_for_orders(subject: Subject, upstream: StubUpstream):
    """Bound every count: sockets that wait for answers count, also those that are drawn from no more."""
    upstream.script = silent
    subject.under = [tool("prlimit"), f"--nofile={4 * LIMIT}:{4 * LIMIT}"]
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        upstream={"timeout_ms": 2000, "tries": 3},
    )
    with subject.udp() as client:
        for number in range(20):
            for turn in range(20):
                client.send(wire.query(f"n{number}-{turn}.example"))
            upstream.wait_until(lambda asked, number=number: len(asked) >= 20 * (number + 1), 30)
        assert subject.metrics().total("process_open_fds") <= 4 * LIMIT / 2
        subject.put_order(block("B-2", ["more.example"]))
        assert subject.reload()["changed"] is True
    assert is_sinkholed(subject.query("more.example"))


def test_a_scrape_that_finds_no_descriptor_waits_quietly(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Bound every count: one connection that cannot be accepted takes neither the processor nor the disk."""
    start(subject, upstream)
    with measured(subject, record_property), traffic(subject, rate=100) as stream:
        with no_descriptors_left(subject):
            before, logged = processor_seconds(subject), len(subject.stderr().splitlines())
            began = time.monotonic()
            scrape = ask_for_metrics(subject)
            stream.wait_for_more(300)
            spent, elapsed = processor_seconds(subject) - before, time.monotonic() - began
            lines = len(subject.stderr().splitlines()) - logged
        with scrape:
            assert scrape.recv(4096).startswith(b"HTTP/1.1 200"), "who waited for the metrics has them"
    print(f"in three seconds: {spent:.2f} s of the processor, {lines} lines in the log")
    assert spent < elapsed / 3
    assert lines < 100


def ask_for_metrics(subject: Subject) -> socket.socket:
    """A scrape whose answer is not waited for."""
    host, port = subject.ready["metrics"].rsplit(":", 1)
    client = socket.create_connection((host, int(port)), timeout=60)
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return client
