"""Client identity forwarding: PROXY protocol version 2, EDNS Client Subnet, or none."""

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port

from . import wire
from .clients import Stream
from .harness import TIMEOUT, Subject, is_forwarded
from .proxied import ProxyHeader
from .tools import tool, wait_for
from .upstreams import Asked, MakeUpstream, StubUpstream, decent

ECS = 8
CLIENT = "127.0.0.2"  # another address than that of the other tests
OFTEN = {"interval_ms": 50}


def start(subject: Subject, upstream: StubUpstream, identity: str, **more: object) -> None:
    subject.start(upstreams=[upstream.address], upstream={"client_identity": identity, **more})


@contextmanager
def client(subject: Subject, address: str = CLIENT) -> Iterator[socket.socket]:
    """A UDP client at an address of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.bind((address, 0))
        sock.connect(("127.0.0.1", subject.ports[4]))
        yield sock


def ask(sock: socket.socket, name: str, qtype: str = "A", **more: object) -> wire.Reply:
    sock.send(wire.query(name, qtype, **more))
    return wire.read(sock.recv(65535))


@pytest.fixture
def proxied(make_upstream: MakeUpstream) -> StubUpstream:
    """An upstream that expects the PROXY protocol."""
    return make_upstream(expects_header=True)


# ------- PROXY protocol ------------------------------------------------------------------


def test_each_datagram_starts_with_a_proxy_header(subject: Subject, proxied: StubUpstream):
    """PROXY protocol section 2.2, in front of each message, as every resolver expects it over UDP."""
    start(subject, proxied, "proxy")
    with client(subject) as one, client(subject, "127.0.0.3") as other, subject.udp(family=6) as six:
        for sock in (one, other, six):
            assert is_forwarded(ask(sock, "free.example"))
        wanted = [
            ProxyHeader("PROXY", "udp", sock.getsockname()[:2], sock.getpeername()[:2])
            for sock in (one, other, six)
        ]
    assert [asked.header for asked in proxied.queries] == wanted


def test_the_proxy_header_has_the_real_destination_of_a_wildcard_listener(
    subject: Subject, proxied: StubUpstream
):
    """A wildcard is no address."""
    subject.start(
        upstreams=[proxied.address], upstream={"client_identity": "proxy"}, listen=["0.0.0.0:0", "[::]:0"]
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(("127.7.7.7", subject.ports[4]))
        assert is_forwarded(ask(sock, "free.example"))
    assert proxied.queries[0].header.asked_at == ("127.7.7.7", subject.ports[4])
    with subject.tcp() as stream:
        stream.send(wire.query("stream.example"))
        assert is_forwarded(stream.reply())
        assert proxied.queries[1].header.client == stream.sock.getsockname()[:2]
    assert proxied.queries[1].header.asked_at == ("127.0.0.1", subject.ports[4])


def test_a_tcp_connection_starts_with_a_proxy_header_and_carries_one_query(
    subject: Subject, proxied: StubUpstream
):
    """The header is sent once, so it applies to everything on the connection."""
    proxied.script = lambda asked: (
        asked.response(flags=wire.QR | wire.RA | wire.TC) if asked.transport == "udp" else decent(asked)
    )
    start(subject, proxied, "proxy", health_check=None)
    with client(subject) as one, client(subject, "127.0.0.3") as other:
        for sock in (one, other, one):
            assert is_forwarded(ask(sock, "large.example"))
        clients = [sock.getsockname()[:2] for sock in (one, other, one)]
    over_tcp = [asked for asked in proxied.queries if asked.transport == "tcp"]
    assert [(asked.header.command, asked.header.transport) for asked in over_tcp] == [("PROXY", "tcp")] * 3
    assert [asked.header.client for asked in over_tcp] == clients
    assert len({asked.source for asked in over_tcp}) == 3


def test_tcp_connections_with_proxy_headers_are_bounded(subject: Subject, proxied: StubUpstream):
    """Bound every count: a query without a connection is still answered, and no upstream is blamed."""
    held: list[Asked] = []

    def hold(asked: Asked) -> bytes | None:
        if asked.transport == "udp":
            return asked.response(flags=wire.QR | wire.RA | wire.TC)
        held.append(asked)
        return None

    proxied.script = hold
    subject.under = [tool("prlimit"), "--nofile=256:256"]
    start(subject, proxied, "proxy", health_check=None, timeout_ms=60_000, tries=1)
    with client(subject) as sock:
        for number in range(60):
            sock.send(wire.query(f"n{number}.example", qid=number))
        wait_for(lambda: held and len(held) + cut_short(subject) == 60, "each is asked or cut short")
        assert len(held) < 30
        for asked in held:
            asked.reply(decent(asked))
        replies = [wire.read(sock.recv(4096)) for _ in range(60)]
    assert sum(is_forwarded(reply) for reply in replies) == len(held)
    assert {reply.truncated for reply in replies if not is_forwarded(reply)} == {True}
    assert subject.metrics().total("dnsblock_upstream_errors_total") == 0


def cut_short(subject: Subject) -> float:
    return subject.metrics().total("dnsblock_truncated_responses_total")


def test_health_checks_have_a_local_proxy_header(subject: Subject, proxied: StubUpstream):
    """PROXY protocol section 2.2: LOCAL is for health checks."""
    start(subject, proxied, "proxy", health_check=OFTEN)
    wait_for(lambda: len(proxied.health_checks) >= 3, "three health checks")
    assert {asked.header for asked in proxied.health_checks} == {ProxyHeader("LOCAL")}
    subject.wait_for_metric("dnsblock_upstream_health_checks_total", at_least=2, result="good")


# ------- Resolvers that read it ----------------------------------------------------------

UNBOUND = """
server:
  interface: 127.0.0.1@{port}
  proxy-protocol-port: {port}
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  so-rcvbuf: 1m
  module-config: "iterator"
  access-control: 127.0.0.0/8 allow
  local-zone: "." static
  access-control-view: 127.0.0.2/32 second
  access-control-view: 127.0.0.3/32 third
view:
  name: second
  local-data: 'who.example. 60 IN A 192.0.2.2'
{large}
view:
  name: third
  local-data: 'who.example. 60 IN A 192.0.2.3'
remote-control:
  control-enable: no
"""
LARGE = "\n".join(f"  local-data: 'who.example. 60 IN TXT \"{n} {'x' * 200}\"'" for n in range(8))
RECURSOR = """
local-address=127.0.0.1
local-port={port}
socket-dir={folder}
config-dir={folder}
proxy-protocol-from=127.0.0.0/8
allow-from=127.0.0.1/32,127.0.0.2/32
auth-zones=.={folder}/root.zone
daemon=no
security-poll-suffix=
threads=1
"""
ZONE = """$ORIGIN .
@ 60 IN SOA ns. hostmaster. 1 3600 600 86400 60
@ 60 IN NS ns.
ns. 60 IN A 192.0.2.53
who.example. 60 IN A 192.0.2.2
"""
DNSDIST = """
setLocal("127.0.0.1:{port}")
setACL("127.0.0.0/8")
setProxyProtocolACL("127.0.0.0/8")
second = newNMG()
second:addMask("127.0.0.2/32")
addAction(QTypeRule(DNSQType.NS), RCodeAction(DNSRCode.NXDOMAIN))
addAction(NetmaskGroupRule(second), SpoofAction("192.0.2.2"))
addAction(AllRule(), SpoofAction("192.0.2.3"))
"""
RESOLVERS = {
    "unbound": (["-d", "-c", "{folder}/unbound.conf"], {"unbound.conf": UNBOUND}),
    "pdns_recursor": (["--config-dir={folder}"], {"recursor.conf": RECURSOR, "root.zone": ZONE}),
    "dnsdist": (
        ["--supervised", "--disable-syslog", "-C", "{folder}/dnsdist.conf"],
        {"dnsdist.conf": DNSDIST},
    ),
}


@contextmanager
def resolver(program: str) -> Iterator[str]:
    """A real resolver that expects the PROXY protocol and has views by client; returns its address."""
    # The Recursor's socket has a path of at most 107 bytes.
    with tempfile.TemporaryDirectory() as short, running(Path(short), program) as address:
        yield address


@contextmanager
def running(folder: Path, program: str) -> Iterator[str]:
    arguments, files = RESOLVERS[program]
    values = {"port": free_port(), "folder": folder, "large": LARGE}
    for name, text in files.items():
        (folder / name).write_text(text.format(**values))
    with (folder / "resolver.out").open("wb") as log:
        command = [tool(program), *(part.format(**values) for part in arguments)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{values['port']}"
    finally:
        process.kill()
        process.wait()
        print((folder / "resolver.out").read_text(errors="replace")[-4000:])


def start_before(subject: Subject, address: str) -> None:
    # A resolver may drop queries of clients outside its ACL: the daemon then waits for its timeouts.
    upstream = {"client_identity": "proxy", "health_check": OFTEN, "timeout_ms": 3000, "tries": 2}
    subject.start(upstreams=[address], upstream=upstream)
    subject.wait_for_metric("dnsblock_upstream_health_checks_total", upstream=address, result="good")
    wait_for(lambda: subject.status()["upstreams_down"] == [], "it is up")


@pytest.mark.parametrize("program", RESOLVERS)
def test_real_resolvers_see_the_client(subject: Subject, program: str):
    """They apply their access control and views to the address in the header; health checks pass, too."""
    with resolver(program) as address:
        start_before(subject, address)
        with client(subject) as second, client(subject, "127.0.0.3") as third:
            assert ask(second, "who.example").addresses == ["192.0.2.2"]
            assert ask(third, "who.example").addresses != ["192.0.2.2"]


def test_a_real_resolver_sees_the_client_over_tcp(subject: Subject):
    """PROXY protocol section 2.2: over TCP the header precedes the first message."""
    with resolver("unbound") as address:
        start_before(subject, address)
        for _ in range(3):
            assert len(ask_over_tcp(subject, CLIENT).answer) == 8
            assert ask_over_tcp(subject, "127.0.0.3").answer == ()


def ask_over_tcp(subject: Subject, source: str) -> wire.Reply:
    place = ("127.0.0.1", subject.ports[4])
    with socket.create_connection(place, timeout=60, source_address=(source, 0)) as sock:
        stream = Stream(sock)
        stream.send(wire.query("who.example", "TXT"))
        return stream.reply()


# ------- EDNS Client Subnet --------------------------------------------------------------


def subnet(address: str, source: int, *, scope: int = 0) -> bytes:
    """The option as a client sends it (RFC 7871 section 6)."""
    packed = socket.inet_aton(address)[: (source + 7) // 8]
    return wire.option(ECS, bytes([0, 1, source, scope]) + packed)


def subnets(upstream: StubUpstream) -> list[list[bytes]]:
    """FAMILY, prefixes and ADDRESS of each query."""
    return [[data for code, data in asked.message.options if code == ECS] for asked in upstream.queries]


def start_telling_subnets(subject: Subject, upstream: StubUpstream, **more: object) -> None:
    start(subject, upstream, "ecs", ecs={"private": "send", **more})


def test_an_upstream_gets_the_network_of_the_client(subject: Subject, upstream: StubUpstream):
    """RFC 7871 section 11.1: 24 bits of an IPv4 address and 56 of an IPv6 one, and scope 0."""
    start_telling_subnets(subject, upstream)
    with client(subject, "127.1.2.3") as sock, subject.udp(family=6) as six:
        assert is_forwarded(ask(sock, "free.example"))
        assert is_forwarded(ask(six, "free.example", edns=True))
    assert subnets(upstream) == [[bytes([0, 1, 24, 0, 127, 1, 2])], [bytes([0, 2, 56, 0, *[0] * 7])]]


def test_the_prefix_lengths_of_ecs_are_configurable(subject: Subject, upstream: StubUpstream):
    """RFC 7871 section 11.1 recommends lengths and leaves them to the operator."""
    start_telling_subnets(subject, upstream, ipv4=20, ipv6=128)
    with client(subject, "127.1.255.3") as sock, subject.udp(family=6) as six:
        ask(sock, "free.example")
        ask(six, "free.example")
    assert subnets(upstream) == [
        [bytes([0, 1, 20, 0, 127, 1, 240])],
        [bytes([0, 2, 128, 0, *[0] * 15, 1])],
    ]


@pytest.mark.parametrize(
    ("option", "sent"),
    [
        (subnet("192.0.2.1", 24), [0, 1, 24, 0, 127, 1, 2]),
        (subnet("192.0.2.1", 32), [0, 1, 24, 0, 127, 1, 2]),
        (subnet("192.0.2.1", 12), [0, 1, 12, 0, 127, 0]),
        (subnet("0.0.0.0", 0), [0, 1, 0, 0]),
        (wire.option(ECS, b"\0\0\0\0"), [0, 1, 0, 0]),  # as some clients say it: of no family
        (wire.option(ECS, b"\0"), [0, 1, 0, 0]),  # out of form
    ],
    ids=["same", "longer", "shorter", "none", "none of no family", "broken"],
)
def test_ecs_of_a_client_is_replaced_and_its_shorter_prefix_is_kept(
    subject: Subject, upstream: StubUpstream, option: bytes, sent: list[int]
):
    """RFC 7871 section 7.1.2: the shorter of the two prefixes; 0 asks to send nothing."""
    start_telling_subnets(subject, upstream)
    with client(subject, "127.1.2.3") as sock:
        assert is_forwarded(ask(sock, "free.example", edns=wire.opt(options=option)))
    assert subnets(upstream) == [[bytes(sent)]]


def test_ecs_does_not_send_private_addresses_by_default(subject: Subject, upstream: StubUpstream):
    """RFC 7871 section 10: they mean nothing elsewhere, and show how this network is laid out."""
    start(subject, upstream, "ecs")
    with client(subject) as sock:
        assert is_forwarded(ask(sock, "free.example", edns=wire.opt(options=subnet("192.0.2.1", 24))))
        assert is_forwarded(ask(sock, "none.example", edns=wire.opt(options=subnet("0.0.0.0", 0))))
    assert subnets(upstream) == [[], [bytes([0, 1, 0, 0])]]


def test_ecs_is_sent_over_tcp_and_its_scope_is_not_passed_on(subject: Subject, upstream: StubUpstream):
    """RFC 7871 section 7.2: what the upstream says of scopes is of its hop."""

    def large(asked: Asked) -> bytes:
        if asked.transport == "udp":
            return asked.response(flags=wire.QR | wire.RA | wire.TC)
        return asked.address(edns=wire.opt(options=subnet("127.1.2.0", 24, scope=24)))

    upstream.script = large
    start(subject, upstream, "ecs", ecs={"private": "send"}, health_check=None)
    with client(subject, "127.1.2.3") as sock:
        reply = ask(sock, "free.example", edns=wire.opt(options=subnet("127.1.2.3", 32)))
    assert is_forwarded(reply)
    assert reply.options == []
    assert subnets(upstream) == [[bytes([0, 1, 24, 0, 127, 1, 2])]] * 2


def test_client_identity_is_off_by_default_and_never_in_health_checks(
    subject: Subject, upstream: StubUpstream
):
    """A client's address stays here."""
    subject.start(upstreams=[upstream.address])
    assert is_forwarded(subject.query("free.example", edns=wire.opt(options=subnet("192.0.2.1", 24))))
    assert subnets(upstream) == [[]]
    assert subject.stop() == 0
    upstream.forget()
    start(subject, upstream, "ecs", ecs={"private": "send"}, health_check=OFTEN)
    wait_for(lambda: upstream.health_checks, "a health check")
    assert upstream.health_checks[0].message.options == []
