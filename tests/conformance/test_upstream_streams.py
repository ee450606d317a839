"""TCP connections to upstreams: used again, and no failure when an upstream closes one (RFC 7766)."""

from collections import Counter

import pytest

from . import wire
from .harness import Subject, is_forwarded
from .tools import wait_for
from .upstreams import Asked, MakeUpstream, StubUpstream, decent

PATIENT = {"timeout_ms": 60_000, "tries": 1}
ERRORS = "dnsblock_upstream_errors_total"


def over_tcp(then: object = decent) -> object:
    """Every answer is too large for a datagram; over TCP the script goes on."""

    def script(asked: Asked) -> object:
        if asked.transport == "udp" and asked.name:
            return asked.response(flags=wire.QR | wire.RA | wire.TC)
        return then(asked)

    return script


def connections(upstream: StubUpstream) -> Counter[tuple[str, int]]:
    return Counter(asked.source for asked in upstream.queries if asked.transport == "tcp")


def test_one_connection_is_used_for_many_queries(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.1: a connection for each question would cost a handshake each."""
    upstream.script = over_tcp()
    subject.start(upstreams=[upstream.address], workers=1, upstream=PATIENT)
    for number in range(50):
        assert is_forwarded(subject.query(f"n{number}.example", transport="tcp"))
    assert list(connections(upstream).values()) == [50]


def test_a_connection_is_replaced_after_a_thousand_queries(subject: Subject, upstream: StubUpstream):
    """Bound every count; the old one is closed when its last answer has come."""
    upstream.script = over_tcp()
    subject.start(upstreams=[upstream.address], workers=1, upstream=PATIENT)
    with subject.tcp() as client:
        for number in range(1500):
            client.send(wire.query(f"n{number}.example"))
            assert is_forwarded(client.reply())
    assert sorted(connections(upstream).values()) == [500, 1000]
    wait_for(lambda: len(upstream.open_connections) == 1, "the first is closed")


@pytest.mark.parametrize("answered", [1, 3])
def test_outstanding_queries_of_a_closed_connection_are_retried(
    subject: Subject, upstream: StubUpstream, answered: int
):
    """RFC 7766 section 6.2.4: a server may close at any time; what it owes is asked again at once."""

    def closes_early(asked: Asked) -> bytes | None:
        count = connections(upstream)[asked.source]
        if count == answered:
            asked.reply(decent(asked))
            asked.hang_up()
            return None
        return decent(asked) if count < answered else None

    upstream.script = over_tcp(closes_early)
    subject.start(upstreams=[upstream.address], workers=1, upstream=PATIENT)
    with subject.tcp() as client:
        client.send(*(wire.query(f"n{number}.example") for number in range(12)))
        for _ in range(12):
            assert is_forwarded(client.reply())
    assert subject.metrics().total(ERRORS) == 0


def test_ids_of_a_closed_connection_are_not_reused_by_the_next(subject: Subject, upstream: StubUpstream):
    """Of 900 ids drawn twice, some are drawn again: what was lost with the one is asked on the other."""

    def closes_the_first(asked: Asked) -> bytes | None:
        first = next(iter(connections(upstream)))
        if asked.source != first:
            return decent(asked)
        if connections(upstream)[first] == 900:
            asked.reply(decent(asked))
            asked.hang_up()
        return None

    upstream.script = over_tcp(closes_the_first)
    subject.start(upstreams=[upstream.address], workers=1, upstream=PATIENT, tcp={"max_pipelined": 1000})
    with subject.tcp() as client:
        client.send(*(wire.query(f"n{number}.example") for number in range(900)))
        for _ in range(900):
            assert is_forwarded(client.reply())
    assert subject.metrics().total(ERRORS) == 0


def test_an_idle_connection_closed_by_the_upstream_costs_no_query(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.4: a server may close an idle connection at any time."""
    upstream.script = over_tcp()
    subject.start(upstreams=[upstream.address], workers=1, upstream=PATIENT)
    for number in range(5):
        assert is_forwarded(subject.query(f"n{number}.example", transport="tcp"))
        upstream.queries[-1].hang_up()
    assert len(connections(upstream)) >= 2
    assert subject.metrics().total(ERRORS) == 0


def test_an_upstream_that_closes_every_connection_costs_one_try(
    subject: Subject, make_upstream: MakeUpstream
):
    """Not again and again on the same one: nothing was answered there."""
    closing, good = make_upstream(over_tcp(lambda asked: asked.hang_up())), make_upstream(over_tcp())
    subject.start(upstreams=[closing.address, good.address], workers=1, upstream={"timeout_ms": 60_000})
    for number in range(5):
        assert is_forwarded(subject.query(f"n{number}.example", transport="tcp"))
    assert sum(connections(closing).values()) == 5
    assert subject.metrics().total(ERRORS, upstream=closing.address, reason="network") == 5
