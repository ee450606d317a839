"""The primaries of the transfer tests do what the tests need: without that, those would promise nothing."""

import socket
import ssl
from pathlib import Path

import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.tsig
import dns.xfr
import dns.zone
import pytest
from unit.https_server import Authority

from .asking import TIMEOUT
from .clients import Stream
from .primaries import PRIMARIES, ZONE, BindPrimary, Key, RealPrimary
from .scripted_primary import Difference, ScriptedPrimary, ixfr, sends, soa
from .tools import wait_for
from .upstreams import Asked, MakeUpstream

RECORDS = [f"n{number}.example CNAME ." for number in range(30)]
ALGORITHMS = ["hmac-sha256", "hmac-sha384", "hmac-sha512"]


def copy_of(port: int, key: Key | None = None, copy: dns.zone.Zone | None = None) -> dns.zone.Zone:
    """The zone as dnspython transfers it; with a copy, incrementally."""
    zone = dns.zone.Zone(ZONE) if copy is None else copy
    query, _ = dns.xfr.make_query(zone, keyring=None if key is None else key.tsig())
    dns.query.inbound_xfr("127.0.0.1", zone, query, port=port, timeout=TIMEOUT, lifetime=TIMEOUT)
    return zone


def owners(zone: dns.zone.Zone) -> set[str]:
    return {name.to_text() for name in zone.nodes if name != dns.name.empty}


@pytest.mark.parametrize("kind", PRIMARIES)
def test_a_real_primary_serves_differences_and_sends_notify(
    kind: str, tmp_path: Path, make_upstream: MakeUpstream
):
    """A changed file becomes IXFR (RFC 1995) and NOTIFY (RFC 1996): UDP from BIND, TCP from Knot DNS."""
    secondary = make_upstream(answer_notify)
    with PRIMARIES[kind](tmp_path) as primary:
        primary.start(RECORDS, secondaries=[("127.0.0.1", secondary.port)])
        zone = copy_of(primary.port)
        assert len(owners(zone)) == len(RECORDS)
        primary.replace([*RECORDS[1:], "new.example CNAME ."])
        secondary.wait_until(lambda asked: any(notified_serial(one) == primary.serial for one in asked))
        assert {asked.transport for asked in secondary.queries} == {"udp" if kind == "bind" else "tcp"}
        copy_of(primary.port, copy=zone)
        assert owners(zone) == {line.split()[0] for line in [*RECORDS[1:], "new.example CNAME ."]}
        wait_for(lambda: is_incremental(primary), "IXFR in the log of the primary")


def answer_notify(asked: Asked) -> bytes:
    notify = dns.message.from_wire(asked.data)
    assert notify.opcode() == dns.opcode.NOTIFY
    return dns.message.make_response(notify).to_wire()


def notified_serial(asked: Asked) -> int | None:
    """The serial of a NOTIFY, if it has one."""
    answer = dns.message.from_wire(asked.data).answer
    return answer[0][0].serial if answer else None


def is_incremental(primary: RealPrimary) -> bool:
    logged = primary.log()
    assert "AXFR-style IXFR" not in logged
    return "IXFR started" in logged or "IXFR, outgoing" in logged


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", PRIMARIES)
def test_a_real_primary_with_a_key_serves_the_zone_only_with_it(kind: str, algorithm: str, tmp_path: Path):
    """RFC 8945: otherwise a test of a signed transfer would pass without a signature."""
    key = Key(algorithm=algorithm)
    with PRIMARIES[kind](tmp_path) as primary:
        primary.start(RECORDS, key=key)
        assert len(owners(copy_of(primary.port, key))) == len(RECORDS)
        with pytest.raises((dns.xfr.TransferError, dns.tsig.PeerError)):
            copy_of(primary.port)


def test_bind_with_a_certificate_serves_the_zone_over_tls_only(tmp_path: Path, authority: Authority):
    """RFC 9103: otherwise a test of an encrypted transfer would pass in the clear."""
    certificate = authority.issue("primary", "DNS:primary.example")
    with BindPrimary(tmp_path, certificate) as primary:
        primary.start(RECORDS)
        context = ssl.create_default_context(cafile=authority.pem)
        context.set_alpn_protocols(["dot"])
        with (
            socket.create_connection(("127.0.0.1", primary.tls_port), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname="primary.example") as encrypted,
        ):
            stream = Stream(encrypted)
            stream.send(dns.message.make_query(ZONE, "AXFR").to_wire())
            assert len(dns.message.from_wire(stream.receive()).answer) >= len(RECORDS)
        with pytest.raises(dns.xfr.TransferError):
            copy_of(primary.port)


@pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])
def test_the_scripted_primary_is_a_good_one_without_a_script(algorithm: str | None):
    """A test scripts one deviation; all else must be right, also the signatures of many messages."""
    key = None if algorithm is None else Key(algorithm=algorithm)
    records = [f"n{number}.example CNAME ." for number in range(300)]
    with ScriptedPrimary(records, key=key) as primary:
        zone = copy_of(primary.port, key)
        assert len(owners(zone)) == len(records)
        primary.publish([*records[1:], "new.example CNAME ."])
        copy_of(primary.port, key, zone)
        assert "new.example" in owners(zone)
        assert [(one.qtype, one.serial, one.key) for one in primary.queries] == [
            ("AXFR", None, key and key.name),
            ("IXFR", 1, key and key.name),
        ]


def test_the_scripted_primary_sends_its_script():
    """Several differences, split over many messages; and over TLS, with the protocol of ALPN."""
    differences = [
        Difference(number, number + 1, added=(f"a{number}.example CNAME .",)) for number in range(1, 13)
    ]
    with ScriptedPrimary(RECORDS) as primary:
        zone = copy_of(primary.port)
        primary.rules["IXFR"] = sends(ixfr(differences), per_message=1)
        copy_of(primary.port, copy=zone)
        assert {f"a{number}.example" for number in range(1, 13)} <= owners(zone)
        primary.rules["IXFR"] = sends([soa(13)])
        copy_of(primary.port, copy=zone)
        assert primary.count("IXFR") == 2


def test_the_scripted_primary_speaks_tls(authority: Authority):
    """RFC 9103 section 7.1: the protocol of ALPN is `dot`."""
    server = authority.certificate("DNS:primary.example")
    server.set_alpn_protocols(["dot"])
    context = ssl.create_default_context(cafile=authority.pem)
    context.set_alpn_protocols(["dot"])
    with ScriptedPrimary(RECORDS, tls=server) as primary:
        place = ("127.0.0.1", primary.port)
        with (
            socket.create_connection(place, TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname="primary.example") as encrypted,
        ):
            stream = Stream(encrypted)
            stream.send(dns.message.make_query(ZONE, "SOA").to_wire())
            assert dns.message.from_wire(stream.receive()).answer[0][0].serial == 1
        assert primary.handshakes == [("TLSv1.3", "dot")]
        with socket.create_connection(place, TIMEOUT) as plain, pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(plain, server_hostname="primary.example")
        wait_for(lambda: primary.failed_handshakes == 1, "the handshake has failed")
