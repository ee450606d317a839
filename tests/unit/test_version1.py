"""Ledgers of version 1 of the records: they load, mean the same, and are continued."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dnsblock.orders.ledger import Ledger
from dnsblock.orders.records import sealed
from dnsblock.orders.state import derive

from .helpers import accept, block, exempt, orders, sha256, unblock

NOW = datetime(2026, 2, 1, tzinfo=UTC)
OPERATOR = {"kind": "local", "uid": 0, "user": "root"}
DAEMON = {"kind": "daemon", "uid": None, "user": None}


def order(text: str, order_id: str, issuer: str = "a") -> dict[str, Any]:
    """The fields of a record that accepts an order."""
    facts = {"issuer": issuer, "order_id": order_id, "sha256": sha256(text), "document": text}
    return {"kind": "order", "by": DAEMON, "entries_file": None, **facts}


def annulment(order_id: str) -> dict[str, Any]:
    return {
        "kind": "annulment",
        "by": OPERATOR,
        "issuer": "a",
        "order_id": order_id,
        "reason": "a wrong name",
    }


def write(folder: Path, records: Iterable[dict[str, Any]]) -> Path:
    """A ledger as version 1 wrote it."""
    last, lines = None, []
    for n, fields in enumerate(records, start=1):
        at = f"2026-01-01T00:00:{n:02}.123+00:00"
        line = sealed({"version": 1, "n": n, "at": at, "prev_record": last, **fields})
        last = hashlib.sha256(line).hexdigest()
        lines.append(line + b"\n")
    folder.mkdir()
    (folder / "ledger.jsonl").write_bytes(b"".join(lines))
    return folder


def in_force(ledger: Ledger) -> list[str]:
    entries = derive(ledger.orders, NOW).entries_of("a")
    return sorted(f"{item.entry.name} of {item.order_id}" for item in entries)


def test_a_ledger_of_version_1_means_the_same(tmp_path: Path):
    """A record `order` also said that it was accepted. An annulled order gives up its number."""
    wrong, right = block("b-1", "wrong.example"), block("b-1", "t.example", "u.example")
    position = {"records": 1, "last": "ab" * 32}
    records = [
        order(wrong, "b-1"),
        annulment("b-1"),
        order(right, "b-1"),
        order(unblock("u-1", "b-1", "u.example"), "u-1"),
        order(exempt("e-1", "v.example"), "e-1"),
        {"kind": "restore_accepted", "by": OPERATOR, "reason": "x", "acknowledged": None, "found": position},
    ]
    with Ledger.open(write(tmp_path / "state", records)) as ledger:
        assert ledger.damage is None
        assert in_force(ledger) == ["t.example of b-1", "v.example of e-1"]
        first, *_ = ledger.orders
        assert (str(first.annulled.by), first.annulled.reason) == ("root (uid 0)", "a wrong name")
        assert first.received_at == datetime(2026, 1, 1, 0, 0, 1, 123000, tzinfo=UTC)
        accept(ledger, *orders(unblock("u-2", "b-1")))
        assert in_force(ledger) == ["v.example of e-1"]
    with Ledger.open(tmp_path / "state") as ledger:
        assert [record.version for record in ledger.records] == [1] * 6 + [2] * 2
        assert in_force(ledger) == ["v.example of e-1"]


def test_a_lifting_that_version_1_held_applies(tmp_path: Path):
    """A gap holds no lifting any more, and still holds a block."""
    first = block("b-1", "t.example", seq=1)
    lifting = unblock("u-1", "b-1", seq=3, prev="ab" * 32)
    later = block("b-2", "u.example", seq=4, prev=sha256(lifting))
    records = [order(first, "b-1"), order(lifting, "u-1"), order(later, "b-2")]
    with Ledger.open(write(tmp_path / "state", records)) as ledger:
        assert in_force(ledger) == []
        assert {one.order_id: one.state for one in derive(ledger.orders, NOW).orders} == {
            "b-1": "lifted",
            "u-1": "active",
            "b-2": "held",
        }
