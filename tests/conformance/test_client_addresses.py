"""No client address is kept: in no file, log, metric, record or output, in any form.

A run uses every feature that sees clients, from addresses that occur nowhere else. To cover another feature,
add its options to `CONFIGURATIONS`, and its traffic to `Clients`.
"""

import http.client
import ipaddress
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from unit.https_server import Authority

from . import wire
from .dnstap import Capture, Event
from .harness import ISSUER, ORDERS_ZONE, Subject
from .issuing import IssuersApi
from .landing import OPTIONS as LANDING
from .networks import Host
from .orders import block, unblock
from .receivers import Receiver, webhook
from .tools import dnsblock, wait_for
from .upstreams import StubUpstream

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root; CI runs as root")

ALLOWED = ("127.77.203.91", "127.181.94.233", "2001:db8:9d3c:5b71:e2a4:86f7:c95d:3b18")
REFUSED = ("127.146.219.87", "2001:db8:71e6:4fa9:b83d:5c07:96e2:d41f")
ACL = ["127.0.0.1/32", "::1/128", "127.77.0.0/16", "127.181.0.0/16", "2001:db8:9d3c::/48"]
BURST = 200  # queries of one client over its limit

LISTED = {"name": "malware", "list": "malware.txt", "answer": "nodata"}
SHADOW = {"name": "planned", "list": "planned.txt", "answer": "nodata", "mode": "shadow"}
EVERYTHING = {
    "zones": [ORDERS_ZONE, LISTED, SHADOW],
    "lists": {"malware.txt": ["listed.example"], "planned.txt": ["planned.example"]},
    "cache": {"size_mb": 8, "max_stale": 60},
    "limits": {"queries_per_second": 20, "errors_per_second": 5, "exempt": []},
    "exports": [{"file": "names.txt", "format": "text"}],
    "probes": {"servers": ["own"], "every_s": 10},
    "local": {"snapshot_clients": ["127.0.0.1"]},
    "log": {"level": "debug", "format": "json"},
    "landing": LANDING,
}
CONFIGURATIONS: dict[str, dict] = {
    "everything": EVERYTHING,
    "dropping": EVERYTHING | {"access_control": {"allow": ACL, "denied": "drop"}, "limits": {"slip": 0}},
    "clients are named to upstreams": EVERYTHING
    | {"upstream": {"client_identity": "ecs", "ecs": {"ipv4": 32, "ipv6": 128, "private": "send"}}},
    "a log for people": EVERYTHING | {"log": {"level": "debug", "format": "human"}},
    "copies of messages": EVERYTHING | {"dnstap": {"messages": "all"}},
}


# ------- The forms of an address -------


def forms(address: str) -> dict[str, bytes]:
    """Every form in which an address might be stored; texts are in lower case."""
    parsed = ipaddress.ip_address(address)
    packed = parsed.packed
    network = (
        ".".join(address.split(".")[:3]) + "." if parsed.version == 4 else ":".join(address.split(":")[:4])
    )
    texts = {
        "text": address,
        "in full": parsed.exploded,
        "network": network,
        "reverse": parsed.reverse_pointer.rsplit(".", 2)[0],
        "hexadecimal": packed.hex(),
        "hexadecimal, reversed": packed[::-1].hex(),
        "decimal": str(int(parsed)),
        "decimal, reversed": str(int.from_bytes(packed, "little")),
        "bytes as a list": ", ".join(map(str, packed)),
        "bytes as JSON": ",".join(map(str, packed)),
    }
    binary = {"binary": packed, "binary, reversed": packed[::-1]}
    if parsed.version == 6:
        binary["binary /64"] = packed[:8]
    return {form: text.encode() for form, text in texts.items()} | binary


def found_in(data: bytes) -> list[tuple[str, str]]:
    """The addresses in some bytes, each with its form."""
    lower = data.lower()
    return [
        (address, form)
        for address in (*ALLOWED, *REFUSED)
        for form, needle in forms(address).items()
        if needle in (data if form.startswith("binary") else lower)
    ]


@pytest.mark.parametrize("address", [*ALLOWED, *REFUSED])
def test_the_search_finds_every_form_of_an_address(address: str):
    """Otherwise the tests below could not fail."""
    for form, needle in forms(address).items():
        for data in (b"x" + needle + b"\n", (b"x" + needle + b"\n").upper()):
            if data.isupper() and form.startswith("binary"):
                continue
            assert address in {one for one, _ in found_in(data)}, form
    assert found_in(b"127.0.0.1 ::1 192.0.2.53 2001:db8::53 \x7f\x00\x00\x01") == []


# ------- The traffic of clients -------


class Clients:
    """Clients at distinctive addresses, each of which does all that a client can do."""

    def __init__(self, api: IssuersApi) -> None:
        self.api, self.subject = api, api.subject

    def all(self) -> None:
        for address in (*ALLOWED, *REFUSED):
            family = 6 if ":" in address else 4
            self.udp(address, family)
            self.tcp(address, family)
            if family == 4:
                self.http(address)

    def messages(self, address: str) -> Iterator[bytes]:
        """Queries and garbage."""
        for name in ("blocked.example", "listed.example", "planned.example", "open.example", "localhost"):
            for qtype in ("A", "AAAA", "HTTPS", "ANY", "TXT"):
                yield wire.query(name, qtype)
        parsed = ipaddress.ip_address(address)
        subnet = bytes([0, 1 if parsed.version == 4 else 2, parsed.max_prefixlen, 0]) + parsed.packed
        for options in (wire.option(8, subnet), wire.option(10, b"\x01" * 8), wire.option(10, b"\x02" * 24)):
            yield wire.query("open.example", edns=wire.opt(options=options, do=True))
        yield wire.query("serial.dnsblock", "TXT", qclass=3)
        yield wire.query(parsed.reverse_pointer, 12)
        yield wire.query("open.example", opcode=4)  # NOTIFY
        yield wire.query("open.example", opcode=5)  # UPDATE
        yield wire.query("open.example", flags=0x8000)  # a response
        yield wire.query("open.example", edns=wire.opt(version=1))
        yield wire.query("open.example")[:20]  # malformed; random bytes seldom are a query at all
        yield from (b"", b"\x00", os.urandom(11), os.urandom(40), os.urandom(600), b"GET / HTTP/1.1\r\n\r\n")
        yield parsed.packed * 10

    def udp(self, address: str, family: int) -> None:
        with self.subject.udp(family, address) as sock:
            sock.settimeout(0)
            for data in (*self.messages(address), *self.messages(address)):
                self._send(sock, data)
            for _ in range(BURST):
                self._send(sock, wire.query("open.example"))
            answered = self._cookie(address, family) if address in ALLOWED else None
            if answered is not None:
                self._send(sock, wire.query("open.example", edns=wire.opt(options=wire.option(10, answered))))

    def _send(self, sock: socket.socket, data: bytes) -> None:
        with suppress(BlockingIOError, ConnectionError):
            sock.send(data)
        with suppress(BlockingIOError, ConnectionError):
            sock.recv(65535)

    def _cookie(self, address: str, family: int) -> bytes | None:
        """A server cookie (RFC 7873), over TCP, which has no limit."""
        with self.subject.tcp(family, address) as stream:
            stream.send(wire.query("open.example", edns=wire.opt(options=wire.option(10, b"\x03" * 8))))
            return dict(stream.reply().options).get(10)

    def tcp(self, address: str, family: int) -> None:
        with suppress(OSError), self.subject.tcp(family, address) as stream:
            stream.send(*(data for data in self.messages(address) if data))
            stream.sock.sendall(b"\xff\xff half of a message")
        with suppress(OSError), self.subject.tcp(family, address) as stream:
            stream.sock.sendall(os.urandom(300))

    def http(self, address: str) -> None:
        """Every HTTP listener, properly and with garbage."""
        ready = self.subject.ready
        places = [ready["metrics"], ready["api"], *ready["landing"]]
        for place in places:
            host, port = place.rsplit(":", 1)
            for data in (
                b"\x16\x03\x01 garbage",
                b"GET /" + address.encode()[:0] + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            ):
                with suppress(OSError), socket.create_connection((host, int(port)), 30, (address, 0)) as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
                    sock.recv(65535)
        host, port = ready["api"].rsplit(":", 1)
        context = ssl.create_default_context(cafile=self.api.servers.pem)
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
            connection.source_address = (address, 0)
            with closing(connection):
                connection.request("GET", "/v1/orders", headers=headers)
                assert connection.getresponse().status == 401


# ------- The run, and the search -------


@contextmanager
def on_a_host(work: Callable[[], None]) -> Iterator[None]:
    """Does the work on a host that has all of these addresses."""
    host = Host()
    try:
        host.ip("link set lo up")
        for address in (*ALLOWED, *REFUSED):
            if ":" in address:
                host.ip(f"address add {address}/128 dev lo nodad")
        host.inside(work)
        yield
    finally:
        host.close()


def outputs(subject: Subject) -> Iterator[tuple[str, bytes]]:
    """Whatever the running daemon and its commands show."""
    yield "metrics", subject.metrics().text.encode()
    commands = ["status", "source list", "versions", "log show", "order list", "webhook list", "check"]
    commands += ["report transparency", "why open.example", "history blocked.example"]
    for command in commands:
        for flags in ([], ["--json"]):
            words = [dnsblock(), *command.split(), "-c", str(subject.config_path), *flags]
            done = subprocess.run(words, capture_output=True, timeout=120)
            yield command, done.stdout + done.stderr


@pytest.fixture
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capture]:
    """A reader of dnstap, not yet started. It has a folder of its own, as it is outside of the daemon."""
    with closing(Capture(tmp_path_factory.mktemp("tap"))) as reader:
        yield reader


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_client_address_is_in_any_file_log_metric_or_output(
    api: IssuersApi, authority: Authority, capture: Capture, tmp_path: Path, name: str
):
    """As text, in full, reversed, hexadecimal, decimal and binary; whole addresses and their networks."""
    subject = api.subject
    subject.is_executed = True  # in the namespace of the thread
    shown: list[tuple[str, bytes]] = []

    def work() -> None:
        with ExitStack() as stack:
            upstream = stack.enter_context(closing(StubUpstream()))
            receiver = stack.enter_context(Receiver(authority.certificate()))
            config = {"access_control": {"allow": ACL}} | CONFIGURATIONS[name]
            hook = webhook(subject, receiver, authority)
            if "dnstap" in config:
                config["dnstap"] = config["dnstap"] | capture.start().options
            api.start(upstreams=[upstream.address], webhooks=[hook], **config)
            assert api.submit(block("84/2017", ["blocked.example"])).status_code == 201
            Clients(api).all()
            subject.reload()
            assert api.submit(unblock("85/2017", "84/2017")).status_code == 201
            Clients(api).all()
            receiver.wait_for_kind("lifted", "84/2017")
            for outcome in ("blocked", "forwarded", "malformed"):
                subject.wait_for_metric("dnsblock_queries_total", outcome=outcome)
            refused = "dropped" if config["access_control"].get("denied") == "drop" else "refused"
            subject.wait_for_metric("dnsblock_queries_total", outcome=refused)
            subject.wait_for_metric("dnsblock_api_refused_total", code="UNAUTHENTICATED")
            wait_for(lambda: subject.metrics().total("dnsblock_tcp_connections") == 0, "all connections end")
            shown.extend(outputs(subject))
            shown.extend(("event", str(one.body).encode()) for one in receiver.accepted)
            assert subject.stop() == 0

    with on_a_host(work):
        files = [path for path in tmp_path.rglob("*") if path.is_file() and path != subject.config_path]
    names = {path.name for path in files}
    assert {"ledger.jsonl", "lists.sqlite", "stderr.log", "names.txt", "ministry.json"} <= names
    assert not [one for one in names if one.startswith("core")]
    found = {str(path): found_in(path.read_bytes()) for path in files}
    assert {path: hits for path, hits in found.items() if hits} == {}
    assert {what: hits for what, data in shown if (hits := found_in(data))} == {}
    assert ISSUER.encode() in b"".join(data for _, data in shown)
    if "dnstap" in CONFIGURATIONS[name]:
        assert_truncated(capture.end())


def assert_truncated(events: list[Event]) -> None:
    """The reader has the prefixes of all clients that were answered, and no more of any client."""
    prefixes = {
        str(ipaddress.ip_network(f"{address}/{56 if ':' in address else 24}", strict=False)[0])
        for address in (*ALLOWED, *REFUSED)
    }
    assert {"127.0.0.0", "::", *prefixes} >= {event.client[0] for event in events} >= prefixes
    assert {event.client[1] for event in events} == {0}
