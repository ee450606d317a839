"""The reader of the ledger (dnsblock/orders/reading.py) against a naive one, on intact and corrupt files.

The reader hashes lines in the engine, several megabytes at a time, and takes parsed orders from another file.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnsblock.errors import Refused
from dnsblock.orders.facts import Judged
from dnsblock.orders.ledger import FILE
from dnsblock.orders.order import Order
from dnsblock.orders.parsed import FILE as CACHE
from dnsblock.orders.parsed import ParsedOrders, entries_sha256
from dnsblock.orders.reading import read
from dnsblock.orders.records import NewerRecord, NotARecord, Record, decode, sealed
from dnsblock.orders.transparency.merkle import Tree

from .helpers import block, unblock
from .registry import Registry

Edit = Callable[[bytes], bytes]
END_OF_RECORD = re.compile(rb',"digest":"[0-9a-f]{64}"}')


class Found(NamedTuple):
    """The content of a ledger up to the first damage."""

    records: list[Record]
    hashes: list[str]
    root: bytes
    size: int
    corrupt: int | None  # the line


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A ledger with records of several kinds, and the file of its parsed orders."""
    registry = Registry(tmp_path_factory.mktemp("state"))
    registry.submit(block("b-1", "t.example", "t.me"), block("b-2", "u.example"))
    registry.submit(unblock("u-1", "b-1", "t.me"))
    registry.annul("b-2")
    registry.submit(block("b-3", *(f"n{number}.example" for number in range(100))))
    registry.ledger.keep_parsed()
    return (registry.folder / FILE).read_bytes(), (registry.folder / CACHE).read_bytes()


def naive(path: Path) -> Found:
    """One line after the other, and each hash of the standard library. Raises `NewerRecord`."""
    data = path.read_bytes()
    *lines, rest = data.split(b"\n")
    ends = [found.end() for found in END_OF_RECORD.finditer(rest)]
    lines += [rest if len(ends) > 1 else rest[: ends[0]]] if ends else []
    records: list[Record] = []
    whole: dict[str, Order] = {}
    for number, line in enumerate(lines, start=1):
        previous = hashlib.sha256(lines[number - 2]).hexdigest() if number > 1 else None
        try:
            record = decode(line, number, previous)
            if isinstance(fact := record.fact, Order):
                whole.setdefault(fact.sha256, fact)
            elif isinstance(fact, Judged) and entries_sha256(whole[fact.sha256]) != fact.entries_sha256:
                raise NotARecord
        except (NotARecord, KeyError):
            return result(records, lines[: number - 1], number)
        records.append(record)
    return result(records, lines, None)


def result(records: Sequence[Record], lines: Sequence[bytes], corrupt: int | None) -> Found:
    hashes = [hashlib.sha256(line).hexdigest() for line in lines]
    return Found(
        comparable(records), hashes, Tree(lines).root(), sum(len(line) + 1 for line in lines), corrupt
    )


def comparable(records: Sequence[Record]) -> list[Record]:
    """Without the name of the file, which says where an order was parsed."""
    return [
        one._replace(fact=replace(one.fact, file="", source=None)) if isinstance(one.fact, Order) else one
        for one in records
    ]


def by_reader(path: Path, parsed: ParsedOrders | None) -> Found:
    content = read(path, parsed)
    corrupt = None if content.damage is None else content.damage.line
    return Found(comparable(content.records), content.hashes, content.tree.root(), content.size, corrupt)


# ------- Damage -------


def cut(share: float) -> Edit:
    return lambda data: data[: int(share * len(data))]


def flip(share: float, bit: int) -> Edit:
    def edit(data: bytes) -> bytes:
        place = int(share * len(data))
        return data[:place] + bytes([byte ^ 1 << bit for byte in data[place : place + 1]]) + data[place + 1 :]

    return edit


def in_lines(change: Callable[[list[bytes], int], object], line: int) -> Edit:
    """Changes the list of lines at one of them."""

    def edit(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        if lines:
            change(lines, line % len(lines))
        return b"".join(lines)

    return edit


def hashed_again(lines: list[bytes], place: int, changes: dict[str, object]) -> None:
    """Changes fields of a record, then computes all digests again from there."""
    try:
        for number in range(place, len(lines)):
            fields: dict[str, Any] = json.loads(lines[number])
            del fields["digest"]
            if number == place:
                fields |= changes
            else:
                fields["prev_record"] = hashlib.sha256(lines[number - 1].rstrip(b"\n")).hexdigest()
            lines[number] = sealed(fields) + b"\n"
    except (ValueError, KeyError, TypeError):
        return  # an earlier edit has corrupted that line


NO_DIGEST = "0" * 64
CHANGES: list[dict[str, object]] = [
    {"n": 7},
    {"at": "2026-01-01T00:00:00"},
    {"at": "2026-01-01T00:00:00+00:00"},
    {"by": None},
    {"kind": "other"},
    {"version": 0},
    {"version": 3},
    {"issuer": "b"},
    {"sha256": NO_DIGEST},
    {"document": block("b-1", "other.example")},
    {"document": "no document"},
    {"parsed_sha256": NO_DIGEST},  # of another version
    {"parsed_sha256": NO_DIGEST, "entries_sha256": NO_DIGEST},
    {"entries": [{"verdict": "held", "code": "BULK", "reason": "large", "indexes": [[0, 0]]}]},
    {"entries": [{"verdict": "held", "code": "BULK", "reason": "large", "indexes": [[1, 0]]}]},
    {"signers": None},
    {"extra": 1},
]
LINE, SHARE = st.integers(0, 20), st.floats(0, 1)
EDITS = st.one_of(
    st.builds(cut, SHARE),
    st.builds(flip, SHARE, st.integers(0, 7)),
    st.builds(in_lines, st.just(lambda lines, place: lines.pop(place)), LINE),
    st.builds(in_lines, st.just(lambda lines, place: lines.insert(place, lines[place])), LINE),
    st.builds(in_lines, st.just(lambda lines, place: lines.insert(0, lines.pop(place))), LINE),
    st.builds(in_lines, st.just(lambda lines, place: lines.insert(place, lines.pop().rstrip(b"\n"))), LINE),
    st.builds(
        lambda line, changes: in_lines(lambda lines, place: hashed_again(lines, place, changes), line),
        LINE,
        st.sampled_from(CHANGES),
    ),
)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(st.lists(EDITS, max_size=2), st.sampled_from([1, 100, 2000, 4 << 20]))
def test_the_reader_finds_the_same_as_a_naive_one(
    written: tuple[bytes, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    edits: list[Edit],
    block_bytes: int,
):
    """The same records, hashes, tree and damage, with and without parsed orders, in parts of any size."""
    ledger, cache = written
    for edit in edits:
        ledger = edit(ledger)
    (tmp_path / FILE).write_bytes(ledger)
    (tmp_path / CACHE).write_bytes(cache)
    monkeypatch.setattr("dnsblock.orders.reading._BLOCK_BYTES", block_bytes)
    try:
        expected = naive(tmp_path / FILE)
    except NewerRecord:
        with pytest.raises(Refused, match="a newer dnsblock wrote this record"):
            read(tmp_path / FILE)
        return
    assert by_reader(tmp_path / FILE, None) == expected
    assert by_reader(tmp_path / FILE, ParsedOrders.load(tmp_path)) == expected


def test_the_naive_reader_reads_all_of_an_intact_ledger(written: tuple[bytes, bytes], tmp_path: Path):
    """Otherwise the comparison would prove nothing."""
    (tmp_path / FILE).write_bytes(written[0])
    found = naive(tmp_path / FILE)
    assert (len(found.records), found.size, found.corrupt) == (written[0].count(b"\n"), len(written[0]), None)
    assert len(found.records) > 8
