"""Lifting a block is never held or lost, whatever comes before, later, or at the same time."""

from pathlib import Path

import pytest

from dnsblock.orders.context import Context
from dnsblock.orders.intake import judge_all

from .helpers import block, document, unblock
from .registry import Registry, codes


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def lifting(order_id: str, *targets: str, action: str = "unblock", **fields: object) -> str:
    named = [f"{{order_id: {target}, entries: all}}" for target in targets]
    return document(order_id, action, targets=named, **fields)


# ------- Targets that do not exist -------


def test_a_target_that_came_between_two_judgements_is_lifted(registry: Registry):
    """A document is judged when it is read, and again when it is recorded."""
    registry.submit(block("b-1", "t.example"))
    read = registry.judge(lifting("u-1", "b-1", "b-2"))
    assert read.new[0].judgement.ignored == ("b-2",)
    registry.submit(block("b-2", "u.example"))
    context = Context(registry.config, registry.references, registry.orders, registry.now)
    again = judge_all(read.new, (), context)
    assert again.new[0].judgement.ignored == ()
    assert again.new[0].refused == ()


def test_the_ledger_says_which_targets_do_not_exist(registry: Registry):
    """`order show` and the receipt have the verdict on each entry, after a restart, too."""
    registry.submit(block("b-1", "t.example", "u.example"))
    one, two = "{order_id: b-1, entries: [t.example, v.example]}", "{order_id: b-2, entries: all}"
    assert registry.submit(document("u-1", "unblock", targets=[one, two])) == []
    assert registry.in_force() == ["u.example of b-1"]
    assert registry.states()["u-1"].refused == 2
    for orders in (registry.orders, registry.restarted()):
        found = [(one.code, one.value) for one in orders.of("a").order("u-1").refused]
        assert found == [("UNKNOWN_ORDER", "b-2"), ("UNKNOWN_ENTRY", "v.example")]


def test_a_lifting_of_nothing_that_exists_is_refused(registry: Registry):
    """It would have no effect: somebody must look at it."""
    registry.submit(block("b-1", "t.example"))
    assert codes(registry.submit(lifting("u-1", "b-2"))) == ["UNKNOWN_ORDER"]
    assert codes(registry.submit(unblock("u-1", "b-1", "v.example"))) == ["UNKNOWN_ENTRY"]
