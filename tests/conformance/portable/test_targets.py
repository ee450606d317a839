"""Targets of an upstream's response: no alias and no service record bypasses a block."""

import struct

import pytest

from .. import wire
from ..asking import SINKHOLE4, SINKHOLE6, Asking, is_sinkholed
from ..policy import EXEMPT, NO_SUCH_NAME, PASSED, SINKHOLED, SINKHOLED4, WITH_EXEMPTION, free
from ..upstreams import StubUpstream, decent
from .chains import dname, leads, loops, service


@pytest.mark.parametrize(
    "targets",
    [
        (SINKHOLED,),
        (f"edge.{SINKHOLED}",),
        (SINKHOLED.upper(),),
        ("", SINKHOLED, ""),
        (*[""] * 8, SINKHOLED),
    ],
    ids=["target", "below", "upper case", "middle", "ninth"],
)
def test_an_alias_of_a_blocked_name_gets_the_sinkhole(
    resolver: Asking, seen: StubUpstream, targets: tuple[str, ...]
):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 5.1: CNAME cloaking; blockconvert#48."""
    for qtype, address in (("A", SINKHOLE4), ("AAAA", SINKHOLE6)):
        alias = free()
        seen.script = leads(alias, *(target or free("links.example") for target in targets))
        assert resolver.query(alias, qtype).addresses == [address]


def test_a_cached_alias_is_checked_again(resolver: Asking, seen: StubUpstream):
    """Traps 11 and 12, draft-vixie-dnsop-dns-rpz section 5.1: no cache of the chain is a way around."""
    alias = free()
    seen.script = leads(alias, SINKHOLED)
    assert resolver.query(alias).addresses == [SINKHOLE4]
    assert resolver.query(alias, "AAAA").addresses == [SINKHOLE6]


def test_the_response_for_an_alias_has_no_part_of_the_chain(resolver: Asking, seen: StubUpstream):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 5.1: as if the queried name were blocked itself."""
    alias = free()
    seen.script = leads(alias, SINKHOLED)
    reply = resolver.query(alias)
    assert is_sinkholed(reply)
    assert [record.owner for record in reply.answer] == [f"{alias}."]


def test_an_alias_of_a_name_with_an_ipv4_sinkhole_has_no_ipv6_address(resolver: Asking, seen: StubUpstream):
    """Traps 2 and 12, RFC 2308 section 2.2."""
    alias = free()
    seen.script = leads(alias, SINKHOLED4)
    assert resolver.query(alias, "AAAA").addresses == []


def test_an_alias_of_a_name_that_does_not_exist_exists(resolver: Asking, seen: StubUpstream):
    """Traps 8 and 12, RFC 8020 section 2, RFC 6604: NXDOMAIN would deny what lives below the alias."""
    alias = free()
    seen.script = leads(alias, NO_SUCH_NAME)
    reply = resolver.query(alias)
    assert (reply.rcode, reply.addresses) == ("NOERROR", [])


def test_a_dname_with_a_blocked_target_is_blocked(resolver: Asking, seen: StubUpstream):
    """Trap 12, RFC 6672 section 3.1: DNAME, and the CNAME that is made of it."""
    tree = free("trees.example")
    seen.script = dname(tree, SINKHOLED)
    assert resolver.query(f"x.{tree}").addresses == [SINKHOLE4]


def test_an_exemption_of_the_name_wins_over_a_block_of_its_target(resolver: Asking, seen: StubUpstream):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 5.1: what is earlier in the chain decides."""
    alias = free(PASSED)
    seen.script = leads(alias, SINKHOLED)
    assert resolver.query(alias).addresses == ["198.51.100.7"]


def test_an_exemption_inside_a_block_applies_to_targets(resolver: Asking, seen: StubUpstream):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 5.3."""
    open_alias, closed_alias = free(), free()
    seen.script = leads(open_alias, f"cdn.{EXEMPT}")
    assert resolver.query(open_alias).addresses == ["198.51.100.7"]
    seen.script = leads(closed_alias, f"cdn.{WITH_EXEMPTION}")
    assert resolver.query(closed_alias).addresses in ([SINKHOLE4], [])


def test_an_alias_without_a_blocked_target_is_passed_on_unchanged(resolver: Asking, seen: StubUpstream):
    """Trap 12, RFC 1034 section 3.6.2: the whole chain, in its order."""
    alias = free()
    seen.script = leads(alias, "fine.example", f"{SINKHOLED}.fine.example")
    reply = resolver.query(alias)
    assert [record.rtype for record in reply.answer] == [5, 5, 1]
    assert reply.addresses == ["198.51.100.7"]


@pytest.mark.parametrize("names", [("a.loop.example",), ("b.loop.example", "c.loop.example")])
def test_a_looping_chain_ends(resolver: Asking, seen: StubUpstream, names: tuple[str, ...]):
    """Trap 12, RFC 1034 section 5.2.2: loops are bounded, and the next client is served."""
    seen.script = loops(*names)
    assert resolver.query(names[0]).addresses == []
    assert is_sinkholed(resolver.query(SINKHOLED))
    assert len(seen.asked_for(names[0])) < 20


@pytest.mark.parametrize("qtype", ["HTTPS", "SVCB"])
@pytest.mark.parametrize(
    ("priority", "target"),
    [(0, SINKHOLED), (1, SINKHOLED), (1, f"svc.{SINKHOLED}")],
    ids=["alias", "service", "service below"],
)
def test_a_service_record_with_a_blocked_target_is_not_passed_on(
    resolver: Asking, seen: StubUpstream, priority: int, target: str, qtype: str
):
    """Trap 1, RFC 9460 section 2.4: AliasMode and ServiceMode both name where the client goes."""
    alias = free()
    seen.script = service(priority, target)
    reply = resolver.query(alias, qtype)
    assert (reply.rcode, reply.answer) == ("NOERROR", ())


@pytest.mark.parametrize(
    "target", ["", "elsewhere.example", f"not{SINKHOLED}"], ids=["itself", "other", "near"]
)
def test_a_service_record_without_a_blocked_target_is_passed_on(
    resolver: Asking, seen: StubUpstream, target: str
):
    """Trap 1, RFC 9460 section 2.2: byte for byte, with its parameters."""
    parameters = [(1, b"\x02h2"), (4, bytes([203, 0, 113, 80]))]
    seen.script = service(1, target, parameters)
    (record,) = resolver.query(free(), "HTTPS").answer
    expected = struct.pack("!H", 1) + wire.name_to_wire(target)
    assert record.rdata == expected + b"".join(wire.option(*parameter) for parameter in parameters)


def test_a_cname_query_is_checked_for_its_target(resolver: Asking, seen: StubUpstream):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 5.1: a CNAME query must not reveal the target."""
    alias = free()

    def script(asked: object) -> bytes:
        if asked.qtype != wire.QTYPES["CNAME"]:
            return decent(asked)
        return asked.response([wire.record(b"\xc0\x0c", "CNAME", wire.name_to_wire(SINKHOLED))])

    seen.script = script
    assert resolver.query(alias, "CNAME").answer == ()
