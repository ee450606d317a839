"""Counts of queried names: what an order would have blocked on past days, without clients and rare names."""

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from .clients import Said
from .clocks import HOUR, FakeClock
from .faults import NO_SPACE, NOTHING, Faults
from .harness import Subject
from .orders import as_yaml, block
from .tools import wait_for
from .upstreams import StubUpstream

COUNTED = {"memory_mb": 16, "days": 31}
DAY = 24 * HOUR
LINE = re.compile(r"[1-9]\d+ [a-z0-9_.-]+")
HEAD = re.compile(r"dnsblock-query-counts 1 \d+ \d+ \d+")


def ask(subject: Subject, name: str, times: int, transport: str = "udp") -> None:
    for _ in range(times):
        subject.query(name, transport=transport)


def put(subject: Subject, content: dict | str, name: str = "tried.txt") -> Path:
    path = subject.folder / name
    path.write_text(as_yaml(content) if isinstance(content, dict) else content, encoding="utf-8")
    return path


def said(subject: Subject, file: Path, *options: str, days: int = 30) -> Said:
    return subject.cli("impact", str(file), "--days", str(days), *options)


def report(subject: Subject, *names: str, days: int = 30) -> dict:
    """Of a list with these names, each with all below."""
    answer = said(subject, put(subject, "".join(f"{name}\n" for name in names)), days=days)
    assert (answer.code, answer.stderr) == (0, "")
    return answer.json


def files(subject: Subject) -> list[Path]:
    return sorted((subject.folder / "state" / "query-counts").glob("*.gz"))


def text_of(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def everything_stored(subject: Subject) -> bytes:
    """All files of the state folder, those of counts as text."""
    found = [path for path in (subject.folder / "state").rglob("*") if path.is_file()]
    return b"".join(text_of(path).encode() if path.suffix == ".gz" else path.read_bytes() for path in found)


def start(subject: Subject, upstream: StubUpstream, **config: object) -> None:
    subject.start(upstreams=[upstream.address], **{"query_counts": COUNTED} | config)


def test_impact_of_past_days_counts_what_an_order_would_have_blocked(
    subject: Subject, upstream: StubUpstream
):
    """Matches, exceptions and enforced zones have the effect that they have on queries."""
    start(subject, upstream, orders=[block("B-1", ["blocked.example"])])
    for name in ("busy.example", "a.busy.example", "exact.example", "www.exact.example", "below.example"):
        ask(subject, name, 10)
    ask(subject, "www.below.example", 11)
    ask(subject, "passed.example", 12)
    ask(subject, "blocked.example", 13, "tcp")
    ask(subject, "other.example", 14)
    exact = {"name": "exact.example", "match": "exact"}
    below = {"name": "below.example", "match": "below"}
    passed = {"name": "passed.example", "answer": "passthru"}
    tried = block("T-1", ["busy.example", exact, below, passed, "blocked.example", "quiet.example"])
    found = said(subject, put(subject, tried, "tried.yaml"), "--top", "2").json
    assert (found["queries"], found["unlisted"], found["name_error"]) == (100, 0, 0)
    assert (found["blocked"], found["blocked_at_most"], found["share"]) == (41, 41, 0.41)
    assert (found["decided"], found["decided_names"]) == (13, 1)
    assert (found["names"], found["blocking_names"], found["unlisted_names"]) == (6, 3, 2)
    assert found["entries"] == [
        {"name": "busy.example", "match": "subtree", "queries": 20, "at_most": 20},
        {"name": "below.example", "match": "below", "queries": 11, "at_most": 11},
    ]
    assert found["top"][0] == {"name": "www.below.example", "queries": 11}
    assert found["by_day"][-1]["blocked"] == 41
    assert (found["days_counted"], found["hours"]) == (1, 720)


def test_impact_of_past_days_of_an_order_in_the_ledger_and_of_a_list_with_an_exception(
    subject: Subject, upstream: StubUpstream
):
    """`--order` and the formats of lists are as in an impact run."""
    notice = block("N-1", ["busy.example"]) | {"action": "notice"}
    start(subject, upstream, orders=[notice])
    ask(subject, "busy.example", 10)
    ask(subject, "fine.busy.example", 20)
    found = subject.cli("impact", "--order", "N-1", "--days", "1").json
    assert (found["blocked"], found["names"]) == (30, 1)
    exception = put(subject, "||busy.example^\n@@||fine.busy.example^\n")
    assert said(subject, exception).json["blocked"] == 10
    table = subject.cli("impact", str(exception), "--days", "2", as_json=False)
    assert "between 33.3333% and 33.3333% of all 30 queries would have been blocked" in table.stdout
    for line in table.stdout.splitlines():
        assert len(line) <= 160


def test_a_name_with_nine_queries_is_nowhere(subject: Subject, upstream: StubUpstream):
    """Not on the disk, in the log, in a metric or in a report; its queries are in the totals only."""
    start(subject, upstream)
    ask(subject, "rare.example", 9)
    ask(subject, "known.example", 10)
    found = report(subject, "rare.example", "known.example")
    assert (found["queries"], found["unlisted"], found["blocked"]) == (19, 9, 10)
    assert (found["blocked_at_most"], found["name_error"]) == (19, 9)
    assert [row["name"] for row in found["entries"]] == ["known.example"]
    subject.configure(upstreams=[upstream.address], query_counts=COUNTED | {"memory_mb": 17})
    subject.reload()
    (written,) = wait_for(lambda: files(subject), "the counts are written")
    assert text_of(written).splitlines()[1:] == ["10 known.example"]
    seen = [subject.metrics().text, json.dumps(subject.status())]
    assert subject.stop() == 0
    stored = everything_stored(subject)
    assert b"known.example" in stored
    for place in (stored, subject.stderr().encode(), *(text.encode() for text in seen)):
        assert b"rare" not in place


def test_reports_do_not_depend_on_a_rare_name(subject: Subject, upstream: StubUpstream):
    """Differencing: with or without it in the list, all figures about names are the same."""
    start(subject, upstream)
    ask(subject, "rare.example", 9)
    ask(subject, "known.example", 30)
    one, other = (
        report(subject, "known.example", "rare.example"),
        report(subject, "known.example", "never.example"),
    )
    assert one == other


def test_files_of_counts_have_no_client_and_no_time(subject: Subject, upstream: StubUpstream):
    """The whole content is known: a head with four numbers, then counts and names."""
    start(subject, upstream)
    ask(subject, "known.example", 10)
    subject.query("known.example", family=6)
    assert subject.stop() == 0
    (path,) = files(subject)
    assert path.name == f"{datetime.now(UTC).date()}.counts.gz"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    head, *lines = text_of(path).splitlines()
    assert HEAD.fullmatch(head)
    assert lines == ["11 known.example"]
    assert path.read_bytes()[4:8] == bytes(4), "the time in the head of gzip"
    assert all(LINE.fullmatch(line) for line in lines)
    assert b"127.0.0.1" not in everything_stored(subject)


def test_counts_continue_after_a_restart(subject: Subject, upstream: StubUpstream):
    """Counts of both processes are added; a name needs ten queries in one of them."""
    start(subject, upstream)
    ask(subject, "known.example", 12)
    ask(subject, "split.example", 9)
    subject.restart()
    ask(subject, "known.example", 10)
    ask(subject, "split.example", 9)
    found = report(subject, "known.example", "split.example")
    assert (found["queries"], found["blocked"], found["unlisted"]) == (40, 22, 18)
    assert found["name_error"] == 18
    assert subject.stop() == 0
    assert text_of(files(subject)[0]).splitlines()[1:] == ["22 known.example"]


def test_corrupt_counts_are_set_aside_and_others_are_used(subject: Subject, upstream: StubUpstream):
    """After a crash of the disk the daemon starts, answers and counts."""
    start(subject, upstream)
    ask(subject, "known.example", 10)
    assert subject.stop() == 0
    (path,) = files(subject)
    whole = path.read_bytes()
    yesterday = path.with_name(f"{datetime.now(UTC).date() - timedelta(days=1)}.counts.gz")
    before = path.with_name(f"{datetime.now(UTC).date() - timedelta(days=2)}.counts.gz")
    before.write_bytes(whole)
    yesterday.write_bytes(whole[: len(whole) // 2])
    path.write_bytes(gzip.compress(b"dnsblock-query-counts 1 100 0 1\n9 rare.example\n"))
    subject.launch()
    ask(subject, "known.example", 11)
    found = report(subject, "known.example")
    assert (found["blocked"], found["days_counted"]) == (21, 2)
    for corrupt in (path, yesterday):
        assert corrupt.with_name(f"{corrupt.name}.corrupt").exists()
    assert subject.stderr().count("are corrupt and set aside") == 2


def test_a_full_disk_loses_no_counts_and_no_query(subject: Subject, upstream: StubUpstream):
    """They stay in memory, are in reports, and are written when there is space."""
    faults = Faults(subject)
    start(subject, upstream)
    ask(subject, "known.example", 10)
    faults.set(NO_SPACE, at=1)
    subject.configure(upstreams=[upstream.address], query_counts=COUNTED | {"memory_mb": 17})
    subject.cli("reload")
    assert report(subject, "known.example")["blocked"] == 10
    assert "were not written, and stay in memory" in subject.stderr()
    ask(subject, "known.example", 10)
    assert report(subject, "known.example")["blocked"] == 20
    assert subject.metrics().total("dnsblock_query_counts_failing") == 1
    faults.set(NOTHING)
    assert subject.stop() == 0
    assert text_of(files(subject)[0]).splitlines()[1:] == ["20 known.example"]


def test_each_day_has_its_counts_when_the_clock_steps(subject: Subject, upstream: StubUpstream):
    """A day ends while the daemon runs, and a clock that is set back continues the day before."""
    clock = FakeClock(subject)
    start(subject, upstream)
    ask(subject, "known.example", 10)
    clock.step_to(DAY)
    (first,) = wait_for(lambda: files(subject), "the day has ended")
    ask(subject, "known.example", 12)
    found = report(subject, "known.example", days=2)
    assert [day["blocked"] for day in found["by_day"]] == [10, 12]
    assert report(subject, "known.example", days=1)["blocked"] == 12
    clock.step_to(0)
    wait_for(lambda: len(files(subject)) == 2, "the second day has ended")
    ask(subject, "known.example", 15)
    found = report(subject, "known.example", days=2)
    assert [(day["day"], day["blocked"]) for day in found["by_day"]] == [(first.name[:10], 25)]
    clock.step_to(-400 * DAY)
    wait_for(lambda: "25 known.example" in text_of(first), "the day has ended again")
    assert len(files(subject)) == 2, "a clock that is wrong for a moment removes nothing"


def test_the_option_is_off_by_default_and_a_reload_changes_it(subject: Subject, upstream: StubUpstream):
    """Off: nothing is counted, and what was counted is removed."""
    config = {"upstreams": [upstream.address]}
    subject.start(**config)
    ask(subject, "known.example", 10)
    file = put(subject, "known.example\n")
    (line,) = said(subject, file).refusal
    assert line == (
        "query_counts: 'null': queried names are not counted: set query_counts and reload, or use --seconds"
    )
    assert not (subject.folder / "state" / "query-counts").exists()
    assert "dnsblock_query_counts" not in subject.metrics().text
    subject.configure(**config, query_counts=COUNTED)
    subject.reload()
    assert said(subject, file).code == 0
    ask(subject, "known.example", 11)
    subject.configure(**config, query_counts=COUNTED | {"days": 2, "memory_mb": 20})
    subject.reload()
    assert report(subject, "known.example", days=2)["blocked"] == 11
    ask(subject, "known.example", 10)
    assert report(subject, "known.example", days=2)["blocked"] == 21
    assert "only 2 days are kept (query_counts.days)" in said(subject, file).refusal[0]
    subject.configure(**config)
    subject.reload()
    wait_for(lambda: not files(subject), "the counts are removed")
    assert said(subject, file).code == 4
    assert subject.stop() == 0
    assert not (subject.folder / "state" / "query-counts").exists()


def test_impact_takes_either_seconds_or_days(subject: Subject):
    """The two measure different things."""
    subject.configure()
    answer = subject.cli("impact", str(put(subject, "a.example\n")), "--days", "3", "--seconds", "5")
    assert (answer.code, answer.stderr.strip()) == (2, "give either --seconds or --days")
    assert said(subject, put(subject, "a.example\n"), days=3).code == 3
    assert said(subject, put(subject, "a.example\n"), days=367).code == 2
