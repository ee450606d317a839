"""`dnsblock allow`: a name is exempt from lists until a time, and never from an order."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from . import wire
from .clocks import HOUR, FakeClock
from .harness import ORDERS_ZONE, Said, Subject, is_forwarded, is_sinkholed
from .lists import UNWATCHED
from .orders import block, exempt, stamp
from .policy_zones import chain, zone_text
from .tools import wait_for
from .upstreams import Asked, StubUpstream, decent

LIST = {"name": "ads", "list": "ads.txt", "answer": "sinkhole", "source": UNWATCHED}
ADDRESSES = {"name": "badnets", "addresses": "badnets.txt", "answer": "nodata"}
RPZ = {"name": "rpz", "rpz": {"file": "rpz.zone"}, "answer": "given"}
LISTED = ["listed.example", "bad.listed.example", "other.example"]
RECORDS = ["ruled.example CNAME .", "*.ruled.example CNAME .", "third.example CNAME *."]
FILES = {"ads.txt": LISTED, "badnets.txt": ["198.51.100.0/24"], "rpz.zone": zone_text(*RECORDS)}
SOON = timedelta(days=1)


def until(time: timedelta = SOON) -> str:
    return stamp(datetime.now(UTC) + time)


def allow(subject: Subject, name: str, *more: str, reason: str = "ticket 17") -> Said:
    return subject.cli("allow", name, "--until", until(), "--reason", reason, *more)


@pytest.fixture
def started(subject: Subject, upstream: StubUpstream) -> Subject:
    """Lists of every kind before and after the orders."""
    subject.start(
        zones=[LIST, ORDERS_ZONE, ADDRESSES, RPZ],
        lists=FILES,
        orders=[block("B-1", ["ordered.example", "both.example"])],
        upstreams=[upstream.address],
    )
    return subject


def answer_with(upstream: StubUpstream, records: Mapping[str, Sequence[bytes]]) -> None:
    """The upstream has these records for queries of an address, and else its usual ones."""

    def script(asked: Asked) -> bytes:
        is_here = asked.name in records and asked.qtype == wire.QTYPES["A"]
        return asked.response(records[asked.name]) if is_here else decent(asked)

    upstream.script = script


def is_open(subject: Subject, name: str) -> bool:
    return is_forwarded(subject.query(name))


def test_a_name_is_open_at_once_and_others_stay_blocked(started: Subject):
    """No reload. The names below it are open too, but not one that the list names itself."""
    said = allow(started, "listed.example")
    assert (said.code, said.json["after"]["verdict"]) == (0, "not blocked"), said
    for name in ("listed.example", "www.listed.example"):
        assert is_open(started, name)
    for name in ("bad.listed.example", "other.example", "ordered.example"):
        assert is_sinkholed(started.query(name))


@pytest.mark.parametrize(
    ("match", "opened"), [("exact", {""}), ("below", {"www."}), ("subtree", {"", "www."})]
)
def test_an_exception_covers_what_its_match_says(started: Subject, match: str, opened: set[str]):
    """exact: the name only; below: all names below it; subtree: both."""
    assert allow(started, "other.example", "--match", match).json["match"] == match
    found = {label for label in ("", "www.") if is_open(started, f"{label}other.example")}
    assert found == opened


def test_a_policy_zone_and_a_list_of_addresses_are_lists_too(started: Subject, upstream: StubUpstream):
    """The records of a zone do not block the name. No list judges its addresses and targets."""
    answer_with(upstream, {"ruled.example": chain("ruled.example", "listed.example")})
    assert not started.query("plain.example").answer
    assert started.query("ruled.example").rcode == "NXDOMAIN"
    assert allow(started, "ruled.example").code == allow(started, "plain.example").code == 0
    assert started.query("plain.example").addresses == ["198.51.100.7"]
    assert started.query("ruled.example").addresses == ["198.51.100.7"]
    assert started.query("third.example").rcode == "NOERROR"
    assert not started.query("third.example").answer


def test_an_order_blocks_the_target_of_an_allowed_name(started: Subject, upstream: StubUpstream):
    """Of the targets, only lists are ignored. A list in between decides nothing either."""
    names = ("other.example", "alias.example", "ruled.example")
    answer_with(upstream, {name: chain(name, "listed.example", "ordered.example") for name in names})
    for name in names:
        assert allow(started, name).code == 0
        assert is_sinkholed(started.query(name)), name
    started.restart()
    assert all(is_sinkholed(started.query(name)) for name in names)


def test_an_order_is_never_overridden(started: Subject):
    """The command says which order blocks it, and what its issuer can do; nothing is recorded."""
    said = allow(started, "ordered.example")
    assert said.code == 4
    for text in ("order B-1", "unblock order", "exempt order"):
        assert text in said.stderr
    assert started.cli("allow").json["allowed"] == []
    assert is_sinkholed(started.query("ordered.example"))


def test_a_name_on_a_list_and_in_an_order_stays_blocked_by_the_order(started: Subject):
    """The exception is recorded, and the exit code says that the name is still blocked."""
    started.put_list("ads.txt", [*LISTED, "both.example"])
    started.reload()
    said = allow(started, "both.example")
    assert (said.code, said.json["after"]["decided_by"]["orders"]) == (1, ["B-1"]), said
    assert is_sinkholed(started.query("both.example"))
    started.put_order(exempt("E-1", ["both.example"]))
    started.reload()
    assert is_open(started, "both.example")


def test_an_exception_ends_at_its_second(subject: Subject, upstream: StubUpstream, clock: FakeClock):
    """Nobody has to do anything; a restart in between changes nothing."""
    subject.start(zones=[LIST], lists=FILES, upstreams=[upstream.address])
    assert allow(subject, "listed.example").code == 0
    subject.restart()
    assert is_open(subject, "listed.example")
    clock.step_to(25 * HOUR)
    wait_for(lambda: is_sinkholed(subject.query("listed.example")), "the list applies again")
    assert subject.cli("allow").code == 1
    what = [one["what"] for one in subject.cli("history", "listed.example").json["events"]]
    assert what == ["listed", "allowed", "not allowed any more"]


def test_an_exception_can_be_ended_and_changed(started: Subject):
    """The last decision about a name and a match counts."""
    for reason in ("ticket 16", "ticket 17"):
        assert allow(started, "other.example", reason=reason).code == 0
    assert [one["reason"] for one in started.cli("allow").json["allowed"]] == ["ticket 17"]
    said = started.cli("allow", "other.example", "--end", "--reason", "ticket 18")
    assert said.code == 0
    assert is_sinkholed(started.query("other.example"))
    again = started.cli("allow", "other.example", "--end", "--reason", "again")
    assert again.code == 4
    assert "nothing ends" in again.stderr
    events = [
        one for one in started.cli("history", "other.example").json["events"] if one["zone"] == "(lists)"
    ]
    found = [(one["what"], one["by"].rpartition(": ")[2]) for one in events]
    allowed = [("allowed", "ticket 16"), ("allowed", "ticket 17")]
    assert found == [*allowed, ("not allowed any more", "ticket 18")]
    assert "ended the exception of other.example (subtree): ticket 18" in started.stderr()


def test_who_and_why_are_recorded_and_shown(started: Subject):
    """In the ledger, in `why`, in `history`, and in the list of exceptions."""
    allow(started, "other.example", reason="false positive, ticket 17")
    assert started.metrics().total("dnsblock_allowed_names") == 1
    [one] = started.cli("allow").json["allowed"]
    assert one["reason"] == "false positive, ticket 17"
    assert (one["name"], one["match"]) == ("other.example", "subtree")
    why = started.cli("why", "www.other.example").json
    assert (why["verdict"], why["allowed"]) == ("not blocked", [one])
    assert "false positive" in started.cli("why", "other.example", as_json=False).stdout
    events = started.cli("history", "other.example").json
    assert [event["what"] for event in events["scheduled"]] == ["not allowed any more"]
    assert events["events"][-1]["by"].endswith("false positive, ticket 17")
    records = started.cli("log show").json["records"]
    [record] = [record for record in records if record["kind"] == "allowed"]
    assert (record["name"], record["reason"]) == ("other.example", "false positive, ticket 17")


def test_the_past_knows_the_exceptions_of_its_time(started: Subject):
    """`why --at` before it, and while it was in force."""
    before = stamp(datetime.now(UTC) - timedelta(seconds=2))
    allow(started, "other.example")
    now = stamp(datetime.now(UTC))
    assert started.cli("why", "other.example", "--at", now).json["verdict"] == "not blocked"
    later = started.cli("why", "other.example", "--at", until(2 * SOON)).json
    assert later["verdict"] == "blocked"
    assert started.cli("why", "other.example", "--at", before).json["allowed"] == []


def test_an_export_excepts_what_is_allowed(started: Subject):
    """Another resolver that reads the file must not block the name."""
    allow(started, "other.example")
    lines = started.cli("export", "rpz", "--origin", "rpz.test", as_json=False).stdout.splitlines()
    assert "other.example 60 CNAME rpz-passthru." in lines
    assert "*.other.example 60 CNAME rpz-passthru." in lines
    text = started.cli("export", "text", as_json=False).stdout.splitlines()
    assert "other.example" not in text
    assert "listed.example" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["other.example", "--until", "2000-01-01", "--reason", "x"], "is in the past"),
        (["other.example", "--until", "2100-01-01", "--reason", "x"], "366 days"),
        (["other.example", "--reason", "x"], "give --until"),
        (["other.example", "--until", "2030-01-01", "--end", "--reason", "x"], "give --until"),
        (["other.example", "--until", "tomorrow", "--reason", "x"], "is not a time"),
        (["other.example", "--until", "2030-01-01"], "give --reason"),
        (["other..example", "--until", "2030-01-01", "--reason", "x"], "empty label"),
        (["--end"], "name the domain"),
    ],
)
def test_a_wrong_exception_is_refused_with_its_reason(started: Subject, arguments: list[str], said: str):
    """Nothing is recorded."""
    refused = started.cli("allow", *arguments, as_json=False)
    assert refused.code in (2, 4), refused
    assert said in refused.stderr
    assert started.cli("allow").json["allowed"] == []
