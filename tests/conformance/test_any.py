"""ANY is answered with as little as can be (RFC 8482)."""

import pytest

from . import wire
from .harness import SINKHOLE4, SINKHOLE6, Subject
from .orders import block
from .upstreams import StubUpstream

BLOCKED = "blocked.example"


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    shared_subject.start(orders=[block("B-1", [BLOCKED])], upstreams=[shared_upstream.address])
    return shared_subject


@pytest.mark.parametrize("edns", [False, wire.opt(do=True)])
def test_any_over_udp_is_answered_with_hinfo(running: Subject, seen: StubUpstream, edns: bool | bytes):
    """RFC 8482 section 4.2: CPU "RFC8482", OS empty; the upstream is not asked."""
    reply = running.query("FrEe.example", "ANY", edns=edns)
    assert (reply.rcode, reply.truncated) == ("NOERROR", False)
    (record,) = reply.answer
    assert (record.owner, record.rtype, record.rclass) == ("FrEe.example.", wire.QTYPES["HINFO"], 1)
    assert record.rdata == b"\x07RFC8482\0"
    assert not reply.flags & (wire.AA | wire.AD)
    assert (reply.opt is not None) is bool(edns)
    assert seen.queries == []


def test_any_over_tcp_is_forwarded(running: Subject, seen: StubUpstream):
    """RFC 8482 section 4.4: a TCP connection proves the address, so nothing can be amplified."""
    seen.script = lambda asked: asked.address()
    reply = running.query("free.example", "ANY", transport="tcp")
    assert reply.addresses == ["198.51.100.7"]
    assert [asked.qtype for asked in seen.queries] == [255]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_any_for_a_blocked_name_is_answered_from_the_profile(
    running: Subject, seen: StubUpstream, transport: str
):
    """RFC 8482 section 4.1: a subset of what there is, and none of it the upstream's."""
    reply = running.query(BLOCKED, "ANY", transport=transport)
    assert reply.rcode == "NOERROR"
    assert set(reply.addresses) <= {SINKHOLE4, SINKHOLE6}
    assert seen.queries == []
