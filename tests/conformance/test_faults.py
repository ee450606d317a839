"""Regression tests for faulty upstreams and floods of clients."""

import subprocess

from . import wire
from .harness import CLOSED_UPSTREAM, ORDERS_ZONE, PROFILES, TIMEOUT, Subject, is_forwarded, is_sinkholed
from .orders import block, exempt, unblock
from .tools import tool, wait_for
from .upstreams import Asked, StubUpstream, decent, silent

BLOCKED = "blocked.example"
LANDING = {"action": "cname", "target": "landing.example", "ttl": 30}
CNAME_ZONE = {**ORDERS_ZONE, "answer": "landing"}


def errors(subject: Subject, upstream: str, reason: str) -> float:
    return subject.metrics().total("dnsblock_upstream_errors_total", upstream=upstream, reason=reason)


def test_unused_source_ports_are_released(subject: Subject, upstream: StubUpstream):
    """A pool that only grows would take the descriptors that orders, metrics and control need."""
    subject.start(upstreams=[upstream.address])
    before = subject.metrics().total("process_open_fds")
    with subject.udp() as client:
        for number in range(600):
            client.send(wire.query(f"n{number}.example"))
            client.recv(4096)
    assert subject.metrics().total("process_open_fds") > before
    wait_for(lambda: subject.metrics().total("process_open_fds") <= before + 4, "the sockets are closed")


def test_an_unreachable_upstream_costs_no_timeout(subject: Subject, upstream: StubUpstream):
    """A resolv.conf may list an IPv6 resolver first on a machine without IPv6; connect(2) fails at once."""
    nowhere = "[fe80::1]:53"  # link-local without an interface: EINVAL, everywhere
    subject.start(upstreams=[nowhere, upstream.address], upstream={"timeout_ms": 60_000})
    for number in range(8):
        assert is_forwarded(subject.query(f"n{number}.example"))
    assert 1 <= errors(subject, nowhere, "network") <= 8
    assert errors(subject, nowhere, "timeout") == 0
    wait_for(lambda: f"upstream {nowhere} cannot be reached" in subject.stderr(), "the log says which")


def test_a_failure_is_counted_for_the_upstream_that_failed(subject: Subject, upstream: StubUpstream):
    """A slow upstream has timed out as often as it was asked, not once more for each refusal of another."""
    upstream.script = silent
    timeouts = {"tries": 3, "timeout_ms": 300}
    subject.start(upstreams=[upstream.address, CLOSED_UPSTREAM], upstream=timeouts)
    assert subject.query("slow.example").rcode == "SERVFAIL"
    asked = subject.metrics().total("dnsblock_upstream_queries_total", upstream=upstream.address)
    assert errors(subject, upstream.address, "timeout") <= asked
    assert errors(subject, CLOSED_UPSTREAM, "timeout") == 0
    assert errors(subject, CLOSED_UPSTREAM, "network") >= 1


def test_a_dead_tcp_connection_to_an_upstream_is_replaced(subject: Subject, upstream: StubUpstream):
    """A silent connection is dead, even if TCP keeps it open."""
    first: list[tuple[str, int]] = []

    def deaf_at_first(asked: Asked) -> bytes | None:
        if asked.transport == "udp":
            return asked.response(flags=wire.QR | wire.RD | wire.RA | wire.TC)
        first.append(asked.source)
        return None if asked.source == first[0] else decent(asked)

    upstream.script = deaf_at_first
    timeouts = {"tries": 2, "timeout_ms": 1500}
    subject.start(upstreams=[upstream.address], upstream=timeouts)
    assert is_forwarded(subject.query("big.example", transport="tcp"))
    assert len(set(first)) == 2


def test_empty_tcp_messages_end_the_connection(subject: Subject, upstream: StubUpstream):
    """Thousands of empty messages are no DNS; what was asked before them is answered."""
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=[upstream.address])
    with subject.tcp() as stream:
        stream.send(wire.query(BLOCKED), b"")
        assert is_sinkholed(stream.reply())
        assert stream.is_closed_within(TIMEOUT)


def test_a_stop_under_a_flood_is_bounded(subject: Subject, upstream: StubUpstream):
    """Error policy, stop: answers what was asked, within a bound, although more is asked all the time."""
    orders = [block("B-1", [BLOCKED])]
    subject.start(orders=orders, upstreams=[upstream.address], stop_timeout_ms=500)
    questions = subject.folder / "questions.txt"
    questions.write_text(f"{BLOCKED} A\n")
    host, port = "127.0.0.1", str(subject.ports[4])
    command = [
        tool("dnsperf"),
        "-s",
        host,
        "-p",
        port,
        "-d",
        str(questions),
        "-l",
        "600",
        "-c",
        "20",
        "-q",
        "1000",
    ]
    flood = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        subject.wait_for_metric("dnsblock_blocked_total", at_least=5000)
        assert subject.stop(within=120) == 0
        assert flood.poll() is None, "the flood was over before the stop"
    finally:
        flood.kill()
        flood.wait()


# ------- A block by CNAME is a block -------------------------------------------------


def test_a_cname_block_is_answered_when_too_many_queries_are_outstanding(
    subject: Subject, upstream: StubUpstream
):
    """Error policy, upstream: blocked names are answered anyway."""
    upstream.script = silent
    subject.start(
        zones=[CNAME_ZONE],
        answers=PROFILES | {"landing": LANDING},
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        workers=1,
        upstream={"max_outstanding": 1},
    )
    with subject.udp() as waiting:
        waiting.send(wire.query("free.example"))
        upstream.wait_for_query("free.example")
        reply = subject.query(BLOCKED)
        assert (reply.rcode, [record.rtype for record in reply.answer]) == ("NOERROR", [5])
        assert subject.query("other.example").rcode == "SERVFAIL"
    assert subject.metrics().total("dnsblock_queries_total", outcome="overloaded") == 1


def test_a_cname_block_lifted_during_a_query_opens_the_name(subject: Subject, upstream: StubUpstream):
    """The name is judged by the snapshot of the moment when the answer comes, with one attempt too."""
    upstream.script = lambda asked: silent(asked) if asked.name == "landing.example" else decent(asked)
    subject.start(
        zones=[CNAME_ZONE],
        answers=PROFILES | {"landing": LANDING},
        orders=[block("B-1", [BLOCKED])],
        upstreams=[upstream.address],
        upstream={"tries": 1},
    )
    with subject.udp() as waiting:
        waiting.send(wire.query(BLOCKED))
        landing = upstream.wait_for_query("landing.example")
        subject.put_order(unblock("U-1", "B-1"))
        subject.reload()
        landing.reply(landing.address())
        assert is_forwarded(wire.read(waiting.recv(4096)))


def test_nxdomain_is_not_said_for_a_name_whose_children_are_exempt(subject: Subject, upstream: StubUpstream):
    """Trap 8, RFC 8020 section 2: NXDOMAIN for the name would deny what the exemption lets live below it."""
    orders = [block("B-1", [BLOCKED, "whole.example"]), exempt("E-1", [{"name": BLOCKED, "match": "below"}])]
    zone = {**ORDERS_ZONE, "answer": "nxdomain"}
    subject.start(zones=[zone], orders=orders, upstreams=[upstream.address])
    assert is_forwarded(subject.query(f"child.{BLOCKED}"))
    reply = subject.query(BLOCKED)
    assert (reply.rcode, len(reply.answer)) == ("NOERROR", 0)
    assert subject.query("whole.example").rcode == "NXDOMAIN"
