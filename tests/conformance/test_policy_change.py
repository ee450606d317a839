"""A change of the policy applies to the very next response (trap 11), and delays none."""

import threading
import time

from ports import free_port

from . import wire
from .asking import is_forwarded, is_sinkholed
from .harness import ORDERS_ZONE, PROFILES, Subject
from .orders import block, unblock
from .upstreams import StubUpstream, silent

NAME = "changing.example"
FAST = {"timeout_ms": 1000, "tries": 1}


def test_blocks_and_unblocks_apply_from_the_next_query(subject: Subject, upstream: StubUpstream):
    """RFC 2308 section 5, RFC 2181 section 8: whatever TTL was sent, no local response is cached."""
    subject.start(upstreams=[upstream.address])
    for number in range(2):
        for _ in range(3):
            assert is_forwarded(subject.query(NAME))
            assert is_forwarded(subject.query(NAME, transport="tcp"))
        subject.put_order(block(f"B-{number}", [NAME]))
        subject.reload()
        for transport in ("udp", "tcp"):
            assert is_sinkholed(subject.query(NAME, transport=transport))
            assert subject.query(NAME, "HTTPS", transport=transport).is_nodata
        subject.put_order(unblock(f"U-{number}", f"B-{number}"))
        subject.reload()
        assert is_forwarded(subject.query(NAME, transport="tcp"))


def test_a_policy_change_applies_to_open_tcp_connections(subject: Subject, upstream: StubUpstream):
    """RFC 7766 section 6.2.1: a connection may live for hours; its answers are of now."""
    subject.start(upstreams=[upstream.address])
    with subject.tcp() as stream:
        stream.send(wire.query(NAME))
        assert is_forwarded(stream.reply())
        subject.put_order(block("B-1", [NAME]))
        subject.reload()
        stream.send(wire.query(NAME))
        assert is_sinkholed(stream.reply())


def test_nothing_of_a_block_is_served_after_the_unblock(subject: Subject, upstream: StubUpstream):
    """RFC 8767 section 5: stale data may bridge an outage, but what was forged is never stale data."""
    upstream.script = silent
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address], upstream=FAST)
    assert is_sinkholed(subject.query(NAME))
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert subject.query(NAME).rcode == "SERVFAIL"


def test_nothing_of_the_upstream_is_served_after_the_name_was_blocked(
    subject: Subject, upstream: StubUpstream
):
    """pdns#14854: a packet cache went on to answer with what had been blocked in between."""
    subject.start(upstreams=[upstream.address], upstream=FAST)
    assert is_forwarded(subject.query(NAME))
    upstream.script = silent
    subject.put_order(block("B-1", [NAME]))
    subject.reload()
    assert is_sinkholed(subject.query(NAME))
    assert subject.query(NAME, "AAAA").addresses == [PROFILES["sinkhole"]["ipv6"][0]]


def test_a_rolled_back_configuration_gives_the_same_responses(subject: Subject, upstream: StubUpstream):
    """Rolling back is a change like any other: the same configuration, the same answers."""
    lists = {"malware.txt": ["listed.example"]}
    zone = {"name": "malware", "list": "malware.txt", "match": "subtree", "answer": "nodata"}
    before = subject.start(zones=[ORDERS_ZONE, zone], lists=lists, upstreams=[upstream.address])
    assert subject.query("listed.example").is_nodata
    subject.configure(zones=[ORDERS_ZONE], upstreams=[upstream.address])
    changed = subject.reload()
    assert is_forwarded(subject.query("listed.example"))
    subject.configure(zones=[ORDERS_ZONE, zone], lists=lists, upstreams=[upstream.address])
    back = subject.reload()
    assert subject.query("listed.example").is_nodata
    assert back["serial"] > changed["serial"] > before["serial"]
    assert back["digest"] == before["digest"]


def test_no_response_waits_for_a_reload(subject: Subject, upstream: StubUpstream):
    """A query is answered by the snapshot there is, while the next one is read and compiled."""
    subject.start(orders=[block("B-1", [NAME])], upstreams=[upstream.address])
    zone = {"name": "big", "list": "big.txt", "match": "exact", "answer": "nodata"}
    names = [f"n{number}.big.example" for number in range(200_000)]
    subject.configure(zones=[ORDERS_ZONE, zone], lists={"big.txt": names}, upstreams=[upstream.address])
    reload = threading.Thread(target=subject.reload)
    waits = []
    reload.start()
    with subject.udp() as sock:
        while reload.is_alive():
            began = time.monotonic()
            sock.send(wire.query(NAME))
            assert is_sinkholed(wire.read(sock.recv(4096)))
            waits.append(time.monotonic() - began)
    reload.join()
    assert subject.query("n7.big.example").is_nodata
    assert len(waits) > 100, "the reload was over too soon to show anything"
    assert sorted(waits)[int(len(waits) * 0.99)] < 0.1
    assert max(waits) < 1


def test_nothing_is_forwarded_before_the_policy_is_in_force(subject: Subject, upstream: StubUpstream):
    """Answering while the policy is being read would open every name at each start (fail-open)."""
    port = free_port()
    zone = {"name": "big", "list": "big.txt", "match": "exact", "answer": "sinkhole"}
    names = [f"n{number}.big.example" for number in range(100_000)]
    config = {"zones": [zone], "listen": [f"127.0.0.1:{port}"], "upstreams": [upstream.address]}
    subject.configure(lists={"big.txt": [*names, NAME]}, **config)
    subject.ports = {4: port}
    answered = []

    def is_answered() -> bool:
        with subject.udp() as sock:
            sock.settimeout(0.05)
            try:
                sock.send(wire.query(NAME))
                answered.append(wire.read(sock.recv(4096)))
            except OSError:
                return False
            return True

    subject.launch(within=60, meanwhile=is_answered)
    assert is_sinkholed(answered[0])
    assert upstream.queries == []
