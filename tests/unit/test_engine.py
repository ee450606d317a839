"""The engine through its Python face: what it compiles it finds; it answers whatever the interpreter does."""

import ctypes
import gc
import os
import random
import socket
import subprocess
import sys
from ipaddress import ip_address, ip_network

import pytest
from annotated_types import Le

from dnsblock._engine import (
    BUILD_PROFILE,
    MAX_TRIES,
    AccessControl,
    Answer,
    CacheOptions,
    Engine,
    Forwarding,
    ListRefused,
    LocalZones,
    PlacedZone,
    PolicyZone,
    RateLimits,
    Rule,
    Rules,
    Settings,
    Snapshot,
    Suffixes,
    TcpLimits,
    Upstream,
)
from dnsblock.config import UpstreamOptions

MILLION = 1_000_000


def settings(*, tries: int = 1) -> Settings:
    forwarding = Forwarding(
        [Upstream(ip_address("127.0.0.1"), 9, weight=1, order=0)],
        selection="first",
        tries=tries,
        timeout_ms=100,
        max_outstanding=100,
        health_check=None,
        client_identity=None,
        max_payload=1232,
    )
    tcp = TcpLimits(
        max_connections=10,
        max_connections_per_client=10,
        max_connections_per_network=None,
        max_pipelined=10,
        idle_timeout_ms=1000,
        read_timeout_ms=1000,
    )
    return Settings(forwarding, tcp)


def rules() -> Rules:
    loopback = ip_network("127.0.0.0/8")
    everyone = [(loopback.network_address, loopback.prefixlen)]
    return Rules(
        access_control=AccessControl(allow=everyone, drops_others=False),
        rate_limits=RateLimits(
            queries_per_second=0, errors_per_second=0, slip=0, amplification=0, exempt=everyone
        ),
        cache=CacheOptions(
            cache_bytes=1 << 20, max_ttl=86_400, max_negative_ttl=3600, max_stale=0, prefetch=True
        ),
        local_zones=LocalZones(
            special_names=False, private_reverse=False, canary=False, resinfo=None, snapshot_clients=[]
        ),
        cookie_secrets=[bytes(16)],
        max_payload=1232,
        idle_timeout_ms=1000,
        structured_option=None,
        soa=("localhost", "nobody.invalid"),
        suffixes=Suffixes((), (), ()),
        transferred=[],
        dnstap=None,
    )


def sinkhole(reference: str = "") -> Rule:
    return Rule(Answer("sinkhole", ttl=30, addresses=[ip_address("192.0.2.53")]), reference)


def listed_zone(name: str, names: bytes, scope: str) -> PolicyZone:
    """A zone in which all names have one rule."""
    lines = b"".join(b"%s 0 %s\n" % (scope.encode(), line) for line in names.splitlines() if line)
    return PolicyZone.from_entries(name, [sinkhole()], lines)


def snapshot(names: bytes, serial: int = 1) -> Snapshot:
    return snapshot_of(listed_zone("zone", names, "subtree"), serial)


def snapshot_of(zone: PolicyZone, serial: int = 1) -> Snapshot:
    return Snapshot(
        [PlacedZone(zone, next_change_at=None, judges_targets=True, is_shadow=False, is_list=False)], serial
    )


def make_engine() -> Engine:
    return Engine([(ip_address("127.0.0.1"), 0)], 1, settings(), [])


@pytest.fixture
def engine():
    running = make_engine()
    yield running
    running.stop(0)


def ask(address: tuple[str, int], name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.connect(address)
        client.send(b"\x12\x34\x01\x00\x00\x01" + bytes(6) + labels + b"\x00\x00\x01\x00\x01")
        return client.recv(512)


def test_a_list_of_a_million_names_holds_each_and_none_of_a_million_others():
    """One deployed builder silently loses 0.147 % of its names."""
    draw = random.Random(20170714)
    words = (
        "ka",
        "ki",
        "ku",
        "bet",
        "slot",
        "poker",
        "win",
        "net",
        "play",
        "max",
        "pro",
        "hub",
        "tv",
        "film",
    )

    def name(number: int) -> str:
        host = draw.choice(("", "www.", "m.", "a.cdn."))
        return (
            f"{host}{draw.choice(words)}{number:x}{draw.choice(words)}.{draw.choice(('com', 'xyz', 'co.id'))}"
        )

    listed = [name(number) for number in range(MILLION)]
    others = [name(number) for number in range(MILLION, 2 * MILLION)]
    zone = listed_zone("zone", "\n".join(listed).encode(), "subtree")
    assert zone.entries == MILLION
    one_zone = snapshot_of(zone)
    assert all(one_zone.covering(name) for name in listed)
    assert not any(one_zone.covering(name) for name in others)
    assert all(one_zone.covering(f"deep.{name}") for name in listed[:1000])


def test_worker_threads_answer_while_the_interpreter_is_blocked(engine):
    """Worker threads never take the interpreter's lock; nothing in Python can slow them."""
    engine.start(snapshot(b"blocked.example"), rules())
    host, port = engine.addresses()[0]
    client = (
        "import socket, sys, time\n"
        "client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "client.settimeout(45)\n"
        f"client.connect(({host!r}, {port}))\n"
        "query = bytes.fromhex('123401000001000000000000') + b'\\x07blocked\\x07example\\0\\0\\1\\0\\1'\n"
        "print('begin', flush=True)\n"
        "for _ in range(1000):\n"
        "    client.send(query)\n"
        "    client.recv(512)\n"
        "print('done', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", client], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"begin\n"
    # `PyDLL` keeps the interpreter's lock during the call: no thread gets it until the client ends.
    wait = ctypes.PyDLL(None).waitid
    assert wait(os.P_PID, process.pid, ctypes.create_string_buffer(128), os.WEXITED | os.WNOWAIT) == 0
    out, err = process.communicate(timeout=60)
    assert (out, err) == (b"done\n", b"")


def test_publish_is_in_force_when_it_returns(engine):
    """A query that is sent after publish has returned is never judged by the snapshot before."""
    one, two = snapshot(b"one.example"), snapshot(b"two.example", 2)
    engine.start(one, rules())
    address = engine.addresses()[0]
    for _ in range(200):
        for served, blocked, free in (
            (two, "two.example", "one.example"),
            (one, "one.example", "two.example"),
        ):
            engine.publish(served, rules())
            assert ask(address, blocked)[7] == 1
            assert ask(address, free)[7] == 0


def test_memory_of_replaced_snapshots_is_freed(engine):
    """One snapshot is served, and it costs what one costs: a year of publishes must not add up."""
    engine.start(snapshot(b"start.example"), rules())

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    def publish(number: int) -> None:
        names = "\n".join(f"n{number}-{index}.example" for index in range(100_000)).encode()
        engine.publish(snapshot(names, number + 2), rules())
        gc.collect()
        engine.take_events()

    for number in range(3):
        publish(number)
    before = resident()
    for number in range(3, 23):
        publish(number)
    # Twenty of these are 80 MB; what the allocator keeps for itself is far below.
    assert resident() - before < 30 << 20


def test_an_engine_may_be_stopped_twice_and_not_started_twice(engine):
    """As `asyncio.Server`: stop is idempotent; a state that makes no sense is an error."""
    with pytest.raises(RuntimeError):
        engine.publish(snapshot(b"early.example"), rules())
    engine.start(snapshot(b"blocked.example"), rules())
    assert engine.running() == 1
    with pytest.raises(RuntimeError):
        engine.start(snapshot(b"again.example"), rules())
    engine.stop(0)
    engine.stop(0)
    assert engine.running() == 0
    with pytest.raises(RuntimeError):
        engine.publish(snapshot(b"late.example"), rules())


def test_a_port_in_use_names_the_address():
    """A second engine on the same address must not share it, as SO_REUSEPORT alone would let it."""
    first = make_engine()
    host, port = first.addresses()[0]
    with pytest.raises(OSError, match="in use") as caught:
        Engine([(ip_address(host), port)], 1, settings(), [])
    assert caught.value.filename == f"{host}:{port}"
    first.stop(0)


def test_every_invalid_line_is_reported_with_its_number():
    """A list is refused whole, with line, value and reason."""
    with pytest.raises(ListRefused) as caught:
        listed_zone("zone", b"fine.example\n<html>\nno spaces.example\n", "exact")
    problems, total = caught.value.args
    assert total == 2
    assert [(line, value) for line, value, _ in problems] == [
        (2, "exact 0 <html>"),
        (3, "exact 0 no spaces.example"),
    ]


def test_digest_is_the_same_for_the_same_content_and_the_serial_is_not_in_it():
    """The digest is the same on every node that enforces the same thing."""
    one, two = snapshot(b"a.example\nb.example", 1), snapshot(b"B.example.\na.example\n", 7)
    assert one.digest == two.digest
    assert one.digest != snapshot(b"a.example").digest


def test_the_configuration_allows_as_many_tries_as_the_engine():
    """One bound in two languages: what the configuration accepts, the engine must take."""
    bounds = UpstreamOptions.model_fields["tries"].metadata
    assert [bound.le for bound in bounds if isinstance(bound, Le)] == [MAX_TRIES]
    settings(tries=MAX_TRIES)
    with pytest.raises(ValueError, match="out of range"):
        settings(tries=MAX_TRIES + 1)


def test_tests_run_against_a_release_build():
    """Figures of a debug build mean nothing, and so would its timing in these tests."""
    assert BUILD_PROFILE == "release"
