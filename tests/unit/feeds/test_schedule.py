"""When a feed is fetched: every so often, later after failures, and as `Retry-After` says."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random

import pytest

from dnsblock.lists.feed.schedule import FetchSchedule
from dnsblock.retries import retry_after_seconds

# ------- When it is asked for again -------

EVERY = 3600.0


def test_successful_fetches_have_a_jitter_of_a_tenth():
    """Jitter: instances that start together must not stay together."""
    schedule = FetchSchedule(EVERY, Random(1))
    waits = [schedule.after_success() for _ in range(1000)]
    assert EVERY * 0.9 <= min(waits) < EVERY * 0.91
    assert EVERY * 1.09 < max(waits) <= EVERY * 1.1


def test_consecutive_failures_back_off_up_to_the_usual_interval():
    """A server in trouble must not be met by more requests than usual."""
    longest = [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    for seed in range(100):
        schedule = FetchSchedule(EVERY, Random(seed))
        waits = [schedule.after_failure() for _ in longest]
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_a_success_ends_the_back_off():
    """One failure last week must not delay this week's list."""
    schedule = FetchSchedule(EVERY, Random(1))
    for _ in range(2000):  # two to this power is no number that a float can hold
        schedule.after_failure()
    schedule.after_success()
    assert schedule.after_failure() <= 30


def test_the_back_off_never_exceeds_a_short_interval():
    """The back-off never exceeds `every_s`."""
    schedule = FetchSchedule(10, Random(1))
    assert all(5 <= schedule.after_failure() <= 10 for _ in range(100))


def test_instances_fetch_at_different_times():
    """Jitter: hundreds of providers fetch the same list."""
    assert len({FetchSchedule(EVERY, Random(seed)).after_failure() for seed in range(100)}) == 100
    assert len({FetchSchedule(EVERY, Random(seed)).after_failure(600) for seed in range(100)}) == 100
    assert len({FetchSchedule(EVERY).after_success() for _ in range(100)}) == 100


def test_retry_after_is_honoured_up_to_one_day():
    """RFC 9110 section 10.2.3; but a wrong header must not stop a feed for ever."""
    for seed in range(100):
        assert 7200 <= FetchSchedule(EVERY, Random(seed)).after_failure(7200) <= 7200 * 1.1
        assert 15 <= FetchSchedule(EVERY, Random(seed)).after_failure(0) <= 30
        assert FetchSchedule(EVERY, Random(seed)).after_failure(1e9) == 86_400


NOW = datetime(2026, 9, 1, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), 300),
        ("Tuesday, 01-Sep-26 10:05:00 GMT", 300),
        ("Tue Sep  1 10:05:00 2026", 300),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), 0),
        ("999999999", 86_400),
        ("9" * 5000, 86_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86_400),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u0661\u0662", None),
        ("Tue, 99 Sep 2026 10:00:00 GMT", None),
        ("Tue, 01 Sep 99999999999999999999 10:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None):
    """RFC 9110, sections 10.2.3 and 5.6.7: all three forms of a date."""
    assert retry_after_seconds(value, NOW) == seconds
