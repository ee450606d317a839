"""EDNS errors between the daemon and its upstream, and of a query that has two of them at once."""

import pytest

from .. import wire
from ..asking import Asking
from ..policy import SINKHOLED, free
from ..upstreams import StubUpstream


@pytest.mark.parametrize(("high", "low"), [(1, 0), (1, 7)], ids=["BADVERS", "BADCOOKIE"])
def test_an_edns_error_of_the_upstream_hop_is_not_passed_on(
    resolver: Asking, seen: StubUpstream, high: int, low: int
):
    """Trap 3, RFC 6891 section 6.1.3, RFC 7873 section 5.3: they speak of our OPT and our cookie."""
    seen.script = lambda asked: (
        asked.address()
        if asked.message.opt is None
        else asked.response(rcode=low, edns=wire.opt(extended_rcode=high))
    )
    assert resolver.query(free(), edns=True).rcode in ("SERVFAIL", "NOERROR")


@pytest.mark.parametrize("place", [0, 1])
def test_the_edns_version_is_checked_before_a_second_opt(resolver: Asking, place: int):
    """Trap 0, RFC 6891 section 6.1.3: a higher version may allow what version 0 does not."""
    records = [wire.opt(), wire.opt()]
    records[place] = wire.opt(version=1)
    packet = wire.message(wire.random_id(), wire.RD, [wire.question(SINKHOLED)], additional=records)
    assert wire.read(resolver.exchange(packet)).rcode == "BADVERS"
