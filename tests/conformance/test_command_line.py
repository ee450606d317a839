"""The command line: exit codes, what programs read with --json, what people read without."""

import itertools
import json
import os
import re
import subprocess
from datetime import datetime

import pytest

from . import wire
from .harness import ORDERS_ZONE, PROFILES, Subject, is_sinkholed
from .orders import block, unblock
from .tools import dnsblock, run
from .upstreams import StubUpstream

LIST_ZONE = {"name": "malware", "list": "malware.txt", "match": "exact", "answer": "nxdomain"}
OWN_ZONE = {"name": "own", "list": "own.txt", "match": "exact", "answer": "passthru"}
COURT_ZONE = ORDERS_ZONE | {"name": "court", "issuer": "court.example", "answer": "nodata"}


def start(subject: Subject, **more: object) -> None:
    subject.start(
        zones=[OWN_ZONE, ORDERS_ZONE, COURT_ZONE, LIST_ZONE],
        orders=[
            block("B-1", ["blocked.example", {"name": "deep.blocked.example", "answer": "nodata"}]),
            block("B-2", ["blocked.example"]),
            block("C-1", ["www.blocked.example", "lifted.example"], issuer="court.example"),
            unblock("C-2", "C-1", ["lifted.example"], issuer="court.example"),
        ],
        lists={"malware.txt": ["www.blocked.example", "listed.example"], "own.txt": ["own.blocked.example"]},
        **more,
    )


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    shared_subject.is_executed = True
    start(shared_subject, upstreams=[shared_upstream.address])
    return shared_subject


DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


# ------- What programs read -------------------------------------------------------------


def test_serve_says_once_when_it_is_ready(running: Subject, shared_upstream: StubUpstream):
    """One JSON line; a program that waits for it can ask at once."""
    ready = running.ready
    assert set(ready) == {
        "event",
        "pid",
        "listening",
        "metrics",
        "api",
        "console",
        "landing",
        "control",
        "serial",
        "digest",
        "entries",
        "upstreams",
        "workers",
    }
    assert ready["pid"] == running.process.pid
    assert [place.rsplit(":", 1)[0] for place in ready["listening"]] == ["127.0.0.1", "[::1]"]
    assert DIGEST.fullmatch(ready["digest"])
    assert (ready["workers"], ready["entries"]) == (2, 6)
    assert ready["upstreams"] == [shared_upstream.address]
    assert ready["serial"] >= 1
    assert ready["control"] == str(running.folder / "control.sock")


def test_the_first_steps_are_shown_once_each(subject: Subject):
    """Without orders, there is only one name to query."""
    subject.configure()
    command = [dnsblock(), "serve", "-c", str(subject.config_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        shown = list(itertools.takewhile(lambda line: " why " not in line, process.stdout))
        process.terminate()
    queries = [line for line in shown if line.startswith("  dig ")]
    assert len(queries) == 1, shown
    assert queries[0].endswith(" example.com\n")


def test_status_shows_what_is_in_force(running: Subject):
    """Serial, digest, zones and orders in one command: what the engineer on call reads first."""
    said = running.cli("status")
    status = said.json
    assert said.code == 0
    assert {key: status[key] for key in ("pid", "serial", "digest", "entries", "listening", "metrics")} == {
        key: running.ready[key] for key in ("pid", "serial", "digest", "entries", "listening", "metrics")
    }
    assert [(zone["name"], zone["kind"], zone["answer"], zone["entries"]) for zone in status["zones"]] == [
        ("own", "list", "passthru", 1),
        ("ministry", "orders", "sinkhole", 2),
        ("court", "orders", "nodata", 1),
        ("malware", "list", "nxdomain", 2),
    ]
    assert all(DIGEST.fullmatch(zone["digest"]) for zone in status["zones"])
    assert {(row["issuer"], row["order_id"]): (row["action"], row["state"]) for row in status["orders"]} == {
        ("ministry.example", "B-1"): ("block", "active"),
        ("ministry.example", "B-2"): ("block", "active"),
        ("court.example", "C-1"): ("block", "partially lifted"),
        ("court.example", "C-2"): ("unblock", "active"),
    }
    assert status["workers"] == 2
    assert status["upstreams"] == running.ready["upstreams"]
    assert status["last_publish"]["ok"] is True
    for moment in (status["started_at"], status["published_at"], status["last_publish"]["at"]):
        assert datetime.fromisoformat(moment).tzinfo is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", status["version"])


def test_check_shows_what_would_be_enforced(running: Subject):
    """A dry run prints the counts that `status` would print after a reload."""
    said = running.cli("check")
    assert (said.code, said.json["ok"], said.json["problems"]) == (0, True, [])
    there = {zone["name"]: (zone["entries"], zone["digest"]) for zone in running.status()["zones"]}
    assert {zone["name"]: (zone["entries"], zone["digest"]) for zone in said.json["zones"]} == there


def test_check_needs_no_daemon_and_leaves_nothing_behind(subject: Subject):
    """A dry run: the ledger is not written, so that what is checked can still be corrected."""
    subject.configure(orders=[block("B-1", ["blocked.example"])])
    before = sorted(path.name for path in subject.folder.rglob("*"))
    assert subject.cli("check").code == 0
    assert sorted(path.name for path in subject.folder.rglob("*")) == before
    subject.put_order(block("B-1", ["corrected.example"]), "000.yaml")
    assert subject.launch()["entries"] == 1


def test_reload_shows_the_snapshot_that_is_now_served(subject: Subject):
    """It returns when the snapshot is served, not before (four that peers fell into)."""
    subject.start()
    subject.put_order(block("B-1", ["blocked.example"]))
    result = subject.reload()
    assert is_sinkholed(subject.query("blocked.example"))
    about = {"serial", "digest", "entries", "changed", "changes", "restart_needed", "notes", "time_zone"}
    assert set(result) == about
    assert result["changes"]["zones"] == [{"zone": "ministry", "added": 1, "removed": 0}]
    assert [order["order_id"] for order in result["changes"]["orders"]] == ["B-1"]
    assert (result["changed"], result["entries"]) == (True, 1)
    assert result["serial"] == subject.ready["serial"] + 1
    assert subject.query("blocked.example", "TXT").soa.serial == result["serial"]
    nothing = {"zones": [], "orders": [], "options": []}
    assert subject.reload() == result | {"changed": False, "changes": nothing}


def test_reload_applies_zones_and_answers_and_names_options_that_need_a_restart(subject: Subject):
    """No restart for a new zone; an option that needs one must not be ignored silently."""
    subject.start(orders=[block("B-1", ["blocked.example"])])
    port = subject.ports[4]
    answers = {"sinkhole": PROFILES["sinkhole"] | {"ipv4": ["192.0.2.77"]}}
    subject.configure(
        answers=answers, zones=[ORDERS_ZONE, LIST_ZONE], lists={"malware.txt": ["listed.example"]}, workers=1
    )
    result = subject.reload()
    assert any("workers" in option for option in result["restart_needed"])
    assert subject.query("blocked.example").addresses == ["192.0.2.77"]
    assert subject.query("listed.example").is_nodata, "an exact entry of nxdomain (RFC 8020)"
    assert subject.ports[4] == port


# ------- why ---------------------------------------------------------------------------


def why(subject: Subject, name: str) -> tuple[int, dict]:
    said = subject.cli("why", name)
    return said.code, said.json


def test_why_shows_zone_order_entry_and_other_matches(running: Subject):
    """Zone, order, entry, and what else still covers the name."""
    code, answer = why(running, "www.blocked.example")
    assert (code, answer["verdict"], answer["serial"]) == (0, "blocked", running.ready["serial"])
    decided = answer["decided_by"]
    assert (decided["zone"], decided["entry"], decided["match"]) == ("ministry", "blocked.example", "subtree")
    assert (decided["action"], sorted(decided["orders"])) == ("sinkhole", ["B-1", "B-2"])
    covering = [(row["zone"], row["entry"], row["action"], row["decides"]) for row in answer["covering"]]
    assert covering == [
        ("ministry", "blocked.example", "sinkhole", True),
        ("court", "www.blocked.example", "nodata", False),
        ("malware", "www.blocked.example", "nxdomain", False),
    ]


def test_why_also_shows_a_shorter_entry_of_the_same_zone(running: Subject):
    """Unblocking the deeper entry leaves the parent's subtree blocked; `why` shows it beforehand."""
    code, answer = why(running, "a.deep.blocked.example")
    assert (code, answer["decided_by"]["entry"]) == (0, "deep.blocked.example")
    assert [(row["entry"], row["decides"]) for row in answer["covering"]] == [
        ("deep.blocked.example", True),
        ("blocked.example", False),
    ]


def test_why_distinguishes_a_passthru_from_an_unlisted_name(running: Subject):
    """Both names are open, but only one of them for a reason that somebody must know."""
    code, answer = why(running, "own.blocked.example")
    assert (code, answer["verdict"], answer["decided_by"]["zone"]) == (1, "passthru", "own")
    assert ("ministry", False) in [(row["zone"], row["decides"]) for row in answer["covering"]]
    code, answer = why(running, "free.example")
    assert (code, answer["verdict"], answer["decided_by"], answer["covering"]) == (1, "not blocked", None, [])


@pytest.mark.parametrize("name", ["BLOCKED.Example.", "blocked.example."])
def test_why_accepts_a_name_as_people_write_it(running: Subject, name: str):
    """Upper case, a final dot or a U-label in a complaint must not give another verdict."""
    assert why(running, name)[1]["name"] == "blocked.example"


def test_why_agrees_with_the_response(running: Subject):
    """One lookup for both: what the tool says is what the client gets."""
    for name in ("blocked.example", "x.deep.blocked.example", "www.blocked.example", "listed.example"):
        code, answer = why(running, name)
        reply = running.query(name)
        action = answer["decided_by"]["action"]
        assert code == 0
        assert (action == "sinkhole") is is_sinkholed(reply)
        assert reply.soa.owner == f"{answer['decided_by']['entry']}." if action != "sinkhole" else True


# ------- Usage and people --------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["status", "--no-such-option"], ["why"], ["why", "a.example", "b.example"]],
)
def test_wrong_usage_is_exit_code_2(running: Subject, arguments: list[str]):
    """Scripts distinguish a wrong command line from a daemon that refused something."""
    done = run([dnsblock(), *arguments])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_an_invalid_name_is_refused_with_its_reason(running: Subject):
    """A typing error gets one line with the reason, and no traceback."""
    said = running.cli("why", "two words", as_json=False)
    assert said.code in (2, 4)
    assert "space" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("arguments", [["status"], ["reload"], ["why", "a.example"]])
def test_an_unreachable_daemon_is_exit_code_3(subject: Subject, arguments: list[str]):
    """The message goes to stderr and says which socket was tried."""
    subject.configure()
    for as_json in (True, False):
        said = subject.cli(*arguments, as_json=as_json)
        assert said.code == 3
        assert "control.sock" in said.stderr + said.stdout
        assert "Traceback" not in said.stderr
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["status"], ["ministry", "B-1", "malware"]),
        (["check"], ["ministry", "malware"]),
        (["why", "www.blocked.example"], ["ministry", "B-1", "court"]),
        (["reload"], ["serial"]),
    ],
)
def test_results_are_on_stdout_and_nothing_on_stderr(
    running: Subject, arguments: list[str], shows: list[str]
):
    """Stdout for results, stderr for everything else."""
    said = running.cli(*arguments, as_json=False)
    assert (said.code, said.stderr) == (0, "")
    assert [word for word in shows if word not in said.stdout] == []


def test_times_are_shown_in_the_configured_zone(running: Subject):
    """Stored as UTC, shown in Jakarta's time by default: 11:30 on 14 July 2017."""
    assert "2017-07-14 11:30" in running.cli("status", as_json=False).stdout.replace("T", " ")


def test_the_environment_may_name_the_configuration(running: Subject):
    """`DNSBLOCK_CONFIG` saves `-c` on every command."""
    environment = os.environ | {"DNSBLOCK_CONFIG": str(running.config_path)}
    done = run([dnsblock(), "status", "--json"], env=environment)
    assert json.loads(done.stdout)["pid"] == running.process.pid


def test_help_lists_the_commands_and_version_prints_the_version(running: Subject):
    """`--help` and `--version` work without a configuration."""
    output = run([dnsblock(), "--help"]).stdout
    assert [word for word in ("serve", "check", "reload", "status", "why") if word not in output] == []
    assert running.status()["version"] in run([dnsblock(), "--version"]).stdout


def test_the_log_has_no_client_and_no_queried_name(subject: Subject, upstream: StubUpstream):
    """Nothing about a client is ever logged; and each line is JSON with time, level and event."""
    subject.start(
        orders=[block("B-1", ["blocked.example"])], upstreams=[upstream.address], log={"level": "debug"}
    )
    with subject.udp(source="127.55.66.77") as client:
        for content in (
            wire.query("secret.blocked.example"),
            wire.query("secret.free.example"),
            b"garbage of one",
        ):
            client.send(content)
        client.recv(4096)
        client.recv(4096)
    subject.reload()
    assert subject.stop() == 0
    lines = [json.loads(line) for line in subject.stderr().splitlines()]
    assert lines
    assert all({"time", "level", "event"} <= set(line) for line in lines)
    assert "127.55.66.77" not in subject.stderr()
    assert "secret" not in subject.stderr()
