"""Which names an entry covers: label boundaries, depth, exemptions, wildcards, case and binary labels."""

import pytest

from .. import wire
from ..asking import Asking, is_forwarded, is_sinkholed
from ..policy import (
    BLOCKED_IN_EXEMPT,
    DEEP_IN_LONG,
    EXACT_IN_LONG,
    EXEMPT,
    LONG,
    LONGER,
    MANY_LABELS,
    SHORT,
    SINKHOLED,
    WITH_EXEMPTION,
)
from ..upstreams import StubUpstream


@pytest.mark.parametrize("name", [f"not{SHORT}", f"{SHORT}.example", f"t{SHORT}", f"{SHORT}e", "me", "."])
def test_entries_end_at_label_boundaries(resolver: Asking, name: str):
    """Trap 9, RFC 1034 section 3.1: a name is labels, not text; StevenBlack/hosts#451."""
    assert is_forwarded(resolver.query(name))


@pytest.mark.parametrize("labels", [1, 5, 6, 30, 110])
def test_every_name_below_an_entry_is_covered_at_any_depth(resolver: Asking, labels: int):
    """Fault of others, RFC 4592 section 2.2: one blocker looks at five labels only; deeper names escape."""
    assert is_sinkholed(resolver.query("a." * labels + SINKHOLED))


def test_an_entry_of_many_labels_is_found(resolver: Asking):
    """Fault of others: a limit that was made for speed lets deep names through."""
    assert is_sinkholed(resolver.query(MANY_LABELS))
    for name in (f"a.{MANY_LABELS}", MANY_LABELS.split(".", 1)[1], "many.example"):
        assert is_forwarded(resolver.query(name))


def test_the_entry_with_more_labels_wins(resolver: Asking):
    """Trap 9, draft-vixie-dnsop-dns-rpz section 5.3."""
    for name in (LONGER, f"a.{LONGER}"):
        reply = resolver.query(name)
        assert (reply.rcode, reply.answer) == ("NOERROR", ())
    assert is_sinkholed(resolver.query(f"other.{LONG}"))


def test_an_exact_entry_wins_over_the_subtree_around_it(resolver: Asking):
    """Trap 9, draft-vixie-dnsop-dns-rpz section 5.3."""
    assert resolver.query(EXACT_IN_LONG).answer == ()
    assert is_sinkholed(resolver.query(LONG))


def test_a_subtree_also_covers_names_below_an_exact_entry(resolver: Asking):
    """Trap 9, RFC 4592 section 2.2.2: in a zone the exact name would hide the wildcard; in a policy not."""
    assert is_sinkholed(resolver.query(f"x.{EXACT_IN_LONG}"))
    assert is_sinkholed(resolver.query(f"x.y.{EXACT_IN_LONG}"))


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_empty_nonterminal_hides_no_entry(resolver: Asking, cut: int):
    """Trap 9, RFC 4592 section 2.2.2: nor do the names between, nor those beside them."""
    between = DEEP_IN_LONG.split(".", cut)[cut]
    assert is_sinkholed(resolver.query(between))
    assert is_sinkholed(resolver.query(f"x.{between}"))
    assert resolver.query(DEEP_IN_LONG).answer == ()


def test_exemptions_inside_blocks_and_blocks_inside_exemptions_apply(resolver: Asking, seen: StubUpstream):
    """Trap 9, draft-vixie-dnsop-dns-rpz section 5.3: both, at any depth."""
    for name in (WITH_EXEMPTION, f"x.{WITH_EXEMPTION}", BLOCKED_IN_EXEMPT, f"a.b.{BLOCKED_IN_EXEMPT}"):
        assert is_sinkholed(resolver.query(name)), name
    for name in (EXEMPT, f"x.{EXEMPT}", f"a.b.{EXEMPT}"):
        assert is_forwarded(resolver.query(name)), name


def test_a_query_for_the_wildcard_itself_is_covered(resolver: Asking):
    """Trap 9, RFC 4592 section 2.1: `*` is a label like any other in a query."""
    assert is_sinkholed(resolver.query(f"*.{SINKHOLED}"))


# ------- Case and binary labels ----------------------------------------------------


def test_names_match_in_any_case(resolver: Asking):
    """Trap 4, RFC 4343 section 3, RFC 1035 section 2.3.3; BIND once did not (gl#2169)."""
    assert is_sinkholed(resolver.query(SINKHOLED.upper()))
    assert is_sinkholed(resolver.query(f"wWw.{SINKHOLED.title()}"))


@pytest.mark.parametrize(
    "labels", [[b"T", b"\x0dE"], [b"t", b"m\xc5"], [b"t", b"m\xe5"], [b"\x54\x20", b"me"]]
)
def test_only_ascii_letters_match_in_any_case(resolver: Asking, labels: list[bytes]):
    """Trap 4, RFC 4343 section 2.1: ASCII letters only; `0x0D` is not `m`, and 0xC5 is not `e`."""
    assert is_forwarded(resolver.query(wire.labels_to_wire(labels)))


@pytest.mark.parametrize("name", [SINKHOLED, LONGER, f"n.{EXEMPT}"])
def test_the_question_is_returned_byte_for_byte(resolver: Asking, name: str):
    """Trap 4, draft-vixie-dnsext-dns0x20: the client's case is its proof; hickory#2683."""
    mixed = f"wWw.{name}".swapcase()
    reply = resolver.query(mixed)
    assert reply.question == wire.question(mixed)
    assert [record.owner for record in reply.answer[:1]] in ([], [f"{mixed}."])


def test_owners_are_pointers_to_the_question(resolver: Asking):
    """Trap 4, RFC 1035 section 4.1.4: 0xC00C, so that no case and no byte can differ."""
    reply = resolver.query(SINKHOLED)
    assert reply.raw[reply.answer[0].offset :][:2] == b"\xc0\x0c"


@pytest.mark.parametrize(
    "labels",
    [[b"t.me"], [b"www.t", b"me"], [b"x.sinkholed", b"example"], [b"sinkholed\0", b"example"]],
    ids=["t\\.me", "www\\.t.me", "x\\.sinkholed", "sinkholed\\000"],
)
def test_a_dot_inside_a_label_does_not_end_it(resolver: Asking, labels: list[bytes]):
    """Trap 14, RFC 2181 section 11: `t\\.me` is one label and not `t.me`; blocky#961."""
    assert is_forwarded(resolver.query(wire.labels_to_wire(labels)))


def test_labels_of_any_bytes_below_a_blocked_name_are_covered(resolver: Asking):
    """Trap 14, RFC 2181 section 11; CVE-2026-33597: an unusual label must not end the search."""
    for label in (b"\0", b"\xff.\xc0", b'"\\\n<b>', bytes(range(63))):
        assert is_sinkholed(resolver.query(wire.labels_to_wire([label, b"t", b"me"])))


def test_the_longest_name_below_a_blocked_name_is_covered(resolver: Asking):
    """Trap 14, RFC 1035 section 2.3.4: 255 octets."""
    name = wire.labels_to_wire([b"x" * 63] * 3 + [b"y" * 43, b"sinkholed", b"example"])
    assert len(name) == 255
    assert is_sinkholed(resolver.query(name))
