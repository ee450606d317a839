"""Broken orders and lists: refused with file, line and reason, while what was enforced stays enforced."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .bad_files import BAD_LISTS, BAD_ORDERS, KEPT, Bad, order_text
from .harness import ORDERS_ZONE, Subject, is_sinkholed
from .orders import block
from .tools import wait_for

LIST_ZONE = {"name": "malware", "list": "malware.txt", "match": "subtree", "answer": "sinkhole"}
UNSIGNED_ZONE = {"name": "court", "issuer": "court.example", "answer": "sinkhole"}
ZONES = [ORDERS_ZONE, UNSIGNED_ZONE, LIST_ZONE]
BAD = BAD_ORDERS + BAD_LISTS
each_bad = pytest.mark.parametrize(
    "bad", BAD, ids=lambda bad: ("list: " if bad.in_list else "order: ") + bad.what
)


@pytest.fixture(scope="module")
def started(shared_subject: Subject) -> Subject:
    shared_subject.start(
        orders=[block("B-1", [KEPT])], zones=ZONES, lists={"malware.txt": ["listed.example"]}
    )
    return shared_subject


@pytest.fixture
def running(started: Subject) -> Iterator[Subject]:
    """The shared daemon; whatever a test breaks is put right again."""
    yield started
    for path in started.orders_folder.glob("bad.*"):
        path.unlink()
    started.put_list("malware.txt", ["listed.example"])


def failures(subject: Subject) -> float:
    return subject.metrics().total("dnsblock_publish_failures_total")


@each_bad
def test_bad_input_at_reload_is_refused_and_what_was_enforced_stays(running: Subject, bad: Bad):
    """File, line and reason; exit code 4; the metric says so."""
    failed = failures(running)
    bad.put(running)
    said = running.cli("reload")
    assert (said.code, said.json["error"]) == (4, "refused")
    bad.assert_named_in(said.problems)
    assert is_sinkholed(running.query(KEPT))
    assert is_sinkholed(running.query("listed.example"))
    metrics = running.metrics()
    assert failures(running) == failed + 1
    assert metrics.total("dnsblock_snapshot_serial") == running.ready["serial"]
    assert metrics.total("dnsblock_snapshot_info", digest=running.ready["digest"]) == 1


def test_status_tells_of_the_refused_publish_until_one_succeeds(running: Subject):
    """The exit code says so, and what is enforced is what it was."""
    BAD_ORDERS[0].put(running)
    assert running.cli("reload").code == 4
    said = running.cli("status")
    assert (said.code, said.json["last_publish"]["ok"]) == (1, False)
    assert "bad.yaml" in said.json["last_publish"]["error"]
    assert {key: said.json[key] for key in ("serial", "digest", "entries")} == {
        key: running.ready[key] for key in ("serial", "digest", "entries")
    }
    (running.orders_folder / "bad.yaml").unlink()
    assert running.cli("reload").code == 0
    said = running.cli("status")
    assert (said.code, said.json["last_publish"]["ok"], said.json["last_publish"]["error"]) == (0, True, None)


def test_bad_input_at_a_hup_is_refused_too(running: Subject):
    """Nobody waits for an answer to a signal, so the log and the metric tell."""
    failed = failures(running)
    BAD_ORDERS[0].put(running)
    running.hup()
    wait_for(lambda: failures(running) == failed + 1, "the failure is counted")
    assert "bad.yaml" in running.stderr()
    assert is_sinkholed(running.query(KEPT))


def test_a_list_that_is_gone_is_refused_and_stays_enforced(running: Subject):
    """A list that is empty is one thing, a list that is missing another."""
    (running.folder / "malware.txt").unlink()
    said = running.cli("reload")
    assert said.code == 4
    assert [Path(problem["file"]).name for problem in said.problems] == ["malware.txt"]
    assert is_sinkholed(running.query("listed.example"))


def test_one_bad_order_holds_back_the_whole_publish(subject: Subject):
    """Nothing half-way; the good order beside the bad one waits, and then comes."""
    subject.start()
    subject.put_order(block("B-5", ["good.example"]))
    bad = subject.put_order("entries: [", "bad.yaml")
    assert subject.cli("reload").code == 4
    assert not is_sinkholed(subject.query("good.example"))
    bad.unlink()
    assert subject.cli("reload").code == 0
    assert is_sinkholed(subject.query("good.example"))


SAMPLED = ("an unknown key", "binary rubbish", "a label of 300 octets")
START_SAMPLES = [bad for bad in BAD if bad.what in SAMPLED]


@pytest.mark.parametrize("bad", START_SAMPLES, ids=lambda bad: f"{bad.file}: {bad.what}")
def test_bad_input_at_start_is_refused_with_the_same_message(subject: Subject, bad: Bad):
    """At start refuse to start; `check` says the same, problem by problem."""
    subject.configure(zones=ZONES, lists={"malware.txt": ["listed.example"]})
    bad.put(subject)
    said = subject.serve_refused()
    assert any(bad.file in line for line in said.refusal)
    bad.assert_named_in(said.problems)
    checked = subject.cli("check")
    assert (checked.code, checked.json["ok"], checked.problems) == (1, False, said.problems)


def test_a_message_shows_control_characters_escaped_and_is_not_endless(subject: Subject):
    """Trap 14: what a list says goes to a terminal; a value is cut at 80 characters."""
    subject.configure(
        zones=[LIST_ZONE], lists={"malware.txt": b"\x1b[2Jevil\x07.example\n" + b"y" * 5000 + b"\n"}
    )
    said = subject.serve_refused()
    assert [problem["line"] for problem in said.problems if problem["line"]] == [1, 2]
    assert not set(said.stderr) & {"\x1b", "\x07"}
    assert all(len(line) < len(str(subject.folder)) + 300 for line in said.refusal)
    assert all(len(problem["value"]) <= 80 for problem in said.problems)


def test_check_prints_every_problem_of_every_file(subject: Subject):
    """A mistake is seldom alone: all are told, not only the first."""
    bad_order = order_text("entires: [a.example]", "entries:", "- a..example", "- co.id", "- good.example")
    subject.configure(
        zones=ZONES, lists={"malware.txt": "listed.example\na..example\nb c.example\ngood.example\n"}
    )
    subject.put_order(bad_order, "bad.yaml")
    subject.put_order("- nothing\n", "worse.yaml")
    checked = subject.cli("check")
    assert checked.code == 1
    found = {(Path(problem["file"]).name, problem["line"]) for problem in checked.problems}
    assert {("malware.txt", 2), ("malware.txt", 3)} <= found
    assert {("bad.yaml", 6), ("bad.yaml", 8), ("bad.yaml", 9)} <= found
    assert "worse.yaml" in {file for file, _ in found}
    for_people = subject.cli("check", as_json=False)
    assert for_people.code == 1
    assert len([1 for file, line in found if f"{file}:{line}" in for_people.stdout + for_people.stderr]) >= 5
