"""`order check` shows every finding at once, and what an order would change here. Nothing changes."""

import hashlib
import json
import os
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from .clients import Said
from .harness import ISSUER, ORDERS_ZONE, PROFILES, Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, exempt, in_seconds, order, shipped, stamp, unblock
from .tools import dnsblock
from .upstreams import StubUpstream

COURT = "court.example"
COURT_ZONE = {"name": "court", "issuer": COURT, "unsigned": "accept", "answer": "sinkhole"}
LIST_ZONE = {"name": "malware", "list": "malware.txt", "match": "subtree", "answer": "sinkhole"}
HALF_WRONG = {
    "issuer": "no issuer",
    "effective_at": "soon",
    "unknown": "key",
    "entries": ["good.example", "https://t.me/x", "co.id"],
}


def alone(folder: Path, *files: str) -> Said:
    """The command without configuration and daemon."""
    done = subprocess.run(
        [dnsblock(), "order", "check", "-c", "nothing.yaml", *files, "--json"],
        cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return Said(done.returncode, json.loads(done.stdout), done.stdout, done.stderr)


def write(folder: Path, *documents: dict) -> list[str]:
    files = []
    for number, document in enumerate(documents):
        path = folder / f"checked-{number}.yaml"
        path.write_text(as_yaml(document))
        files.append(str(path))
    return files


def check(subject: Subject, *documents: dict) -> Said:
    return subject.cli("order check", *write(subject.folder, *documents))


def submit(subject: Subject, *documents: dict) -> dict:
    said = subject.cli("order submit", *write(subject.folder, *documents))
    assert said.code == 0, said
    return said.json["documents"][-1]


def trial(said: Said) -> dict:
    """The result for the last document."""
    return said.json["documents"][-1]


# ------- Without a daemon -------


def test_every_problem_of_a_document_is_shown_at_once(tmp_path: Path):
    """Fields, unknown keys and names: a clerk corrects all of them in one go."""
    files = write(tmp_path, block("B-1", []) | HALF_WRONG)
    said = alone(tmp_path, *files)
    assert said.code == 1
    reasons = " | ".join(problem["reason"] for problem in trial(said)["document"]["problems"])
    for part in ("issuer:", "effective_at: must be a time", "unknown key", "a web address"):
        assert part in reasons


def test_every_entry_has_its_verdict_without_a_daemon(tmp_path: Path):
    """Public suffixes, hosting suffixes and popular names are known from the package."""
    said = alone(
        tmp_path, *write(tmp_path, block("B-1", ["ok.example", "co.id", "pages.dev", "t.me", "a b"]))
    )
    assert said.code == 1, "a refused entry is a negative result"
    found = {(one["name"], one["verdict"], one["code"]) for one in trial(said)["document"]["entry_verdicts"]}
    assert found == {
        ("a b", "refused", "SYNTAX"),
        ("co.id", "refused", "PUBLIC_SUFFIX"),
        ("pages.dev", "held", "PRIVATE_SUFFIX"),
        ("pages.dev", "held", "POPULAR"),
        ("t.me", "held", "POPULAR"),
    }
    assert said.json["checked_alone"] is not None


def test_held_entries_alone_are_no_failure(tmp_path: Path):
    """The order of 2017: its popular names wait for a second signature, and it is correct."""
    said = alone(tmp_path, str(shipped("block")[0]))
    assert said.code == 0
    assert trial(said)["document"]["verdict"] == "accepted"
    assert trial(said)["document"]["held"] > 0


@pytest.mark.parametrize("content", [b"", b"\x00", b"a: [", b"- a\n", b"x" * 2_000_000], ids=range(5))
def test_a_file_that_is_no_order_is_refused(tmp_path: Path, content: bytes):
    """A letter in the wrong format."""
    (tmp_path / "order.yaml").write_bytes(content)
    said = alone(tmp_path, "order.yaml")
    assert (said.code, trial(said)["document"]["verdict"]) == (1, "refused")
    assert "Traceback" not in said.stderr


def test_a_missing_entries_file_is_reported(tmp_path: Path):
    """The document alone is not the order."""
    reference = {"path": "names.txt", "sha256": "ab" * 32, "lines": 1}
    files = write(tmp_path, order("B-1", "block", entries_file=reference))
    done = subprocess.run(
        [dnsblock(), "order", "check", "-c", "nothing.yaml", *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "names.txt: cannot be read" in done.stdout) == (1, True)


# ------- With a daemon -------


@pytest.fixture
def started(subject: Subject, upstream: StubUpstream) -> Subject:
    """Two issuers and a list."""
    subject.start(
        zones=[ORDERS_ZONE, COURT_ZONE, LIST_ZONE],
        lists={"malware.txt": ["two.example", "deep.three.example"]},
        upstreams=[upstream.address],
    )
    return subject


def test_what_a_block_would_add_is_counted(started: Subject):
    """The issue: "adds 11, 0 already blocked, 2 popular names are held"."""
    submit(started, block("B-1", ["one.example"]))
    entries = ["one.example", "two.example", "new.example", "t.me", "co.id"]
    said = check(started, block("B-2", entries))
    effect = trial(said)["effect"]
    assert (effect["entries"], effect["added"], effect["already_blocked"]) == (5, 3, 2)
    assert (effect["held"], effect["refused"]) == ({"POPULAR": 1}, 1)
    said = started.cli("order check", *write(started.folder, block("B-2", entries)), as_json=False)
    assert ": 1 new, 2 already blocked, 1 held (POPULAR), 1 refused" in said.stdout


def test_a_check_changes_nothing(started: Subject):
    """No record, no serial, no block."""
    before = started.status()
    assert check(started, block("B-1", ["one.example"])).code == 0
    assert is_forwarded(started.query("one.example"))
    after = started.status()
    assert (after["serial"], after["orders"]) == (before["serial"], [])
    assert "B-1" not in (started.folder / "state" / "ledger.jsonl").read_text()


def test_an_unsigned_order_is_checked_and_the_missing_signatures_are_reported(
    subject: Subject, upstream: StubUpstream
):
    """The clerk checks before the officers sign."""
    zone = {key: value for key, value in ORDERS_ZONE.items() if key != "unsigned"}
    (subject.folder / "keys").write_text("")
    issuers = [{"id": ISSUER, "keys": "keys", "signatures": 2}]
    subject.start(zones=[zone], upstreams=[upstream.address], issuers=issuers)
    said = check(subject, block("B-1", ["one.example", "t.me"], acks=["POPULAR"]))
    assert said.code == 0
    one = trial(said)
    assert (one["document"]["verdict"], one["effect"]["added"]) == ("accepted", 1)
    assert (one["signatures"]["needed"], one["signatures"]["enough"]) == (2, False)
    said = subject.cli(
        "order check",
        *write(subject.folder, block("B-1", ["t.me", "a.example"], acks=["POPULAR"])),
        as_json=False,
    )
    assert "acks POPULAR: released when a second officer has signed" in said.stdout
    assert "signatures: not enough yet, 2 needed" in said.stdout


def test_every_problem_that_only_the_daemon_knows_is_shown_at_once(started: Subject):
    """A wrong number, an expired order, a public suffix, a notice that does not exist: all in one go."""
    submit(started, block("B-1", ["one.example"]))
    wrong = {"seq": 7, "prev": "ab" * 32, "expires_at": "2017-07-15T00:00:00Z", "notice": "N-1"}
    said = check(started, block("B-2", ["other.example", "co.id", "a b"], **wrong))
    reasons = " | ".join(one["reason"] for one in trial(said)["document"]["problems"])
    for part in (
        "an issuer numbers all",
        "has passed",
        "PUBLIC_SUFFIX",
        "SYNTAX",
        "no notice of this issuer",
    ):
        assert part in reasons, reasons
    said = check(started, unblock("U-1", "B-9", ["one.example"]))
    assert (said.code, trial(said)["document"]["problems"][0]["value"]) == (1, "B-9")
    assert check(started, block("X-1", ["one.example"], issuer="nobody.example")).code == 1


def test_documents_that_refer_to_each_other_are_checked_together(started: Subject):
    """As `order submit` takes them together."""
    said = check(started, block("B-1", ["one.example"]), unblock("U-1", "B-1"))
    assert said.code == 0
    assert [one["document"]["verdict"] for one in said.json["documents"]] == ["accepted", "accepted"]


def test_an_order_after_a_gap_is_a_negative_result(started: Subject):
    """It would be held, and the clerk must know before it is signed."""
    first = block("B-1", ["one.example"], seq=1)
    submit(started, first)
    said = check(started, block("B-3", ["three.example"], seq=3, prev="ab" * 32))
    assert (said.code, trial(said)["document"]["state"]) == (1, "held")
    good = {"seq": 2, "prev": hashlib.sha256(as_yaml(first).encode()).hexdigest()}
    assert check(started, block("B-2", ["two.example"], **good)).code == 0


def test_what_a_future_order_would_change_is_that_of_its_time(started: Subject):
    """By then another order has ended, and a list has not."""
    submit(started, block("B-1", ["one.example"], expires_at=stamp(in_seconds(3600))))
    later = block("B-2", ["one.example", "two.example"], effective_at=stamp(in_seconds(7200)))
    effect = trial(check(started, later))["effect"]
    assert (effect["added"], effect["already_blocked"]) == (2, 1)


# ------- What stays blocked -------


def test_the_names_that_stay_blocked_are_named_before_and_after_an_unblock(started: Subject):
    """With order and entry, list and issuer: in 2017, nobody knew why five names were still blocked."""
    submit(started, block("B-1", ["one.example", "two.example", "three.example", "four.example"]))
    submit(started, block("B-2", ["sub.four.example"]))
    submit(started, block("C-1", ["one.example"], issuer=COURT))
    lifting = trial(check(started, unblock("U-1", "B-1")))["document"]["lifting"]
    assert (lifting["entries"], lifting["open"], lifting["still_blocked_total"]) == (4, 1, 3)
    assert [one["text"] for one in lifting["still_blocked"]] == [
        f"one.example by order C-1 of {COURT}, entry one.example (subtree)",
        "two.example by list malware, entry two.example (subtree)",
        f"names below four.example by order B-2 of {ISSUER}, entry sub.four.example (subtree)",
    ]
    after = submit(started, unblock("U-1", "B-1"))
    assert after["lifting"]["still_blocked"] == lifting["still_blocked"]
    assert after["notes"] == [f"STILL_BLOCKED: {one['text']}" for one in lifting["still_blocked"]]
    blocked = {
        name: is_sinkholed(started.query(name)) for name in ("one.example", "two.example", "four.example")
    }
    assert blocked == {"one.example": True, "two.example": True, "four.example": False}


def test_a_name_of_two_issuers_stays_blocked_until_both_lift_it(started: Subject):
    """Lifting issuer A's block never unblocks a name that issuer B blocked, and the tool names the other."""
    submit(started, block("B-1", ["one.example"]), block("C-1", ["one.example"], issuer=COURT))
    first = submit(started, unblock("U-1", "B-1"))
    (still,) = first["lifting"]["still_blocked"]
    assert [(one["issuer"], one["orders"]) for one in still["by"]] == [(COURT, ["C-1"])]
    assert is_sinkholed(started.query("one.example"))
    started.restart()
    assert is_sinkholed(started.query("one.example"))
    second = submit(started, unblock("U-2", "C-1", issuer=COURT))
    assert (second["lifting"]["open"], second["lifting"]["still_blocked"]) == (1, [])
    assert is_forwarded(started.query("one.example"))
    started.restart()
    assert is_forwarded(started.query("one.example"))


def test_a_scheduled_unblock_reports_what_stays_blocked_at_its_time(started: Subject):
    """A block of another issuer that expires before that is no obstacle."""
    end, lift = in_seconds(3600), in_seconds(7200)
    submit(started, block("B-1", ["one.example", "two.example"]))
    submit(started, block("C-1", ["one.example"], issuer=COURT, expires_at=stamp(end)))
    for answer in (
        trial(check(started, unblock("U-1", "B-1", effective_at=stamp(lift))))["document"],
        submit(started, unblock("U-1", "B-1", effective_at=stamp(lift))),
    ):
        (still,) = answer["lifting"]["still_blocked"]
        assert still["name"] == "two.example"
        assert datetime.fromisoformat(answer["lifting"]["at"]) == lift


def test_the_caches_are_named_that_may_hold_the_blocked_answer(subject: Subject, upstream: StubUpstream):
    """The TTL of the answer profile, from now; a lifting that is known early enough waits for no cache."""
    answers = {"sinkhole": {**PROFILES["sinkhole"], "ttl": 600}}
    subject.start(answers=answers, upstreams=[upstream.address])
    submit(subject, block("B-1", ["one.example"]))
    assert subject.query("one.example").answer[0].ttl == 600
    lifting = trial(check(subject, unblock("U-1", "B-1")))["document"]["lifting"]
    until, at = (datetime.fromisoformat(lifting[key]) for key in ("caches_until", "at"))
    assert until - at == timedelta(seconds=600)
    later = in_seconds(7200)
    lifting = trial(check(subject, unblock("U-1", "B-1", effective_at=stamp(later))))["document"]["lifting"]
    assert datetime.fromisoformat(lifting["caches_until"]) == later


def test_an_exemption_reports_what_it_does_not_open(started: Subject):
    """It is about its own issuer alone."""
    submit(started, block("B-1", ["one.example"]), block("C-1", ["one.example"], issuer=COURT))
    answer = submit(started, exempt("E-1", ["help.one.example"]))
    assert [one["text"] for one in answer["lifting"]["still_blocked"]] == [
        f"help.one.example by order C-1 of {COURT}, entry one.example (subtree)"
    ]
