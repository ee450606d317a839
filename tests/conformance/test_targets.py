"""Targets of upstream responses are checked (trap 12): no CNAME and no HTTPS record bypasses a block."""

import struct
from collections.abc import Callable

import pytest

from . import wire
from .harness import CLOSED_UPSTREAM, ISSUER, ORDERS_ZONE, PROFILES, Subject, is_forwarded, is_sinkholed
from .orders import block, exempt, unblock
from .upstreams import Asked, StubUpstream

BLOCKED = "cloaked.example"
ALIAS = "harmless.example"


def cname(owner: str, target: str) -> bytes:
    return wire.record(owner, "CNAME", wire.name_to_wire(target))


def https(priority: int, target: str, rtype: str | int = "HTTPS") -> Callable[[Asked], bytes]:
    rdata = struct.pack("!H", priority) + wire.name_to_wire(target)
    return lambda asked: asked.response([wire.record(asked.name, rtype, rdata)])


def chain(*names: str) -> Callable[[Asked], bytes]:
    """From the queried name over `names` to an address."""

    def script(asked: Asked) -> bytes:
        owners = [asked.name, *names]
        records = [cname(owner, target) for owner, target in zip(owners, names, strict=False)]
        return asked.response([*records, wire.address_record(owners[-1], "198.51.100.7")])

    return script


def start(
    subject: Subject, upstream: StubUpstream, script: Callable[[Asked], bytes], **config: object
) -> None:
    upstream.script = script
    config.setdefault("orders", [block("B-1", [BLOCKED])])
    subject.start(upstreams=[upstream.address], **config)


@pytest.mark.parametrize(
    "names",
    [
        (BLOCKED,),
        (f"edge.{BLOCKED}",),
        (BLOCKED.upper(),),
        ("one.example", BLOCKED, "two.example"),
        (*(f"n{number}.example" for number in range(15)), BLOCKED),
    ],
)
def test_a_cname_with_a_blocked_target_is_answered_as_a_blocked_name(
    subject: Subject, upstream: StubUpstream, names: tuple[str, ...]
):
    """draft-vixie-dnsop-dns-rpz section 5.1, trap 12: no part of the chain is seen."""
    start(subject, upstream, chain(*names))
    for transport in ("udp", "tcp"):
        reply = subject.query(ALIAS, transport=transport, edns=True)
        assert is_sinkholed(reply)
        assert {record.owner for record in reply.answer} == {f"{ALIAS}."}
        assert reply.extended_errors == {4: "", 16: "B-1"}
    assert subject.query(ALIAS, "TXT").is_nodata
    assert subject.query(ALIAS, "TXT").soa.owner == f"{ALIAS}."
    assert subject.metrics().total("dnsblock_blocked_total", zone="ministry") == 4


def test_a_dname_with_a_blocked_target_is_answered_as_a_blocked_name(
    subject: Subject, upstream: StubUpstream
):
    """RFC 6672: the response has the DNAME and the CNAME made from it."""

    def script(asked: Asked) -> bytes:
        dname = wire.record("tree.example", 39, wire.name_to_wire(BLOCKED))
        made = cname(asked.name, f"x.{BLOCKED}")
        return asked.response([dname, made, wire.address_record(f"x.{BLOCKED}", "198.51.100.7")])

    start(subject, upstream, script)
    assert is_sinkholed(subject.query("x.tree.example"))


@pytest.mark.parametrize(
    ("script", "qtype"),
    [
        (https(0, BLOCKED), "HTTPS"),
        (https(1, f"svc.{BLOCKED}"), "HTTPS"),
        (https(1, BLOCKED, "SVCB"), "SVCB"),
    ],
)
def test_an_https_record_with_a_blocked_target_is_not_passed_on(
    subject: Subject, upstream: StubUpstream, script: Callable[[Asked], bytes], qtype: str
):
    """RFC 9460 section 2.4: AliasMode and ServiceMode both name a target that the client goes to."""
    start(subject, upstream, script)
    reply = subject.query(ALIAS, qtype, edns=True)
    assert reply.is_nodata
    assert 16 in reply.extended_errors


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("above", ["allow", "orders"])
def test_an_allowed_https_target_exempts_no_blocked_one(
    subject: Subject, upstream: StubUpstream, above: str, turned: bool
):
    """RFC 9460 section 2.4.1: records of an RRset are a choice, and no chain; a client may take any."""
    allow = {"name": "allow", "list": "allow.txt", "answer": "passthru"}
    zones = [allow, ORDERS_ZONE] if above == "allow" else [ORDERS_ZONE, allow]

    def script(asked: Asked) -> bytes:
        records = [
            wire.record(asked.name, "HTTPS", struct.pack("!H", priority) + wire.name_to_wire(target))
            for priority, target in ((1, BLOCKED), (2, "cdn.example"))
        ]
        return asked.response(reversed(records) if turned else records)

    start(subject, upstream, script, zones=zones, lists={"allow.txt": ["cdn.example"]})
    assert subject.query(ALIAS, "HTTPS").is_nodata


def test_the_target_of_a_dname_is_computed_from_the_queried_name(subject: Subject, upstream: StubUpstream):
    """RFC 6672 section 2.2: one name is blocked, and the target is below it."""

    def script(asked: Asked) -> bytes:
        dname = wire.record("tree.example", 39, wire.name_to_wire(BLOCKED))
        return asked.response([dname, cname(asked.name, f"x.{BLOCKED}")])

    start(subject, upstream, script, orders=[block("B-1", [{"name": BLOCKED, "match": "exact"}])])
    assert len(subject.query("x.tree.example").answer) == 2
    subject.put_order(block("B-2", [{"name": BLOCKED, "match": "below"}]))
    subject.reload()
    assert is_sinkholed(subject.query("x.tree.example"))


def test_a_dname_without_its_cname_is_checked(subject: Subject, upstream: StubUpstream):
    """RFC 6672 section 3.4: a resolver may make the CNAME itself."""
    dname = wire.record("tree.example", 39, wire.name_to_wire(BLOCKED))
    start(subject, upstream, lambda asked: asked.response([dname]))
    assert is_sinkholed(subject.query("x.tree.example"))
    assert len(subject.query("tree.example", 39).answer) == 1, "of the owner itself it exchanges nothing"


def test_a_record_of_an_unrelated_owner_is_not_a_target(subject: Subject, upstream: StubUpstream):
    """RFC 1034 section 3.6.2: a chain is one of owners; other records were not queried."""
    start(
        subject,
        upstream,
        lambda asked: asked.response(
            [wire.address_record(asked.name, "198.51.100.7"), cname("stray.example", BLOCKED)]
        ),
    )
    assert subject.query(ALIAS).addresses == ["198.51.100.7"]


def test_a_chain_in_any_order_is_followed(subject: Subject, upstream: StubUpstream):
    """RFC 1034 section 3.6.2 gives records no order, and some clients need none."""
    start(
        subject,
        upstream,
        lambda asked: asked.response([cname("one.example", BLOCKED), cname(asked.name, "one.example")]),
    )
    assert is_sinkholed(subject.query(ALIAS))


@pytest.mark.parametrize("rcode", [0, 3, 5, 6, 9])
def test_responses_of_every_rcode_but_servfail_are_checked(
    subject: Subject, upstream: StubUpstream, rcode: int
):
    """RFC 6604 section 3: the RCODE is that of the end of the chain, not of the names before it."""
    start(subject, upstream, lambda asked: asked.response([cname(asked.name, BLOCKED)], rcode=rcode))
    assert is_sinkholed(subject.query(ALIAS))


LED_ON = {
    "HTTPS": lambda owner: wire.record(owner, "HTTPS", b"\0\1" + wire.name_to_wire(f"edge.{BLOCKED}")),
    "CNAME": lambda owner: cname(owner, f"edge.{BLOCKED}"),
    "address": lambda owner: wire.address_record(owner, "203.0.113.9"),
}
BADNETS = {"name": "badnets", "addresses": "badnets.txt", "answer": "sinkhole"}


@pytest.mark.parametrize("section", ["answer", "additional"])
@pytest.mark.parametrize("priority", [0, 1])
@pytest.mark.parametrize("what", LED_ON)
def test_additional_records_of_an_https_target_are_checked(
    subject: Subject, upstream: StubUpstream, what: str, priority: int, section: str
):
    """RFC 9460 section 4.1: a client may use additional records without another query."""
    record = struct.pack("!H", priority) + wire.name_to_wire("free.example")

    def script(asked: Asked) -> bytes:
        first = wire.record(b"\xc0\x0c", "HTTPS", record)
        beside = LED_ON[what]("free.example" if asked.name == ALIAS else "stray.example")
        if section == "answer":
            return asked.response([first, beside])
        return asked.response([first], additional=[beside])

    zones, lists = [ORDERS_ZONE, BADNETS], {"badnets.txt": ["203.0.113.0/24"]}
    start(subject, upstream, script, zones=zones, lists=lists, answers=PROFILES)
    assert subject.query(ALIAS, "HTTPS").is_nodata
    assert len(subject.query("other.example", "HTTPS").answer) > 0, "what belongs to no target leads nowhere"


@pytest.mark.parametrize("target", [".", "elsewhere.example", f"not{BLOCKED}"])
def test_an_https_record_without_a_blocked_target_is_passed_on(
    subject: Subject, upstream: StubUpstream, target: str
):
    """RFC 9460 section 2.4: the check must not drop harmless service records."""
    start(subject, upstream, https(1, "" if target == "." else target))
    assert len(subject.query(ALIAS, "HTTPS").answer) == 1


def test_a_servfail_is_never_turned_into_an_answer(subject: Subject, upstream: StubUpstream):
    """Trap 13: an upstream's SERVFAIL stays SERVFAIL, whatever its sections hold."""
    start(subject, upstream, lambda asked: asked.response([cname(asked.name, BLOCKED)], flags=wire.QR | 2))
    assert subject.query(ALIAS).rcode == "SERVFAIL"


def test_a_passthru_of_the_name_wins_over_a_block_of_its_target(subject: Subject, upstream: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 5.1: what is earlier in the chain decides."""
    zones = [{"name": "allow", "list": "allow.txt", "answer": "passthru"}, ORDERS_ZONE]
    start(subject, upstream, chain(BLOCKED), zones=zones, lists={"allow.txt": [ALIAS]})
    assert subject.query(ALIAS).addresses == ["198.51.100.7"]
    assert is_sinkholed(subject.query("other.example"))


def test_a_passthru_of_an_earlier_target_ends_the_check(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 5.1: the earlier name in the chain decides."""
    zones = [{"name": "allow", "list": "allow.txt", "answer": "passthru"}, ORDERS_ZONE]
    start(subject, upstream, chain("cdn.example", BLOCKED), zones=zones, lists={"allow.txt": ["cdn.example"]})
    assert subject.query(ALIAS).addresses == ["198.51.100.7"]


def test_a_zone_may_ignore_targets(subject: Subject, upstream: StubUpstream):
    """Switchable per zone: `targets: ignore`."""
    start(subject, upstream, chain(BLOCKED), zones=[{**ORDERS_ZONE, "targets": "ignore"}])
    assert subject.query(ALIAS).addresses == ["198.51.100.7"]
    assert is_sinkholed(subject.query(BLOCKED))


def test_an_exemption_applies_to_targets_too(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 5.1: a zone decides about a target as about a queried name."""
    start(
        subject,
        upstream,
        chain(f"cdn.{BLOCKED}"),
        orders=[block("B-1", [BLOCKED]), exempt("E-1", [f"cdn.{BLOCKED}"])],
    )
    assert subject.query(ALIAS).addresses == ["198.51.100.7"]


def test_unblocking_a_target_opens_its_aliases(subject: Subject, upstream: StubUpstream):
    """Judged at each query by the snapshot of the moment: nothing of the block is left behind."""
    start(subject, upstream, chain(BLOCKED))
    assert is_sinkholed(subject.query(ALIAS))
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert subject.query(ALIAS).addresses == ["198.51.100.7"]


@pytest.mark.parametrize(
    ("profile", "rcode", "records"),
    [
        ("nxdomain", "NOERROR", 0),
        ("nodata", "NOERROR", 0),
        ("refused", "REFUSED", 0),
    ],
)
def test_each_action_is_carried_out_for_the_queried_name(
    subject: Subject, upstream: StubUpstream, profile: str, rcode: str, records: int
):
    """NODATA for NXDOMAIN, which would deny what is below the queried name, too (RFC 8020)."""
    start(
        subject,
        upstream,
        chain(BLOCKED),
        zones=[{"name": "ministry", "issuer": ISSUER, "unsigned": "accept", "answer": profile}],
        answers=PROFILES,
    )
    reply = subject.query(ALIAS)
    assert (reply.rcode, len(reply.answer)) == (rcode, records)
    assert not reply.addresses


def test_names_without_a_blocked_target_are_unchanged(subject: Subject, upstream: StubUpstream):
    """And with the upstream gone, a blocked name is answered still."""
    start(subject, upstream, chain("fine.example", f"{BLOCKED}.fine.example"))
    reply = subject.query(ALIAS)
    assert [record.rtype for record in reply.answer] == [5, 5, 1]
    subject.stop()
    subject.start(orders=[block("B-1", [BLOCKED])], upstreams=[CLOSED_UPSTREAM])
    assert is_sinkholed(subject.query(BLOCKED))
    assert not is_forwarded(subject.query(ALIAS))
