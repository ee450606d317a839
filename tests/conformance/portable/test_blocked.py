"""Responses for a blocked name, for every type and action."""

import pytest

from .. import wire
from ..asking import SINKHOLE4, SINKHOLE6, Asking, assert_silent, is_forwarded, is_sinkholed
from ..policy import (
    BLOCK_PAGE,
    DROPPED,
    HOSTED,
    LANDED,
    LANDING,
    NO_DATA,
    NO_SUCH_NAME,
    PASSED,
    RELAY,
    SHORT,
    SINKHOLED,
    SINKHOLED4,
    TCP_ONLY,
    free,
)
from ..upstreams import StubUpstream

OTHER_TYPES = ["HTTPS", "SVCB", "TXT", "MX", "NS", "SOA", "CNAME", "TYPE65280"]
DNSSEC_TYPES = ["DS", "DNSKEY", "RRSIG", "NSEC"]
TRANSPORTS = pytest.mark.parametrize("transport", ["udp", "tcp"])


# ------- Types -----------------------------------------------------------------


@TRANSPORTS
@pytest.mark.parametrize("family", [4, 6])
def test_a_blocked_name_has_the_addresses_of_the_sinkhole(
    resolver: Asking, seen: StubUpstream, family: int, transport: str
):
    """Trap 1, draft-vixie-dnsop-dns-rpz section 3.6: local data instead of the upstream's."""
    if family not in resolver.ports:
        pytest.skip("the resolver does not listen on this family")
    assert is_sinkholed(resolver.query(SINKHOLED, transport=transport, family=family))
    six = resolver.query(SINKHOLED, "AAAA", transport=transport, family=family)
    assert (six.rcode, six.addresses) == ("NOERROR", [SINKHOLE6])
    assert seen.asked_for(SINKHOLED) == []


@TRANSPORTS
@pytest.mark.parametrize("qtype", OTHER_TYPES)
def test_no_type_of_a_blocked_name_reaches_the_upstream(
    resolver: Asking, seen: StubUpstream, qtype: str, transport: str
):
    """Trap 1, RFC 9460 section 7.3: an HTTPS record alone gives an address; blocky#165, smartdns#2466."""
    reply = resolver.query(SINKHOLED, qtype, transport=transport)
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert seen.asked_for(SINKHOLED) == []


@pytest.mark.parametrize("qtype", ["A", "HTTPS", "SVCB", "TXT", "TYPE65280"])
def test_each_type_has_the_rcode_of_the_action(resolver: Asking, seen: StubUpstream, qtype: str):
    """Trap 1, draft-vixie-dnsop-dns-rpz sections 3.1 and 3.2: NXDOMAIN and NODATA are of the name."""
    for name, rcode in ((NO_SUCH_NAME, "NXDOMAIN"), (NO_DATA, "NOERROR")):
        reply = resolver.query(name, qtype)
        assert (reply.rcode, reply.answer) == (rcode, ())
        assert seen.asked_for(name) == []


@pytest.mark.parametrize("qtype", ["A", "HTTPS"])
def test_a_port_prefix_of_a_blocked_name_is_blocked(resolver: Asking, seen: StubUpstream, qtype: str):
    """Trap 1, RFC 9460 sections 2.3 and 9.1: `_8443._https` and the name are a subdomain."""
    name = f"_8443._https.{SHORT}"
    reply = resolver.query(name, qtype)
    assert reply.addresses == ([SINKHOLE4] if qtype == "A" else [])
    assert seen.asked_for(name) == []


def test_a_sinkhole_without_ipv6_hides_the_ipv6_address(resolver: Asking, seen: StubUpstream):
    """Trap 2, RFC 2308 section 2.2: NODATA; dnsdist forwards here (pdns#11806)."""
    assert is_sinkholed(resolver.query(SINKHOLED4))
    reply = resolver.query(SINKHOLED4, "AAAA")
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert seen.asked_for(SINKHOLED4) == []


@pytest.mark.parametrize("name", [SINKHOLED, NO_SUCH_NAME, NO_DATA])
def test_an_any_query_for_a_blocked_name_never_reaches_the_upstream(
    resolver: Asking, seen: StubUpstream, name: str
):
    """RFC 8482 section 4: the profile's own answer, or a part of it."""
    reply = resolver.query(name, "ANY")
    assert reply.rcode == ("NXDOMAIN" if name == NO_SUCH_NAME else "NOERROR")
    assert set(reply.addresses) <= {SINKHOLE4, SINKHOLE6}
    assert seen.asked_for(name) == []


# ------- Actions ---------------------------------------------------------------


@TRANSPORTS
def test_a_name_with_action_drop_gets_no_response(resolver: Asking, seen: StubUpstream, transport: str):
    """draft-vixie-dnsop-dns-rpz section 3.4: DROP."""
    if transport == "udp":
        assert_silent(resolver, wire.query(DROPPED), wire.query(f"deep.{DROPPED}", "HTTPS"), ask=SINKHOLED)
    else:
        with resolver.tcp() as stream:
            behind = wire.query(SINKHOLED)
            stream.send(wire.query(DROPPED), behind)
            assert stream.reply().qid == int.from_bytes(behind[:2])
    assert seen.asked_for(DROPPED) == []


def test_a_tcp_only_name_is_truncated_over_udp_and_forwarded_over_tcp(resolver: Asking, seen: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 3.5: TCP-Only."""
    reply = resolver.query(TCP_ONLY, edns=True)
    assert (reply.truncated, reply.rcode, reply.answer) == (True, "NOERROR", ())
    assert seen.asked_for(TCP_ONLY) == []
    assert is_forwarded(resolver.query(TCP_ONLY, transport="tcp"))


def test_a_passthru_name_is_answered_by_the_upstream(resolver: Asking):
    """draft-vixie-dnsop-dns-rpz section 3.3: PASSTHRU."""
    assert is_forwarded(resolver.query(f"n.{PASSED}"))


@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS", "TXT"])
def test_a_landing_page_is_a_cname_followed_by_its_target(resolver: Asking, seen: StubUpstream, qtype: str):
    """draft-vixie-dnsop-dns-rpz section 3.6, RFC 1034 section 3.6.2: an alias, and its target."""
    reply = resolver.query(LANDED, qtype)
    assert (reply.rcode, reply.answer[0].owner, reply.target) == ("NOERROR", f"{LANDED}.", f"{LANDING}.")
    if qtype in ("A", "AAAA"):
        assert reply.addresses == ["198.51.100.7" if qtype == "A" else "2001:db8:7::7"]
    assert seen.asked_for(LANDED) == []


def test_the_block_page_is_never_blocked_itself(resolver: Asking):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 6.1: no rule is applied to what a rule made."""
    reply = resolver.query(HOSTED)
    assert (reply.rcode, reply.target, reply.addresses) == (
        "NOERROR",
        f"{BLOCK_PAGE}.",
        ["198.51.100.7"],
    )


def test_a_blocked_private_relay_is_answered_and_not_dropped(resolver: Asking):
    """NXDOMAIN or NODATA for mask.icloud.com turns it off; silence makes a client wait (dohservers#20)."""
    reply = resolver.query(RELAY)
    assert (reply.rcode, reply.answer) in (("NXDOMAIN", ()), ("NOERROR", ()))


# ------- DNSSEC ----------------------------------------------------------------


@pytest.mark.parametrize("flags", [wire.RD, wire.RD | wire.CD, wire.RD | wire.AD], ids=["", "CD", "AD"])
@pytest.mark.parametrize("do", [False, True], ids=["", "DO"])
def test_no_dnssec_flag_bypasses_a_block(resolver: Asking, seen: StubUpstream, flags: int, do: bool):
    """Trap 13, RFC 4035 section 3.2: BIND's default lets DO=1 pass, and once let CD=1 (gl#3247)."""
    reply = resolver.query(SINKHOLED, flags=flags, edns=wire.opt(do=do))
    assert is_sinkholed(reply)
    assert not reply.flags & wire.AD
    assert seen.asked_for(SINKHOLED) == []


@pytest.mark.parametrize("qtype", DNSSEC_TYPES)
def test_dnssec_types_of_a_blocked_name_are_answered_here(resolver: Asking, seen: StubUpstream, qtype: str):
    """Trap 13, RFC 4035 section 3.1.4.1: also DS, which is of the parent."""
    reply = resolver.query(SINKHOLED, qtype, edns=wire.opt(do=True))
    assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert seen.asked_for(SINKHOLED) == []


@pytest.mark.parametrize("flags", [wire.RD, wire.RD | wire.CD], ids=["", "CD"])
def test_a_response_for_a_blocked_name_never_has_a_signature(resolver: Asking, flags: int):
    """Trap 13, RFC 4035 section 3.2.1: there is none for what was made here."""
    for name in (SINKHOLED, NO_SUCH_NAME, NO_DATA):
        reply = resolver.query(name, edns=wire.opt(do=True), flags=flags)
        records = [*reply.answer, *reply.authority, *reply.additional]
        assert {record.rtype for record in records} <= {1, 6, 28}
        assert not reply.flags & wire.AD


def test_a_response_for_a_blocked_name_has_an_extended_error(resolver: Asking):
    """Trap 13, RFC 8914 section 4.16: a validating client sees a bogus answer and learns the reason."""
    for name in (SINKHOLED, NO_SUCH_NAME, NO_DATA):
        found = set(resolver.query(name, edns=wire.opt(do=True)).extended_errors)
        assert found & {4, 15, 16, 17}


def test_a_validation_failure_stays_servfail(resolver: Asking, seen: StubUpstream):
    """Trap 13, CVE-2026-50243: SERVFAIL is never turned into an answer, whatever its sections hold."""
    name = free()
    alias = wire.record(name, "CNAME", wire.name_to_wire(SINKHOLED))
    seen.script = lambda asked: asked.response([alias], rcode=2)
    reply = resolver.query(name)
    assert (reply.rcode, reply.addresses) == ("SERVFAIL", [])
