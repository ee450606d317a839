"""The events that the ledger records after a publish (dnsblock/orders/effects.py)."""

from pathlib import Path

import pytest

from dnsblock.orders.effects import effects_of
from dnsblock.orders.facts import Annulment, Lifted, Verified
from dnsblock.orders.state import State, derive

from .helpers import block, unblock
from .registry import Registry


class Daemon:
    """Records the events of each publish, and those that a restart finds."""

    def __init__(self, folder: Path) -> None:
        self.registry = Registry(folder)
        self.state: State | None = None

    def publish(self, *, is_restarted: bool = False) -> list[str]:
        return [f"{kind} {order_id}" for kind, order_id, _ in self.published(is_restarted=is_restarted)]

    def published(self, *, is_restarted: bool = False) -> list[tuple[str, str, int]]:
        """Kind, number and entries of each event."""
        registry = self.registry
        state = derive(registry.orders, registry.now)
        found = list(effects_of(state, None if is_restarted else self.state, registry.orders, 7))
        registry.record(found)
        self.state = state
        return [(one.KIND, one.order_id, one.entries) for one in found]


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path)


def test_the_end_of_an_annulled_order_is_recorded_once(daemon: Daemon):
    """Not again at each restart."""
    registry = daemon.registry
    registry.submit(block("b-1", "t.example"))
    assert daemon.publish() == ["activated b-1"]
    registry.annul("b-1")
    assert daemon.publish() == ["lifted b-1"]
    assert registry.orders.of("a").latest("b-1").order.ended_at is not None
    for _ in range(2):
        assert daemon.publish(is_restarted=True) == []


def test_each_part_that_is_lifted_is_recorded_with_its_number_of_entries(daemon: Daemon):
    """Once, also over a restart; an annulled unblock brings entries back."""
    registry = daemon.registry
    registry.submit(block("b-1", "one.example", "two.example", "three.example", "four.example"))
    assert daemon.publish() == ["activated b-1"]
    registry.submit(unblock("u-1", "b-1", "one.example"))
    assert sorted(daemon.published()) == [("activated", "u-1", 1), ("lifted", "b-1", 1)]
    assert daemon.publish(is_restarted=True) == []
    registry.submit(unblock("u-2", "b-1", "one.example", "two.example", "three.example"))
    assert sorted(daemon.published()) == [("activated", "u-2", 3), ("lifted", "b-1", 2)]
    assert registry.orders.of("a").order("b-1").ended_at is None
    registry.annul("u-2")
    assert ("activated", "b-1", 3) in daemon.published()
    assert daemon.publish(is_restarted=True) == []
    registry.submit(unblock("u-3", "b-1"))
    assert sorted(daemon.published()) == [("activated", "u-3", 4), ("lifted", "b-1", 3)]
    assert registry.orders.of("a").order("b-1").ended_at is not None
    assert daemon.publish(is_restarted=True) == []


def test_what_was_never_in_force_is_not_lifted(daemon: Daemon):
    """The block and the unblock of a part of it come together."""
    registry = daemon.registry
    registry.submit(block("b-1", "one.example", "two.example"), unblock("u-1", "b-1", "one.example"))
    assert sorted(daemon.published()) == [("activated", "b-1", 1), ("activated", "u-1", 1)]
    assert daemon.publish(is_restarted=True) == []
    registry.submit(unblock("u-2", "b-1", "two.example"))
    assert ("lifted", "b-1", 1) in daemon.published()
    assert registry.orders.of("a").order("b-1").ended_at is not None


def test_entries_that_are_released_later_are_activated_and_verified_again(daemon: Daemon):
    """Otherwise nothing would prove when they took effect, and `verified` would be about other names."""
    registry = daemon.registry
    registry.submit(block("b-1", "t.example", "pages.dev"))
    assert daemon.publish() == ["activated b-1"]
    registry.record([Verified("a", "b-1", ("192.0.2.1:53",))])
    assert registry.state("b-1") == "verified"
    enforced_at = registry.orders.of("a").order("b-1").enforced_at
    registry.approve("b-1", "pages.dev")
    assert registry.state("b-1") == "active"
    assert daemon.publish() == ["activated b-1"]
    assert daemon.publish(is_restarted=True) == []
    order = registry.orders.of("a").order("b-1")
    assert order.verified_at is None
    assert order.enforced_at == enforced_at


def test_an_event_of_an_annulled_order_says_nothing_about_the_next_one_with_its_number(daemon: Daemon):
    """The corrected order is in force, and has not ended."""
    registry = daemon.registry
    registry.submit(block("b-1", "wrong.example"))
    daemon.publish()
    registry.annul("b-1")
    registry.submit(block("b-1", "t.example"))
    assert daemon.publish() == ["activated b-1"]
    assert daemon.publish(is_restarted=True) == []
    assert registry.orders.of("a").order("b-1").ended_at is None


def test_an_annulment_and_what_follows_in_one_append_are_both_kept(daemon: Daemon):
    """The later record does not bring the order back."""
    registry = daemon.registry
    registry.submit(block("b-1", "t.example"))
    daemon.publish()
    facts = [Annulment("a", "b-1", "wrong"), Lifted("a", "b-1", 1, 7)]
    registry.record(facts)
    assert registry.state("b-1") == "annulled"
    assert registry.in_force() == []
