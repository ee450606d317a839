"""Status statements, and their comparison with the orders here (dnsblock/orders/statement.py)."""

import hashlib
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from dnsblock.orders.order import Annulled, Order, parse
from dnsblock.orders.orders import Orders
from dnsblock.orders.statement import Content, Statements, compare, content_of, latest
from dnsblock.orders.verdict import EntryVerdict, Judgement
from dnsblock.principal import DAEMON

from .helpers import AUGUST_10, JULY_14, block, document, exempt, orders, sha256, unblock

WIB = ZoneInfo("Asia/Jakarta")
UNTIL = "2017-12-01T00:00:00+07:00"
NOW = datetime.fromisoformat("2017-09-01T00:00:00+07:00").astimezone(UTC)


def known(*documents: str) -> Orders:
    return Orders().plus(orders(*documents))


def stated(content: Content, order_id: str = "s", issued_at: str = AUGUST_10, **fields: object) -> str:
    """A statement with this content."""
    seq = f"seq: {content.seq}, " if content.seq is not None else ""
    text = f"{{{seq}entries: {content.entries}, digest: {content.digest}, valid_until: {UNTIL}}}"
    return document(order_id, "snapshot", issued_at=issued_at, statement=text, **fields)


def read(text: str) -> Order:
    return parse("s.yaml", text.encode())


def content(at: str = AUGUST_10, *documents: str) -> Content:
    return content_of(known(*documents).of("a"), datetime.fromisoformat(at))


def test_the_digest_is_that_of_sorted_lines():
    """Anybody can compute it: docs/orders.md shows the lines, and `sort` and `sha256sum`."""
    own = content(
        AUGUST_10,
        block("b 1", "t.me", "{name: a.example, match: exact}"),
        exempt("e", "help.t.me"),
        block("c", "t.me"),
    )
    lines = "block subtree t.me b 1\nblock exact a.example b 1\n"
    lines += "exempt subtree help.t.me e\nblock subtree t.me c\n"
    sort = subprocess.run(
        ["sort"], input=lines, env={"LC_ALL": "C"}, capture_output=True, text=True, check=True
    )
    assert own == Content(None, 4, hashlib.sha256(sort.stdout.encode()).hexdigest())


def test_a_statement_agrees_with_the_orders_that_it_is_about():
    """An alert without a cause would be ignored."""
    first = block("b-1", "one.example", "two.example", seq=1)
    second = unblock("u-2", "b-1", "one.example", seq=2, prev=sha256(first), issued_at=AUGUST_10)
    own = content(AUGUST_10, first, second)
    assert (own.seq, own.entries) == (2, 1)
    found = compare(read(stated(own)), known(first, second).of("a"))
    assert (found.differs, found.missing, found.notes(NOW, WIB)) == (False, None, [])


def test_a_withheld_unblock_is_named_by_its_number_even_if_it_is_the_last():
    """Design 5: nothing after it would show the gap but the statement."""
    first = block("b-1", "one.example", seq=1)
    second = unblock("u-2", "b-1", seq=2, prev=sha256(first), issued_at=AUGUST_10)
    own = content(AUGUST_10, first, second)
    found = compare(read(stated(own)), known(first).of("a"))
    assert (found.differs, found.missing) == (True, 2)
    assert found.notes(NOW, WIB) == ["MISSING_SEQ: the order with seq 2 has not been received here"]


def test_a_withheld_unblock_of_an_issuer_without_numbers_makes_the_digest_differ():
    """Many issuers do not number their orders."""
    first = block("b-1", "one.example", "two.example")
    second = unblock("u-2", "b-1", "one.example", issued_at=AUGUST_10)
    statement = read(stated(content(AUGUST_10, first, second)))
    found = compare(statement, known(first).of("a"))
    counts = "1 entry by the statement, 2 here"
    assert found.notes(NOW, WIB) == [
        f"STATEMENT_DIFFERS: an order was not received here, or is wrong: {counts}"
    ]
    assert not compare(statement, known(first, second).of("a")).differs


def test_a_withheld_order_with_as_many_entries_is_found():
    """The count alone would not show that one block was replaced by another."""
    first, other = block("b-1", "one.example"), block("b-1", "two.example")
    assert compare(read(stated(content(AUGUST_10, first))), known(other).of("a")).differs


def test_later_orders_do_not_make_a_statement_differ():
    """Between two statements the issuer goes on to make orders, even with an earlier start."""
    first = block("b-1", "one.example", seq=1)
    statement = read(stated(content(AUGUST_10, first), seq=2, prev=sha256(first)))
    later = unblock(
        "u-3",
        "b-1",
        seq=3,
        prev=statement.sha256,
        issued_at="2017-08-11T00:00:00+07:00",
        effective_at=JULY_14,
    )
    assert not compare(statement, Orders().plus([*orders(first), statement, *orders(later)]).of("a")).differs
    without = read(stated(content(AUGUST_10, block("b-1", "one.example"))))
    more = block("b-2", "two.example", issued_at="2017-08-11T00:00:00+07:00", effective_at=JULY_14)
    assert not compare(without, known(block("b-1", "one.example"), more).of("a")).differs


def test_guards_and_gaps_do_not_make_a_statement_differ():
    """They have alerts of their own; this one is about documents that were withheld."""
    order = replace(
        orders(block("b-1", "t.me", "co.example"))[0],
        judgement=Judgement().with_verdicts([EntryVerdict(0, "held", "POPULAR", "a popular name")]),
    )
    statement = read(stated(content(AUGUST_10, block("b-1", "t.me", "co.example"))))
    assert not compare(statement, Orders().plus([order]).of("a")).differs


def test_an_annulled_order_makes_a_statement_differ():
    """The issuer still means it, so issuer and operator must talk."""
    (order,) = orders(block("b-1", "one.example"))
    annulled = replace(order, annulled=Annulled(NOW, DAEMON, "wrong"))
    statement = read(stated(content(AUGUST_10, block("b-1", "one.example"))))
    assert compare(statement, Orders().plus([annulled]).of("a")).differs


def test_a_proposed_order_does_not_count():
    """A flagger is not the issuer."""
    proposed = replace(orders(block("b-1", "one.example"))[0], judgement=Judgement(is_proposed=True))
    assert content_of(Orders().plus([proposed]).of("a"), NOW).entries == 0


def test_a_statement_past_its_date_is_reported():
    """Statement and unblock may be withheld together: then nothing but the date shows it."""
    own = block("b-1", "one.example")
    found = compare(read(stated(content(AUGUST_10, own))), known(own).of("a"))
    until = datetime.fromisoformat(UNTIL)
    assert found.notes(until - timedelta(seconds=1), WIB) == []
    (note,) = found.notes(until, WIB)
    assert note.startswith("STATEMENT_PAST: valid until 2017-12-01 00:00:00 WIB")


def test_the_last_statement_counts():
    """By number; without numbers, by the time of issue."""
    first = block("b-1", "one.example", seq=1)
    old = stated(content(AUGUST_10, first), "s-2", seq=2, prev=sha256(first))
    new = stated(content(AUGUST_10, first), "s-3", seq=3, prev=sha256(old), issued_at=JULY_14)
    found = latest(known(new, first, old).of("a"))
    assert found is not None
    assert found.order_id == "s-3"


def test_statements_are_compared_again_only_if_an_order_changes_the_result():
    """A million entries take a second, and this must not happen at each scrape."""
    statements = Statements()
    first = block("b-1", "one.example")
    statement = stated(content(AUGUST_10, first))
    statements.update(known(statement))
    before = statements.of("a")
    assert before is not None
    assert before.differs
    statements.update(known(statement, block("b-9", "later.example", issued_at="2017-08-11T00:00:00+07:00")))
    assert statements.of("a") is before
    statements.update(known(statement, first))
    after = statements.of("a")
    assert after is not None
    assert not after.differs
    assert statements.of("x") is None
    assert statements.notes("a", sha256(statement), NOW, WIB) == []
    assert statements.notes("a", sha256(first), NOW + timedelta(days=3650), WIB) == []
