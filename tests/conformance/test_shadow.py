"""Zones in shadow are counted and change no answer."""

import threading

import pytest

from . import wire
from .harness import ORDERS_ZONE, SINKHOLE4, Subject, is_forwarded
from .orders import block, exempt
from .tools import wait_for
from .upstreams import Asked, StubUpstream

SHADOW = {"name": "planned", "list": "planned.txt", "answer": "nxdomain", "mode": "shadow"}
PASSED = {"name": "own", "list": "own.txt", "answer": "passthru"}
LATER = {"name": "later", "list": "later.txt", "answer": "nxdomain"}
TYPES = ("A", "AAAA", "TXT", "HTTPS", "MX", "ANY")


def counted(subject: Subject, zone: str = "planned", **labels: str) -> float:
    return subject.metrics().total("dnsblock_shadow_blocked_total", zone=zone, **labels)


def start(
    subject: Subject,
    upstream: StubUpstream,
    names: list[str],
    *,
    before: tuple = (),
    after: tuple = (),
    **more,
) -> None:
    """A zone in shadow that lists these names, between zones that are enforced."""
    lists = {"planned.txt": names, **more.pop("lists", {})}
    zones = [*before, {**SHADOW, **more.pop("shadow", {})}, *after]
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address], **more)


# ------- No answer is another one


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_shadow_changes_no_answer_of_any_type(subject: Subject, upstream: StubUpstream, transport: str):
    """As `policy disabled` of BIND, `rpz-action-override: disabled` of Unbound: a try harms nobody."""
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
def test_no_action_of_a_shadow_is_carried_out(subject: Subject, upstream: StubUpstream, answer: str):
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


def test_an_exception_in_a_shadow_shields_no_name_from_nxdomain(subject: Subject, upstream: StubUpstream):
    """RFC 8020: NXDOMAIN is said where all below is denied, and a zone in shadow lets nothing live."""
    zones = [{**PASSED, "mode": "shadow"}, LATER]
    lists = {"own.txt": ["cdn.blocked.example"], "later.txt": ["blocked.example"]}
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address])
    for name in ("blocked.example", "cdn.blocked.example"):
        assert subject.query(name).rcode == "NXDOMAIN"
    assert subject.metrics().total("dnsblock_shadow_blocked_total") == 0


def test_a_denial_in_a_shadow_leaves_the_zone_behind_it_what_it_says(
    subject: Subject, upstream: StubUpstream
):
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
    "record",
    [
        lambda asked: wire.record(asked.name, "CNAME", wire.name_to_wire("planned.example")),
        lambda asked: wire.record(asked.name, "HTTPS", b"\0\1" + wire.name_to_wire("planned.example")),
    ],
)
def test_a_shadow_judges_no_target(subject: Subject, upstream: StubUpstream, record):
    """Counted is the queried name alone, so a target counts for nothing."""

    def script(asked: Asked) -> bytes:
        return asked.response([record(asked)])

    upstream.script = script
    start(subject, upstream, ["planned.example"])
    for qtype in ("A", "HTTPS"):
        reply = subject.query("alias.example", qtype)
        assert (reply.rcode, len(reply.answer)) == ("NOERROR", 1)
    assert subject.metrics().total("dnsblock_shadow_blocked_total") == 0


def test_cached_answers_stay_and_each_query_counts(subject: Subject, upstream: StubUpstream):
    start(subject, upstream, ["planned.example"], cache={"size_mb": 1})
    for _ in range(5):
        assert is_forwarded(subject.query("planned.example"))
    assert len(upstream.queries) == 1
    assert subject.metrics().total("dnsblock_queries_total", outcome="cached") == 4
    assert counted(subject) == 5


# ------- What is counted


def test_an_earlier_passthru_or_block_leaves_it_uncounted(subject: Subject, upstream: StubUpstream):
    """The first match wins; a passthru is a match."""
    names = ["passed.example", "blocked.example", "both.example"]
    lists = {"own.txt": ["passed.example"], "later.txt": ["blocked.example"]}
    start(subject, upstream, names, before=(PASSED, LATER), lists=lists)
    assert is_forwarded(subject.query("passed.example"))
    assert subject.query("blocked.example").rcode == "NXDOMAIN"
    assert counted(subject) == 0
    assert is_forwarded(subject.query("both.example"))
    assert counted(subject) == 1


def test_each_shadow_counts_as_if_it_alone_were_enforced(subject: Subject, upstream: StubUpstream):
    second = {**SHADOW, "name": "second", "list": "second.txt", "answer": "nodata"}
    lists = {"later.txt": ["planned.example"], "second.txt": ["planned.example"]}
    start(subject, upstream, ["planned.example"], after=(LATER, second), lists=lists)
    assert subject.query("planned.example").rcode == "NXDOMAIN"
    assert (counted(subject), counted(subject, "second")) == (1, 0)
    subject.configure(zones=[second, SHADOW], lists=lists, upstreams=[upstream.address])
    subject.reload()
    assert is_forwarded(subject.query("planned.example"))
    assert (counted(subject), counted(subject, "second")) == (2, 1)


def test_orders_in_shadow_count_their_blocks_and_no_hole(subject: Subject, upstream: StubUpstream):
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
    for told in status["orders"]:
        assert told["notes"] == ["no zone enforces the orders of this issuer"]
    assert subject.reload()["notes"] == [
        "3 entries of ministry.example are in force by its orders, and no zone enforces them"
    ]


def test_what_is_not_decided_is_not_counted(subject: Subject, upstream: StubUpstream):
    """A refused client, an error and a query above its limit would not have been blocked either."""
    start(
        subject,
        upstream,
        ["planned.example"],
        limits={"queries_per_second": 1, "slip": 0, "exempt": []},
        clients={"allow": ["127.0.0.1/32"]},
    )
    with subject.udp(source="127.0.0.2") as stranger:
        stranger.send(wire.query("planned.example"))
        assert wire.read(stranger.recv(4096)).rcode == "REFUSED"
    subject.exchange(wire.query("planned.example", qclass=3))
    with subject.udp() as sock:
        for _ in range(2000):
            sock.send(wire.query("planned.example"))
        wait_for(lambda: subject.metrics().total("dnsblock_queries_total") == 2002, "all are counted")
    metrics = subject.metrics()
    assert metrics.total("dnsblock_queries_total", outcome="limited") > 0
    assert counted(subject) == metrics.total("dnsblock_queries_total", outcome="forwarded")


def test_the_counter_is_there_from_the_start_and_stays(subject: Subject, upstream: StubUpstream):
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


def test_the_mode_is_switched_by_reload_and_no_query_is_lost(subject: Subject, upstream: StubUpstream):
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
    # What waits for its upstream when a switch comes was counted before, and is blocked then.
    assert asked["shadow"] <= counted(subject) <= asked["shadow"] + 5


def test_status_check_and_why_say_that_a_zone_is_in_shadow(subject: Subject, upstream: StubUpstream):
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
    assert (said.code, said.json["verdict"]) == (1, "not covered")
    assert [(row["entry"], row["mode"]) for row in said.json["covering"]] == [("planned.example", "shadow")]
    assert "shadow" in subject.cli("why", "planned.example", as_json=False).stdout
    assert "shadow" in subject.cli("status", as_json=False).stdout
    assert "shadow" in subject.cli("check", as_json=False).stdout


def test_a_zone_of_addresses_has_no_shadow(subject: Subject):
    zone = {"name": "badnets", "addresses": "badnets.txt", "answer": "nodata", "mode": "shadow"}
    subject.configure(zones=[zone], lists={"badnets.txt": ["192.0.2.0/24"]})
    (line,) = subject.serve_refused().refusal
    assert "mode: shadow counts names" in line
