"""Structured DNS errors: a client that asks gets the reason as JSON, and no forged address."""

import json

import pytest

from . import wire
from .asking import is_sinkholed
from .harness import ORDERS_ZONE, PROFILES, Subject
from .orders import block

BLOCKED, LISTED, FILTERED = "blocked.example", "listed.example", "filtered.example"
NUMBER = "KOMINFO/2017-07-14"
OPTION = 65023
ASKING = wire.opt(options=wire.option(OPTION))
ERRORS = {
    "option": OPTION,
    "contacts": ["mailto:abuse@isp.example", "tel:+62-21-555-0100"],
    "organization": "ISP",
    "language": "en",
}
ZONES = [ORDERS_ZONE, {"name": "malware", "list": "malware.txt", "match": "subtree", "answer": "sinkhole"}]


def start(subject: Subject, errors: dict | None, number: str = NUMBER) -> None:
    profiles = PROFILES | {"wanted": PROFILES["sinkhole"] | {"extended_error": 17}}
    entries = [BLOCKED, "nx.example", {"name": FILTERED, "answer": "wanted"}]
    entries[1] = {"name": "nx.example", "answer": "nxdomain"}
    subject.start(
        zones=ZONES,
        orders=[block(number, entries)],
        answers=profiles,
        lists={"malware.txt": [LISTED]},
        signals={"structured_errors": errors},
    )


@pytest.fixture(scope="module")
def running(shared_subject: Subject) -> Subject:
    start(shared_subject, ERRORS)
    return shared_subject


def text_of(reply: wire.Reply) -> tuple[int, dict]:
    """The only extended error, and its text as I-JSON: an object with each member once (RFC 7493)."""
    ((code, text),) = reply.extended_errors.items()

    def once(pairs: list) -> dict:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    return code, json.loads(text, object_pairs_hook=once)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "code", "numbered"), [(BLOCKED, 16, True), (LISTED, 15, False), (FILTERED, 17, True)]
)
def test_a_query_with_the_option_gets_the_reason_as_json(
    running: Subject, name: str, code: int, numbered: bool, transport: str
):
    """draft-ietf-dnsop-structured-dns-error section 4: c contacts, j why, o who, l in which language."""
    found, text = text_of(running.query(name, edns=ASKING, transport=transport))
    assert found == code
    assert (text["c"], text["o"], text["l"]) == (ERRORS["contacts"], "ISP", "en")
    assert set(text) <= {"c", "j", "o", "l", "s"}
    assert not numbered or NUMBER in text["j"]


def test_a_censored_answer_has_no_sub_error(running: Subject):
    """draft-ietf-dnsop-structured-dns-error section 4: s MUST NOT be sent with Censored (16)."""
    code, text = text_of(running.query(BLOCKED, edns=ASKING))
    assert (code, "s" in text) == (16, False)


@pytest.mark.parametrize("qtype", ["A", "AAAA", "HTTPS", "TXT"])
def test_a_query_with_the_option_gets_no_forged_address(running: Subject, qtype: str):
    """draft-ietf-dnsop-structured-dns-error section 5.2: the sinkhole becomes NODATA, without code 4."""
    reply = running.query(BLOCKED, qtype, edns=ASKING)
    assert reply.is_nodata
    assert list(reply.extended_errors) == [16]


def test_nxdomain_stays_nxdomain(running: Subject):
    """draft-ietf-dnsop-structured-dns-error section 5.2: NXDOMAIN forges no address."""
    reply = running.query("nx.example", edns=ASKING)
    assert (reply.rcode, reply.answer) == ("NXDOMAIN", ())
    assert text_of(reply)[0] == 16


@pytest.mark.parametrize(
    "edns", [wire.opt(), wire.opt(options=wire.option(OPTION - 1))], ids=["none", "other"]
)
def test_a_query_without_the_option_gets_plain_text(running: Subject, edns: bytes):
    """RFC 8914 section 2: the address of the sinkhole, and the number of the order as plain text."""
    reply = running.query(BLOCKED, edns=edns)
    assert is_sinkholed(reply)
    assert reply.extended_errors == {4: "", 16: NUMBER}


def test_the_option_is_ignored_if_switched_off(subject: Subject):
    """RFC 6891 section 6.1.2: unknown options are ignored."""
    start(subject, None)
    reply = subject.query(BLOCKED, edns=ASKING)
    assert is_sinkholed(reply)
    assert reply.extended_errors == {4: "", 16: NUMBER}


def test_the_option_is_not_echoed(running: Subject):
    """Trap 3, draft-ietf-dnsop-structured-dns-error section 5.2: the answer is in the extended error."""
    assert {code for code, _ in running.query(BLOCKED, edns=ASKING).options} == {wire.EDE_OPTION}


def test_text_outside_ascii_is_utf_8(subject: Subject):
    """RFC 7493 section 2.1, RFC 8914 section 2."""
    start(subject, ERRORS | {"organization": 'Penyedia "Ünïcode" \\ Lokal', "language": "id"})
    _, text = text_of(subject.query(BLOCKED, edns=ASKING))
    assert (text["o"], text["l"]) == ('Penyedia "Ünïcode" \\ Lokal', "id")


def test_text_for_people_is_dropped_first_if_it_does_not_fit(subject: Subject):
    """Trap 5, draft-ietf-dnsop-structured-dns-error section 5.2: j and o, and then all of the text."""
    start(subject, ERRORS | {"organization": "O" * 100}, number="N" * 200)
    small = wire.opt(512, options=wire.option(OPTION))
    reply = subject.query(f"{'x' * 60}.{BLOCKED}", edns=small)
    code, text = text_of(reply)
    assert (code, text["c"]) == (16, ERRORS["contacts"])
    assert {"j", "o"}.isdisjoint(text)
    assert (len(reply.raw) <= 512, reply.truncated) == (True, False)
    labels = [b"x" * 63] * 3 + [b"y" * 40, b"blocked", b"example"]
    longest = subject.query(wire.labels_to_wire(labels), edns=small)
    assert not longest.truncated
    assert len(longest.raw) <= 512
    assert longest.extended_errors == {16: ""} or text_of(longest)[1]["c"] == ERRORS["contacts"]


def test_a_text_that_never_fits_is_dropped(subject: Subject):
    """Trap 5, RFC 8914 section 3: the code alone is still useful."""
    contacts = [f"mailto:{character * 100}@isp.example" for character in "abcd"]
    start(subject, ERRORS | {"contacts": contacts})
    reply = subject.query(BLOCKED, edns=wire.opt(512, options=wire.option(OPTION)))
    assert (reply.truncated, reply.extended_errors) == (False, {16: ""})
    assert text_of(subject.query(BLOCKED, edns=ASKING))[1]["c"] == contacts


@pytest.mark.parametrize("data", [b"\x00", b"{}", b"i" * 100], ids=["octet", "json", "long"])
def test_the_option_with_data_counts_as_present(running: Subject, data: bytes):
    """draft-ietf-dnsop-structured-dns-error section 5.1: its presence asks, whatever its data."""
    found, text = text_of(running.query(BLOCKED, edns=wire.opt(options=wire.option(OPTION, data))))
    assert (found, text["o"]) == (16, "ISP")


@pytest.mark.parametrize(
    "contact", ["sips:noc@isp.example", "https://isp.example/", "noc@isp.example", "tel:"]
)
def test_a_contact_is_a_telephone_number_or_a_mail_address(subject: Subject, contact: str):
    """draft-ietf-dnsop-structured-dns-error section 4 (June 2026): only tel: and mailto:."""
    subject.configure(signals={"structured_errors": ERRORS | {"contacts": [contact]}})
    said = subject.serve_refused()
    assert said.code == 4
    assert "must be a tel: or mailto: URI" in said.stderr
