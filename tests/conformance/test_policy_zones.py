"""Policy zones in RPZ format, whose records say the answers (trap 19)."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from . import wire
from .asking import assert_silent, is_forwarded
from .harness import Subject
from .lists import ANY_CHANGE, DAY, accept, events, refused_by, reports, roll_back, sha256, source, versions
from .policy_zones import chain, owners, rpz, start, zone_text
from .tools import wait_for
from .upstreams import Asked, StubUpstream

BLOCKED_EDE = 15  # RFC 8914 section 4.16


# ------- Answers --------------------------------------------------------------------------

ACTIONS = [
    "nx.t.example CNAME .",
    "nodata.t.example CNAME *.",
    "pass.t.example CNAME rpz-passthru.",
    "drop.t.example CNAME rpz-drop.",
    "tcp.t.example CNAME rpz-tcp-only.",
    "data.t.example A 203.0.113.1",
    "data.t.example A 203.0.113.2",
    "data.t.example TXT why",
    "short.t.example 5 A 203.0.113.1",
    "to.t.example CNAME landing.isp.example.",
    "under.t.example CNAME *.garden.example.",
]


@pytest.fixture(scope="module")
def given(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, shared_upstream, rpz(), files={"rpz.zone": ACTIONS})
    return shared_subject


def test_the_records_say_the_answers(given: Subject):
    """draft-vixie-dnsop-dns-rpz section 3; NXDOMAIN is also for an exact trigger, as in BIND."""
    assert given.query("nx.t.example").rcode == "NXDOMAIN"
    assert given.query("nodata.t.example").is_nodata
    assert is_forwarded(given.query("pass.t.example"))
    assert given.query("data.t.example").addresses == ["203.0.113.1", "203.0.113.2"]
    assert given.query("data.t.example", "TXT").answer[0].rdata == b"\x03why"
    assert given.query("data.t.example", "MX").is_nodata
    assert given.query("tcp.t.example").truncated
    assert is_forwarded(given.query("tcp.t.example", transport="tcp"))
    target = given.query("under.t.example").answer[0].rdata
    assert target == wire.name_to_wire("under.t.example.garden.example")
    assert is_forwarded(given.query("x.nx.t.example"))
    assert_silent(given, wire.query("drop.t.example"), ask="nx.t.example")


def test_no_answer_of_a_record_lives_longer_than_max_ttl(given: Subject):
    """A block that ends is gone from caches within 30 seconds, whatever the zone's TTLs are."""
    assert given.query("data.t.example").ttls == {30}
    assert given.query("short.t.example").ttls == {5}
    soa = given.query("nx.t.example").soa
    assert (soa.ttl, soa.minimum) == (30, 30)


def test_a_rewritten_answer_has_an_extended_error(given: Subject):
    """RFC 8914 section 4.16: Blocked, by the operator's own policy."""
    assert BLOCKED_EDE in given.query("nx.t.example", edns=True).extended_errors
    assert given.query("pass.t.example", edns=True).extended_errors == {}


def test_the_zone_of_a_decision_is_named(given: Subject):
    """`dnsblock why` and the metrics say the zone and the action."""
    said = given.cli("why", "nx.t.example").json
    assert (said["verdict"], said["decided_by"]["zone"], said["decided_by"]["action"]) == (
        "blocked",
        "rpz",
        "nxdomain",
    )
    data = given.cli("why", "data.t.example").json["decided_by"]
    assert (data["action"], data["records"][:2]) == ("data", ["30 A 203.0.113.1", "30 A 203.0.113.2"])
    shown = given.cli("why", "data.t.example", as_json=False).stdout
    assert "  action data\n  record 30 A 203.0.113.1\n" in shown
    assert given.cli("why", "pass.t.example").json["verdict"] == "passthru"
    assert given.cli("why", "x.nx.t.example").json["verdict"] == "not blocked"
    tcp_only = given.cli("why", "tcp.t.example").json
    assert (tcp_only["verdict"], tcp_only["verdict_over_tcp"]) == ("blocked", "passthru")
    assert (
        "  over TCP: passthru by zone rpz, action truncate\n"
        in given.cli("why", "tcp.t.example", as_json=False).stdout
    )
    count = given.metrics().total("dnsblock_blocked_total", zone="rpz", action="data")
    given.query("data.t.example")
    given.wait_for_metric("dnsblock_blocked_total", count + 1, zone="rpz", action="data")


def test_an_answer_profile_overrides_all_records(subject: Subject, upstream: StubUpstream):
    """As `policy` in BIND's response-policy: passthru records are overridden, too."""
    start(subject, upstream, rpz(answer="nodata"), files={"rpz.zone": ACTIONS})
    for record in ACTIONS:
        assert subject.query(record.partition(" ")[0]).is_nodata, record


def test_a_shadow_zone_decides_nothing(subject: Subject, upstream: StubUpstream):
    """As `policy disabled` in BIND; what it would block is counted."""
    start(subject, upstream, rpz(mode="shadow"), files={"rpz.zone": ACTIONS})
    assert is_forwarded(subject.query("nx.t.example"))
    subject.wait_for_metric("dnsblock_shadow_blocked_total", zone="rpz", action="nxdomain")


# ------- Order of decisions ---------------------------------------------------------------


def test_a_name_decides_before_anything_is_forwarded(subject: Subject, upstream: StubUpstream):
    """A blocked name never reaches an upstream, even if an earlier zone has addresses.

    BIND with `qname-wait-recurse no` asks the upstream in that case: its answer may have such an address.
    """
    zones = {
        "first.zone": ["32.7.100.51.198.rpz-ip CNAME rpz-passthru."],
        "second.zone": ["a.example CNAME ."],
    }
    start(subject, upstream, rpz("first"), rpz("second"), files=zones)
    upstream.forget()
    assert subject.query("a.example").rcode == "NXDOMAIN"
    assert upstream.count("a.example") == 0


def test_an_address_of_an_earlier_zone_lets_the_name_pass(subject: Subject, upstream: StubUpstream):
    """The name at the end of a chain and its addresses are judged together: the first zone decides."""
    zones = {
        "first.zone": ["32.7.100.51.198.rpz-ip CNAME rpz-passthru."],
        "second.zone": ["end.example CNAME ."],
    }
    start(subject, upstream, rpz("first"), rpz("second"), files=zones)
    upstream.script = lambda asked: asked.response(chain(asked.name, "end.example"))
    assert subject.query("a.example").addresses == ["198.51.100.7"]
    assert subject.query("end.example").rcode == "NXDOMAIN"


def test_of_equal_prefixes_the_smallest_address_decides(subject: Subject, upstream: StubUpstream):
    """Draft-vixie-dnsop-dns-rpz section 5.7. BIND 9.18 takes the smaller name, here that of 203.0.9.0."""
    records = ["24.0.100.51.198.rpz-ip A 192.0.2.1", "24.0.9.0.203.rpz-ip A 192.0.2.2"]
    start(subject, upstream, rpz(), files={"rpz.zone": records})
    upstream.script = lambda asked: asked.response(
        chain(asked.name, addresses=["203.0.9.1", "198.51.100.1", "198.18.0.1"])
    )
    assert subject.query("a.example").addresses == ["192.0.2.1"]


def test_the_chain_before_a_blocked_member_stays(subject: Subject, upstream: StubUpstream):
    """As BIND leaves it: the answer of the member follows the CNAME records that lead to it."""
    records = [
        "member.example CNAME .",
        "data.example A 192.0.2.1",
        "landing.example CNAME page.isp.example.",
        "24.0.100.51.198.rpz-ip CNAME *.",
    ]
    start(subject, upstream, rpz(), files={"rpz.zone": records}, cache={"size_mb": 1})

    def script(asked: Asked) -> bytes:
        if asked.name.startswith("to-"):
            middle = asked.name.removeprefix("to-")
            return asked.response(chain(asked.name, middle, f"end.{middle}"))
        return asked.address("192.0.2.99")

    upstream.script = script
    for _ in range(2):  # the second time from the cache
        reply = subject.query("to-member.example")
        assert (reply.rcode, owners(reply)) == ("NXDOMAIN", [("to-member.example", 5)])
        reply = subject.query("to-data.example")
        assert owners(reply) == [("to-data.example", 5), ("data.example", 1)]
        reply = subject.query("to-landing.example")
        expected = [("to-landing.example", 5), ("landing.example", 5), ("page.isp.example", 1)]
        assert owners(reply) == expected
        reply = subject.query("to-other.example")
        assert (reply.rcode, owners(reply)) == (
            "NOERROR",
            [("to-other.example", 5), ("other.example", 5)],
        )
        assert reply.soa.owner.rstrip(".") == "end.other.example"


# ------- Files ----------------------------------------------------------------------------


def test_a_bad_record_costs_itself(subject: Subject, upstream: StubUpstream):
    """It is counted and reported with its line and reason; a name server trigger is not applicable."""
    records = [
        "a.example CNAME .",
        "24.1.2.0.192.rpz-ip CNAME .",
        "a..example CNAME .",
        "a.example A 192.0.2.1",
        "com CNAME .",
        "ns.example.rpz-nsdname CNAME .",
        "b.example CNAME .",
    ]
    guards = {"rejected_percent": "off"}
    start(subject, upstream, rpz(source={"guards": guards}), files={"rpz.zone": records})
    report = reports(subject.cli("check"))["rpz"]
    reported = {(one["line"], one["code"]) for one in report["reported"]}
    assert reported == {
        (5, "host_bits"),
        (6, "empty_label"),
        (7, "conflict"),
        (8, "top_level"),
        (9, "name_server_trigger"),
    }
    assert (report["accepted"], report["rejected"], report["not_applicable"]) == (2, 4, 1)
    assert [subject.query(name).rcode for name in ("a.example", "b.example")] == ["NXDOMAIN"] * 2


GUARDED = {
    "too many bad records": (zone_text(*["a..example CNAME ."] * 10), "TOO_MANY_REJECTED"),
    "no SOA": ("a.example CNAME .\n", "NO_SOA"),
    "a web page": ("<html>\n", "HTML"),
    "a line that is cut": (zone_text("a.example CNAME .")[:-1], "TRUNCATED"),
    "most triggers gone": (zone_text("n0.example CNAME ."), "SHRANK"),
    "far more triggers": (zone_text(*(f"n{n}.example CNAME ." for n in range(900))), "GREW"),
    "another digest": (
        zone_text("@ ZONEMD 7 1 1 " + "00" * 48, *(f"n{n}.example CNAME ." for n in range(200))),
        "ZONEMD",
    ),
}


@pytest.mark.parametrize(("text", "code"), GUARDED.values(), ids=GUARDED)
def test_a_suspicious_zone_is_rejected_and_the_last_version_stays(
    subject: Subject, upstream: StubUpstream, text: str, code: str
):
    """The guards of lists; its content can be accepted by its digest, as that of lists."""
    records = [f"n{n}.example CNAME ." for n in range(200)]
    start(subject, upstream, rpz(source={"every_s": DAY}), files={"rpz.zone": records})
    before = subject.status()
    subject.put_list("rpz.zone", text)
    said = subject.cli("reload")
    assert code in refused_by(subject, "rpz"), said
    assert subject.status()["digest"] == before["digest"]
    assert subject.query("n199.example").rcode == "NXDOMAIN"
    subject.restart()
    assert subject.query("n199.example").rcode == "NXDOMAIN", "after a restart, too"
    if code != "HTML":
        assert accept(subject, sha256(text), zone="rpz").code == 0
        assert refused_by(subject, "rpz") == []


def test_an_empty_zone_is_no_mistake(subject: Subject, upstream: StubUpstream):
    """A list without names is; a zone says by its SOA record that it is complete."""
    start(subject, upstream, rpz(source={"every_s": 1}), files={"rpz.zone": []})
    assert is_forwarded(subject.query("a.example"))
    subject.put_list("rpz.zone", zone_text("a.example CNAME .", serial=8))
    wait_for(lambda: subject.query("a.example").rcode == "NXDOMAIN", "the new record")
    subject.put_list("rpz.zone", zone_text(serial=9))
    wait_for(lambda: is_forwarded(subject.query("a.example")), "none again")


def test_a_change_is_noticed_and_recorded_with_each_trigger(subject: Subject, upstream: StubUpstream):
    """History and `diff` have names and prefixes, not what their records say."""
    first = ["a.example CNAME .", "b.example CNAME .", "32.1.2.0.192.rpz-ip CNAME ."]
    zone = rpz(source={"every_s": 1, "guards": ANY_CHANGE})
    start(subject, upstream, zone, files={"rpz.zone": first})
    second = ["a.example CNAME *.", "b.example CNAME .", "32.2.2.0.192.rpz-ip CNAME ."]
    subject.put_list("rpz.zone", zone_text(*second, serial=8))
    wait_for(lambda: subject.query("a.example").is_nodata, "the new answer")
    wait_for(lambda: subject.cli("diff", "1", "2").code == 0, "the serial is recorded after it answers")
    assert [one["version"] for one in versions(subject, "rpz")] == [2, 1]
    said = subject.cli("diff", "1", "2")
    changes = {name: (before, after) for name, before, after in said.json["zones"][0]["changes"]}
    assert changes == {
        "192.0.2.1/32": ("exact 300 CNAME .", None),
        "192.0.2.2/32": (None, "exact 300 CNAME ."),
        "a.example": ("exact 300 CNAME .", "exact 300 CNAME *."),
    }
    assert events(subject, "rpz") == []


def test_the_past_of_a_name_is_explained(subject: Subject, upstream: StubUpstream):
    """`history` has its versions, and `why --at` decides with the records of that time."""
    zone = rpz(source={"every_s": DAY, "guards": ANY_CHANGE})
    first = ["a.example CNAME *.", "*.b.example CNAME .", "x.b.example CNAME rpz-passthru."]
    start(subject, upstream, zone, files={"rpz.zone": [*first, "32.1.2.0.192.rpz-ip CNAME ."]})
    begun = datetime.fromisoformat(versions(subject, "rpz")[0]["accepted_at"])
    wait_for(lambda: datetime.now(UTC) >= begun + timedelta(seconds=1), "another second, for `why --at`")
    subject.put_list("rpz.zone", zone_text("c.example CNAME .", serial=8))
    subject.reload()
    at = begun.isoformat()
    for name, verdict in {
        "a.example": "blocked",
        "x.a.example": "not blocked",
        "y.b.example": "blocked",
        "x.b.example": "passthru",
        "y.x.b.example": "not blocked",
        "192.0.2.1": "blocked",
        "c.example": "not blocked",
    }.items():
        assert subject.cli("why", name, "--at", at).json["verdict"] == verdict, name
    assert subject.cli("why", "a.example", "--at", at).json["decided_by"]["action"] == "nodata"
    assert subject.cli("why", "a.example").json["verdict"] == "not blocked"
    happened = [(one["what"], one["entry"]) for one in subject.cli("history", "a.example").json["events"]]
    assert happened == [("listed", "a.example"), ("gone", "a.example")]
    happened = [(one["what"], one["entry"]) for one in subject.cli("history", "192.0.2.1").json["events"]]
    assert happened == [("listed", "192.0.2.1/32"), ("gone", "192.0.2.1/32")]


def test_the_same_zone_has_the_same_digest(subject: Subject, upstream: StubUpstream):
    """Neither the sequence of records nor the serial, spelling or comments matter."""
    records = ["a.example CNAME .", "b.example A 192.0.2.1", "b.example A 192.0.2.2"]
    start(subject, upstream, rpz(source={"every_s": DAY}), files={"rpz.zone": records})
    digest = subject.status()["digest"]
    text = "$ORIGIN other.\n" + zone_text("B.example A 192.0.2.2 ; second", serial=4_000_000_000)
    text += "$ORIGIN example.other.\nb IN 300 A 192.0.2.1\n\\097 ( CNAME\n . )\n"
    subject.put_list("rpz.zone", text)
    subject.reload()
    assert subject.status()["digest"] == digest
    assert subject.query("b.example").addresses == ["192.0.2.1", "192.0.2.2"]


def test_included_files_belong_to_the_zone(subject: Subject, upstream: StubUpstream):
    """$INCLUDE works inside the folder only (RFC 1035 section 5.1); a change of such a file is noticed."""
    main = zone_text("$INCLUDE more.zone", "a.example CNAME .")
    files = {"rpz.zone": main, "more.zone": "b.example CNAME .\n"}
    zone = rpz(source={"every_s": 1, "guards": ANY_CHANGE})
    start(subject, upstream, zone, files=files)
    assert subject.query("b.example").rcode == "NXDOMAIN"
    subject.put_list("more.zone", "c.example CNAME .\n")
    wait_for(lambda: subject.query("c.example").rcode == "NXDOMAIN", "the included file")
    assert is_forwarded(subject.query("b.example"))
    os.symlink("/etc/hostname", subject.folder / "outside.zone")
    for path in ("outside.zone", "/etc/hostname", "missing.zone"):
        subject.put_list("rpz.zone", zone_text(f"$INCLUDE {path}"))
        said = subject.cli("reload", as_json=False)
        assert f"$INCLUDE {path}" in said.stdout + said.stderr, said
        assert refused_by(subject, "rpz") == ["UNREADABLE"]
    assert subject.query("c.example").rcode == "NXDOMAIN"


def test_a_zone_survives_restarts_rollbacks_and_lost_compiled_files(subject: Subject, upstream: StubUpstream):
    """As lists do: from its compiled file, or compiled again from its stored content."""
    main = zone_text("$INCLUDE more.zone", "a.example A 192.0.2.1")
    files = {"rpz.zone": main, "more.zone": "b.example CNAME *.\n"}
    start(subject, upstream, rpz(source={"every_s": DAY, "guards": ANY_CHANGE}), files=files)
    serial, digest = subject.status()["serial"], subject.status()["digest"]
    subject.put_list("rpz.zone", zone_text("c.example CNAME .", serial=8))
    subject.reload()
    assert subject.query("c.example").rcode == "NXDOMAIN"
    assert roll_back(subject, serial).code == 0
    assert subject.status()["digest"] == digest
    subject.stop()
    for path in (subject.folder / "state" / "lists").iterdir():
        path.unlink()
    subject.launch()
    assert subject.status()["digest"] == digest
    assert subject.query("a.example").addresses == ["192.0.2.1"]
    assert subject.query("b.example").is_nodata


def test_the_file_of_an_export_is_the_same_zone(subject: Subject, upstream: StubUpstream):
    """A round trip: records, export, records. Data of other types is written as in RFC 3597."""
    records = [
        "a.example 30 CNAME .",
        "*.a.example 30 CNAME .",
        "b.example 30 A 192.0.2.1",
        "b.example 30 MX 10 mail.example.",
        "*.c.example 30 CNAME *.",
        "d.example 30 CNAME rpz-passthru.",
        "24.0.2.0.192.rpz-ip 30 CNAME rpz-drop.",
        "32.1.2.0.192.rpz-ip 30 CNAME rpz-passthru.",
        "8.0.0.0.10.rpz-client-ip 30 CNAME rpz-tcp-only.",
    ]
    guards = {"public_suffix": "accept"} | ANY_CHANGE
    zone = rpz(source={"every_s": DAY, "guards": guards})
    start(subject, upstream, zone, files={"rpz.zone": records})
    digest = subject.status()["digest"]
    said = subject.cli("export", "rpz", "--origin", "other.example", as_json=False)
    assert '"left_out":{}' in said.stdout.splitlines()[-1]
    text = said.stdout.replace("60 CNAME rpz-passthru.", "30 CNAME rpz-passthru.")
    subject.put_list("rpz.zone", text)
    subject.reload()
    assert refused_by(subject, "rpz") == []
    assert source(subject, "rpz")["report"]["entries"] == 7
    assert subject.status()["digest"] == digest


def test_a_list_of_names_has_only_what_is_blocked(subject: Subject, upstream: StubUpstream):
    """Local data sends to another address, as for a safe search: other software must not block the name."""
    records = [
        "a.example CNAME .",
        "*.a.example CNAME .",
        "search.example CNAME safe.example.",
        "*.search.example A 192.0.2.1",
        "b.example CNAME *.",
        "*.b.example CNAME *.",
        "x.y.b.example CNAME *.",
        "c.example CNAME .",
    ]
    start(subject, upstream, rpz(), files={"rpz.zone": records})
    said = subject.cli("export", "text", as_json=False)
    names = [line for line in said.stdout.splitlines() if not line.startswith("#")]
    assert names == ["a.example"], "y.b.example is open, and the names below c.example"
    said = subject.cli("export", "hosts", as_json=False)
    blocked = {line.split()[1] for line in said.stdout.splitlines() if not line.startswith("#")}
    assert blocked == {"a.example", "b.example", "x.y.b.example", "c.example"}


def test_check_names_each_bad_record(subject: Subject, upstream: StubUpstream):
    """The lint of zones, as `named-checkzone -P`: without a daemon, with file, line, value and reason."""
    subject.configure(zones=[rpz()], lists={"rpz.zone": zone_text("24.1.2.0.192.rpz-ip CNAME .")}, inbox=None)
    said = subject.cli("check", as_json=False)
    assert said.code != 0
    assert "rpz.zone:4: '24.1.2.0.192.rpz-ip CNAME .': bits are set" in said.stdout + said.stderr, said


# ------- Configuration --------------------------------------------------------------------

MISTAKES = {
    "given without records": ({"name": "z", "list": "l", "answer": "given"}, "answer given belongs to rpz"),
    "two kinds": ({"list": "l"}, "must have one of issuer, list, addresses and rpz"),
    "a match": ({"match": "exact"}, "match: belongs to a list, not to rpz"),
    "a format": ({"source": {"format": "rpz"}}, "format: belongs to a list, not to rpz"),
    "targets": ({"targets": "ignore"}, "targets: ignore does not belong to rpz"),
    "max_ttl of an override": (
        {"answer": "nodata", "rpz": {"file": "rpz.zone", "max_ttl": 9}},
        "max_ttl and extended_error belong to answer given",
    ),
    "no clients": ({"clients": []}, "clients: must not be empty"),
    "a URL": ({"rpz": {"file": "https://feed.example/p.zone"}}, "a URL is not possible here"),
}


@pytest.mark.parametrize(("options", "reason"), MISTAKES.values(), ids=MISTAKES)
def test_options_that_do_not_belong_together_are_refused(subject: Subject, options: dict, reason: str):
    """Each with the reason, and before anything is enforced."""
    zone = options if "name" in options else rpz() | options
    subject.configure(zones=[zone], lists={"rpz.zone": zone_text()}, inbox=None)
    said = subject.cli("check", as_json=False)
    assert said.code != 0
    assert reason in said.stdout + said.stderr, said


def test_a_wrong_network_is_one_problem(subject: Subject):
    """The others are none: the list of networks is not empty."""
    subject.configure(zones=[rpz(clients=["10.0.0.1/8"])], lists={"rpz.zone": zone_text()}, inbox=None)
    said = subject.cli("check", as_json=False)
    assert (said.code != 0, "must not be empty" in said.stdout + said.stderr) == (True, False), said


def test_a_profile_cannot_be_called_given(subject: Subject):
    """The word has a meaning."""
    subject.configure(zones=[], answers={"given": {"action": "nodata"}}, inbox=None)
    said = subject.cli("check", as_json=False)
    assert "this answer profile is built in" in said.stdout + said.stderr
