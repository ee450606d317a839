"""EDNS of local responses (trap 3): OPT, extended errors by zone, and how a response is made to fit."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from . import wire
from .harness import PROFILES, Subject, is_sinkholed
from .orders import block

BLOCKED = "blocked.example"
LIST_ZONE = {"name": "malware", "list": "malware.txt", "match": "subtree", "answer": "sinkhole"}


NUMBER = "KOMINFO/2017-07-14"
ACTIONS = ["sinkhole", "nxdomain", "nodata", "refused"]
SETTINGS = ["auto", "none", 15, 16, 17]


@pytest.fixture(scope="module")
def running(shared_subject: Subject) -> Subject:
    """One name for each action, and one for each setting of a profile's extended error."""
    entries = [{"name": f"{action}.example", "answer": action} for action in ACTIONS]
    entries += [{"name": f"error-{setting}.example", "answer": f"error-{setting}"} for setting in SETTINGS]
    profiles = {
        f"error-{setting}": PROFILES["sinkhole"] | {"extended_error": setting} for setting in SETTINGS
    }
    shared_subject.start(orders=[block(NUMBER, [BLOCKED, *entries])], answers=PROFILES | profiles)
    return shared_subject


# ------- OPT -------------------------------------------------------------------


@pytest.mark.parametrize("qtype", ["A", "TXT"])
def test_a_response_has_opt_if_and_only_if_its_query_has(running: Subject, qtype: str):
    """Trap 3, RFC 6891 sections 6.1.1 and 7: also no extended error without it."""
    assert running.query(BLOCKED, qtype).opt is None
    assert running.query(BLOCKED, qtype, edns=True).opt is not None


@pytest.mark.parametrize("payload", [0, 512, 4096, 65535])
@pytest.mark.parametrize("do", [False, True])
def test_opt_has_the_payload_size_of_the_server_and_copies_do(running: Subject, payload: int, do: bool):
    """RFC 6891 section 6.2.3 and RFC 9715: 1232, whatever the client says; RFC 3225: DO is copied."""
    opt = running.query(BLOCKED, edns=wire.opt(payload, do=do)).opt
    assert (opt.owner, opt.rclass) == (".", 1232)
    assert opt.ttl == (wire.DO if do else 0), "version 0, and none of the other flags"


def test_the_payload_size_is_configurable(subject: Subject):
    """RFC 6891 section 6.2.3, `udp.max_payload`."""
    subject.start(orders=[block("B-1", [BLOCKED])], udp={"max_payload": 4096})
    assert subject.query(BLOCKED, edns=True).opt.rclass == 4096


def test_edns_options_of_the_client_are_not_echoed(running: Subject):
    """Trap 3, RFC 6891 section 6.1.1: what we do not know we do not say; client subnet stays here."""
    options = (
        wire.option(8, b"\0\x01\x18\0\xc0\0\x02")
        + wire.option(12, b"\0" * 32)
        + wire.option(65001, b"experiment")
        + wire.option(3)
    )
    reply = running.query(BLOCKED, edns=wire.opt(options=options))
    assert {code for code, _ in reply.options} == {wire.EDE_OPTION}


def test_unknown_flags_of_opt_are_not_copied(running: Subject):
    """RFC 6891 section 6.1.4: Z is zero in what we send."""
    packet = wire.record(b"\0", "OPT", b"", ttl=0x7FFF, rclass=1232)
    assert running.query(BLOCKED, edns=packet).opt.ttl == 0


# ------- Extended errors -----------------------------------------------------------


def test_a_sinkhole_for_an_order_has_extended_errors_4_and_16(running: Subject):
    """RFC 8914 sections 4.5 and 4.17; the text of the policy code is the number of the order."""
    found = running.query(BLOCKED, edns=True).extended_errors
    assert (sorted(found), found[16]) == ([4, 16], NUMBER)


@pytest.mark.parametrize("answer", ["sinkhole", "nxdomain", "nodata", "refused"])
def test_any_other_action_of_an_order_has_extended_error_16(running: Subject, answer: str):
    """Nothing was forged where nothing was given."""
    assert running.query(f"{answer}.example", "TXT", edns=True).extended_errors == {16: NUMBER}


def test_a_list_has_extended_error_15(subject: Subject):
    """RFC 8914 section 4.16: 15, the operator's own rule."""
    subject.start(zones=[LIST_ZONE], lists={"malware.txt": [BLOCKED]})
    assert sorted(subject.query(BLOCKED, edns=True).extended_errors) == [4, 15]
    assert sorted(subject.query(BLOCKED, "TXT", edns=True).extended_errors) == [15]


@pytest.mark.parametrize(
    ("setting", "codes"), [("auto", [16]), ("none", []), (15, [15]), (16, [16]), (17, [17])]
)
def test_the_profile_may_choose_the_extended_error(running: Subject, setting: str | int, codes: list[int]):
    """RFC 8914 section 4: which code fits depends on who ordered the block."""
    reply = running.query(f"error-{setting}.example", "TXT", edns=True)
    assert sorted(reply.extended_errors) == codes


def test_the_extended_error_names_the_order(subject: Subject):
    """RFC 8914 section 2: EXTRA-TEXT; a citizen can look the order up."""
    subject.start(orders=[block("B-1", ["one.example"]), block("B-2", ["two.example"])])
    assert subject.query("a.one.example", edns=True).extended_errors[16] == "B-1"
    assert subject.query("a.two.example", edns=True).extended_errors[16] == "B-2"


# ------- Size ------------------------------------------------------------------------


ADDRESSES = {f"2001:db8::5:{i:x}" for i in range(1, 17)}
LONGEST = wire.labels_to_wire([b"x" * 63, b"y" * 63, b"z" * 63, b"w" * 43, b"blocked", b"example"])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A daemon whose profile has 16 IPv6 addresses: 717 bytes in the answer to the longest name."""
    answers = {"sinkhole": {"action": "sinkhole", "ipv6": sorted(ADDRESSES), "ttl": 30}}
    with closing(Subject(tmp_path_factory.mktemp("many"))) as daemon:
        daemon.start(orders=[block("N" * 100, [BLOCKED])], answers=answers)
        yield daemon


@pytest.mark.parametrize(
    ("payload", "limit"),
    [(None, 512), (0, 512), (512, 512), (600, 600), (716, 716), (1232, 1232), (4096, 1232)],
)
def test_an_udp_answer_never_exceeds_what_client_and_server_allow(
    many: Subject, payload: int | None, limit: int
):
    """Trap 5, RFC 1035 section 4.2.1, RFC 6891 section 6.2.5: 512 without OPT, else the smaller of the two.

    Either TC=1 with nothing of the RRset (RFC 2181 section 9), or as many addresses as fit.
    """
    reply = many.query(LONGEST, "AAAA", edns=False if payload is None else wire.opt(payload))
    assert len(reply.raw) <= limit
    assert (reply.opt is not None) == (payload is not None)
    if reply.truncated:
        assert reply.answer == ()
    else:
        assert reply.answer
        assert set(reply.addresses) <= ADDRESSES
    assert (set(reply.addresses) == ADDRESSES) == (limit >= 1232)


def test_the_same_response_over_tcp_is_complete(many: Subject):
    """Trap 5: over TCP never TC."""
    for edns in (False, wire.opt(512)):
        reply = many.query(LONGEST, "AAAA", transport="tcp", edns=edns)
        assert not reply.truncated
        assert set(reply.addresses) == ADDRESSES


def test_the_text_of_the_extended_error_is_dropped_before_an_address(many: Subject):
    """Trap 5, RFC 8914 section 3: the addresses are the answer, the text only explains it.

    16 addresses, OPT and the two codes are 504 bytes; the order's number is 100 more.
    """
    reply = many.query(BLOCKED, "AAAA", edns=wire.opt(512))
    assert not reply.truncated
    assert set(reply.addresses) == ADDRESSES
    assert reply.extended_errors == {4: "", 16: ""}
    assert many.query(BLOCKED, "AAAA", edns=wire.opt(1232)).extended_errors[16] == "N" * 100


def test_the_longest_name_that_can_be_blocked_is_answered(running: Subject):
    """255 bytes of QNAME leave room for an answer in 512."""
    longest = b"\1a" + LONGEST
    assert len(longest) == 255
    assert is_sinkholed(running.query(longest))
    assert running.query(longest, "TXT").is_nodata
    assert is_sinkholed(running.query(longest, edns=wire.opt(512)))
