"""More TCP clients than the process may have descriptors: what needs none goes on, the rest comes back."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .harness import Subject, is_forwarded, is_sinkholed
from .orders import block
from .storms import BLOCKED, Record, measured, traffic
from .tools import tool, wait_for
from .upstreams import StubUpstream

LIMIT = 64


def start(subject: Subject, upstream: StubUpstream) -> None:
    """With few descriptors, also as the hard limit, which the daemon would rise to."""
    subject.under = [tool("prlimit"), f"--nofile={LIMIT}:{LIMIT}"]
    subject.start(
        orders=[block("B-1", [BLOCKED])], upstreams=[upstream.address], tcp={"idle_timeout_ms": 60_000}
    )
    assert subject.metrics().total("process_max_fds") == LIMIT


@contextmanager
def no_descriptors_left(subject: Subject) -> Iterator[None]:
    """More clients than there are descriptors hold connections while the block runs."""
    with ExitStack() as held:
        for number in range(2 * LIMIT):
            held.enter_context(subject.tcp(family=4 if number % 2 else 6))
        wait_for(lambda: "cannot accept" in subject.stderr(), "the log tells why")
        yield


def is_served_over_tcp(subject: Subject) -> bool:
    return is_sinkholed(subject.query(BLOCKED, transport="tcp"))


def processor_seconds(subject: Subject) -> float:
    """Processor time of the daemon so far; its metrics may take no connection now."""
    fields = Path(f"/proc/{subject.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_descriptors_blocked_names_are_answered_and_tcp_comes_back(
    subject: Subject, upstream: StubUpstream, record_property: Record
):
    """Four that peers fell into: EMFILE of accept must not end the listener, nor take the processor."""
    start(subject, upstream)
    with measured(subject, record_property) as figures:
        with traffic(subject, rate=300) as stream:
            with no_descriptors_left(subject):
                spent = processor_seconds(subject)
                stream.wait_for_more(600)
                spent = processor_seconds(subject) - spent
            wait_for(lambda: is_served_over_tcp(subject), "TCP works again", timeout=5)
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
    assert spent < 1.0
    assert all(is_forwarded(subject.query(f"n{number}.example")) for number in range(20))
    subject.put_order(block("B-2", ["more.example"]))
    assert subject.reload()["changed"] is True
    wait_for(
        lambda: subject.metrics().total("dnsblock_tcp_connections") == 0, "all connections are let go of"
    )
