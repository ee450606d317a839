"""Records equal the enforced state: first the ledger, then the history of lists, then the snapshot."""

import json
import resource
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from .clocks import FakeClock
from .harness import ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .lists import DAY, list_zone, versions
from .orders import block, stamp, unblock
from .scheduling import RunDelays
from .tools import wait_for
from .upstreams import StubUpstream

LISTED, ORDERED = "listed.example", "ordered.example"
# Names that fill a ledger, so that one limit of file sizes is too small for it alone.
LONG = [f"{number:04}{'a' * 56}.{'b' * 60}.{'c' * 60}.example" for number in range(2000)]
LIMIT = 256 * 1024
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_an_unwritable_ledger_leaves_no_list_version_recorded(subject: Subject, upstream: StubUpstream):
    """The history held a version that was never enforced, and the next one counted its names again."""
    zones = [ORDERS_ZONE, list_zone(every_s=DAY)]
    subject.start(
        zones=zones, lists={"list.txt": [LISTED]}, orders=[block("B-1", LONG)], upstreams=[upstream.address]
    )
    resource.prlimit(subject.process.pid, resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    subject.put_order(block("B-2", [ORDERED]))
    subject.put_list("list.txt", [LISTED, "new.example"])
    said = subject.cli("reload")
    assert said.code == 4
    assert "ledger.jsonl" in said.stdout
    assert [one["version"] for one in versions(subject)] == [1]
    assert is_forwarded(subject.query("new.example"))
    assert is_forwarded(subject.query(ORDERED))
    resource.prlimit(subject.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    subject.reload()
    latest, first = versions(subject)
    assert (latest["version"], first["version"], latest["entries"], first["entries"]) == (2, 1, 2, 1)
    assert is_sinkholed(subject.query("new.example"))
    assert is_sinkholed(subject.query(ORDERED))


def test_an_unwritable_history_delays_no_order(subject: Subject, upstream: StubUpstream):
    """The lists stay what they were; an order of the same reload is in the ledger and enforced."""
    zones = [ORDERS_ZONE, list_zone(every_s=DAY)]
    orders = [block("B-1", ["first.example"])]
    subject.start(zones=zones, lists={"list.txt": [LISTED]}, orders=orders, upstreams=[upstream.address])
    with closing(sqlite3.connect(subject.folder / "state" / "lists.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        subject.put_order(block("B-2", [ORDERED]))
        subject.put_order(unblock("U-1", "B-1"))
        subject.put_list("list.txt", [LISTED, "new.example"])
        said = subject.cli("reload", timeout=60)
        assert said.code == 4
        assert is_sinkholed(subject.query(ORDERED))
        assert is_forwarded(subject.query("first.example"))
        assert is_forwarded(subject.query("new.example"))
        assert is_sinkholed(subject.query(LISTED))
    subject.reload()
    assert is_sinkholed(subject.query("new.example"))
    assert [one["version"] for one in versions(subject)] == [2, 1]


# ------- The clock's task -------


def test_an_order_that_is_published_just_before_its_time_starts_on_time(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """A publish wakes the task that waits for the next change, whatever it was waiting for.

    Without that, the task looks once a second. Here it does so half a second before each full second, and the
    order comes after that look and before the full second at which it takes effect.
    """
    subject.start(upstreams=[upstream.address])
    offset = 0.0
    for number in range(1, 21):  # more than once only if there was no processor for the daemon or these tests
        offset += 0.5
        # It has looked when the first order takes effect; then the full seconds move away from there.
        if put_order_for(subject, f"A-{number}", full_second(offset - 0.5, min(number, 5))) is None:
            offset -= 0.5
            continue
        clock.step_to(offset)
        wait_for(lambda: 0.6 <= fraction(offset) < 0.8, "between its look and the full second")  # noqa: B023
        began, moment = time.monotonic(), full_second(offset, 0)
        with RunDelays(subject) as delays:
            published = put_order_for(subject, f"B-{number}", moment)
            waited = delays.of_all(began)
        if published is not None:
            late = (published - moment).total_seconds()
            if late < 0.25:
                return
            assert waited > late - 0.25, f"late by {late} s"
    pytest.fail("the machine is too slow: no order could be published just before its time")


def put_order_for(subject: Subject, order_id: str, moment: datetime) -> datetime | None:
    """Publishes an order that takes effect at a moment; returns when it did, None if it came after that."""
    before = len(published_by_the_clock(subject))
    subject.put_order(block(order_id, [f"{order_id.lower()}.example"], effective_at=stamp(moment)))
    if subject.reload()["changed"]:
        return None
    published = wait_for(lambda: published_by_the_clock(subject)[before:], "it is in force")
    assert is_sinkholed(subject.query(f"{order_id.lower()}.example"))
    return published[0]


def published_by_the_clock(subject: Subject) -> list[datetime]:
    """When another content was served because its time had come, as logged."""
    lines = [line for line in subject.stderr().split("\n")[:-1] if '"reason": "clock"' in line]
    return [datetime.fromisoformat(line["time"]) for line in map(json.loads, lines) if line["changed"]]


def full_second(offset: float, ahead: float) -> datetime:
    """The next full second of a clock that is `offset` ahead, at least `ahead` seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=offset + ahead + 1)).replace(microsecond=0)


def fraction(offset: float) -> float:
    return (datetime.now(UTC) + timedelta(seconds=offset)).microsecond / 1e6
