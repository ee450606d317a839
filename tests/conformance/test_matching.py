"""Which names an entry covers: label boundaries, match, depth, exemptions, and the order of zones."""

import pytest

from . import wire
from .harness import ORDERS_ZONE, SINKHOLE4, Subject, is_forwarded, is_sinkholed
from .orders import block, exempt, unblock
from .upstreams import StubUpstream

COURT = "court.example"
COURT_ZONE = ORDERS_ZONE | {"name": "court", "issuer": COURT}
SECOND = {"second": {"action": "sinkhole", "ipv4": ["192.0.2.54"], "ttl": 30}}
SECOND_ADDRESS = ["192.0.2.54"]
SINKHOLE = {"sinkhole": {"action": "sinkhole", "ipv4": [SINKHOLE4], "ttl": 30}}


@pytest.fixture(scope="module")
def running(shared_subject: Subject, shared_upstream: StubUpstream) -> Subject:
    """Entries of each match, one beneath the other and side by side, in one zone."""
    entries = [
        "t.me",
        {"name": "subtree.example", "match": "subtree"},
        {"name": "exact.example", "match": "exact"},
        {"name": "below.example", "match": "below"},
        {"name": "long.example", "answer": "sinkhole"},
        {"name": "longer.long.example", "answer": "second"},
        {"name": "exact.long.example", "match": "exact", "answer": "second"},
        {"name": "below.long.example", "match": "below", "answer": "second"},
        {"name": "a.b.c.d.e.f.g.h.i.j.deep.example", "match": "exact"},
        "holey.example",
        {"name": "under.hole.holey.example", "answer": "second"},
    ]
    # At equal length exact beats the others: the same name twice, by two orders.
    orders = [
        block("B-1", entries, acks=["POPULAR"]),
        block("B-2", [{"name": "both.example", "match": "subtree", "answer": "sinkhole"}]),
        block("B-3", [{"name": "both.example", "match": "exact", "answer": "second"}]),
        exempt("E-1", [{"name": "hole.holey.example", "match": "subtree"}]),
        exempt("E-2", [{"name": "exacthole.holey.example", "match": "exact"}]),
    ]
    shared_subject.start(orders=orders, answers=SINKHOLE | SECOND, upstreams=[shared_upstream.address])
    return shared_subject


# ------- One zone ------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "t.me",
        "T.mE",
        "www.t.me",
        "_8443._https.t.me",
        "*.t.me",
        "subtree.example",
        "a.b.subtree.example",
        "exact.example",
        "a.below.example",
        "a.b.below.example",
        "long.example",
        "x.exact.long.example",
        "below.long.example",
        "a.b.c.d.e.f.g.h.i.j.deep.example",
        "x.both.example",
        "holey.example",
        "other.holey.example",
        "x.exacthole.holey.example",
    ],
)
def test_a_name_that_an_entry_covers_is_blocked(running: Subject, name: str):
    """Trap 9: subtree by default; exact the name alone; below all but the name; the longest wins.

    RFC 9460 section 2.3: a port prefix (`_8443._https`) lies in the subtree.
    """
    assert is_sinkholed(running.query(name))


@pytest.mark.parametrize(
    "name",
    [
        "nott.me",
        "t.me.example",
        "tt.me",
        "t.mee",
        "me",
        "xsubtree.example",
        "example",
        ".",
        "a.exact.example",
        "below.example",
        "deep.example",
        "j.deep.example",
        "b.c.d.e.f.g.h.i.j.deep.example",
        "a.a.b.c.d.e.f.g.h.i.j.deep.example",
        "hole.holey.example",
        "x.y.hole.holey.example",
        "exacthole.holey.example",
    ],
)
def test_a_name_that_no_entry_covers_is_forwarded(running: Subject, name: str):
    """Trap 9: labels are compared, not text; an exemption opens part of the block around it."""
    assert is_forwarded(running.query(name))


@pytest.mark.parametrize(
    "name",
    [
        "longer.long.example",
        "a.longer.long.example",
        "exact.long.example",
        "x.below.long.example",
        "both.example",
        "under.hole.holey.example",
        "deep.under.hole.holey.example",
    ],
)
def test_the_longest_entry_wins_and_exact_wins_over_subtree(running: Subject, name: str):
    """Trap 9, draft-vixie-dnsop-dns-rpz section 5.3: also a block inside an exemption."""
    assert running.query(name).addresses == SECOND_ADDRESS


@pytest.mark.parametrize("labels", [1, 5, 6, 30, 100, 118])
def test_a_name_is_blocked_however_deep_below_the_entry(running: Subject, labels: int):
    """One blocker looks at five labels only, and deeper names escape."""
    name = "a." * labels + "subtree.example"
    assert is_sinkholed(running.query(name))
    assert is_forwarded(running.query("a." * labels + "subtrees.example"))


@pytest.mark.parametrize(
    "labels",
    [
        [b"t.me"],
        [b"www.t", b"me"],
        [b"www", b"t.me"],
        [b"x.subtree.example"],
        [b"x.subtree", b"example"],
        [b"subtree\0", b"example"],
        [b"subtree ", b"example"],
        [b"exact.example", b""],
    ],
)
def test_a_dot_inside_a_label_is_no_label_boundary(running: Subject, labels: list[bytes]):
    """Trap 14, RFC 2181 section 11: labels are binary, and `t\\.me` is one label."""
    assert is_forwarded(running.query(wire.labels_to_wire(label for label in labels if label)))


def test_binary_labels_below_a_blocked_name_are_blocked(running: Subject):
    """Trap 14, RFC 2181 section 11: labels are binary."""
    assert is_sinkholed(running.query(wire.labels_to_wire([bytes(range(63)), b"\xff.\xc0", b"t", b"me"])))


def test_only_ascii_letters_are_case_folded(running: Subject):
    """Trap 4, RFC 4343 section 3: `[` is not `{`, though they differ in the bit that case is."""
    assert is_sinkholed(running.query("SUBTREE.EXAMPLE"))
    assert is_forwarded(running.query(wire.labels_to_wire([b"T", b"\x0dE"])))
    assert is_forwarded(running.query(wire.labels_to_wire([b"subtree", b"exampl\xc5"])))


# ------- Several zones ---------------------------------------------------------------


def test_the_first_matching_zone_decides(subject: Subject, upstream: StubUpstream):
    """Trap 9, draft-vixie-dnsop-dns-rpz section 5.2: zones in their order; passthru is a match."""
    subject.start(
        zones=[
            {"name": "own", "list": "own.txt", "match": "subtree", "answer": "passthru"},
            {"name": "first", "list": "first.txt", "match": "subtree", "answer": "sinkhole"},
            {"name": "second", "list": "second.txt", "match": "exact", "answer": "second"},
        ],
        lists={
            "own.txt": ["own.blocked.example"],
            "first.txt": ["blocked.example"],
            "second.txt": ["a.longer.name.blocked.example", "own.blocked.example", "only.example"],
        },
        answers=SINKHOLE | SECOND,
        upstreams=[upstream.address],
    )
    assert is_sinkholed(subject.query("a.longer.name.blocked.example"))
    assert is_forwarded(subject.query("own.blocked.example"))
    assert is_forwarded(subject.query("www.own.blocked.example"))
    assert subject.query("only.example").addresses == SECOND_ADDRESS


@pytest.mark.parametrize(("match", "itself", "under"), [("exact", 1, 0), ("subtree", 1, 1), ("below", 0, 1)])
def test_a_list_has_the_match_of_its_zone(
    subject: Subject, upstream: StubUpstream, match: str, itself: int, under: int
):
    """A list has names only; the zone says whether subdomains are meant."""
    zone = {"name": "malware", "list": "malware.txt", "match": match, "answer": "sinkhole"}
    subject.start(zones=[zone], lists={"malware.txt": ["listed.example"]}, upstreams=[upstream.address])
    assert is_sinkholed(subject.query("listed.example")) is bool(itself)
    assert is_sinkholed(subject.query("a.b.listed.example")) is bool(under)
    assert is_forwarded(subject.query("unlisted.example"))


def test_lifting_the_block_of_one_issuer_does_not_open_that_of_another(
    subject: Subject, upstream: StubUpstream
):
    """Each issuer is a zone of its own (draft-vixie-dnsop-dns-rpz section 5.2)."""
    orders = [
        block("B-1", ["shared.example", "alone.example"]),
        block("C-1", ["shared.example"], issuer=COURT),
        unblock("B-2", "B-1"),
    ]
    subject.start(orders=orders, zones=[ORDERS_ZONE, COURT_ZONE], upstreams=[upstream.address])
    assert is_sinkholed(subject.query("shared.example"))
    assert subject.query("shared.example", edns=True).extended_errors[16] == "C-1"
    assert is_forwarded(subject.query("alone.example"))


def test_the_exemption_of_one_issuer_does_not_open_the_block_of_another(
    subject: Subject, upstream: StubUpstream
):
    """Trap 9: an exempt entry continues with the next zone; it is never a passthru."""
    orders = [
        block("B-1", ["blocked.example"]),
        exempt("B-2", ["ok.blocked.example", "free.blocked.example"]),
        block("C-1", ["ok.blocked.example"], issuer=COURT),
    ]
    subject.start(orders=orders, zones=[ORDERS_ZONE, COURT_ZONE], upstreams=[upstream.address])
    assert is_sinkholed(subject.query("ok.blocked.example"))
    assert is_forwarded(subject.query("free.blocked.example"))
    assert is_sinkholed(subject.query("blocked.example"))


def test_lifting_one_of_two_orders_for_a_name_leaves_the_other(subject: Subject, upstream: StubUpstream):
    """Every ordered name is its own fact; nothing is collapsed."""
    orders = [block("B-1", ["twice.example"]), block("B-2", ["twice.example"]), unblock("B-3", "B-1")]
    subject.start(orders=orders, upstreams=[upstream.address])
    assert subject.query("twice.example", edns=True).extended_errors[16] == "B-2"
    subject.put_order(unblock("B-4", "B-2"))
    subject.reload()
    assert is_forwarded(subject.query("twice.example"))


def test_unblocking_a_parent_leaves_the_child_and_vice_versa(subject: Subject, upstream: StubUpstream):
    """A name is not collapsed into its parent."""
    orders = [
        block("B-1", ["parent.example", "child.parent.example"]),
        block("B-2", ["mother.example", "son.mother.example"]),
        unblock("U-1", "B-1", ["parent.example"]),
        unblock("U-2", "B-2", ["son.mother.example"]),
    ]
    subject.start(orders=orders, upstreams=[upstream.address])
    assert is_forwarded(subject.query("parent.example"))
    assert is_sinkholed(subject.query("child.parent.example"))
    assert is_sinkholed(subject.query("son.mother.example")), "the mother's subtree still covers it"


def test_names_are_accepted_as_people_write_them(subject: Subject, upstream: StubUpstream):
    """Trap 14: upper case, a dot at the end, U-labels (IDNA2008), comments, empty lines, CRLF and a BOM."""
    zone = {"name": "malware", "list": "malware.txt", "match": "exact", "answer": "sinkhole"}
    subject.start(
        zones=[ORDERS_ZONE, zone],
        orders=[block("B-1", ["UPPER.Example.", "bücher.example"])],
        lists={
            "malware.txt": "\ufeff# names\r\n\r\nFirst.Example\r\nsecond.example. # why\r\nstraße.example\r\n"
        },
        upstreams=[upstream.address],
    )
    blocked = [
        "upper.example",
        "xn--bcher-kva.example",
        "first.example",
        "second.example",
        "xn--strae-oqa.example",
    ]
    assert [name for name in blocked if not is_sinkholed(subject.query(name))] == []
