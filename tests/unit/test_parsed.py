"""The file of parsed orders (dnsblock/orders/parsed.py): it saves time, and never decides anything."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dnsblock.names import NameRefused
from dnsblock.orders import order as order_module
from dnsblock.orders.facts import Judged
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.order import Order, parse, with_entries
from dnsblock.orders.orders import EMPTY, Orders
from dnsblock.orders.parsed import FILE, ParsedOrders
from dnsblock.orders.spelling import read_name
from dnsblock.policy.snapshot import compile_orders_at
from dnsblock.policy.zones import OrderZone
from dnsblock.startup import CompiledAhead

from .helpers import block, document, unblock
from .registry import Registry

Change = Callable[[dict[str, Any]], Any]
TARGETS = ["{order_id: b-2, entries: [t.me]}", "{order_id: b-1, entries: all}"]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A ledger of three orders, whose process has stored what it parsed."""
    registry = Registry(tmp_path)
    registry.submit(
        block("b-1", "t.example", expires_at="2999-01-01T00:00:00Z"), block("b-2", "u.example", "t.me")
    )
    registry.submit(document("u-1", "unblock", targets=TARGETS))
    registry.submit(unblock("u-2", "b-2", "u.example", effective_at="2998-01-01T00:00:00Z"))
    registry.ledger.keep_parsed()
    return registry


def lines(registry: Registry) -> list[bytes]:
    return (registry.folder / FILE).read_bytes().splitlines(keepends=True)


def tamper(registry: Registry, order_id: str, change: Change) -> None:
    """Changes what the file says about an order, with the digest of that line."""
    head, *orders = lines(registry)
    changed = []
    for line in orders:
        sha256, _, content = line.rstrip(b"\n").split(b" ", 2)
        fields = json.loads(content)
        if fields["order_id"] == order_id:
            change(fields)
            content = json.dumps(fields, separators=(",", ":")).encode()
        digest = hashlib.sha256(content).hexdigest().encode()
        changed.append(b" ".join([sha256, digest, content]) + b"\n")
    (registry.folder / FILE).write_bytes(b"".join([head, *changed]))


def reopened(registry: Registry) -> Orders:
    """As the next process reads it; it stores what it had to parse."""
    registry.ledger.close()
    registry.ledger = Ledger.open(registry.folder)
    assert registry.ledger.damage is None
    registry.ledger.keep_parsed()
    return registry.orders


def test_orders_are_the_same_with_and_without_the_file(registry: Registry):
    """Every field of each order."""
    expected = list(registry.orders)
    assert str(expected[0].expires_at) == "2999-01-01 00:00:00+00:00"
    with_file = list(reopened(registry))
    (registry.folder / FILE).unlink()
    without = list(reopened(registry))
    assert {one.order_id: one.source for one in with_file} == dict.fromkeys(("b-1", "b-2", "u-1", "u-2"))
    for found in (with_file, without):
        assert [(one.entries, one.targets, one.effective_at, one.expires_at) for one in found] == [
            (one.entries, one.targets, one.effective_at, one.expires_at) for one in expected
        ]


CHANGES: list[tuple[str, Change]] = [
    ("b-1", lambda one: one.update(names="other.example")),
    ("b-1", lambda one: one.update(effective_at="2998-01-01T00:00:00+00:00")),
    ("b-1", lambda one: one.update(expires_at="2017-08-01T00:00:00+00:00")),
    ("b-1", lambda one: one.update(action="exempt")),
    ("b-2", lambda one: one.update(special='{"0":["exact",null,null]}')),
    ("u-1", lambda one: one.update(targets=[["b-2", None]])),
    ("u-2", lambda one: one.pop("effective_at")),
]


@pytest.mark.parametrize(("order_id", "change"), CHANGES)
def test_a_changed_file_changes_nothing(registry: Registry, order_id: str, change: Change):
    """The ledger has the digest of what each document was parsed to. The file is corrected."""
    expected, before = registry.in_force(), lines(registry)
    tamper(registry, order_id, change)
    assert reopened(registry)
    assert registry.in_force() == expected
    assert lines(registry)[-1] in before
    reopened(registry)
    assert len(lines(registry)) == len(before) + 1, "corrected once"


FREE: list[tuple[str, Change]] = [  # of an order that nothing ends
    ("b-4", lambda one: one.update(names="other.example")),
    ("b-4", lambda one: one.update(action="exempt")),
    ("b-4", lambda one: one.update(effective_at="2017-08-01T00:00:00+00:00")),
    ("b-5", lambda one: one.update(effective_at="2017-06-01T00:00:00+00:00")),
    ("b-4", lambda one: one.update(order_id="x")),
    ("b-4", lambda one: one.update(issuer="b")),
    ("b-4", lambda one: one.update(expires_at="2017-08-01T00:00:00+00:00")),
    ("b-4", lambda one: one.update(special='{"0":["subtree",null,"unknown"]}')),
    # The engine reads them as u.example, which another order blocks.
    ("b-4", lambda one: one.update(names="U.example")),
    ("b-4", lambda one: one.update(names="u.example.")),
    ("b-4", lambda one: one.update(names="u.example\r")),
]


@pytest.mark.parametrize(("order_id", "change"), [*CHANGES, *FREE, ("none", lambda one: None)])
@pytest.mark.parametrize("later", [None, "annulled", "accepted"])
def test_zones_that_are_compiled_from_the_file_decide_nothing(
    registry: Registry, order_id: str, change: Change, later: str | None
):
    """They save time only where the ledger says the same. The file may also lack orders, or have others."""
    registry.submit(block("b-4", "s.example", "r.example"), block("b-5", "s.example", "q.example"))
    registry.ledger.keep_parsed()
    if later == "accepted":
        registry.submit(block("b-3", "v.example", "t.example"))
    tamper(registry, order_id, change)
    if later == "annulled":
        registry.annul("b-2")
    compiling = CompiledAhead(registry.config, ParsedOrders.load(registry.folder))
    with Ledger.open(registry.folder, read_only=True, parsed=compiling.parsed) as ledger:
        ahead = compiling.result()
        assert ahead is not None or order_id != "none"
        for orders in (ledger.orders, EMPTY):
            for at in (registry.now, datetime(2998, 6, 1, tzinfo=UTC), datetime(2999, 6, 1, tzinfo=UTC)):
                scratch = compile_orders_at(registry.config, orders, at).zones
                found = compile_orders_at(registry.config, orders, at, ahead).zones
                assert zone_facts(found) == zone_facts(scratch)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(special="[" * 100_000),
        lambda one: one.update(special=None),
        lambda one: one.update(names=1),
        lambda one: one.update(file="twice"),
        lambda one: one.update(reason={"code": 1}),
        lambda one: one.update(order_id="x"),
        lambda one: one.update(issuer="x"),
        lambda one: one.update(sha256="0" * 64),
    ],
)
def test_a_line_that_makes_no_sense_is_parsed_again(registry: Registry, change: Change):
    """It costs itself alone: not the startup, and not another order."""
    expected, before = registry.in_force(), sorted(lines(registry))
    tamper(registry, "b-2", change)
    reopened(registry)
    assert registry.in_force() == expected
    assert set(before) <= set(lines(registry))


def zone_facts(zones: Mapping[str, OrderZone]) -> dict[str, tuple[str, int]]:
    return {name: (zone.compiled.digest, zone.compiled.entries) for name, zone in zones.items()}


def test_the_file_does_not_grow_with_each_startup(registry: Registry):
    """Also if somebody has signed an order again: two records say what it was parsed to."""
    order = registry.orders.of("a").order("b-2")
    registry.record([Judged("a", "b-2", order.sha256, order.judgement)])
    reopened(registry)
    before = lines(registry)
    reopened(registry)
    assert lines(registry) == before


def test_an_order_that_was_received_twice_has_the_entries_of_its_file(tmp_path: Path):
    """A kill may come between its receipt and its acceptance; then it is received again."""
    registry = Registry(tmp_path)
    names = b"t.example\nu.example\n"
    file = f"{{path: names.txt, sha256: {hashlib.sha256(names).hexdigest()}, lines: 2}}"
    order: Order = with_entries(
        parse("b.yaml", document("b-1", entries_file=file).encode()), "names.txt", names
    )
    registry.record([order])
    registry.record([order, Judged("a", "b-1", order.sha256, order.judgement)])
    assert registry.in_force() == ["t.example of b-1", "u.example of b-1"]


# ------- A version that reads more names -------


@pytest.mark.parametrize("is_file", [False, True])
def test_a_name_that_only_a_later_version_can_read_is_not_blocked_by_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, is_file: bool
):
    """It was refused when the order was accepted. The entries after it keep their verdicts."""
    names = ["t_me?", "v.example", "google.com", "t_me?", "w.example"]
    text = block("b-9", *names)
    data = "".join(f"{name}\n" for name in names).encode()
    if is_file:
        digest = hashlib.sha256(data).hexdigest()
        text = document("b-9", entries_file=f"{{path: names.txt, sha256: {digest}, lines: 5}}")
    registry.submit(text, entries=data if is_file else None)
    expected = registry.in_force()
    assert "google.com of b-9" not in expected
    assert {"v.example of b-9", "w.example of b-9"} <= set(expected)
    (registry.folder / FILE).unlink()
    monkeypatch.setattr(
        order_module, "read_name", lambda text: read_name(text.replace("t_me?", "new.example"))
    )
    reopened(registry)
    assert registry.in_force() == expected
    reopened(registry)
    assert registry.in_force() == expected


def test_a_name_that_a_later_version_cannot_read_is_damage(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    """The daemon must not start without a block that was ordered."""

    def stricter(text: str) -> str:
        if text == "t.example":
            raise NameRefused("not a name any more")
        return read_name(text)

    (registry.folder / FILE).unlink()
    monkeypatch.setattr(order_module, "read_name", stricter)
    with Ledger.open(registry.folder, read_only=True) as ledger:
        assert ledger.damage is not None
