"""The forms an order document may have: JSON, names in a file, sequences; and files that are no orders."""

import hashlib
import json
from pathlib import Path

import pytest

from .harness import Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, shipped, unblock
from .upstreams import StubUpstream


def test_an_order_may_be_json(subject: Subject):
    """Programs write JSON: the same fields with the same meaning."""
    subject.start()
    subject.put_order(json.dumps(block("B-1", ["json.example"])), "order.json")
    subject.put_order(as_yaml(block("B-2", ["yml.example"])), "order.yml")
    assert subject.reload()["entries"] == 2
    assert is_sinkholed(subject.query("json.example"))
    assert is_sinkholed(subject.query("yml.example"))


def test_an_order_may_have_its_names_in_a_separate_file(subject: Subject):
    """`entries_file`, with its digest and number of lines."""
    names = b"one.example\ntwo.example\n"
    entries_file = {"path": "names.txt", "sha256": hashlib.sha256(names).hexdigest(), "lines": 2}
    order = block("B-1", [], entries_file=entries_file)
    del order["entries"]
    subject.configure()
    subject.put_order(names, "names.txt")
    subject.put_order(order)
    subject.launch()
    assert is_sinkholed(subject.query("one.example"))
    assert is_sinkholed(subject.query("www.two.example"))


def test_a_file_of_names_with_another_digest_is_refused(subject: Subject):
    """A download cut in the middle has another digest; nothing of it is enforced."""
    names = b"one.example\ntwo.example\n"
    entries_file = {"path": "names.txt", "sha256": hashlib.sha256(names).hexdigest(), "lines": 2}
    order = block("B-1", [], entries_file=entries_file)
    del order["entries"]
    subject.start()
    subject.put_order(names[:-5], "names.txt")
    subject.put_order(order)
    said = subject.cli("reload")
    assert said.code == 4
    assert any("names.txt" in json.dumps(problem) for problem in said.problems)
    assert subject.status()["entries"] == 0


TELEGRAM_ZONE = {"name": "kominfo", "issuer": "kominfo.go.id", "unsigned": "accept", "answer": "sinkhole"}


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"  - macos", id="after 5 of 11 names"),
        pytest.param(b"end:", id="before the last line"),
        pytest.param(b"-14\n", id="within the last line"),
    ],
)
def test_a_partly_written_order_is_accepted_only_once_complete(
    subject: Subject, upstream: StubUpstream, cut: bytes
):
    """An interrupted copy once became an order with 5 names, and the whole one was refused for ever."""
    whole = shipped("block")[0].read_bytes()
    subject.start(zones=[TELEGRAM_ZONE], upstreams=[upstream.address])
    path = subject.put_order(whole[: whole.rindex(cut)] if cut else b"", "telegram.yaml")
    said = subject.cli("reload")
    assert said.code == 4
    assert "INCOMPLETE" in said.stderr or "end: is not the order_id" in said.stderr
    assert subject.status()["orders"] == []
    assert is_forwarded(subject.query("t.me"))
    path.write_bytes(whole)
    assert subject.reload()["entries"] == 11
    assert is_sinkholed(subject.query("flora-1.web.telegram.org"))


def test_files_that_are_not_orders_are_ignored(subject: Subject):
    """Other extensions, names that begin with a dot, editors' copies, folders."""
    subject.configure(orders=[block("B-1", ["blocked.example"])])
    for name in (".hidden.yaml", "order.yaml~", "half.yaml.tmp", "README.md", "order.yaml.sig", "names.txt"):
        (subject.orders_folder / name).write_bytes(b"\x00\xff: [")
    (subject.orders_folder / "sub.yaml").mkdir()
    (subject.orders_folder / "sub.yaml" / "inner.yaml").write_text("broken: [")
    assert subject.launch()["entries"] == 1


def chain(*orders: dict) -> list[str]:
    """The orders as text, numbered from 1, each with the digest of the one before it."""
    texts: list[str] = []
    for seq, order in enumerate(orders, 1):
        link = {"seq": seq}
        if texts:
            link["prev"] = "sha256:" + hashlib.sha256(texts[-1].encode()).hexdigest()
        texts.append(as_yaml(order | link))
    return texts


def test_a_gap_in_the_sequence_holds_later_orders(subject: Subject, upstream: StubUpstream):
    """A withheld unblock is noticed; held orders are not enforced, and are shown as held."""
    first, second, third = chain(
        block("B-1", ["one.example"]), unblock("B-2", "B-1"), block("B-3", ["three.example"])
    )
    subject.start(upstreams=[upstream.address])
    subject.put_order(first, "1.yaml")
    subject.put_order(third, "3.yaml")
    subject.cli("reload")
    assert is_sinkholed(subject.query("one.example"))
    assert is_forwarded(subject.query("three.example"))
    assert {row["order_id"]: row["state"] for row in subject.status()["orders"]} == {
        "B-1": "active",
        "B-3": "held",
    }
    subject.put_order(second, "2.yaml")
    subject.reload()
    assert is_forwarded(subject.query("one.example"))
    assert is_sinkholed(subject.query("three.example"))


def test_an_order_that_does_not_follow_its_predecessor_is_held(subject: Subject, upstream: StubUpstream):
    """`prev` is the digest of the issuer's previous file."""
    first, second = chain(block("B-1", ["one.example"]), block("B-2", ["two.example"]))
    subject.start(upstreams=[upstream.address])
    subject.put_order(first, "1.yaml")
    prev = hashlib.sha256(first.encode()).hexdigest()
    subject.put_order(second.replace(prev, hashlib.sha256(b"another").hexdigest()), "2.yaml")
    checked = subject.cli("check")
    assert checked.code == 1
    (problem,) = checked.problems
    assert (Path(problem["file"]).name, f"it should be sha256:{prev}" in problem["reason"]) == (
        "2.yaml",
        True,
    )
    said = subject.cli("reload")
    assert said.code == 0
    assert any(f"which is sha256:{prev}" in note for note in said.json["notes"])
    assert is_sinkholed(subject.query("one.example"))
    assert is_forwarded(subject.query("two.example"))
    assert {row["order_id"]: row["state"] for row in subject.status()["orders"]}["B-2"] == "held"
    assert subject.cli("check").code == 1
    assert subject.metrics().total("dnsblock_orders", state="held") == 1
    (again,) = chain(block("B-1", ["one.example"]), block("B-2a", ["two.example"]))[1:]
    subject.put_order(again, "2a.yaml")
    assert subject.reload()["entries"] == 2
    assert is_sinkholed(subject.query("two.example"))
    rows = {row["order_id"]: row for row in subject.status()["orders"]}
    assert (rows["B-2"]["state"], rows["B-2a"]["state"]) == ("annulled", "active")
    assert rows["B-2"]["notes"] == ["ANNULLED: another order with seq 2 was accepted: B-2a"]
    assert subject.metrics().total("dnsblock_orders", state="held") == 0
    assert subject.cli("check").code == 0


def test_possible_mistakes_are_reported_by_check_and_reload(subject: Subject):
    """An IDN with its A-label, letters of two scripts in one label, a year far away; all are accepted."""
    subject.start()
    subject.put_order(
        block("B-1", ["b\u00fccher.example", "p\u0430ypal.example"], expires_at="2206-07-14T11:30:00Z")
    )
    says = ("is the A-label xn--bcher-kva.example", "MIXED_SCRIPT", "FAR_YEAR")
    for notes in (subject.cli("check").json["notes"], subject.reload()["notes"]):
        for what in says:
            assert any(what in note for note in notes), (what, notes)
    assert is_sinkholed(subject.query("xn--bcher-kva.example"))


def test_an_expired_block_is_refused(subject: Subject):
    """Most often its year is wrong."""
    subject.start()
    subject.put_order(block("B-1", ["a.example"], expires_at="2017-08-14T11:30:00Z"))
    said = subject.cli("reload")
    assert said.code == 4
    assert "EXPIRED: expires_at has passed" in said.stderr


def test_a_web_page_in_an_order_is_refused(subject: Subject):
    """In May 2023 a police list contained t.me itself: somebody had meant a page there."""
    subject.start()
    subject.put_order(block("B-1", ["t.me/channel"]))
    said = subject.cli("reload")
    assert said.code == 4
    assert "an order blocks names, not pages; the name t.me would block everything there" in said.stderr
