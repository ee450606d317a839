"""Zone transfer with TSIG (RFC 8945) and over TLS (RFC 9103): only the configured primary is believed."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port
from unit.https_server import Authority

from .asking import is_forwarded
from .harness import Subject
from .lists import sources
from .primaries import PRIMARIES, BindPrimary, Key, RealPrimary
from .scripted_primary import Asked, Rule, ScriptedPrimary, Sent, Unsigned, axfr
from .tools import wait_for
from .transfers import (
    KEY,
    ZONE,
    assert_fails,
    assert_refreshes,
    block_range,
    blocked,
    blocks,
    put_secret,
    start,
    transfers,
    wait_serial,
    zone_from,
)
from .upstreams import StubUpstream

BASE = block_range(30)
ALGORITHMS = ["hmac-sha256", "hmac-sha384", "hmac-sha512"]
WRONG = Key(secret="YW5vdGhlciBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25nISE=")
NAME = "primary.example"


@pytest.fixture(params=PRIMARIES)
def primary(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealPrimary]:
    """BIND, then Knot DNS; not yet started."""
    with PRIMARIES[request.param](tmp_path) as server:
        yield server


@pytest.fixture
def scripted() -> Iterator[ScriptedPrimary]:
    with ScriptedPrimary(BASE, key=KEY) as server:
        yield server


# ------- TSIG -----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_transfer_and_notify_are_signed_with_each_algorithm(
    subject: Subject, upstream: StubUpstream, primary: RealPrimary, algorithm: str
):
    """RFC 8945 section 6: AXFR, NOTIFY and IXFR of a primary that accepts nothing without the key."""
    key, port = Key(algorithm=algorithm), free_port()
    primary.start(BASE, key=key, secondaries=[("127.0.0.1", port)])
    start(subject, upstream, zone_from(primary.address, key=key), port=port, keys=[key])
    assert blocked(subject, "n0.example") == [True]
    primary.replace([*BASE[1:], *blocks("new.example")])
    wait_serial(subject, 2)
    assert blocked(subject, "n0.example", "n1.example", "new.example") == [False, True, True]
    assert (transfers(subject, "axfr"), transfers(subject, "ixfr")) == (1, 1)
    subject.wait_for_metric("dnsblock_notifies_total", result="accepted")


FOREIGN = {
    "another secret": WRONG,
    "an unknown name": Key(name="unknown.example"),
    "another algorithm": Key(algorithm="hmac-sha512"),
}


@pytest.mark.parametrize("own", FOREIGN.values(), ids=FOREIGN)
def test_a_key_that_the_primary_does_not_accept_is_reported(
    subject: Subject, upstream: StubUpstream, primary: RealPrimary, own: Key
):
    """RFC 8945 section 5.3.2: BADSIG or BADKEY. The operator must see that the key is the reason."""
    primary.start(BASE, key=KEY)
    zone = zone_from(primary.address, key=own, source={"missing": "start"})
    start(subject, upstream, zone, keys=[own])
    assert_fails(subject, "TSIG")
    assert is_forwarded(subject.query("n0.example"))


def test_a_primary_that_demands_a_key_refuses_the_transfer(
    subject: Subject, upstream: StubUpstream, primary: RealPrimary
):
    """Without `key`, the reason is the RCODE of the primary."""
    primary.start(BASE, key=KEY)
    start(subject, upstream, zone_from(primary.address, source={"missing": "start"}))
    assert_fails(subject, "RCODE")


def test_every_query_to_the_primary_is_signed(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """The scripted primary verifies each of them."""
    start(subject, upstream, zone_from(scripted.address, key=KEY), keys=[KEY])
    scripted.publish(BASE[1:])
    assert_refreshes(subject)
    assert {one.qtype for one in scripted.queries} == {"SOA", "AXFR", "IXFR"}
    assert {one.key for one in scripted.queries} == {KEY.name}


def unsigned_after(signed: int, per_message: int) -> Rule:
    """A transfer with signatures in the first messages only."""

    def rule(asked: Asked) -> Iterator[Sent]:
        records = axfr(2, block_range(400))
        for number, message in enumerate(asked.responses(records, per_message)):
            yield message if number < signed else Unsigned(message)

    return rule


def test_some_messages_of_a_transfer_may_be_unsigned(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary
):
    """RFC 8945 section 5.3.1: a later signature covers up to 99 messages before it."""

    def rule(asked: Asked) -> Iterator[Sent]:
        messages = list(asked.responses(axfr(1, block_range(400)), 10))
        for number, message in enumerate(messages):
            yield message if number in (0, len(messages) - 1) else Unsigned(message)

    scripted.rules["AXFR"] = rule
    start(subject, upstream, zone_from(scripted.address, key=KEY), keys=[KEY])
    assert blocked(subject, "n0.example", "n399.example") == [True, True]


UNSIGNED = {
    "no message": unsigned_after(0, 1000),
    "not the last message": unsigned_after(1, 100),
    "more than 99 messages": unsigned_after(1, 1),
}


@pytest.mark.parametrize("rule", UNSIGNED.values(), ids=UNSIGNED)
def test_a_transfer_without_the_required_signatures_changes_nothing(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary, rule: Rule
):
    """RFC 8945 section 5.3.1: first, last, and every hundredth message. Others could be of an attacker."""
    start(subject, upstream, zone_from(scripted.address, key=KEY), keys=[KEY])
    scripted.publish(BASE[1:])
    scripted.rules |= {"AXFR": rule, "IXFR": rule}
    assert_fails(subject, "TSIG")
    assert blocked(subject, "n0.example", "n29.example", "n399.example") == [True, True, False]
    scripted.rules.clear()
    assert_refreshes(subject)
    assert blocked(subject, "n0.example", "n29.example") == [False, True]


@pytest.mark.parametrize("key", [None, WRONG, Key(name="other.example")], ids=["none", "wrong", "other"])
def test_responses_that_another_server_has_signed_change_nothing(
    subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary, key: Key | None
):
    """An attacker at the address of the primary does not have the secret."""
    start(subject, upstream, zone_from(scripted.address, key=KEY), keys=[KEY])
    scripted.publish(BASE[1:])
    scripted.signs_with = key
    assert_fails(subject, "TSIG")
    assert blocked(subject, "n0.example", "n1.example") == [True, True]
    scripted.signs_with = KEY
    assert_refreshes(subject)
    assert blocked(subject, "n0.example", "n1.example") == [False, True]


SECRETS = {
    "others may read it": (KEY.secret, 0o644),
    "not base64": ("not base64!", 0o600),
    "two lines": (f"{KEY.secret}\n{KEY.secret}", 0o600),
    "empty": ("", 0o600),
}


@pytest.mark.parametrize(("text", "mode"), SECRETS.values(), ids=SECRETS)
def test_a_file_that_is_no_secret_is_refused(subject: Subject, text: str, mode: int):
    """`dnsblock check` reports it before anything is enforced, and never prints the secret."""
    subject.configure(zones=[zone_from("127.0.0.1:5300", key=KEY)], inbox=None)
    path = put_secret(subject, KEY)
    path.write_text(f"{text}\n")
    path.chmod(mode)
    said = subject.cli("check", as_json=False)
    assert said.code != 0
    assert path.name in said.stdout + said.stderr, said
    assert KEY.secret not in said.stdout + said.stderr


def test_the_secret_is_never_shown(subject: Subject, upstream: StubUpstream, scripted: ScriptedPrimary):
    """Logs and outputs are sent around."""
    start(subject, upstream, zone_from(scripted.address, key=KEY), keys=[KEY])
    scripted.signs_with = WRONG
    assert_fails(subject, "TSIG")
    texts = [subject.stderr(), str(sources(subject)), str(subject.cli("check")), str(subject.status())]
    assert not any(KEY.secret in text for text in texts)


# ------- TLS ------------------------------------------------------------------------------


def test_a_zone_is_transferred_over_tls(
    subject: Subject, upstream: StubUpstream, authority: Authority, tmp_path: Path
):
    """RFC 9103, with TSIG inside, from a BIND that serves nothing in the clear; NOTIFY is not encrypted."""
    certificate, port = authority.issue("primary", f"DNS:{NAME}"), free_port()
    with BindPrimary(tmp_path, certificate) as primary:
        primary.start(BASE, key=KEY, secondaries=[("127.0.0.1", port)])
        zone = zone_from(primary.address, key=KEY, tls=(authority.pem, NAME))
        start(subject, upstream, zone, port=port, keys=[KEY])
        assert blocked(subject, "n0.example") == [True]
        primary.replace([*BASE[1:], *blocks("new.example")])
        wait_serial(subject, 2)
        assert blocked(subject, "n0.example", "n1.example", "new.example") == [False, True, True]
        assert (transfers(subject, "axfr"), transfers(subject, "ixfr")) == (1, 1)


def encrypted(authority: Authority, names: str = f"DNS:{NAME}", days: int = 2) -> ssl.SSLContext:
    context = authority.certificate(names, days)
    context.set_alpn_protocols(["dot"])
    return context


def test_tls_is_version_1_3_and_names_its_protocol(
    subject: Subject, upstream: StubUpstream, authority: Authority
):
    """RFC 9103 sections 7.1 and 8.1: ALPN `dot`, TLS 1.3."""
    with ScriptedPrimary(BASE, tls=encrypted(authority)) as primary:
        start(subject, upstream, zone_from(primary.address, tls=(authority.pem, NAME)))
        assert blocked(subject, "n0.example") == [True]
        assert set(primary.handshakes) == {("TLSv1.3", "dot")}


def test_an_older_version_of_tls_is_refused(subject: Subject, upstream: StubUpstream, authority: Authority):
    """RFC 9103 section 8.1: TLS 1.2 would show the names of the certificate."""
    context = encrypted(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with ScriptedPrimary(BASE, tls=context) as primary:
        zone = zone_from(primary.address, tls=(authority.pem, NAME), source={"missing": "start"})
        start(subject, upstream, zone)
        assert_fails(subject, "TLS")
        assert primary.queries == []


def test_a_server_without_the_protocol_of_dns_is_refused(
    subject: Subject, upstream: StubUpstream, authority: Authority
):
    """RFC 9103 section 7.1: a web server with the same certificate is no primary."""
    context = authority.certificate(f"DNS:{NAME}")
    context.set_alpn_protocols(["http/1.1"])
    with ScriptedPrimary(BASE, tls=context) as primary:
        zone = zone_from(primary.address, tls=(authority.pem, NAME), source={"missing": "start"})
        start(subject, upstream, zone)
        assert_fails(subject, "TLS")
        assert primary.queries == []


@pytest.mark.parametrize("wrong", ["CA", "name", "address instead of the name", "expired"])
def test_a_certificate_that_is_not_the_primarys_changes_nothing(
    subject: Subject, upstream: StubUpstream, authority: Authority, client_authority: Authority, wrong: str
):
    """RFC 9103 section 9.3: strict TLS. The name is the configured one, never the address."""
    names = {"name": "DNS:other.example", "address instead of the name": "IP:127.0.0.1"}
    own = client_authority if wrong == "CA" else authority
    context = encrypted(own, names.get(wrong, f"DNS:{NAME}"), days=0 if wrong == "expired" else 2)
    with ScriptedPrimary(BASE, tls=context) as primary:
        zone = zone_from(primary.address, tls=(authority.pem, NAME), source={"missing": "start"})
        start(subject, upstream, zone)
        assert_fails(subject, "TLS")
        assert primary.queries == []
        assert is_forwarded(subject.query("n0.example"))


def test_a_primary_without_tls_is_refused(subject: Subject, upstream: StubUpstream, authority: Authority):
    """Nothing is sent in the clear where `tls` is configured."""
    with ScriptedPrimary(BASE) as primary:
        zone = zone_from(primary.address, tls=(authority.pem, NAME), source={"missing": "start"}, timeout_s=1)
        start(subject, upstream, zone)
        wait_for(lambda: sources(subject)[ZONE]["fetch_error"], "the transfer has failed")
        assert primary.queries == []
        assert is_forwarded(subject.query("n0.example"))


def test_a_missing_file_of_the_ca_is_refused(subject: Subject):
    """`dnsblock check` reports the file."""
    zone = zone_from("127.0.0.1:853", tls=(subject.folder / "missing.pem", NAME))
    subject.configure(zones=[zone], inbox=None)
    said = subject.cli("check", as_json=False)
    assert said.code != 0
    assert "missing.pem" in said.stdout + said.stderr, said
