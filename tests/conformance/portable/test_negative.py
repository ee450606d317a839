"""Negative answers: the SOA that makes them cacheable, and when NXDOMAIN is right."""

import pytest

from .. import wire
from ..asking import Asking, is_forwarded, is_sinkholed
from ..policy import (
    BELOW,
    DEEP_EXEMPT,
    EXACT,
    EXACT_NO_SUCH_NAME,
    NO_DATA,
    NO_SUCH_NAME,
    NO_SUCH_NAME_WITH_EXEMPTION,
    SINKHOLED,
    SINKHOLED4,
    TTL,
    free,
)
from ..upstreams import StubUpstream

NEGATIVE = [(SINKHOLED, "TXT"), (SINKHOLED4, "AAAA"), (NO_DATA, "A"), (NO_SUCH_NAME, "A")]


@pytest.mark.parametrize(("name", "qtype"), NEGATIVE)
def test_a_negative_answer_has_an_soa_in_the_authority_section(resolver: Asking, name: str, qtype: str):
    """Trap 7, RFC 2308 section 3: in ADDITIONAL no cache may use it (draft-vixie-dnsop-dns-rpz section 6)."""
    assert resolver.query(name, qtype).soa is not None


@pytest.mark.parametrize(("name", "qtype"), NEGATIVE)
def test_a_negative_answer_may_be_cached_as_long_as_the_block_says(resolver: Asking, name: str, qtype: str):
    """Trap 7, RFC 2308 section 5: the smaller of the SOA's TTL and MINIMUM; without one, unbound#738."""
    reply = resolver.query(name, qtype)
    found = [record for record in (*reply.authority, *reply.additional) if record.rtype == 6]
    assert [record.ttl for record in found] == [TTL]
    assert [int.from_bytes(record.rdata[-4:]) for record in found] == [TTL]


@pytest.mark.parametrize(("name", "qtype"), NEGATIVE)
def test_the_soa_of_a_negative_answer_is_at_the_name_or_above_it(resolver: Asking, name: str, qtype: str):
    """Trap 7, RFC 2308 section 3: an owner that is no ancestor of the name proves nothing about it."""
    reply = resolver.query(f"deep.{name}", qtype)
    (found,) = [record for record in (*reply.authority, *reply.additional) if record.rtype == 6]
    assert f"deep.{name}.".endswith(found.owner)


def test_the_ttl_of_a_sinkhole_is_that_of_the_policy(resolver: Asking):
    """RFC 2181 section 8: an unblocked name must come back when the TTL expires."""
    assert resolver.query(SINKHOLED).ttls == {TTL}


def test_an_exact_entry_answers_nodata_because_names_below_it_exist(resolver: Asking):
    """Trap 8, RFC 8020 section 2: NXDOMAIN would deny them."""
    reply = resolver.query(EXACT_NO_SUCH_NAME)
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert is_forwarded(resolver.query(f"cdn.{EXACT_NO_SUCH_NAME}"))


@pytest.mark.parametrize("name", [NO_SUCH_NAME_WITH_EXEMPTION, DEEP_EXEMPT.split(".", 1)[1]])
def test_a_name_above_an_exemption_answers_nodata(resolver: Asking, name: str):
    """Trap 8, RFC 8020 section 2: a cache would never ask for the exception."""
    reply = resolver.query(name)
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert is_forwarded(resolver.query(DEEP_EXEMPT))


def test_names_beside_an_exemption_stay_blocked(resolver: Asking, seen: StubUpstream):
    """Trap 8, draft-vixie-dnsop-dns-rpz section 5.3: an exception opens itself, and not its neighbours."""
    for name in (f"other.{NO_SUCH_NAME_WITH_EXEMPTION}", f"other.deep.{NO_SUCH_NAME_WITH_EXEMPTION}"):
        reply = resolver.query(name)
        assert (reply.rcode in ("NXDOMAIN", "NOERROR"), reply.answer) == (True, ())
        assert seen.asked_for(name) == []


def test_a_below_entry_does_not_cover_the_name_itself(resolver: Asking):
    """Trap 9, RFC 4592 section 2.1.1: `*.x` does not match `x`."""
    assert is_forwarded(resolver.query(BELOW))
    assert is_sinkholed(resolver.query(f"a.{BELOW}"))
    assert is_sinkholed(resolver.query(f"a.b.c.{BELOW}"))


def test_an_exact_entry_does_not_cover_names_below_it(resolver: Asking):
    """Trap 9, RFC 4592 section 2.1.1."""
    assert is_sinkholed(resolver.query(EXACT))
    assert is_forwarded(resolver.query(f"a.{EXACT}"))


def test_a_negative_answer_of_the_upstream_keeps_its_soa(resolver: Asking, seen: StubUpstream):
    """RFC 2308 section 3: NXDOMAIN of what is not blocked is as cacheable as it was."""
    soa = wire.name_to_wire("ns.up.example") * 2 + b"".join(n.to_bytes(4) for n in (7, 3600, 900, 604800, 60))
    seen.script = lambda asked: asked.response(
        authority=[wire.record("example", "SOA", soa, ttl=60)], rcode=3
    )
    reply = resolver.query(free())
    assert (reply.rcode, reply.answer, reply.soa.owner, reply.soa.ttl) == ("NXDOMAIN", (), "example.", 60)
