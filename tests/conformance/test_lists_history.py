"""History of lists (trap 18): versions, differences, the history of a name, and rollback."""

import gzip
from datetime import UTC, datetime, timedelta

import pytest

from .harness import ORDERS_ZONE, Subject
from .lists import (
    ANY_CHANGE,
    DAY,
    Unchanged,
    compiled,
    enforced,
    events,
    is_logged,
    list_zone,
    names,
    roll_back,
    snapshots,
    source,
    stored_texts,
    text_of,
    versions,
    wait_enforced,
    wait_stored,
)
from .orders import block, shipped, unblock
from .tools import wait_for

ZONES = [ORDERS_ZONE, list_zone(every_s=DAY, guards=ANY_CHANGE)]
BASE = names(50)
LATER = [*BASE[1:], "new.example"]


def start(subject: Subject, **more: object) -> None:
    """Serial 1: BASE."""
    subject.start(zones=ZONES, lists={"list.txt": BASE}, **more)


def change(subject: Subject, lines: list[str]) -> int:
    """Another list; returns the serial."""
    subject.put_list("list.txt", lines)
    return subject.reload()["serial"]


# ------- Looking back -------


def test_a_list_without_a_version_does_not_hide_the_history_of_names(subject: Subject):
    """A new list that was not fetched yet, or was rejected: the other zones still have events."""
    new = list_zone("new.txt", name="new", every_s=DAY, missing="start")
    lists = {"list.txt": BASE, "new.txt": "<html>an error page</html>\n"}
    subject.start(zones=[*ZONES, new], lists=lists, orders=[block("B-1", ["ordered.example"])])
    assert versions(subject, "new") == []
    for name, what in ((BASE[0], "listed"), ("ordered.example", "in force")):
        said = subject.cli("history", name)
        assert [one["what"] for one in said.json["events"]] == [what], said
    assert subject.cli("history", "other.example").json["events"] == []


def test_an_added_or_removed_zone_is_a_difference(subject: Subject):
    """A zone that was taken out unblocks more than any change in it: it must not read as nothing."""
    start(subject)
    more = [*ZONES, list_zone("more.txt", name="more", every_s=DAY)]
    subject.put_list("more.txt", names(7, 100))
    subject.configure(zones=more)
    subject.reload()
    first = subject.ready["serial"]
    said = subject.cli("diff", str(first), str(first + 1))
    whole = {"zone": "more", "a": "no such list", "b": "version 1", "total": 7, "changes": []}
    assert (said.code, said.json["zones"]) == (0, [whole])
    back = subject.cli("diff", str(first + 1), str(first)).json["zones"]
    assert [(one["a"], one["b"], one["total"]) for one in back] == [("version 1", "no such list", 7)]
    subject.configure(zones=ZONES)
    subject.reload()
    assert subject.cli("diff", str(first + 1), str(first + 2)).json["zones"] == back, (
        "no zone has it any more"
    )
    assert "7 more" in subject.cli("diff", str(first), str(first + 1), as_json=False).stdout


def test_a_large_change_is_recorded_name_by_name(subject: Subject):
    """It is on record when it is enforced, also for the next process."""
    start(subject)
    more = names(120_000, first=1000)
    begun = datetime.fromisoformat(versions(subject)[0]["accepted_at"])
    wait_for(lambda: datetime.now(UTC) >= begun + timedelta(seconds=1), "another second, for `why --at`")
    subject.put_list("list.txt", [*BASE[1:], *more])
    subject.hup()
    wait_enforced(subject, more[-1])
    subject.kill()
    subject.launch()
    first = versions(subject)[1]
    for name, then, now in ((more[0], 1, 0), (more[-1], 1, 0), (BASE[0], 0, 1), (BASE[1], 0, 0)):
        assert subject.cli("why", name).code == now
        assert subject.cli("why", name, "--at", first["accepted_at"]).code == then
    events = subject.cli("history", more[7]).json["events"]
    assert [(event["what"], event["match"]) for event in events] == [("listed", "subtree")]
    difference = subject.cli("diff", "1", "2")
    assert difference.code == 0, difference
    assert difference.json["zones"][0]["total"] == 120_001


def test_a_printed_time_can_be_passed_to_at(subject: Subject):
    """Whole seconds are printed: at the second in which a version came it was in force."""
    start(subject)
    change(subject, LATER)
    at = versions(subject)[0]["accepted_at"]
    assert subject.cli("why", "new.example", "--at", at).json["at"] == at
    assert subject.cli("why", "new.example", "--at", at).code == 0
    assert subject.cli("why", BASE[0], "--at", at).code == 1


def test_a_missing_history_is_an_error(subject: Subject):
    """An auditor must not read "nothing ever was" because of a folder in another place."""
    start(subject)
    (subject.folder / "state").rename(subject.folder / "elsewhere")
    at = datetime.now(UTC).isoformat()
    asked = ["versions"], ["versions", "listed"], ["history", BASE[0]], ["why", BASE[0], "--at", at]
    for command in asked:
        said = subject.cli(*command)
        assert said.code not in (0, 1), said
        assert "lists.sqlite" in said.stderr + said.stdout
    (subject.folder / "elsewhere").rename(subject.folder / "state")
    assert subject.cli("versions").code == 0


def test_an_unknown_start_of_a_listing_is_reported_as_unknown(subject: Subject):
    """Where file and text of a version were lost, the next one was compared with nothing."""
    start(subject)
    wait_stored(subject)
    subject.stop()
    for file in [*(subject.folder / "state" / "lists").iterdir(), *stored_texts(subject)]:
        file.unlink()
    subject.put_list("list.txt", LATER)
    subject.launch()
    assert versions(subject)[0]["added"] is None
    found = subject.cli("history", "new.example").json["events"]
    assert [(one["what"], one["by"]) for one in found] == [("listed, not known since when", "version 2")]
    found = subject.cli("history", BASE[5]).json["events"]
    assert [(one["what"], one["by"]) for one in found] == [("listed, not known since when", "version 2")]


def test_a_list_of_entirely_different_names_has_no_recorded_changes(subject: Subject):
    """More than a million changes would fill memory and history, and keep the list from being enforced."""
    start(subject)
    names = (f"name{number}.of-another-list.example\n" for number in range(1_000_000))
    subject.put_list("list.txt", "".join(names).encode())
    assert subject.reload()["entries"] == 1_000_000
    newest, _ = versions(subject)
    assert (newest["added"], newest["removed"]) == (None, None)
    found = subject.cli("history", "name7.of-another-list.example").json["events"]
    assert [(one["what"], one["by"]) for one in found] == [("listed, not known since when", "version 2")]
    assert enforced(subject, "name7.of-another-list.example", BASE[0]) == [True, False]


def test_each_serial_is_shown_with_its_lists(subject: Subject):
    """Which list was in force when serial N was: orders and lists are one row of serials."""
    start(subject)
    change(subject, LATER)
    subject.put_order(block("B-1", ["ordered.example"]))
    subject.reload()
    said = subject.cli("versions")
    first = subject.ready["serial"]
    assert said.code == 0
    assert [(one["serial"], one["versions"]) for one in said.json["snapshots"]] == [
        (first + 2, {"listed": 2}),
        (first + 1, {"listed": 2}),
        (first, {"listed": 1}),
    ]
    assert len({one["digest"] for one in said.json["snapshots"]}) == 3
    assert said.json["snapshots"][0]["digest"] == subject.status()["digest"]
    for_people = subject.cli("versions", as_json=False)
    assert (for_people.code, for_people.stderr) == (0, "")
    assert "listed 2" in for_people.stdout


def test_each_version_of_a_list_is_shown_with_its_changes(subject: Subject):
    """Version, text, digest, and how many names came and went."""
    start(subject)
    change(subject, LATER)
    said = subject.cli("versions", "listed")
    latest, first = said.json["versions"]
    assert (latest["version"], latest["added"], latest["removed"], latest["entries"]) == (2, 1, 1, 50)
    assert (first["version"], first["how"], first["entries"]) == (1, "first", 50)
    assert latest["digest"] != first["digest"]
    assert datetime.fromisoformat(latest["accepted_at"]) >= datetime.fromisoformat(first["accepted_at"])
    assert subject.cli("versions", "listed", as_json=False).code == 0


def changes(subject: Subject, a: int, b: int) -> dict[str, dict[str, tuple[bool, bool]]]:
    """Of each zone with a difference: the names, and whether they were enforced in a and in b."""
    said = subject.cli("diff", str(a), str(b))
    assert said.code == (0 if said.json["zones"] else 1)
    return {
        zone["zone"]: {
            name: (before is not None, after is not None) for name, before, after in zone["changes"]
        }
        for zone in said.json["zones"]
    }


def test_the_difference_of_two_serials_is_shown_name_by_name(subject: Subject):
    """For lists and for orders, forwards and backwards; between a serial and itself there is none."""
    start(subject)
    subject.put_order(block("B-1", ["ordered.example"]))
    second = change(subject, LATER)
    first = subject.ready["serial"]
    assert changes(subject, first, second) == {
        "listed": {"n0.example": (True, False), "new.example": (False, True)},
        "ministry": {"ordered.example": (False, True)},
    }
    assert changes(subject, second, first)["listed"] == {
        "n0.example": (False, True),
        "new.example": (True, False),
    }
    assert changes(subject, second, second) == {}
    shown = subject.cli("diff", str(first), str(second), as_json=False).stdout
    assert "- n0.example" in shown
    assert "+ new.example" in shown


def test_the_difference_of_the_first_two_serials_is_the_unblock_of_the_walk_through(subject: Subject):
    """The order of the first snapshot is in the ledger a moment after the time for which it is derived."""
    block_path, blocked = shipped("block")
    unblock_path, _ = shipped("unblock")
    subject.configure(zones=[ORDERS_ZONE | {"issuer": blocked["issuer"]}])
    subject.put_order(block_path.read_bytes(), block_path.name)
    subject.launch()
    subject.put_order(unblock_path.read_bytes(), unblock_path.name)
    subject.reload()
    expected = dict.fromkeys(blocked["entries"], (True, False))
    assert changes(subject, 1, 2) == {"ministry": expected}
    assert changes(subject, 2, 1) == {"ministry": dict.fromkeys(expected, (False, True))}
    subject.restart()
    assert changes(subject, 1, 2) == {"ministry": expected}


def test_simultaneous_orders_are_distinguished_by_serial(subject: Subject):
    """Many publishes within a second: each serial is derived from the records that it was published with."""
    start(subject)
    for number in range(5):
        subject.put_order(block(f"B-{number}", [f"b{number}.example"]))
        subject.reload()
    for number in range(5):
        assert changes(subject, number + 1, number + 2) == {"ministry": {f"b{number}.example": (False, True)}}


@pytest.mark.parametrize(
    "command", [["diff", "1", "99"], ["rollback", "99", "--reason", "x"], ["versions", "nosuch"]]
)
def test_an_unknown_serial_or_list_is_refused(subject: Subject, command: list[str]):
    """Refused with a reason, and without a traceback."""
    start(subject)
    said = subject.cli(*command)
    assert "Traceback" not in said.stderr
    assert (said.code, len(said.problems)) == (4, 1)


def test_the_history_of_a_name_covers_lists_and_orders(subject: Subject):
    """A complaint asks who blocked the name, from when to when: each list and order that named it."""
    name = "www.n0.example"
    start(subject, orders=[block("B-1", [name])])
    change(subject, LATER)
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    change(subject, BASE)
    subject.restart()
    said = subject.cli("history", name)
    assert said.code == 0
    story = [(one["zone"], one["entry"], one["by"]) for one in said.json["events"]]
    assert [row for row in story if row[0] == "listed"] == [
        ("listed", "n0.example", "version 1"),
        ("listed", "n0.example", "version 2"),
        ("listed", "n0.example", "version 3"),
    ]
    listed = [one["what"] for one in said.json["events"] if one["zone"] == "listed"]
    assert listed[0] == listed[2] != listed[1]
    assert any(zone == "ministry" and entry == name and "B-1" in by for zone, entry, by in story)
    assert any(zone == "ministry" and "U-1" in by for zone, _, by in story)
    times = [datetime.fromisoformat(one["at"]) for one in said.json["events"]]
    listed_times = [at for at, one in zip(times, said.json["events"], strict=True) if one["zone"] == "listed"]
    assert listed_times == sorted(listed_times)
    assert subject.cli("history", "never.named.invalid").code == 1


def why_at(subject: Subject, name: str, at: datetime, *more: str) -> tuple[int, str]:
    said = subject.cli("why", name, "--at", at.isoformat(), *more)
    return said.code, said.json["verdict"]


def test_why_at_explains_a_past_block(subject: Subject):
    """A court asks about last March: the verdict follows from the state at that time."""
    start(subject)
    between = wait_for_another_second()
    subject.put_order(block("B-1", ["ordered.example"]))
    change(subject, LATER)
    after = wait_for_another_second()
    assert why_at(subject, "n0.example", between) == (0, "blocked")
    assert why_at(subject, "n0.example", after)[0] == 1
    assert why_at(subject, "new.example", between)[0] == 1
    assert why_at(subject, "new.example", after) == (0, "blocked")
    assert why_at(subject, "ordered.example", between, "--known-at", between.isoformat())[0] == 1
    assert why_at(subject, "ordered.example", after) == (0, "blocked")
    said = subject.cli("why", "www.n0.example", "--at", between.isoformat())
    assert (said.json["decided_by"]["zone"], said.json["decided_by"]["entry"]) == ("listed", "n0.example")
    assert said.json["serial"] == subject.ready["serial"]


def test_why_before_the_first_start_is_unknown(subject: Subject):
    """ "Not blocked" would be a lie about a time without records: the verdict is "not known"."""
    start(subject)
    said = subject.cli("why", BASE[0], "--at", (datetime.now(UTC) - timedelta(days=400)).isoformat())
    assert said.code != 0
    assert said.json.get("verdict") != "blocked"
    found = f"{said.stdout} {said.stderr}"
    assert any(words in found for words in ("no version yet", "not known", "unknown")), found


@pytest.mark.parametrize("at", ["yesterday", "2026-13-01", ""])
def test_an_invalid_time_is_refused(subject: Subject, at: str):
    """`--at` is typed by people; a traceback would help nobody."""
    start(subject)
    said = subject.cli("why", BASE[0], "--at", at)
    assert (said.code, "2017-08-10" in said.stderr) == (2, True), "how to write one"
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["rollback", "1", "--reason", ""],
        ["rollback", "1", "--reason", "x" * 1001],
        ["source", "accept", "listed", "0" * 64, "--reason", " "],
    ],
)
def test_a_usage_error_is_exit_code_2_and_not_3(subject: Subject, command: list[str]):
    """Exit code 3 has somebody look for a dead daemon: what is typed wrong is 2, in words."""
    start(subject)
    said = subject.cli(*command)
    assert (said.code, "control.sock" in said.stderr) == (2, False), said


def wait_for_another_second() -> datetime:
    """A moment after all that was done so far, and before what is done next, also in whole seconds."""
    begun = datetime.now(UTC)
    moment = begun.replace(microsecond=0) + timedelta(seconds=1, milliseconds=500)
    wait_for(lambda: datetime.now(UTC) > moment + timedelta(milliseconds=600), "the clock goes on")
    return moment


# ------- The way back -------


def test_a_rollback_changes_lists_and_no_orders(subject: Subject):
    """A list is the operator's, an order is not: only an order ends an order."""
    start(subject)
    subject.put_order(block("B-1", ["ordered.example"]))
    change(subject, LATER)
    said = roll_back(subject, subject.ready["serial"])
    assert (said.code, said.json["serial"]) == (0, subject.ready["serial"] + 2)
    assert enforced(subject, "n0.example", "new.example", "ordered.example") == [True, False, True]
    assert subject.query("n0.example", "TXT").soa.serial == said.json["serial"]


def test_a_withdrawn_version_is_not_reinstalled_automatically(subject: Subject):
    """Not by a reload, not by watching, not by a restart: the file still holds what broke things tonight."""
    zones = [list_zone(every_s=1), list_zone("clock.txt", name="clock", every_s=1)]
    subject.start(zones=zones, lists={"list.txt": BASE, "clock.txt": ["clock.example"]}, inbox=None)
    subject.put_list("list.txt", LATER)
    wait_enforced(subject, "new.example")
    assert roll_back(subject, subject.ready["serial"]).code == 0
    gone = ("n0.example", "new.example")
    assert enforced(subject, *gone) == [True, False]
    for again in ("watched", "a new file with the same text", "restarted"):
        if again == "restarted":
            subject.restart()
        elif again != "watched":
            subject.put_list("list.txt", LATER)
        subject.cli("reload")
        tick = f"{again.replace(' ', '-')}.example"  # a list that is looked at as often: so was this one
        subject.put_list("clock.txt", ["clock.example", tick])
        wait_enforced(subject, tick)
        assert enforced(subject, *gone) == [True, False], again
    assert source(subject)["version"] == 3


def test_new_content_ends_a_rollback(subject: Subject):
    """The provider has corrected its list: it is accepted, and nothing has to be reset."""
    start(subject)
    change(subject, LATER)
    assert roll_back(subject, subject.ready["serial"]).code == 0
    change(subject, [*LATER, "mended.example"])
    assert enforced(subject, "n0.example", "new.example", "mended.example") == [False, True, True]
    assert subject.restart()
    assert enforced(subject, "n0.example", "mended.example") == [False, True]


def test_a_rollback_is_recorded_with_its_reason(subject: Subject):
    """An auditor must find the reason a year later: it is recorded, and required."""
    start(subject)
    change(subject, LATER)
    assert subject.cli("rollback", str(subject.ready["serial"])).code == 2
    assert roll_back(subject, subject.ready["serial"], "it blocked a bank").code == 0
    assert [
        event
        for event in events(subject)
        if "rolled back" in event["kind"] and "it blocked a bank" in event["message"]
    ]
    latest, withdrawn, _ = versions(subject)
    assert (latest["how"], "it blocked a bank" in latest["note"]) == ("rollback", True)
    assert (withdrawn["is_withdrawn"], latest["is_withdrawn"]) == (True, False)
    assert str(subject.ready["serial"]) in snapshots(subject)[0]["reason"]
    assert latest["digest"] == versions(subject)[2]["digest"]


def test_a_rollback_may_be_rolled_back(subject: Subject):
    """It was the other list after all: any serial that was served can be the target."""
    start(subject)
    second = change(subject, LATER)
    assert roll_back(subject, subject.ready["serial"]).code == 0
    assert enforced(subject, "new.example") == [False]
    assert roll_back(subject, second).code == 0
    assert enforced(subject, "n0.example", "new.example") == [False, True]
    subject.reload()
    subject.restart()
    assert enforced(subject, "n0.example", "new.example") == [False, True]


def test_a_rollback_changes_only_the_lists_that_differ(subject: Subject):
    """A list that is the same in both serials gets no new version, and its file is watched on."""
    zones = [list_zone(every_s=DAY), list_zone("other.txt", name="other", every_s=DAY)]
    subject.start(zones=zones, lists={"list.txt": BASE, "other.txt": ["other.example"]}, inbox=None)
    change(subject, LATER)
    assert roll_back(subject, subject.ready["serial"]).code == 0
    assert [one["version"] for one in versions(subject, "other")] == [1]
    subject.put_list("other.txt", ["other.example", "more.example"])
    subject.cli("reload")
    assert enforced(subject, "more.example", "n0.example") == [True, True]


# ------- Bounds -------


def test_a_file_not_stored_before_a_crash_is_stored_by_the_next_start(subject: Subject):
    """Between the record and the copy the power may fail: the version must not hang on one file for ever."""
    start(subject)
    wait_stored(subject)
    subject.stop()
    for path in stored_texts(subject):
        path.unlink()
        path.parent.rmdir()
    subject.launch()
    (stored,) = stored_texts(subject)
    assert gzip.decompress(stored.read_bytes()) == text_of(BASE)


def test_a_file_that_cannot_be_stored_is_reported(subject: Subject):
    """Another text lies there by now: the compiled file is all that is left of the version."""
    start(subject)
    wait_stored(subject)
    subject.stop()
    for path in stored_texts(subject):
        path.unlink()
        path.parent.rmdir()
    subject.put_list("list.txt", "<html>\n")
    subject.launch()
    assert stored_texts(subject) == []
    assert is_logged(subject, "version 1 of list listed was not stored")


def test_no_more_versions_are_kept_than_configured(subject: Subject):
    """`history.generations`: an hourly feed does not fill the disk; the record of changes stays."""
    start(subject, history={"generations": 3})
    first = subject.ready["serial"]
    serials = [first] + [change(subject, [*BASE, f"v{number}.example"]) for number in range(6)]
    wait_for(lambda: len(compiled(subject)) <= 3, "former versions are cleared away")
    found = versions(subject)
    assert [one["version"] for one in found] == [7, 6, 5, 4, 3, 2, 1]
    assert [one["has_file"] for one in found] == [True] * 3 + [False] * 4
    assert subject.cli("history", "v0.example").code == 0
    assert roll_back(subject, serials[-2]).code == 0
    assert enforced(subject, "v4.example", "v5.example") == [True, False]


def test_a_rollback_to_a_deleted_version_is_refused(subject: Subject):
    """The error is reported and nothing changes; another version instead would be a guess."""
    start(subject, history={"generations": 2})
    for number in range(4):
        change(subject, [*BASE, f"v{number}.example"])
    wait_for(lambda: len(compiled(subject)) <= 2, "former versions are cleared away")
    with Unchanged(subject, "v3.example", "v0.example"):
        said = roll_back(subject, subject.ready["serial"] + 1)
        assert said.code == 4
        assert said.problems[0]["reason"]


def test_rejected_lists_do_not_fill_the_disk(subject: Subject):
    """A broken feed that sends something else each minute leaves no file for each."""
    start(subject, history={"generations": 2})
    wait_stored(subject)
    for number in range(6):
        subject.put_list("list.txt", ["a..example"] * (number + 3) + BASE)
        assert subject.cli("reload").code == 4
    assert len(compiled(subject)) <= 3
    assert [gzip.decompress(path.read_bytes()) for path in stored_texts(subject)] == [text_of(BASE)]


def test_no_more_serials_are_kept_than_configured(subject: Subject):
    """`history.snapshots`: the latest are kept."""
    start(subject, history={"snapshots": 3})
    for number in range(5):
        last = change(subject, [*BASE, f"v{number}.example"])
    assert [one["serial"] for one in snapshots(subject)][:3] == [last, last - 1, last - 2]
    assert len(snapshots(subject)) <= 4
