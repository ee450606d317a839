"""A block page with the blocked name in its own: `target: "*.landing.example."` (RPZ's wildcard target)."""

import pytest

from . import wire
from .harness import PROFILES, Subject
from .orders import block
from .upstreams import StubUpstream

BLOCKED = "blocked.example"
GARDEN = "landing.example"
ANSWERS = PROFILES | {"sinkhole": {"action": "cname", "target": f"*.{GARDEN}.", "ttl": 30}}


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    shared_subject.start(
        orders=[block("B-1", [BLOCKED])], answers=ANSWERS, upstreams=[shared_upstream.address]
    )
    return shared_subject


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("name", [BLOCKED, f"a.b.{BLOCKED}", f"WwW.{BLOCKED}"])
def test_the_cname_target_contains_the_blocked_name(
    running: Subject, seen: StubUpstream, name: str, transport: str
):
    """draft-vixie-dnsop-dns-rpz section 3.6: the asterisk is replaced by the queried name."""
    reply = running.query(name, transport=transport)
    assert (reply.rcode, reply.answer[0].owner) == ("NOERROR", f"{name}.")
    assert reply.target.lower() == f"{name}.{GARDEN}.".lower()
    assert reply.addresses == ["198.51.100.7"]
    assert {asked.name.lower() for asked in seen.queries} == {f"{name}.{GARDEN}".lower()}


def of_length(content: int) -> bytes:
    """A name below the blocked one with this many bytes on the wire."""
    rest = content - len(wire.name_to_wire(BLOCKED))
    labels = []
    while rest:
        size = min(rest, 64) if rest - min(rest, 64) != 1 else rest - 2
        labels.append(b"x" * (size - 1))
        rest -= size
    return wire.labels_to_wire([*labels, b"blocked", b"example"])


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS", "TXT"])
def test_a_target_that_is_too_long_is_yxdomain_and_never_passes(
    running: Subject, seen: StubUpstream, qtype: str, transport: str
):
    """Trap 12, RFC 6672 section 2.2 for DNAME; CVE-2026-11331 is a peer that let the real answer pass."""
    longest = 255 - len(wire.name_to_wire(GARDEN)) + 1
    assert running.query(of_length(longest), qtype, transport=transport).rcode == "NOERROR"
    seen.forget()
    for content in (longest + 1, 255):
        reply = running.query(of_length(content), qtype, transport=transport)
        assert (reply.rcode, reply.answer) == ("YXDOMAIN", ())
    assert seen.queries == []


def test_labels_of_any_bytes_are_copied(running: Subject):
    """Trap 14, RFC 2181 section 11."""
    labels = [b"a.b\0\xff", b"blocked", b"example"]
    reply = running.query(wire.labels_to_wire(labels))
    assert reply.answer[0].rdata == wire.labels_to_wire([*labels, b"landing", b"example"])


def test_the_wildcard_landing_name_is_never_blocked(subject: Subject, upstream: StubUpstream):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 6.1: a block of the garden is no loop."""
    subject.start(orders=[block("B-1", [BLOCKED, GARDEN])], answers=ANSWERS, upstreams=[upstream.address])
    reply = subject.query(BLOCKED)
    assert (reply.target, reply.addresses) == (f"{BLOCKED}.{GARDEN}.", ["198.51.100.7"])
