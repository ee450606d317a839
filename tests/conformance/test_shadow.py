"""Zones in shadow are counted and change no response."""

import json
import threading

import pytest

from . import wire
from .caching import cname
from .harness import ORDERS_ZONE, SINKHOLE4, Subject, is_forwarded
from .orders import block, exempt
from .shadows import FORWARDED4, LATER, PASSED, SHADOW, TYPES, counted, start
from .tools import wait_for
from .upstreams import Asked, StubUpstream

# ------- No answer is another one


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_shadow_zone_changes_no_response_of_any_type(
    subject: Subject, upstream: StubUpstream, transport: str
):
    """As `policy disabled` of BIND, `rpz-action-override: disabled` of Unbound."""
    start(subject, upstream, ["planned.example"])
    types = [qtype for qtype in TYPES if (qtype, transport) != ("ANY", "udp")]  # answered here, RFC 8482
    for qtype in types:
        for name in ("planned.example", "a.b.planned.example"):
            reply = subject.query(name, qtype, transport=transport)
            assert (reply.rcode, reply.extended_errors) == ("NOERROR", {})
    assert is_forwarded(subject.query("planned.example", transport=transport))
    assert len(upstream.queries) == 2 * len(types) + 1
    assert counted(subject, action="nxdomain") == 2 * len(types) + 1
    assert subject.metrics().total("dnsblock_blocked_total") == 0


@pytest.mark.parametrize("answer", ["sinkhole", "nodata", "refused", "drop", "truncate", "landing"])
def test_no_action_of_a_shadow_zone_is_applied(subject: Subject, upstream: StubUpstream, answer: str):
    """As `policy disabled` of BIND: whatever the action, a shadow zone affects nobody."""
    profiles = {
        "sinkhole": {"action": "sinkhole", "ipv4": [SINKHOLE4]},
        "landing": {"action": "cname", "target": "landing.example."},
    }
    start(subject, upstream, ["planned.example"], shadow={"answer": answer}, answers=profiles)
    assert is_forwarded(subject.query("planned.example"))
    assert counted(subject, action={"landing": "cname"}.get(answer, answer)) == 1
    assert is_forwarded(subject.query("planned.example", transport="tcp"))
    # RPZ's TCP-Only lets pass over TCP, so nothing would have been blocked there.
    assert counted(subject) == (1 if answer == "truncate" else 2)


def test_an_exception_in_a_shadow_zone_does_not_turn_nxdomain_into_nodata(
    subject: Subject, upstream: StubUpstream
):
    """RFC 8020: NXDOMAIN is said where all below is denied, and a zone in shadow lets nothing live."""
    zones = [{**PASSED, "mode": "shadow"}, LATER]
    lists = {"own.txt": ["cdn.blocked.example"], "later.txt": ["blocked.example"]}
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address])
    for name in ("blocked.example", "cdn.blocked.example"):
        assert subject.query(name).rcode == "NXDOMAIN"
    assert subject.metrics().total("dnsblock_shadow_blocked_total") == 0


def test_nxdomain_in_a_shadow_zone_does_not_change_later_zones(subject: Subject, upstream: StubUpstream):
    """RFC 8020 section 2: only enforced zones decide between NXDOMAIN and NODATA."""
    start(
        subject,
        upstream,
        ["blocked.example"],
        after=({**LATER, "answer": "nodata"},),
        lists={"later.txt": ["blocked.example"]},
    )
    assert subject.query("x.blocked.example").is_nodata
    assert counted(subject) == 1
    assert subject.metrics().total("dnsblock_blocked_total", zone="later", action="nodata") == 1


@pytest.mark.parametrize(
    ("qtype", "records"),
    [
        (
            "A",
            [cname(b"\xc0\x0c", "planned.example"), wire.address_record("planned.example", "198.51.100.7")],
        ),
        ("HTTPS", [wire.record(b"\xc0\x0c", "HTTPS", b"\0\1" + wire.name_to_wire("planned.example"))]),
    ],
    ids=["CNAME", "HTTPS"],
)
@pytest.mark.parametrize("targets", ["judge", "ignore"])
def test_a_response_with_a_target_in_a_shadow_zone_is_passed_on_and_counted(
    subject: Subject, upstream: StubUpstream, qtype: str, records: list[bytes], targets: str
):
    """Each client's query counts once, cached or not; queries with other targets do not."""

    def script(asked: Asked) -> bytes:
        return asked.response(records if asked.name == "alias.example" else [])

    upstream.script = script
    shadow = {"targets": targets}
    start(subject, upstream, ["planned.example"], shadow=shadow, cache={"size_mb": 1})
    for transport in ("udp", "udp", "tcp"):
        reply = subject.query("alias.example", qtype, transport=transport)
        assert (reply.rcode, len(reply.answer)) == ("NOERROR", len(records))
        subject.query("other.example", qtype, transport=transport)
    assert upstream.count("alias.example") == 1, "the other clients get the cached response"
    assert counted(subject, action="nxdomain") == (3 if targets == "judge" else 0)
    subject.query("planned.example")
    assert counted(subject) == (4 if targets == "judge" else 1)


def test_a_query_counted_by_its_name_is_not_counted_by_its_target(subject: Subject, upstream: StubUpstream):
    """The counter would otherwise exceed the number of queries."""
    target = wire.name_to_wire("planned.example")
    upstream.script = lambda asked: asked.response([wire.record(asked.name, "CNAME", target)])
    start(subject, upstream, ["planned.example", "alias.example"])
    subject.query("alias.example")
    assert counted(subject) == 1


def test_an_address_in_a_shadow_zone_is_passed_on_and_counted(subject: Subject, upstream: StubUpstream):
    """A zone of addresses can be tried like a zone of names."""
    upstream.script = lambda asked: asked.address()
    zone = {"name": "planned", "addresses": "planned.txt", "answer": "nodata", "mode": "shadow"}
    lists = {"planned.txt": [FORWARDED4]}
    subject.start(zones=[zone], lists=lists, upstreams=[upstream.address], cache={"size_mb": 1})
    for _ in range(3):
        assert is_forwarded(subject.query("www.example"))
    assert counted(subject, action="nodata") == 3
    assert "shadow" in subject.cli("why", FORWARDED4, as_json=False).stdout
    explained = json.loads(subject.cli("why", FORWARDED4).stdout)
    assert (explained["verdict"], explained["covering"][0]["mode"]) == ("not blocked", "shadow")


def test_queries_answered_from_the_cache_are_counted_too(subject: Subject, upstream: StubUpstream):
    """The shadow zone must count what clients see, not what upstreams are sent."""
    start(subject, upstream, ["planned.example"], cache={"size_mb": 1})
    for _ in range(5):
        assert is_forwarded(subject.query("planned.example"))
    assert len(upstream.queries) == 1
    assert subject.metrics().total("dnsblock_queries_total", outcome="cached") == 4
    assert counted(subject) == 5


def test_a_cached_response_is_counted_for_the_clients_of_the_zone(subject: Subject, upstream: StubUpstream):
    """It was judged before for a client that the zone does not apply to."""
    upstream.script = lambda asked: asked.address()
    zone = {"name": "planned", "addresses": "planned.txt", "answer": "nodata", "mode": "shadow"}
    zone |= {"clients": ["127.0.0.2/32"]}
    lists = {"planned.txt": [FORWARDED4]}
    subject.start(zones=[zone], lists=lists, upstreams=[upstream.address], cache={"size_mb": 1}, workers=1)
    for _ in range(2):
        assert is_forwarded(subject.query("www.example"))
    with subject.udp(source="127.0.0.2") as other:
        for number in range(1, 4):
            other.send(wire.query("www.example"))
            assert is_forwarded(wire.read(other.recv(4096)))
            assert counted(subject, action="nodata") == number
    assert len(upstream.queries) == 1


# ------- What is counted


def test_a_query_matched_by_an_earlier_zone_is_not_counted(subject: Subject, upstream: StubUpstream):
    """The first match wins; a passthru is a match."""
    names = ["passed.example", "blocked.example", "both.example"]
    lists = {"own.txt": ["passed.example"], "later.txt": ["blocked.example"]}
    start(subject, upstream, names, before=(PASSED, LATER), lists=lists)
    assert is_forwarded(subject.query("passed.example"))
    assert subject.query("blocked.example").rcode == "NXDOMAIN"
    assert counted(subject) == 0
    assert is_forwarded(subject.query("both.example"))
    assert counted(subject) == 1


def test_each_shadow_zone_counts_as_if_only_it_were_enforced(subject: Subject, upstream: StubUpstream):
    """Two trials at the same time do not change each other's counts."""
    second = {**SHADOW, "name": "second", "list": "second.txt", "answer": "nodata"}
    lists = {"later.txt": ["planned.example"], "second.txt": ["planned.example"]}
    start(subject, upstream, ["planned.example"], after=(LATER, second), lists=lists)
    assert subject.query("planned.example").rcode == "NXDOMAIN"
    assert (counted(subject), counted(subject, "second")) == (1, 0)
    subject.configure(zones=[second, SHADOW], lists=lists, upstreams=[upstream.address])
    subject.reload()
    assert is_forwarded(subject.query("planned.example"))
    assert (counted(subject), counted(subject, "second")) == (2, 1)


def test_orders_in_shadow_count_blocks_and_no_exemptions(subject: Subject, upstream: StubUpstream):
    """An exemption blocks nothing, so it has nothing to count."""
    orders = [
        block("B-1", ["planned.example", {"name": "gone.example", "answer": "nxdomain"}]),
        exempt("E-1", ["open.planned.example"]),
    ]
    subject.start(zones=[{**ORDERS_ZONE, "mode": "shadow"}], orders=orders, upstreams=[upstream.address])
    for name in ("planned.example", "x.planned.example", "open.planned.example", "gone.example"):
        assert is_forwarded(subject.query(name))
    assert counted(subject, "ministry", action="sinkhole") == 2
    assert counted(subject, "ministry", action="nxdomain") == 1
    assert counted(subject, "ministry") == 3
    status = subject.status()
    assert {order["in_force"] for order in status["orders"]} == {0}
    for row in status["orders"]:
        assert row["notes"] == ["no zone enforces the orders of this issuer"]
    assert subject.reload()["notes"] == [
        "3 entries of ministry.example are in force by its orders, and no zone enforces them"
    ]


def test_refused_and_invalid_queries_are_not_counted(subject: Subject, upstream: StubUpstream):
    """A refused client, an error and a query above its limit would not have been blocked either."""
    start(
        subject,
        upstream,
        ["planned.example"],
        limits={"queries_per_second": 1, "slip": 0, "exempt": []},
        access_control={"allow": ["127.0.0.1/32"]},
    )
    with subject.udp(source="127.0.0.2") as stranger:
        stranger.send(wire.query("planned.example"))
        assert wire.read(stranger.recv(4096)).rcode == "REFUSED"
    subject.exchange(wire.query("planned.example", qclass=3))
    total = "dnsblock_queries_total"
    with subject.udp() as sock:
        for turn in range(1, 9):
            for _ in range(250):  # no more than the socket of the daemon holds
                sock.send(wire.query("planned.example"))
            sent = 2 + 250 * turn
            wait_for(lambda sent=sent: subject.metrics().total(total) == sent, "all are counted")
    metrics = subject.metrics()
    assert metrics.total("dnsblock_queries_total", outcome="limited") > 0
    assert counted(subject) == metrics.total("dnsblock_queries_total", outcome="forwarded")


def test_the_shadow_counter_exists_from_startup(subject: Subject, upstream: StubUpstream):
    """A counter that appears with its first event hides that event from rate()."""
    start(subject, upstream, ["planned.example"], after=(LATER,), lists={"later.txt": ["blocked.example"]})

    def shown() -> set[str]:
        labels = (dict(pairs) for name, pairs in subject.metrics() if name == "dnsblock_shadow_blocked_total")
        return {pairs["zone"] for pairs in labels}

    assert shown() == {"planned"}
    subject.query("planned.example")
    subject.configure(zones=[{**SHADOW, "mode": "enforce"}], upstreams=[upstream.address])
    subject.reload()
    assert subject.query("planned.example").rcode == "NXDOMAIN"
    assert (shown(), counted(subject)) == ({"planned"}, 1)


# ------- Switching, and telling


def test_a_reload_switches_the_mode_and_loses_no_query(subject: Subject, upstream: StubUpstream):
    """A shadow zone is enforced by a reload, without a restart."""
    start(subject, upstream, ["planned.example"])
    asked = {"enforced": 0, "shadow": 0}
    finished, wrong = threading.Event(), []

    def ask() -> None:
        while not finished.is_set() and not wrong:
            reply = subject.query("planned.example")
            if reply.rcode == "NXDOMAIN":
                asked["enforced"] += 1
            elif is_forwarded(reply):
                asked["shadow"] += 1
            else:
                wrong.append(reply)

    asking = threading.Thread(target=ask)
    asking.start()
    serials = [subject.ready["serial"]]
    try:
        for mode in ("enforce", "shadow") * 5:
            zones = [{**SHADOW, "mode": mode}]
            subject.configure(zones=zones, upstreams=[upstream.address])
            serials.append(subject.reload()["serial"])
    finally:
        finished.set()
        asking.join()
    assert wrong == []
    assert serials == list(range(serials[0], serials[0] + 11)), "another mode is another content"
    assert min(asked.values()) > 0
    assert subject.metrics().total("dnsblock_blocked_total", zone="planned") == asked["enforced"]
    # A query that is outstanding when a zone leaves shadow mode was counted before, and is then blocked.
    assert asked["shadow"] <= counted(subject) <= asked["shadow"] + 5


def test_status_check_and_why_show_shadow_mode(subject: Subject, upstream: StubUpstream):
    """Nobody may believe that a zone in shadow blocks anything."""
    start(
        subject,
        upstream,
        ["planned.example"],
        after=(LATER,),
        lists={"later.txt": ["x.planned.example"]},
    )
    status, checked = subject.status(), subject.cli("check").json
    for zones in (status["zones"], checked["zones"]):
        assert [(zone["name"], zone["mode"]) for zone in zones] == [
            ("planned", "shadow"),
            ("later", "enforce"),
        ]
    assert status["entries"] == 1, "only what is enforced"
    said = subject.cli("why", "x.planned.example")
    assert (said.code, said.json["verdict"], said.json["decided_by"]["zone"]) == (0, "blocked", "later")
    rows = [(row["zone"], row["mode"], row["decides"]) for row in said.json["covering"]]
    assert rows == [("planned", "shadow", False), ("later", "enforce", True)]
    said = subject.cli("why", "planned.example")
    assert (said.code, said.json["verdict"]) == (1, "not blocked")
    assert [(row["entry"], row["mode"]) for row in said.json["covering"]] == [("planned.example", "shadow")]
    assert "shadow" in subject.cli("why", "planned.example", as_json=False).stdout
    assert "shadow" in subject.cli("status", as_json=False).stdout
    assert "shadow" in subject.cli("check", as_json=False).stdout
