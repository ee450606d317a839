"""Zones decide in their order, whatever they match by: names, targets or addresses."""

from collections.abc import Callable

import pytest

from . import wire
from .caching import cname
from .harness import ORDERS_ZONE, PROFILES, Subject, is_forwarded, is_sinkholed
from .orders import block, exempt
from .upstreams import Asked, StubUpstream

NAME, ALIAS, TARGET = "www.example", "alias.example", "target.example"
ADDRESS = "198.51.100.7"  # what the stand-in gives
TRANSPORTS = ("udp", "tcp")
TCP_ONLY = {"name": "tcponly", "list": "tcponly.txt", "match": "subtree", "answer": "truncate"}
LATER = {"name": "later", "list": "later.txt", "match": "subtree", "answer": "nodata"}
ALLOW = {"name": "allow", "list": "allow.txt", "match": "subtree", "answer": "passthru"}
BADNETS = {"name": "badnets", "addresses": "badnets.txt", "answer": "nodata"}


def start(subject: Subject, upstream: StubUpstream, zones: list[dict], **config: object) -> None:
    lists = {
        "tcponly.txt": [NAME],
        "later.txt": [NAME],
        "allow.txt": [NAME],
        "badnets.txt": [f"{ADDRESS}/32"],
        **config.pop("lists", {}),
    }
    used = {zone.get("list") or zone.get("addresses") for zone in zones}
    lists = {name: lines for name, lines in lists.items() if name in used}
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address], answers=PROFILES, **config)


def leads(*names: str) -> Callable[[Asked], bytes]:
    """From the queried name over `names` to an address."""

    def script(asked: Asked) -> bytes:
        owners = [asked.name, *names]
        links = [cname(owner, target) for owner, target in zip(owners, names, strict=False)]
        return asked.response([*links, wire.address_record(owners[-1], ADDRESS)])

    return script


# ------- After `truncate`, a query over TCP goes on with the next zone


def test_over_tcp_the_order_below_truncate_decides(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 3.5: over TCP as if not listed, so the next zone is asked."""
    start(subject, upstream, [TCP_ONLY, ORDERS_ZONE, LATER], orders=[block("B-1", [NAME])])
    for name in (NAME, f"a.b.{NAME}"):
        reply = subject.query(name)
        assert reply.truncated
        assert not reply.answer
        assert is_sinkholed(subject.query(name, transport="tcp"))
    assert not upstream.queries
    metrics = subject.metrics()
    assert metrics.total("dnsblock_blocked_total", zone="tcponly") == 2
    assert metrics.total("dnsblock_blocked_total", zone="ministry", action="sinkhole") == 2


def test_over_tcp_an_exemption_leaves_the_decision_to_the_list_below(
    subject: Subject, upstream: StubUpstream
):
    """RPZ draft section 3.5: over TCP as if not listed; an exemption asks the next zone."""
    orders = [block("B-1", [NAME]), exempt("E-1", [f"cdn.{NAME}"])]
    start(subject, upstream, [TCP_ONLY, ORDERS_ZONE, LATER], orders=orders)
    assert subject.query(f"cdn.{NAME}").truncated
    assert subject.query(f"cdn.{NAME}", transport="tcp").is_nodata
    assert subject.metrics().total("dnsblock_blocked_total", zone="later") == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_order_above_truncate_decides_over_udp_and_tcp(
    subject: Subject, upstream: StubUpstream, transport: str
):
    """RPZ draft section 5.2: the first zone that matches decides."""
    start(subject, upstream, [ORDERS_ZONE, TCP_ONLY], orders=[block("B-1", [NAME])])
    assert is_sinkholed(subject.query(NAME, transport=transport))


def test_over_tcp_a_passthru_below_truncate_stops_the_zones_below_it(
    subject: Subject, upstream: StubUpstream
):
    """RPZ draft sections 3.3 and 3.5: after TCP-Only the next match decides, here PASSTHRU."""
    start(subject, upstream, [TCP_ONLY, ALLOW, LATER])
    assert subject.query(NAME).truncated
    assert is_forwarded(subject.query(NAME, transport="tcp"))


def test_over_tcp_every_truncate_zone_is_passed(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 3.5: each TCP-Only zone is skipped over TCP."""
    second = {**LATER, "answer": "truncate"}
    start(subject, upstream, [TCP_ONLY, second])
    assert subject.query(NAME).truncated
    assert is_forwarded(subject.query(NAME, transport="tcp"))


@pytest.mark.parametrize("cached", [False, True])
def test_over_tcp_the_zone_below_decides_about_a_target(
    subject: Subject, upstream: StubUpstream, *, cached: bool
):
    """Trap 12: a CNAME to the name is no way around the zone below."""
    upstream.script = leads(NAME)
    cache = {"size_mb": 8 if cached else 0}
    start(subject, upstream, [TCP_ONLY, ORDERS_ZONE], orders=[block("B-1", [NAME])], cache=cache)
    for _ in range(2):
        assert subject.query(ALIAS).truncated
        assert is_sinkholed(subject.query(ALIAS, transport="tcp"))
    assert (len(upstream.queries) == 1) is cached


def test_over_tcp_the_next_zone_of_addresses_decides(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 4.2.4: a zone of addresses is a zone like others."""
    wide = {"name": "wide", "addresses": "wide.txt", "answer": "truncate"}
    start(subject, upstream, [wide, BADNETS], lists={"wide.txt": ["198.51.100.0/24"]})
    assert subject.query(ALIAS).truncated
    assert subject.query(ALIAS, transport="tcp").is_nodata
    upstream.script = lambda asked: asked.address("198.51.100.8")
    assert subject.query(ALIAS, transport="tcp").addresses == ["198.51.100.8"]


def test_nxdomain_below_truncate_stays_nxdomain(subject: Subject, upstream: StubUpstream):
    """RFC 8020 section 2: truncate above excepts nothing, since over TCP the zone below decides."""
    denied = {**LATER, "answer": "nxdomain"}
    lists = {"tcponly.txt": [NAME, "x.tree.example"], "later.txt": [NAME, "tree.example"]}
    start(subject, upstream, [TCP_ONLY, denied], lists=lists)
    for name in (NAME, f"sub.{NAME}", "x.tree.example", "tree.example"):
        assert subject.query(name, transport="tcp").rcode == "NXDOMAIN", name
    assert subject.query("tree.example").rcode == "NXDOMAIN"
    assert subject.query("x.tree.example").truncated


def test_nxdomain_becomes_nodata_above_a_name_that_truncate_passes(subject: Subject, upstream: StubUpstream):
    """RFC 8020 section 2: below the denying zone nothing denies the name that passes over TCP."""
    zone = {"name": "later", "list": "later.txt", "match": "exact", "answer": "nxdomain"}
    lists = {"tcponly.txt": ["x.tree.example"], "later.txt": ["tree.example"]}
    start(subject, upstream, [TCP_ONLY, zone], lists=lists)
    assert subject.query("tree.example").is_nodata
    assert is_forwarded(subject.query("x.tree.example", transport="tcp"))


def test_a_shadow_below_truncate_counts_over_tcp_only(subject: Subject, upstream: StubUpstream):
    """The names that it would block if it were enforced: over UDP the zone above decides."""
    start(subject, upstream, [TCP_ONLY, {**LATER, "mode": "shadow"}])
    for transport in ("udp", "tcp", "tcp"):
        subject.query(NAME, transport=transport)
    assert subject.metrics().total("dnsblock_shadow_blocked_total", zone="later") == 2


def test_why_shows_what_happens_over_tcp(subject: Subject, upstream: StubUpstream):
    """One verdict for both transports would be wrong for one of them."""
    start(subject, upstream, [TCP_ONLY, ORDERS_ZONE], orders=[block("B-1", [NAME])])
    answer = subject.cli("why", NAME).json
    assert (answer["verdict"], answer["decided_by"]["zone"]) == ("blocked", "tcponly")
    over_tcp = answer["decided_over_tcp_by"]
    assert (answer["verdict_over_tcp"], over_tcp["zone"], over_tcp["orders"]) == (
        "blocked",
        "ministry",
        ["B-1"],
    )
    assert [(e["decides"], e["decides_over_tcp"]) for e in answer["covering"]] == [
        (True, False),
        (False, True),
    ]
    said = subject.cli("why", NAME, as_json=False).stdout
    assert "  over TCP: blocked by zone ministry, action sinkhole" in said.splitlines()
    subject.put_list("tcponly.txt", ["elsewhere.example"])
    subject.reload()
    answer = subject.cli("why", "elsewhere.example").json
    assert (answer["verdict"], answer["verdict_over_tcp"]) == ("blocked", "not blocked")
    assert answer["decided_over_tcp_by"] is None
    answer = subject.cli("why", NAME).json
    assert answer["decided_by"] == answer["decided_over_tcp_by"]


def test_why_of_an_address_shows_what_happens_over_tcp(subject: Subject, upstream: StubUpstream):
    """One verdict for both transports would be wrong for one of them."""
    wide = {"name": "wide", "addresses": "wide.txt", "answer": "truncate"}
    start(subject, upstream, [wide, BADNETS], lists={"wide.txt": ["198.51.100.0/24"]})
    answer = subject.cli("why", ADDRESS).json
    assert answer["decided_by"]["zone"] == "wide"
    assert (answer["verdict_over_tcp"], answer["decided_over_tcp_by"]["zone"]) == ("blocked", "badnets")


# ------- A passthru frees from its own zone and those below it, not from those above


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("allow_is_above", [False, True])
def test_the_first_of_a_passthru_and_a_zone_of_addresses_decides(
    subject: Subject, upstream: StubUpstream, *, allow_is_above: bool, cached: bool, transport: str
):
    """RPZ draft section 5.2: zones in their order, whatever they match by; so do BIND and PowerDNS."""
    zones = [ALLOW, BADNETS] if allow_is_above else [BADNETS, ALLOW]
    start(subject, upstream, zones, cache={"size_mb": 8 if cached else 0})
    for _ in range(3):
        reply = subject.query(NAME, transport=transport)
        assert is_forwarded(reply) if allow_is_above else reply.is_nodata
        assert subject.query("other.example", transport=transport).is_nodata
    assert len(upstream.queries) == (2 if cached else 6)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("allow_is_above", [False, True])
def test_the_first_of_a_passthru_and_the_zone_of_its_target_decides(
    subject: Subject, upstream: StubUpstream, *, allow_is_above: bool, transport: str
):
    """RPZ draft section 5.2: zones in their order, whatever they match by."""
    zones = [ALLOW, ORDERS_ZONE] if allow_is_above else [ORDERS_ZONE, ALLOW]
    upstream.script = leads(TARGET)
    start(subject, upstream, zones, orders=[block("B-1", [TARGET])])
    reply = subject.query(NAME, transport=transport)
    assert reply.addresses == [ADDRESS] if allow_is_above else is_sinkholed(reply)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("allow_is_above", [False, True])
def test_a_passthru_of_a_target_exempts_from_no_zone_above_it(
    subject: Subject, upstream: StubUpstream, *, allow_is_above: bool, cached: bool, transport: str
):
    """RPZ draft section 5.2: a member of the chain is listed, and its address in a zone above or below."""
    zones = [ALLOW, BADNETS] if allow_is_above else [BADNETS, ALLOW]
    upstream.script = leads("one.example", NAME, TARGET)
    start(subject, upstream, zones, cache={"size_mb": 8 if cached else 0})
    for _ in range(2):
        reply = subject.query(ALIAS, transport=transport)
        assert reply.addresses == [ADDRESS] if allow_is_above else reply.is_nodata


@pytest.mark.parametrize("order", [("court", "allow", "later"), ("later", "allow", "court")])
def test_a_passthru_between_two_zones_exempts_from_the_lower_one(
    subject: Subject, upstream: StubUpstream, order: tuple[str, ...]
):
    """Of two members behind the one that passes, that of the zone above blocks, and the other does not."""
    court = {"name": "court", "list": "court.txt", "answer": "sinkhole"}
    known = {"court": court, "allow": ALLOW, "later": LATER}
    lists = {"court.txt": ["of-court.example"], "later.txt": ["of-later.example"]}
    start(subject, upstream, [known[name] for name in order], lists=lists)
    for zone in ("court", "later"):
        upstream.script = leads(f"of-{zone}.example")
        reply = subject.query(NAME)
        blocks = order[0] == zone
        assert (reply.addresses == [ADDRESS]) is not blocks
        upstream.script = leads(NAME, f"of-{zone}.example")
        assert (subject.query(ALIAS).addresses == [ADDRESS]) is not blocks


@pytest.mark.parametrize("allow_is_above", [False, True])
def test_addresses_of_an_allowed_service_are_checked_by_the_zones_above(
    subject: Subject, upstream: StubUpstream, *, allow_is_above: bool
):
    """RFC 9460 section 4.1: a client may use the addresses in the additional section."""

    def script(asked: Asked) -> bytes:
        https = wire.record(asked.name, "HTTPS", b"\0\x01" + wire.name_to_wire(NAME))
        return asked.response([https], additional=[wire.address_record(NAME, ADDRESS)])

    upstream.script = script
    start(subject, upstream, [ALLOW, BADNETS] if allow_is_above else [BADNETS, ALLOW])
    reply = subject.query(ALIAS, "HTTPS")
    assert len(reply.answer) == 1 if allow_is_above else reply.is_nodata


@pytest.mark.parametrize("allow_is_above", [False, True])
def test_other_records_of_an_allowed_response_are_checked_by_the_zones_above(
    subject: Subject, upstream: StubUpstream, *, allow_is_above: bool
):
    """RPZ draft section 5.2: a passthru ends the search for zones below it only."""

    def script(asked: Asked) -> bytes:
        mx = wire.record(asked.name, "MX", b"\0\x0a" + wire.name_to_wire("mail.example"))
        return asked.response([mx], additional=[wire.address_record("mail.example", ADDRESS)])

    upstream.script = script
    start(subject, upstream, [ALLOW, BADNETS] if allow_is_above else [BADNETS, ALLOW])
    reply = subject.query(NAME, "MX")
    assert (len(reply.answer), len(reply.additional)) == (1, int(allow_is_above))


def test_a_cached_response_is_checked_for_each_name_and_zone_order(subject: Subject, upstream: StubUpstream):
    """A cached response that passed for an allowed name has not passed for others, nor for later zones."""
    start(subject, upstream, [ALLOW, BADNETS], cache={"size_mb": 8})
    for _ in range(2):
        assert is_forwarded(subject.query(NAME))
        assert subject.query("other.example").is_nodata
        subject.put_list("allow.txt", ["other.example"])
        subject.reload()
        assert subject.query(NAME).is_nodata
        assert is_forwarded(subject.query("other.example"))
        subject.put_list("allow.txt", [NAME])
        subject.reload()
    assert len(upstream.queries) == 2


def test_an_exemption_applies_only_to_its_own_zone(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 5.2: the search continues with the next zone."""
    orders = [block("B-1", [NAME]), exempt("E-1", [f"cdn.{NAME}"])]
    start(subject, upstream, [ORDERS_ZONE, BADNETS], orders=orders)
    assert is_sinkholed(subject.query(NAME))
    assert subject.query(f"cdn.{NAME}").is_nodata


@pytest.mark.parametrize("shadow_is_above", [False, True])
def test_a_shadow_zone_of_addresses_counts_an_allowed_name_only_from_above(
    subject: Subject, upstream: StubUpstream, *, shadow_is_above: bool
):
    """As if it were enforced: below the passthru it would block nothing."""
    shadow = {**BADNETS, "mode": "shadow"}
    zones = [shadow, ALLOW] if shadow_is_above else [ALLOW, shadow]
    start(subject, upstream, zones, cache={"size_mb": 8})
    for _ in range(2):
        assert is_forwarded(subject.query(NAME))
    assert subject.metrics().total("dnsblock_shadow_blocked_total", zone="badnets") == 2 * shadow_is_above
