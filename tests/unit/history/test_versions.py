"""Versions of a list, their files, and what was rejected or accepted by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from dnsblock.lists.history.facts import (
    Approval,
    Change,
    Published,
    RejectedContent,
)
from dnsblock.lists.history.history import History
from dnsblock.orders.records import Position

from .helpers import HOUR, NOON, THREE, ZONE, compiled, new, numbers, sha

# ------- Versions -------


def test_a_version_is_read_back_as_accepted(history: History):
    """A version and the reason for it are stored permanently."""
    version = history.version(ZONE, 3)
    assert version is not None
    assert (version.zone, version.number, version.compiled) == (ZONE, 3, THREE[2].compiled)
    assert (version.added, version.removed) == (1, 2)
    assert (version.accepted_at, version.how, version.note) == (NOON + 2 * HOUR, "refresh", "")
    assert (version.is_withdrawn, version.has_file) == (False, True)
    assert history.version(ZONE, 4) is None
    assert history.version("other", 1) is None


def test_versions_of_a_zone_count_from_one_and_newest_come_first(history: History):
    """Each zone has numbers of its own."""
    (other,) = history.accept([new("one", None, zone="other")])
    assert other.number == 1
    assert numbers(history) == [3, 2, 1]
    assert [version.number for version in history.versions(ZONE, limit=2)] == [3, 2]
    assert numbers(history, "unknown") == []


def test_the_first_version_is_compared_with_nothing(history: History):
    """Ten million names are not stored as events."""
    first = history.version(ZONE, 1)
    assert first is not None
    assert (first.added, first.removed) == (None, None)
    with pytest.raises(ValueError, match="has no difference"):
        history.accept([new("one", b"+ exact a.example\n", zone="other")])
    assert history.current("other") is None


def test_what_was_accepted_is_current_after_a_restart(folder: Path):
    """A restart enforces what was accepted last, whether or not it came to be served."""
    with History.open(folder) as history:
        history.accept([new("four", b"", hour=3, fingerprint='{"inode": 1}')])
    with History.open(folder) as history:
        current = history.current(ZONE)
        assert current is not None
        assert current.version.number == 4
        assert current.version.compiled.source_sha256 == sha("four")
        assert current.fingerprint == '{"inode": 1}'
        assert history.current("other") is None


def test_the_fingerprint_can_change_without_a_new_version(history: History):
    """The same content was written again."""
    history.set_fingerprint(ZONE, '{"inode": 2}')
    current = history.current(ZONE)
    assert current is not None
    assert (current.version.number, current.fingerprint) == (3, '{"inode": 2}')


def test_a_new_version_does_not_inherit_the_fingerprint(history: History):
    """Else a restart would take the one for the other."""
    history.set_fingerprint(ZONE, "old")
    history.accept([new("four", b"", hour=3)])
    current = history.current(ZONE)
    assert current is not None
    assert current.fingerprint == ""


def test_the_report_of_lines_is_deleted_with_the_compiled_file(history: History):
    """A report takes up to fifty kilobytes, twice a day, for ever."""
    for hour, text in enumerate(("four", "five", "six"), start=3):
        history.accept([new(text, b"", hour=hour)])
    history.prune(ZONE, 1)
    six, *pruned = history.versions(ZONE, 3)
    assert six.compiled == compiled("six")
    for version in pruned:
        assert version.compiled.report == replace(six.compiled.report, reported=())


def test_recorded_rejections_are_bounded(history: History, monkeypatch: pytest.MonkeyPatch):
    """The newest are kept, and actions of an operator are never deleted."""
    monkeypatch.setattr("dnsblock.lists.history.history.MAX_REJECTIONS", 3)
    history.approve(Approval(ZONE, sha("two"), "{}", ("SHRANK",), "ani", "the ministry confirmed it", NOON))
    for hour in range(3, 8):
        history.record_rejection(
            RejectedContent(ZONE, sha(str(hour)), "SHRANK", f"at {hour}", "{}", NOON + hour * HOUR)
        )
    assert [event.message for event in history.events(ZONE)] == [
        *("at 7", "at 6", "at 5"),
        "by ani: the ministry confirmed it",
    ]


def test_versions_of_several_zones_are_accepted_all_or_none(history: History):
    """A rollback to a serial takes every list back, or none."""
    with pytest.raises(ValueError, match="not a line of a difference"):
        history.accept([new("x", None, zone="other"), new("y", b"nonsense a.example b\n", hour=3)])
    assert history.current("other") is None
    assert numbers(history) == [3, 2, 1]
    accepted = history.accept([new("x", None, zone="other"), new("y", b"", hour=3)])
    assert [(version.zone, version.number) for version in accepted] == [("other", 1), (ZONE, 4)]


def test_a_change_of_a_policy_zone_has_its_answer(history: History):
    """The records of a name, with spaces, are part of its scope."""
    difference = (
        b"= 0 exact 60 A 192.0.2.1\n- 0 z.example\n= 1 exact 5 A 192.0.2.2\n+ 1 z.example\n+ 1 y.example\n"
    )
    history.accept([new("four", difference, hour=3)])
    (event,) = history.events_of(ZONE, "z.example")
    assert (event.before, event.after) == ("exact 60 A 192.0.2.1", "exact 5 A 192.0.2.2")
    (event,) = history.events_of(ZONE, "y.example")
    assert (event.before, event.after) == (None, "exact 5 A 192.0.2.2")


@pytest.mark.parametrize(
    "difference",
    [
        b"+ exact",
        b"+ exact a b",
        b"+ 7 a.example",
        b"* exact a.example",
        b"+ exact a.example\n+ subtree a.example",
        b"\n",
        b"+ e \xff",
    ],
)
def test_an_invalid_difference_is_not_accepted(history: History, difference: bytes):
    """A difference that is half understood would tell lies about the past."""
    with pytest.raises(ValueError, match=r"."):
        history.accept([new("four", difference, hour=3)])
    assert numbers(history) == [3, 2, 1]


def test_previous_content_is_recognised(history: History):
    """The guard REPLAYED: a server that sends last week's list again cannot unblock names."""
    replayed = history.was_accepted(ZONE, sha("one"))
    assert replayed is not None
    assert replayed.number == 1
    assert history.was_accepted(ZONE, sha("four")) is None
    assert history.was_accepted("other", sha("one")) is None


def test_current_content_is_not_previous_content(history: History):
    """After a rollback, the restored content is current."""
    history.accept([new("one", b"", hour=3, how="rollback")])
    assert history.was_accepted(ZONE, sha("one")) is None
    assert history.was_accepted(ZONE, sha("three")) is not None


def test_a_version_that_was_rolled_back_from_is_withdrawn(history: History):
    """The next refresh must not install the same content again."""
    history.accept([new("two", b"", hour=3, how="rollback", note="overblocks", withdraws=3)])
    withdrawn = history.was_accepted(ZONE, sha("three"))
    assert withdrawn is not None
    assert withdrawn.is_withdrawn
    assert [version.is_withdrawn for version in history.versions(ZONE)] == [False, True, False, False]
    (event,) = history.events(ZONE)
    assert (event.kind, event.source_sha256) == ("rolled back", sha("three"))
    assert (event.message, event.first_at) == ("version 3 is withdrawn: overblocks", NOON + 3 * HOUR)


# ------- Compiled files -------


def test_files_of_old_versions_are_deleted_and_their_history_stays(history: History):
    """Thirty compiled lists of ten million names are enough; their changes are kept permanently."""
    assert history.prune(ZONE, 2) == (sha("one"),)
    assert [version.has_file for version in history.versions(ZONE)] == [True, True, False]
    assert history.files() == {sha("two"), sha("three")}
    assert history.prune(ZONE, 2) == ()
    assert list(history.difference(ZONE, 1, 2)) == [Change("c.example", None, "exact")]


def test_the_file_of_the_current_version_is_never_deleted(history: History):
    """A restart maps it."""
    assert history.prune(ZONE, 0) == (sha("one"), sha("two"))
    assert history.files() == {sha("three")}
    assert history.prune("unknown", 1) == ()


def test_a_file_that_another_zone_needs_is_not_deleted(history: History):
    """Compiled files are named by their content, so two zones may have the same."""
    history.accept([new("one", None, zone="other")])
    assert history.prune(ZONE, 1) == (sha("two"),)
    assert [version.has_file for version in history.versions(ZONE)] == [True, False, True]
    history.accept([new("x", b"", zone="other", hour=1)])
    assert history.prune("other", 1) == (sha("one"),)
    assert [version.has_file for version in history.versions(ZONE)] == [True, False, False]


def test_a_file_that_comes_back_is_there_for_the_old_version_too(history: History):
    """A version that is rolled back to has the file of the one it repeats."""
    history.prune(ZONE, 1)
    history.accept([new("one", b"", hour=3, how="rollback")])
    first = history.version(ZONE, 1)
    assert first is not None
    assert first.has_file
    assert history.prune(ZONE, 1) == (sha("three"),)


# ------- Refusals, approvals, snapshots -------


def rejection(code: str = "SHRANK", text: str = "four", hour: int = 3) -> RejectedContent:
    return RejectedContent(
        ZONE, sha(text), code, f"seen at {hour}", f'{{"hour": {hour}}}', NOON + hour * HOUR
    )


def test_repeated_rejections_are_counted(history: History):
    """A broken feed is fetched every hour; it is one event for a person."""
    for hour in (3, 4, 5):
        history.record_rejection(rejection(hour=hour))
    (event,) = history.events(ZONE)
    assert (event.kind, event.code, event.source_sha256) == ("rejected", "SHRANK", sha("four"))
    assert (event.times, event.first_at, event.last_at) == (3, NOON + 3 * HOUR, NOON + 5 * HOUR)
    assert (event.message, event.numbers) == ("seen at 5", '{"hour": 5}')


def test_rejections_differ_by_content_guard_and_zone(
    history: History,
):
    """They need a decision of their own."""
    history.record_rejection(rejection())
    history.record_rejection(rejection(code="HTML", hour=4))
    history.record_rejection(rejection(text="five", hour=5))
    history.record_rejection(replace(rejection(), zone="other"))
    assert [event.message for event in history.events(ZONE)] == ["seen at 5", "seen at 4", "seen at 3"]
    assert [event.message for event in history.events(ZONE, limit=1)] == ["seen at 5"]
    assert len(history.events("other")) == 1
    assert history.current("other") is None


def test_an_approval_applies_to_one_zone(history: History):
    """An operator's word holds for what the operator has looked at."""
    approval = Approval(ZONE, sha("four"), "{}", ("SHRANK",), "ani", "the ministry confirmed it", NOON)
    assert not history.approved(ZONE, sha("four"), "{}")
    history.approve(approval)
    history.approve(replace(approval, at=NOON + HOUR))
    assert history.approved(ZONE, sha("four"), "{}") == {"SHRANK"}
    assert not history.approved(ZONE, sha("four"), "as something else")
    assert not history.approved(ZONE, sha("five"), "{}")
    assert not history.approved("other", sha("four"), "{}")
    events = history.events(ZONE)
    assert [event.first_at for event in events] == [NOON + HOUR, NOON]
    assert {(event.kind, event.message) for event in events} == {
        ("accepted by hand", "by ani: the ministry confirmed it")
    }


def test_an_approval_ends_when_other_content_is_accepted(history: History):
    """An old copy of what was once accepted by hand is an old copy; and a rollback is not undone by it."""
    history.accept([new("one", None, hour=0)])
    history.approve(Approval(ZONE, sha("two"), "{}", ("SHRANK",), "ani", "the ministry confirmed it", NOON))
    history.approve(
        Approval("other", sha("two"), "{}", ("SHRANK",), "ani", "the ministry confirmed it", NOON)
    )
    history.accept([new("two", b"", hour=1)])
    assert history.approved(ZONE, sha("two"), "{}"), "the same text is read again"
    history.accept([new("three", b"", hour=2)])
    assert not history.approved(ZONE, sha("two"), "{}")
    assert history.approved("other", sha("two"), "{}")
    assert history.events(ZONE)[0].kind == "accepted by hand", "what was done stays on record"


def published(serial: int, digest: str = "d", **versions: int) -> Published:
    at = NOON + serial * HOUR
    return Published(serial, digest, at, f"reason {serial}", versions, at, Position(serial, "f" * 64))


def test_a_snapshot_has_the_versions_of_its_lists(history: History):
    """`rollback SERIAL`."""
    snapshot = published(7, national=3, other=1)
    history.record_snapshot(snapshot, keep=10)
    assert history.snapshot(7) == snapshot
    assert history.snapshot(8) is None


def test_only_the_newest_snapshots_are_kept(history: History):
    """Orders make a snapshot each; the file must not grow for ever."""
    for serial in range(1, 6):
        history.record_snapshot(published(serial), keep=3)
    assert [snapshot.serial for snapshot in history.snapshots()] == [5, 4, 3]


def test_a_snapshot_that_is_published_again_stays_what_it_was(history: History):
    """After a restart the same content has the same serial."""
    history.record_snapshot(published(1, national=1), keep=3)
    history.record_snapshot(published(2), keep=3)
    again = replace(published(1, national=2), published_at=NOON + 9 * HOUR, reason="start")
    history.record_snapshot(again, keep=3)
    assert history.snapshots() == (published(2), published(1, national=2))


def test_restarted_serials_are_the_newest(history: History):
    """Where the last serial was lost, the first snapshot since must not be forgotten for its number."""
    for serial in (1, 2, 3):
        history.record_snapshot(published(serial), keep=3)
    for serial in (1, 2):
        history.record_snapshot(published(serial, "another"), keep=3)
    assert [(snapshot.serial, snapshot.digest) for snapshot in history.snapshots()] == [
        (2, "another"),
        (1, "another"),
        (3, "d"),
    ]
