"""`order submit` sends a document to the daemon, and `order annul` ends an order that was wrong."""

import hashlib
import json
import os
import pwd
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .clients import Said
from .harness import ISSUER, ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, order, unblock
from .tools import me
from .upstreams import StubUpstream

LIST_ZONE = {"name": "malware", "list": "malware.txt", "match": "subtree", "answer": "sinkhole"}


@pytest.fixture
def started(subject: Subject, upstream: StubUpstream) -> Subject:
    """Without any order; its inbox stays empty."""
    subject.start(upstreams=[upstream.address])
    return subject


def write(subject: Subject, name: str, document: dict | str | bytes) -> str:
    """A file outside the inbox; returns its path."""
    content = as_yaml(document) if isinstance(document, dict) else document
    path = subject.folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def submit(subject: Subject, *documents: dict) -> Said:
    files = [write(subject, f"{number}.yaml", document) for number, document in enumerate(documents)]
    return subject.cli("order submit", *files)


def annul(subject: Subject, order_id: str, reason: str = "a typing error") -> Said:
    return subject.cli("order annul", order_id, "--issuer", ISSUER, "--reason", reason)


def part(name: str, content: bytes, *, is_last: bool = True) -> bytes:
    """A part of a form (RFC 7578) whose boundary is b."""
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode()
    return head + content + (b"\r\n--b--\r\n" if is_last else b"\r\n")


def states(subject: Subject) -> list[tuple[str, str]]:
    return [(row["order_id"], row["state"]) for row in subject.status()["orders"]]


def after(first: dict, second: dict) -> dict:
    """The second order with the number and the digest that follow the first."""
    prev = hashlib.sha256(as_yaml(first).encode()).hexdigest()
    return second | {"seq": int(str(first["seq"])) + 1, "prev": prev}


# ------- Sending -------


def test_a_supersede_shows_what_it_ends(started: Subject):
    """Its own names are only half of it. An entry that had ended before is not ended again."""
    first = block("B-1", ["one.example", "two.example", "three.example"])
    assert submit(started, first, unblock("U-1", "B-1", ["one.example"])).code == 0
    targets = [{"order_id": "B-1", "entries": "all"}]
    replaced = order("B-2", "supersede", targets=targets, entries=["three.example", "four.example"])
    path = write(started, "b-2.yaml", replaced)
    lines = started.cli("order submit", path, as_json=False).stdout.splitlines()
    assert lines[:3] == [
        f"accepted: {path} (order B-2 of {ISSUER})",
        "  blocks 2 entries",
        "  ends 2 entries of B-1",
    ]


def test_a_document_whose_files_cannot_be_read_does_not_delay_the_others(started: Subject):
    """The other one may be somebody else's unblock order."""
    names = {"path": "names.txt", "sha256": "ab" * 32, "lines": 2}
    lost = {**block("B-1", []), "entries_file": names}
    del lost["entries"]
    files = [write(started, "lost.yaml", lost), write(started, "2.yaml", block("B-2", ["two.example"]))]
    files.append(str(started.folder / "absent.yaml"))
    checked, said = started.cli("order check", *files), started.cli("order submit", *files)
    assert (checked.code, said.code) == (1, 4)
    verdicts = {"lost.yaml": "refused", "2.yaml": "accepted", "absent.yaml": "refused"}
    assert {Path(one["file"]).name: one["verdict"] for one in said.json["documents"]} == verdicts
    found = {
        Path(one["document"]["file"]).name: one["document"]["verdict"] for one in checked.json["documents"]
    }
    assert found == verdicts
    assert states(started) == [("B-2", "active")]
    text = started.cli("order submit", files[0], as_json=False).stderr
    assert "names.txt: cannot be read: No such file or directory" in text


def test_a_submitted_order_is_in_force_when_the_command_returns(started: Subject):
    """And stays so: the ledger has what the daemon needs, and the inbox no copy."""
    said = submit(started, block("B-1", ["one.example", "two.example"]))
    assert said.code == 0
    (one,) = said.json["documents"]
    assert (one["verdict"], one["state"], one["in_force"]) == ("accepted", "active", 2)
    assert one["changes"] == ["blocks 2 entries"]
    assert said.json["served"]["entries"] == 2
    assert is_sinkholed(started.query("one.example"))
    assert list(started.orders_folder.iterdir()) == []
    started.restart()
    assert is_sinkholed(started.query("one.example"))


def test_submit_prints_a_verdict(started: Subject):
    """The officer who submits must see whether the order was accepted, and why not."""
    path = write(started, "o.yaml", block("B-1", ["one.example"], expires_at="2031-01-01T00:00:00Z"))
    said = started.cli("order submit", path, as_json=False)
    assert said.stdout.splitlines() == [
        f"accepted: {path} (order B-1 of {ISSUER})",
        "  blocks 1 entry until 2031-01-01 07:00:00 WIB",
        "serving serial 2, 1 name enforced",
    ]


def test_a_refused_document_is_named_and_others_are_accepted(started: Subject):
    """Exit code 4; each document stands alone."""
    half = as_yaml(block("B-1", ["half.example"]))[:-8]
    files = [write(started, "half.yaml", half), write(started, "good.yaml", block("B-2", ["good.example"]))]
    said = started.cli("order submit", *files)
    assert said.code == 4
    verdicts = {Path(one["file"]).name: one for one in said.json["documents"]}
    assert (verdicts["half.yaml"]["verdict"], verdicts["good.yaml"]["verdict"]) == ("refused", "accepted")
    assert "INCOMPLETE" in verdicts["half.yaml"]["problems"][0]["reason"]
    assert states(started) == [("B-2", "active")]
    assert started.status()["last_publish"]["ok"] is True
    shown = started.cli("order submit", files[0], as_json=False)
    assert (shown.code, "INCOMPLETE" in shown.stderr) == (4, True)


def test_documents_submitted_together_may_refer_to_each_other(started: Subject):
    """Whatever their sequence in the command is."""
    said = submit(started, unblock("U-1", "B-1"), block("B-1", ["one.example"]))
    assert [one["verdict"] for one in said.json["documents"]] == ["accepted", "accepted"]
    assert is_forwarded(started.query("one.example"))


def test_submit_sends_the_separate_file_of_names(started: Subject):
    """`entries_file`: the daemon may run on another server and cannot read it."""
    names = b"one.example\ntwo.example\n"
    reference = {"path": "names.txt", "sha256": hashlib.sha256(names).hexdigest(), "lines": 2}
    order = block("B-1", [], entries_file=reference)
    del order["entries"]
    path = write(started, "o.yaml", order)
    missing = started.cli("order submit", path)
    [problem] = missing.json["documents"][0]["problems"]
    assert (missing.code, Path(problem["file"]).name) == (4, "names.txt")
    write(started, "names.txt", names[:-4])
    cut = started.cli("order submit", path)
    assert "or is truncated" in cut.json["documents"][0]["problems"][0]["reason"]
    write(started, "names.txt", names)
    assert started.cli("order submit", path).code == 0
    started.restart()
    assert is_sinkholed(started.query("www.two.example"))


def test_an_order_behind_a_gap_is_held(started: Subject):
    """A withheld unblock must be noticed, so nothing after it applies."""
    first = block("B-1", ["one.example"], seq=1)
    (one,) = submit(started, after(first, block("B-2", ["two.example"]))).json["documents"]
    assert (one["verdict"], one["changes"]) == (
        "held",
        ["nothing is enforced until the missing orders before it arrive"],
    )
    assert one["notes"] == ["HELD: the order with seq 1 has not been received"]
    assert submit(started, first).json["documents"][0]["verdict"] == "accepted"
    assert is_sinkholed(started.query("two.example"))


def test_resubmitting_a_document_changes_nothing(started: Subject):
    """Sent twice, or put into the inbox as well: a timeout may make somebody try again."""
    order = block("B-1", ["one.example"])
    submit(started, order)
    said = submit(started, order)
    assert said.code == 0
    assert said.json["documents"][0]["changes"] == ["already in the ledger: nothing changed"]
    started.put_order(order)
    assert started.reload()["changed"] is False
    assert states(started) == [("B-1", "active")]


def test_an_unblock_reports_what_still_blocks_a_name(subject: Subject, upstream: StubUpstream):
    """The officer must not report a name as open that another order still blocks."""
    subject.start(
        zones=[ORDERS_ZONE, LIST_ZONE], lists={"malware.txt": ["two.example"]}, upstreams=[upstream.address]
    )
    submit(subject, block("B-1", ["one.example", "www.two.example"]))
    (one,) = submit(subject, unblock("U-1", "B-1")).json["documents"]
    assert one["changes"] == ["lifts 2 entries"]
    path = write(subject, "again.yaml", unblock("U-2", "B-1"))
    printed = subject.cli("order submit", path, as_json=False).stdout
    assert "  caches may hold the blocked answer until 20" in printed
    assert one["notes"] == ["STILL_BLOCKED: www.two.example by list malware, entry two.example (subtree)"]


def test_possible_mistakes_are_in_the_verdict(started: Subject):
    """Accepted, but shown: an IDN, a far year, letters of two scripts."""
    (one,) = submit(started, block("B-1", ["b\u00fccher.example"])).json["documents"]
    assert any("xn--bcher-kva.example" in note for note in one["notes"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"[]\n",
        b"--b--\r\n",
        b"--b\r\n\r\nx\r\n--b--\r\n",
        part("document", b"x", is_last=False),
        part("signatures", b"x"),
        part("document", b"x", is_last=False) + part("document", b"y"),
        part("document", b"x", is_last=False) + part("entries", b"y", is_last=False) + part("entries", b"y"),
        part("other", b"x"),
        part("document", b"x").replace(b"filename", b"fname"),
        b"\xff\xfe" * 1000,
    ],
)
def test_an_invalid_submission_is_refused(started: Subject, body: bytes):
    """Every request over a socket is hostile."""
    head = (
        "POST /v1/orders HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(45)
        control.connect(started.ready["control"])
        control.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: control.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "MALFORMED"
    assert started.status()["orders"] == []


def test_an_order_submitted_while_the_inbox_is_read_is_accepted_once(started: Subject):
    """The same document by both ways at the same time, and another one with the same number."""
    for number in range(8):
        order = as_yaml(block(f"B-{number}", [f"n{number}.example"]))
        started.put_order(order, f"{number}.yaml")
        other = as_yaml(block(f"B-{number}", [f"other{number}.example"]))
        documents = [("a.yaml", order.encode()), ("b.yaml", other.encode())]
        with ThreadPoolExecutor() as pool:
            reload = pool.submit(started.cli, "reload")
            sent = [pool.submit(started.submit, *document) for document in documents]
            verdicts = [one.result()["documents"][0]["verdict"] for one in sent]
            assert reload.result().code in (0, 4)
        assert len({"accepted", *verdicts}) <= 2
        (started.orders_folder / f"{number}.yaml").unlink()
    assert [order_id for order_id, _ in states(started)] == [f"B-{number}" for number in range(8)]
    started.restart()
    assert started.status()["entries"] == 8


# ------- Annulling -------


def test_an_annulled_order_ends_and_a_corrected_one_takes_its_number(started: Subject):
    """An order that was accepted and was wrong; the record is in the ledger, over restarts too."""
    wrong = block("B-1", ["wrong.example"], seq=1)
    submit(started, wrong)
    started.put_order(wrong)
    said = annul(started, "B-1", "sent with the names of another letter")
    assert (said.code, said.json["ended"], said.json["served"]["entries"]) == (0, 1, 0)
    assert is_forwarded(started.query("wrong.example"))
    (row,) = started.status()["orders"]
    assert (row["state"], row["in_force"]) == ("annulled", 0)
    assert row["notes"] == ["ANNULLED: by the operator: sent with the names of another letter"]
    assert started.reload()["changed"] is False, "the copy in the inbox is not accepted again"
    assert submit(started, wrong).code == 4, "nor is it when it is sent"
    assert submit(started, block("B-1", ["right.example"], seq=1)).code == 0
    started.restart()
    assert states(started) == [("B-1", "annulled"), ("B-1", "active")]
    assert is_forwarded(started.query("wrong.example"))
    assert is_sinkholed(started.query("right.example"))
    assert started.metrics().total("dnsblock_orders", state="annulled") == 1


def test_why_and_history_show_an_annulment(started: Subject):
    """An audit must see who annulled the order, when and why."""
    submit(started, block("B-1", ["wrong.example"]))
    annul(started, "B-1")
    assert started.cli("why", "wrong.example").json["verdict"] == "not blocked"
    events = started.cli("history", "wrong.example").json["events"]
    assert [(event["what"], event["by"]) for event in events] == [
        ("in force", "order B-1"),
        ("ended", "order B-1, annulled"),
    ]


def test_an_action_is_recorded_with_the_user_that_the_kernel_names(started: Subject):
    """Nobody can act in the name of another user: the environment of a command is not believed."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"):
            patch.setenv(variable, "mallory")
        submit(started, block("B-1", ["wrong.example"]))
        annul(started, "B-1")
    ledger = (started.folder / "state" / "ledger.jsonl").read_text()
    user = {"kind": "local", "uid": os.getuid(), "user": pwd.getpwuid(os.getuid()).pw_name}
    by_kind = {record["kind"]: record["by"] for record in map(json.loads, ledger.splitlines())}
    assert {kind: by_kind[kind] for kind in ("received", "accepted", "annulled")} == {
        "received": user,
        "accepted": user,
        "annulled": user,
    }
    assert by_kind["activated"]["kind"] == "daemon"
    lines = [json.loads(line) for line in started.stderr().splitlines()]
    annulled = next(line for line in lines if line["event"].startswith("annulled order B-1 of"))
    assert annulled["by"] == me()


def test_orders_after_an_annulled_one_stay_in_force(started: Subject):
    """Its place in the sequence stays, and a corrected order takes its number."""
    first = block("B-1", ["one.example"], seq=1)
    second = after(first, block("B-2", ["two.example"]))
    third = after(second, block("B-3", ["three.example"]))
    submit(started, first, second, third)
    annul(started, "B-2")
    assert states(started) == [("B-1", "active"), ("B-2", "annulled"), ("B-3", "active")]
    assert is_forwarded(started.query("two.example"))
    assert is_sinkholed(started.query("three.example"))
    right = after(first, block("B-2", ["right.example"]))
    assert submit(started, right).json["documents"][0]["verdict"] == "accepted"
    fourth = after(third, block("B-4", ["four.example"]))
    assert submit(started, fourth).json["documents"][0]["verdict"] == "accepted"


def test_an_unblock_of_an_annulled_order_does_not_lift_the_corrected_one(started: Subject):
    """It meant the order that had the number when it came."""
    submit(started, block("B-1", ["one.example"]), unblock("U-1", "B-1"))
    annul(started, "B-1")
    submit(started, block("B-1", ["one.example", "two.example"]))
    assert is_sinkholed(started.query("one.example"))
    submit(started, unblock("U-2", "B-1"))
    assert is_forwarded(started.query("one.example"))


def test_an_annulled_unblock_has_no_effect(started: Subject):
    """Its names are blocked again."""
    submit(started, block("B-1", ["one.example"]), unblock("U-1", "B-1"))
    assert is_forwarded(started.query("one.example"))
    said = started.cli("order annul", "U-1", "--reason", "a typing error", as_json=False)
    assert "  zone ministry: 1 name added, 0 removed" in said.stdout.splitlines()
    assert is_sinkholed(started.query("one.example"))


def test_an_unknown_entry_is_named_once_however_often_the_order_is_sent(started: Subject):
    """The document and the ledger both know about it."""
    submit(started, block("B-1", ["one.example"]))
    lifting = unblock("U-1", "B-1", ["one.example", "other.example"])
    for _ in range(2):
        (one,) = submit(started, lifting).json["documents"]
        named = [(entry["name"], entry["code"]) for entry in one["entry_verdicts"]]
        assert named == [("other.example", "UNKNOWN_ENTRY")]


@pytest.mark.parametrize("command", ["order annul B-1", "order approve B-1", "log accept-restore"])
def test_a_reason_must_say_something(started: Subject, command: str):
    """A court reads it."""
    submit(started, block("B-1", ["one.example"]))
    said = started.cli(command, "--reason", " ", as_json=False)
    assert (said.code, "give a reason" in said.stderr) == (2, True)
    assert states(started) == [("B-1", "active")]


def test_an_unknown_order_cannot_be_annulled(started: Subject):
    """Nor twice; and a typing error here is no failed publish."""
    submit(started, block("B-1", ["one.example"]))
    assert annul(started, "B-2").code == 1
    assert annul(started, "B-1").code == 0
    said = annul(started, "B-1")
    assert (said.code, "no order with this order_id" in said.stderr) == (4, True)
    assert started.status()["last_publish"]["ok"] is True
    assert started.metrics().total("dnsblock_publish_failures_total") == 0


def test_an_annulled_held_order_ends_its_alert(started: Subject):
    """An alert that nobody can end would be ignored."""
    first = block("B-1", ["one.example"], seq=1)
    submit(started, first, after(first, block("B-2", ["two.example"])) | {"prev": "ab" * 32})
    assert started.metrics().total("dnsblock_orders", state="held") == 1
    annul(started, "B-2")
    assert started.metrics().total("dnsblock_orders", state="held") == 0
    assert submit(started, after(first, block("B-2", ["two.example"]))).code == 0
    assert is_sinkholed(started.query("two.example"))
