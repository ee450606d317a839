"""Service levels as metrics: how long orders take until they are enforced, and until they are verified."""

from datetime import UTC, datetime, timedelta

import pytest

from .clocks import HOUR, FakeClock
from .harness import Subject, is_sinkholed
from .orders import block, order, stamp, unblock
from .test_probe_scheduled import wait_for_state
from .tools import wait_for
from .upstreams import StubUpstream

ENFORCED, VERIFIED = "dnsblock_order_enforced_seconds", "dnsblock_order_verified_seconds"
BLOCK = block("B", ["one.example", "two.example"])
UNBLOCK = unblock("U", "B")


def counts(subject: Subject, metric: str, suffix: str = "count", **labels: str) -> list[float]:
    """Of orders that block, and of those that open names."""
    scraped = subject.metrics()
    return [scraped.total(f"{metric}_{suffix}", action=one, **labels) for one in ("block", "unblock")]


@pytest.mark.parametrize("way", ["restart", "kill"])
def test_each_order_counts_once_when_it_is_enforced_and_when_it_is_verified(
    subject: Subject, upstream: StubUpstream, way: str
):
    """The times are those of the ledger: after a restart the histograms are the same."""
    subject.start(orders=[], upstreams=[upstream.address], probes={})
    assert (counts(subject, ENFORCED), counts(subject, VERIFIED)) == ([0, 0], [0, 0])
    subject.put_order(BLOCK, "block.yaml")
    subject.reload()
    wait_for_state(subject, "B", "verified")
    assert (counts(subject, ENFORCED), counts(subject, VERIFIED)) == ([1, 0], [1, 0])
    subject.put_order(UNBLOCK, "unblock.yaml")
    subject.reload()
    wait_for_state(subject, "U", "verified")
    assert (counts(subject, ENFORCED), counts(subject, VERIFIED)) == ([1, 1], [1, 1])
    before = {metric: counts(subject, metric, "sum") for metric in (ENFORCED, VERIFIED)}
    assert all(took >= 0 for took in before[ENFORCED])
    assert before[VERIFIED] > before[ENFORCED], "an order is verified after it is enforced"
    if way == "kill":
        subject.kill()
        subject.launch()
    else:
        subject.restart()
    assert {metric: counts(subject, metric, "sum") for metric in before} == before
    assert (counts(subject, ENFORCED), counts(subject, VERIFIED)) == ([1, 1], [1, 1])


def test_the_time_to_enforce_counts_from_when_an_order_is_due(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """From acceptance, or from `effective_at` if that is later: here the clock is two minutes late."""
    then = stamp(datetime.now(UTC) + timedelta(seconds=HOUR))
    orders = [block("OLD", ["old.example"]), block("NEW", ["new.example"], effective_at=then)]
    subject.start(orders=orders, upstreams=[upstream.address])
    assert counts(subject, ENFORCED) == [1, 0]
    assert counts(subject, ENFORCED, "sum")[0] < HOUR, "not from `issued_at`, years ago"
    clock.step_to(HOUR + 120)
    wait_for(lambda: is_sinkholed(subject.query("new.example")), "the order is enforced")
    wait_for(lambda: counts(subject, ENFORCED) == [2, 0], "it is recorded")
    late = [0, *(counts(subject, ENFORCED, "bucket", le=bound)[0] for bound in ("60.0", "300.0", "+Inf"))]
    assert late[-1] - late[1] >= 1, "more than a minute"
    assert counts(subject, ENFORCED, "sum")[0] >= 119


def test_orders_that_enforce_nothing_are_not_counted(subject: Subject, upstream: StubUpstream):
    """A notice announces a block; a held order is not in force."""
    held = block("H", ["held.example"], seq=2, prev="0" * 64)
    subject.start(orders=[order("N", "notice", entries=["n.example"]), held], upstreams=[upstream.address])
    assert (counts(subject, ENFORCED), counts(subject, VERIFIED)) == ([0, 0], [0, 0])
