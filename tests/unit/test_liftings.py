"""Lifting a block is never held or lost, whatever comes before, later, or at the same time."""

from pathlib import Path

import pytest

from dnsblock.errors import Refused
from dnsblock.orders.context import Context
from dnsblock.orders.intake import judge_all
from dnsblock.orders.spans import spans_of

from .helpers import block, document, exempt, sha256, unblock
from .registry import BEGIN, Registry, codes


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


# ------- Orders in another sequence -------


def test_a_lifting_after_a_gap_means_the_order_that_comes_not_an_annulled_one(registry: Registry):
    """The issuer corrects an annulled block under the same number, and lifts it. The lifting comes first."""
    registry.submit(block("b-1", "wrong.example", seq=1))
    registry.annul("b-1")
    corrected = block("b-1", "t.example", seq=1)
    registry.submit(unblock("u-1", "b-1", seq=2, prev=sha256(corrected)))
    registry.submit(corrected)
    assert registry.in_force() == []
    assert registry.state("b-1") == "lifted"


def test_a_lifting_means_the_order_that_had_the_number_when_it_came(registry: Registry):
    """If that is annulled later, the number may come again: it was not lifted."""
    registry.submit(block("b-1", "wrong.example"), unblock("u-1", "b-1"))
    registry.annul("b-1")
    registry.submit(block("b-1", "t.example"))
    assert registry.in_force() == ["t.example of b-1"]


def test_a_gap_does_not_hold_the_part_of_a_revoke_that_opens_names(registry: Registry):
    """To revoke an exemption blocks names again, which waits for the missing order."""
    first = block("b-1", "t.example", seq=1)
    registry.submit(first, exempt("e-1", "u.example", seq=2, prev=sha256(first)))
    registry.submit(lifting("r-1", "b-1", "e-1", action="revoke", seq=9, prev="ab" * 32))
    assert registry.in_force() == ["u.example of e-1"]
    assert registry.state("r-1") == "held"
    registry.approve("r-1")
    assert registry.in_force() == []


def test_an_approved_order_is_replaced_by_the_one_that_has_its_number(registry: Registry):
    """Its issuer does not know that it is in force, so nobody would lift it."""
    first = block("b-1", "t.example", seq=1)
    registry.submit(first)
    registry.submit(block("b-2", "u.example", seq=2, prev="ab" * 32))
    registry.approve("b-2")
    assert registry.in_force() == ["t.example of b-1", "u.example of b-2"]
    registry.submit(block("b-3", "u.example", seq=2, prev=sha256(first)))
    assert registry.in_force() == ["t.example of b-1", "u.example of b-3"]
    found = spans_of(registry.ledger.records, registry.orders, "a", ["u.example"])
    spans = [(span.start, span.end) for span in found if span.order.order_id == "b-2"]
    assert spans == [(BEGIN.replace(second=2), BEGIN.replace(second=3))]


def test_nobody_approves_an_order_that_was_replaced(registry: Registry):
    """Another order has its number."""
    first = block("b-1", "t.example", seq=1)
    registry.submit(first)
    registry.submit(block("b-2", "t.me", seq=2, prev="ab" * 32))
    registry.submit(block("b-3", "u.example", seq=2, prev=sha256(first)))
    with pytest.raises(Refused, match="cannot be approved: ANNULLED: another order with seq 2"):
        registry.approve("b-2")
