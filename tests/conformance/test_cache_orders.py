"""An order that is submitted applies to all cached responses, and to no other one.

Such an order changes only names. A cached response with no other name than the queried one is not judged
again then: a zone of names has nothing to say about its addresses.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest

from . import wire
from .asking import is_sinkholed
from .caching import NAME, cname, start
from .harness import ORDERS_ZONE, Subject
from .lists import UNWATCHED
from .orders import block, stamp, unblock
from .upstreams import Asked, StubUpstream

TARGET = "target.example"
ALIAS, MAIL, PLAIN = "alias.example", "mail.example", "plain.example"
ADDRESS, OTHER = "198.51.100.7", "198.51.100.8"
NETWORKS = {"name": "badnets", "addresses": "badnets.txt", "answer": "nodata", "source": UNWATCHED}
NOWHERE = ["203.0.113.0/24"]


def script(asked: Asked) -> bytes:
    beside = wire.address_record(TARGET, OTHER)
    if asked.name == ALIAS:
        return asked.response([cname(b"\xc0\x0c", TARGET), beside])
    if asked.name == MAIL:
        return asked.response([wire.address_record(b"\xc0\x0c", ADDRESS)], additional=[beside])
    return asked.response([wire.address_record(b"\xc0\x0c", ADDRESS)])


@pytest.fixture
def running(subject: Subject, upstream: StubUpstream) -> Subject:
    upstream.script = script
    zones = [ORDERS_ZONE, NETWORKS]
    start(subject, upstream, zones=zones, lists={"badnets.txt": NOWHERE}, workers=1)
    assert_open(subject, ALIAS, MAIL, PLAIN)
    return subject


def submit(subject: Subject, order: dict[str, object]) -> None:
    [said] = subject.submit("order.json", json.dumps(order).encode())["documents"]
    assert said["verdict"] == "accepted", said


def assert_open(subject: Subject, *names: str) -> None:
    for name in names:
        for _ in range(2):  # the second response is a cached one, which the policy has judged then
            reply = subject.query(name)
            assert ADDRESS in reply.addresses or OTHER in reply.addresses, name
            assert len(reply.additional) == (name == MAIL), name


def test_an_order_for_another_name_changes_nothing(running: Subject, upstream: StubUpstream):
    """Trap 16: the cached responses stay, and pass."""
    asked = len(upstream.queries)
    for number in range(3):
        submit(running, block(f"B-{number}", [f"n{number}.unrelated.example"]))
        assert_open(running, ALIAS, MAIL, PLAIN)
    assert len(upstream.queries) == asked


def test_an_order_applies_to_the_targets_of_cached_responses(running: Subject):
    """Also after orders for other names, and until it is lifted."""
    for number in range(2):
        submit(running, block(f"B-{number}", [TARGET]))
        for other in range(2):
            assert is_sinkholed(running.query(ALIAS))
            mail = running.query(MAIL)
            assert (mail.addresses, mail.additional) == ([ADDRESS], ())
            assert_open(running, PLAIN)
            submit(running, block(f"O-{number}-{other}", [f"n{number}-{other}.unrelated.example"]))
        submit(running, unblock(f"U-{number}", f"B-{number}"))
        assert_open(running, ALIAS, MAIL, PLAIN)


def test_an_order_applies_to_the_name_of_a_cached_response(running: Subject):
    """Trap 11: the name itself is looked up for each query."""
    submit(running, block("B-1", [PLAIN]))
    assert is_sinkholed(running.query(PLAIN))
    submit(running, block("B-2", [NAME]))
    assert is_sinkholed(running.query(PLAIN))
    submit(running, unblock("U-1", "B-1"))
    assert_open(running, PLAIN, ALIAS, MAIL)


def test_blocked_addresses_stay_blocked_and_open_after_orders(running: Subject):
    """A change of the list applies to a response that orders have left alone, and the reverse."""
    for number in range(2):
        submit(running, block(f"B-{number}", [f"n{number}.unrelated.example"]))
        assert_open(running, PLAIN)
        running.put_list("badnets.txt", [*NOWHERE, f"{ADDRESS}/32"])
        running.reload()
        for other in range(2):
            assert running.query(PLAIN).is_nodata
            submit(running, block(f"O-{number}-{other}", [f"n{number}-{other}.unrelated.example"]))
        assert running.query(PLAIN).is_nodata
        running.put_list("badnets.txt", NOWHERE)
        running.reload()
        assert_open(running, PLAIN)


def test_a_name_that_was_exempt_from_lists_is_judged_again(running: Subject):
    """Its response was judged by fewer zones than it is now."""
    running.put_list("badnets.txt", [*NOWHERE, f"{ADDRESS}/32"])
    running.reload()
    assert running.query(PLAIN).is_nodata
    until = stamp(datetime.now(UTC) + timedelta(days=1))
    said = running.cli("allow", PLAIN, "--until", until, "--reason", "ticket 17")
    assert said.code == 0, said
    submit(running, block("B-1", ["n1.unrelated.example"]))
    assert_open(running, PLAIN)
    said = running.cli("allow", PLAIN, "--end", "--reason", "ticket 18")
    assert said.code == 0, said
    assert running.query(PLAIN).is_nodata
    submit(running, block("B-2", ["n2.unrelated.example"]))
    assert running.query(PLAIN).is_nodata
