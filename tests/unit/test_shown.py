"""Numbers and time spans as commands show them."""

import pytest

from dnsblock.cli.common import duration
from dnsblock.errors import counted


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 min"),
        (59, "0 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (3 * 86_400 - 60, "2 d 23 h"),
    ],
)
def test_a_time_span_has_two_units(seconds: int, shown: str):
    """ "2 d" for almost three days is a day too early."""
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1000, "1,000 entries")]
)
def test_a_number_has_its_noun(number: int, shown: str):
    """In the singular or the plural."""
    assert counted(number, "entry", "entries") == shown
    assert counted(number, "record") == shown.replace("entries", "records").replace("entry", "record")
