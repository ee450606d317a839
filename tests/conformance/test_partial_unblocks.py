"""The eleven Telegram names, lifted in parts: after each step exactly the model's names are blocked.

Through publishes, reloads, restarts and kills, and by what `order submit` and `order check` report.
"""

import itertools
import random
from collections.abc import Iterable

import pytest

from .harness import Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, shipped, unblock
from .upstreams import StubUpstream

NAMES: list[str] = shipped("block")[1]["entries"]
Entry = tuple[str, str]


def above(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels))]


def covers(entry: Entry, name: str) -> bool:
    own, match = entry
    return (match != "below" and own == name) or (match != "exact" and own in above(name))


PROBED = sorted({*NAMES, *(f"some.{name}" for name in NAMES), "org.example", "telegram.example"})


def entries(match: str) -> list[Entry]:
    cycle = itertools.cycle(["exact", "subtree", "below"]) if match == "mixed" else itertools.repeat(match)
    return list(zip(NAMES, cycle))  # noqa: B905  # endless


def written(own: Iterable[Entry]) -> list[dict]:
    return [{"name": name, "match": match} for name, match in own]


def start(subject: Subject, upstream: StubUpstream, *orders: dict) -> None:
    """With a list of popular names that does not hold these."""
    subject.put_list("popular.txt", ["popular.example"])
    subject.start(orders=orders, upstreams=[upstream.address], guards={"popular": "popular.txt"})


def assert_blocked(subject: Subject, left: list[Entry]) -> None:
    """Every probed name, by real queries."""
    for name in PROBED:
        reply = subject.query(name)
        is_expected = is_sinkholed if any(covers(entry, name) for entry in left) else is_forwarded
        assert is_expected(reply), (name, left)


def lift(subject: Subject, command: str, number: str, opened: list[Entry]) -> dict:
    path = subject.folder / f"{number}.yaml"
    path.write_text(as_yaml(unblock(number, "B-1", written(opened))))
    said = subject.cli(f"order {command}", str(path))
    assert said.code == 0, said
    one = said.json["documents"][0]
    return one["document"]["lifting"] if command == "check" else one["lifting"]


def still_blocked(opened: list[Entry], left: list[Entry]) -> set[Entry]:
    """The opened entries of which a part stays blocked: the name, all names below, or some of them."""
    found = set()
    for name, match in opened:
        own = match != "below" and any(covers(entry, name) for entry in left)
        below = match != "exact" and any(
            covers(entry, f"some.{name}") or name in above(entry[0]) for entry in left
        )
        if own or below:
            found.add((name, match))
    return found


@pytest.mark.parametrize("match", ["exact", "subtree", "below", "mixed"])
def test_names_that_are_lifted_in_parts_are_open_and_no_others(
    subject: Subject, upstream: StubUpstream, match: str
):
    """August 2017: five of the eleven names stayed blocked for hours, and nobody could say where or why."""
    rng = random.Random(f"2017-08-10 {match}")
    start(subject, upstream, block("B-1", written(entries(match))))
    left = entries(match)
    assert_blocked(subject, left)
    steps = [subject.restart, subject.reload, lambda: (subject.kill(), subject.launch()), lambda: None]
    number = 0
    while left:
        opened = rng.sample(left, min(len(left), rng.choice([1, 1, 2, 3, 4])))
        left = [entry for entry in left if entry not in opened]
        before = lift(subject, "check", f"U-{number}", opened)
        after = lift(subject, "submit", f"U-{number}", opened)
        assert before["still_blocked"] == after["still_blocked"]
        assert {(one["name"], one["match"]) for one in after["still_blocked"]} == still_blocked(opened, left)
        assert after["open"] == len(opened) - len(still_blocked(opened, left))
        assert_blocked(subject, left)
        steps[number % len(steps)]()
        assert_blocked(subject, left)
        number += 1
    assert subject.status()["orders"][0]["state"] == "lifted"
    assert subject.status()["entries"] == 0


def test_another_order_that_covers_the_names_keeps_them_blocked_until_it_is_lifted(
    subject: Subject, upstream: StubUpstream
):
    """The report names the order for all of telegram.org; then that is lifted, too."""
    start(subject, upstream, block("B-1", NAMES), block("B-2", ["telegram.org"]))
    lifting = lift(subject, "submit", "U-1", [(name, "subtree") for name in NAMES])
    still = {one["name"]: [by["orders"] for by in one["by"]] for one in lifting["still_blocked"]}
    assert still == {name: [["B-2"]] for name in NAMES if name.endswith("telegram.org")}
    assert is_forwarded(subject.query("t.me"))
    assert is_sinkholed(subject.query("venus.web.telegram.org"))
    path = subject.folder / "U-2.yaml"
    path.write_text(as_yaml(unblock("U-2", "B-2")))
    said = subject.cli("order submit", str(path))
    assert said.json["documents"][0]["lifting"]["still_blocked"] == []
    assert_blocked(subject, [])
