"""The record of a refusal of held entries: `orders/facts.py`."""

import pytest

from dnsblock.orders.facts import EntriesRefused, plain_as_json, plain_from_json


def test_a_record_of_a_refusal_has_runs_of_entries():
    """A hundred thousand held entries are one run."""
    fact = EntriesRefused.of("a", "b-1", [*range(100_000), 200_000], "not meant")
    assert plain_as_json(fact)["runs"] == [(0, 99_999), (200_000, 200_000)]
    again = plain_from_json(
        "entries_refused", {**plain_as_json(fact), "runs": [[0, 99_999], [200_000, 200_000]]}
    )
    assert again == fact
    assert len(again.entries) == 100_001


@pytest.mark.parametrize(
    "runs", [[[2, 1]], [[-1, 3]], [[0, 20_000_000]], [[1]], [[1, 2, 3]], [[]], [["1", "2"]], [1], "x", None]
)
def test_a_record_with_a_run_that_is_none_is_refused(runs: object):
    """The reader of the ledger takes these errors for a corrupt record."""
    value = {"issuer": "a", "order_id": "b-1", "reason": "x", "runs": runs}
    with pytest.raises((ValueError, TypeError)):
        plain_from_json("entries_refused", value)
