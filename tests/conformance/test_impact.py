"""`dnsblock impact` counts the queries that an order or a list would block, and changes no response."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from . import wire
from .clocks import HOUR, FakeClock
from .harness import Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, exempt, in_seconds, order, stamp, unblock
from .shadows import PASSED
from .tools import dnsblock, wait_for
from .upstreams import StubUpstream


@contextmanager
def impact(subject: Subject, file: Path, *options: str, seconds: int = 60) -> Iterator[subprocess.Popen]:
    """`dnsblock impact`, which counts when the block begins."""
    command = [dnsblock(), "impact", "-c", str(subject.config_path), "--json", "--seconds", str(seconds)]
    with subprocess.Popen(
        [*command, *options, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            wait_for(lambda: (subject.status()["impact_run"] or {}).get("names"), "an impact run counts")
            yield running
        finally:
            running.kill()


def ended(running: subprocess.Popen) -> dict:
    """The report after Ctrl-C."""
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert (running.returncode, stderr) == (0, ""), (stdout, stderr)
    return json.loads(stdout)


def written(subject: Subject, content: dict | str, name: str = "tried.yaml") -> Path:
    path = subject.folder / name
    path.write_text(as_yaml(content) if isinstance(content, dict) else content, encoding="utf-8")
    return path


def ask(subject: Subject, name: str, times: int, transport: str = "udp") -> None:
    for _ in range(times):
        subject.query(name, transport=transport)


ELSEWHERE = {"path": "n.txt", "sha256": "0" * 64, "lines": 1}
TRIED = block(
    "T-1",
    [
        "busy.example",
        {"name": "exact.example", "match": "exact"},
        {"name": "below.example", "match": "below"},
        {"name": "passed.example", "answer": "passthru"},
        "blocked.example",
        "quiet.example",
        "not a name",
    ],
)


def test_impact_of_an_order_counts_exactly_what_it_would_block(subject: Subject, upstream: StubUpstream):
    """The report names the entry of the order, never the queried name."""
    subject.start(orders=[block("B-1", ["blocked.example"])], upstreams=[upstream.address])
    with impact(subject, written(subject, TRIED)) as running:
        ask(subject, "busy.example", 3)
        ask(subject, "secret.a.busy.example", 4, "tcp")
        ask(subject, "exact.example", 2)
        ask(subject, "www.exact.example", 5)
        ask(subject, "below.example", 5)
        ask(subject, "www.below.example", 1)
        ask(subject, "passed.example", 2)
        ask(subject, "blocked.example", 6)
        ask(subject, "free.example", 12)
        report = ended(running)
    assert report.pop("elapsed") > 0
    assert report.pop("file").endswith("tried.yaml")
    assert report == {
        "passed_over": {"syntax": 1},  # one bad entry costs itself alone
        "seconds": 60,
        "names": 6,
        "queries": 40,
        "blocked": 10,
        "decided": 6,
        "share": 0.25,
        "blocking_names": 3,
        "decided_names": 1,
        "unasked_names": 2,
        "top": [
            {"name": "busy.example", "queries": 7},
            {"name": "exact.example", "queries": 2},
            {"name": "below.example", "queries": 1},
        ],
    }
    assert is_forwarded(subject.query("busy.example"))


def test_impact_of_a_plain_file_has_a_match_and_a_limit(subject: Subject, upstream: StubUpstream):
    """`--match` is that of the zone that would list the file; `--top` limits the table."""
    subject.start(upstreams=[upstream.address])
    lines = ["# tried", *(f"n{number}.example" for number in range(30)), "Bücher.example"]
    file = written(subject, "\n".join(lines) + "\n", "tried.txt")
    for match, expected in (("exact", 2), ("below", 3), (None, 5)):
        options = ["--top", "1", *(("--match", match) if match else ())]
        with impact(subject, file, *options) as running:
            ask(subject, "n7.example", 2)
            ask(subject, "x.n7.example", 3)
            ask(subject, "xn--bcher-kva.example", 1)
            report = ended(running)
        assert (report["names"], report["blocked"]) == (31, expected + (match != "below"))
        assert report["top"] == [{"name": "n7.example", "queries": expected}]


def test_impact_of_a_list_counts_only_entries_that_would_be_enforced(
    subject: Subject, upstream: StubUpstream
):
    """Skipped entries block nothing in a zone's list, and one invalid line rejects no list."""
    zone = {"name": "csv", "list": "names.csv", "answer": "sinkhole", "mode": "shadow"}
    zone["source"] = {"format": "csv", "column": 2}
    protected = ["bank.example"]
    lists = {"names.csv": ["1,other.example"]}
    subject.start(upstreams=[upstream.address], zones=[zone], protected=protected, lists=lists, inbox=None)
    names = [f"n{number}.example" for number in range(500)]
    odd = ["co.id", "192.0.2.1", "www.bank.example", "a..example"]
    passed_over = {"public_suffix": 1, "address": 1, "protected": 1, "empty_label": 1}
    for file, lines, options in (
        ("tried.txt", [*names, *odd], ()),
        ("tried.csv", [f"1,{name}" for name in [*names, *odd]], ("--zone", "csv")),
    ):
        with impact(subject, written(subject, "\n".join(lines), file), *options) as running:
            for asked in ("n5.example", "x.co.id", "www.bank.example"):
                subject.query(asked)
            report = ended(running)
        assert (report["names"], report["blocked"], report["passed_over"]) == (500, 1, passed_over)
    file = written(subject, "a.example\n", "x.txt")
    assert "no such list" in subject.cli("impact", str(file), "--zone", "x").refusal[0]


def test_impact_of_a_policy_zone_counts_what_its_records_would_block(
    subject: Subject, upstream: StubUpstream
):
    """`--zone` of an RPZ zone reads the file as such a zone, with wildcards and passthru."""
    zone = {"name": "rpz.example", "rpz": {"file": "policy.zone"}, "answer": "given", "mode": "shadow"}
    head = "$ORIGIN rpz.example.\n@ 60 SOA localhost. nobody.invalid. 1 60 60 60 60\n@ NS localhost.\n"
    lists = {"policy.zone": head + "other.example CNAME .\n"}
    subject.start(upstreams=[upstream.address], zones=[zone], lists=lists, inbox=None)
    tried = "nx.example CNAME .\n*.wild.example CNAME *.\npass.wild.example CNAME rpz-passthru.\n"
    file = written(subject, head + tried, "tried.zone")
    with impact(subject, file, "--zone", "rpz.example") as running:
        ask(subject, "nx.example", 2)
        ask(subject, "a.wild.example", 3)
        ask(subject, "pass.wild.example", 4)
        ask(subject, "below.nx.example", 5)
        report = ended(running)
    assert (report["queries"], report["blocked"]) == (14, 5)
    (line,) = subject.cli("impact", str(file), "--zone", "rpz.example", "--match", "exact").refusal
    assert "match belongs to a list" in line


def test_impact_counts_targets(subject: Subject, upstream: StubUpstream):
    """Cached responses count as well, also those from before the run; the report names the entry."""
    target = wire.name_to_wire("edge.planned.example")
    upstream.script = lambda asked: asked.response([wire.record(b"\xc0\x0c", "CNAME", target)])
    blocked = [block("B-1", ["blocked.example"])]
    subject.start(orders=blocked, upstreams=[upstream.address], cache={"size_mb": 1})
    for _ in range(2):
        subject.query("alias.example")
    with impact(subject, written(subject, "planned.example\n", "tried.txt")) as running:
        ask(subject, "alias.example", 3)
        ask(subject, "alias.example", 1, "tcp")
        ask(subject, "other.example", 2)
        ask(subject, "blocked.example", 1)
        report = ended(running)
    assert (report["queries"], report["blocked"]) == (7, 6)
    assert report["top"] == [{"name": "planned.example", "queries": 6}]


def test_impact_below_truncate_counts_queries_over_tcp(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 3.5: over UDP the zone above decides, over TCP the next one."""
    above = {"name": "own", "list": "own.txt", "answer": "truncate"}
    lists = {"own.txt": ["planned.example"]}
    subject.start(zones=[above], lists=lists, upstreams=[upstream.address])
    with impact(subject, written(subject, "planned.example\n", "tried.txt")) as running:
        ask(subject, "planned.example", 2)
        ask(subject, "planned.example", 3, "tcp")
        report = ended(running)
    assert (report["queries"], report["blocked"], report["decided"]) == (5, 3, 2)


def test_impact_counts_no_target_of_an_allowed_name(subject: Subject, upstream: StubUpstream):
    """The entries of the run come after all zones, and so after the passthru."""
    target = wire.name_to_wire("edge.planned.example")
    upstream.script = lambda asked: asked.response([wire.record(b"\xc0\x0c", "CNAME", target)])
    subject.start(zones=[PASSED], lists={"own.txt": ["alias.example"]}, upstreams=[upstream.address])
    with impact(subject, written(subject, "planned.example\n", "tried.txt")) as running:
        ask(subject, "alias.example", 2)
        ask(subject, "other.example", 1)
        report = ended(running)
    assert (report["queries"], report["blocked"]) == (3, 1)


def test_impact_shows_progress_on_a_terminal(subject: Subject, upstream: StubUpstream):
    """On standard error, so that standard output has only the result; Ctrl-C prints the counts."""
    subject.start(upstreams=[upstream.address])
    ours, theirs = pty.openpty()
    command = [dnsblock(), "impact", "-c", str(subject.config_path), str(written(subject, TRIED))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as running:
        os.close(theirs)
        wait_for(lambda: (subject.status()["impact_run"] or {}).get("names"), "an impact run counts")
        ask(subject, "busy.example", 3)
        shown = b""
        while b"3 of 3 queries" not in shown:
            shown += os.read(ours, 4096)
        running.send_signal(signal.SIGINT)
        while is_open(ours):
            pass
        stdout, _ = running.communicate(timeout=60)
    os.close(ours)
    assert running.returncode == 0
    assert "100.0000% of all 3 queries would have been blocked" in stdout


def is_open(terminal: int) -> bool:
    """Takes what is shown on it; false at its end, which Linux calls an error."""
    try:
        return os.read(terminal, 4096) != b""
    except OSError:
        return False


def test_impact_ends_after_its_time_and_prints_a_table(subject: Subject, upstream: StubUpstream):
    """Without --json the same counts are printed as a table after `--seconds`."""
    subject.start(upstreams=[upstream.address])
    file = written(subject, TRIED, os.fsdecode(b"\xff.yaml"))  # a file's name may be anything
    said = subject.cli("impact", str(file), "--seconds", "1", as_json=False)
    assert (said.code, said.stderr) == (0, "")
    assert "would have blocked" in said.stdout
    assert subject.status()["impact_run"] is None


def orders_recorded(subject: Subject) -> list[bytes]:
    """The records of the ledger, except that of a checkpoint, which has its own time."""
    records = (subject.folder / "state" / "ledger.jsonl").read_bytes().splitlines()
    return [record for record in records if json.loads(record)["kind"] != "checkpoint"]


def test_an_impact_run_changes_no_serial_digest_or_ledger(subject: Subject, upstream: StubUpstream):
    """It is in no serial, digest, ledger or metric, and `status` and `why` know no zone of it."""
    subject.start(orders=[block("B-1", ["blocked.example"])], upstreams=[upstream.address])
    ledger = orders_recorded(subject)
    before = subject.status()
    with impact(subject, written(subject, TRIED)) as running:
        meanwhile = subject.status()
        assert meanwhile.pop("impact_run")["names"] == 6
        of_time = ("impact_run", "traffic", "ledger")
        assert [meanwhile.pop(key) for key in of_time[1:]]
        assert meanwhile == {key: value for key, value in before.items() if key not in of_time}
        assert subject.cli("why", "busy.example").json["covering"] == []
        assert "impact run" in subject.cli("status", as_json=False).stdout
        assert 'zone="impact"' not in subject.metrics().text
        assert not subject.reload()["changed"]
        ended(running)
    assert subject.status()["serial"] == before["serial"]
    assert orders_recorded(subject) == ledger


def test_an_impact_run_delays_no_publish_and_continues(subject: Subject, upstream: StubUpstream):
    """An order comes first; from then on the impact run counts what the new snapshot leaves to it."""
    subject.start(upstreams=[upstream.address])
    with impact(subject, written(subject, TRIED)) as running:
        ask(subject, "busy.example", 3)
        subject.put_order(block("B-1", ["busy.example"]))
        assert subject.reload()["changed"]
        assert is_sinkholed(subject.query("busy.example"))
        ask(subject, "exact.example", 2)
        report = ended(running)
    assert (report["blocked"], report["decided"], report["queries"]) == (5, 1, 6)
    assert is_sinkholed(subject.query("busy.example"))


def test_no_publish_and_no_stop_waits_for_the_file_of_an_impact_run(subject: Subject, upstream: StubUpstream):
    """An order comes first: to read what is tried has no lock that it needs."""
    subject.start(upstreams=[upstream.address])
    names = "".join(f"n\u00e4me{number}.example\n" for number in range(400_000))  # other letters cost time
    command = [dnsblock(), "impact", "-c", str(subject.config_path), str(written(subject, names, "slow.txt"))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for(lambda: subject.status()["impact_run"], "the list is read")
        subject.put_order(block("B-1", ["busy.example"]))
        assert subject.reload()["changed"]
        assert is_sinkholed(subject.query("busy.example"))
        assert subject.status()["impact_run"]["names"] == 0, "it is still read"
        assert subject.stop() == 0, "nor does a stop"


def test_the_clock_publishes_during_an_impact_run(subject: Subject, upstream: StubUpstream, clock: FakeClock):
    """A measurement must not delay an order that takes effect meanwhile."""
    subject.start(upstreams=[upstream.address])
    with impact(subject, written(subject, block("T-1", ["timed.example"]))) as running:
        subject.put_order(block("B-1", ["timed.example"], expires_at=stamp(in_seconds(HOUR))))
        subject.reload()
        assert is_sinkholed(subject.query("timed.example"))
        clock.step_to(HOUR + 1)
        wait_for(lambda: is_forwarded(subject.query("timed.example")), "the block has ended")
        ask(subject, "timed.example", 2)
        report = ended(running)
    assert report["blocked"] == 3
    assert report["decided"] >= 1


def test_a_second_impact_run_at_the_same_time_is_refused(subject: Subject, upstream: StubUpstream):
    """Each run costs time for every query, so one at a time is allowed."""
    subject.start(upstreams=[upstream.address])
    large = written(subject, "".join(f"n{number}.example\n" for number in range(300_000)), "large.txt")
    with impact(subject, written(subject, TRIED)) as running:
        for file in (large, written(subject, TRIED, "other.yaml")):
            (line,) = subject.cli("impact", str(file)).refusal
            assert "another impact run is in progress" in line
        ask(subject, "busy.example", 2)
        assert ended(running)["blocked"] == 2
    assert subject.cli("impact", str(large), "--seconds", "1").json["names"] == 300_000


def test_an_impact_run_ends_when_its_client_disconnects(subject: Subject, upstream: StubUpstream):
    """An interrupted SSH session must leave nothing behind that counts on."""
    subject.start(upstreams=[upstream.address])
    with impact(subject, written(subject, TRIED)) as running:
        running.kill()
        wait_for(lambda: subject.status()["impact_run"] is None, "the impact run is removed")
    with impact(subject, written(subject, TRIED)) as running:
        assert ended(running)["queries"] == 0


def test_a_stop_ends_an_impact_run_which_prints_its_counts(subject: Subject, upstream: StubUpstream):
    """The counts until then are still reported."""
    subject.start(upstreams=[upstream.address])
    with impact(subject, written(subject, TRIED)) as running:
        ask(subject, "busy.example", 2)
        assert subject.stop() == 0
        stdout, _ = running.communicate(timeout=60)
    assert json.loads(stdout)["blocked"] == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.yaml", "broken: [", ":2: not valid YAML or JSON"),
        ("bad.yaml", as_yaml(block("T-1", ["not a name"])), ":7: 'not a name': "),
        ("bad.json", '{"schema": "dnsblock.order/2"}', ":1: 'dnsblock.order/2': schema: "),
        ("bad.yaml", as_yaml(exempt("E-1", ["fine.example"])), ":4: 'exempt': only an order that blocks"),
        ("bad.yaml", as_yaml(unblock("U-1", "B-1")), ":4: 'unblock': only an order that blocks"),
        ("bad.yaml", as_yaml(order("F-1", "block", entries_file=ELSEWHERE)), ":6: 'n.txt': its names are in"),
        ("bad.txt", "fine.example\n<html>\n", ":2: '<html>': "),
        ("bad.txt", "co.id\nid\n192.0.2.1\n", ": holds no name that a list may block"),
        ("bad.txt", "fine.example\n\x1b[31m.example\n", ":2: '\\u{1b}[31m.example': "),
        ("bad.txt", "fine.example\nb\u00fc cher.example\n", ":2: 'b\u00fc cher.example': "),
        ("bad.txt", "# nothing\n", ": holds no name"),
    ],
)
def test_a_hostile_document_is_refused_and_changes_nothing(
    subject: Subject, upstream: StubUpstream, name: str, content: str, said: str
):
    """With file, line and value, as an order or a list that is refused."""
    subject.start(upstreams=[upstream.address])
    file, before = written(subject, content, name), subject.status()
    assert any(line.startswith(f"{file}{said}") for line in subject.cli("impact", str(file)).refusal)
    after = subject.status()
    for status in (before, after):
        del status["traffic"], status["ledger"]  # these tell the time
    assert after == before
    assert is_forwarded(subject.query("fine.example"))


def test_a_file_that_is_too_large_or_no_regular_file_is_refused(subject: Subject, upstream: StubUpstream):
    """A wrong path must not fill the memory of the daemon or block on a pipe."""
    subject.start(upstreams=[upstream.address])
    large = subject.folder / "large.txt"
    with large.open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "larger than 67,108,864 bytes" in subject.cli("impact", str(large)).refusal[0]
    assert "cannot be read" in subject.cli("impact", str(subject.folder / "none.txt")).refusal[0]
    (line,) = subject.cli("impact", str(written(subject, TRIED)), "--match", "exact").refusal
    assert "match belongs to a list" in line


def test_the_daemon_limits_the_size_of_an_impact_request(subject: Subject, upstream: StubUpstream):
    """Other programs may use the control socket, too."""
    subject.start(upstreams=[upstream.address])

    def chunk() -> Iterator[bytes]:
        for _ in range(65):
            yield b"#" * (1 << 20)

    transport = httpx.HTTPTransport(uds=str(subject.folder / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://dnsblock", timeout=60) as client:
        answer = client.post("/v1/impact?file=x.txt&seconds=1&top=1", content=chunk())
        assert answer.status_code == 413
        assert "larger than" in answer.json()["problems"][0]["reason"]
        for bounds in ("seconds=0&top=1", "seconds=3601&top=1", "seconds=1&top=1001", "seconds=1&top=-1"):
            answer = client.post(f"/v1/impact?file=x.txt&{bounds}", content=b"fine.example")
            assert answer.status_code == 422
        assert client.delete("/v1/impact").json() == {"ended": False}
        assert client.get("/v1/impact").json() == {"running": None}


def test_impact_without_a_daemon_is_exit_code_3(subject: Subject):
    """Only a running daemon sees queries."""
    subject.configure()
    assert subject.cli("impact", str(written(subject, TRIED))).code == 3
