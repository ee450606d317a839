"""Numbered orders (`seq` and `prev`): annulled ones, and wrong numbers of orders that open names."""

from pathlib import Path

import pytest

from .helpers import block, exempt, sha256, unblock
from .registry import Registry, codes


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def test_an_issuer_goes_on_with_its_numbers_after_its_only_order_was_annulled(registry: Registry):
    """The corrected order has the number of the annulled one, or the next one."""
    first = block("b-1", "wrong.example", seq=1)
    registry.submit(first)
    registry.annul("b-1")
    assert registry.judge(block("b-2", "t.example", seq=2, prev=sha256(first))).problems == ()
    assert codes(registry.submit(block("b-2", "t.example"))) == ["WRONG_SEQ"]
    assert registry.submit(block("b-2", "t.example", seq=1)) == []
    assert registry.in_force() == ["t.example of b-2"]


def test_an_order_without_seq_that_was_annulled_does_not_forbid_numbers(registry: Registry):
    """The issuer forgot the number. It sends the corrected order with one."""
    registry.submit(block("b-1", "t.example"))
    assert codes(registry.submit(block("b-2", "t.example", seq=1))) == ["WRONG_SEQ"]
    registry.annul("b-1")
    assert registry.submit(block("b-2", "t.example", seq=1)) == []
    assert registry.in_force() == ["t.example of b-2"]


def test_an_issuer_goes_on_with_its_numbers_after_its_last_order_was_annulled(registry: Registry):
    """Otherwise all its later blocks would be refused."""
    first = block("b-1", "t.example", seq=1)
    second = block("b-2", "wrong.example", seq=2, prev=sha256(first))
    registry.submit(first, second)
    registry.annul("b-2")
    assert registry.submit(block("b-3", "u.example", seq=3, prev=sha256(second))) == []
    assert registry.in_force() == ["t.example of b-1", "u.example of b-3"]


def test_an_unblock_after_a_gap_says_which_orders_are_missing(registry: Registry):
    """It applies at once, and nobody would see otherwise that an order was withheld."""
    first = block("b-1", "t.example", seq=1)
    second = block("b-2", "u.example", seq=2, prev=sha256(first))
    third = unblock("u-3", "b-1", seq=3, prev=sha256(second))
    fourth = unblock("u-4", "b-2", seq=4, prev=sha256(third))
    registry.submit(first)
    registry.submit(third, fourth)
    gap = "GAP: the order with seq 2 has not been received; this order applies anyway"
    unknown = "UNKNOWN_ORDER: b-2 has not been received: it will be ended when it comes"
    assert registry.states()["u-3"].notes == (gap,)
    assert registry.states()["u-4"].notes == (gap, unknown)
    registry.submit(second)
    assert registry.states()["u-3"].notes == registry.states()["u-4"].notes == ()
    assert registry.in_force() == []


@pytest.mark.parametrize(
    "lifting", [unblock("u-1", "b-1", seq=7, prev="ab" * 32), exempt("e-1", "t.example", seq=1)]
)
def test_one_wrong_number_of_an_order_that_opens_names_refuses_no_later_order(
    registry: Registry, lifting: str
):
    """It applies anyway, and the issuer still numbers none of its orders."""
    registry.submit(block("b-1", "t.example"))
    assert registry.submit(lifting) == []
    assert registry.submit(block("b-2", "u.example")) == []


def test_the_first_block_says_whether_an_issuer_numbers_its_orders(registry: Registry):
    """In one batch, too."""
    assert registry.submit(exempt("e-1", "t.example")) == []
    first = block("b-1", "t.example", seq=1)
    assert codes(registry.submit(first, block("b-2", "u.example"))) == ["WRONG_SEQ"]
