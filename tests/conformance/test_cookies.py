"""DNS server cookies: a client that returns one has not spoofed its address (RFC 7873, RFC 9018)."""

import re
import time
from collections.abc import Callable

import pytest

from . import wire
from .harness import Subject
from .orders import block
from .siphash import VERSION_1, server_cookie
from .upstreams import StubUpstream

BLOCKED = "blocked.example"
CLIENT = bytes.fromhex("2464c4abcf10c957")
OLD, NEW = "e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962"
STRICT = {"exempt": [], "amplification": 3, "queries_per_second": 100000, "errors_per_second": 100000}
ADDRESSES = [f"192.0.2.{number}" for number in range(101, 117)]
ANSWERS = {"sinkhole": {"action": "sinkhole", "ipv4": ADDRESSES, "ttl": 30}}

# RFC 9018 appendix A: secret, client cookie, client, server cookie.
VECTORS = [
    (OLD, "2464c4abcf10c957", "198.51.100.100", "010000005cf79f111f8130c3eee29480"),
    (OLD, "2464c4abcf10c957", "198.51.100.100", "010000005cf7a871d4a564a1442aca77"),
    (OLD, "fc93fc62807ddb86", "203.0.113.203", "01abcdef5cf78f71a314227b6679ebf5"),
    (OLD, "fc93fc62807ddb86", "203.0.113.203", "010000005cf7a9acf73a7810aca2381e"),
    (NEW, "22681ab97d52c298", "2001:db8:220:1:59de:d0f4:8769:82b8", "010000005cf7c609a6bb79d16625507a"),
]


def cookie_opt(cookie: bytes) -> bytes:
    return wire.opt(options=wire.option(wire.COOKIE_OPTION, cookie))


def cookie_in(reply: wire.Reply) -> bytes:
    return dict(reply.options)[wire.COOKIE_OPTION]


def good(secret: str, age: int = 0, address: str = "127.0.0.1", head: bytes = VERSION_1) -> bytes:
    """The whole cookie of a client that came `age` seconds ago."""
    made = server_cookie(bytes.fromhex(secret), CLIENT, address, int(time.time()) - age, head)
    return CLIENT + made


def put_secrets(subject: Subject, *secrets: str) -> None:
    path = subject.folder / "secrets.txt"
    path.write_text("".join(f"{secret}\n" for secret in secrets))
    path.chmod(0o600)


def start(subject: Subject, *secrets: str, **config: object) -> None:
    put_secrets(subject, *secrets)
    cookies = {"secrets": "secrets.txt"} if secrets else {"secrets": None}
    subject.start(orders=[block("B-1", [BLOCKED])], answers=ANSWERS, cookies=cookies, **config)


def is_whole(reply: wire.Reply) -> bool:
    return reply.rcode == "NOERROR" and reply.addresses == ADDRESSES


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    start(shared_subject, OLD, upstreams=[shared_upstream.address], limits=STRICT)
    return shared_subject


def is_known(subject: Subject, cookie: bytes, **more: object) -> bool:
    """Other clients get at most three times the query here, so that BLOCKED is truncated."""
    reply = subject.query(BLOCKED, edns=cookie_opt(cookie), **more)
    assert reply.truncated or is_whole(reply)
    return not reply.truncated


@pytest.mark.parametrize(("secret", "client", "address", "expected"), VECTORS)
def test_the_cookies_of_these_tests_match_the_vectors_of_the_rfc(
    secret: str, client: str, address: str, expected: str
):
    """RFC 9018 appendix A: what the daemon is held to below is computed as the vectors are."""
    want = bytes.fromhex(expected)
    moment = int.from_bytes(want[4:8])
    assert server_cookie(bytes.fromhex(secret), bytes.fromhex(client), address, moment, want[:4]) == want


# ------- What is answered ----------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("name", [BLOCKED, "free.example"])
def test_a_client_cookie_gets_a_server_cookie_of_version_1(running: Subject, name: str, transport: str):
    """RFC 7873 section 5.2.3, RFC 9018 section 4: client cookie, version, zeros, timestamp, hash."""
    before = int(time.time())
    reply = running.query(name, edns=cookie_opt(CLIENT), transport=transport)
    assert reply.rcode == "NOERROR"
    cookie = cookie_in(reply)
    assert (len(cookie), cookie[:8], cookie[8:12]) == (24, CLIENT, VERSION_1)
    moment = int.from_bytes(cookie[12:16])
    assert before - 1 <= moment <= time.time() + 1
    assert cookie[8:] == server_cookie(bytes.fromhex(OLD), CLIENT, "127.0.0.1", moment)


@pytest.mark.parametrize("name", [BLOCKED, "free.example"])
def test_a_response_has_a_cookie_if_and_only_if_the_query_has(running: Subject, name: str):
    """RFC 7873 section 5.2.1: a client that sends none gets none."""
    codes = {code for code, _ in running.query(name, edns=True, transport="tcp").options}
    assert wire.COOKIE_OPTION not in codes
    assert running.query(name, transport="tcp").opt is None
    codes = {code for code, _ in running.query(name, edns=cookie_opt(CLIENT), transport="tcp").options}
    assert wire.COOKIE_OPTION in codes


def test_a_valid_server_cookie_identifies_the_client(running: Subject):
    """RFC 7873 section 5.2.4: over UDP, from the same address."""
    given = cookie_in(running.query(BLOCKED, edns=cookie_opt(CLIENT)))
    assert is_known(running, given)
    assert cookie_in(running.query(BLOCKED, edns=cookie_opt(given)))[:8] == CLIENT


def test_a_server_cookie_is_valid_for_one_address_only(running: Subject):
    """RFC 9018 section 4.4: the address is part of what is hashed."""
    with running.udp(source="127.0.0.2") as other:
        other.send(wire.query(BLOCKED, edns=cookie_opt(good(OLD))))
        assert wire.read(other.recv(4096)).truncated
        other.send(wire.query(BLOCKED, edns=cookie_opt(good(OLD, address="127.0.0.2"))))
        assert is_whole(wire.read(other.recv(4096)))


def test_a_server_cookie_covers_the_whole_ipv6_address(running: Subject):
    """RFC 9018 section 4.4: 16 octets of it."""
    assert is_known(running, good(OLD, address="::1"), family=6)
    assert not is_known(running, good(OLD), family=6)


# ------- What is no good cookie ------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 7, 9, 15, 41, 64])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_cookie_of_an_invalid_length_is_a_format_error(running: Subject, length: int, transport: str):
    """RFC 7873 section 5.2.2: 8, or 16 to 40 octets."""
    packet = wire.query(BLOCKED, edns=cookie_opt(b"c" * length))
    assert wire.read(running.exchange(packet, transport)).rcode == "FORMERR"


def wrong_hash(cookie: bytes) -> bytes:
    return cookie[:-1] + bytes([cookie[-1] ^ 1])


def other_client(cookie: bytes) -> bytes:
    return bytes([cookie[0] ^ 1]) + cookie[1:]


def other_version(cookie: bytes) -> bytes:
    return cookie[:8] + b"\x02" + cookie[9:]


def other_time(cookie: bytes) -> bytes:
    return cookie[:15] + bytes([cookie[15] ^ 1]) + cookie[16:]


def short(cookie: bytes) -> bytes:
    return cookie[:16]


def long(cookie: bytes) -> bytes:
    return cookie + b"\0" * 16


@pytest.mark.parametrize("forge", [wrong_hash, other_client, other_version, other_time, short, long])
def test_an_unknown_server_cookie_gets_a_new_one(running: Subject, forge: Callable[[bytes], bytes]):
    """RFC 7873 section 5.2.4: as if there were only the client's; service is not refused for it."""
    forged = forge(good(OLD))
    assert not is_known(running, forged)
    reply = running.query(BLOCKED, edns=cookie_opt(forged), transport="tcp")
    assert is_whole(reply)
    fresh = cookie_in(reply)
    assert fresh[:8] == forged[:8]
    assert fresh[8:] == server_cookie(
        bytes.fromhex(OLD), forged[:8], "127.0.0.1", int.from_bytes(fresh[12:16])
    )


@pytest.mark.parametrize(
    ("age", "is_good"), [(0, True), (1700, True), (3500, True), (3700, False), (-200, True), (-400, False)]
)
def test_a_server_cookie_is_valid_for_an_hour_and_five_minutes_early(
    running: Subject, age: int, is_good: bool
):
    """RFC 9018 section 4.3: one hour into the past, five minutes into the future."""
    assert is_known(running, good(OLD, age)) is is_good


def test_a_cookie_older_than_half_an_hour_is_renewed(running: Subject):
    """RFC 9018 section 4.3: so that a client which goes on asking stays known."""
    before = int(time.time())
    reply = running.query(BLOCKED, edns=cookie_opt(good(OLD, 1900)))
    assert is_whole(reply)
    assert before - 1 <= int.from_bytes(cookie_in(reply)[12:16]) <= time.time() + 1


def test_a_wrapped_timestamp_is_expired(running: Subject):
    """RFC 9018 section 4.3: RFC 1982 arithmetic; 0 is neither the future nor now."""
    made = server_cookie(bytes.fromhex(OLD), CLIENT, "127.0.0.1", 0)
    assert not is_known(running, CLIENT + made)


def test_reserved_bits_are_hashed_and_otherwise_ignored(running: Subject):
    """RFC 9018 section 4.2 and appendix A.3: 01abcdef is good, and is answered with zeros."""
    cookie = good(OLD, 1900, head=b"\x01\xab\xcd\xef")
    reply = running.query(BLOCKED, edns=cookie_opt(cookie))
    assert is_whole(reply)
    assert cookie_in(reply)[8:12] == VERSION_1


# ------- Without a question -----------------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_query_for_a_cookie_alone_is_answered_with_it(running: Subject, transport: str):
    """RFC 7873 section 5.4: QDCOUNT 0 with a COOKIE option; NOERROR and nothing else."""
    packet = wire.message(7, wire.RD, additional=[cookie_opt(CLIENT)])
    reply = wire.read(running.exchange(packet, transport))
    assert (reply.qid, reply.rcode, reply.question) == (7, "NOERROR", b"")
    assert (reply.answer, reply.authority, reply.additional) == ((), (), ())
    assert cookie_in(reply)[:8] == CLIENT
    assert is_known(running, cookie_in(reply))


def test_a_query_without_question_and_cookie_is_a_format_error(running: Subject):
    """RFC 9619 section 4, RFC 7873 section 5.4: without a question and without a cookie."""
    for additional in ([], [wire.opt()], [wire.opt(options=wire.option(3))]):
        packet = wire.message(8, wire.RD, additional=additional)
        assert wire.read(running.exchange(packet)).rcode == "FORMERR"


# ------- Secrets -----------------------------------------------------------------------


def test_the_first_secret_signs_and_all_secrets_verify(subject: Subject):
    """RFC 9018 section 5: a rollover has three steps, and no cookie becomes invalid in between."""
    start(subject, OLD, limits=STRICT)

    def signer() -> str:
        made = cookie_in(subject.query(BLOCKED, edns=cookie_opt(CLIENT)))
        moment = int.from_bytes(made[12:16])
        signed = (
            s for s in (OLD, NEW) if made[8:] == server_cookie(bytes.fromhex(s), CLIENT, "127.0.0.1", moment)
        )
        return next(signed)

    assert signer() == OLD
    for secrets, signs, known in (
        ((OLD, NEW), OLD, (OLD, NEW)),
        ((NEW, OLD), NEW, (OLD, NEW)),
        ((NEW,), NEW, (NEW,)),
    ):
        put_secrets(subject, *secrets)
        subject.reload()
        assert signer() == signs
        assert tuple(secret for secret in (OLD, NEW) if is_known(subject, good(secret))) == known


def test_servers_with_one_secret_accept_each_others_cookies(subject: Subject, tmp_path_factory: object):
    """RFC 9018 section 1: that is what version 1 is for (anycast)."""
    start(subject, OLD, limits=STRICT)
    other = Subject(tmp_path_factory.mktemp("other"))
    try:
        start(other, OLD, limits=STRICT)
        assert is_known(other, cookie_in(subject.query(BLOCKED, edns=cookie_opt(CLIENT))))
    finally:
        other.close()


def test_without_a_file_each_process_draws_its_own_secret(subject: Subject):
    """RFC 7873 section 7.1: at least 64 bits of entropy; a restart makes a new one."""
    start(subject, limits=STRICT)
    first = cookie_in(subject.query(BLOCKED, edns=cookie_opt(CLIENT)))
    assert is_known(subject, first)
    subject.restart()
    assert not is_known(subject, first)


@pytest.mark.parametrize(
    ("content", "line"), [("", None), ("e5e973\n", 1), (f"{OLD}\nnot-hex-at-all\n", 2), (f"{OLD}00\n", 1)]
)
def test_a_file_without_valid_secrets_is_refused(subject: Subject, content: str, line: int | None):
    """RFC 9018 section 4.4: 128 bits; and the message does not show what was meant to be secret."""
    subject.configure(cookies={"secrets": "secrets.txt"})
    subject.put_list("secrets.txt", content).chmod(0o600)
    said = subject.serve_refused()
    assert said.code == 4
    assert any(
        "secrets" in f"{problem['file']} {problem['value']} {problem['reason']}" for problem in said.problems
    )
    assert line is None or [problem["line"] for problem in said.problems] == [line]
    assert OLD not in said.stderr + said.stdout


def test_a_file_of_secrets_that_others_may_read_is_refused(subject: Subject):
    """RFC 7873 section 7.1: with the secret, an attacker makes cookies for any address."""
    subject.configure(cookies={"secrets": "secrets.txt"})
    subject.put_list("secrets.txt", [OLD]).chmod(0o644)
    assert "secrets.txt" in subject.serve_refused().stderr


# ------- Real clients --------------------------------------------------------------------


def test_dig_accepts_the_server_cookie(running: Subject):
    """RFC 7873 section 5.3: dig compares the client's part and shows what the server made of it."""
    output = running.dig(BLOCKED, "+cookie=2464c4abcf10c957")
    assert re.search(r"^; COOKIE: 2464c4abcf10c95701000000[0-9a-f]{24} \(good\)$", output, re.MULTILINE)


def test_kdig_accepts_the_server_cookie(running: Subject):
    """RFC 7873 section 5.3."""
    output = running.kdig(BLOCKED, "+cookie=2464c4abcf10c957")
    assert re.search(r"COOKIE: 2464C4ABCF10C957 ?01000000[0-9A-F]{24}", output, re.IGNORECASE)
