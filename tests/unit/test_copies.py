"""Copies of frozen objects (dnsblock/orders/copies.py)."""

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from dnsblock.orders.copies import replaced
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
    with pytest.raises(TypeError, match="no field of Order: sequence"):
        replaced(order, sequence=8)
