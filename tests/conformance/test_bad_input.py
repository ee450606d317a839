"""Broken orders and lists: refused with file, line and reason, while what was enforced stays enforced."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bad_files import BAD_LISTS, BAD_ORDERS, UNCHANGED, Bad, order_text
from .harness import ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .lists import UNWATCHED
from .orders import block, unblock
from .tools import wait_for
from .upstreams import StubUpstream

LIST_ZONE = {
    "name": "malware",
    "list": "malware.txt",
    "match": "subtree",
    "answer": "sinkhole",
    "source": UNWATCHED,
}
UNSIGNED_ZONE = {"name": "court", "issuer": "court.example", "answer": "sinkhole"}
ZONES = [ORDERS_ZONE, UNSIGNED_ZONE, LIST_ZONE]
BAD = BAD_ORDERS + BAD_LISTS
each_bad = pytest.mark.parametrize(
    "bad", BAD, ids=lambda bad: ("list: " if bad.in_list else "order: ") + bad.what
)


@pytest.fixture(scope="module")
def started(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    shared_subject.start(
        orders=[block("B-1", [UNCHANGED])],
        zones=ZONES,
        lists={"malware.txt": ["listed.example"]},
        upstreams=[shared_upstream.address],
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
def test_invalid_input_at_a_reload_is_refused_and_the_previous_state_stays(running: Subject, bad: Bad):
    """File, line and reason are printed; exit code 4; a metric counts the failure."""
    failed = failures(running)
    bad.put(running)
    said = running.cli("reload")
    assert (said.code, said.json["error"]) == (4, "refused")
    bad.assert_named_in(said.problems)
    assert is_sinkholed(running.query(UNCHANGED))
    assert is_sinkholed(running.query("listed.example"))
    metrics = running.metrics()
    assert failures(running) == failed + 1
    assert metrics.total("dnsblock_snapshot_serial") == running.ready["serial"]
    assert metrics.total("dnsblock_snapshot_info", digest=running.ready["digest"]) == 1


def test_status_reports_a_failed_reload_until_one_succeeds(running: Subject):
    """`status` has exit code 1, and the previous state stays in force."""
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


def test_invalid_input_at_a_sighup_is_refused_too(running: Subject):
    """A signal has no reply, so the log and a metric report the error."""
    failed = failures(running)
    BAD_ORDERS[0].put(running)
    running.hup()
    wait_for(lambda: failures(running) == failed + 1, "the failure is counted")
    assert "bad.yaml" in running.stderr()
    assert is_sinkholed(running.query(UNCHANGED))


def test_a_missing_list_is_refused_and_stays_in_force(running: Subject):
    """A list that is empty is one thing, a list that is missing another."""
    (running.folder / "malware.txt").unlink()
    said = running.cli("reload")
    assert said.code == 4
    assert [Path(problem["file"]).name for problem in said.problems] == ["malware.txt"]
    assert is_sinkholed(running.query("listed.example"))


def test_an_invalid_order_delays_no_other_order_and_no_list(subject: Subject, upstream: StubUpstream):
    """An unblock order must not wait for somebody else's file. The publish is reported; exit code 4."""
    subject.start(
        orders=[block("B-1", [UNCHANGED])],
        zones=ZONES,
        lists={"malware.txt": ["listed.example"]},
        upstreams=[upstream.address],
    )
    subject.put_order("entries: [", "0-bad.yaml")
    subject.put_order(block("B-5", ["good.example"]))
    subject.put_order(unblock("U-1", "B-1"))
    subject.put_list("malware.txt", ["listed.example", "second.example"])
    said = subject.cli("reload", as_json=False)
    assert said.code == 4
    assert "now serving serial 2, 3 names enforced" in said.stdout
    assert "0-bad.yaml" in said.stderr
    assert is_forwarded(subject.query(UNCHANGED))
    assert is_sinkholed(subject.query("good.example"))
    assert is_sinkholed(subject.query("second.example"))
    assert [Path(one["file"]).name for one in subject.status()["refused_documents"]] == ["0-bad.yaml"]
    assert subject.metrics().total("dnsblock_orders_refused") == 1
    assert "0-bad.yaml" in subject.cli("status", as_json=False).stdout
    (subject.orders_folder / "0-bad.yaml").unlink()
    assert subject.cli("reload").code == 0
    assert subject.status()["refused_documents"] == []
    assert subject.metrics().total("dnsblock_orders_refused") == 0


def test_a_refused_order_has_an_alert_of_its_own(running: Subject):
    """DnsblockPublishFailed says that new orders do not apply, and they do."""
    BAD_ORDERS[0].put(running)
    assert running.cli("reload").code == 4
    metrics = running.metrics()
    assert metrics.total("dnsblock_publish_last_attempt_timestamp_seconds") <= metrics.total(
        "dnsblock_publish_last_success_timestamp_seconds"
    )
    assert metrics.total("dnsblock_orders_refused") == 1


def test_an_unreadable_inbox_affects_only_the_inbox(subject: Subject, upstream: StubUpstream):
    """Lists and configuration are published, and accepted orders stay in force, over a restart too."""
    subject.start(
        orders=[block("B-1", [UNCHANGED])],
        zones=ZONES,
        lists={"malware.txt": ["listed.example"]},
        upstreams=[upstream.address],
    )
    shutil.rmtree(subject.orders_folder)
    subject.put_list("malware.txt", ["listed.example", "second.example"])
    for _ in range(2):
        said = subject.cli("reload")
        assert said.code == 4
        assert [problem["file"] for problem in said.problems] == [str(subject.orders_folder)]
        assert is_sinkholed(subject.query(UNCHANGED))
        assert is_sinkholed(subject.query("second.example"))
        assert subject.metrics().total("dnsblock_orders_refused") == 1
        subject.restart()


def test_an_invalid_order_does_not_prevent_startup(subject: Subject):
    """The others are in force, and `status` says what is refused."""
    subject.configure(orders=[block("B-1", [UNCHANGED])])
    subject.put_order("entries: [", "bad.yaml")
    subject.launch()
    assert is_sinkholed(subject.query(UNCHANGED))
    said = subject.cli("status")
    assert (said.code, [Path(one["file"]).name for one in said.json["refused_documents"]]) == (
        1,
        ["bad.yaml"],
    )
    assert "bad.yaml" in subject.stderr()


def test_an_unblock_waits_for_its_refused_target_only(subject: Subject, upstream: StubUpstream):
    """Its target is unknown at first; the reload that accepts the target accepts the unblock."""
    subject.start(upstreams=[upstream.address])
    subject.put_order(unblock("U-1", "B-1"), "a-lift.yaml")
    subject.put_order(order_text("entries: [co.id]", order_id="B-1"), "b-block.yaml")
    said = subject.cli("reload")
    assert {Path(problem["file"]).name for problem in said.problems} == {"a-lift.yaml", "b-block.yaml"}
    subject.put_order(order_text("entries: [one.example]", order_id="B-1"), "b-block.yaml")
    assert subject.cli("reload").code == 0
    assert is_forwarded(subject.query("one.example"))
    states = {row["order_id"]: row["state"] for row in subject.status()["orders"]}
    assert states == {"B-1": "lifted", "U-1": "active"}


SAMPLED = ("an unknown key", "binary rubbish", "a label of 300 octets")
START_SAMPLES = [bad for bad in BAD_LISTS if bad.what in SAMPLED]


@pytest.mark.parametrize("bad", START_SAMPLES, ids=lambda bad: f"{bad.file}: {bad.what}")
def test_an_invalid_list_at_startup_is_refused_with_the_same_message(subject: Subject, bad: Bad):
    """A list that was never read keeps the daemon from starting; `check` says the same."""
    subject.configure(zones=ZONES, lists={"malware.txt": ["listed.example"]})
    bad.put(subject)
    said = subject.serve_refused()
    assert any(bad.file in line for line in said.refusal)
    bad.assert_named_in(said.problems)
    checked = subject.cli("check")
    assert (checked.code, checked.json["ok"], checked.problems) == (1, False, said.problems)


def test_a_message_is_short_and_escapes_control_characters(subject: Subject):
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
    """Mistakes seldom come alone: all are printed, not only the first."""
    bad_order = order_text(
        "entires: [a.example]", "entries:", "- a..example", "- b c.example", "- good.example"
    )
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
