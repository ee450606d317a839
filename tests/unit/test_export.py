"""Serials of exports (RFC 1982)."""

import pytest

from dnsblock.rpz.export import Export, Wanted, Written


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
    export = Export(Wanted("rpz", "rpz.example"), (), (), ("localhost", "nobody.invalid"), snapshot)
    assert export.serial_after(*(Written(serial, 0, 0, {}) for serial in former)) == expected
