"""The changes of each version, name by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnsblock.errors import Refused
from dnsblock.lists.history import changes as history_changes
from dnsblock.lists.history.facts import (
    Change,
    NameEvent,
    Past,
)
from dnsblock.lists.history.history import History

from .helpers import HOUR, NOON, ZONE, new, reasons

# ------- What changed -------


def test_difference_is_the_net_change_in_either_direction(history: History):
    """`diff A B`: changes in between that cancel out are not shown."""
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
def test_a_difference_with_an_unknown_version_is_refused(history: History, a: int, b: int):
    """Before the first change is read, so that no partial answer is printed."""
    with pytest.raises(Refused) as refused:
        history.difference(ZONE, a, b)
    assert f"'{ZONE} {a} {b}': one of these versions does not exist" in reasons(refused)


def test_a_difference_across_a_version_without_recorded_changes_is_refused(history: History):
    """If the file of the previous version was lost, the changes are unknown."""
    history.accept([new("four", None, hour=3), new("five", b"+ exact d.example\n", hour=4)])
    with pytest.raises(Refused) as refused:
        history.difference(ZONE, 5, 3)
    assert "the changes of a version between them are unknown" in reasons(refused)
    assert list(history.difference(ZONE, 4, 5)) == [Change("d.example", None, "exact")]
    assert len(list(history.difference(ZONE, 1, 3))) == 3


def test_every_change_of_a_name_has_its_time(history: History):
    """`history NAME`."""
    history.accept([new("four", b"- subtree b.example\n", hour=3)])
    assert history.events_of(ZONE, "b.example") == (
        NameEvent(3, NOON + 2 * HOUR, "exact", "subtree"),
        NameEvent(4, NOON + 3 * HOUR, "subtree", None),
    )
    assert history.events_of(ZONE, "z.example") == ()
    assert history.events_of("other", "b.example") == ()


def test_the_past_of_a_name_is_known_from_its_next_change_else_from_the_current_list(history: History):
    """`why NAME --at T`: the names of the first version follow from later changes."""
    before = NOON - HOUR
    assert history.scope_at(ZONE, "a.example", before, None) == Past(None, None, is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON, None) == Past(1, "exact", is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON + 1.5 * HOUR, None) == Past(2, "exact", is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON + 2 * HOUR, None) == Past(3, None, is_known=True)
    assert history.scope_at(ZONE, "c.example", NOON, "exact") == Past(1, None, is_known=True)
    assert history.scope_at(ZONE, "u.example", NOON, "exact") == Past(1, "exact", is_known=True)
    assert history.scope_at("other", "u.example", NOON, None) == Past(None, None, is_known=True)


def test_the_past_before_a_version_without_recorded_changes_is_unknown(history: History):
    """Rather no answer than a wrong one, in front of a court."""
    history.accept([new("four", None, hour=3), new("five", b"- exact u.example\n", hour=4)])
    assert history.scope_at(ZONE, "a.example", NOON, "exact") == Past(1, "exact", is_known=True)
    assert history.scope_at(ZONE, "a.example", NOON + 2 * HOUR, "exact") == Past(3, None, is_known=False)
    assert history.scope_at(ZONE, "u.example", NOON, None) == Past(1, None, is_known=False)
    assert history.scope_at(ZONE, "u.example", NOON + 3 * HOUR, None) == Past(4, "exact", is_known=True)


def test_after_a_clock_step_back_the_later_version_counts(history: History):
    """Numbers tell what came after what, times only when."""
    history.accept([new("four", b"- subtree b.example\n", hour=1)])
    assert history.scope_at(ZONE, "b.example", NOON + 1.5 * HOUR, None) == Past(4, None, is_known=True)
    assert history.scope_at(ZONE, "b.example", NOON + 3 * HOUR, None) == Past(4, None, is_known=True)


# ------- The naive twin: every version as a whole -------

State = dict[str, str]
NAMES = [f"{character}.example" for character in "abcdefghijkl"]
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


@pytest.mark.parametrize("lines_at_once", [100_000, 2])
@given(states=STATES)
@settings(max_examples=60, deadline=None)
def test_the_history_equals_that_of_full_copies(shared: History, lines_at_once: int, states: list[State]):
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
        patch.setattr(history_changes, "LINES_AT_ONCE", lines_at_once)
        shared.accept(versions)
    for a in everything:
        for b in everything:
            assert list(shared.difference(zone, a, b)) == twin.difference(a, b)
    for name in NAMES:
        events = [(event.version, event.before, event.after) for event in shared.events_of(zone, name)]
        assert events == twin.events_of(name)
        for number in everything:
            past = shared.scope_at(zone, name, NOON + (number + 0.5) * HOUR, states[-1].get(name))
            assert past == Past(number, states[number - 1].get(name), is_known=True)
