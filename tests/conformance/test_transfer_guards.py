"""A transferred zone goes through the guards of lists, and its times come from its SOA record."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from .asking import is_forwarded
from .harness import Subject
from .lists import (
    accept,
    events,
    is_logged,
    refresh,
    refused_by,
    roll_back,
    source,
    versions,
)
from .primaries import ZONE, BindPrimary, Timers
from .scripted_primary import ScriptedPrimary
from .tools import wait_for
from .transfers import (
    LAX,
    assert_refreshes,
    block_range,
    blocked,
    blocks,
    notify,
    send_notify,
    serial_in_force,
    start,
    transfers,
    wait_blocked,
    wait_open,
    wait_serial,
    zone_from,
)
from .upstreams import StubUpstream

BASE = block_range(200)
QUICK = Timers(refresh=1, retry=1, expire=3)


@pytest.fixture
def primary() -> Iterator[ScriptedPrimary]:
    with ScriptedPrimary(BASE) as server:
        yield server


# ------- Guards ---------------------------------------------------------------------------

SUSPICIOUS = {
    "half of the records gone": (block_range(100), "SHRANK"),
    "far more records": (block_range(400), "GREW"),
    "all records gone": ([], "SHRANK"),
}


@pytest.mark.parametrize(("records", "code"), SUSPICIOUS.values(), ids=SUSPICIOUS)
def test_a_suspicious_transfer_is_rejected_and_accepted_by_its_digest(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary, records: list[str], code: str
):
    """The guards of a feed: the previous copy stays, until the operator accepts the digest that is shown."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish(records)
    assert refresh(subject, ZONE).code == 4
    assert refused_by(subject, ZONE) == [code]
    assert is_logged(subject, ZONE, code, levels=["error"])
    assert subject.metrics().total("dnsblock_source_rejected", zone=ZONE) == 1
    assert blocked(subject, "n0.example", "n199.example", "n300.example") == [True, True, False]
    subject.restart()
    assert blocked(subject, "n0.example", "n199.example", "n300.example") == [True, True, False]
    digest = wait_for(lambda: source(subject, ZONE)["rejected"], "it is still rejected")["sha256"]
    shown = subject.cli("source list", as_json=False)
    assert f"dnsblock source accept {ZONE} {digest}" in shown.stdout
    assert accept(subject, digest, zone=ZONE).code == 0
    expected = [line.split()[0] for line in records]
    asked = ["n0.example", "n199.example", "n300.example"]
    assert blocked(subject, *asked) == [name in expected for name in asked]
    assert refused_by(subject, ZONE) == []
    assert versions(subject, ZONE)[0]["how"] == "accepted by hand"
    primary.publish([*records, *blocks("later.example")])
    assert_refreshes(subject)
    assert blocked(subject, "later.example") == [True]


def test_the_transfer_after_a_rejected_one_is_compared_with_the_copy_in_force(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """A provider corrects its mistake: the next serial is taken automatically."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish(BASE[:100])
    send_notify(subject, notify())
    wait_for(lambda: refused_by(subject, ZONE) == ["SHRANK"], "the guard rejects it")
    primary.publish([*BASE[1:], *blocks("new.example")])
    send_notify(subject, notify())
    wait_blocked(subject, "new.example")
    assert blocked(subject, "n0.example", "n199.example") == [False, True]
    wait_for(lambda: refused_by(subject, ZONE) == [], "the zone is not rejected any more")
    assert [event["code"] for event in events(subject, ZONE) if event["kind"] == "rejected"] == ["SHRANK"]


def test_small_changes_pass_the_guards(subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary):
    """From 20 names, 5 % of new ones are the limit of a feed; fewer may change."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish([*BASE, *block_range(19, first=1000)])
    assert_refreshes(subject)
    assert blocked(subject, "n1018.example") == [True]


def test_earlier_content_with_a_new_serial_is_no_replay(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """A provider undoes a change: the serial says that this is not an old copy."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish([*BASE, *blocks("mistake.example")])
    assert_refreshes(subject)
    primary.publish(BASE)
    assert_refreshes(subject)
    assert blocked(subject, "mistake.example", "n0.example") == [False, True]
    assert serial_in_force(subject) == 3


def test_a_rolled_back_transfer_does_not_return(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """As with lists: the version is withdrawn, NOTIFY does not install it again, and a newer one comes."""
    start(subject, upstream, zone_from(primary.address))
    before = subject.status()["serial"]
    primary.publish([*BASE, *blocks("bank.example")])
    assert_refreshes(subject)
    assert blocked(subject, "bank.example") == [True]
    assert roll_back(subject, before).code == 0
    assert blocked(subject, "bank.example", "n0.example") == [False, True]
    asked = primary.count("SOA")
    send_notify(subject, notify())
    primary.wait_for_query("SOA", asked + 1)
    refresh(subject, ZONE)
    subject.restart()
    assert blocked(subject, "bank.example", "n0.example") == [False, True]
    primary.publish([*BASE, *blocks("later.example")])
    assert_refreshes(subject)
    assert blocked(subject, "bank.example", "later.example", "n0.example") == [False, True, True]


def test_differences_continue_after_a_rollback(subject: Subject, upstream: StubUpstream, tmp_path: Path):
    """IXFR is applied to the copy of its serial, not to the content in force: names must be the primary's."""
    with BindPrimary(tmp_path) as primary:
        primary.start(BASE)
        start(subject, upstream, zone_from(primary.address))
        before = subject.status()["serial"]
        primary.replace([*BASE[1:], *blocks("bank.example")])
        assert_refreshes(subject)
        assert roll_back(subject, before).code == 0
        assert blocked(subject, "n0.example", "bank.example") == [True, False]
        primary.replace([*BASE[2:], *blocks("later.example")])
        assert_refreshes(subject)
        names = ["n0.example", "n1.example", "n2.example", "bank.example", "later.example"]
        assert blocked(subject, *names) == [False, False, True, False, True]


def test_versions_of_a_transferred_zone_are_recorded(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """`versions`, `history` and `source list` work as with feeds."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish([*BASE[1:], *blocks("new.example")])
    assert_refreshes(subject)
    wait_for(lambda: len(versions(subject, ZONE)) == 2, "the version is recorded")
    latest = versions(subject, ZONE)[0]
    assert (latest["version"], latest["added"], latest["removed"]) == (2, 1, 1)
    happened = [one["what"] for one in subject.cli("history", "n0.example").json["events"]]
    assert happened == ["listed", "gone"]
    found = source(subject, ZONE)
    assert (found["version"], found["entries"], found["fetch_error"]) == (2, 200, None)
    assert found["fetched_at"]
    assert subject.cli("source list").code == 0


# ------- Times of the SOA record ----------------------------------------------------------


def test_the_primary_is_asked_by_the_refresh_time_of_its_zone(subject: Subject, upstream: StubUpstream):
    """RFC 1035 section 3.3.13: without NOTIFY, a change comes after `refresh` seconds."""
    with ScriptedPrimary(BASE, timers=Timers(refresh=1, retry=1)) as primary:
        start(subject, upstream, zone_from(primary.address))
        asked = primary.count("SOA")
        primary.wait_for_query("SOA", asked + 3)
        primary.publish(BASE[1:])
        wait_open(subject, "n0.example")
        assert transfers(subject, "ixfr") == 1


def test_a_failed_query_is_repeated_after_the_retry_time(subject: Subject, upstream: StubUpstream):
    """RFC 1035 section 3.3.13: `retry` applies after a failure, and is shorter than `refresh`."""
    with ScriptedPrimary(BASE, timers=Timers(refresh=86_400, retry=1)) as primary:
        start(subject, upstream, zone_from(primary.address))
        primary.rules["SOA"] = lambda asked: [asked.response(rcode=2)]
        primary.publish(BASE[1:])
        send_notify(subject, notify())
        asked = primary.count("SOA")
        primary.wait_for_query("SOA", asked + 3)
        primary.rules.clear()
        wait_open(subject, "n0.example")


def test_the_times_of_the_new_zone_apply(subject: Subject, upstream: StubUpstream):
    """A primary that shortens `refresh` is asked more often from then on."""
    with ScriptedPrimary(BASE, timers=Timers(refresh=86_400)) as primary:
        start(subject, upstream, zone_from(primary.address))
        primary.timers = QUICK
        primary.publish(BASE[1:])
        assert_refreshes(subject)
        asked = primary.count("SOA")
        primary.wait_for_query("SOA", asked + 3)


def test_an_expired_zone_is_kept_shadowed_or_withdrawn(subject: Subject, upstream: StubUpstream):
    """RFC 1035 section 3.3.13 and `on_expire`: after `expire` seconds without the primary."""
    names = ["keep", "shadow", "withdraw"]
    primaries = {name: ScriptedPrimary(blocks(f"{name}.test.example"), timers=QUICK) for name in names}
    with primaries["keep"], primaries["shadow"], primaries["withdraw"]:
        zones = [
            zone_from(primaries[name].address, name=f"{name}.rpz", on_expire=name, source=LAX)
            for name in names
        ]
        start(subject, upstream, *zones)
        asked = [f"{name}.test.example" for name in names]
        assert blocked(subject, *asked) == [True, True, True]
        for primary in primaries.values():
            primary.close()
        wait_open(subject, "shadow.test.example", "withdraw.test.example")
        assert blocked(subject, *asked) == [True, False, False]
        subject.query("shadow.test.example")
        subject.wait_for_metric("dnsblock_shadow_blocked_total", zone="shadow.rpz")
        assert subject.metrics().total("dnsblock_shadow_blocked_total", zone="withdraw.rpz") == 0
        assert is_logged(subject, "shadow.rpz", levels=["warning", "error"])
        assert is_logged(subject, "withdraw.rpz", levels=["warning", "error"])
        subject.restart()
        assert blocked(subject, *asked) == [True, False, False], "an expired copy stays expired"
        for primary in primaries.values():
            primary.listen()
        wait_blocked(subject, *asked)


def test_a_zone_does_not_expire_while_its_primary_answers(subject: Subject, upstream: StubUpstream):
    """The same serial again and again is a success: the copy is current."""
    timers = replace(QUICK, expire=10)  # a busy machine may delay a query for seconds
    with ScriptedPrimary(BASE, timers=timers) as primary:
        start(subject, upstream, zone_from(primary.address, on_expire="withdraw"))
        asked = primary.count("SOA")
        primary.wait_for_query("SOA", asked + timers.expire + 3)
        assert blocked(subject, "n0.example") == [True]
        assert is_forwarded(subject.query("free.example"))
        assert serial_in_force(subject) == 1


# ------- Configuration --------------------------------------------------------------------

MISTAKES: dict[str, dict] = {
    "a file beside primaries": {"file": "rpz.zone"},
    "no primary": {"primaries": []},
    "a primary without an address": {"primaries": ["primary.example"]},
    "an invalid port": {"primaries": ["127.0.0.1:65536"]},
    "an IPv6 address without brackets before its port": {"primaries": ["::1:53:"]},
    "an unknown algorithm": {
        "key": {"name": "transfer.example", "algorithm": "hmac-md5", "secret_file": "transfer.key"}
    },
    "a network with host bits": {"notify_from": ["10.0.0.1/8"]},
    "an unknown word": {"on_expire": "forget"},
    "no record": {"max_records": 0},
    "no time": {"timeout_s": 0},
}


@pytest.mark.parametrize("options", MISTAKES.values(), ids=MISTAKES)
def test_options_that_are_wrong_are_refused(subject: Subject, options: dict):
    """`dnsblock check` reports each with its place, before anything is enforced."""
    zone = zone_from("127.0.0.1:5300")
    zone["rpz"] |= options
    subject.configure(zones=[zone], inbox=None)
    said = subject.cli("check", as_json=False)
    assert said.code != 0
    assert "rpz" in said.stdout + said.stderr, said


@pytest.mark.parametrize(
    "options", [{"on_expire": "keep"}, {"max_records": 9}, {"notify_from": ["::/0"]}], ids=str
)
def test_options_of_a_transfer_do_not_belong_to_a_file(subject: Subject, options: dict):
    """An option without effect is a mistake of the operator."""
    subject.configure(
        zones=[{"name": ZONE, "answer": "given", "rpz": {"file": "rpz.zone", **options}}],
        lists={"rpz.zone": "@ SOA . . 1 1 1 1 1\n"},
        inbox=None,
    )
    said = subject.cli("check", as_json=False)
    assert said.code != 0
    assert next(iter(options)) in said.stdout + said.stderr, said


def test_primaries_change_with_a_reload(subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary):
    """No restart: the new primary is asked, and only it may send NOTIFY for the zone."""
    with ScriptedPrimary([*BASE[1:], *blocks("new.example")], serial=2) as other:
        start(subject, upstream, zone_from(primary.address))
        zones = [zone_from(other.address)]
        subject.configure(zones=zones, upstreams=[upstream.address], inbox=None)
        subject.reload()
        wait_blocked(subject, "new.example")
        wait_serial(subject, 2)
        assert blocked(subject, "n0.example") == [False]
