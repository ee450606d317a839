"""The state in force at a time (dnsblock/orders/state.py)."""

import gc
from datetime import UTC, datetime, timedelta

import pytest

from dnsblock.orders.entry import Entry
from dnsblock.orders.order import Order, Target, TargetEntry
from dnsblock.orders.orders import EMPTY, Orders
from dnsblock.orders.state import OrderState, State, derive

from .helpers import AUGUST_10, JULY_14, LINEAR, block, exempt, growth, known, orders, sha256, unblock

START = datetime.fromisoformat(JULY_14)
END = datetime.fromisoformat(AUGUST_10)
SECOND = timedelta(seconds=1)


def names(state: State, issuer: str = "a") -> list[str]:
    return [f"{item.kind} {item.entry.name} {item.order_id}" for item in state.in_force[issuer]]


def rows(state: State) -> dict[str, OrderState]:
    return {row.order_id: row for row in state.orders}


def states(state: State) -> dict[str, str]:
    return {row.order_id: row.state for row in state.orders}


def test_a_block_is_in_force_from_its_first_to_before_its_last_second():
    """In force at t: effective_at <= t < expires_at."""
    ledger = known(block("b", "t.me", expires_at=AUGUST_10))
    for at, in_force, state, change in (
        (START - SECOND, [], "scheduled", START),
        (START, ["block t.me b"], "active", END),
        (END - SECOND, ["block t.me b"], "active", END),
        (END, [], "expired", None),
    ):
        derived = derive(ledger, at)
        assert (names(derived), states(derived)) == (in_force, {"b": state})
        assert derived.next_change_at == change
        assert derived.next_change_of("a") == change


def test_an_unblock_is_in_force_from_its_own_second():
    """10 August 2017 10:46 WIB; unblocking is what fails in practice."""
    ledger = known(block("b", "t.me", "telegram.org"), unblock("u", "b", effective_at=AUGUST_10))
    before, after = derive(ledger, END - SECOND), derive(ledger, END)
    assert (names(before), before.next_change_at) == (["block t.me b", "block telegram.org b"], END)
    assert states(before) == {"b": "active", "u": "scheduled"}
    assert (names(after), after.next_change_at) == ([], None)
    assert states(after) == {"b": "lifted", "u": "active"}
    assert (rows(after)["u"].entries, rows(after)["u"].in_force, rows(after)["u"].notes) == (2, 0, ())


def test_part_of_an_order_may_be_unblocked_by_name_and_match():
    """Design section 5: `targets` of an unblock."""
    ledger = known(
        block("b", "t.me", "{name: t.me, match: exact}", "c.example"),
        unblock("u", "b", "{name: t.me, match: exact}", effective_at=AUGUST_10),
    )
    derived = derive(ledger, END)
    assert [item.entry.match for item in derived.in_force["a"]] == ["subtree", "subtree"]
    assert (rows(derived)["b"].state, rows(derived)["b"].in_force) == ("partially lifted", 2)
    both = derive(ledger.plus(orders(unblock("v", "b", "t.me", effective_at=AUGUST_10))), END)
    assert names(both) == ["block c.example b"]
    assert rows(both)["v"].notes == ("NOT_BLOCKED: 1 of 2 entries had ended already",)


def test_an_unblock_ends_only_its_target():
    """The same name by another order, and by another issuer, stays blocked."""
    ledger = known(block("b", "t.me"), block("c", "t.me"), block("b", "t.me", issuer="x"), unblock("u", "b"))
    derived = derive(ledger, START)
    assert names(derived) == ["block t.me c"]
    assert names(derived, "x") == ["block t.me b"]


def test_a_block_after_an_unblock_is_a_new_block():
    """An unblock ends entries; it is no exemption for later orders."""
    ledger = known(block("b", "t.me"), unblock("u", "b"), block("c", "t.me", issued_at=AUGUST_10))
    assert names(derive(ledger, END)) == ["block t.me c"]


def test_a_later_unblock_brings_no_ended_entry_back():
    """The earlier end stays the end."""
    ledger = known(
        block("b", "t.me", "c.example"),
        unblock("v", "b", effective_at="2018-01-01T00:00:00Z"),
        unblock("u", "b", "t.me", effective_at=AUGUST_10),
    )
    assert names(derive(ledger, END)) == ["block c.example b"]
    assert names(derive(ledger, datetime(2018, 1, 1, tzinfo=UTC))) == []


def test_an_exemption_has_its_own_time():
    """It begins and ends like a block."""
    ledger = known(block("b", "t.me"), exempt("e", "web.t.me", effective_at=AUGUST_10))
    assert names(derive(ledger, START)) == ["block t.me b"]
    assert names(derive(ledger, END)) == ["block t.me b", "exempt web.t.me e"]


def test_a_scheduled_unblock_leaves_no_gap():
    """An unblock that takes effect before the block itself: the block never begins."""
    ledger = known(block("b", "t.me", effective_at=AUGUST_10), unblock("u", "b", effective_at=JULY_14))
    assert states(derive(ledger, START)) == {"b": "lifted", "u": "active"}
    assert names(derive(ledger, END)) == []


def test_unblocking_an_ended_entry_is_reported():
    """Noted: NOT_BLOCKED."""
    ledger = known(
        block("b", "t.me", "c.example", expires_at=AUGUST_10),
        unblock("u", "b", "t.me", effective_at=JULY_14),
        unblock("v", "b", effective_at=JULY_14),
        unblock("w", "b", effective_at=AUGUST_10),
    )
    derived = rows(derive(ledger, END))
    assert derived["u"].notes == ()
    assert derived["v"].notes == ("NOT_BLOCKED: 1 of 2 entries had ended already",)
    assert derived["w"].notes == ("NOT_BLOCKED: 2 of 2 entries had ended already",)


def test_an_expired_order_stays_expired_after_an_unblock():
    """An unblock after the expiry has nothing to end."""
    ledger = known(
        block("b", "t.me", expires_at=AUGUST_10), unblock("u", "b", effective_at="2018-01-01T00:00:00Z")
    )
    assert states(derive(ledger, datetime(2019, 1, 1, tzinfo=UTC))) == {"b": "expired", "u": "active"}


# ------- Numbered orders -------


def chain() -> list[str]:
    first = block("b-1", "one.example", seq=1)
    second = unblock("u-2", "b-1", seq=2, prev=sha256(first))
    third = block("b-3", "three.example", seq=3, prev=sha256(second))
    return [first, second, third]


def test_numbered_orders_are_followed_whatever_the_order_of_their_arrival():
    """Files may arrive in any sequence; `seq` decides."""
    first, second, third = chain()
    derived = derive(known(third, first, second), START)
    assert names(derived) == ["block three.example b-3"]
    assert states(derived) == {"b-3": "active", "b-1": "lifted", "u-2": "active"}


def test_a_gap_holds_later_orders():
    """So that a withheld unblock is noticed; held orders are not enforced."""
    first, _, third = chain()
    derived = derive(known(first, third), START)
    assert names(derived) == ["block one.example b-1"]
    assert rows(derived)["b-3"].state == "held"
    assert rows(derived)["b-3"].notes == ("HELD: the order with seq 2 has not been received",)
    assert derived.next_change_at is None


def test_a_block_with_a_wrong_prev_is_held():
    """The note names the correct `prev`."""
    first = block("b-1", "one.example", seq=1)
    derived = derive(known(first, block("b-2", "two.example", seq=2, prev="ab" * 32)), START)
    assert names(derived) == ["block one.example b-1"]
    why = f"HELD: prev is not the sha256 of the order with seq 1, which is sha256:{sha256(first)}"
    assert rows(derived)["b-2"].notes == (why,)


def test_orders_after_a_wrong_prev_are_held_too():
    """A broken chain must not continue without notice."""
    first, second, third = chain()
    wrong = second.replace(sha256(first), "ab" * 32)
    derived = derive(known(first, wrong, third.replace(sha256(second), sha256(wrong))), START)
    assert rows(derived)["b-3"].notes == ("HELD: the order with seq 2 has a wrong prev",)


def test_a_second_order_with_a_number_is_annulled():
    """Of two orders with one `seq` the first is followed, and the other one is annulled."""
    first, second, third = chain()
    derived = derive(known(first, second, third, block("x", "x.example", seq=1)), START)
    assert rows(derived)["x"].notes == ("ANNULLED: another order with seq 1 was accepted: b-1",)
    assert names(derived) == ["block three.example b-3"]


def test_held_orders_of_one_issuer_delay_no_other_issuer():
    """Each issuer has a sequence of its own."""
    first, _, third = chain()
    derived = derive(known(first, third, block("b", "t.me", issuer="x")), START)
    assert names(derived, "x") == ["block t.me b"]


# ------- Size -------


@pytest.mark.parametrize("is_one", [False, True], ids=["many orders", "one order"])
def test_the_time_to_derive_grows_with_the_entries(is_one: bool):
    """Publish derives on each change; the issuer names each entry in a lifting of its own, or all at once."""

    def work(entries: int) -> None:
        derive_liftings(*((1, entries) if is_one else (entries // 10, 10)))

    assert growth(work, 10_000) < LINEAR


def derive_liftings(count: int, each: int) -> None:
    """Derives the state of orders, and of a lifting for every twentieth entry."""
    made = [
        Order(
            f"{n}.yaml", f"{n:064}", "a", f"b-{n}", "block", START, START,
            entries=tuple(Entry(f"n{i}.o{n}.example", "subtree") for i in range(each)),
        )
        for n in range(count)
    ]  # fmt: skip
    for n in range(count * each // 20):
        block = made[n % count]
        entries = None if n % 2 else (TargetEntry(block.entries[n % each].name),)
        target = Target(block.order_id, entries)
        made.append(Order(f"u{n}", f"u{n:063}", "a", f"u-{n}", "unblock", START, END, targets=(target,)))
    ledger = EMPTY.plus(made)
    derived = derive(ledger, START)
    derive(ledger, END, derived)
    assert len(derived.in_force["a"]) == count * each


def test_the_time_to_combine_orders_after_a_gap_grows_with_their_number():
    """Each of them looked at all others again, so a daemon took minutes to start."""

    def combine(count: int) -> None:
        made = [
            Order(f"{n}", f"{n:064}", "a", f"b-{n}", "block", START, START, seq=n, prev=f"{n - 1:064}")
            for n in range(2, count)
        ]
        assert EMPTY.plus(made).of("a").chain.gap == 1

    assert growth(combine, 2000) < LINEAR


def test_the_effect_of_new_orders_is_derived_once_and_only_the_latest_is_kept():
    """If each version of the orders kept the next one, a year of orders would stay in memory."""
    new = list(known(*(block(f"b-{number}", f"n{number}.example") for number in range(40))))
    gc.collect()
    before = sum(type(one) is Orders for one in gc.get_objects())
    now = EMPTY
    for order in new:
        after = now.plus([order])
        assert after is now.plus([order])
        assert [one.order_id for one in after][-1] == order.order_id
        now = after
    assert now.plus([]) is now
    assert len(now) == len(new)
    gc.collect()
    assert sum(type(one) is Orders for one in gc.get_objects()) - before < len(new) / 2
