"""`why NAME --at T --known-at K`: the law at a time, and the knowledge and the acts of this instance."""

import time
from datetime import UTC, datetime, timedelta

from .harness import ORDERS_ZONE, Subject
from .orders import block, exempt, shipped, stamp, unblock
from .upstreams import StubUpstream

JULY_20, AUGUST_10 = "2017-07-20T00:00:00+07:00", "2017-08-10T10:46:00+07:00"
MINISTRY = ORDERS_ZONE["name"]


def next_second() -> str:
    """A time after everything that has happened so far; times are shown in whole seconds."""
    now = datetime.now(UTC)
    following = (now + timedelta(seconds=1)).replace(microsecond=0)
    while datetime.now(UTC) < following:
        time.sleep(0.01)
    return now.isoformat()


def test_an_order_of_2017_that_came_later_was_law_and_not_known_here(
    subject: Subject, upstream: StubUpstream
):
    """The Telegram order: in force by law on 20 July 2017, and this instance did not exist."""
    for action in ("block", "unblock"):
        path, document = shipped(action)
        subject.orders_folder.mkdir(exist_ok=True)
        (subject.orders_folder / path.name).write_bytes(path.read_bytes())
    number, issuer = document["targets"][0]["order_id"], document["issuer"]
    zone = {"name": "kominfo", "issuer": issuer, "unsigned": "accept", "answer": "sinkhole"}
    popular = subject.folder / "popular.csv"
    popular.write_text("google.com\n")
    subject.start(zones=[zone], upstreams=[upstream.address], guards={"popular": str(popular)})
    law = subject.cli("why", "web.telegram.org", "--at", JULY_20)
    assert (law.code, law.json["verdict"], law.json["decided_by"]["orders"]) == (0, "blocked", [number])
    assert law.json["known_at"] is None
    assert (law.json["here"]["verdict"], law.json["here"]["known_at"]) == (
        "not blocked",
        "2017-07-19T17:00:00Z",
    )
    (unknown,) = law.json["not_known"]
    assert (unknown["zone"], unknown["order_id"]) == ("kominfo", number)
    known = subject.cli("why", "web.telegram.org", "--at", JULY_20, "--known-at", JULY_20)
    assert (known.code, known.json["verdict"], known.json["decided_by"]) == (1, "not blocked", None)
    assert known.json["not_known"] == law.json["not_known"]
    shown = subject.cli("why", "web.telegram.org", "--at", JULY_20, as_json=False).stdout
    assert "blocked at 2017-07-20 00:00:00 WIB (by all orders known now)" in shown
    assert "here at that time: not blocked" in shown
    assert f"not known here: order {number} of zone kominfo, received 20" in shown
    # By everything that is known today, the answer is that of the law.
    now = subject.cli("why", "web.telegram.org", "--at", JULY_20, "--known-at", next_second())
    assert (now.code, now.json["not_known"]) == (0, [])
    for at, code in ((AUGUST_10, 1), ("2017-08-10T10:45:59+07:00", 0), ("2017-07-14T11:29:59+07:00", 1)):
        assert subject.cli("why", "web.telegram.org", "--at", at).code == code, at


def test_each_correction_is_law_from_its_time_and_known_from_its_arrival(
    subject: Subject, upstream: StubUpstream
):
    """Unblock, revoke, supersede, exemption and annulment, each at two times."""
    long_ago = stamp(datetime(2020, 1, 1, tzinfo=UTC))
    subject.start(
        orders=[block("B-1", ["one.example", "two.example"]), block("B-2", ["three.example"])],
        upstreams=[upstream.address],
    )
    before = next_second()
    subject.put_order(unblock("U-1", "B-1", ["one.example"], effective_at=long_ago))
    subject.put_order(exempt("E-1", ["www.two.example"], effective_at=long_ago))
    subject.reload()
    assert subject.cli("order annul", "B-2", "--reason", "the wrong name").code == 0
    after = next_second()

    def verdicts(name: str, *arguments: str) -> tuple[str, str | None]:
        said = subject.cli("why", name, *arguments).json
        here = said["here"]
        return said["verdict"], here and here["verdict"]

    blocked, free = "blocked", "not blocked"
    # By the law, the unblock opened the name in 2020; it was blocked here until the order came.
    assert verdicts("one.example", "--at", before) == (free, blocked)
    assert verdicts("one.example", "--at", before, "--known-at", before) == (blocked, blocked)
    assert verdicts("one.example", "--at", before, "--known-at", after) == (free, blocked)
    assert verdicts("one.example", "--known-at", before) == (blocked, blocked)
    assert verdicts("one.example", "--at", after) == (free, free)
    assert verdicts("www.two.example", "--at", before) == (free, blocked)
    assert verdicts("two.example", "--at", before) == (blocked, blocked)
    # An annulment is no law: it counts from its own time.
    assert verdicts("three.example", "--at", before) == (blocked, blocked)
    assert verdicts("three.example", "--at", after) == (free, free)
    assert verdicts("three.example", "--at", after, "--known-at", before) == (blocked, blocked)


def test_entries_that_are_held_or_only_announced_are_named(subject: Subject, upstream: StubUpstream):
    """`why` says why an order that names the name does not block it."""
    popular = subject.folder / "popular.csv"
    popular.write_text("popular.example\n")
    notice = block("N-1", ["soon.example"]) | {"action": "notice"}
    subject.start(
        orders=[block("B-1", ["popular.example", "other.example"]), notice],
        upstreams=[upstream.address],
        guards={"popular": str(popular)},
    )
    held = subject.cli("why", "www.popular.example")
    (one,) = held.json["not_enforced"]
    assert held.code == 1
    assert (one["zone"], one["order_id"], one["entry"], one["state"], one["code"]) == (
        *(MINISTRY, "B-1", "popular.example", "held", "POPULAR"),
    )
    shown = subject.cli("why", "www.popular.example", as_json=False).stdout
    assert "not enforced:" in shown
    assert "POPULAR" in shown
    (announced,) = subject.cli("why", "soon.example").json["not_enforced"]
    assert (announced["state"], announced["code"]) == ("notice", "NOTICE")
    before = next_second()
    assert subject.cli("order approve", "B-1", "--reason", "letter 84/2017, by phone").code == 0
    after = subject.cli("why", "popular.example")
    assert (after.code, after.json["not_enforced"]) == (0, [])
    # The law is the same at both times. Here, the entry was held until its release.
    past = subject.cli("why", "popular.example", "--at", before)
    assert (past.code, past.json["here"]["verdict"], past.json["not_known"]) == (0, "not blocked", [])
    assert [one["code"] for one in past.json["here"]["not_enforced"]] == ["POPULAR"]
    assert (
        "not enforced here at that time:"
        in subject.cli("why", "popular.example", "--at", before, as_json=False).stdout
    )
    known = subject.cli("why", "popular.example", "--known-at", before)
    assert (known.code, [one["code"] for one in known.json["not_enforced"]]) == (1, ["POPULAR"])


def test_lists_count_from_their_acceptance(subject: Subject, upstream: StubUpstream):
    """A list has no date of its own: the version in force at the earlier of both times."""
    zone = {"name": "list", "list": "list.txt", "answer": "sinkhole"}
    subject.start(zones=[zone], lists={"list.txt": ["one.example"]}, upstreams=[upstream.address])
    first = next_second()
    subject.put_list("list.txt", ["one.example", "two.example"])
    subject.reload()
    second = next_second()
    for at, known_at, code in ((first, second, 1), (second, first, 1), (second, second, 0)):
        assert subject.cli("why", "two.example", "--at", at, "--known-at", known_at).code == code


def test_a_wrong_time_of_knowledge_is_refused(subject: Subject, upstream: StubUpstream):
    """The message names the option."""
    subject.start(orders=[block("B-1", ["one.example"])], upstreams=[upstream.address])
    said = subject.cli("why", "one.example", "--known-at", "yesterday", as_json=False)
    assert said.code == 2
    assert "--known-at" in said.stderr
