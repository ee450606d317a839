"""Records that are added step by step, and the naive model of the orders in force."""

from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from dnsblock.orders.orders import fold, EMPTY
from dnsblock.orders.records import Record
from dnsblock.orders.state import derive

from .ledgers import Naive, hour, in_force, ledgers, replayed, times


@settings(deadline=None, max_examples=500)
@given(ledgers(), st.integers(-1, 30))
def test_the_orders_in_force_are_those_of_a_naive_model(records: list[Record], number: int):
    orders = fold(records)
    assert in_force(orders, "a", hour(number / 2)) == Naive(replayed(records), "a").in_force(hour(number / 2))
