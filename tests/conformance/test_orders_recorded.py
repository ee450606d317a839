"""The records of orders agree with the answers of the daemon."""

import json
from concurrent.futures import ThreadPoolExecutor

from .harness import ISSUER, ORDERS_ZONE, Subject
from .orders import block, unblock
from .tools import wait_for

SHADOW = {**ORDERS_ZONE, "mode": "shadow"}


def kinds(subject: Subject) -> list[str]:
    """The kinds of the records about orders."""
    whole = (subject.folder / "state" / "ledger.jsonl").read_bytes().rpartition(b"\n")[0]
    lines = whole.splitlines()  # without the last record, if it is written just now
    return [record["kind"] for record in map(json.loads, lines) if "order_id" in record]


def test_an_order_that_is_only_counted_is_not_recorded_as_enforced(subject: Subject):
    """A zone in shadow mode blocks nothing. The order is activated when the zone is enforced."""
    subject.start(zones=[SHADOW], orders=[block("B-1", ["t.example"])])
    assert kinds(subject) == ["received", "accepted"]
    assert subject.cli("order list").json["orders"][0]["enforced_at"] is None
    subject.configure(zones=[ORDERS_ZONE])
    subject.reload()
    wait_for(lambda: kinds(subject) == ["received", "accepted", "activated"], "the order is enforced")
    subject.restart()
    assert kinds(subject) == ["received", "accepted", "activated"]


def test_each_part_of_an_order_that_is_lifted_has_its_record(subject: Subject):
    """Receipts and proofs of the block show when each part was lifted."""
    subject.start(orders=[block("B-1", ["one.example", "two.example", "three.example"])])
    subject.put_order(unblock("U-1", "B-1", ["one.example", "two.example"]), "u-1.yaml")
    subject.reload()
    wait_for(lambda: "lifted" in kinds(subject), "the first part is recorded")
    assert subject.cli("order show", "B-1").json["ended_at"] is None
    subject.put_order(unblock("U-2", "B-1", ["three.example"]), "u-2.yaml")
    subject.reload()
    wait_for(lambda: kinds(subject).count("lifted") == 2, "the rest is recorded")
    subject.restart()
    proof = json.loads(subject.control.receipt(ISSUER, "B-1")["receipt"])["proof"]
    records = [json.loads(one["record"]) for one in proof["records"]]
    parts = [(one["kind"], one["entries"]) for one in records if one["kind"] in ("activated", "lifted")]
    assert parts == [("activated", 3), ("lifted", 2), ("lifted", 1)]
    assert subject.cli("order show", "B-1").json["ended_at"]


def test_a_document_that_a_reload_refuses_is_recorded_with_who_reloaded(subject: Subject):
    """Also if the reload changes nothing else, and once."""
    subject.start()
    subject.put_order(block("B-1", ["co.id"]))
    for _ in range(2):
        assert subject.cli("reload").code == 4
        assert kinds(subject) == ["refused"]
    subject.restart()
    assert kinds(subject) == ["refused"]


def test_order_show_prints_what_citizens_and_courts_may_ask_for(subject: Subject):
    """docs/orders.md promises it."""
    original = {"sha256": "ab" * 32, "uri": "https://ministry.example/84"}
    fields = {"document": original, "review_at": "2030-01-01T00:00:00+07:00", "acks": ["POPULAR"]}
    subject.start(orders=[block("B-1", ["t.example"], **fields)])
    said = subject.cli("order show", "B-1", as_json=False).stdout
    facts = dict(line.split(maxsplit=1) for line in said.splitlines() if line.startswith("  "))
    assert facts["document"] == f"{original['sha256']} {original['uri']}"
    assert facts["review"] == "2030-01-01 00:00:00 WIB"
    assert facts["acks"] == "POPULAR"


def test_receipts_at_the_same_time_are_all_given(subject: Subject):
    """Each of them stores a checkpoint of the ledger, perhaps the same one."""
    subject.start(orders=[block("B-1", ["t.example"])])
    with ThreadPoolExecutor(8) as threads:
        receipts = threads.map(lambda _: subject.control.receipt(ISSUER, "B-1"), range(40))
        assert all("BEGIN SSH SIGNATURE" in one["signature"] for one in receipts)
