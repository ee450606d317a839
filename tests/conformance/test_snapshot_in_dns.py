"""Serial and digest of the snapshot in force as TXT records of class CH (`local.snapshot_clients`)."""

import pytest

from . import wire
from .harness import Subject
from .orders import block, unblock

CH = 3
TXT = 16
NAME = "blocked.example"


def text_of(subject: Subject, what: str, **flags: object) -> str:
    """The text of `serial.dnsblock` or `digest.dnsblock`. Its TTL is 0, so that nobody caches it."""
    reply = subject.query(f"{what}.dnsblock", "TXT", qclass=CH, **flags)
    (record,) = reply.answer
    assert (reply.rcode, reply.authority, reply.extended_errors) == ("NOERROR", (), {})
    assert (record.owner.lower(), record.rtype, record.rclass, record.ttl) == (
        f"{what.lower()}.dnsblock.",
        TXT,
        CH,
        0,
    )
    assert record.rdata[0] == len(record.rdata) - 1, "one string"
    return record.rdata[1:].decode()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_serial_and_digest_are_those_of_status(subject: Subject, transport: str):
    """RFC 4892 section 2: a query identifies which of many instances answers. Here also: what it enforces."""
    subject.start(local={"snapshot_clients": ["127.0.0.1"]})
    seen: list[tuple[str, str]] = []
    for order in (block("B-1", [NAME]), unblock("U-1", "B-1")):
        subject.put_order(order)
        subject.reload()
        status = subject.status()
        found = (
            text_of(subject, "serial", transport=transport),
            text_of(subject, "digest", transport=transport),
        )
        assert found == (str(status["serial"]), status["digest"])
        seen.append(found)
    assert int(seen[0][0]) < int(seen[1][0])
    assert seen[0][1] != seen[1][1], "the block is lifted"
    assert text_of(subject, "SERIAL", edns=True, transport=transport) == seen[1][0]


def test_dig_shows_both(subject: Subject):
    """As an operator asks."""
    subject.start(local={"snapshot_clients": ["127.0.0.1"]})
    for what in ("serial", "digest"):
        found = subject.dig("+short", "-c", "CH", "-t", "TXT", f"{what}.dnsblock")
        assert found == f'"{subject.status()[what]}"\n'


@pytest.mark.parametrize("clients", [None, [], ["192.0.2.0/24", "::1"]])
def test_other_clients_are_refused(subject: Subject, clients: list[str] | None):
    """Nobody may ask unless it is configured."""
    subject.start(**({} if clients is None else {"local": {"snapshot_clients": clients}}))
    for what in ("serial", "digest"):
        reply = subject.query(f"{what}.dnsblock", "TXT", qclass=CH, edns=True)
        assert (reply.rcode, reply.answer) == ("REFUSED", ())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("denied", ["refuse", "drop"])
def test_a_monitor_need_not_be_a_client_of_the_resolver(subject: Subject, denied: str, transport: str):
    """It may ask for the snapshot, and for nothing else."""
    access = {"allow": ["127.9.9.0/24"], "denied": denied}
    subject.start(local={"snapshot_clients": ["127.0.0.1"]}, access_control=access)
    assert text_of(subject, "serial", transport=transport) == str(subject.status()["serial"])
    if denied == "drop":
        assert_only_the_last_is_answered(subject)
        return
    for name, qclass in ((NAME, 1), ("version.bind", CH), ("serial.dnsblock", 1)):
        reply = subject.query(name, "TXT", qclass=qclass, edns=True, transport=transport)
        assert (reply.rcode, list(reply.extended_errors)) == ("REFUSED", [18])


def assert_only_the_last_is_answered(subject: Subject) -> None:
    """Queries of one flow are answered in order, so the first response is that for the last one."""
    with subject.udp() as sock:
        for name, qclass in ((NAME, 1), ("version.bind", CH), ("serial.dnsblock", 1)):
            sock.send(wire.query(name, "TXT", qclass=qclass))
        good = wire.query("serial.dnsblock", "TXT", qclass=CH)
        sock.send(good)
        assert sock.recv(4096)[:2] == good[:2]


@pytest.mark.parametrize(
    ("name", "qtype", "qclass"),
    [
        ("version.bind", "TXT", CH),
        ("dnsblock", "TXT", CH),
        ("x.serial.dnsblock", "TXT", CH),
        ("serial.dnsblock", "A", CH),
        ("serial.dnsblock", "TXT", 4),
    ],
)
def test_everything_else_of_another_class_is_refused(subject: Subject, name: str, qtype: str, qclass: int):
    """Only these two names are known there."""
    subject.start(local={"snapshot_clients": ["127.0.0.1"]})
    reply = subject.query(name, qtype, qclass=qclass)
    assert (reply.rcode, reply.answer) == ("REFUSED", ())


def test_any_gets_the_text_too(subject: Subject):
    """It asks for all records of the name, and this is the only one."""
    subject.start(local={"snapshot_clients": ["127.0.0.1"]})
    reply = subject.query("serial.dnsblock", "ANY", qclass=CH)
    assert [record.rtype for record in reply.answer] == [TXT]


def test_a_reload_grants_and_withdraws_the_right(subject: Subject):
    """As any other option that needs no restart."""
    subject.start()
    for clients, rcode in ((["127.0.0.1"], "NOERROR"), ([], "REFUSED")):
        subject.configure(local={"snapshot_clients": clients})
        subject.reload()
        assert subject.query("serial.dnsblock", "TXT", qclass=CH).rcode == rcode
