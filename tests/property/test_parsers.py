"""Hostile input: each parser of untrusted text returns a value or rejects the text, and never crashes."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from unit.helpers import accept

from dnsblock import document
from dnsblock.config_file import load
from dnsblock.errors import Problem, Refused
from dnsblock.names import NameRefused, address, canonical
from dnsblock.orders.entry import Entry
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.order import Order, Target, TargetEntry, parse, parse_entries
from dnsblock.orders.orders import EMPTY
from dnsblock.orders.schema import EntriesFile
from dnsblock.orders.state import derive
from dnsblock.policy.engine_settings import read_secrets
from dnsblock.values import Endpoint, system_resolvers

# Nearly valid text finds more faults than noise.
PIECES = st.sampled_from(
    [
        *"""
schema: dnsblock.order/1
issuer: a
order_id: x
end: x
action: block
action: unblock
issued_at: 2017-07-14T11:30:00+07:00
expires_at: 9999-12-31T23:59:59Z
deadline_at: ~
urgency: routine
seq: 1
reason: {id: a}
entries:
- t.me
- {name: é.example, match: below}
entries_file: {path: x}
targets:
- {order_id: x, entries: all}
zones: [{name: z, list: l, answer: drop}]
answers: {s: {action: sinkhole, ipv4: [192.0.2.1]}}
listen: ['[::1]:53']
workers: 1
metrics:
time_zone: Asia
---
%YAML 1.1
%TAG ! x
|
>
""".splitlines(keepends=True),
        *(": ", "- ", "  ", "{", "}", "[", "]", "&a ", "*a", "!!x ", "<<: ", "? ", "'", '"', "~", "null"),
        *("\t", "\\u0000", "\ufeff", "\x85", "\u2028"),
    ]
)

# The text of editors, tools and feeds. Lone surrogates become bytes that are not UTF-8.
DOCUMENTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=30).map(
        lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")
    ),
)
relaxed = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def assert_presentable(refused: Refused) -> None:
    """Each problem is one printable line, and valid JSON."""
    assert refused.problems
    for problem in refused.problems:
        assert problem.reason
        assert str(problem).isprintable()
        assert json.dumps(problem.as_json()).encode()


@given(st.text(max_size=300))
@example("xn--\u0080.example")
@example("\u0378")
@example("a\u3002" * 100)
@example("\u0661.example")
def test_any_text_is_a_name_or_refused(text: str):
    """Traps, item 14."""
    try:
        name = canonical(text)
    except NameRefused:
        return
    assert canonical(name) == canonical(name + ".") == name
    assert len(name) <= 253
    assert all(0 < len(label) <= 63 for label in name.split("."))
    assert name.isascii()
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


@given(DOCUMENTS)
def test_any_bytes_are_a_document_or_refused(data: bytes):
    """Binary data is a clear error."""
    try:
        read = document.read("f", data, max_bytes=1 << 20)
    except Refused as refused:
        assert_presentable(refused)
        return
    lines = data.count(b"\n") + 1
    assert all(1 <= line <= lines + data.count("\u2028".encode()) for line in read.lines.values())


# In YAML 1.1, line and paragraph separators (Zl, Zp) end lines and are folded. In JSON they are not.
JSON_TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))
JSON_VALUES: st.SearchStrategy[object] = JSON_TEXTS
for _ in range(3):  # the depth of the values
    JSON_VALUES = (
        JSON_TEXTS | st.lists(JSON_VALUES, max_size=4) | st.dictionaries(JSON_TEXTS, JSON_VALUES, max_size=4)
    )


@given(JSON_VALUES)
def test_json_documents_are_read_as_by_a_json_parser(value: object):
    """The YAML reader also reads JSON documents. If all values are strings, both parsers must agree."""
    data = json.dumps(value, ensure_ascii=False).encode()
    assert document.read("f", data, max_bytes=1 << 20).value == value


@given(DOCUMENTS)
def test_any_bytes_are_an_order_or_refused(data: bytes):
    """Hostile input: an order document of any bytes is parsed or refused with its line."""
    try:
        order = parse("f", data)
    except Refused as refused:
        assert_presentable(refused)
        return
    assert order.sha256 == hashlib.sha256(data).hexdigest()
    assert derive(EMPTY.plus([order]), order.effective_at).orders[0].order_id == order.order_id


@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    )
)
def test_any_bytes_are_entries_or_refused(data: bytes):
    """Hostile input: a list of any bytes is read or refused with its reason."""
    reference = EntriesFile(
        path="x", sha256=hashlib.sha256(data).hexdigest(), lines=max(1, data.count(b"\n"))
    )
    try:
        entries, left_out = parse_entries(reference, "f", data)
    except Refused as refused:
        assert_presentable(refused)
        return
    assert entries
    assert len(entries) + len(left_out) == reference.lines
    for one in left_out:
        assert_presentable(Refused([Problem("f", one.line, one.value, one.reason)]))


@relaxed
@given(data=DOCUMENTS)
def test_any_bytes_are_settings_or_refused(tmp_path: Path, data: bytes):
    """A configuration of any bytes is loaded or refused with file and line."""
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    (tmp_path / "c.yaml").write_bytes(data)
    try:
        config = load(tmp_path / "c.yaml", tmp_path / "resolv.conf")
    except Refused as refused:
        assert_presentable(refused)
        return
    assert config.path == tmp_path / "c.yaml"


RESOLV_CONF_PIECES = st.sampled_from([b"nameserver", b" ", b"\n", b"::1", b"%e", b"192.0.2.1"])


@relaxed
@given(data=st.binary() | st.lists(RESOLV_CONF_PIECES).map(b"".join))
def test_any_bytes_are_resolvers_or_refused(tmp_path: Path, data: bytes):
    """Other programs write resolv.conf."""
    (tmp_path / "resolv.conf").write_bytes(data)
    try:
        assert system_resolvers(tmp_path / "resolv.conf")
    except Refused as refused:
        assert_presentable(refused)


@given(st.one_of(st.text(), st.text("0123456789abcdef:.[]%", max_size=24)), st.sampled_from([None, 53]))
def test_any_text_is_an_endpoint_or_refused(text: str, default_port: int | None):
    """People type the addresses in options."""
    try:
        endpoint = Endpoint.parse(text, default_port)
    except ValueError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


@relaxed
@given(data=st.binary(max_size=300), cut=st.integers(0, 400), at=st.integers(0, 400))
def test_any_bytes_are_a_ledger_or_refused(tmp_path: Path, data: bytes, cut: int, at: int):
    """Any file content after a crash: complete orders, a repaired end, or an error."""
    state = tmp_path / hashlib.sha256(data + b"%d %d" % (cut, at)).hexdigest()
    written = [parse("f", text.encode()) for text in ORDERS]
    with Ledger.open(state) as ledger:
        accept(ledger, *written)
    whole = (state / "ledger.jsonl").read_bytes()
    at = len(whole) - min(at, len(whole))
    (state / "ledger.jsonl").write_bytes(whole[:at] + data + whole[at + cut :])
    with Ledger.open(state) as ledger:
        read = [order.sha256 for order in ledger.orders]
        if ledger.damage is not None:
            assert_presentable(Refused([ledger.damage]))
    assert read == [order.sha256 for order in written][: len(read)]


HEAD = "schema: dnsblock.order/1\nissuer: a\nissued_at: 2017-07-14T11:30:00Z\n"
ORDERS = [
    HEAD + "order_id: b\naction: block\nentries: [t.me]\nend: b\n",
    HEAD + "order_id: u\naction: unblock\ntargets: [{order_id: b, entries: all}]\nend: u\n",
]


@given(st.text(), st.text(), st.text(min_size=1))
def test_any_problem_is_one_printable_line(file: str, value: str, reason: str):
    """Error messages go to terminals and logs, whatever the input was."""
    text = str(Problem(file, 1, value, "reason"))
    assert text.isprintable()
    assert len(Problem(file, 1, value, reason).as_json()["value"]) <= 80


# ------- Orders in force, compared with a naive model -------

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 6).map(lambda hours: EPOCH + timedelta(hours=hours))
NAMES = st.sampled_from(["a.example", "b.example", "c.example"])
MATCHES = st.sampled_from(["exact", "subtree", "below"])
ENTRIES = st.lists(st.builds(Entry, NAMES, MATCHES), min_size=1, max_size=4, unique=True).map(tuple)
TARGET_ENTRIES = st.none() | st.lists(
    st.builds(TargetEntry, NAMES, st.none() | MATCHES), min_size=1, max_size=3, unique=True
).map(tuple)


@st.composite
def ledgers(draw: st.DrawFn) -> list[Order]:
    """Orders of two issuers that lift each other. Some are numbered, with gaps and wrong links."""
    made: list[Order] = []
    for number in range(draw(st.integers(0, 7))):
        issuer = draw(st.sampled_from(["plain", "numbered"]))
        own = [order for order in made if order.issuer == issuer]
        blocks = [order.order_id for order in own if order.action == "block"]
        action = draw(st.sampled_from(["block", "exempt", *(["unblock"] * 2 if blocks else [])]))
        begin = draw(TIMES)
        target = st.builds(Target, st.sampled_from(blocks or ["-"]), TARGET_ENTRIES)
        targets = st.lists(target, min_size=1, max_size=2, unique_by=lambda target: target.order_id)
        seq = draw(st.integers(max(1, len(own)), len(own) + 1)) if issuer == "numbered" else None
        links = [order.sha256 for order in own if seq is not None and order.seq == seq - 1]
        lasts = draw(st.none() | st.integers(1, 6))
        expires_at = None if lasts is None or action == "unblock" else begin + timedelta(hours=lasts)
        made.append(
            Order(
                file="f",
                sha256=f"{number:064}",
                issuer=issuer,
                order_id=f"o{number}",
                action=action,
                issued_at=begin,
                effective_at=begin,
                expires_at=expires_at,
                seq=seq,
                prev=draw(st.sampled_from([*links, "f" * 64])) if seq is not None and seq > 1 else None,
                entries=() if action == "unblock" else draw(ENTRIES),
                targets=tuple(draw(targets)) if action == "unblock" else (),
            )
        )
    return draw(st.permutations(made))


def naive_accepted(orders: list[Order]) -> list[Order]:
    """Unnumbered orders, and the longest chain from seq 1 in which each order names the previous one.

    Orders that open names are never held.
    """
    chain: list[Order] = []
    for order in sorted((o for o in orders if o.seq is not None), key=lambda o: o.seq or 0):
        if order.seq == len(chain) + 1 and order.prev == (chain[-1].sha256 if chain else None):
            chain.append(order)
    return [order for order in orders if order.seq is None or order.action != "block" or order in chain]


def naive_in_force(orders: list[Order], at: datetime) -> set[tuple[str, str, Entry]]:
    found = set()
    for issuer in {order.issuer for order in orders}:
        own = naive_accepted([order for order in orders if order.issuer == issuer])
        lifting = [t for o in own if o.action == "unblock" and o.effective_at <= at for t in o.targets]
        for order in own:
            for entry in order.entries:
                is_lifted = any(t.order_id == order.order_id and names(t, entry) for t in lifting)
                is_over = order.expires_at is not None and order.expires_at <= at
                if order.effective_at <= at and not is_over and not is_lifted:
                    found.add((issuer, order.order_id, entry))
    return found


def names(target: Target, entry: Entry) -> bool:
    named = target.entries
    return named is None or any(e.name == entry.name and e.match in (None, entry.match) for e in named)


@settings(max_examples=500, deadline=None)
@given(ledgers(), st.integers(-1, 13))
def test_the_state_agrees_with_a_naive_model(orders: list[Order], half_hours: int):
    """In force: effective_at <= t < expires_at, not unblocked by t, and not held."""
    at = EPOCH + timedelta(minutes=30 * half_hours)
    derived = derive(EMPTY.plus(orders), at)
    found = {
        (issuer, item.order_id, item.entry) for issuer, items in derived.in_force.items() for item in items
    }
    assert found == naive_in_force(orders, at)
    assert [(row.issuer, row.order_id) for row in derived.orders] == [(o.issuer, o.order_id) for o in orders]
    by_id = {row.order_id: row for row in derived.orders}
    for order in orders:
        row = by_id[order.order_id]
        assert row.in_force == sum(order_id == order.order_id for _, order_id, _ in found)
        assert (row.state in ("active", "partially lifted")) == (
            row.in_force > 0
        ) or order.action == "unblock"


@settings(max_examples=300, deadline=None)
@given(ledgers(), st.integers(-1, 13))
def test_nothing_changes_before_the_next_change(orders: list[Order], half_hours: int):
    """The timer sleeps until next_change_at: a change in between would be missed."""
    at = EPOCH + timedelta(minutes=30 * half_hours)
    known = EMPTY.plus(orders)
    derived = derive(known, at)
    end = derived.next_change_at or EPOCH + timedelta(days=1)
    assert end > at
    for minutes in range(0, int((end - at).total_seconds() // 60), 30):
        then = derive(known, at + timedelta(minutes=minutes))
        assert (then.in_force, then.orders) == (derived.in_force, derived.orders)


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "{a: ", "&a [", "!x [", "'", "|\n "])
def test_a_flood_of_opening_brackets_is_refused(opening: str):
    """A hundred thousand nested brackets must not overflow the stack."""
    with pytest.raises(Refused) as caught:
        parse("f", (opening * 100_000).encode())
    assert_presentable(caught.value)


SECRETS = st.lists(st.sampled_from([b"00" * 16, b"zz" * 16, b"#", b"\n", b" ", b"\r\n", b"0"]), max_size=30)


@relaxed
@given(st.one_of(st.binary(max_size=200), SECRETS.map(b"".join)))
def test_any_bytes_are_secrets_or_refused(tmp_path: Path, data: bytes):
    """RFC 9018 section 5: 16 bytes each; a refused secret is never shown."""
    file = tmp_path / "secrets"
    file.write_bytes(data)
    file.chmod(0o600)
    values: list[str] = []
    try:
        secrets = read_secrets(file)
    except Refused as refused:
        assert_presentable(refused)
        values = [problem.value for problem in refused.problems]
    else:
        assert {len(secret) for secret in secrets} == {16}
        assert len(secrets) <= 8
    assert set(values) <= {""}


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str):
    """Hostile input: only what inet_pton(3) reads is an address."""
    found = address(text)
    assert found is None or address(str(found)) == found
