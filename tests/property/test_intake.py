"""Whatever documents come: each is accepted or refused, and the next process reads the same orders."""

import json
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.registry import Registry

from dnsblock.orders.accepted import facts_of
from dnsblock.orders.context import Context
from dnsblock.orders.intake import Intake
from dnsblock.orders.state import derive
from dnsblock.orders.submission import Submitted, examine_submitted

NAMES = [
    "a.example",
    "t.me",
    "co.id",
    "pages.dev",
    "x.pages.dev",
    "пример.example",
    "a b",
    "*.a.example",
    "..",
    "",
]
TIMES = ["2017-07-14T11:30:00+07:00", "2999-12-31T23:59:59Z", "2026-01-01T00:01:00Z", "2017-02-30T00:00:00Z"]
NUMBERS = ["n-1", "n-2", "n-3", "84/2017", "..", "\u2028"]
ODD = st.sampled_from([None, True, 0, -1, 10**30, "", "x" * 5000, [], [[]], {}, {"a": None}])
NAME = st.sampled_from(NAMES)
ENTRY = NAME | st.fixed_dictionaries(
    {"name": NAME}, optional={"match": st.sampled_from(["exact", "below", "x"]), "answer": NAME | ODD}
)
TARGET = st.fixed_dictionaries(
    {"order_id": st.sampled_from(NUMBERS), "entries": st.just("all") | st.lists(ENTRY, max_size=2) | ODD}
)
STATEMENT = {"entries": 1, "digest": "ab" * 32, "valid_until": TIMES[1]}
FIELDS = {
    "seq": st.sampled_from([1, 2, 3, 10**18]),
    "prev": st.just("ab" * 32),
    "effective_at": st.sampled_from(TIMES),
    "expires_at": st.sampled_from(TIMES),
    "urgency": st.just("urgent"),
    "acks": st.just(["POPULAR", "PRIVATE_SUFFIX"]),
    "notice": st.sampled_from(NUMBERS),
    "statement": st.just(STATEMENT) | ODD,
    "keys": st.just({"remove": ["SHA256:" + "a" * 43]}) | ODD,
    "entries": st.lists(ENTRY, min_size=1, max_size=4) | ODD,
    "entries_file": st.just({"path": "../x", "sha256": "ab" * 32, "lines": 1}) | ODD,
    "targets": st.lists(TARGET, min_size=1, max_size=2) | ODD,
}
HEAD = {
    "schema": st.just("dnsblock.order/1"),
    "issuer": st.sampled_from(["a", "a", "a", "b", "c"]),
    "order_id": st.sampled_from(NUMBERS),
    "issued_at": st.sampled_from(TIMES[:3]),
}
LIKELY = {  # the fields that each action needs
    "block": ["entries"],
    "exempt": ["entries"],
    "notice": ["entries"],
    "unblock": ["targets"],
    "revoke": ["targets"],
    "supersede": ["entries", "targets"],
    "snapshot": ["statement"],
    "rotate": ["keys"],
}


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Mostly valid, sometimes with odd fields or broken bytes."""
    action = draw(st.sampled_from(list(LIKELY)))
    more = draw(st.lists(st.sampled_from(list(FIELDS)), max_size=2))
    fields = {key: draw(value) for key, value in HEAD.items()} | {"action": action}
    fields |= {key: draw(FIELDS[key]) for key in dict.fromkeys([*LIKELY[action], *more])}
    data = bytearray(json.dumps(fields, ensure_ascii=False).encode())
    if draw(st.integers(0, 9)) == 0:
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def examined(registry: Registry, batch: list[bytes]) -> Intake:
    context = Context(registry.config, registry.references, registry.orders, registry.now)
    return examine_submitted([Submitted(f"{n}.json", data) for n, data in enumerate(batch)], context).intake


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(documents(), min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_documents_are_judged_and_read_again(batches: list[list[bytes]]):
    """No exception but a refusal. Accepted orders are the same for the next process."""
    with TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        for batch in batches:
            intake = examined(registry, batch)
            assert not [one for one in intake.problems if one.reason.startswith("INTERNAL")]
            registry.record(facts_of(intake.new, intake.signed, registry.orders))
        again = registry.restarted()
        for at in (registry.now, registry.now + timedelta(minutes=2)):
            before, after = derive(registry.orders, at), derive(again, at)
            assert [
                (one.sha256, one.state, one.in_force, one.held, one.refused) for one in before.orders
            ] == [(one.sha256, one.state, one.in_force, one.held, one.refused) for one in after.orders]
            assert sorted(map(str, before.entries_of("a"))) == sorted(map(str, after.entries_of("a")))
        registry.ledger.close()
