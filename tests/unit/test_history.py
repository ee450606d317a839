"""The history of accepted list versions (dnsblock/lists/history/history.py)."""

import json
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsblock.errors import HistoryUnwritable, Refused
from dnsblock.lists import records
from dnsblock.lists.history import changes as history_changes
from dnsblock.lists.history.database import SCHEMA_VERSION
from dnsblock.lists.history.facts import (
    Approval,
    Change,
    Compiled,
    NameEvent,
    NewVersion,
    Past,
    Published,
    Refusal,
)
from dnsblock.lists.history.history import History
from dnsblock.lists.store import Store
from dnsblock.orders.records import Position

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONE = "national"


def sha(text: str) -> str:
    return text.encode().hex().rjust(64, "0")


def compiled(text: str, *, file: str | None = None, options: str = "subtree") -> Compiled:
    return Compiled(
        source_sha256=sha(text),
        file_sha256=sha(file or text),
        names_digest=sha("names of " + text),
        format="plain",
        options=options,
        entries=5,
        lines=9,
        accepted=6,
        repaired=2,
        duplicate=1,
        rejected=3,
        report='{"rejected": [7, 8, 9]}',
    )


def new(
    text: str, difference: bytes | None, *, hour: int = 0, zone: str = ZONE, **fields: object
) -> NewVersion:
    version = NewVersion(zone, compiled(text), difference, NOON + hour * HOUR, "refresh")
    return replace(version, **fields)


# Three versions: 1 lists a and b, 2 adds c, 3 removes a and widens b.
THREE = (
    new("one", None, how="first"),
    new("two", b"+ exact c.example\n", hour=1),
    new("three", b"- exact a.example\n- exact b.example\n+ subtree b.example\n", hour=2),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder whose history has three versions."""
    with History.open(tmp_path / "state") as history:
        for version in THREE:
            history.accept([version])
    return tmp_path / "state"


@pytest.fixture
def history(folder: Path) -> Iterator[History]:
    with History.open(folder) as opened:
        yield opened


def numbers(history: History, zone: str = ZONE) -> list[int]:
    return [version.number for version in history.versions(zone)]


def sort(history: History) -> None:
    for _ in history.sort():
        pass


def reasons(refused: pytest.ExceptionInfo[Refused]) -> str:
    return str(refused.value)


# ------- Versions -------


def test_a_version_is_told_as_it_was_accepted(history: History):
    """What a list was, and what made it so, is kept for good."""
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
    with pytest.raises(ValueError, match="compared with nothing"):
        history.accept([new("one", b"+ exact a.example\n", zone="other")])
    assert history.current("other") is None


def test_what_was_accepted_is_current_after_a_restart(folder: Path):
    """A restart enforces what was accepted last, whether or not it came to be served."""
    with History.open(folder) as history:
        history.accept([new("four", b"", hour=3, known_by='{"inode": 1}', validators='{"etag": "x"}')])
    with History.open(folder) as history:
        current = history.current(ZONE)
        assert current is not None
        assert current.version.number == 4
        assert current.version.compiled.source_sha256 == sha("four")
        assert (current.known_by, current.validators) == ('{"inode": 1}', '{"etag": "x"}')
        assert history.current("other") is None


def test_what_a_text_is_known_by_can_change_without_a_new_version(history: History):
    """The same text was written or fetched again."""
    history.know(ZONE, known_by='{"inode": 2}', validators='{"etag": "y"}')
    current = history.current(ZONE)
    assert current is not None
    assert (current.version.number, current.known_by, current.validators) == (
        3,
        '{"inode": 2}',
        '{"etag": "y"}',
    )


def test_what_the_text_before_was_known_by_is_not_said_of_a_new_version(history: History):
    """Else a restart would take the one for the other."""
    history.know(ZONE, known_by="old", validators="old")
    history.accept([new("four", b"", hour=3)])
    current = history.current(ZONE)
    assert current is not None
    assert (current.known_by, current.validators) == ("", "")


def test_what_is_told_of_lines_goes_with_the_compiled_file(history: History):
    """A hundred odd lines of each kind are fifty kilobytes, twice a day, for ever."""
    told = [{"value": "x" * 80}] * 400
    report = json.dumps({"format": "plain", "lines": 9, "told": told})
    for hour, text in enumerate(("four", "five", "six"), start=3):
        version = new(text, b"", hour=hour)
        history.accept([replace(version, compiled=replace(version.compiled, report=report))])
    history.prune(ZONE, 1)
    six, *pruned = history.versions(ZONE, 3)
    assert json.loads(six.compiled.report)["told"] == told
    for version in pruned:
        assert json.loads(version.compiled.report) == {"format": "plain", "lines": 9, "told": []}


def test_refusals_on_record_are_bounded(history: History, monkeypatch: pytest.MonkeyPatch):
    """The newest are kept, and what an operator has done is never among those that go."""
    monkeypatch.setattr("dnsblock.lists.history.history.REFUSALS", 3)
    history.approve(Approval(ZONE, sha("two"), "{}", ("SHRANK",), "ani", "the ministry confirmed it", NOON))
    for hour in range(3, 8):
        history.refuse(Refusal(ZONE, sha(str(hour)), "SHRANK", f"at {hour}", "{}", NOON + hour * HOUR))
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


@pytest.mark.parametrize(
    "difference",
    [
        b"+ exact",
        b"* exact a.example",
        b"+ exact a.example\n+ subtree a.example",
        b"+ exact a b",
        b"\n",
        b"+ e \xff",
    ],
)
def test_what_is_not_a_difference_is_not_accepted(history: History, difference: bytes):
    """A difference that is half understood would tell lies about the past."""
    with pytest.raises(ValueError, match=r"."):
        history.accept([new("four", difference, hour=3)])
    assert numbers(history) == [3, 2, 1]


def test_a_text_is_found_with_the_options_it_was_compiled_with(history: History):
    """What was compiled once need not be compiled again."""
    history.accept([new("one", b"", hour=3, how="rollback")])
    found = history.find(ZONE, sha("one"), "subtree")
    assert found is not None
    assert found.number == 4
    assert history.find(ZONE, sha("one"), "exact") is None
    assert history.find(ZONE, sha("five"), "subtree") is None
    assert history.find("other", sha("one"), "subtree") is None


def test_an_old_text_is_known_to_be_an_old_one(history: History):
    """The guard REPLAYED: a server that gives last week's list again unblocks nothing by itself."""
    replayed = history.was_accepted(ZONE, sha("one"))
    assert replayed is not None
    assert replayed.number == 1
    assert history.was_accepted(ZONE, sha("four")) is None
    assert history.was_accepted("other", sha("one")) is None


def test_the_text_of_the_current_version_is_no_old_one_although_it_was_there_before(history: History):
    """After a rollback the text of the rollback is current."""
    history.accept([new("one", b"", hour=3, how="rollback")])
    assert history.was_accepted(ZONE, sha("one")) is None
    assert history.was_accepted(ZONE, sha("three")) is not None


def test_a_version_that_was_rolled_back_from_is_withdrawn(history: History):
    """The same text must not come back by itself with the next refresh."""
    history.accept([new("two", b"", hour=3, how="rollback", note="overblocks", withdraws=3)])
    withdrawn = history.was_accepted(ZONE, sha("three"))
    assert withdrawn is not None
    assert withdrawn.is_withdrawn
    assert [version.is_withdrawn for version in history.versions(ZONE)] == [False, True, False, False]
    (event,) = history.events(ZONE)
    assert (event.kind, event.source_sha256) == ("rolled back", sha("three"))
    assert (event.message, event.first_at) == ("version 3 is withdrawn: overblocks", NOON + 3 * HOUR)


# ------- Compiled files -------


def test_files_of_old_versions_are_given_up_and_their_history_stays(history: History):
    """Thirty compiled lists of ten million names are enough; what they said is kept for good."""
    assert history.prune(ZONE, 2) == (sha("one"),)
    assert [version.has_file for version in history.versions(ZONE)] == [True, True, False]
    assert history.files() == {sha("two"), sha("three")}
    assert history.prune(ZONE, 2) == ()
    assert list(history.difference(ZONE, 1, 2)) == [Change("c.example", None, "exact")]


def test_the_file_of_the_current_version_is_never_given_up(history: History):
    """A restart maps it."""
    assert history.prune(ZONE, 0) == (sha("one"), sha("two"))
    assert history.files() == {sha("three")}
    assert history.prune("unknown", 1) == ()


def test_a_file_that_another_zone_needs_is_not_given_up(history: History):
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


# ------- What changed -------


def test_difference_is_the_net_change_in_either_direction(history: History):
    """`diff A B`: what came and went between is not told."""
    history.accept([new("four", b"- exact c.example\n", hour=3)])
    assert list(history.difference(ZONE, 1, 3)) == [
        Change("a.example", "exact", None),
        Change("b.example", "exact", "subtree"),
        Change("c.example", None, "exact"),
    ]
    assert list(history.difference(ZONE, 3, 1)) == [
        Change("a.example", None, "exact"),
        Change("b.example", "subtree", "exact"),
        Change("c.example", "exact", None),
    ]
    assert [change.name for change in history.difference(ZONE, 1, 4)] == ["a.example", "b.example"]
    assert list(history.difference(ZONE, 2, 2)) == []


@pytest.mark.parametrize(("a", "b"), [(1, 4), (0, 2), (4, 4), (-1, 3)])
def test_difference_with_a_version_that_never_was_is_refused(history: History, a: int, b: int):
    """Before the first change is asked for, so that nobody prints half an answer."""
    with pytest.raises(Refused) as refused:
        history.difference(ZONE, a, b)
    assert f"'{ZONE} {a} {b}': there are no two such versions" in reasons(refused)


def test_difference_across_a_version_that_was_compared_with_nothing_is_refused(history: History):
    """Where the file of the version before was lost, nobody knows what changed."""
    history.accept([new("four", None, hour=3), new("five", b"+ exact d.example\n", hour=4)])
    with pytest.raises(Refused) as refused:
        history.difference(ZONE, 5, 3)
    assert "compared with nothing" in reasons(refused)
    assert list(history.difference(ZONE, 4, 5)) == [Change("d.example", None, "exact")]
    assert len(list(history.difference(ZONE, 1, 3))) == 3


def test_every_change_of_a_name_is_told_with_its_time(history: History):
    """`history NAME`."""
    history.accept([new("four", b"- subtree b.example\n", hour=3)])
    assert history.events_of(ZONE, "b.example") == (
        NameEvent(3, NOON + 2 * HOUR, "exact", "subtree"),
        NameEvent(4, NOON + 3 * HOUR, "subtree", None),
    )
    assert history.events_of(ZONE, "z.example") == ()
    assert history.events_of("other", "b.example") == ()


def test_the_past_of_a_name_is_known_from_its_next_change_else_from_the_current_list(history: History):
    """`why NAME --at T`: the first version's names are told by what became of them."""
    before = NOON - HOUR
    assert history.scope_at(ZONE, "a.example", before, None) == Past(None, None, is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON, None) == Past(1, "exact", is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON + 1.5 * HOUR, None) == Past(2, "exact", is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON + 2 * HOUR, None) == Past(3, None, is_known=True)
    assert history.scope_at(ZONE, "c.example", NOON, "exact") == Past(1, None, is_known=True)
    assert history.scope_at(ZONE, "u.example", NOON, "exact") == Past(1, "exact", is_known=True)
    assert history.scope_at("other", "u.example", NOON, None) == Past(None, None, is_known=True)


def test_the_past_behind_a_version_that_was_compared_with_nothing_is_said_to_be_unknown(history: History):
    """Rather no answer than a wrong one, in front of a court."""
    history.accept([new("four", None, hour=3), new("five", b"- exact u.example\n", hour=4)])
    assert history.scope_at(ZONE, "a.example", NOON, "exact") == Past(1, "exact", is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON + 2 * HOUR, "exact") == Past(3, None, is_known=False)
    assert history.scope_at(ZONE, "u.example", NOON, None) == Past(1, None, is_known=False)
    assert history.scope_at(ZONE, "u.example", NOON + 3 * HOUR, None) == Past(4, "exact", is_known=True)


def test_after_the_clock_was_put_back_the_later_version_counts(history: History):
    """Numbers tell what came after what, times only when."""
    history.accept([new("four", b"- subtree b.example\n", hour=1)])
    assert history.scope_at(ZONE, "b.example", NOON + 1.5 * HOUR, None) == Past(4, None, is_known=True)
    assert history.scope_at(ZONE, "b.example", NOON + 3 * HOUR, None) == Past(4, None, is_known=True)


@pytest.fixture
def large(history: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """With a fourth version that is not kept by name yet; it changes three names, by four lines."""
    monkeypatch.setattr(history_changes, "SORTED_AT_ONCE", 60)
    monkeypatch.setattr(history_changes, "SORTED_IN_A_ROW", 1)
    difference = b"- exact c.example\n- subtree b.example\n+ exact b.example\n+ exact xb.example\n"
    history.accept([new("four", difference, hour=3)])
    return history


def test_a_large_version_is_told_of_before_and_after_it_is_kept_by_name(large: History):
    """Nobody waits until a million changes are sorted: what asks for a name meanwhile reads them."""
    version = large.version(ZONE, 4)
    assert version is not None
    assert (version.added, version.removed) == (2, 2)
    for _ in range(2):
        told = {
            name: [(event.version, event.before, event.after) for event in large.events_of(ZONE, name)][-1:]
            for name in ("a.example", "b.example", "xb.example", "example", "c.example")
        }
        assert told == {
            "a.example": [(3, "exact", None)],
            "b.example": [(4, "subtree", "exact")],
            "xb.example": [(4, None, "exact")],
            "example": [],
            "c.example": [(4, "exact", None)],
        }
        sort(large)


@pytest.mark.parametrize("error", [RuntimeError("a fault"), HistoryUnwritable("disk full")])
def test_what_goes_wrong_with_sorting_is_logged_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
):
    """It is begun again with the next version, or by the next process."""

    def sort(_: History) -> Iterator[None]:
        raise error
        yield

    monkeypatch.setattr(History, "sort", sort)
    records.sort_changes(Store(tmp_path / "state"), lambda: False)
    assert "could not be kept by name" in caplog.text
    assert ("Traceback" in caplog.text) is isinstance(error, RuntimeError)


def test_sorting_that_was_broken_off_goes_on(large: History, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A process may be killed after any of its transactions."""
    was = history_changes._sort_in
    for allowed in range(4):
        calls = count()

        def dies(*arguments: object, allowed: int = allowed, calls: Iterator[int] = calls) -> None:
            if next(calls) == allowed:
                raise KeyboardInterrupt
            was(*arguments)

        monkeypatch.setattr(history_changes, "_sort_in", dies)
        with History.open(folder) as again, pytest.raises(KeyboardInterrupt):
            sort(again)
        assert [event.after for event in large.events_of(ZONE, "b.example")] == ["subtree", "exact"]
    monkeypatch.setattr(history_changes, "_sort_in", was)
    sort(large)
    monkeypatch.setattr(history_changes, "SORTED_IN_MEMORY", 0)
    assert [change.name for change in large.difference(ZONE, 3, 4)] == [
        "b.example",
        "c.example",
        "xb.example",
    ]


def test_a_difference_that_needs_the_names_of_a_large_version_waits_for_them(
    large: History, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(history_changes, "SORTED_IN_MEMORY", 0)
    with pytest.raises(Refused) as refused:
        list(large.difference(ZONE, 1, 4))
    assert "version 4" in reasons(refused)
    assert "ask again in a minute" in reasons(refused)
    sort(large)
    assert [change.name for change in large.difference(ZONE, 1, 4)] == ["a.example", "xb.example"]


# ------- The naive twin: every version as a whole -------

State = dict[str, str]
NAMES = [f"{letter}.example" for letter in "abcdefghijkl"]
STATES = st.lists(
    st.dictionaries(
        st.sampled_from(NAMES), st.sampled_from(["exact", "subtree", "subtree,except-exact"]), max_size=12
    ),
    min_size=1,
    max_size=8,
)


@dataclass(frozen=True)
class Twin:
    """Ten lines that keep all there ever was."""

    states: Sequence[State]

    def difference(self, a: int, b: int) -> list[Change]:
        old, new = self.states[a - 1], self.states[b - 1]
        return [Change(n, old.get(n), new.get(n)) for n in NAMES if old.get(n) != new.get(n)]

    def events_of(self, name: str) -> list[tuple[int, str | None, str | None]]:
        scopes = pairwise(state.get(name) for state in self.states)
        return [(number, old, new) for number, (old, new) in enumerate(scopes, start=2) if old != new]


def lines(changes: Sequence[Change]) -> bytes:
    removed = [f"- {change.before} {change.name}\n" for change in changes if change.before]
    added = [f"+ {change.after} {change.name}\n" for change in changes if change.after]
    return "".join(removed + added).encode()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with History.open(tmp_path_factory.mktemp("shared")) as opened:
        yield opened


fresh_zones = (f"zone-{number}" for number in count())


@pytest.mark.parametrize(
    ("sorted_in_memory", "sorting"),
    [(100_000, "at once"), (0, "at once"), (100_000, "later"), (0, "later"), (100_000, "not yet")],
)
@given(states=STATES)
@settings(max_examples=60, deadline=None)
def test_history_tells_what_a_copy_of_every_version_would_tell(
    shared: History, sorted_in_memory: int, sorting: str, states: list[State]
):
    """Differences, by both ways, events and the scope at any time, of zones beside each other in one file."""
    zone, twin = next(fresh_zones), Twin(states)
    everything = range(1, len(states) + 1)
    versions = [
        new(
            str(number),
            lines(twin.difference(number - 1, number)) if number > 1 else None,
            hour=number,
            zone=zone,
        )
        for number in everything
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_changes, "SORTED_AT_ONCE", 1 << 20 if sorting == "at once" else -1)
        patch.setattr(history_changes, "SORTED_IN_A_ROW", 2)
        patch.setattr(history_changes, "SORTED_IN_MEMORY", sorted_in_memory)
        shared.accept(versions)
        if sorting != "not yet":
            sort(shared)
        for a in everything:
            for b in everything:
                assert list(shared.difference(zone, a, b)) == twin.difference(a, b)
    for name in NAMES:
        events = [(event.version, event.before, event.after) for event in shared.events_of(zone, name)]
        assert events == twin.events_of(name)
        for number in everything:
            past = shared.scope_at(zone, name, NOON + (number + 0.5) * HOUR, states[-1].get(name))
            assert past == Past(number, states[number - 1].get(name), is_known=True)


# ------- Refusals, approvals, snapshots -------


def refusal(code: str = "SHRANK", text: str = "four", hour: int = 3) -> Refusal:
    return Refusal(ZONE, sha(text), code, f"seen at {hour}", f'{{"hour": {hour}}}', NOON + hour * HOUR)


def test_the_same_refusal_again_is_counted(history: History):
    """A broken feed is fetched every hour; it is one event for a person."""
    for hour in (3, 4, 5):
        history.refuse(refusal(hour=hour))
    (event,) = history.events(ZONE)
    assert (event.kind, event.code, event.source_sha256) == ("refused", "SHRANK", sha("four"))
    assert (event.times, event.first_at, event.last_at) == (3, NOON + 3 * HOUR, NOON + 5 * HOUR)
    assert (event.message, event.numbers) == ("seen at 5", '{"hour": 5}')


def test_refusals_of_another_text_by_another_guard_or_in_another_zone_are_events_of_their_own(
    history: History,
):
    """They need a decision of their own."""
    history.refuse(refusal())
    history.refuse(refusal(code="HTML", hour=4))
    history.refuse(refusal(text="five", hour=5))
    history.refuse(replace(refusal(), zone="other"))
    assert [event.message for event in history.events(ZONE)] == ["seen at 5", "seen at 4", "seen at 3"]
    assert [event.message for event in history.events(ZONE, limit=1)] == ["seen at 5"]
    assert len(history.events("other")) == 1
    assert history.current("other") is None


def test_an_approved_text_is_approved_in_its_zone_alone(history: History):
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


def test_an_approval_ends_when_another_text_is_accepted(history: History):
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


def test_a_snapshot_tells_the_versions_of_its_lists(history: History):
    """`rollback SERIAL`."""
    snapshot = published(7, national=3, other=1)
    history.keep_snapshot(snapshot, keep=10)
    assert history.snapshot(7) == snapshot
    assert history.snapshot(8) is None


def test_only_the_newest_snapshots_are_kept(history: History):
    """Orders make a snapshot each; the file must not grow for ever."""
    for serial in range(1, 6):
        history.keep_snapshot(published(serial), keep=3)
    assert [snapshot.serial for snapshot in history.snapshots()] == [5, 4, 3]


def test_a_snapshot_that_is_published_again_stays_what_it_was(history: History):
    """After a restart the same content has the same serial."""
    history.keep_snapshot(published(1, national=1), keep=3)
    history.keep_snapshot(published(2), keep=3)
    again = replace(published(1, national=2), published_at=NOON + 9 * HOUR, reason="start")
    history.keep_snapshot(again, keep=3)
    assert history.snapshots() == (published(2), published(1, national=2))


def test_serials_that_begin_anew_are_the_newest_ones(history: History):
    """Where the last serial was lost, the first snapshot since must not be forgotten for its number."""
    for serial in (1, 2, 3):
        history.keep_snapshot(published(serial), keep=3)
    for serial in (1, 2):
        history.keep_snapshot(published(serial, "another"), keep=3)
    assert [(snapshot.serial, snapshot.digest) for snapshot in history.snapshots()] == [
        (2, "another"),
        (1, "another"),
        (3, "d"),
    ]


# ------- The file -------


def test_nobody_else_may_read_the_history(folder: Path):
    """A list may be secret; the write-ahead log holds the same."""
    with History.open(folder) as history:
        history.accept([new("four", b"", hour=3)])
        modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    assert modes == {"lists.sqlite": 0o600, "lists.sqlite-wal": 0o600, "lists.sqlite-shm": 0o600}


def test_a_history_that_has_not_begun_reads_as_an_empty_one(tmp_path: Path):
    """`check` looks before the daemon was ever started, and makes nothing."""
    with History.open(tmp_path, read_only=True) as history:
        assert history.current(ZONE) is None
        assert history.snapshots() == ()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lists.sqlite").touch()  # the daemon died at its very first step
    with History.open(tmp_path, read_only=True) as history:
        assert history.current(ZONE) is None
    with History.open(tmp_path) as history:
        history.accept(THREE)


def test_a_reader_writes_nothing(folder: Path, tmp_path: Path):
    """The daemon is the only writer."""
    for readable in (folder, tmp_path):
        with History.open(readable, read_only=True) as history, pytest.raises(HistoryUnwritable):
            history.accept([new("x", None, zone="other")])


def test_a_reader_beside_the_writer_sees_what_is_committed_and_holds_nobody_up(folder: Path):
    """`check` and questions run beside the daemon, here in another process."""
    reads = """
        with History.open(folder, read_only=True) as history:
            print(history.current("national").version.number, flush=True)
            rest = history.difference("national", 1, 3)
            print(next(rest).name, flush=True)
            input()  # in the middle of an answer
            print([change.name for change in rest], history.current("national").version.number)
    """
    with History.open(folder) as history:
        reader = started(folder, reads)
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "3\n"
        assert reader.stdout.readline() == "a.example\n"
        history.accept([new("four", b"- exact c.example\n", hour=3)])
        reader.stdin.write("\n")
        output, errors = reader.communicate(timeout=60)
    assert (output, errors) == ("['b.example', 'c.example'] 4\n", "")


def test_locks_of_a_reader_outlive_the_opening_of_a_writer_in_the_same_process(folder: Path):
    """fcntl(2): closing any descriptor of a file takes away all locks that the process has on it."""
    try_to_lock = """
        import sqlite3
        database = sqlite3.connect(folder / "lists.sqlite", timeout=0)
        print(database.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone())
        try:
            database.execute("PRAGMA journal_mode = DELETE")  # needs the file to itself
        except sqlite3.OperationalError as err:
            print(err)
    """
    with History.open(folder, read_only=True) as reader:
        assert numbers(reader) == [3, 2, 1]
        with History.open(folder) as writer:
            assert numbers(writer) == [3, 2, 1]
            output, errors = started(folder, try_to_lock).communicate(timeout=60)
    assert (output, errors) == ("('exclusive',)\ndatabase is locked\n", "")


def test_a_file_that_is_no_database_is_refused_with_what_to_do(tmp_path: Path):
    """At 3 a.m.: which file, what it is, and what can be done."""
    (tmp_path / "lists.sqlite").write_bytes(b"<html>" * 1000)
    for read_only in (False, True):
        with pytest.raises(Refused) as refused:
            History.open(tmp_path, read_only=read_only)
        assert str(tmp_path / "lists.sqlite") in reasons(refused)
        assert "restore the file from a backup" in reasons(refused)


def test_a_damaged_database_is_refused_when_it_is_met(folder: Path):
    """Rather no answer than one out of rubbish."""
    file = folder / "lists.sqlite"
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)  # all but the first page, which holds the schema
    file.write_bytes(data)
    with pytest.raises(Refused) as refused, History.open(folder) as history:
        history.current(ZONE)
    assert f"{file}: " in reasons(refused)
    assert "corrupt" in reasons(refused)


def test_a_difference_that_rotted_on_the_disk_is_refused(folder: Path):
    """SQLite has no checksums, but the compressed differences have."""
    with sqlite3.connect(folder / "lists.sqlite") as database:
        database.execute("UPDATE differences SET compressed = x'00' WHERE number = 2")
    database.close()
    with History.open(folder) as history, pytest.raises(Refused) as refused:
        list(history.difference(ZONE, 1, 3))
    assert "'difference of version 2': corrupt" in reasons(refused)


@pytest.mark.parametrize("schema", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_schema_of_another_dnsblock_is_refused(folder: Path, schema: int, read_only: bool):
    """Nothing is written into what is not understood."""
    database = sqlite3.connect(folder / "lists.sqlite")
    database.execute(f"PRAGMA user_version = {schema}")
    database.close()
    with pytest.raises(Refused) as refused:
        History.open(folder, read_only=read_only)
    assert f"'schema {schema}': not schema {SCHEMA_VERSION} of the history" in reasons(refused)


def test_a_database_of_something_else_is_refused(tmp_path: Path):
    """Its tables are not ours to add to."""
    database = sqlite3.connect(tmp_path / "lists.sqlite")
    database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()
    with pytest.raises(Refused) as refused:
        History.open(tmp_path)
    assert "'schema 0'" in reasons(refused)


def test_a_state_that_is_no_folder_is_refused_with_what_to_do(tmp_path: Path):
    """The error is the operator's, not Python's."""
    (tmp_path / "state").touch()
    with pytest.raises(Refused) as refused:
        History.open(tmp_path / "state")
    assert "`state`" in reasons(refused)


# ------- Death and a full disk -------

# What a child does before its own lines; `folder` is the state folder.
PRELUDE = """
import os, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from dnsblock.errors import HistoryUnwritable
from dnsblock.lists.history.history import History
from tests.unit.test_history import BIG, new
folder = Path(sys.argv[1])
"""


def started(folder: Path, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(folder)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


BIG = b"".join(b"+ exact name-%d.example\n" % number for number in range(50_000))


def assert_is_as_it_was(folder: Path) -> None:
    """The three versions, nothing of a fourth, and it can be accepted now."""
    with History.open(folder) as history:
        assert numbers(history) == [3, 2, 1]
        assert history.events_of(ZONE, "name-1.example") == ()
        assert history.events(ZONE) == ()
        assert not history.versions(ZONE)[0].is_withdrawn
        (fourth,) = history.accept([new("four", BIG, hour=3)])
        assert (fourth.number, fourth.added) == (4, 50_000)
        assert len(history.events_of(ZONE, "name-1.example")) == 1


@pytest.mark.parametrize(
    "last_words", ["INSERT INTO changes", "INSERT INTO versions", "UPDATE versions", "COMMIT"]
)
def test_a_writer_that_dies_in_the_middle_leaves_the_last_state(folder: Path, last_words: str):
    """The decision falls with the commit, and not before."""
    child = started(
        folder,
        f"""
        history = History.open(folder)
        history._file.connection.execute("PRAGMA cache_size = 10")  # much is on the disk before the end
        history._file.connection.set_trace_callback(
            lambda statement: os._exit(99) if statement.startswith("{last_words}") else None
        )
        history.accept([new("four", BIG, hour=3, withdraws=3)])
        """,
    )
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (99, "")
    assert_is_as_it_was(folder)


def test_a_disk_that_is_full_leaves_the_last_state_and_is_told(folder: Path):
    """Here no file may grow beyond a limit, so a write fails in the middle of the transaction."""
    child = started(
        folder,
        """
        history = History.open(folder)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            history.accept([new("four", BIG, hour=3, withdraws=3)])
        except HistoryUnwritable as err:
            print(err)
        print(history.current("national").version.number, history.events("national"))
        print(history.accept([new("small", b"", hour=3)])[0].number, flush=True)
        os._exit(0)
        """,
    )
    output, errors = child.communicate(timeout=60)
    assert errors == ""
    message, state, after = output.splitlines()
    assert message.startswith(f"{folder / 'lists.sqlite'}: ")
    assert message.endswith(": nothing was written")
    assert (state, after) == ("3 ()", "4")


def test_sqlites_own_word_for_a_full_disk_is_understood(history: History, folder: Path):
    """SQLITE_FULL is what ENOSPC becomes; the history goes on when there is room again."""
    connection = history._file.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(HistoryUnwritable, match="database or disk is full: nothing was written"):
        history.accept([new("four", BIG, hour=3, withdraws=3)])
    assert numbers(history) == [3, 2, 1]
    history.close()
    assert_is_as_it_was(folder)
