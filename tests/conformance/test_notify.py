"""NOTIFY (RFC 1996) at the daemon's DNS port: only the primaries of a zone are heard, and it costs little."""

import threading
import time
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.tsig
import pytest

from . import wire
from .asking import is_forwarded
from .harness import Subject
from .primaries import ZONE, Key
from .scripted_primary import Difference, ScriptedPrimary, ixfr, sends, waits_for
from .transfers import (
    KEY,
    block_range,
    blocked,
    notifies,
    notify,
    send_notify,
    start,
    wait_open,
    zone_from,
)
from .upstreams import StubUpstream

BASE = block_range(30)
STRANGER = "127.0.0.2"
TRANSPORTS = ["udp", "tcp"]
WRONG = Key(secret="YW5vdGhlciBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25nISE=")
FLOOD = 5000


@pytest.fixture
def primary() -> Iterator[ScriptedPrimary]:
    with ScriptedPrimary(BASE) as server:
        yield server


@pytest.fixture
def signing() -> Iterator[ScriptedPrimary]:
    """A primary with a key."""
    with ScriptedPrimary(BASE, key=KEY) as server:
        yield server


def rcode(response: dns.message.Message) -> str:
    return dns.rcode.to_text(response.rcode())


def assert_not_heard(
    subject: Subject, primary: ScriptedPrimary, *messages: dns.message.Message, **sent: object
) -> list[dns.message.Message]:
    """None of them leads to a query: a good NOTIFY that is sent after them leads to the only one."""
    asked, accepted = primary.count("SOA"), notifies(subject, "accepted")
    responses = [send_notify(subject, message, **sent) for message in messages]
    assert notifies(subject, "accepted") == accepted
    good = notify(key=KEY if primary.signs_with else None)
    assert rcode(send_notify(subject, good)) == "NOERROR"
    primary.wait_for_query("SOA", asked + 1)
    assert primary.count("SOA") == asked + 1
    return responses


# ------- Primaries ------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("serial", [None, 2])
def test_the_zone_is_transferred_after_notify_of_its_primary(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary, transport: str, serial: int | None
):
    """RFC 1996 section 4.7: the response repeats ID, opcode and question; section 3.11: SOA is asked."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish(BASE[1:])
    response = send_notify(subject, notify(serial=serial), transport=transport)
    assert (rcode(response), response.answer) == ("NOERROR", [])
    wait_open(subject, "n0.example")
    assert blocked(subject, "n1.example") == [True]
    assert notifies(subject, "accepted") == 1


def test_the_serial_in_notify_is_not_believed(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """RFC 1996 section 3.11: the answer section is a hint, so that a wrong serial hides no change."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish(BASE[1:])
    for serial in (0, 1, (1 << 32) - 1):
        assert rcode(send_notify(subject, notify(serial=serial))) == "NOERROR"
    wait_open(subject, "n0.example")


def test_the_zone_in_notify_matches_in_any_case(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """RFC 4343; the response has the question unchanged."""
    start(subject, upstream, zone_from(primary.address))
    primary.publish(BASE[1:])
    message = notify(ZONE.upper())
    response = send_notify(subject, message)
    assert rcode(response) == "NOERROR"
    assert response.question[0].name.to_text() == f"{ZONE.upper()}."
    wait_open(subject, "n0.example")


def test_notify_over_ipv6_comes_from_a_primary_there(subject: Subject, upstream: StubUpstream):
    """The address of a primary counts, whatever its port is."""
    with ScriptedPrimary(BASE, host="::1") as primary:
        start(subject, upstream, zone_from(primary.address))
        primary.publish(BASE[1:])
        assert rcode(send_notify(subject, notify())) == "REFUSED"
        with subject.udp(6) as sock:
            message = notify()
            sock.send(message.to_wire())
            assert rcode(dns.message.from_wire(sock.recv(4096))) == "NOERROR"
        wait_open(subject, "n0.example")


# ------- Strangers ------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_notify_of_a_stranger_is_refused(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary, transport: str
):
    """RFC 1996 section 3.10: otherwise anyone could have the primary asked, again and again."""
    start(subject, upstream, zone_from(primary.address))
    message = notify()
    (response,) = assert_not_heard(subject, primary, message, source=STRANGER, transport=transport)
    assert rcode(response) == "REFUSED"
    assert notifies(subject, "refused") == 1


def test_other_addresses_may_notify_if_they_are_configured(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """`notify_from`: a hidden primary, or one that sends from another address. Primaries still may."""
    start(subject, upstream, zone_from(primary.address, notify_from=[f"{STRANGER}/32"]))
    primary.publish(BASE[1:])
    assert rcode(send_notify(subject, notify(), source=STRANGER)) == "NOERROR"
    wait_open(subject, "n0.example")
    primary.publish(BASE[2:])
    assert rcode(send_notify(subject, notify())) == "NOERROR"
    wait_open(subject, "n1.example")
    assert rcode(send_notify(subject, notify(), source="127.0.0.3")) == "REFUSED"


def test_notify_of_an_unknown_zone_is_refused(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """Also of names above and below the zone."""
    start(subject, upstream, zone_from(primary.address))
    messages = [notify(name) for name in ("other.example", "example", f"sub.{ZONE}", ".")]
    responses = assert_not_heard(subject, primary, *messages)
    assert [rcode(one) for one in responses] == ["REFUSED"] * len(messages)
    assert notifies(subject, "refused") == len(messages)


def test_the_primary_of_one_zone_may_not_notify_another(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """Each zone has its own primaries."""
    with ScriptedPrimary(block_range(10, first=100), host="::1") as other:
        zones = [zone_from(primary.address), zone_from(other.address, name="other.example")]
        start(subject, upstream, *zones)
        asked = other.count("SOA")
        (response,) = assert_not_heard(subject, primary, notify("other.example"))
        assert rcode(response) == "REFUSED"
        assert other.count("SOA") == asked


def test_notify_of_another_type_is_a_format_error(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """RFC 1996 section 3.7: QTYPE SOA is the only one in use."""
    start(subject, upstream, zone_from(primary.address))
    (response,) = assert_not_heard(subject, primary, notify(qtype="A"))
    assert rcode(response) == "FORMERR"


def test_a_response_to_notify_gets_no_response(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """RFC 1035 section 4.1.1: two servers that answer each other never stop."""
    start(subject, upstream, zone_from(primary.address))
    message = dns.message.make_response(notify())
    with subject.udp() as sock:
        sock.send(message.to_wire())
        query = wire.query("free.example")
        sock.send(query)
        assert sock.recv(4096)[:2] == query[:2]
    assert notifies(subject, "accepted") == 0


@pytest.mark.parametrize("primaries", ["no zone", "a zone from a file"])
def test_notify_is_not_implemented_without_primaries(
    subject: Subject, upstream: StubUpstream, primaries: str
):
    """RFC 1035 section 4.1.1: as every other opcode, if no zone comes by transfer."""
    zone = {"name": ZONE, "answer": "given", "rpz": {"file": "rpz.zone"}}
    lists = {"rpz.zone": "@ 300 SOA localhost. nobody.invalid. 1 3600 900 604800 60\n@ 300 NS localhost.\n"}
    zones = [] if primaries == "no zone" else [zone]
    start(subject, upstream, *zones, lists=lists)
    for transport in TRANSPORTS:
        assert rcode(send_notify(subject, notify(), transport=transport)) == "NOTIMP"
    assert notifies(subject, "accepted") == notifies(subject, "refused") == 0


# ------- TSIG -----------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("algorithm", ["hmac-sha256", "hmac-sha384", "hmac-sha512"])
def test_a_signed_notify_gets_a_signed_response(
    subject: Subject, upstream: StubUpstream, transport: str, algorithm: str
):
    """RFC 8945 section 5.3: dnspython verifies the response with the MAC of the message."""
    key = Key(algorithm=algorithm)
    with ScriptedPrimary(BASE, key=key) as primary:
        start(subject, upstream, zone_from(primary.address, key=key), keys=[key])
        primary.publish(BASE[1:])
        response = send_notify(subject, notify(key=key), transport=transport)
        assert (rcode(response), response.had_tsig) == ("NOERROR", True)
        assert response.keyname.to_text(omit_final_dot=True) == key.name
        wait_open(subject, "n0.example")
        assert notifies(subject, "accepted") == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_unsigned_notify_is_refused_if_the_zone_has_a_key(
    subject: Subject, upstream: StubUpstream, signing: ScriptedPrimary, transport: str
):
    """A source address of UDP may be spoofed, a signature may not."""
    start(subject, upstream, zone_from(signing.address, key=KEY), keys=[KEY])
    (response,) = assert_not_heard(subject, signing, notify(), transport=transport)
    assert rcode(response) == "REFUSED"
    assert notifies(subject, "refused") == 1


BAD_KEYS = {
    "another secret": (WRONG, dns.rcode.BADSIG),
    "an unknown name": (Key(name="unknown.example"), dns.rcode.BADKEY),
    "another algorithm": (Key(algorithm="hmac-sha512"), dns.rcode.BADKEY),
}


@pytest.mark.parametrize(("key", "error"), BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_notify_with_a_wrong_signature_is_not_heard(
    subject: Subject, upstream: StubUpstream, signing: ScriptedPrimary, key: Key, error: int
):
    """RFC 8945 section 5.2: NOTAUTH, with the reason in an unsigned TSIG record."""
    start(subject, upstream, zone_from(signing.address, key=KEY), keys=[KEY])
    (response,) = assert_not_heard(subject, signing, notify(key=key), verify=False)
    assert (rcode(response), response.tsig_error) == ("NOTAUTH", error)
    assert notifies(subject, "bad_signature") == 1


def test_a_signed_notify_of_a_stranger_is_refused(
    subject: Subject, upstream: StubUpstream, signing: ScriptedPrimary
):
    """Address and key are both required; a replayed message comes from elsewhere."""
    start(subject, upstream, zone_from(signing.address, key=KEY), keys=[KEY])
    message = notify(key=KEY)
    (response,) = assert_not_heard(subject, signing, message, source=STRANGER, verify=False)
    assert rcode(response) == "REFUSED"


# ------- Load -----------------------------------------------------------------------------


def test_a_flood_of_notify_leads_to_few_queries(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """A spoofed source may send any number: the primary must not be flooded, and queries are answered."""
    start(subject, upstream, zone_from(primary.address))
    before, flood_is_over = primary.count("SOA"), threading.Event()
    primary.rules["SOA"] = waits_for(flood_is_over, primary.answer)
    message, began = notify().to_wire(), time.monotonic()
    with subject.udp() as sock:
        for number in range(FLOOD):
            sock.send(message)
            assert sock.recv(4096)[:2] == message[:2]
            if number % 500 == 0:
                assert blocked(subject, "n0.example") == [True]
                assert is_forwarded(subject.query(f"free{number}.example"))
    assert notifies(subject, "accepted") == FLOOD
    primary.publish(BASE[1:])
    flood_is_over.set()
    wait_open(subject, "n0.example")
    primary.publish(BASE[2:])
    send_notify(subject, notify())
    wait_open(subject, "n1.example")
    # At most five queries a second, and those for what was published: however slow the machine is.
    assert primary.count("SOA") - before <= 10 + 5 * (time.monotonic() - began)


def test_a_change_during_a_transfer_is_not_missed(
    subject: Subject, upstream: StubUpstream, primary: ScriptedPrimary
):
    """RFC 1996 section 4.4: a NOTIFY that arrives while the primary is asked leads to another query."""
    start(subject, upstream, zone_from(primary.address))
    may_answer = threading.Event()
    primary.publish(BASE[1:])
    primary.rules["IXFR"] = waits_for(may_answer, sends(ixfr([Difference(1, 2, (BASE[0],))])))
    asked = primary.count("IXFR")
    send_notify(subject, notify())
    primary.wait_for_query("IXFR", asked + 1)
    primary.publish(BASE[2:])
    send_notify(subject, notify())
    primary.rules.clear()
    may_answer.set()
    wait_open(subject, "n0.example", "n1.example")
    assert blocked(subject, "n2.example") == [True]
