"""Every section of an upstream's response is checked, not only the CNAME chain."""

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port

from . import wire
from .caching import CACHE
from .harness import ORDERS_ZONE, PROFILES, Subject, is_sinkholed
from .orders import block, exempt, unblock
from .tools import tool, wait_for
from .upstreams import Asked, StubUpstream

BLOCKED = "blocked.example"
SECRET = "198.51.100.66"  # the true address of the blocked name
LISTED = "203.0.113.9"  # in the listed network
BADNETS = {"name": "badnets", "addresses": "badnets.txt", "answer": "sinkhole"}
NETWORK = {"badnets.txt": ["203.0.113.0/24", "2001:db8:bad::/48"]}


def name(text: str) -> bytes:
    return wire.name_to_wire(text)


def rrsig(owner: str, covered: str) -> bytes:
    """RFC 4034 section 3.1, with a signature that is not checked."""
    rdata = struct.pack("!HBBIIIH", wire.QTYPES[covered], 13, 2, 300, 2_000_000_000, 1_700_000_000, 7)
    return wire.record(owner, "RRSIG", rdata + name("example") + b"\1" * 64)


ANSWERS: dict[str, Callable[[str], bytes]] = {
    "MX": lambda target: wire.record(b"\xc0\x0c", "MX", b"\0\x0a" + name(target)),
    "SRV": lambda target: wire.record(b"\xc0\x0c", "SRV", struct.pack("!3H", 0, 0, 5269) + name(target)),
    "NS": lambda target: wire.record(b"\xc0\x0c", "NS", name(target)),
    "TYPE35": lambda target: wire.record(b"\xc0\x0c", 35, b"\0\1\0\1\1s\7SIP+D2U\0" + name(target)),
}


def start(
    subject: Subject, upstream: StubUpstream, script: Callable[[Asked], bytes], **config: object
) -> None:
    upstream.script = script
    config.setdefault("orders", [block("B-1", [BLOCKED])])
    config.setdefault("zones", [ORDERS_ZONE, BADNETS])
    config.setdefault("lists", NETWORK)
    config.setdefault("cache", CACHE)
    subject.start(upstreams=[upstream.address], answers=PROFILES, **config)


def everything(reply: wire.Reply) -> list[tuple[str, int]]:
    return [(r.owner.rstrip("."), r.rtype) for r in (*reply.answer, *reply.authority, *reply.additional)]


def holds(reply: wire.Reply, address: str) -> bool:
    return wire.address_record(".", address)[-4:] in reply.raw


@pytest.mark.parametrize("qtype", ANSWERS)
@pytest.mark.parametrize("where", ["answer", "authority", "additional"])
def test_addresses_of_a_blocked_name_are_removed_from_every_section(
    subject: Subject, upstream: StubUpstream, qtype: str, where: str
):
    """The record that points to it stays: it belongs to the queried name, which is not blocked."""
    owner = f"mail.{BLOCKED}"
    beside = [
        wire.address_record(owner, SECRET),
        rrsig(owner, "A"),
        wire.address_record(owner, "2001:db8:66::66"),
        wire.address_record("mail.free.example", "198.51.100.7"),
        rrsig("mail.free.example", "A"),
    ]

    def script(asked: Asked) -> bytes:
        sections = {"answer": [], "authority": [], "additional": []}
        sections["answer"] += [ANSWERS[qtype](owner), ANSWERS[qtype]("mail.free.example")]
        sections[where] += beside
        return asked.response(**sections, flags=wire.RA | wire.AD)

    start(subject, upstream, script)
    for _ in range(2):  # from the upstream, then from the cache
        for transport in ("udp", "tcp"):
            reply = subject.query("free.example", qtype, edns=wire.opt(do=True), transport=transport)
            number = wire.qtype_number(qtype)
            assert [record.rtype for record in reply.answer][:2] == [number, number]
            rest = [("mail.free.example", 1), ("mail.free.example", 46)]
            assert everything(reply) == [("free.example", number)] * 2 + rest
            assert not holds(reply, SECRET)
            assert not reply.flags & wire.AD, "AD would say that nothing was left out"
    assert len(upstream.asked_for("free.example")) == 1
    assert subject.metrics().total("dnsblock_dropped_records_total") == 4 * 3


@pytest.mark.parametrize("address", [LISTED, "2001:db8:bad::9"])
def test_an_rrset_with_a_listed_address_is_dropped_with_its_signature(
    subject: Subject, upstream: StubUpstream, address: str
):
    """The RRset as a whole: with one address less it would be another one (RFC 2181 section 5)."""
    rtype, other = ("A", "AAAA") if "." in address else ("AAAA", "A")
    innocent = "198.51.100.7" if rtype == "A" else "2001:db8:7::7"
    beside = [
        wire.address_record("mail.free.example", innocent),
        wire.address_record("mail.free.example", address),
        rrsig("mail.free.example", rtype),
        rrsig("mail.free.example", other),
        wire.record("mail.free.example", "TXT", b"\4text"),
    ]
    start(
        subject,
        upstream,
        lambda asked: asked.response([ANSWERS["MX"]("mail.free.example")], additional=beside),
    )
    reply = subject.query("free.example", "MX", edns=wire.opt(do=True))
    assert [(r.rtype, r.rdata[:2]) for r in reply.additional] == [
        (46, wire.QTYPES[other].to_bytes(2)),
        (16, b"\4t"),
    ]


def test_the_addresses_of_an_https_record_without_target_are_checked(
    subject: Subject, upstream: StubUpstream
):
    """RFC 9460 sections 2.5 and 4.1: `1 .` is the owner itself, whose addresses come along."""

    def script(asked: Asked) -> bytes:
        owner = asked.name if asked.name == "self.example" else "stray.example"
        address = wire.address_record(owner, LISTED)
        return asked.response([wire.record(b"\xc0\x0c", "HTTPS", b"\0\1\0")], additional=[address])

    start(subject, upstream, script)
    assert subject.query("self.example", "HTTPS").is_nodata
    reply = subject.query("other.example", "HTTPS")
    assert everything(reply) == [("other.example", 65)], "of another owner it is dropped, and no more"


def test_an_https_record_with_a_listed_hint_outside_the_answer_is_removed(
    subject: Subject, upstream: StubUpstream
):
    """RFC 9460 section 7.3: a client may connect to a hint, in whatever section."""
    hint = b"\0\1\0" + struct.pack("!HH", 4, 4) + bytes(map(int, LISTED.split(".")))
    target = b"\0\1" + name(BLOCKED) + struct.pack("!HH", 4, 4) + bytes(map(int, SECRET.split(".")))
    beside = [wire.record("a.example", "HTTPS", hint), wire.record("b.example", "SVCB", target)]
    start(subject, upstream, lambda asked: asked.response([ANSWERS["MX"]("a.example")], additional=beside))
    assert everything(subject.query("free.example", "MX")) == [("free.example", 15)]


def test_unrelated_records_of_a_blocked_name_are_removed(subject: Subject, upstream: StubUpstream):
    """Also in the answer section, if no chain includes them."""
    stray = [wire.record(BLOCKED, "TXT", b"\4text"), wire.record(f"x.{BLOCKED}", 65280, b"data")]
    start(
        subject,
        upstream,
        lambda asked: asked.response(
            [*stray, wire.address_record(asked.name, "198.51.100.7"), *stray], stray
        ),
    )
    reply = subject.query("free.example")
    assert everything(reply) == [("free.example", 1)]
    assert reply.addresses == ["198.51.100.7"]


def test_soa_and_nsec_records_of_a_negative_answer_stay(subject: Subject, upstream: StubUpstream):
    """Without its SOA a denial cannot be cached (RFC 2308 section 5), without NSEC not validated."""
    soa = wire.record(BLOCKED, "SOA", name("a.example") + name("b.example") + struct.pack("!5I", *[60] * 5))
    nsec = wire.record(BLOCKED, "NSEC", name("zz.example") + b"\0\1\x40")
    authority = [soa, rrsig(BLOCKED, "SOA"), nsec, rrsig(BLOCKED, "NSEC")]
    start(
        subject,
        upstream,
        lambda asked: asked.response(authority=authority, rcode=3),
        orders=[block("B-1", [BLOCKED]), exempt("E-1", [f"free.{BLOCKED}"])],
    )
    reply = subject.query(f"free.{BLOCKED}", edns=wire.opt(do=True))
    assert (reply.rcode, [record.rtype for record in reply.authority]) == ("NXDOMAIN", [6, 46, 47, 46])


def test_a_dname_of_the_chain_stays_although_its_owner_is_blocked(subject: Subject, upstream: StubUpstream):
    """A name on the way was judged; without the DNAME a validator cannot follow (RFC 6672 section 5.3)."""

    def script(asked: Asked) -> bytes:
        made = wire.record(asked.name, "CNAME", name("www.free.example"))
        dname = wire.record(BLOCKED, 39, name("free.example"))
        return asked.response(
            [dname, rrsig(BLOCKED, "A").replace(b"\0\1\x0d\2", b"\0\x27\x0d\2"), made,
             wire.address_record("www.free.example", "198.51.100.7")]
        )  # fmt: skip

    start(subject, upstream, script, orders=[block("B-1", [{"name": BLOCKED, "match": "exact"}])])
    reply = subject.query(f"www.{BLOCKED}", edns=wire.opt(do=True))
    assert [record.rtype for record in reply.answer] == [39, 46, 5, 1]


ALLOW = {"name": "allow", "list": "allow.txt", "answer": "passthru"}


@pytest.mark.parametrize(
    ("zones", "orders", "is_dropped"),
    [
        ([ORDERS_ZONE], [block("B-1", [BLOCKED])], True),
        ([{**ORDERS_ZONE, "targets": "ignore"}], [block("B-1", [BLOCKED])], False),
        ([ORDERS_ZONE], [block("B-1", [BLOCKED]), exempt("E-1", [f"mail.{BLOCKED}"])], False),
        ([ALLOW, ORDERS_ZONE], [block("B-1", [BLOCKED])], False),
        ([ORDERS_ZONE, ALLOW], [block("B-1", [BLOCKED])], True),
        ([{**ORDERS_ZONE, "mode": "shadow"}], [block("B-1", [BLOCKED])], False),
    ],
)
def test_only_records_that_the_policy_blocks_are_removed(
    subject: Subject, upstream: StubUpstream, zones: list[dict], orders: list[object], is_dropped: bool
):
    """Targets that are ignored, exemptions, the first zone that matches, and zones in shadow."""
    beside = [wire.address_record(f"mail.{BLOCKED}", SECRET)]
    start(
        subject,
        upstream,
        lambda asked: asked.response([ANSWERS["MX"](f"mail.{BLOCKED}")], additional=beside),
        zones=zones,
        orders=orders,
        lists={"allow.txt": [f"mail.{BLOCKED}"]},
    )
    for _ in range(2):
        reply = subject.query("free.example", "MX")
        assert (len(reply.answer), len(reply.additional)) == (1, 0 if is_dropped else 1)


def test_a_cached_response_is_checked_by_the_current_policy(subject: Subject, upstream: StubUpstream):
    """It is cached whole: records that a later order blocks are removed, and return after the unblock."""
    beside = [wire.address_record(BLOCKED, SECRET), wire.address_record("x.example", "198.51.100.7")]
    start(
        subject,
        upstream,
        lambda asked: asked.response([ANSWERS["MX"](BLOCKED)], additional=beside, flags=wire.RA | wire.AD),
        orders=[],
    )

    def is_whole() -> bool:
        reply = subject.query("free.example", "MX", flags=wire.RD | wire.AD)
        assert len(reply.answer) == 1
        assert bool(reply.flags & wire.AD) == holds(reply, SECRET) == (len(reply.additional) == 2)
        assert holds(reply, "198.51.100.7")
        return holds(reply, SECRET)

    assert is_whole()
    assert is_whole()
    subject.put_order(block("B-1", [BLOCKED]))
    subject.reload()
    assert not is_whole()
    assert not is_whole()
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert is_whole()
    assert len(upstream.asked_for("free.example")) == 1


def test_compressed_names_stay_valid_when_records_are_removed(subject: Subject, upstream: StubUpstream):
    """Records after a removed one move, and pointers with them, also those into the removed one."""

    def script(asked: Asked) -> bytes:
        # free.example is at 12; the blocked record's owner begins behind the MX record.
        mx = wire.record(b"\xc0\x0c", "MX", b"\0\x0a\4mail\7blocked\xc0\x11")
        mail = 12 + len("free.example") + 2 + 4 + 12 + 2
        dropped = wire.record(b"\3SUB" + bytes([0xC0, mail]), "A", bytes(map(int, SECRET.split("."))))
        sub = mail + len(b"\4mail\7blocked\xc0\x11")
        good = wire.record(b"\4Mail\xc0\x0c", "A", b"\xc6\x33\x64\x07")
        again = wire.record(b"\1x" + bytes([0xC0, mail + 5]), 65280, b"\xc0\x0c")
        srv = wire.record(b"\1y\xc0\x0c", "NS", bytes([0xC0, sub]))
        return asked.response([mx], additional=[dropped, good, again, srv, good])

    start(subject, upstream, script, orders=[block("B-1", [f"sub.mail.{BLOCKED}"])])
    for transport in ("udp", "tcp"):
        reply = subject.query("free.example", "MX", transport=transport)
        assert [(r.owner, r.rtype) for r in reply.additional] == [
            ("Mail.free.example.", 1),
            (f"x.{BLOCKED}.", 65280),
            ("y.free.example.", 2),
            ("Mail.free.example.", 1),
        ]
        assert reply.additional[1].rdata == b"\xc0\x0c", "data of unknown types is nobody's business"
        start_of_ns = reply.raw.index(b"\3SUB")
        assert wire._name(reply.raw, start_of_ns)[0] == (b"SUB", b"mail", b"blocked", b"example")


@pytest.mark.parametrize("extended", [0, 1, 2])
def test_a_failure_keeps_its_rcode_without_blocked_records(
    subject: Subject, upstream: StubUpstream, extended: int
):
    """SERVFAIL, and RCODEs of more than four bits, which may end in those of SERVFAIL (RFC 6891 6.1.3)."""

    def script(asked: Asked) -> bytes:
        records = [
            wire.record(asked.name, "CNAME", name(f"x.{BLOCKED}")),
            wire.address_record(f"x.{BLOCKED}", SECRET),
            wire.address_record("stray.example", LISTED),
            wire.record("free.example", "TXT", b"\4text"),
        ]
        return asked.response(records, records[1:], rcode=2, edns=wire.opt(extended_rcode=extended))

    start(subject, upstream, script)
    for _ in range(2):
        reply = subject.query("alias.example", edns=True)
        assert reply.rcode == ("SERVFAIL" if extended == 0 else str(16 * extended + 2))
        assert everything(reply) == [("alias.example", 5), ("free.example", 16), ("free.example", 16)]
        assert subject.query("alias.example").rcode == "SERVFAIL", "without EDNS it cannot be said"


def test_the_chain_of_a_landing_page_stays_and_other_records_are_checked(
    subject: Subject, upstream: StubUpstream
):
    """draft-vixie-dnsop-dns-rpz section 6.1: the page that explains a block must be reachable."""
    chain = [
        wire.record("landing.example", "CNAME", name(f"cdn.{BLOCKED}")),
        wire.address_record(f"cdn.{BLOCKED}", LISTED),
    ]
    stray = [wire.address_record(f"x.{BLOCKED}", SECRET)]
    landing = {"action": "cname", "target": "landing.example"}
    upstream.script = lambda asked: asked.response([*stray, *chain, *stray])
    subject.start(
        upstreams=[upstream.address],
        cache=CACHE,
        orders=[block("B-1", [BLOCKED])],
        zones=[{**ORDERS_ZONE, "answer": "landing"}, BADNETS],
        lists=NETWORK,
        answers=PROFILES | {"landing": landing},
    )
    reply = subject.query(BLOCKED)
    assert everything(reply) == [(BLOCKED, 5), ("landing.example", 5), (f"cdn.{BLOCKED}", 1)]


# ------- A real resolver's additional section ----------------------------------


class Bind:
    """A BIND with its defaults that is primary for `example`, and sends no queries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        zone = [
            "$TTL 300", "@ SOA ns hostmaster 1 3600 900 604800 300", "@ NS ns", f"ns A {SECRET}",
            "free MX 10 mail.blocked", "free MX 20 mail.free", "_sip._udp.free SRV 0 0 5060 mail.blocked",
            'free NAPTR 1 1 "a" "SIP+D2U" "" mail.blocked', "free HTTPS 1 mail.free",
            f"mail.blocked A {SECRET}", "mail.free A 198.51.100.7",
        ]  # fmt: skip
        (folder / "example.zone").write_text("\n".join(zone) + "\n", encoding="ascii")
        for _ in range(5):  # another program may take the port between looking and binding
            self.port = free_port()
            (folder / "named.conf").write_text(self._config(), encoding="ascii")
            command = [tool("named"), "-g", "-n", "1", "-c", str(folder / "named.conf")]
            with (folder / "log").open("wb") as log:
                self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
            wait_for(lambda: self.process.poll() is not None or self.answers(), "BIND answers", 45)
            if self.process.poll() is None:
                return
        pytest.fail(f"BIND does not start: {(folder / 'log').read_text(errors='replace')}")

    def answers(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            try:
                sock.connect(("127.0.0.1", self.port))
                sock.send(wire.query("mail.free.example"))
                return wire.read(sock.recv(4096)).addresses == ["198.51.100.7"]
            except OSError:
                return False

    def _config(self) -> str:
        return f"""
options {{
  directory "{self.folder}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {self.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion yes; dnssec-validation no;
}};
controls {{ }};
zone "." {{ type hint; file "/dev/null"; }};
zone "example" {{ type primary; file "example.zone"; check-integrity no; }};
"""


@pytest.fixture
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bind]:
    bind = Bind(tmp_path_factory.mktemp("bind"))
    yield bind
    bind.process.kill()
    bind.process.wait()


@pytest.mark.parametrize(
    ("qname", "qtype"),
    [("free.example", "MX"), ("_sip._udp.free.example", "SRV"), ("free.example", "TYPE35")],
)
def test_no_address_of_a_blocked_name_comes_from_a_real_bind(
    subject: Subject, bind: Bind, qname: str, qtype: str
):
    """BIND adds the addresses of MX, SRV and NAPTR targets to the additional section by default."""
    subject.start(upstreams=[f"127.0.0.1:{bind.port}"], orders=[], cache=CACHE)
    before = subject.query(qname, qtype)
    assert holds(before, SECRET), "BIND adds it"
    subject.put_order(block("B-1", [BLOCKED]))
    subject.reload()
    for _ in range(2):
        reply = subject.query(qname, qtype)
        assert not holds(reply, SECRET)
        assert len(reply.answer) == len(before.answer)
    assert is_sinkholed(subject.query(f"mail.{BLOCKED}"))
