"""The history of a policy zone has the answers of its records, not only its triggers."""

from datetime import UTC, datetime

import pytest

from .asking import is_forwarded
from .harness import PROFILES, Subject
from .lists import ANY_CHANGE, roll_back
from .policy_zones import rpz, start, zone_text
from .upstreams import StubUpstream

FIRST = [
    "a.example 60 A 203.0.113.1",
    "b.example CNAME .",
    "*.b.example CNAME .",
    "32.1.2.0.192.rpz-ip CNAME .",
]


@pytest.fixture
def zone(subject: Subject, upstream: StubUpstream) -> Subject:
    """A running daemon with a zone that may change in any way."""
    start(subject, upstream, rpz(source={"guards": ANY_CHANGE}), files={"rpz.zone": FIRST})
    return subject


def become(subject: Subject, *records: str) -> int:
    """Publishes other records of the zone; returns the serial of the snapshot."""
    subject.put_list("rpz.zone", zone_text(*records))
    return subject.reload()["serial"]


def changes(subject: Subject, a: int, b: int) -> tuple[int, list[list[str | None]]]:
    """The exit code of `diff`, and the changes."""
    said = subject.cli("diff", str(a), str(b))
    assert said.code in (0, 1), said
    return said.code, [change for one in said.json["zones"] for change in one["changes"]]


def answers(subject: Subject, name: str) -> list[tuple[str, str, str]]:
    """The events of a name or an address."""
    found = subject.cli("history", name).json["events"]
    return [(one["what"], one["match"], one["answer"]) for one in found]


def test_a_changed_answer_is_a_difference(zone: Subject):
    """An operator asks when the page of a blocked name has changed, and to what."""
    second = become(zone, "a.example 60 A 203.0.113.2", *FIRST[1:])
    changed = [["a.example", "exact 60 A 203.0.113.1", "exact 60 A 203.0.113.2"]]
    assert changes(zone, 1, second) == (0, changed)
    assert answers(zone, "a.example") == [
        ("listed", "exact", "60 A 203.0.113.1"),
        ("changed", "exact", "60 A 203.0.113.2"),
    ]
    shown = zone.cli("history", "a.example", as_json=False).stdout.splitlines()
    assert shown[0].split()[-1] == "answer"
    assert shown[2].endswith("60 A 203.0.113.2")
    assert zone.cli("diff", "1", str(second), as_json=False).stdout.splitlines()[1:] == [
        "- a.example exact 60 A 203.0.113.1",
        "+ a.example exact 60 A 203.0.113.2",
    ]
    third = become(zone, *FIRST)
    assert changes(zone, 1, third) == (1, [])
    assert changes(zone, second, third) == (0, [["a.example", changed[0][2], changed[0][1]]])


def test_each_action_is_shown_as_its_record(zone: Subject):
    """Of a name and the names below it with one answer, of two with different ones, and of an address."""
    second = become(zone, "b.example CNAME rpz-passthru.", "*.b.example CNAME page.example.")
    nxdomain = "300 CNAME ."
    assert changes(zone, 1, second)[1] == [
        ["192.0.2.1/32", f"exact {nxdomain}", None],
        ["a.example", "exact 60 A 203.0.113.1", None],
        [
            "b.example",
            f"subtree {nxdomain}",
            "pass-exact,below 300 CNAME rpz-passthru. | 300 CNAME page.example.",
        ],
    ]
    assert answers(zone, "b.example") == [
        ("listed", "subtree", nxdomain),
        ("changed", "pass-exact,below", "300 CNAME rpz-passthru. | 300 CNAME page.example."),
    ]
    assert answers(zone, "192.0.2.1") == [("listed", "prefix", nxdomain), ("gone", "prefix", nxdomain)]


def test_long_answers_that_begin_alike_differ(zone: Subject):
    """A long answer is shown in part, with its digest."""
    addresses = [f"a.example 60 A 203.0.113.{number}" for number in range(100)]
    second = become(zone, *addresses)
    third = become(zone, *addresses[:-1], "a.example 60 A 203.0.113.200")
    ((name, before, after),) = changes(zone, second, third)[1]
    assert (name, before.partition("...")[0]) == ("a.example", after.partition("...")[0])
    assert before != after
    assert max(len(before), len(after)) < 250


def test_another_page_for_many_names_is_in_the_history(zone: Subject):
    """A ministry moves its page: no name may lose its earlier history by that."""
    for number, page in enumerate(("page.example.", "other.example.")):
        become(zone, *(f"name{one}.example CNAME {page}" for one in range(300_000)))
        assert answers(zone, "name5.example")[-1][2] == f"300 CNAME {page}"
        assert len(answers(zone, "name5.example")) == number + 1


def test_a_rollback_is_in_the_history_with_its_answers(zone: Subject):
    """The difference of a rollback is made from the history, in both directions."""
    second = become(zone, "a.example 60 A 203.0.113.2", "c.example TXT two words")
    assert roll_back(zone, 1).code == 0
    third = zone.status()["serial"]
    code, back = changes(zone, second, third)
    assert (code, ["a.example", "exact 60 A 203.0.113.2", "exact 60 A 203.0.113.1"] in back) == (0, True)
    assert changes(zone, 1, third) == (1, [])
    assert [what for what, _, _ in answers(zone, "c.example")] == ["listed", "gone"]
    assert answers(zone, "a.example")[-1] == ("changed", "exact", "60 A 203.0.113.1")
    zone.restart()
    assert changes(zone, 1, third) == (1, [])


@pytest.mark.parametrize("kinds", [("rpz", "list"), ("list", "rpz")], ids=" to ".join)
def test_a_rollback_does_not_change_the_kind_of_a_zone(
    subject: Subject, upstream: StubUpstream, kinds: tuple[str, str]
):
    """The records of a policy zone mean something else in a list, and the other way round."""
    zones = {
        "rpz": rpz(source={"guards": ANY_CHANGE}),
        "list": {"name": "rpz", "list": "names.txt", "answer": "sinkhole", "source": {"guards": ANY_CHANGE}},
    }
    other = {"name": "other", "list": "other.txt", "answer": "sinkhole", "source": {"guards": ANY_CHANGE}}
    files = {"rpz.zone": FIRST, "names.txt": "a.example\nb.example\n", "other.txt": "o.example\n"}
    start(subject, upstream, zones[kinds[0]], other, files=files)
    begun = datetime.now(UTC)
    fixed = {"listen": subject.ready["listening"], "metrics": subject.ready["metrics"]}
    subject.configure(
        zones=[zones[kinds[1]], other], answers=PROFILES, inbox=None, upstreams=[upstream.address], **fixed
    )
    subject.reload()
    refused = roll_back(subject, 1)
    assert (refused.code, "the kind of rpz has changed" in refused.stdout + refused.stderr) == (4, True), (
        refused
    )
    subject.put_list("other.txt", "o.example\np.example\n")
    subject.reload()
    assert roll_back(subject, 1).code == 0
    assert is_forwarded(subject.query("p.example"))
    for name in ("a.example", "b.example"):
        assert not is_forwarded(subject.query(name))
        said = subject.cli("why", name, "--at", begun.isoformat())
        assert said.code in (0, 1), said
    assert "not rolled back: the kind of rpz has changed" in subject.stderr()
