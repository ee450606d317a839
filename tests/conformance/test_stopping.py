"""The daemon stops within a bound and answers outstanding queries; a second signal is immediate."""

import os
import socket

import pytest
from ports import free_port

from . import wire
from .harness import Subject, is_sinkholed
from .orders import block
from .tools import wait_for
from .upstreams import StubUpstream, silent


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_outstanding_queries_are_answered_before_a_stop(
    subject: Subject, upstream: StubUpstream, transport: str
):
    """A stop answers what was asked, within a bound."""
    upstream.script = silent
    subject.start(upstreams=[upstream.address], stop_timeout_ms=30_000)
    with subject.udp() as sock, subject.tcp() as stream:
        asked = wire.query("slow.example", qid=77)
        sock.send(asked) if transport == "udp" else stream.send(asked)
        slow = upstream.wait_for_query("slow.example")
        logged = len(subject.stderr())
        subject.terminate()
        wait_for(lambda: len(subject.stderr()) > logged, "the daemon says that it stops")
        assert subject.is_running()
        slow.reply(slow.address())
        reply = wire.read(sock.recv(4096) if transport == "udp" else stream.receive())
        assert reply.qid == 77
        assert subject.wait_stopped() == 0


def test_stopping_is_bounded(subject: Subject, upstream: StubUpstream):
    """An upstream that never answers does not keep the daemon."""
    upstream.script = silent
    subject.start(upstreams=[upstream.address], stop_timeout_ms=300)
    with subject.udp() as sock:
        sock.send(wire.query("slow.example"))
        upstream.wait_for_query("slow.example")
        assert subject.stop(within=20) == 0


def test_a_second_signal_stops_immediately(subject: Subject, upstream: StubUpstream):
    """An operator who presses Ctrl-C twice wants to leave."""
    upstream.script = silent
    subject.start(upstreams=[upstream.address], stop_timeout_ms=60_000)
    with subject.udp() as sock:
        sock.send(wire.query("slow.example"))
        upstream.wait_for_query("slow.example")
        logged = len(subject.stderr())
        subject.terminate()
        wait_for(lambda: len(subject.stderr()) > logged, "the daemon says that it stops")
        assert subject.is_running()
        subject.terminate()
        subject.wait_stopped(within=20)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_during_a_reload_does_not_wait_for_more_reloads(
    subject: Subject, upstream: StubUpstream, signals: int
):
    """Whatever is being compiled, a stop is taken at once; what was accepted is in the ledger, whole."""
    subject.start(orders=[block("B-1", ["blocked.example"])], upstreams=[upstream.address])
    # Letters outside ASCII cost time: reading this list takes longer than the stop may.
    zones = [{"name": "big", "list": "big.txt", "answer": "sinkhole"}]
    names = (f"näme{number}.example" for number in range(1_000_000))
    subject.configure(zones=zones, lists={"big.txt": names}, upstreams=[upstream.address])
    for _ in range(20):
        subject.hup()
    for _ in range(signals):
        subject.terminate()
    assert subject.wait_stopped(within=10) == 0
    subject.configure(upstreams=[upstream.address])
    subject.launch()
    assert [order["order_id"] for order in subject.status()["orders"]] == ["B-1"]


def test_a_stopped_daemon_leaves_its_ports_and_its_socket(subject: Subject):
    """The next start finds them free."""
    port = free_port()  # not an ephemeral one: a client of another test must not take it
    subject.start(listen=[f"127.0.0.1:{port}"])
    assert subject.stop() == 0
    assert not os.path.exists(subject.ready["control"])
    for family, kind in ((socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET, socket.SOCK_STREAM)):
        with socket.socket(family, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))


def test_a_daemon_that_was_killed_starts_again(subject: Subject):
    """A control socket without a listener does not mean that a daemon runs."""
    subject.start(orders=[block("B-1", ["blocked.example"])])
    subject.process.kill()
    subject.wait_stopped()
    assert subject.launch()["entries"] == 1
    assert is_sinkholed(subject.query("blocked.example"))
