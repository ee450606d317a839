"""Responses of a primary that are wrong, endless, truncated or hostile: the previous copy stays in force."""

import itertools
import struct
from collections.abc import Iterator

import pytest

from . import wire
from .asking import is_forwarded
from .harness import Subject
from .lists import log, refresh, source
from .primaries import ZONE
from .scripted_primary import (
    Asked,
    Close,
    Difference,
    Raw,
    Rule,
    ScriptedPrimary,
    Sent,
    axfr,
    for_ever,
    ixfr,
    refuses,
    says_nothing,
    sends,
    soa,
    then_closes,
)
from .transfers import (
    LAX,
    assert_fails,
    assert_refreshes,
    block_range,
    blocked,
    blocks,
    notify,
    send_notify,
    serial_in_force,
    start,
    zone_from,
)
from .upstreams import StubUpstream

BASE = block_range(30)
LIMIT = 1000  # records
OLD = 1_000  # the serial of the first copy


@pytest.fixture(scope="module")
def primary() -> Iterator[ScriptedPrimary]:
    """The primary of the shared daemon."""
    with ScriptedPrimary(BASE, serial=OLD) as server:
        yield server


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream, primary: ScriptedPrimary) -> Subject:
    """A daemon with a copy of the zone, which each test tries to corrupt."""
    start(
        shared_subject, shared_upstream, zone_from(primary.address, source=LAX, max_records=LIMIT, max_mb=1)
    )
    return shared_subject


_numbers = itertools.count()


def assert_changes_nothing(
    subject: Subject, primary: ScriptedPrimary, rules: dict[str, Rule], code: str
) -> None:
    """With these rules a refresh fails, and all names are as before; without them, the change comes."""
    new, old = f"new{next(_numbers)}.example", [one.split()[0] for one in primary.records]
    serial = serial_in_force(subject)
    primary.publish([*primary.records[1:], *blocks(new)])
    primary.rules = rules
    try:
        assert_fails(subject, code)
        assert all(blocked(subject, *old))
        assert serial_in_force(subject) == serial
        for name in (new, "free.example", "wrong.example"):
            assert is_forwarded(subject.query(name)), name
    finally:
        primary.rules = {}
    assert_refreshes(subject)
    assert blocked(subject, new, *old) == [True, False, *[True] * (len(old) - 1)]
    assert serial_in_force(subject) == primary.serial


# ------- SOA ------------------------------------------------------------------------------


def pointer_loop(asked: Asked) -> bytes:
    """An SOA record whose owner is a pointer to itself."""
    question = wire.question(asked.zone, asked.qtype)
    at = 12 + len(question)
    owner = struct.pack("!H", 0xC000 | at)
    data = wire.name_to_wire("a.example") * 2 + struct.pack("!5I", 9_999_999, 1, 1, 1, 1)
    answers = [owner + struct.pack("!HHIH", 6, 1, 300, len(data)) + data]
    return wire.message(asked.message.id, wire.QR | wire.AA, [question], answers=answers)


BAD_SOA: dict[str, tuple[Rule, str]] = {
    "REFUSED": (refuses(5), "RCODE"),
    "SERVFAIL": (refuses(2), "RCODE"),
    "NOTAUTH": (refuses(9), "RCODE"),
    "no record": (lambda asked: [asked.response()], "PROTOCOL"),
    "another record": (sends(["@ NS localhost."]), "PROTOCOL"),
    "the SOA of another zone": (sends(["other.example. SOA a.example. b.example. 9 1 1 1 1"]), "PROTOCOL"),
    "another zone in the question": (sends([soa(OLD * 9)], question="other.example"), "PROTOCOL"),
    "class CH": (sends([soa(OLD * 9)], rdclass="CH"), "PROTOCOL"),
    "another ID": (lambda asked: [asked.response([soa(OLD * 9)], qid=asked.message.id ^ 1)], "PROTOCOL"),
    "a query": (sends([soa(OLD * 9)], flags=0), "PROTOCOL"),
    "its own query": (lambda asked: [asked.raw], "PROTOCOL"),
    "a few bytes": (lambda _: [b"\0\1\2"], "PROTOCOL"),
    "an empty message": (lambda _: [b""], "PROTOCOL"),
    "a truncated record": (lambda asked: [asked.response([soa(OLD * 9)]).to_wire()[:-9]], "PROTOCOL"),
    "a pointer loop": (lambda asked: [pointer_loop(asked)], "PROTOCOL"),
    # Its first bytes are the length of a message that is longer than all of it.
    "a web page": (lambda _: [Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Close()], "TRUNCATED"),
    "the end of the connection": (lambda _: [Close()], "TRUNCATED"),
    "half a message": (lambda _: [Raw(b"\0\x80\0\0"), Close()], "TRUNCATED"),
    "an older serial": (sends([soa(OLD - 1)]), "SERIAL"),
    "a serial that is half a circle away": (sends([soa(OLD + (1 << 31) + 100_000)]), "SERIAL"),
}


@pytest.mark.parametrize(("rule", "code"), BAD_SOA.values(), ids=BAD_SOA)
def test_a_wrong_answer_to_the_soa_query_changes_nothing(
    running: Subject, primary: ScriptedPrimary, rule: Rule, code: str
):
    """RFC 1982: the answer must be of this zone, newer than the copy, and well-formed."""
    before = primary.count("AXFR") + primary.count("IXFR")
    new = f"new{next(_numbers)}.example"
    old = [one.split()[0] for one in primary.records]
    primary.rules = {"SOA": rule}
    try:
        assert_fails(running, code)
    finally:
        primary.rules = {}
    assert primary.count("AXFR") + primary.count("IXFR") == before, "nothing is transferred"
    assert all(blocked(running, *old))
    assert is_forwarded(running.query("free.example"))
    primary.publish([*primary.records, *blocks(new)])
    assert_refreshes(running)
    assert blocked(running, new) == [True]


# ------- AXFR and IXFR --------------------------------------------------------------------

NEWER = OLD + 10_000
GOOD = axfr(NEWER, blocks("wrong.example"))


def second_message(**more: object) -> Rule:
    """A transfer of two messages; `more` is for the second."""
    return lambda asked: [asked.response(GOOD[:2]), asked.response(GOOD[2:], question=None, **more)]


def with_another_id(asked: Asked) -> list[Sent]:
    """A transfer of two messages, of which the second belongs to another query."""
    return [asked.response(GOOD[:2]), asked.response(GOOD[2:], question=None, qid=asked.message.id ^ 1)]


def with_lengths_that_lie(asked: Asked) -> Iterator[Sent]:
    """The header announces more records than there are."""
    data = bytearray(asked.response(GOOD).to_wire())
    data[6:8] = (5000).to_bytes(2)
    yield bytes(data)


BAD_TRANSFER: dict[str, tuple[Rule, str]] = {
    "REFUSED": (refuses(5), "RCODE"),
    "REFUSED in the second message": (second_message(rcode=5), "RCODE"),
    "another ID": (lambda asked: [asked.response(GOOD, qid=asked.message.id ^ 1)], "PROTOCOL"),
    "another ID in the second message": (with_another_id, "PROTOCOL"),
    "another zone in the question": (sends(GOOD, question="other.example"), "PROTOCOL"),
    "class CH": (sends(GOOD, rdclass="CH"), "PROTOCOL"),
    "class CH in the second message": (second_message(rdclass="CH"), "PROTOCOL"),
    "queries": (sends(GOOD, flags=0), "PROTOCOL"),
    "its own query": (lambda asked: [asked.raw], "PROTOCOL"),
    "no record": (lambda asked: [asked.response()], "PROTOCOL"),
    "no SOA at first": (sends(GOOD[1:]), "PROTOCOL"),
    "another serial at the end": (sends([*GOOD[:-1], soa(NEWER + 1)]), "PROTOCOL"),
    "a few bytes": (lambda _: [b"\0\1\2"], "PROTOCOL"),
    "an empty message": (lambda _: [b""], "PROTOCOL"),
    "zeros": (lambda asked: [asked.message.id.to_bytes(2) + b"\x84\0" + b"\0" * 60], "PROTOCOL"),
    "a truncated record": (lambda asked: [asked.response(GOOD).to_wire()[:-9]], "PROTOCOL"),
    "lengths that lie": (with_lengths_that_lie, "PROTOCOL"),
    "a pointer loop": (lambda asked: [pointer_loop(asked)], "PROTOCOL"),
    "the records of another zone": (
        sends([*GOOD[:-1], "wrong.other.example. CNAME .", GOOD[-1]]),
        "OUT_OF_ZONE",
    ),
    "a name that only ends alike": (
        sends([*GOOD[:-1], f"wrong.x{ZONE}. CNAME .", GOOD[-1]]),
        "OUT_OF_ZONE",
    ),
    "the root": (sends([*GOOD[:-1], ". CNAME .", GOOD[-1]]), "OUT_OF_ZONE"),
    "the end of the connection": (lambda _: [Close()], "TRUNCATED"),
    "no SOA at the end": (then_closes(sends(GOOD[:-1])), "TRUNCATED"),
    "the first record alone": (then_closes(sends(GOOD[:1])), "TRUNCATED"),
    "half a message": (
        lambda asked: [asked.response(GOOD[:2]), Raw(b"\x10\0" + b"\0" * 90), Close()],
        "TRUNCATED",
    ),
    "an older serial": (sends(axfr(OLD - 1, blocks("wrong.example"))), "SERIAL"),
    "too many records": (sends(axfr(NEWER, block_range(LIMIT + 1)), 200), "TOO_LARGE"),
    "records without an end": (for_ever(GOOD[:2], blocks("wrong.example")), "TOO_LARGE"),
    "bytes without an end": (for_ever(GOOD[:2], ["big.example TXT " + '"' + "x" * 250 + '"']), "TOO_LARGE"),
    "messages without records": (for_ever(GOOD[:2], []), "TOO_LARGE"),
}


@pytest.mark.parametrize(("rule", "code"), BAD_TRANSFER.values(), ids=BAD_TRANSFER)
def test_a_wrong_transfer_changes_nothing(running: Subject, primary: ScriptedPrimary, rule: Rule, code: str):
    """RFC 5936 section 3, CVE-2026-50248: nothing of it is enforced, and the next good one is."""
    assert_changes_nothing(running, primary, {"IXFR": rule, "AXFR": rule}, code)


WRONG = tuple(blocks("wrong.example"))
# Of these, 0 is the serial of the copy and 10 that of the primary.
WRONG_DIFFERENCES: dict[str, list[Difference]] = {
    "from another serial": [Difference(-1, 10, (), WRONG)],
    "a gap": [Difference(0, 1, (), WRONG), Difference(5, 10)],
    "backwards": [Difference(0, 12, (), WRONG), Difference(12, 10)],
    "no step": [Difference(0, 0, (), WRONG)],
    "not up to the end": [Difference(0, 9, (), WRONG)],
    "an unknown record to delete": [Difference(0, 10, tuple(blocks("unknown.example")), WRONG)],
    "a record of another zone": [Difference(0, 10, (), (*WRONG, "wrong.other.example. CNAME ."))],
}


@pytest.mark.parametrize("differences", WRONG_DIFFERENCES.values(), ids=WRONG_DIFFERENCES)
def test_a_wrong_difference_is_never_applied(
    running: Subject, primary: ScriptedPrimary, differences: list[Difference]
):
    """RFC 1995 section 4: the whole zone is transferred instead, or nothing changes."""
    now, old = primary.serial, [one.split()[0] for one in primary.records]
    moved = [Difference(now + one.before, now + one.after, one.deleted, one.added) for one in differences]
    new = f"new{next(_numbers)}.example"
    primary.publish([*primary.records, *blocks(new)], serial=now + 10)
    primary.rules = {"IXFR": sends([soa(now + 10), *ixfr(moved)[1:-1], soa(now + 10)])}
    try:
        said = refresh(running, ZONE)
        assert (said.code, serial_in_force(running)) in {(0, now + 10), (4, now)}, said
        assert blocked(running, new) == [said.code == 0]
        assert all(blocked(running, *old))
        assert is_forwarded(running.query("wrong.example"))
    finally:
        primary.rules = {}
    assert_refreshes(running)
    assert blocked(running, new, "wrong.example") == [True, False]


# ------- Time and place -------------------------------------------------------------------


def one_by_one(asked: Asked) -> Iterator[Sent]:
    """A message each tenth of a second: the connection is never silent."""
    yield asked.response(GOOD[:2])
    for number in itertools.count():
        if asked.stopped.wait(0.1):
            return
        yield asked.response(blocks(f"wrong{number}.example"), question=None)


SLOW: dict[str, tuple[str, Rule]] = {
    "no answer to SOA": ("SOA", says_nothing),
    "no answer to IXFR": ("IXFR", says_nothing),
    "no end": ("IXFR", sends(GOOD[:2])),
    "a record at a time": ("IXFR", one_by_one),
}


@pytest.mark.parametrize(("qtype", "rule"), SLOW.values(), ids=SLOW)
def test_a_slow_transfer_ends_and_delays_no_answer(
    subject: Subject, upstream: StubUpstream, qtype: str, rule: Rule
):
    """`timeout_s` is for the whole transfer, whatever arrives meanwhile."""
    with ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(primary.address, timeout_s=3))
        primary.publish(BASE[1:], serial=NEWER)
        primary.rules = {qtype: rule}
        assert_fails(subject, "TOO_SLOW")
        assert all(blocked(subject, "n0.example", "n29.example"))
        assert is_forwarded(subject.query("free.example"))


def test_queries_are_answered_while_a_transfer_hangs(subject: Subject, upstream: StubUpstream):
    """Neither blocked names nor others wait for a primary, and neither does a stop."""
    with ScriptedPrimary(BASE) as primary:
        start(subject, upstream, zone_from(primary.address))
        primary.publish(BASE[1:])
        primary.rules["IXFR"] = says_nothing
        send_notify(subject, notify())
        primary.wait_for_query("IXFR")
        assert blocked(subject, "n0.example") == [True]
        assert is_forwarded(subject.query("free.example"))
        assert subject.stop() == 0


def test_the_reason_names_the_primary(running: Subject, primary: ScriptedPrimary):
    """With several primaries, the operator must see which one is wrong."""
    primary.rules = {"SOA": refuses(5)}
    try:
        assert refresh(running, ZONE).code == 4
    finally:
        primary.rules = {}
    assert source(running, ZONE)["fetch_error"].startswith(f"{primary.address}: RCODE: ")
    assert any(f"list {ZONE} was not fetched: {primary.address}: RCODE: " in line for line in log(running))
    assert_refreshes(running)
