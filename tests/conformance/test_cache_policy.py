"""No cached response bypasses the policy, and no block leaves anything in the cache (traps 11 and 16)."""

import itertools
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from . import wire
from .asking import assert_silent, is_forwarded, is_sinkholed
from .caching import NAME, cname, gives, number_of, numbered, set_cache, soa, start
from .clocks import begun_before
from .harness import ISSUER, ORDERS_ZONE, PROFILES, Subject
from .lists import UNWATCHED
from .orders import block, exempt, stamp, unblock
from .portable.chains import dname, service
from .upstreams import Asked, StubUpstream, decent

TARGET = "target.example"
LISTED = {
    "name": "malware",
    "list": "malware.txt",
    "match": "subtree",
    "answer": "sinkhole",
    "source": UNWATCHED,
}
NETWORKS = {"name": "badnets", "addresses": "badnets.txt", "answer": "sinkhole", "source": UNWATCHED}
ALLOWED = {"name": "ours", "list": "ours.txt", "match": "subtree", "answer": "passthru", "source": UNWATCHED}
ZONES = [ALLOWED, ORDERS_ZONE, LISTED, NETWORKS]
LISTS = {
    "ours.txt": ["elsewhere.example"],
    "malware.txt": ["other.example"],
    "badnets.txt": ["203.0.113.0/24"],
}

# Every way to ask, each kept for itself.
WAYS = [
    {"transport": transport, "family": family, "flags": flags, "edns": edns}
    for transport, family in (("udp", 4), ("udp", 6), ("tcp", 4))
    for flags, edns in (
        (wire.RD, False),
        (wire.RD, True),
        (wire.RD, wire.opt(do=True)),
        (wire.RD | wire.CD, wire.opt(do=True)),
        (wire.RD | wire.AD, False),
        (0, False),
    )
]


def begin(subject: Subject, upstream: StubUpstream, **config: object) -> None:
    start(subject, upstream, **{"zones": ZONES, "lists": LISTS} | config)


def change(subject: Subject, upstream: StubUpstream, **config: object) -> None:
    set_cache(subject, upstream, cache={}, **{"zones": ZONES, "lists": LISTS} | config)


def fill(subject: Subject, name: str = NAME, qtype: str = "A") -> None:
    """Fills the cache for every way to query."""
    for way in WAYS:
        assert subject.query(name, qtype, **way).rcode in ("NOERROR", "NXDOMAIN")


def assert_blocked(subject: Subject, name: str = NAME) -> None:
    for way in WAYS:
        assert is_sinkholed(subject.query(name, **way)), way


def assert_open(subject: Subject, name: str = NAME, address: str = "198.51.100.7") -> None:
    for way in WAYS:
        assert address in subject.query(name, **way).addresses, way


# ------- The name itself ----------------------------------------------------------------------


def by_order(subject: Subject, number: int) -> Callable[[], None]:
    subject.put_order(block(f"B-{number}", [NAME]))
    return lambda: subject.put_order(unblock(f"U-{number}", f"B-{number}"))


def by_list(subject: Subject, _number: int) -> Callable[[], None]:
    subject.put_list("malware.txt", ["other.example", NAME])
    return lambda: subject.put_list("malware.txt", ["other.example"])


def by_address(subject: Subject, _number: int) -> Callable[[], None]:
    subject.put_list("badnets.txt", ["203.0.113.0/24", "198.51.100.0/25"])
    return lambda: subject.put_list("badnets.txt", ["203.0.113.0/24"])


@pytest.mark.parametrize("how", [by_order, by_list, by_address])
def test_blocks_and_unblocks_apply_from_the_next_query_whatever_is_cached(
    subject: Subject, upstream: StubUpstream, how: Callable[[Subject, int], Callable[[], None]]
):
    """pdns#14854: a packet cache went on to answer with what had been blocked in between."""
    upstream.script = gives()
    begin(subject, upstream)
    for number in range(2):
        fill(subject)
        lift = how(subject, number)
        subject.reload()
        assert_blocked(subject)
        lift()
        subject.reload()
        assert_open(subject)


def test_a_block_applies_to_every_cached_type_and_kind_of_response(subject: Subject, upstream: StubUpstream):
    """Traps 1 and 11: for TXT and HTTPS, for a name that does not exist, for a failure."""
    soa_and = {"NOERROR": 0, "NXDOMAIN": 3, "SERVFAIL": 2, "REFUSED": 5}
    upstream.script = lambda asked: (
        asked.response(authority=[soa()], rcode=soa_and[asked.name.split(".")[0].upper()])
        if asked.qtype == 1
        else asked.response([wire.record(b"\xc0\x0c", asked.qtype, b"\x01x")])
    )
    begin(subject, upstream)
    names = [f"{rcode}.{NAME}" for rcode in soa_and]
    for name in names:
        for qtype in ("A", "TXT", "TYPE65280"):
            subject.query(name, qtype)
    subject.put_order(block("B-1", [NAME]))
    subject.reload()
    for name in names:
        assert is_sinkholed(subject.query(name))
        for qtype in ("TXT", "TYPE65280", "AAAA", "HTTPS"):
            reply = subject.query(name, qtype)
            assert reply.rcode == "NOERROR"
            assert reply.is_nodata or reply.addresses == PROFILES["sinkhole"]["ipv6"]


@pytest.mark.parametrize("profile", ["nxdomain", "nodata", "refused", "drop", "truncate", "landing"])
def test_every_action_replaces_a_cached_response(subject: Subject, upstream: StubUpstream, profile: str):
    """draft-vixie-dnsop-dns-rpz section 3: whatever the action is, and back again."""
    answers = PROFILES | {"landing": {"action": "cname", "target": "landing.example"}}
    upstream.script = gives()
    begin(subject, upstream, answers=answers)
    fill(subject)
    subject.put_order(block("B-1", [{"name": NAME, "answer": profile}]))
    subject.reload()
    if profile == "drop":
        assert_silent(subject, wire.query(NAME), ask="free.example")
    else:
        reply = subject.query(NAME)
        assert [record.rtype for record in reply.answer[:1]] == ([5] if profile == "landing" else [])
        assert reply.truncated is (profile == "truncate")
        expected = {"nxdomain": "NXDOMAIN", "refused": "REFUSED"}.get(profile, "NOERROR")
        assert reply.rcode == expected
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert_open(subject)


def test_a_block_of_a_parent_covers_cached_names_below_it(subject: Subject, upstream: StubUpstream):
    """Trap 9: and an exemption below it returns the cached response again."""
    upstream.script = gives()
    begin(subject, upstream)
    for name in (NAME, f"www.{NAME}", f"a.b.c.{NAME}"):
        fill(subject, name)
    subject.put_order(block("B-1", [NAME]))
    subject.reload()
    for name in (NAME, f"www.{NAME}", f"a.b.c.{NAME}"):
        assert_blocked(subject, name)
    subject.put_order(exempt("E-1", [f"www.{NAME}"]))
    subject.reload()
    assert_open(subject, f"www.{NAME}")
    assert_blocked(subject, f"a.b.c.{NAME}")


def test_a_local_response_is_never_cached(subject: Subject, upstream: StubUpstream):
    """Trap 16: neither of a block, nor of a special name, nor a refusal; so nothing can be left behind."""
    begin(
        subject,
        upstream,
        orders=[block("B-1", [NAME])],
        access_control={"allow": ["127.0.0.1/32", "::1/128"]},
    )
    fill(subject)
    for name in ("localhost", "x.invalid", "1.0.0.10.in-addr.arpa"):
        subject.query(name)
    subject.query("any.example", "ANY")
    subject.query("class.example", qclass=3)
    with subject.udp(source="127.0.0.2") as stranger:
        stranger.send(wire.query("refused.example"))
        assert wire.read(stranger.recv(4096)).rcode == "REFUSED"
    assert subject.metrics().total("dnsblock_cache_entries") == 0
    assert upstream.queries == []


def test_a_refused_client_gets_no_cached_response(subject: Subject, upstream: StubUpstream):
    """RFC 5358 section 4, RFC 8914 section 4.19: access control comes first."""
    upstream.script = gives()
    begin(subject, upstream, access_control={"allow": ["127.0.0.1/32", "::1/128"]})
    fill(subject)
    with subject.udp(source="127.0.0.2") as stranger:
        for flags in (wire.RD, 0):
            stranger.send(wire.query(NAME, flags=flags))
            assert wire.read(stranger.recv(4096)).rcode == "REFUSED"


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("special_names", "answer", "printer.local"),
        ("private_reverse", "answer", "1.0.0.10.in-addr.arpa"),
        ("canary", "nxdomain", "use-application-dns.net"),
    ],
)
def test_a_name_that_becomes_special_is_answered_locally(
    subject: Subject, upstream: StubUpstream, option: str, value: str, name: str
):
    """RFC 6762 section 22.1, RFC 6303 section 3: its cached responses are not used any more."""
    begin(subject, upstream, local={option: "forward"})
    for _ in range(2):
        assert is_forwarded(subject.query(name))
    asked = len(upstream.queries)
    change(subject, upstream, local={option: value})
    assert subject.query(name).rcode == "NXDOMAIN"
    assert len(upstream.queries) == asked


# ------- Where it leads --------------------------------------------------------------------------


def chain(asked: Asked) -> bytes:
    if asked.qtype != 1:
        return decent(asked)
    links = [cname(b"\xc0\x0c", "middle.example"), cname("middle.example", TARGET)]
    return asked.response([*links, wire.address_record(TARGET, "198.51.100.7")])


@pytest.mark.parametrize("blocked", [TARGET, "middle.example", TARGET.upper()])
def test_a_block_of_a_target_applies_to_cached_aliases(
    subject: Subject, upstream: StubUpstream, blocked: str
):
    """Trap 12, draft-vixie-dnsop-dns-rpz section 5.1: from the next query on, and so does an unblock."""
    upstream.script = chain
    begin(subject, upstream)
    for number in range(2):
        fill(subject)
        subject.put_order(block(f"B-{number}", [blocked]))
        subject.reload()
        assert_blocked(subject)
        assert {record.owner for record in subject.query(NAME).answer} == {f"{NAME}."}
        subject.put_order(unblock(f"U-{number}", f"B-{number}"))
        subject.reload()
        assert_open(subject)
        assert len(subject.query(NAME).answer) == 3


def test_an_alias_cached_while_its_target_was_blocked_is_open_after_the_unblock(
    subject: Subject, upstream: StubUpstream
):
    """Trap 12: the cache holds the upstream's response, not the blocked one."""
    upstream.script = chain
    begin(subject, upstream, orders=[block("B-1", [TARGET])])
    assert_blocked(subject)
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert_open(subject)


def test_a_block_of_the_target_of_a_cached_dname_applies(subject: Subject, upstream: StubUpstream):
    """RFC 6672: every cached name below the DNAME has a target below the blocked one."""
    upstream.script = dname("tree.example", TARGET)
    begin(subject, upstream)
    fill(subject, "www.tree.example")
    subject.put_order(block("B-1", [TARGET]))
    subject.reload()
    assert_blocked(subject, "www.tree.example")
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert_open(subject, "www.tree.example")


@pytest.mark.parametrize("qtype", ["HTTPS", "SVCB"])
@pytest.mark.parametrize("priority", [0, 1], ids=["alias", "service"])
def test_a_block_of_the_target_of_a_cached_service_record_applies(
    subject: Subject, upstream: StubUpstream, priority: int, qtype: str
):
    """Trap 1, RFC 9460 sections 2.4 and 3: a client connects to the target."""
    upstream.script = service(priority, TARGET)
    begin(subject, upstream)
    fill(subject, NAME, qtype)
    subject.put_order(block("B-1", [TARGET]))
    subject.reload()
    for way in WAYS:
        assert subject.query(NAME, qtype, **way).is_nodata
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    for way in WAYS:
        assert len(subject.query(NAME, qtype, **way).answer) == 1


def test_a_cached_address_hint_in_a_newly_listed_network_is_not_returned(
    subject: Subject, upstream: StubUpstream
):
    """Trap 1, RFC 9460 section 7.3: a client may connect to a hint without asking for an address."""
    upstream.script = service(1, "", [(4, bytes([198, 51, 100, 7]))])
    begin(subject, upstream)
    fill(subject, NAME, "HTTPS")
    subject.put_list("badnets.txt", ["198.51.100.7"])
    subject.reload()
    for way in WAYS:
        assert subject.query(NAME, "HTTPS", **way).is_nodata
    subject.put_list("badnets.txt", ["198.51.100.8"])
    subject.reload()
    for way in WAYS:
        assert len(subject.query(NAME, "HTTPS", **way).answer) == 1


# ------- Allowed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [NAME, "middle.example"])
def test_adding_or_removing_a_passthru_applies_to_cached_responses(
    subject: Subject, upstream: StubUpstream, allowed: str
):
    """draft-vixie-dnsop-dns-rpz section 5.1: the earlier name in the chain decides, for each query."""
    upstream.script = chain
    begin(subject, upstream, orders=[block("B-1", [TARGET])])
    for _ in range(2):
        assert_blocked(subject)
        subject.put_list("ours.txt", [allowed])
        subject.reload()
        assert_open(subject)
        subject.put_list("ours.txt", ["elsewhere.example"])
        subject.reload()


def test_ignoring_targets_applies_to_cached_responses(subject: Subject, upstream: StubUpstream):
    """Trap 12: `targets: ignore` is policy, too, and comes and goes by a reload."""
    upstream.script = chain
    orders = [block("B-1", [TARGET])]
    begin(subject, upstream, orders=orders)
    for targets in ("ignore", "judge") * 2:
        zones = [ALLOWED, ORDERS_ZONE | {"targets": targets}, LISTED, NETWORKS]
        change(subject, upstream, zones=zones)
        (assert_open if targets == "ignore" else assert_blocked)(subject)


# ------- Other ways to change ------------------------------------------------------------------------


def test_a_rolled_back_configuration_applies_to_cached_responses(subject: Subject, upstream: StubUpstream):
    """Trap 11: rolling back is a change like any other: the same configuration, the same answers."""
    upstream.script = chain
    begin(subject, upstream)
    fill(subject)
    for blocked in (NAME, TARGET):
        for zones in ([ORDERS_ZONE, LISTED], [ORDERS_ZONE]) * 2:
            change(subject, upstream, zones=zones, lists=LISTS | {"malware.txt": [blocked, "other.example"]})
            if LISTED in zones:
                assert_blocked(subject)
            else:
                assert_open(subject)


def test_reordering_zones_applies_to_cached_responses(subject: Subject, upstream: StubUpstream):
    """draft-vixie-dnsop-dns-rpz section 5.2: zones in their order, which is policy as well."""
    upstream.script = chain
    lists = LISTS | {"ours.txt": [NAME], "malware.txt": [NAME]}
    begin(subject, upstream, lists=lists)
    assert_open(subject)
    for zones in ([LISTED, ALLOWED], [ALLOWED, LISTED]) * 2:
        change(subject, upstream, zones=zones, lists=lists)
        (assert_blocked if zones[0] is LISTED else assert_open)(subject)


@pytest.mark.parametrize("blocked", [NAME, TARGET])
def test_a_scheduled_block_and_its_end_apply_to_cached_responses(
    subject: Subject, upstream: StubUpstream, blocked: str
):
    """Trap 11: effective_at <= t < expires_at, without a signal, whatever TTL is left."""
    lasts = timedelta(seconds=12)
    upstream.script = chain

    def keep(moment: datetime) -> None:
        times = {"effective_at": stamp(moment), "expires_at": stamp(moment + lasts)}
        begin(subject, upstream, orders=[block("B-1", [blocked], **times)])
        fill(subject)
        assert is_forwarded(subject.query(NAME))

    begins = begun_before(subject, 1.5, keep)
    ends = begins + lasts
    seen = []
    while not seen or datetime.now(UTC) < ends or seen[-1]:
        before = datetime.now(UTC)
        is_blocked = is_sinkholed(subject.query(NAME))
        after = datetime.now(UTC)
        assert not is_blocked or after >= begins, "too early"
        assert is_blocked or before <= begins + lasts / 2 or after >= ends, "too late"
        if not seen or seen[-1] is not is_blocked:
            seen.append(is_blocked)
        assert (before - ends).total_seconds() < 60, "it does not end"
        time.sleep(0.01)
    assert seen in ([False, True, False], [True, False])
    assert_open(subject)


def test_no_previous_answer_is_returned_after_a_change_under_load(subject: Subject, upstream: StubUpstream):
    """Trap 11: `reload` returns when the change holds, however many are asking."""
    upstream.script = chain
    begin(subject, upstream)
    finished = threading.Event()

    def crowd() -> None:
        with subject.udp() as sock:
            while not finished.is_set():
                for number in range(20):
                    sock.send(wire.query(NAME, qid=number))
                for _ in range(20):
                    wire.read(sock.recv(4096))

    threads = [threading.Thread(target=crowd) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number, blocked in zip(range(4), itertools.cycle((NAME, TARGET))):
            subject.put_order(block(f"B-{number}", [blocked]))
            subject.reload()
            for _ in range(10):
                assert is_sinkholed(subject.query(NAME))
            subject.put_order(unblock(f"U-{number}", f"B-{number}"))
            subject.reload()
            for _ in range(10):
                assert "198.51.100.7" in subject.query(NAME).addresses
    finally:
        finished.set()
        for thread in threads:
            thread.join()


def test_a_policy_change_keeps_the_cached_responses_of_other_names(subject: Subject, upstream: StubUpstream):
    """Trap 16: an order of a few names must not empty the cache."""
    upstream.script = numbered()
    begin(subject, upstream)
    names = [f"n{number}.free.example" for number in range(50)]
    first = [number_of(subject.query(name)) for name in names]
    subject.put_order(block("B-1", [NAME]))
    subject.reload()
    assert [number_of(subject.query(name)) for name in names] == first
    assert len(upstream.queries) == len(names)


def test_the_address_of_a_landing_page_is_cached_under_its_own_name(subject: Subject, upstream: StubUpstream):
    """Trap 12: it is queried once, and the blocked name has none of it after the unblock."""
    answers = {"landing": {"action": "cname", "target": "landing.example"}}
    upstream.script = lambda asked: asked.address(
        "192.0.2.80" if asked.name == "landing.example" else "198.51.100.7"
    )
    begin(
        subject,
        upstream,
        answers=PROFILES | answers,
        zones=[{"name": "ministry", "issuer": ISSUER, "unsigned": "accept", "answer": "landing"}],
        orders=[block("B-1", [NAME])],
        workers=1,
    )
    for _ in range(5):
        reply = subject.query(NAME)
        assert (reply.target, reply.addresses) == ("landing.example.", ["192.0.2.80"])
    assert subject.query("landing.example").addresses == ["192.0.2.80"]
    assert upstream.count(NAME) == 0
    subject.put_order(unblock("U-1", "B-1"))
    subject.reload()
    assert is_forwarded(subject.query(NAME))


@pytest.mark.parametrize("first", ["blocked name", "landing page"])
def test_a_landing_page_queried_directly_is_checked_like_any_name(
    subject: Subject, upstream: StubUpstream, first: str
):
    """Trap 12: it is never blocked for a blocked name; asked for by its own, it is like any other."""
    page = "landing.example"
    upstream.script = chain
    begin(
        subject,
        upstream,
        answers=PROFILES | {"landing": {"action": "cname", "target": page}},
        orders=[block("B-1", [{"name": NAME, "answer": "landing"}, TARGET])],
        workers=1,
    )
    for _ in range(3):
        for what in (
            ("blocked name", "landing page") if first == "blocked name" else ("landing page", "blocked name")
        ):
            if what == "landing page":
                assert is_sinkholed(subject.query(page))
            else:
                reply = subject.query(NAME)
                assert (reply.target, reply.addresses) == (f"{page}.", ["198.51.100.7"])
