"""Serials of exports (RFC 1982), and the counts in their last line."""

import json

import pytest

from dnsblock.rpz.export import Export, Wanted, Written, counts_in


@pytest.mark.parametrize(
    ("snapshot", "former", "expected"),
    [
        (5, [], 5),
        (5, [4], 5),
        (5, [5], 6),
        (5, [9], 10),
        (5, [3, 9], 10),
        (5, [(1 << 32) - 2], 5),  # it has wrapped, and is higher
        ((1 << 32) - 1, [(1 << 32) - 1], 1),  # never 0, which some servers read as unknown
        (1 << 31, [0], 1),  # half the numbers away is not comparable
    ],
)
def test_a_serial_is_higher_than_those_before_it(snapshot: int, former: list[int], expected: int):
    """Secondaries transfer a zone only then."""
    export = Export(Wanted("rpz", "rpz.example"), (), (), ("localhost", "nobody.invalid"), snapshot, None)
    assert export.serial_after(*(Written(serial, 0, 0, {}) for serial in former)) == expected


def test_counts_that_somebody_has_edited_are_no_counts():
    """Otherwise one file would break /metrics, or never be written again."""
    good = {"entries": 1, "records": 2, "left_out": {"addresses": 3}}
    assert counts_in(f"; end: {json.dumps(good | {'more': 1})}\n") == good
    for bad in (good | {"left_out": {"addresses": "3"}}, good | {"entries": "1"}, {}):
        assert counts_in(f"; end: {json.dumps(bad)}\n") is None
    for text in ("", "; end: {", "; end: {}", f"; end: {{{'[' * 100_000}}}\n", f"; end: {json.dumps(good)}"):
        assert counts_in(text) is None
