"""Zones in shadow are counted and change no answer; `impact` counts what an order would touch."""

import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from . import wire
from .caching import cname
from .harness import ORDERS_ZONE, SINKHOLE4, Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, exempt, in_seconds, order, stamp, unblock
from .tools import dnsblock, wait_for
from .upstreams import Asked, StubUpstream

SHADOW = {"name": "planned", "list": "planned.txt", "answer": "nxdomain", "mode": "shadow"}
PASSED = {"name": "own", "list": "own.txt", "answer": "passthru"}
LATER = {"name": "later", "list": "later.txt", "answer": "nxdomain"}
FORWARDED4 = "198.51.100.7"  # what the stand-in gives
TYPES = ("A", "AAAA", "TXT", "HTTPS", "MX", "ANY")


def counted(subject: Subject, zone: str = "planned", **labels: str) -> float:
    return subject.metrics().total("dnsblock_shadow_blocked_total", zone=zone, **labels)


def start(
    subject: Subject,
    upstream: StubUpstream,
    names: list[str],
    *,
    before: tuple = (),
    after: tuple = (),
    **more,
) -> None:
    """A zone in shadow that lists these names, between zones that are enforced."""
    lists = {"planned.txt": names, **more.pop("lists", {})}
    zones = [*before, {**SHADOW, **more.pop("shadow", {})}, *after]
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address], **more)


# ------- No answer is another one


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_shadow_changes_no_answer_of_any_type(subject: Subject, upstream: StubUpstream, transport: str):
    """As `policy disabled` of BIND, `rpz-action-override: disabled` of Unbound: a try harms nobody."""
    start(subject, upstream, ["planned.example"])
    types = [qtype for qtype in TYPES if (qtype, transport) != ("ANY", "udp")]  # answered here, RFC 8482
    for qtype in types:
        for name in ("planned.example", "a.b.planned.example"):
            reply = subject.query(name, qtype, transport=transport)
            assert (reply.rcode, reply.extended_errors) == ("NOERROR", {})
    assert is_forwarded(subject.query("planned.example", transport=transport))
    assert len(upstream.queries) == 2 * len(types) + 1
    assert counted(subject, action="nxdomain") == 2 * len(types) + 1
    assert subject.metrics().total("dnsblock_blocked_total") == 0


@pytest.mark.parametrize("answer", ["sinkhole", "nodata", "refused", "drop", "truncate", "landing"])
def test_no_action_of_a_shadow_is_carried_out(subject: Subject, upstream: StubUpstream, answer: str):
    profiles = {
        "sinkhole": {"action": "sinkhole", "ipv4": [SINKHOLE4]},
        "landing": {"action": "cname", "target": "landing.example."},
    }
    start(subject, upstream, ["planned.example"], shadow={"answer": answer}, answers=profiles)
    assert is_forwarded(subject.query("planned.example"))
    assert counted(subject, action={"landing": "cname"}.get(answer, answer)) == 1
    assert is_forwarded(subject.query("planned.example", transport="tcp"))
    # RPZ's TCP-Only lets pass over TCP, so nothing would have been blocked there.
    assert counted(subject) == (1 if answer == "truncate" else 2)


def test_an_exception_in_a_shadow_shields_no_name_from_nxdomain(subject: Subject, upstream: StubUpstream):
    """RFC 8020: NXDOMAIN is said where all below is denied, and a zone in shadow lets nothing live."""
    zones = [{**PASSED, "mode": "shadow"}, LATER]
    lists = {"own.txt": ["cdn.blocked.example"], "later.txt": ["blocked.example"]}
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address])
    for name in ("blocked.example", "cdn.blocked.example"):
        assert subject.query(name).rcode == "NXDOMAIN"
    assert subject.metrics().total("dnsblock_shadow_blocked_total") == 0


def test_a_denial_in_a_shadow_leaves_the_zone_behind_it_what_it_says(
    subject: Subject, upstream: StubUpstream
):
    start(
        subject,
        upstream,
        ["blocked.example"],
        after=({**LATER, "answer": "nodata"},),
        lists={"later.txt": ["blocked.example"]},
    )
    assert subject.query("x.blocked.example").is_nodata
    assert counted(subject) == 1
    assert subject.metrics().total("dnsblock_blocked_total", zone="later", action="nodata") == 1


@pytest.mark.parametrize(
    ("qtype", "records"),
    [
        (
            "A",
            [cname(b"\xc0\x0c", "planned.example"), wire.address_record("planned.example", "198.51.100.7")],
        ),
        ("HTTPS", [wire.record(b"\xc0\x0c", "HTTPS", b"\0\1" + wire.name_to_wire("planned.example"))]),
    ],
    ids=["CNAME", "HTTPS"],
)
@pytest.mark.parametrize("targets", ["judge", "ignore"])
def test_what_leads_into_a_shadow_is_given_and_counted(
    subject: Subject, upstream: StubUpstream, qtype: str, records: list[bytes], targets: str
):
    """Once for each client, kept or not; what leads elsewhere is not."""

    def script(asked: Asked) -> bytes:
        return asked.response(records if asked.name == "alias.example" else [])

    upstream.script = script
    shadow = {"targets": targets}
    start(subject, upstream, ["planned.example"], shadow=shadow, cache={"size_mb": 1})
    for transport in ("udp", "udp", "tcp"):
        reply = subject.query("alias.example", qtype, transport=transport)
        assert (reply.rcode, len(reply.answer)) == ("NOERROR", len(records))
        subject.query("other.example", qtype, transport=transport)
    assert upstream.count("alias.example") == 1, "the others are given what is kept"
    assert counted(subject, action="nxdomain") == (3 if targets == "judge" else 0)
    subject.query("planned.example")
    assert counted(subject) == (4 if targets == "judge" else 1)


def test_what_its_own_name_counts_for_does_not_count_again(subject: Subject, upstream: StubUpstream):
    target = wire.name_to_wire("planned.example")
    upstream.script = lambda asked: asked.response([wire.record(asked.name, "CNAME", target)])
    start(subject, upstream, ["planned.example", "alias.example"])
    subject.query("alias.example")
    assert counted(subject) == 1


def test_an_address_that_a_shadow_lists_is_handed_on_and_counted(subject: Subject, upstream: StubUpstream):
    upstream.script = lambda asked: asked.address()
    zone = {"name": "planned", "addresses": "planned.txt", "answer": "nodata", "mode": "shadow"}
    lists = {"planned.txt": [FORWARDED4]}
    subject.start(zones=[zone], lists=lists, upstreams=[upstream.address], cache={"size_mb": 1})
    for _ in range(3):
        assert is_forwarded(subject.query("www.example"))
    assert counted(subject, action="nodata") == 3
    assert "shadow" in subject.cli("why", FORWARDED4, as_json=False).stdout
    explained = json.loads(subject.cli("why", FORWARDED4).stdout)
    assert (explained["verdict"], explained["covering"][0]["mode"]) == ("not covered", "shadow")


def test_cached_answers_stay_and_each_query_counts(subject: Subject, upstream: StubUpstream):
    start(subject, upstream, ["planned.example"], cache={"size_mb": 1})
    for _ in range(5):
        assert is_forwarded(subject.query("planned.example"))
    assert len(upstream.queries) == 1
    assert subject.metrics().total("dnsblock_queries_total", outcome="cached") == 4
    assert counted(subject) == 5


# ------- What is counted


def test_an_earlier_passthru_or_block_leaves_it_uncounted(subject: Subject, upstream: StubUpstream):
    """The first match wins; a passthru is a match."""
    names = ["passed.example", "blocked.example", "both.example"]
    lists = {"own.txt": ["passed.example"], "later.txt": ["blocked.example"]}
    start(subject, upstream, names, before=(PASSED, LATER), lists=lists)
    assert is_forwarded(subject.query("passed.example"))
    assert subject.query("blocked.example").rcode == "NXDOMAIN"
    assert counted(subject) == 0
    assert is_forwarded(subject.query("both.example"))
    assert counted(subject) == 1


def test_each_shadow_counts_as_if_it_alone_were_enforced(subject: Subject, upstream: StubUpstream):
    second = {**SHADOW, "name": "second", "list": "second.txt", "answer": "nodata"}
    lists = {"later.txt": ["planned.example"], "second.txt": ["planned.example"]}
    start(subject, upstream, ["planned.example"], after=(LATER, second), lists=lists)
    assert subject.query("planned.example").rcode == "NXDOMAIN"
    assert (counted(subject), counted(subject, "second")) == (1, 0)
    subject.configure(zones=[second, SHADOW], lists=lists, upstreams=[upstream.address])
    subject.reload()
    assert is_forwarded(subject.query("planned.example"))
    assert (counted(subject), counted(subject, "second")) == (2, 1)


def test_orders_in_shadow_count_their_blocks_and_no_hole(subject: Subject, upstream: StubUpstream):
    orders = [
        block("B-1", ["planned.example", {"name": "gone.example", "answer": "nxdomain"}]),
        exempt("E-1", ["open.planned.example"]),
    ]
    subject.start(zones=[{**ORDERS_ZONE, "mode": "shadow"}], orders=orders, upstreams=[upstream.address])
    for name in ("planned.example", "x.planned.example", "open.planned.example", "gone.example"):
        assert is_forwarded(subject.query(name))
    assert counted(subject, "ministry", action="sinkhole") == 2
    assert counted(subject, "ministry", action="nxdomain") == 1
    assert counted(subject, "ministry") == 3
    status = subject.status()
    assert {order["in_force"] for order in status["orders"]} == {0}
    for told in status["orders"]:
        assert told["notes"] == ["no zone enforces the orders of this issuer"]
    assert subject.reload()["notes"] == [
        "3 entries of ministry.example are in force by its orders, and no zone enforces them"
    ]


def test_what_is_not_decided_is_not_counted(subject: Subject, upstream: StubUpstream):
    """A refused client, an error and a query above its limit would not have been blocked either."""
    start(
        subject,
        upstream,
        ["planned.example"],
        limits={"queries_per_second": 1, "slip": 0, "exempt": []},
        access_control={"allow": ["127.0.0.1/32"]},
    )
    with subject.udp(source="127.0.0.2") as stranger:
        stranger.send(wire.query("planned.example"))
        assert wire.read(stranger.recv(4096)).rcode == "REFUSED"
    subject.exchange(wire.query("planned.example", qclass=3))
    with subject.udp() as sock:
        for _ in range(2000):
            sock.send(wire.query("planned.example"))
        wait_for(lambda: subject.metrics().total("dnsblock_queries_total") == 2002, "all are counted")
    metrics = subject.metrics()
    assert metrics.total("dnsblock_queries_total", outcome="limited") > 0
    assert counted(subject) == metrics.total("dnsblock_queries_total", outcome="forwarded")


def test_the_counter_is_there_from_the_start_and_stays(subject: Subject, upstream: StubUpstream):
    """A counter that appears with its first event hides that event from rate()."""
    start(subject, upstream, ["planned.example"], after=(LATER,), lists={"later.txt": ["blocked.example"]})

    def shown() -> set[str]:
        labels = (dict(pairs) for name, pairs in subject.metrics() if name == "dnsblock_shadow_blocked_total")
        return {pairs["zone"] for pairs in labels}

    assert shown() == {"planned"}
    subject.query("planned.example")
    subject.configure(zones=[{**SHADOW, "mode": "enforce"}], upstreams=[upstream.address])
    subject.reload()
    assert subject.query("planned.example").rcode == "NXDOMAIN"
    assert (shown(), counted(subject)) == ({"planned"}, 1)


# ------- Switching, and telling


def test_the_mode_is_switched_by_reload_and_no_query_is_lost(subject: Subject, upstream: StubUpstream):
    start(subject, upstream, ["planned.example"])
    asked = {"enforced": 0, "shadow": 0}
    finished, wrong = threading.Event(), []

    def ask() -> None:
        while not finished.is_set() and not wrong:
            reply = subject.query("planned.example")
            if reply.rcode == "NXDOMAIN":
                asked["enforced"] += 1
            elif is_forwarded(reply):
                asked["shadow"] += 1
            else:
                wrong.append(reply)

    asking = threading.Thread(target=ask)
    asking.start()
    serials = [subject.ready["serial"]]
    try:
        for mode in ("enforce", "shadow") * 5:
            zones = [{**SHADOW, "mode": mode}]
            subject.configure(zones=zones, upstreams=[upstream.address])
            serials.append(subject.reload()["serial"])
    finally:
        finished.set()
        asking.join()
    assert wrong == []
    assert serials == list(range(serials[0], serials[0] + 11)), "another mode is another content"
    assert min(asked.values()) > 0
    assert subject.metrics().total("dnsblock_blocked_total", zone="planned") == asked["enforced"]
    # What waits for its upstream when a switch comes was counted before, and is blocked then.
    assert asked["shadow"] <= counted(subject) <= asked["shadow"] + 5


def test_status_check_and_why_say_that_a_zone_is_in_shadow(subject: Subject, upstream: StubUpstream):
    start(
        subject,
        upstream,
        ["planned.example"],
        after=(LATER,),
        lists={"later.txt": ["x.planned.example"]},
    )
    status, checked = subject.status(), subject.cli("check").json
    for zones in (status["zones"], checked["zones"]):
        assert [(zone["name"], zone["mode"]) for zone in zones] == [
            ("planned", "shadow"),
            ("later", "enforce"),
        ]
    assert status["entries"] == 1, "only what is enforced"
    said = subject.cli("why", "x.planned.example")
    assert (said.code, said.json["verdict"], said.json["decided_by"]["zone"]) == (0, "blocked", "later")
    rows = [(row["zone"], row["mode"], row["decides"]) for row in said.json["covering"]]
    assert rows == [("planned", "shadow", False), ("later", "enforce", True)]
    said = subject.cli("why", "planned.example")
    assert (said.code, said.json["verdict"]) == (1, "not covered")
    assert [(row["entry"], row["mode"]) for row in said.json["covering"]] == [("planned.example", "shadow")]
    assert "shadow" in subject.cli("why", "planned.example", as_json=False).stdout
    assert "shadow" in subject.cli("status", as_json=False).stdout
    assert "shadow" in subject.cli("check", as_json=False).stdout


# ------- impact


@contextmanager
def impact(subject: Subject, file: Path, *options: str, seconds: int = 60) -> Iterator[subprocess.Popen]:
    """`dnsblock impact`, which counts when the block begins."""
    command = [dnsblock(), "impact", "-c", str(subject.config_path), "--json", "--seconds", str(seconds)]
    with subprocess.Popen(
        [*command, *options, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            wait_for(lambda: (subject.status()["trial"] or {}).get("names"), "a trial counts")
            yield running
        finally:
            running.kill()


def ended(running: subprocess.Popen) -> dict:
    """What it has counted until now: Ctrl-C ends it."""
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
    ],
)


def test_impact_of_an_order_counts_exactly_what_it_would_block(subject: Subject, upstream: StubUpstream):
    """By entry of the order: the entry is told, never the name that was asked."""
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
        "passed_over": {},
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


def test_impact_of_a_plain_file_has_a_match_and_a_top(subject: Subject, upstream: StubUpstream):
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


def test_impact_of_a_list_is_that_of_what_would_be_enforced(subject: Subject, upstream: StubUpstream):
    """What is left out of a zone's list blocks nothing there, and one odd line refuses no list."""
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


def test_impact_counts_where_answers_lead(subject: Subject, upstream: StubUpstream):
    """The entry that it leads to is told, kept answers count as well, and those from before the trial too."""
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
    """What is tried stands below all zones, and so below the passthru."""
    target = wire.name_to_wire("edge.planned.example")
    upstream.script = lambda asked: asked.response([wire.record(b"\xc0\x0c", "CNAME", target)])
    subject.start(zones=[PASSED], lists={"own.txt": ["alias.example"]}, upstreams=[upstream.address])
    with impact(subject, written(subject, "planned.example\n", "tried.txt")) as running:
        ask(subject, "alias.example", 2)
        ask(subject, "other.example", 1)
        report = ended(running)
    assert (report["queries"], report["blocked"]) == (3, 1)


def test_impact_shows_on_a_terminal_how_far_it_is(subject: Subject, upstream: StubUpstream):
    """On standard error, so that the result alone is on standard output; Ctrl-C tells what was counted."""
    subject.start(upstreams=[upstream.address])
    ours, theirs = pty.openpty()
    command = [dnsblock(), "impact", "-c", str(subject.config_path), str(written(subject, TRIED))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as running:
        os.close(theirs)
        wait_for(lambda: (subject.status()["trial"] or {}).get("names"), "a trial counts")
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


def test_impact_ends_by_itself_and_tells_people_too(subject: Subject, upstream: StubUpstream):
    subject.start(upstreams=[upstream.address])
    file = written(subject, TRIED, os.fsdecode(b"\xff.yaml"))  # a file's name may be anything
    said = subject.cli("impact", str(file), "--seconds", "1", as_json=False)
    assert (said.code, said.stderr) == (0, "")
    assert "would have blocked" in said.stdout
    assert subject.status()["trial"] is None


def test_a_trial_is_no_content(subject: Subject, upstream: StubUpstream):
    """It is in no serial, digest, ledger or metric, and `status` and `why` know no zone of it."""
    subject.start(orders=[block("B-1", ["blocked.example"])], upstreams=[upstream.address])
    ledger = (subject.folder / "state" / "ledger.jsonl").read_bytes()
    before = subject.status()
    with impact(subject, written(subject, TRIED)) as running:
        meanwhile = subject.status()
        assert meanwhile.pop("trial")["names"] == 6
        of_time = ("trial", "traffic", "ledger")
        assert [meanwhile.pop(key) for key in of_time[1:]]
        assert meanwhile == {key: value for key, value in before.items() if key not in of_time}
        assert subject.cli("why", "busy.example").json["covering"] == []
        assert "trial" in subject.cli("status", as_json=False).stdout
        assert 'zone="trial"' not in subject.metrics().text
        assert not subject.reload()["changed"]
        ended(running)
    assert subject.status()["serial"] == before["serial"]
    assert (subject.folder / "state" / "ledger.jsonl").read_bytes() == ledger


def test_a_publish_meanwhile_is_not_delayed_and_the_trial_goes_on(subject: Subject, upstream: StubUpstream):
    """An order comes first; from then on the trial counts what the new snapshot leaves to it."""
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


def test_no_publish_and_no_stop_waits_until_what_is_tried_is_read(subject: Subject, upstream: StubUpstream):
    """An order comes first: to read what is tried has no lock that it needs."""
    subject.start(upstreams=[upstream.address])
    names = "".join(f"n\u00e4me{number}.example\n" for number in range(400_000))  # other letters cost time
    command = [dnsblock(), "impact", "-c", str(subject.config_path), str(written(subject, names, "slow.txt"))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_for(lambda: subject.status()["trial"], "the list is read")
        subject.put_order(block("B-1", ["busy.example"]))
        assert subject.reload()["changed"]
        assert is_sinkholed(subject.query("busy.example"))
        assert subject.status()["trial"]["names"] == 0, "it is still read"
        assert subject.stop() == 0, "nor does a stop"


def test_the_clock_publishes_while_a_trial_runs(subject: Subject, upstream: StubUpstream):
    subject.start(upstreams=[upstream.address])
    with impact(subject, written(subject, block("T-1", ["timed.example"]))) as running:
        subject.put_order(block("B-1", ["timed.example"], expires_at=stamp(in_seconds(5))))
        subject.reload()
        assert is_sinkholed(subject.query("timed.example"))
        wait_for(lambda: is_forwarded(subject.query("timed.example")), "the block has ended")
        ask(subject, "timed.example", 2)
        report = ended(running)
    assert report["blocked"] == 3
    assert report["decided"] >= 1


def test_a_second_trial_at_the_same_time_is_refused(subject: Subject, upstream: StubUpstream):
    subject.start(upstreams=[upstream.address])
    large = written(subject, "".join(f"n{number}.example\n" for number in range(300_000)), "large.txt")
    with impact(subject, written(subject, TRIED)) as running:
        for file in (large, written(subject, TRIED, "other.yaml")):
            (line,) = subject.cli("impact", str(file)).refusal
            assert "another trial runs" in line
        ask(subject, "busy.example", 2)
        assert ended(running)["blocked"] == 2
    assert subject.cli("impact", str(large), "--seconds", "1").json["names"] == 300_000


def test_a_trial_ends_when_its_client_goes_away(subject: Subject, upstream: StubUpstream):
    subject.start(upstreams=[upstream.address])
    with impact(subject, written(subject, TRIED)) as running:
        running.kill()
        wait_for(lambda: subject.status()["trial"] is None, "the trial is taken away")
    with impact(subject, written(subject, TRIED)) as running:
        assert ended(running)["queries"] == 0


def test_a_stop_ends_a_trial_and_tells_what_was_counted(subject: Subject, upstream: StubUpstream):
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
        ("bad.yaml", as_yaml(block("T-1", ["fine.example", "not a name"])), ":8: 'not a name': "),
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


def test_what_is_too_large_or_no_file_is_refused(subject: Subject, upstream: StubUpstream):
    subject.start(upstreams=[upstream.address])
    large = subject.folder / "large.txt"
    with large.open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "larger than 67,108,864 octets" in subject.cli("impact", str(large)).refusal[0]
    assert "cannot be read" in subject.cli("impact", str(subject.folder / "none.txt")).refusal[0]
    (line,) = subject.cli("impact", str(written(subject, TRIED)), "--match", "exact").refusal
    assert "match belongs to a plain file" in line


def test_the_daemon_bounds_what_it_is_sent_itself(subject: Subject, upstream: StubUpstream):
    """Who may open the control socket need not be our own command."""
    subject.start(upstreams=[upstream.address])

    def octets() -> Iterator[bytes]:
        for _ in range(65):
            yield b"#" * (1 << 20)

    transport = httpx.HTTPTransport(uds=str(subject.folder / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://dnsblock", timeout=60) as client:
        answer = client.post("/v1/impact?file=x.txt&seconds=1&top=1", content=octets())
        assert answer.status_code == 409
        assert "larger than" in answer.json()["problems"][0]["reason"]
        for bounds in ("seconds=0&top=1", "seconds=3601&top=1", "seconds=1&top=1001", "seconds=1&top=-1"):
            answer = client.post(f"/v1/impact?file=x.txt&{bounds}", content=b"fine.example")
            assert answer.status_code == 422
        assert client.delete("/v1/impact").json() == {"ended": False}
        assert client.get("/v1/impact").json() == {"running": None}


def test_without_a_daemon_impact_says_so(subject: Subject):
    subject.configure()
    assert subject.cli("impact", str(written(subject, TRIED))).code == 3
