"""Responses for a blocked name: every type and action, header, EDNS, SOA and size."""

import pytest

from . import wire
from .harness import (
    ORDERS_ZONE,
    PROFILES,
    SINKHOLE4,
    SINKHOLE6,
    Subject,
    assert_silent,
    is_forwarded,
    is_sinkholed,
)
from .orders import block, exempt
from .upstreams import StubUpstream

BLOCKED = "blocked.example"
TYPES = [
    "A",
    "AAAA",
    "HTTPS",
    "SVCB",
    "TXT",
    "MX",
    "NS",
    "SOA",
    "DS",
    "DNSKEY",
    "RRSIG",
    "NSEC",
    "CNAME",
    "TYPE65280",
]
NEGATIVE = [qtype for qtype in TYPES if qtype not in ("A", "AAAA")]
ACTIONS = ["sinkhole", "nxdomain", "nodata", "refused", "landing", "drop", "truncate", "passthru"]
ANSWERS = PROFILES | {"landing": {"action": "cname", "target": "landing.example.", "ttl": 30}}


def name_for(action: str) -> str:
    return f"{action}.blocked.example"


def is_nxdomain(reply: wire.Reply) -> bool:
    return reply.rcode == "NXDOMAIN" and not reply.answer and reply.soa is not None


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    """One name for each action, all in one order of the ministry."""
    entries = [{"name": name_for(action), "answer": action} for action in ACTIONS]
    order = block("B-1", [BLOCKED, *entries])
    shared_subject.start(orders=[order], answers=ANSWERS, upstreams=[shared_upstream.address])
    return shared_subject


# ------- Types and actions ----------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("qtype", TYPES)
def test_every_type_of_a_blocked_name_is_answered_here(
    running: Subject, seen: StubUpstream, qtype: str, transport: str
):
    """Traps 1 and 13: no type, also none for DNSSEC, opens the name; and the upstream never hears of it."""

    def ask(action: str) -> wire.Reply:
        return running.query(name_for(action), qtype, transport=transport, edns=wire.opt(do=True))

    sinkholed = ask("sinkhole")
    if qtype in ("A", "AAAA"):
        assert sinkholed.addresses == [SINKHOLE4 if qtype == "A" else SINKHOLE6]
        assert sinkholed.ttls == {30}
    else:
        assert sinkholed.is_nodata
    assert is_nxdomain(ask("nxdomain"))
    assert ask("nodata").is_nodata
    refused = ask("refused")
    assert (refused.rcode, refused.answer) == ("REFUSED", ())
    landing = ask("landing")
    assert (landing.rcode, landing.target, landing.answer[0].ttl) == ("NOERROR", "landing.example.", 30)
    assert landing.answer[0].owner == "landing.blocked.example."
    assert [asked.name for asked in seen.queries if asked.name != "landing.example"] == []


@pytest.mark.parametrize("action", ["sinkhole", "nxdomain", "nodata", "refused"])
def test_any_for_a_blocked_name_is_answered_here(running: Subject, seen: StubUpstream, action: str):
    """RFC 8482 section 4: a small answer, and none of the upstream's."""
    reply = running.query(name_for(action), "ANY")
    assert reply.rcode == {"nxdomain": "NXDOMAIN", "refused": "REFUSED"}.get(action, "NOERROR")
    assert set(reply.addresses) <= {SINKHOLE4, SINKHOLE6}
    assert seen.queries == []


@pytest.mark.parametrize("qtype", ["A", "HTTPS"])
def test_drop_sends_no_response(running: Subject, seen: StubUpstream, qtype: str):
    """RPZ draft section 3.4: DROP; a later query on the same socket is answered first."""
    assert_silent(running, wire.query(name_for("drop"), qtype), wire.query(f"deep.{name_for('drop')}", qtype))
    with running.tcp() as stream:
        behind = wire.query(BLOCKED)
        stream.send(wire.query(name_for("drop"), qtype), behind)
        assert stream.reply().qid == int.from_bytes(behind[:2])
    assert seen.queries == []


def test_truncate_sends_the_client_to_tcp_and_the_upstream_answers_there(
    running: Subject, seen: StubUpstream
):
    """RPZ's TCP-Only (draft-vixie-dnsop-dns-rpz section 3.5): TC=1 and nothing else over UDP."""
    reply = running.query(name_for("truncate"), edns=True)
    assert reply.truncated
    assert (reply.rcode, reply.answer, reply.authority, reply.additional) == ("NOERROR", (), (), ())
    assert reply.opt is not None
    assert seen.queries == []
    assert is_forwarded(running.query(name_for("truncate"), transport="tcp"))


def test_passthru_is_answered_by_the_upstream(running: Subject):
    """RPZ draft section 3.3: PASSTHRU; the name is as if no zone listed it."""
    assert is_forwarded(running.query(name_for("passthru")))


def test_a_sinkhole_with_ipv4_only_answers_nodata_for_aaaa(subject: Subject, upstream: StubUpstream):
    """Trap 2 (dnsdist forwards here, pdns#11806): an address of the upstream would open the name."""
    answers = {"sinkhole": {"action": "sinkhole", "ipv4": [SINKHOLE4], "ttl": 30}}
    subject.start(orders=[block("B-1", [BLOCKED])], answers=answers, upstreams=[upstream.address])
    assert is_sinkholed(subject.query(BLOCKED))
    assert subject.query(BLOCKED, "AAAA").is_nodata
    assert upstream.queries == []


def test_a_sinkhole_with_many_addresses_answers_them_all(subject: Subject):
    """RFC 2181 section 5: an RRset is returned as a whole."""
    addresses = [f"192.0.2.{i}" for i in range(1, 9)]
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        answers={"sinkhole": {"action": "sinkhole", "ipv4": addresses, "ttl": 60}},
    )
    reply = subject.query(BLOCKED)
    assert sorted(reply.addresses) == sorted(addresses)
    assert reply.ttls == {60}


@pytest.mark.parametrize("flags", [wire.RD, wire.RD | wire.CD, wire.CD, wire.RD | wire.AD], ids=hex)
@pytest.mark.parametrize("do", [False, True])
def test_dnssec_flags_do_not_bypass_a_block(running: Subject, seen: StubUpstream, flags: int, do: bool):
    """Trap 13: BIND lets DO=1 pass by default (break-dnssec), and once let CD=1 (gl#3247)."""
    assert is_sinkholed(running.query(BLOCKED, flags=flags, edns=wire.opt(do=do)))
    assert seen.queries == []


# ------- Header and question ----------------------------------------------------


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("action", ["sinkhole", "nxdomain", "nodata", "refused", "landing"])
@pytest.mark.parametrize("asked", [0, wire.RD, wire.CD, wire.RD | wire.CD | wire.AD | wire.Z], ids=hex)
def test_the_header_of_a_local_response(running: Subject, asked: int, action: str, transport: str):
    """Trap 6, RFC 1035 section 4.1.1, RFC 4035 section 3.2: RD and CD copied, RA set, all else clear."""
    reply = running.query(name_for(action), "TXT", flags=asked, transport=transport)
    assert reply.flags & 0xFFF0 == wire.QR | wire.RA | (asked & (wire.RD | wire.CD))


@pytest.mark.parametrize("action", ["sinkhole", "nxdomain", "landing"])
def test_the_question_comes_back_in_the_case_of_the_client(running: Subject, action: str):
    """Trap 4 (draft-vixie-dnsext-dns0x20): owners of the answer are the question's, so its case is theirs."""
    mixed = f"wWw.{name_for(action)}".swapcase()
    reply = running.query(mixed)
    assert reply.question == wire.question(mixed)
    assert [record.owner for record in reply.answer[:1]] in ([], [f"{mixed}."])


def test_the_owner_of_an_answer_is_a_pointer_to_the_question(running: Subject):
    """Trap 4: 0xC00C, so that no case and no byte can differ."""
    reply = running.query(BLOCKED)
    assert reply.raw[reply.answer[0].offset :][:2] == b"\xc0\x0c"


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_local_responses_are_the_same_over_every_transport_and_family(
    running: Subject, family: int, transport: str
):
    """One code path answers UDP and TCP over IPv4 and IPv6."""
    assert is_sinkholed(running.query(BLOCKED, transport=transport, family=family))
    assert is_nxdomain(running.query(name_for("nxdomain"), "MX", transport=transport, family=family))


# ------- Negative answers ---------------------------------------------------------


@pytest.mark.parametrize("qtype", NEGATIVE)
def test_a_negative_answer_carries_the_soa_of_the_matched_entry(running: Subject, qtype: str):
    """Trap 7, RFC 2308 sections 3 and 5: owner the entry, both TTLs the profile's, the snapshot's serial."""
    soa = running.query(f"deep.below.{BLOCKED}", qtype).soa
    assert soa == wire.SOA(f"{BLOCKED}.", 30, "localhost.", "nobody.invalid.", running.ready["serial"], 30)


def test_an_nxdomain_carries_the_soa_too(running: Subject):
    """RFC 2308 section 3: without the SOA a cache may not keep it."""
    soa = running.query(f"deep.{name_for('nxdomain')}").soa
    assert (soa.owner, soa.serial) == ("nxdomain.blocked.example.", running.ready["serial"])
    assert soa.ttl == soa.minimum


def test_the_soa_says_what_the_configuration_says(subject: Subject):
    """`soa` in the configuration: MNAME and RNAME name the operator's contact."""
    answers = {"sinkhole": PROFILES["sinkhole"] | {"ttl": 77}}
    soa = {"mname": "ns.isp.example.", "rname": "noc.isp.example."}
    subject.start(orders=[block("B-1", [BLOCKED])], answers=answers, soa=soa)
    found = subject.query(BLOCKED, "TXT").soa
    assert (found.mname, found.rname, found.ttl, found.minimum) == (
        "ns.isp.example.",
        "noc.isp.example.",
        77,
        77,
    )
    assert subject.query(BLOCKED).ttls == {77}


# ------- NXDOMAIN and what lies beneath (RFC 8020) ----------------------------------

NXDOMAIN_ZONE = ORDERS_ZONE | {"answer": "nxdomain"}


def test_an_exact_nxdomain_entry_answers_nodata(subject: Subject, upstream: StubUpstream):
    """Trap 8, RFC 8020 section 2: NXDOMAIN would tell a cache that nothing exists below."""
    order = block("B-1", [{"name": BLOCKED, "match": "exact"}])
    subject.start(orders=[order], zones=[NXDOMAIN_ZONE], upstreams=[upstream.address])
    assert subject.query(BLOCKED).is_nodata
    assert is_forwarded(subject.query(f"cdn.{BLOCKED}"))


def test_an_nxdomain_entry_with_an_exemption_beneath_answers_nodata(subject: Subject, upstream: StubUpstream):
    """Trap 8: also for the empty name between them, which is on the way to the exempt one."""
    orders = [block("B-1", [BLOCKED]), exempt("E-1", [f"ok.deep.{BLOCKED}"])]
    subject.start(orders=orders, zones=[NXDOMAIN_ZONE], upstreams=[upstream.address])
    assert subject.query(BLOCKED).is_nodata
    assert subject.query(f"deep.{BLOCKED}").is_nodata
    assert is_forwarded(subject.query(f"ok.deep.{BLOCKED}"))


def test_an_nxdomain_entry_with_a_passthru_beneath_in_an_earlier_zone_answers_nodata(
    subject: Subject, upstream: StubUpstream
):
    """Trap 8: the cache that asks does not know of zones."""
    own = {"name": "own", "list": "own.txt", "match": "exact", "answer": "passthru"}
    subject.start(
        orders=[block("B-1", [BLOCKED])],
        zones=[own, NXDOMAIN_ZONE],
        lists={"own.txt": [f"ok.{BLOCKED}"]},
        upstreams=[upstream.address],
    )
    assert subject.query(BLOCKED).is_nodata
    assert is_forwarded(subject.query(f"ok.{BLOCKED}"))


def test_a_below_entry_with_nxdomain_leaves_the_name_itself(subject: Subject, upstream: StubUpstream):
    """RFC 4592 section 2.1.1: `*.x` does not match `x`, so NXDOMAIN would be wrong for it."""
    order = block("B-1", [{"name": BLOCKED, "match": "below"}])
    subject.start(orders=[order], zones=[NXDOMAIN_ZONE], upstreams=[upstream.address])
    assert is_forwarded(subject.query(BLOCKED))
    assert is_nxdomain(subject.query(f"a.{BLOCKED}"))
