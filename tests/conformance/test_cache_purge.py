"""`dnsblock cache purge` drops cached responses: of a name, a subtree or everything (trap 16)."""

import pytest

from . import wire
from .caching import (
    NAME,
    QUICK,
    again_and_again,
    gives,
    is_stale,
    number_of,
    numbered,
    start,
    timed,
)
from .clients import Said
from .harness import Subject
from .tools import wait_for
from .upstreams import StubUpstream, silent

WWW, DEEP, BESIDE, PARENT = f"www.{NAME}", f"a.b.c.{NAME}", f"not{NAME}", "example"
NAMES = (NAME, WWW, DEEP, BESIDE, PARENT)


def purge(subject: Subject, *arguments: str) -> int:
    """How many answers were dropped; the command must succeed."""
    said = subject.cli("cache purge", *arguments)
    assert (said.code, set(said.json)) == (0, {"purged"}), said
    return said.json["purged"]


def numbers(subject: Subject) -> dict[str, int]:
    return {name: number_of(subject.query(name)) for name in NAMES}


@pytest.fixture
def running(subject: Subject, upstream: StubUpstream) -> Subject:
    """A daemon with one cached response for each of NAMES."""
    upstream.script = numbered()
    start(subject, upstream)
    numbers(subject)
    return subject


@pytest.mark.parametrize(
    ("arguments", "purged"),
    [
        ([NAME], {NAME}),
        ([WWW], {WWW}),
        ([NAME, "--subtree"], {NAME, WWW, DEEP}),
        (["--subtree", f"b.c.{NAME}"], {DEEP}),
        (["example", "--subtree"], set(NAMES)),
        (["--all"], set(NAMES)),
        (["other.example"], set()),
        (["other.example", "--subtree"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_purged_name_is_queried_again_and_no_other(
    running: Subject, upstream: StubUpstream, arguments: list[str], purged: set[str]
):
    """Trap 9: by whole labels; the very next query has a fresh answer."""
    before = numbers(running)
    assert purge(running, *arguments) == len(purged)
    after = numbers(running)
    assert {name for name in NAMES if after[name] != before[name]} == purged
    assert len(upstream.queries) == len(NAMES) + len(purged)


def test_every_cached_type_of_a_name_is_purged(subject: Subject, upstream: StubUpstream):
    """Every type, and every combination of flags."""
    asks = [
        {"qtype": qtype, "flags": flags, "edns": edns}
        for qtype in ("A", "AAAA", "TXT", "TYPE65280")
        for flags in (wire.RD, 0, wire.RD | wire.CD)
        for edns in (False, wire.opt(do=True), wire.opt(flags=wire.DE))
    ]
    upstream.script = numbered()
    start(subject, upstream)
    for ask in asks:
        subject.query(NAME, **ask)
    assert purge(subject, NAME) == len(asks)
    asked = len(upstream.queries)
    for ask in asks:
        subject.query(NAME, **ask)
    assert len(upstream.queries) == 2 * asked


@pytest.mark.parametrize("written", [f"{NAME}.", NAME.upper(), "KEPT.Example."])
def test_purge_accepts_a_name_in_any_case_with_or_without_final_dot(running: Subject, written: str):
    """RFC 4343 section 3, and with or without the dot at the end."""
    assert purge(running, written) == 1


def test_purge_accepts_an_internationalized_name(subject: Subject, upstream: StubUpstream):
    """RFC 5891 section 4: cached as an A-label, and typed as people read it."""
    upstream.script = numbered()
    start(subject, upstream)
    assert number_of(subject.query("xn--bcher-kva.example")) == 1
    assert purge(subject, "bücher.example") == 1
    assert number_of(subject.query("xn--bcher-kva.example")) == 2


def test_purging_twice_finds_nothing_the_second_time(running: Subject):
    """The count of dropped responses shows that the first purge was complete."""
    assert purge(running, "--all") == len(NAMES)
    assert purge(running, "--all") == 0
    assert running.metrics().total("dnsblock_cache_entries") == 0


def test_purging_a_name_does_not_purge_its_aliases(subject: Subject, upstream: StubUpstream):
    """Trap 16: a cached response belongs to the queried name."""
    upstream.script = lambda asked: asked.response(
        [
            wire.record(b"\xc0\x0c", "CNAME", wire.name_to_wire("target.example")),
            wire.address_record("target.example", "198.51.100.7"),
        ]
    )
    start(subject, upstream)
    subject.query(NAME)
    assert purge(subject, "target.example") == 0
    subject.query(NAME)
    assert upstream.count(NAME) == 1


def test_a_purged_record_is_not_served_stale(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 6: what is wrong is taken out, and does not come back while the upstream is dead."""
    upstream.script = gives(ttl=1)
    start(subject, upstream, cache={"max_stale": 3600}, upstream=QUICK, workers=1)
    subject.query(NAME)
    upstream.script = silent
    for again in again_and_again(lambda: timed(subject, edns=True)):
        if is_stale(again.reply):
            break
    purge(subject, NAME)
    assert subject.query(NAME).rcode == "SERVFAIL"


def test_a_query_outstanding_during_a_purge_is_not_cached(subject: Subject, upstream: StubUpstream):
    """Trap 16: its response may be the wrong one: waiting clients get it, and no later client."""
    upstream.script = silent
    start(subject, upstream, upstream={"tries": 1}, workers=1)
    with subject.udp() as sock:
        sock.send(wire.query(NAME))
        asked = upstream.wait_for_query(NAME)
        purge(subject, NAME)
        asked.reply(asked.address("198.51.100.66"))
        assert wire.read(sock.recv(4096)).addresses == ["198.51.100.66"]
    upstream.script = gives("198.51.100.7")
    assert subject.query(NAME).addresses == ["198.51.100.7"]


def test_a_purge_blocks_and_unblocks_nothing(running: Subject):
    """Trap 11: the policy is asked before the cache, and its serial stays."""
    before = running.status()
    purge(running, "--all")
    after = running.status()
    assert (after["serial"], after["digest"]) == (before["serial"], before["digest"])


# ------- The command --------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[NAME], [NAME, "--subtree"], ["--all"]])
def test_purge_prints_the_number_of_dropped_responses(running: Subject, arguments: list[str]):
    """On standard output, and nothing on standard error."""
    purged = {1: "1", 2: "3"}[len(arguments)] if arguments[0] == NAME else str(len(NAMES))
    said = running.cli("cache purge", *arguments, as_json=False)
    assert (said.code, said.stderr) == (0, "")
    assert purged in said.stdout.split()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--subtree"],
        [NAME, "--all"],
        ["a.example", "b.example"],
        ["--no-such-option"],
        ["--all", "--subtree"],
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_wrong_usage_purges_nothing(running: Subject, arguments: list[str]):
    """Exit code 2, as for any command; a missing name does not mean everything."""
    said = running.cli("cache purge", *arguments, as_json=False)
    assert (said.code, said.stdout) == (2, "")
    assert said.stderr
    assert running.metrics().total("dnsblock_cache_entries") == len(NAMES)


@pytest.mark.parametrize(
    "name", ["two words.example", "a..example", f"{'x' * 64}.example", ".".join(["x" * 60] * 5)]
)
def test_an_invalid_name_is_refused(running: Subject, name: str):
    """Trap 14: with the message and the exit code of `why`."""
    refused = running.cli("cache purge", name, as_json=False)
    assert refused.code == running.cli("why", name, as_json=False).code
    assert refused.code in (2, 4)
    assert refused.stdout == ""
    assert "Traceback" not in refused.stderr
    assert refused.stderr
    assert running.metrics().total("dnsblock_cache_entries") == len(NAMES)


def test_purge_without_a_daemon_is_exit_code_3(subject: Subject):
    """Exit code 3, with the socket that was tried."""
    subject.configure()
    for as_json in (True, False):
        said: Said = subject.cli("cache purge", NAME, as_json=as_json)
        assert said.code == 3
        assert "control.sock" in said.stderr + said.stdout
        assert "Traceback" not in said.stderr


def test_a_daemon_without_a_cache_has_nothing_to_purge(subject: Subject):
    """`size_mb: 0` is no error."""
    subject.start()
    assert purge(subject, "--all") == purge(subject, NAME) == 0


def test_a_purge_delays_no_response(subject: Subject, upstream: StubUpstream):
    """Trap 16: many answers are dropped while others are given."""
    upstream.script = gives()
    start(subject, upstream, cache={"size_mb": 32})
    with subject.udp() as sock:
        for batch in range(50):
            for number in range(100):
                sock.send(wire.query(f"n{number}.b{batch}.many.example", qid=number))
            for _ in range(100):
                sock.recv(4096)
    entries = subject.metrics().total("dnsblock_cache_entries")
    assert entries == 5000
    assert purge(subject, "b7.many.example", "--subtree") == 100
    assert purge(subject, "many.example", "--subtree") == 4900
    wait_for(lambda: subject.metrics().total("dnsblock_cache_entries") == 0, "all of them are gone")
