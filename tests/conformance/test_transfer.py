"""Policy zones by zone transfer: from BIND, Knot DNS and a scripted primary, whole and by differences."""

import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from ports import free_port

from .asking import is_forwarded
from .harness import Subject
from .lists import DAY, source, sources
from .primaries import PRIMARIES, USUAL, RealPrimary, Timers
from .scripted_primary import Difference, ScriptedPrimary, axfr, ixfr, sends, soa
from .tools import wait_for
from .transfers import (
    LAX,
    ZONE,
    assert_fails,
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

BASE = block_range(30)
SEEDS = range(3)


@pytest.fixture(params=PRIMARIES)
def primary(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealPrimary]:
    """BIND, then Knot DNS; not yet started."""
    with PRIMARIES[request.param](tmp_path) as server:
        yield server


@pytest.fixture
def scripted() -> Iterator[ScriptedPrimary]:
    with ScriptedPrimary(BASE) as server:
        yield server


# ------- Real primaries -------------------------------------------------------------------


def test_a_zone_is_transferred_and_follows_each_notify_by_ixfr(
    subject: Subject, upstream: StubUpstream, primary: RealPrimary
):
    """RFC 5936, RFC 1996 and RFC 1995: AXFR first, then a difference after each change, without a wait."""
    port = free_port()
    primary.start(BASE, secondaries=[("127.0.0.1", port)])
    start(subject, upstream, zone_from(primary.address), port=port)
    wait_blocked(subject, "n0.example", "n29.example")
    assert (transfers(subject, "axfr"), transfers(subject, "ixfr")) == (1, 0)
    primary.replace([*BASE[1:], *blocks("new.example")])
    wait_serial(subject, 2)
    assert blocked(subject, "n0.example", "n1.example", "new.example") == [False, True, True]
    primary.replace(BASE)
    wait_serial(subject, 3)
    assert blocked(subject, "n0.example", "n1.example", "new.example") == [True, True, False]
    assert (transfers(subject, "axfr"), transfers(subject, "ixfr")) == (1, 2)
    subject.wait_for_metric("dnsblock_notifies_total", 2, result="accepted")
    assert subject.metrics().total("dnsblock_zone_entries", zone=ZONE) == 30


def test_dig_sees_each_change_of_the_zone(subject: Subject, upstream: StubUpstream, primary: RealPrimary):
    """A record that is deleted by IXFR no longer blocks, and one that is added does: as a client sees it."""
    names = ["n0.example", "n1.example", "data.example", "new.example"]
    port = free_port()
    primary.start([*BASE, "data.example A 203.0.113.1"], secondaries=[("127.0.0.1", port)])
    start(subject, upstream, zone_from(primary.address), port=port)

    def answers() -> list[tuple[str, ...]]:
        shown = [subject.dig(name, "A", "+noall", "+comments", "+answer") for name in names]
        return [tuple(re.findall(r"(?:status:|\sA)\s+([A-Z]+|[0-9.]+)", text)) for text in shown]

    wait_blocked(subject, "n0.example")
    absent, forwarded = ("NXDOMAIN",), ("NOERROR", "198.51.100.7")
    assert answers() == [absent, absent, ("NOERROR", "203.0.113.1"), forwarded]
    primary.replace([*BASE[1:], *blocks("new.example"), "data.example A 203.0.113.2"])
    wait_serial(subject, 2)
    assert answers() == [forwarded, absent, ("NOERROR", "203.0.113.2"), absent]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_changes_leave_exactly_the_names_of_the_primary(
    subject: Subject, upstream: StubUpstream, primary: RealPrimary, seed: int
):
    """A difference that is applied wrongly once would be wrong until the next AXFR."""
    chance = random.Random(seed)
    names = [f"n{number}.example" for number in range(40)]
    chosen = set(chance.sample(names, 20))
    primary.start(blocks(*chosen))
    start(subject, upstream, zone_from(primary.address, source=LAX))
    for _ in range(8):
        chosen ^= set(chance.sample(names, chance.randrange(1, 8)))
        primary.replace(blocks(*sorted(chosen)))
        assert_refreshes(subject)
        assert serial_in_force(subject) == primary.serial
        assert dict(zip(names, blocked(subject, *names), strict=True)) == {
            name: name in chosen for name in names
        }
    assert transfers(subject, "axfr") == 1


def test_the_stored_copy_is_enforced_after_a_restart_without_the_primary(
    subject: Subject, upstream: StubUpstream, primary: RealPrimary
):
    """A resolver that restarts while its primary is down must not unblock what is blocked."""
    primary.start(BASE)
    start(subject, upstream, zone_from(primary.address))
    primary.replace([*BASE[1:], *blocks("new.example")])
    assert_refreshes(subject)
    assert subject.stop() == 0
    primary.stop()
    subject.launch()
    assert blocked(subject, "n0.example", "n1.example", "new.example") == [False, True, True]
    assert serial_in_force(subject) == 2
    assert_fails(subject, "UNREACHABLE")
    assert blocked(subject, "n0.example", "n1.example", "new.example") == [False, True, True]
    primary.start_again()
    primary.replace([*BASE[2:], *blocks("new.example")])
    assert_refreshes(subject)
    assert blocked(subject, "n1.example", "n2.example") == [False, True]


# ------- The dialog -----------------------------------------------------------------------


def test_soa_and_transfer_use_one_connection(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """RFC 7766 section 6.2.1: SOA first, then AXFR without a copy or IXFR with the serial of the copy."""
    start(subject, upstream, zone_from(scripted.address))
    assert [(one.qtype, one.serial) for one in scripted.queries[:2]] == [("SOA", None), ("AXFR", None)]
    before = len(scripted.queries)
    scripted.publish(BASE[1:])
    assert_refreshes(subject)
    asked = scripted.queries[before:]
    assert [(one.qtype, one.serial, one.zone) for one in asked] == [("SOA", None, ZONE), ("IXFR", 1, ZONE)]
    assert len({one.connection for one in asked}) == 1
    assert len({one.message.id for one in scripted.queries}) > 1, "IDs are not constant"


def test_nothing_is_transferred_if_the_serial_is_the_same(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """The SOA query suffices, as a `304 Not Modified` of a feed."""
    start(subject, upstream, zone_from(scripted.address))
    before, due = subject.status(), source(subject, ZONE)["next_at"]
    asked = len(scripted.queries)
    assert_refreshes(subject)
    wait_for(lambda: source(subject, ZONE)["next_at"] != due, "the next refresh is scheduled")
    assert [one.qtype for one in scripted.queries[asked:]] == ["SOA"]
    assert subject.status()["serial"] == before["serial"]


def test_a_refresh_by_the_operator_follows_the_new_times_of_the_zone(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """The next query is due when the new SOA record says (RFC 1035 section 3.3.13), not one at once."""
    start(subject, upstream, zone_from(scripted.address))
    before = datetime.fromisoformat(source(subject, ZONE)["next_at"])
    scripted.timers = Timers(refresh=2 * USUAL.refresh)
    scripted.publish(BASE[1:])
    assert_refreshes(subject)

    def is_later() -> bool:
        due = datetime.fromisoformat(source(subject, ZONE)["next_at"])
        return due - before > timedelta(seconds=USUAL.refresh / 2)

    wait_for(is_later, "the next query is due by the new REFRESH")
    assert scripted.count("SOA") == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_next_primary_is_asked_if_the_first_does_not_answer(
    subject: Subject, upstream: StubUpstream, host: str
):
    """Several primaries are tried in order; an IPv6 address is in brackets."""
    with ScriptedPrimary(BASE, host=host) as second:
        nobody = f"127.0.0.1:{free_port()}"
        start(subject, upstream, zone_from(nobody, second.address))
        assert blocked(subject, "n0.example") == [True]
        second.publish(BASE[1:])
        assert_refreshes(subject)
        assert blocked(subject, "n0.example", "n1.example") == [False, True]
    assert_fails(subject, "UNREACHABLE")
    assert blocked(subject, "n0.example", "n1.example") == [False, True]


def test_the_next_primary_is_asked_if_the_first_refuses(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """A primary that has lost the zone is as useless as one that is down."""
    with ScriptedPrimary(BASE) as first:
        first.rules["SOA"] = lambda asked: [asked.response(rcode=5)]
        start(subject, upstream, zone_from(first.address, scripted.address))
        assert blocked(subject, "n0.example") == [True]
        assert (first.count("SOA") > 0, first.count("AXFR")) == (True, 0)


def test_a_start_without_a_copy_and_a_primary_is_refused(subject: Subject, upstream: StubUpstream):
    """As with a feed: one line with the primary, the code and the reason."""
    nobody = f"127.0.0.1:{free_port()}"
    subject.configure(zones=[zone_from(nobody)], upstreams=[upstream.address], inbox=None)
    said = subject.serve_refused()
    assert any(ZONE in line and "UNREACHABLE" in line for line in said.refusal), said.refusal


def test_a_zone_that_is_missing_at_startup_is_enforced_after_notify(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """`missing: start`: the primary says when it is ready, and nobody has to reload."""
    scripted.close()
    start(subject, upstream, zone_from(scripted.address, source={"missing": "start"}))
    wait_for(lambda: sources(subject)[ZONE]["fetch_error"], "the transfer has failed")
    assert is_forwarded(subject.query("n0.example"))
    scripted.listen()
    send_notify(subject, notify())
    wait_blocked(subject, "n0.example")


def test_check_sends_no_query(subject: Subject, scripted: ScriptedPrimary):
    """`dnsblock check` works where there is no network, and with a zone that was never transferred."""
    subject.configure(zones=[zone_from(scripted.address)], inbox=None)
    said = subject.cli("check")
    assert (said.code, scripted.queries) == (0, []), said


# ------- Content --------------------------------------------------------------------------


@pytest.mark.parametrize("per_message", [1, 7, 100])
def test_ixfr_that_is_answered_as_axfr_replaces_the_zone(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary, per_message: int
):
    """RFC 1995 section 4: the second record is no SOA, so this is the whole zone."""
    start(subject, upstream, zone_from(scripted.address))
    scripted.publish([*BASE[1:], *blocks("new.example")])
    scripted.rules["IXFR"] = sends(axfr(2, scripted.records), per_message)
    assert_refreshes(subject)
    assert blocked(subject, "n0.example", "n1.example", "new.example") == [False, True, True]
    assert (transfers(subject, "axfr"), transfers(subject, "ixfr")) == (2, 0)


@pytest.mark.parametrize("per_message", [1, 3, 1000])
def test_twelve_differences_of_one_transfer_are_applied_in_order(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary, per_message: int
):
    """RFC 1995 section 4: a secondary that was away gets all of them, split anywhere."""
    start(subject, upstream, zone_from(scripted.address))
    differences = [
        Difference(number, number + 1, (BASE[number - 1],), tuple(blocks(f"a{number}.example")))
        for number in range(1, 13)
    ]
    scripted.serial = 13
    scripted.rules["IXFR"] = sends(ixfr(differences), per_message)
    assert_refreshes(subject)
    assert serial_in_force(subject) == 13
    assert blocked(subject, *(f"n{number}.example" for number in range(13))) == [False] * 12 + [True]
    assert all(blocked(subject, *(f"a{number}.example" for number in range(1, 13))))
    assert (transfers(subject, "axfr"), transfers(subject, "ixfr")) == (1, 1)


@pytest.mark.parametrize("steps", ["+-", "-+", "-+-", "+-+"])
def test_of_several_differences_about_a_record_the_last_one_counts(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary, steps: str
):
    """RFC 1995 section 4: a record may be added and deleted again and again, in the order of serials."""
    start(subject, upstream, zone_from(scripted.address))
    name = "x.example" if steps[0] == "+" else "n0.example"
    lines = tuple(blocks(name))
    differences = [
        Difference(number, number + 1, lines if step == "-" else (), lines if step == "+" else ())
        for number, step in enumerate(steps, start=1)
    ]
    scripted.serial = differences[-1].after
    scripted.rules["IXFR"] = sends(ixfr(differences))
    assert_refreshes(subject)
    assert blocked(subject, name, "n29.example") == [steps[-1] == "+", True]
    assert transfers(subject, "ixfr") == 1


def test_the_data_of_a_record_is_replaced(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """A difference deletes the old data and adds the new, of the same owner and type."""
    scripted.records = ("data.example A 203.0.113.1", "data.example A 203.0.113.2")
    start(subject, upstream, zone_from(scripted.address))
    assert subject.query("data.example").addresses == ["203.0.113.1", "203.0.113.2"]
    scripted.publish(["data.example A 203.0.113.2", "data.example A 203.0.113.3"])
    assert_refreshes(subject)
    assert subject.query("data.example").addresses == ["203.0.113.2", "203.0.113.3"]
    assert transfers(subject, "ixfr") == 1


def test_a_record_that_is_sent_twice_is_one_record(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """RFC 2181 section 5: duplicates are no records, so one deletion removes them."""
    scripted.rules["AXFR"] = sends(axfr(1, [*BASE, *BASE, BASE[0]]))
    start(subject, upstream, zone_from(scripted.address))
    assert subject.metrics().total("dnsblock_zone_entries", zone=ZONE) == 30
    new = tuple(blocks("new.example"))
    scripted.serial = 2
    scripted.rules["IXFR"] = sends(ixfr([Difference(1, 2, (BASE[0],), (*new, *new))]))
    assert_refreshes(subject)
    assert blocked(subject, "n0.example", "n1.example", "new.example") == [False, True, True]


EMPTY = {"SOA alone": [soa(1), soa(1)], "SOA and NS": axfr(1, [])}


@pytest.mark.parametrize("records", EMPTY.values(), ids=EMPTY)
def test_an_empty_zone_is_no_mistake(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary, records: list[str]
):
    """A provider may begin with nothing; the records that come later are enforced."""
    scripted.records = ()
    scripted.rules["AXFR"] = sends(records)
    start(subject, upstream, zone_from(scripted.address))
    assert is_forwarded(subject.query("n0.example"))
    assert serial_in_force(subject) == 1
    scripted.publish(BASE)
    assert_refreshes(subject)
    assert blocked(subject, "n0.example", "n29.example") == [True, True]


def test_a_zone_may_become_empty(subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary):
    """By a difference that deletes every record; and it may be filled again."""
    start(subject, upstream, zone_from(scripted.address, source=LAX))
    scripted.publish([])
    assert_refreshes(subject)
    wait_open(subject, "n0.example", "n29.example")
    scripted.publish(BASE)
    assert_refreshes(subject)
    wait_blocked(subject, "n0.example", "n29.example")
    assert (transfers(subject, "axfr"), transfers(subject, "ixfr")) == (1, 2)


def test_a_difference_that_does_not_fit_the_copy_leads_to_axfr(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """A record to delete that is not there: the copy differs from the primary's, so all is transferred."""
    start(subject, upstream, zone_from(scripted.address))
    scripted.publish(BASE[1:])
    wrong = Difference(1, 2, tuple(blocks("unknown.example")))
    scripted.rules["IXFR"] = sends(ixfr([wrong]))
    assert_refreshes(subject)
    assert blocked(subject, "n0.example", "n1.example") == [False, True]
    assert (scripted.count("AXFR"), serial_in_force(subject)) == (2, 2)


def test_a_serial_that_wraps_around_is_newer(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """RFC 1982: after 4294967295 comes 0."""
    scripted.serial = (1 << 32) - 1
    start(subject, upstream, zone_from(scripted.address))
    scripted.publish(BASE[1:])
    assert scripted.serial == 0
    assert_refreshes(subject)
    assert blocked(subject, "n0.example", "n1.example") == [False, True]


def test_names_match_in_any_case(subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary):
    """RFC 4343: a primary may keep the case of its zone file, and delete in another case."""
    scripted.rules["AXFR"] = sends(axfr(1, [*BASE, *blocks("MiXeD.Example")]))
    start(subject, upstream, zone_from(scripted.address))
    assert blocked(subject, "mixed.example") == [True]
    scripted.serial = 2
    scripted.rules["IXFR"] = sends(ixfr([Difference(1, 2, tuple(blocks("mixed.EXAMPLE")))]))
    assert_refreshes(subject)
    assert blocked(subject, "mixed.example", "n0.example") == [False, True]


def test_a_shadow_zone_is_transferred_and_blocks_nothing(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """The names that it would block are counted."""
    start(subject, upstream, zone_from(scripted.address, mode="shadow"))
    assert is_forwarded(subject.query("n0.example"))
    subject.wait_for_metric("dnsblock_shadow_blocked_total", zone=ZONE)


def test_a_zone_from_a_file_stays_beside_one_by_transfer(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """Each has its own source, and a failed transfer is not the failure of the other."""
    listed = {"name": "listed", "list": "list.txt", "answer": "nxdomain", "source": {"every_s": DAY}}
    zones = [zone_from(scripted.address), listed]
    start(subject, upstream, *zones, lists={"list.txt": ["listed.example"]})
    scripted.close()
    assert_fails(subject, "UNREACHABLE")
    assert sources(subject)["listed"]["fetch_error"] is None
    assert blocked(subject, "n0.example", "listed.example") == [True, True]
