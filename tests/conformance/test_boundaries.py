"""The moment at which orders start or end: compiled ahead, at midnight, and after a sleep of the machine."""

from datetime import UTC, datetime, timedelta

from .clocks import HOUR, FakeClock
from .harness import ORDERS_ZONE, PROFILES, Subject, is_forwarded, is_sinkholed
from .lists import UNWATCHED
from .orders import block, exempt, stamp, unblock
from .tools import wait_for
from .upstreams import StubUpstream

JAKARTA = timedelta(hours=7)  # ahead of UTC, all year
COMPILED = "the next scheduled change is compiled ahead"
LIST_ZONE = {"name": "list", "list": "list.txt", "answer": "sinkhole", "source": UNWATCHED}


def compiled(subject: Subject) -> int:
    return subject.stderr().count(COMPILED)


def test_a_change_that_is_compiled_ahead_includes_what_was_published_since(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """Compiling ahead only saves time: later orders, lists and options are part of the change."""
    then = stamp(datetime.now(UTC) + timedelta(minutes=5))
    common = {"zones": [ORDERS_ZONE, LIST_ZONE], "upstreams": [upstream.address], "log": {"level": "debug"}}
    subject.start(
        orders=[
            block("BEGINS", ["begins.example", "freed.example", "open.example"], effective_at=then),
            block("ENDS", ["ends.example", "both.example"], expires_at=then),
            block("STAYS", ["stays.example"]),
        ],
        lists={"list.txt": ["one.example"]},
        **common,
    )
    wait_for(lambda: compiled(subject), "the change is compiled")
    subject.configure(answers={"sinkhole": PROFILES["sinkhole"] | {"ttl": 7}}, **common)
    for order in (
        unblock("U-1", "BEGINS", ["freed.example"]),
        exempt("E-1", ["open.example"], effective_at=then),
        block("B-1", ["both.example", "new.example"], effective_at=then),
        unblock("U-2", "STAYS", effective_at=then),
        block("B-2", ["now.example"]),
    ):
        subject.put_order(order)
    subject.put_list("list.txt", ["two.example"])
    subject.reload()
    blocked = ["ends", "both", "stays", "now", "two"]
    assert_blocked(subject, blocked)
    clock.step_to(5 * 60 + 5)
    blocked = ["begins", "both", "new", "now", "two"]
    wait_for(lambda: is_sinkholed(subject.query("begins.example")), "the change")
    assert_blocked(subject, blocked)
    assert subject.query("begins.example").ttls == {7}
    subject.restart()
    assert_blocked(subject, blocked)


def assert_blocked(subject: Subject, expected: list[str]) -> None:
    asked = ["begins", "freed", "open", "ends", "both", "stays", "new", "now", "one", "two"]
    assert [name for name in asked if is_sinkholed(subject.query(f"{name}.example"))] == [
        name for name in asked if name in expected
    ]


def test_an_order_annulled_after_its_start_was_compiled_never_starts(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """The compiled change is not what decides."""
    then = stamp(datetime.now(UTC) + timedelta(minutes=5))
    orders = [
        block("B-1", ["one.example"], effective_at=then),
        block("B-2", ["two.example"], effective_at=then),
    ]
    subject.start(orders=orders, upstreams=[upstream.address], log={"level": "debug"})
    wait_for(lambda: compiled(subject), "the change is compiled")
    assert subject.cli("order annul", "B-1", "--reason", "a typing error").code == 0
    clock.step_to(5 * 60 + 5)
    wait_for(lambda: is_sinkholed(subject.query("two.example")), "the change")
    assert is_forwarded(subject.query("one.example"))


def test_orders_from_midnight_to_midnight_in_jakarta(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """Midnight WIB is 17:00 UTC of the day before. An order for a day is in force on that day alone."""
    now = datetime.now(UTC) + timedelta(hours=1)  # so that midnight does not come while the test begins
    midnight = (
        (now + JAKARTA).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - JAKARTA
    )
    day = timedelta(days=1)
    subject.start(
        orders=[
            block("TODAY", ["today.example"], expires_at=stamp(midnight)),
            block("DAY", ["day.example"], effective_at=stamp(midnight), expires_at=stamp(midnight + day)),
        ],
        upstreams=[upstream.address],
        time_zone="Asia/Jakarta",
    )
    assert stamp(midnight).endswith("T00:00:00+07:00")

    def blocked() -> list[str]:
        names = ("today.example", "day.example")
        return [name for name in names if is_sinkholed(subject.query(name))]

    def shown(when: datetime) -> list[str]:
        """By `why`, at a time as a person in Jakarta writes it."""
        local = (when + JAKARTA).strftime("%Y-%m-%d %H:%M:%S")
        names = ("today.example", "day.example")
        return [name for name in names if subject.cli("why", name, "--at", local).code == 0]

    second = timedelta(seconds=1)
    expected = {
        midnight - second: ["today.example"],
        midnight: ["day.example"],
        midnight + day - second: ["day.example"],
        midnight + day: [],
    }
    assert {when: shown(when) for when in expected} == expected
    for moment, before, after in (
        (midnight, ["today.example"], ["day.example"]),
        (midnight + day, ["day.example"], []),
    ):
        offset = moment - timedelta(seconds=3) - datetime.now(UTC)
        clock.step_to(offset.total_seconds())
        found = blocked()
        while datetime.now(UTC) + offset < moment:
            assert found == before, "too early"
            found = blocked()
        wait_for(lambda: blocked() == after, "midnight")  # noqa: B023


def test_a_suspended_machine_enforces_the_present_time_when_it_wakes(
    subject: Subject, upstream: StubUpstream, clock: FakeClock
):
    """The wall clock goes on while no thread runs and the monotonic clock stands still."""
    then = stamp(datetime.now(UTC) + timedelta(seconds=HOUR / 2))
    orders = [
        block("BEGINS", ["begins.example"], effective_at=then),
        block("ENDS", ["ends.example"], expires_at=then),
    ]
    subject.start(orders=orders, upstreams=[upstream.address])
    assert is_forwarded(subject.query("begins.example"))
    subject.pause()
    clock.step_to(HOUR)
    subject.resume()
    wait_for(lambda: is_sinkholed(subject.query("begins.example")), "the order that began meanwhile")
    assert is_forwarded(subject.query("ends.example"))
    wait_for(lambda: states(subject) == {"BEGINS": "active", "ENDS": "expired"}, "status has the states")
    assert subject.status()["ledger"]["clock_behind_seconds"] == 0


def states(subject: Subject) -> dict[str, str]:
    """As `status` shows them, a moment after the answers."""
    return {row["order_id"]: row["state"] for row in subject.status()["orders"]}
