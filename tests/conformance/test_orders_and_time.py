"""Orders take effect and end on time, and survive restarts and lost files."""

import time
from datetime import UTC, datetime
from hashlib import sha256

from .clocks import begun_before
from .harness import PROFILES, Subject, is_forwarded, is_sinkholed
from .orders import as_yaml, block, exempt, in_seconds, stamp, unblock
from .tools import wait_for
from .upstreams import StubUpstream

NAME = "timed.example"
SLACK = 30.0  # how late a change of the clock may show on a busy machine


def order_row(subject: Subject, order_id: str) -> dict:
    (row,) = [row for row in subject.status()["orders"] if row["order_id"] == order_id]
    return row


def watch(subject: Subject, moment: datetime, *, blocked_before: bool) -> None:
    """Ask until the answer changes; it must change at the moment, not before it and hardly after."""
    while True:
        asked_at = datetime.now(UTC)
        blocked = is_sinkholed(subject.query(NAME))
        answered_at = datetime.now(UTC)
        if blocked is not blocked_before:
            assert answered_at >= moment, "too early"
            return
        assert (asked_at - moment).total_seconds() < SLACK, "too late"
        time.sleep(0.01)


# ------- The clock ------------------------------------------------------------------


def test_a_block_takes_effect_at_its_time_without_a_signal(subject: Subject, upstream: StubUpstream):
    """Trap 11: effective times are honoured by a timer."""

    def begin(moment: datetime) -> None:
        subject.start(orders=[block("B-1", [NAME], effective_at=stamp(moment))], upstreams=[upstream.address])
        assert subject.ready["entries"] == 0

    moment = begun_before(subject, 1.5, begin)
    watch(subject, moment, blocked_before=False)
    wait_for(lambda: subject.status()["entries"] == 1, "its entry is reported")


def test_a_block_ends_at_its_time_without_a_signal(subject: Subject, upstream: StubUpstream):
    """In force at t: effective_at <= t < expires_at."""

    def begin(moment: datetime) -> None:
        subject.start(orders=[block("B-1", [NAME], expires_at=stamp(moment))], upstreams=[upstream.address])

    moment = begun_before(subject, 1.5, begin)
    watch(subject, moment, blocked_before=True)
    wait_for(lambda: order_row(subject, "B-1")["state"] == "expired", "the order is expired")


def test_an_unblock_takes_effect_at_its_time_without_a_signal(subject: Subject, upstream: StubUpstream):
    """Trap 11: unblocking is what fails in practice."""

    def begin(moment: datetime) -> None:
        orders = [block("B-1", [NAME]), unblock("U-1", "B-1", effective_at=stamp(moment))]
        subject.start(orders=orders, upstreams=[upstream.address])

    moment = begun_before(subject, 1.5, begin)
    watch(subject, moment, blocked_before=True)


def test_an_exemption_begins_and_ends_by_the_clock(subject: Subject, upstream: StubUpstream):
    """Trap 11: an exemption has its times like a block."""

    def begin(end: datetime) -> None:
        middle = in_seconds((end - datetime.now(UTC)).total_seconds() / 2)
        times = {"effective_at": stamp(middle), "expires_at": stamp(end)}
        orders = [block("B-1", [NAME]), exempt("E-1", [NAME], **times)]
        subject.start(orders=orders, upstreams=[upstream.address])
        watch(subject, middle, blocked_before=True)

    end = begun_before(subject, 5, begin)
    watch(subject, end, blocked_before=False)


def test_a_block_added_while_running_takes_effect_at_its_time(subject: Subject, upstream: StubUpstream):
    """Trap 11: the timer is set again by each reload."""

    def begin(moment: datetime) -> None:
        subject.start(upstreams=[upstream.address])
        subject.put_order(block("B-1", [NAME], effective_at=stamp(moment)))
        reloaded = subject.reload()
        assert (reloaded["changed"], reloaded["entries"]) == (False, 0)

    moment = begun_before(subject, 2, begin)
    watch(subject, moment, blocked_before=False)
    # `status` follows a moment after the first enforced response.
    expected = subject.ready["serial"] + 1
    wait_for(lambda: subject.status()["serial"] == expected, "the next serial is reported")


def test_a_block_that_expired_before_the_start_is_not_enforced(subject: Subject, upstream: StubUpstream):
    """It is history, since the next order follows it."""
    over = block("B-1", [NAME], seq=1, expires_at="2018-01-01T00:00:00Z")
    prev = sha256(as_yaml(over).encode()).hexdigest()
    subject.start(
        orders=[over, block("B-2", ["now.example"], seq=2, prev=prev)], upstreams=[upstream.address]
    )
    assert is_forwarded(subject.query(NAME))
    assert is_sinkholed(subject.query("now.example"))
    assert order_row(subject, "B-1")["state"] == "expired"


def test_a_future_order_is_shown_as_scheduled(subject: Subject):
    """`next_change_at` is when it takes effect."""
    moment = in_seconds(3600)
    orders = [block("B-1", ["now.example"]), block("B-2", [NAME, "b.example"], effective_at=stamp(moment))]
    subject.start(orders=orders)
    active, scheduled = order_row(subject, "B-1"), order_row(subject, "B-2")
    assert (active["state"], active["entries"], active["in_force"]) == ("active", 1, 1)
    assert (scheduled["state"], scheduled["entries"], scheduled["in_force"]) == ("scheduled", 2, 0)
    assert datetime.fromisoformat(subject.status()["next_change_at"]) == moment
    assert datetime.fromisoformat(scheduled["effective_at"]) == moment


def test_ttls_are_shortened_before_a_scheduled_change(subject: Subject):
    """Trap 11, RFC 2181 section 8: no cache holds it beyond the change; TTL is the time left, at least 1."""
    answers = {"sinkhole": PROFILES["sinkhole"] | {"ttl": 3600}}

    def begin(moment: datetime) -> None:
        subject.start(orders=[block("B-1", [NAME], expires_at=stamp(moment))], answers=answers)

    moment = begun_before(subject, 4, begin, left=3.2)

    def left() -> float:
        return (moment - datetime.now(UTC)).total_seconds()

    seen = set()
    while left() > 0.2:
        before = left()
        ttls = subject.query(NAME).ttls
        negative = subject.query(NAME, "TXT")
        after = left()
        if after <= 0:  # the block may have ended before the second answer
            break
        (ttl,), soa = ttls, negative.soa
        assert max(1, int(after)) <= ttl <= max(1, before + 1)
        assert 1 <= soa.ttl == soa.minimum <= max(1, before + 1)
        seen.add(ttl)
        time.sleep(0.05)
    assert min(seen) == 1
    assert len(seen) >= 3, "it falls second by second"


def test_scheduled_changes_apply_despite_an_invalid_file_in_the_inbox(
    subject: Subject, upstream: StubUpstream
):
    """A feed breaks sooner or later; that must not keep anyone blocked."""

    def begin(moment: datetime) -> None:
        subject.start(orders=[block("B-1", [NAME], expires_at=stamp(moment))], upstreams=[upstream.address])
        subject.put_order("<html><body>502 Bad Gateway</body></html>\n", "feed.yaml")
        assert subject.cli("reload").code == 4

    moment = begun_before(subject, 2.5, begin)
    watch(subject, moment, blocked_before=True)


# ------- The ledger ----------------------------------------------------------------


def test_an_order_stays_in_force_when_its_file_is_removed(subject: Subject):
    """An order is a fact; the folder is an inbox."""
    subject.start(orders=[block("B-1", [NAME])])
    for path in subject.orders_folder.iterdir():
        path.unlink()
    assert subject.reload()["changed"] is False
    assert is_sinkholed(subject.query(NAME))
    subject.restart()
    assert is_sinkholed(subject.query(NAME))


def test_an_unblock_survives_a_restart_and_the_removal_of_the_blocking_order(
    subject: Subject, upstream: StubUpstream
):
    """An unblocked name is never blocked again without a new order."""
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address])
    lifting = subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert is_forwarded(subject.query(NAME))
    lifting.unlink()
    subject.restart()
    assert is_forwarded(subject.query(NAME))
    assert order_row(subject, "B-1")["state"] == "lifted"


def test_the_serial_rises_over_restarts_only_when_the_content_changed(subject: Subject):
    """The serial is persistent and strictly rising; unchanged content keeps it."""
    first = subject.start(orders=[block("B-1", [NAME])])
    again = subject.restart()
    assert (again["serial"], again["digest"]) == (first["serial"], first["digest"])
    assert subject.stop() == 0
    subject.put_order(block("B-2", ["more.example"]))
    changed = subject.launch()
    assert changed["serial"] == first["serial"] + 1
    assert changed["digest"] != first["digest"]
    subject.put_order(unblock("U-2", "B-2"))
    lifted = subject.reload()
    assert (lifted["serial"], lifted["digest"]) == (first["serial"] + 2, first["digest"])


def test_rereading_an_order_changes_nothing(subject: Subject):
    """Same issuer, same number, same bytes: ignored."""
    order = block("B-1", [NAME])
    subject.start(orders=[order])
    subject.put_order(order, "copy.yaml")
    result = subject.reload()
    assert (result["changed"], result["entries"]) == (False, 1)
    assert (result["serial"], result["digest"]) == (subject.ready["serial"], subject.ready["digest"])


def test_a_new_order_may_block_a_name_again(subject: Subject, upstream: StubUpstream):
    """An unblock ends the entries it names; it is no exemption for later orders."""
    subject.start(orders=[block("B-1", [NAME]), unblock("U-1", "B-1")], upstreams=[upstream.address])
    assert is_forwarded(subject.query(NAME))
    subject.put_order(block("B-2", [NAME]))
    subject.reload()
    assert is_sinkholed(subject.query(NAME))


def test_unblocking_an_unblocked_name_is_reported(subject: Subject):
    """It is accepted, and noted: NOT_BLOCKED."""
    orders = [block("B-1", [NAME]), unblock("U-1", "B-1"), unblock("U-2", "B-1")]
    subject.start(orders=orders)
    assert any("NOT_BLOCKED" in note for note in order_row(subject, "U-2")["notes"])


def test_part_of_an_order_may_be_unblocked(subject: Subject, upstream: StubUpstream):
    """`targets` of an unblock may name single entries; the others stay blocked."""
    orders = [block("B-1", [NAME, "kept.example"]), unblock("U-1", "B-1", [NAME])]
    subject.start(orders=orders, upstreams=[upstream.address])
    assert is_forwarded(subject.query(NAME))
    assert is_sinkholed(subject.query("kept.example"))
    assert order_row(subject, "B-1")["in_force"] == 1
