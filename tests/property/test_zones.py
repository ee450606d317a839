"""A zone of orders with changes equals the zone that is compiled from all entries in force."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsblock._engine import PlacedZone, PolicyZone, Snapshot
from dnsblock.config import Config
from dnsblock.config_file import load
from dnsblock.orders.entry import Entry
from dnsblock.orders.order import Order
from dnsblock.orders.orders import EMPTY
from dnsblock.orders.state import derive
from dnsblock.policy.zones import OrderZone, compile_orders

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ["a.example", "b.a.example", "c.b.a.example", "d.example", "example"]
HOURS = st.integers(0, 12)
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.sampled_from(NAMES),
        st.sampled_from(["exact", "subtree", "below"]),
        st.none(),
        st.sampled_from([None, "sinkhole", "refused", "gone"]),
    ),
    min_size=1,
    max_size=5,
    unique=True,
)
ORDERS = st.lists(
    st.tuples(st.sampled_from(["block", "block", "exempt"]), HOURS, st.none() | HOURS, ENTRIES), max_size=8
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("zones")
    file = folder / "dnsblock.yaml"
    file.write_text(
        "upstream: {servers: ['192.0.2.1']}\norders: inbox\n"
        "answers: {sinkhole: {action: sinkhole, ipv4: [192.0.2.53]}}\n"
        "zones: [{name: orders, issuer: komdigi, answer: nxdomain}]\n"
    )
    (folder / "inbox").mkdir()
    return load(file)


def ordered(drawn: list) -> list[Order]:
    return [
        Order(
            file=f"{number}.yaml",
            sha256=f"{number:064d}",
            issuer="komdigi",
            order_id=f"B-{number}",
            action=action,
            issued_at=START,
            effective_at=START + timedelta(hours=begin),
            expires_at=None if hours is None else START + timedelta(hours=begin + hours + 1),
            entries=tuple(entries),
        )
        for number, (action, begin, hours, entries) in enumerate(drawn)
    ]


def answers(zone: PolicyZone, config: Config) -> list[tuple]:
    placed = PlacedZone(zone, next_change_at=None, judges_targets=True, is_shadow=False, is_list=False)
    snapshot = Snapshot([placed], 1)
    return [
        (name, found.entry, found.scope, found.action, found.decides, found.decides_over_tcp)
        for name in [*NAMES, *(f"x.{name}" for name in NAMES)]
        for found in snapshot.covering(name)
    ]


@given(ORDERS, st.lists(HOURS, min_size=1, max_size=6), st.data())
def test_a_zone_at_any_time_is_the_zone_compiled_from_scratch(config: Config, drawn, hours, data):
    """Orders start and end by the clock, arrive late, and the clock may be set back."""
    orders, former, state = ordered(drawn), None, None
    for hour in hours:
        known = orders[: data.draw(st.integers(0, len(orders)))]
        state = derive(EMPTY.plus(known), START + timedelta(hours=hour), state)
        in_force = state.entries_of("komdigi")
        former = compile_orders(config.zones[0], config, in_force, former)
        scratch = compile_orders(config.zones[0], config, in_force)
        assert former.compiled.digest == scratch.compiled.digest
        assert former.compiled.entries == scratch.compiled.entries
        assert answers(former.compiled, config) == answers(scratch.compiled, config)


def test_a_zone_is_the_same_whatever_was_in_force_before(config: Config):
    """Its digest decides whether a restart publishes another serial, and whether instances agree."""
    zone = config.zones[0]
    own, other = ([Entry(name, "exact")] for name in ("a.example", "d.example"))
    both = derive(EMPTY.plus(ordered([("block", 0, None, own), ("block", 0, 1, other)])), START)
    one = derive(both.known, START + timedelta(hours=2), both)
    before = compile_orders(zone, config, both.entries_of("komdigi"))
    after = compile_orders(zone, config, one.entries_of("komdigi"), before)
    assert after.compiled.digest == compile_orders(zone, config, one.entries_of("komdigi")).compiled.digest
    assert after.compiled.digest != before.compiled.digest


def test_another_answer_of_the_zone_compiles_all_entries(config: Config):
    """The rule of an entry depends on the configuration, so a change of it must reach unchanged entries."""
    own = Entry("a.example", "exact", None, "refused")
    entries = (own, Entry("b.example", "exact"))
    orders = ordered([("block", 0, None, entries)])
    in_force = derive(EMPTY.plus(orders), START).entries_of("komdigi")
    before = compile_orders(config.zones[0], config, in_force)
    changed = config.zones[0].model_copy(update={"answer": "refused"})
    after: OrderZone = compile_orders(changed, config, in_force, before)
    assert after.compiled.digest == compile_orders(changed, config, in_force).compiled.digest
    assert after.compiled.digest != before.compiled.digest
