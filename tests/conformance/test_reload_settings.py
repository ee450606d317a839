"""A reload changes upstreams, listen addresses, limits, log and metrics without a restart."""

import json
import socket
import threading
import urllib.error
import urllib.request

import pytest
from ports import free_port

from . import wire
from .clients import Stream
from .harness import TIMEOUT, Subject, is_forwarded, is_sinkholed
from .orders import block
from .tools import wait_for
from .upstreams import MakeUpstream, StubUpstream, decent, silent


def change(subject: Subject, **config: object) -> dict:
    """Write another configuration and reload."""
    subject.configure(**config)
    return subject.reload()


def queries(upstream: StubUpstream) -> int:
    return len(upstream.queries)


def labels(subject: Subject, name: str) -> set[str]:
    """The upstreams of which there is a series of this name."""
    return {dict(pairs)["upstream"] for found, pairs in subject.metrics() if found == name}


def ask(stream: Stream) -> wire.Reply:
    stream.send(wire.query("blocked.example", "A"))
    return stream.reply()


def is_answered(port: int, host: str = "127.0.0.1", timeout: float = 45) -> bool:
    """Whether anybody answers there, over UDP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((host, port))
        try:
            sock.send(wire.query("blocked.example", "A"))
            return is_sinkholed(wire.read(sock.recv(4096)))
        except (ConnectionRefusedError, TimeoutError):
            return False


# ------- Upstreams


def test_a_reload_switches_to_the_new_upstream(subject: Subject, make_upstream: MakeUpstream):
    """From the moment at which the reload has returned."""
    old, new = make_upstream(), make_upstream()
    subject.start(upstreams=[old.address])
    assert is_forwarded(subject.query("one.example"))
    assert change(subject, upstreams=[new.address])["restart_needed"] == []
    for number in range(20):
        assert is_forwarded(subject.query(f"n{number}.example"))
    assert (queries(old), queries(new)) == (1, 20)
    assert subject.status()["upstreams"] == [new.address]


def test_the_order_of_upstreams_is_that_of_the_last_reload(subject: Subject, make_upstream: MakeUpstream):
    """`choice: first`: the first in the order of the file."""
    one, two = make_upstream(), make_upstream()
    subject.start(upstreams=[one.address, two.address])
    subject.query("one.example")
    change(subject, upstreams=[two.address, one.address])
    subject.query("two.example")
    assert (queries(one), queries(two)) == (1, 1)


def test_a_query_that_waits_for_a_removed_upstream_is_answered_by_another(
    subject: Subject, make_upstream: MakeUpstream
):
    """At once, and not when its time is up."""
    mute, new = make_upstream(silent), make_upstream()
    subject.start(upstreams=[mute.address], upstream={"timeout_ms": 60_000, "tries": 1})
    with subject.udp() as sock:
        sock.settimeout(45)
        sock.send(wire.query("waits.example", "A"))
        wait_for(lambda: queries(mute) == 1, "it was asked")
        change(subject, upstreams=[new.address], upstream={"timeout_ms": 60_000, "tries": 1})
        assert is_forwarded(wire.read(sock.recv(4096)))


def test_an_upstream_that_stays_keeps_its_health_and_its_counters(
    subject: Subject, make_upstream: MakeUpstream
):
    """One that is down stays down; the series of a removed one go away."""
    down, up, new = make_upstream(silent, may_die=True), make_upstream(), make_upstream()
    health_check = {"interval_ms": 50, "timeout_ms": 1000, "failures": 2, "successes": 1}
    subject.start(upstreams=[down.address, up.address], upstream={"health_check": health_check})
    wait_for(lambda: subject.status()["upstreams_down"] == [down.address], "it is down")
    assert is_forwarded(subject.query("one.example"))
    change(subject, upstreams=[down.address, new.address], upstream={"health_check": health_check})
    assert subject.status()["upstreams_down"] == [down.address]
    assert is_forwarded(subject.query("two.example"))
    assert queries(down) == 0
    assert labels(subject, "dnsblock_upstream_up") == {down.address, new.address}
    assert subject.metrics().total("dnsblock_upstream_queries_total", upstream=new.address) == 1


def test_the_cache_is_kept_when_upstreams_change(subject: Subject, make_upstream: MakeUpstream):
    """An empty cache would send every query to the new upstream at once."""
    old, new = make_upstream(), make_upstream()
    cache = {"size_mb": 8}
    subject.start(upstreams=[old.address], cache=cache)
    assert is_forwarded(subject.query("kept.example"))
    change(subject, upstreams=[new.address], cache=cache)
    assert is_forwarded(subject.query("kept.example"))
    assert queries(new) == 0


def test_upstreams_can_be_replaced_any_number_of_times(subject: Subject, make_upstream: MakeUpstream):
    """Each reload uses the places again that earlier ones have left."""
    upstreams = [make_upstream() for _ in range(4)]
    subject.start(upstreams=[upstreams[0].address])
    for turn in range(100):
        upstream = upstreams[turn % 4]
        change(subject, upstreams=[upstream.address, upstreams[(turn + 1) % 4].address])
        before = sum(map(queries, upstreams))
        assert is_forwarded(subject.query(f"n{turn}.example"))
        assert sum(map(queries, upstreams)) == before + 1
        assert upstream.queries[-1].name == f"n{turn}.example"


def test_a_reload_applies_limits_of_upstreams_and_clients(subject: Subject, make_upstream: MakeUpstream):
    """The size of responses, the time of an attempt, and what a TCP client may have."""
    mute = make_upstream(silent)
    subject.start(upstreams=[mute.address], upstream={"timeout_ms": 60_000})
    with subject.udp() as sock:
        sock.send(wire.query("waits.example", "A"))
        wait_for(lambda: queries(mute) == 1, "it was asked")
        said = change(
            subject,
            upstreams=[mute.address],
            upstream={"timeout_ms": 50, "tries": 1},
            udp={"max_payload": 512},
            tcp={"idle_timeout_ms": 100},
            stop_timeout_ms=1,
        )
        assert said["restart_needed"] == []
        # A later query has a shorter timeout than one that waits already.
        assert subject.query("soon.example").rcode == "SERVFAIL"
        assert subject.query("soon.example", edns=True).opt.rclass == 512
        with subject.tcp() as stream:
            assert stream.receive() is None, "closed, since it asks nothing"


# ------- Listen addresses


def test_a_reload_opens_new_addresses_and_closes_removed_ones(subject: Subject):
    """And the one that stays is not closed for a moment: its TCP connection goes on."""
    new, orders = free_port(), [block("B-1", ["blocked.example"])]
    subject.start(orders=orders)
    remaining, removed = subject.ports[4], subject.ports[6]
    with subject.tcp() as stream:
        assert is_sinkholed(ask(stream))
        said = change(subject, listen=["127.0.0.1:0", f"127.0.0.1:{new}"])
        assert said["restart_needed"] == []
        assert is_answered(new)
        assert is_answered(remaining)
        wait_for(lambda: not is_answered(removed, "::1", timeout=1), "the old one is closed")
        assert is_sinkholed(ask(stream))
    assert subject.status()["listening"] == [f"127.0.0.1:{remaining}", f"127.0.0.1:{new}"]


def test_outstanding_queries_of_a_removed_address_are_answered(subject: Subject, make_upstream: MakeUpstream):
    """Over UDP and over TCP; then the connection ends."""
    slow = make_upstream(silent)
    subject.start(upstreams=[slow.address], upstream={"timeout_ms": 60_000})
    with subject.udp(6) as sock, subject.tcp(6) as stream:
        sock.send(wire.query("udp.example", "A"))
        stream.send(wire.query("tcp.example", "A"))
        wait_for(lambda: queries(slow) == 2, "both were asked")
        change(subject, listen=["127.0.0.1:0"], upstreams=[slow.address], upstream={"timeout_ms": 60_000})
        for asked in slow.queries:
            asked.reply(decent(asked))
        assert is_forwarded(wire.read(sock.recv(4096)))
        assert is_forwarded(wire.read(stream.receive()))
        assert stream.receive() is None


def test_an_address_and_all_addresses_replace_each_other(subject: Subject):
    """Both may be bound on one port while the one takes the place of the other."""
    orders = [block("B-1", ["blocked.example"])]
    port = free_port()
    subject.start(orders=orders, listen=[f"127.0.0.1:{port}"])
    for listen in ([f"0.0.0.0:{port}"], [f"127.0.0.1:{port}"], [f"127.0.0.1:{port}", f"0.0.0.0:{port}"]):
        assert change(subject, orders=orders, listen=listen)["restart_needed"] == []
        assert is_answered(port)


def test_no_query_is_lost_when_all_addresses_replace_one_that_has_outstanding_queries(
    subject: Subject, make_upstream: MakeUpstream
):
    """The kernel delivers queries to the socket of the narrower address for as long as it is open."""
    slow, orders, port = make_upstream(silent), [block("B-1", ["blocked.example"])], free_port()
    settings = {"upstreams": [slow.address], "upstream": {"timeout_ms": 60_000}, "orders": orders}
    subject.start(listen=[f"127.0.0.1:{port}"], **settings)
    with subject.udp() as sock:
        sock.send(wire.query("outstanding.example", "A"))
        wait_for(lambda: queries(slow) == 1, "it was asked")
        for _ in range(2):
            change(subject, listen=[f"0.0.0.0:{port}"], **settings)
            assert subject.status()["listening"] == [f"0.0.0.0:{port}"]
            for _ in range(20):
                assert is_answered(port)
                with subject.tcp() as stream:
                    assert is_sinkholed(ask(stream))
        slow.queries[0].reply(decent(slow.queries[0]))
        assert is_forwarded(wire.read(sock.recv(4096)))
    change(subject, listen=[f"127.0.0.1:{port}"], **settings)
    assert is_answered(port)


def test_an_address_that_cannot_be_bound_affects_only_listen_addresses(subject: Subject):
    """One bad input affects only itself: orders and upstreams of the same reload come into force."""
    subject.start()
    port = free_port()  # not an ephemeral one: a client must not take it when it is free again
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        taken = f"127.0.0.1:{port}"
        subject.configure(listen=["127.0.0.1:0", taken], orders=[block("B-1", ["blocked.example"])])
        said = subject.cli("reload")
        assert said.code == 4
        (problem,) = said.json["problems"]
        assert problem["file"] == taken
        assert is_sinkholed(subject.query("blocked.example"))
        assert is_sinkholed(subject.query("blocked.example", family=6))
        assert subject.status()["last_publish"]["ok"] is False
    assert subject.reload()["restart_needed"] == []
    assert taken in subject.status()["listening"]
    assert subject.status()["last_publish"]["ok"]


def test_no_query_is_lost_while_addresses_change(subject: Subject):
    """Under load on the address that stays, with 50 reloads that add and remove another one."""
    orders, other = [block("B-1", ["blocked.example"])], free_port()
    subject.start(orders=orders)
    finished, wrong, answered = threading.Event(), [], 0

    def ask() -> None:
        nonlocal answered
        with subject.udp() as sock:
            sock.settimeout(45)
            while not finished.is_set():
                sock.send(wire.query("blocked.example", "A"))
                if not is_sinkholed(wire.read(sock.recv(4096))):
                    wrong.append("another answer")
                answered += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for turn in range(50):
            listen = ["127.0.0.1:0", "[::1]:0"] + ([f"127.0.0.1:{other}"] if turn % 2 == 0 else [])
            change(subject, orders=orders, listen=listen)
    finally:
        finished.set()
        asking.join()
    assert answered > 50
    assert not wrong


# ------- Metrics and log


def test_a_reload_moves_and_removes_the_metrics_listener(subject: Subject):
    """Without a restart, and the previous port is closed."""
    subject.start(metrics="127.0.0.1:0")
    before = subject.ready["metrics"]
    wanted = f"127.0.0.1:{free_port()}"
    assert change(subject, metrics=wanted)["restart_needed"] == []
    subject.ready["metrics"] = wanted
    assert subject.metrics().total("dnsblock_snapshot_serial") >= 1
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{before}/metrics", timeout=TIMEOUT)
    change(subject, metrics=None)
    assert subject.status()["metrics"] is None
    with pytest.raises(urllib.error.URLError):
        subject.metrics()
    subject.ready["metrics"] = None


def test_a_metrics_address_in_use_keeps_the_previous_one(subject: Subject):
    """One bad option affects only itself: Prometheus can still read."""
    subject.start()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        subject.configure(metrics=taken, orders=[block("B-1", ["blocked.example"])])
        said = subject.cli("reload")
    assert (said.code, said.json["problems"][0]["file"]) == (4, taken)
    assert is_sinkholed(subject.query("blocked.example"))
    assert subject.metrics().total("dnsblock_snapshot_serial") >= 1


def test_log_level_and_format_change_with_a_reload(subject: Subject, upstream: StubUpstream):
    """From JSON to lines for people, and without what is less than an error."""
    upstreams = [upstream.address]  # without one, a warning may be the last line at any time
    subject.start(log={"format": "json", "level": "info"}, upstreams=upstreams)
    assert json.loads(subject.stderr().splitlines()[-1])["level"] == "info"
    human = {"format": "human", "level": "info"}
    change(subject, log=human, upstreams=upstreams, orders=[block("B-1", ["one.example"])])
    wait_for(lambda: " info " in subject.stderr().splitlines()[-1], "a line for people")
    change(subject, log=human | {"level": "error"}, upstreams=upstreams)
    length = len(subject.stderr())
    orders = [block("B-2", ["two.example"])]
    change(subject, log=human | {"level": "error"}, upstreams=upstreams, orders=orders)
    assert len(subject.stderr()) == length


def test_options_that_need_a_restart_are_reported(subject: Subject):
    """An option that is silently ignored would be believed to be in force."""
    subject.start()
    said = change(subject, workers=3, state="elsewhere", control="elsewhere.sock")
    assert set(said["restart_needed"]) == {"workers", "state", "control"}
