"""Only the upstream may answer, and only the question that was sent."""

import socket
import struct
from collections.abc import Callable
from itertools import pairwise

import pytest

from .. import wire
from ..asking import Asking, is_forwarded
from ..policy import SINKHOLED, free
from ..upstreams import Asked, StubUpstream, decent, silent

FORGED = "192.0.2.66"


def test_ids_and_ports_cannot_be_guessed(resolver: Asking, seen: StubUpstream):
    """Trap 10, RFC 5452 section 9.2: a random id and a random port for each query; neither is counted up."""
    names = [free() for _ in range(100)]
    for name in names:
        assert is_forwarded(resolver.query(name, qid=0x1234))
    asked = [seen.asked_for(name)[0] for name in names]
    ids = [one.message.qid for one in asked]
    ports = [one.source[1] for one in asked]
    assert len(set(ids)) > 90
    assert ids.count(0x1234) <= 1, "the client's own id"
    assert sum(abs(a - b) <= 16 for a, b in pairwise(ids)) < 10
    assert len(set(ports)) > 50
    assert sum(abs(a - b) <= 2 for a, b in pairwise(ports)) < 10


def wrong_id(asked: Asked) -> bytes:
    return asked.address(FORGED, qid=asked.message.qid ^ 0x0101)


def wrong_name(asked: Asked) -> bytes:
    return asked.address(FORGED, question=wire.question("other.example"))


def wrong_type(asked: Asked) -> bytes:
    return asked.address(FORGED, question=wire.question(asked.name, "AAAA"))


def wrong_class(asked: Asked) -> bytes:
    return asked.address(FORGED, question=wire.question(asked.name, "A", 3))


def no_question(asked: Asked) -> bytes:
    return asked.response([wire.address_record(asked.name, FORGED)], question=b"")


def not_a_response(asked: Asked) -> bytes:
    forged = bytearray(asked.address(FORGED))
    forged[2] &= 0x7F
    return bytes(forged)


def cut_off(asked: Asked) -> bytes:
    return asked.address()[:15]


@pytest.mark.parametrize(
    "forge", [wrong_id, wrong_name, wrong_type, wrong_class, no_question, not_a_response, cut_off]
)
def test_a_response_to_another_question_is_ignored(
    resolver: Asking, seen: StubUpstream, forge: Callable[[Asked], bytes]
):
    """Trap 10, RFC 5452 section 9.1: the right reply, which comes behind it, is delivered; sdns#470."""
    seen.script = lambda asked: [forge(asked), forge(asked), decent(asked)]
    name = free()
    assert is_forwarded(resolver.query(name))
    assert len(seen.asked_for(name)) == 1, "and nothing is asked again"


def test_a_response_from_another_address_is_ignored(resolver: Asking, seen: StubUpstream):
    """Trap 10, RFC 5452 section 9.1: the answer comes from where the question went."""

    def spoof(asked: Asked) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(asked.address(FORGED), asked.source)
        return decent(asked)

    seen.script = spoof
    assert is_forwarded(resolver.query(free()))


def test_a_response_whose_question_differs_only_in_case_is_accepted(resolver: Asking, seen: StubUpstream):
    """Traps 4 and 10, RFC 4343 section 3: and the client gets its question back unchanged."""
    seen.script = lambda asked: asked.address(question=asked.message.question.lower())
    mixed = free("FoRwArD.eXaMpLe")
    reply = resolver.query(mixed)
    assert reply.question == wire.question(mixed)
    assert is_forwarded(reply)


def test_the_case_of_the_client_protects_both_hops(resolver: Asking, seen: StubUpstream):
    """Trap 4, draft-vixie-dnsext-dns0x20: the upstream is asked in the client's case, or in a random one."""
    mixed = free("A.lOnG.NaMe.wItH.mIxEd.cAsE.eXaMpLe")
    resolver.query(mixed)
    assert seen.asked_for(mixed)[0].name != mixed.lower()


def signed(asked: Asked) -> bytes:
    """An address, with a signature if the query has DO (RFC 4034 section 3.1)."""
    records = [wire.address_record(b"\xc0\x0c", "198.51.100.7")]
    if asked.message.opt is not None and asked.message.opt.ttl & wire.DO:
        rdata = struct.pack("!HBBIIIH", 1, 13, 3, 300, 0x7FFFFFFF, 0, 4711) + b"\0" + b"s" * 64
        records.append(wire.record(b"\xc0\x0c", "RRSIG", rdata))
    return asked.response(records)


def test_outstanding_queries_are_coalesced_only_if_they_want_the_same(resolver: Asking, seen: StubUpstream):
    """Trap 10, RFC 4035 section 3.2.1: a client that wants signatures never gets an answer without."""
    seen.script = silent
    name = free()
    with resolver.udp() as plain, resolver.udp() as validating:
        plain.send(wire.query(name))
        seen.wait_for_query(name)
        validating.send(wire.query(name, edns=wire.opt(do=True)))
        behind = wire.query(SINKHOLED)
        validating.send(behind)
        assert validating.recv(4096)[:2] == behind[:2], "so both have been read"
        seen.script = signed
        for asked in seen.queries:
            asked.reply(signed(asked))
        assert [record.rtype for record in wire.read(plain.recv(4096)).answer] == [1]
        assert [record.rtype for record in wire.read(validating.recv(4096)).answer] == [1, 46]


def test_a_failure_of_the_upstream_is_passed_on(resolver: Asking, seen: StubUpstream):
    """RFC 1035 section 4.1.1: SERVFAIL and NXDOMAIN stay what they are."""
    for rcode, text in ((2, "SERVFAIL"), (3, "NXDOMAIN")):
        seen.script = lambda asked, rcode=rcode: asked.response(rcode=rcode)
        assert resolver.query(free()).rcode == text
