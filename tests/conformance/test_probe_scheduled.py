"""The daemon probes orders that take effect: they become verified, and misses are reported until they end."""

import json
import socket
from pathlib import Path

from .harness import ISSUER, Subject
from .orders import block, exempt, order, unblock
from .test_probe import Start, sinkholing, start
from .tools import wait_for
from .upstreams import MakeUpstream, StubUpstream, decent, silent

__all__ = ["start"]  # a fixture

BLOCK = block("84/2017", ["one.example", "two.example"])
UNBLOCK = unblock("95/2017", "84/2017")
ENDS_E = [{"order_id": "E", "entries": "all"}]


def states(subject: Subject) -> dict[str, str]:
    return {one["order_id"]: one["state"] for one in subject.control.orders()["orders"]}


def wait_for_state(subject: Subject, order_id: str, state: str) -> None:
    wait_for(lambda: states(subject)[order_id] == state, f"order {order_id} is {state}")


def records(subject: Subject, kind: str) -> list[dict]:
    """The records of this kind in the ledger."""
    ledger = subject.folder / "state" / "ledger.jsonl"
    whole = ledger.read_bytes().rpartition(b"\n")[0]  # the last record may be written just now
    found = [json.loads(line) for line in whole.splitlines()]
    return [record for record in found if record["kind"] == kind]


def test_a_block_becomes_verified(subject: Subject, upstream: StubUpstream):
    """Nobody runs a command: the daemon queries its own listen addresses."""
    subject.start(orders=[BLOCK], upstreams=[upstream.address], probes={})
    wait_for_state(subject, "84/2017", "verified")
    [probed], [verified] = records(subject, "probed"), records(subject, "verified")
    assert (probed["order_id"], probed["queries"], probed["misses"], probed["missed"]) == (
        "84/2017",
        32,
        0,
        [],
    )
    assert verified["servers"] == subject.ready["listening"]
    [found] = subject.control.orders()["orders"]
    assert found["verified_at"] >= found["enforced_at"]
    metrics = subject.metrics()
    assert metrics.total("dnsblock_orders_verified", issuer=ISSUER) == 1
    assert metrics.total("dnsblock_orders_unverified", issuer=ISSUER) == 0
    assert metrics.total("dnsblock_probe_misses", issuer=ISSUER) == 0
    assert metrics.total("dnsblock_probes_total", result="passed") == 1
    assert metrics.total("dnsblock_probe_queries_total") >= 32
    assert metrics.total("dnsblock_probe_last_timestamp_seconds") > 0


def test_an_unblock_becomes_verified(subject: Subject, upstream: StubUpstream):
    """Every name gets the upstream's answer; the lifted block is not probed any more."""
    subject.start(orders=[BLOCK], upstreams=[upstream.address], probes={})
    wait_for_state(subject, "84/2017", "verified")
    subject.put_order(UNBLOCK, "unblock.yaml")
    subject.reload()
    wait_for_state(subject, "95/2017", "verified")
    assert states(subject)["84/2017"] == "lifted"


def test_the_end_of_an_exemption_waits_for_no_proof(subject: Subject, upstream: StubUpstream):
    """The name may be blocked or not afterwards, so no probe can verify it."""
    orders = [BLOCK, exempt("E", ["www.one.example"]), order("R", "revoke", targets=ENDS_E)]
    subject.start(orders=orders, upstreams=[upstream.address], probes={})
    wait_for_state(subject, "84/2017", "verified")
    assert states(subject)["R"] == "active"
    assert subject.metrics().total("dnsblock_orders_unverified", issuer=ISSUER) == 0


def test_an_order_that_starts_later_is_probed_then(subject: Subject, upstream: StubUpstream):
    """Also without a new document."""
    later = block("1", ["one.example"], effective_at="2099-01-01T00:00:00+07:00")
    subject.start(orders=[later, block("2", ["two.example"])], upstreams=[upstream.address], probes={})
    wait_for_state(subject, "2", "verified")
    assert states(subject)["1"] == "scheduled"
    assert {record["order_id"] for record in records(subject, "probed")} == {"2"}


def test_a_resolver_that_still_blocks_is_reported_until_it_does_not(
    subject: Subject, upstream: StubUpstream, make_upstream: MakeUpstream
):
    """The provider's second resolver missed the unblock."""
    other = make_upstream(sinkholing)
    probes = {"servers": ["own", other.address]}
    subject.start(orders=[BLOCK, UNBLOCK], upstreams=[upstream.address], probes=probes)
    subject.wait_for_metric("dnsblock_probe_misses", 12, issuer=ISSUER)
    # A miss is tried again and again, and recorded once.
    subject.wait_for_metric("dnsblock_probes_total", 2, result="missed")
    [probed] = records(subject, "probed")
    assert (probed["order_id"], probed["misses"]) == ("95/2017", 12)
    assert f"{other.address} one.example A AAAA" in probed["missed"]
    status = subject.status()["probes"]
    assert (status["unverified"], [miss["order_id"] for miss in status["misses"]]) == (1, ["95/2017"])
    said = subject.cli("status", as_json=False)
    assert "  unverified   1 order in effect\n" in said.stdout
    assert "MISSED       12 of 48 responses, order 95/2017" in said.stdout
    assert f"{other.address} one.example A" in said.stdout
    assert "12 of 48 responses are not as expected" in subject.stderr()
    other.script = decent
    wait_for_state(subject, "95/2017", "verified")
    # The metric and the log follow a moment after the record.
    wait_for(lambda: subject.metrics().total("dnsblock_probe_misses") == 0, "no miss is left")
    wait_for(lambda: "every response is as expected again" in subject.stderr(), "it is logged")
    misses = [record["misses"] for record in records(subject, "probed")]
    # A probe that ran when the resolver changed may have found a part of them.
    assert (misses[0], misses[-1]) == (12, 0)
    assert len(set(misses)) == len(misses) <= 3, misses


def test_names_that_must_be_open_are_probed_when_orders_change(subject: Subject, upstream: StubUpstream):
    """A block of such a name is reported, until it is lifted."""
    probes = {"open": ["free.example"], "every_s": 31_536_000}
    subject.start(upstreams=[upstream.address], probes=probes)
    subject.wait_for_metric("dnsblock_probes_total", 1, result="passed")
    assert subject.metrics().total("dnsblock_probe_open_misses") == 0
    subject.put_order(block("1", ["free.example"]))
    subject.reload()
    subject.wait_for_metric("dnsblock_probe_open_misses", 16)
    assert [miss["order_id"] for miss in subject.status()["probes"]["misses"]] == [None]
    assert "open names" in subject.cli("status", as_json=False).stdout
    subject.put_order(unblock("2", "1"))
    subject.reload()
    wait_for(lambda: subject.metrics().total("dnsblock_probe_open_misses") == 0, "the name is open again")


def test_without_probes_no_order_is_verified(subject: Subject, upstream: StubUpstream):
    """`probes: null` ends them at the next reload."""
    subject.start(orders=[BLOCK], upstreams=[upstream.address], probes={})
    wait_for_state(subject, "84/2017", "verified")
    subject.configure(upstreams=[upstream.address], probes=None)
    subject.put_order(block("1", ["three.example"]))
    subject.reload()
    assert subject.status()["probes"] is None
    assert states(subject) == {"84/2017": "verified", "1": "active"}
    subject.restart()
    assert states(subject) == {"84/2017": "verified", "1": "active"}
    assert subject.metrics().total("dnsblock_probes_total") == 0


def test_a_verified_order_stays_verified_over_a_restart(subject: Subject, upstream: StubUpstream):
    """The ledger has it: it is not probed again."""
    subject.start(orders=[BLOCK], upstreams=[upstream.address], probes={})
    wait_for_state(subject, "84/2017", "verified")
    subject.put_order(block("1", ["three.example"]))
    subject.restart()
    assert states(subject)["84/2017"] == "verified"
    wait_for_state(subject, "1", "verified")
    assert subject.metrics().total("dnsblock_probes_total") == 1


def test_a_released_entry_is_probed_before_the_order_is_verified_again(
    subject: Subject, upstream: StubUpstream
):
    """The first probe expected no block of the entry that was held: it proves nothing about it."""
    order = block("84/2017", ["one.example", "t.me"])
    subject.start(orders=[order], upstreams=[upstream.address], probes={})
    wait_for_state(subject, "84/2017", "verified")
    assert subject.cli("order approve", "84/2017", "--reason", "letter 84/2017").code == 0
    wait_for(lambda: len(records(subject, "verified")) == 2, "the order is verified again")
    [approved] = records(subject, "approved")
    assert records(subject, "verified")[1]["n"] > approved["n"]
    wait_for_state(subject, "84/2017", "verified")  # a moment after its record
    subject.restart()
    assert states(subject) == {"84/2017": "verified"}


def test_other_orders_of_the_issuer_may_decide(subject: Subject, upstream: StubUpstream):
    """An exemption of an ordered name, a block by an earlier order, and a block again after an unblock."""
    named = [{"name": "two.example", "answer": "nxdomain"}]
    orders = [
        block("1", ["one.example", "two.example"]),
        exempt("2", [{"name": "one.example", "match": "exact"}]),
        block("3", named),
        block("4", ["three.example"]),
        unblock("5", "4"),
        block("6", ["three.example"]),
    ]
    subject.start(orders=orders, upstreams=[upstream.address], probes={})
    for number in "1236":
        wait_for_state(subject, number, "verified")
    # Nothing is expected of the unblock any more: it is neither verified nor missed.
    assert (states(subject)["4"], states(subject)["5"]) == ("lifted", "active")
    assert subject.metrics().total("dnsblock_probe_misses") == 0


def test_the_access_control_list_needs_no_entry_for_probes(subject: Subject, upstream: StubUpstream):
    """Own listeners are queried from a loopback address, which the default list allows."""
    subject.start(
        orders=[BLOCK],
        upstreams=[upstream.address],
        probes={},
        listen=["0.0.0.0:0", "[::]:0"],
        access_control={"allow": ["127.0.0.1/32", "::1/128"]},
    )
    wait_for_state(subject, "84/2017", "verified")


def own_address() -> str:
    """An address of this machine that is not a loopback address; without a network, one that is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("198.51.100.1", 53))  # sends nothing
        except OSError:
            return "127.0.0.2"
        return sock.getsockname()[0]


def test_a_listener_on_another_address_is_queried_from_a_loopback_address_too(
    subject: Subject, upstream: StubUpstream
):
    """Its own address as the source would not be in the list."""
    subject.start(
        orders=[BLOCK],
        upstreams=[upstream.address],
        probes={},
        listen=[f"{own_address()}:0"],
        access_control={"allow": ["127.0.0.1/32"]},
    )
    wait_for_state(subject, "84/2017", "verified")


def test_revoke_and_supersede_are_verified(subject: Subject, upstream: StubUpstream):
    """The names that a supersede takes over are blocked, and those that it drops are open."""
    orders = [
        block("1", ["one.example"]),
        order("2", "revoke", targets=[{"order_id": "1", "entries": "all"}]),
        block("3", ["two.example", "three.example"]),
        order(
            "4",
            "supersede",
            entries=["two.example"],
            targets=[{"order_id": "3", "entries": "all"}],
        ),
    ]
    subject.start(orders=orders, upstreams=[upstream.address], probes={})
    for number in "24":
        wait_for_state(subject, number, "verified")
    said = subject.cli("probe", "--order", "4")
    expected = {row["name"]: row["expected"] for row in said.json["rows"] if row["type"] == "AAAA"}
    assert (said.code, expected["three.example"]) == (0, "not blocked")
    assert expected["two.example"].startswith("AAAA ")


def test_a_silent_resolver_delays_neither_other_work_nor_the_stop(
    subject: Subject, upstream: StubUpstream, make_upstream: MakeUpstream
):
    """Its probe waits for responses that never come."""
    dead = make_upstream(silent, may_die=True)
    probes = {"servers": [dead.address]}
    subject.start(orders=[BLOCK], upstreams=[upstream.address], probes=probes)
    wait_for(lambda: dead.health_checks, "the probe has begun")
    subject.put_order(UNBLOCK, "unblock.yaml")
    assert subject.reload()["changed"]
    assert subject.stop() == 0


def test_instances_verify_each_other(start: Start, upstream: StubUpstream, tmp_path: Path):
    """Each may have the other as a server; one that does not enforce the order is named."""
    other = start(upstreams=[upstream.address])
    place = other.ready["listening"][0]
    probes = {"servers": ["own", place]}
    subject = start(orders=[BLOCK], upstreams=[upstream.address], probes=probes)
    subject.wait_for_metric("dnsblock_probe_misses", 12)
    [record] = records(subject, "probed")
    assert {one.partition(" ")[0] for one in record["missed"]} == {place}
    other.put_order(BLOCK, "block.yaml")
    other.reload()
    wait_for_state(subject, "84/2017", "verified")
