"""Numbers and time spans as commands show them."""

import pytest

from dnsblock.errors import counted, without_folders
from dnsblock.times import duration


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
    ("text", "shown"),
    [
        ("/etc/dnsblock/kominfo.allowed_signers has no line", "kominfo.allowed_signers has no line"),
        ("cannot be read: '/srv/state/ledger.jsonl': gone", "cannot be read: 'ledger.jsonl': gone"),
        ("/ledger.jsonl:7", "ledger.jsonl:7"),
        ("order 84/2017 at https://host/path, and/or / a slash", None),
    ],
)
def test_others_get_the_names_of_files_without_folders(text: str, shown: str | None):
    """A client of the issuers' API must not learn how the provider's server is set up."""
    assert without_folders(text) == (text if shown is None else shown)


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1000, "1,000 entries")]
)
def test_a_number_has_its_noun(number: int, shown: str):
    """In the singular or the plural."""
    assert counted(number, "entry", "entries") == shown
    assert counted(number, "record") == shown.replace("entries", "records").replace("entry", "record")
