"""Copies of frozen objects (dnsblock/orders/copies.py)."""

from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest

from dnsblock.orders.copies import made, replaced
from dnsblock.orders.life import Life
from dnsblock.orders.order import Order

from .helpers import AUGUST_10, block, orders


def test_a_copy_is_that_of_the_standard_library():
    """Only faster: an order has forty fields."""
    (order,) = orders(block("b-1", "a.example"))
    changes = {"verified_at": AUGUST_10, "seq": 7, "entries": ()}
    copy = replaced(order, **changes)
    assert copy == replace(order, **changes)
    assert (order.seq, copy.seq) == (None, 7)
    assert [getattr(copy, one.name) for one in fields(Order)] == [
        changes.get(one.name, getattr(order, one.name)) for one in fields(Order)
    ]
    with pytest.raises(FrozenInstanceError):
        copy.seq = 8
    with pytest.raises(AttributeError, match="no attribute 'sequence'"):
        replaced(order, sequence=8)


def test_an_object_is_that_of_its_own_class():
    """Only faster to make. Fields that are not given have the defaults of the class."""
    (order,) = orders(block("b-1", "a.example"))
    given = {"file": "a.yaml", "sha256": "0" * 64, "issuer": "a", "order_id": "b-1", "action": "block"}
    found = made(Order, **given, issued_at=AUGUST_10, effective_at=AUGUST_10)
    assert type(found) is Order
    assert (found, hash(found), repr(found)) == (
        expected := Order(**given, issued_at=AUGUST_10, effective_at=AUGUST_10),
        hash(expected),
        repr(expected),
    )
    assert (made(Life, order), made(Life, order).ends) == (Life(order), Life(order).ends)
    with pytest.raises(FrozenInstanceError):
        found.seq = 8
    for arguments in ({"sequence": 8}, {"file": "a.yaml"}):
        with pytest.raises(TypeError):
            made(Order, **arguments)


def test_a_class_that_checks_its_values_is_refused():
    """Its twin would not check them."""

    @dataclass(frozen=True, slots=True)
    class Checked:
        one: int
        two: int

        def __post_init__(self) -> None:
            raise ValueError("never")

    with pytest.raises(TypeError, match="__post_init__"):
        made(Checked, 1, 2)
