"""Guards for orders (dnsblock/orders/guards.py): which entries are refused, held and noted."""

from dataclasses import replace

import pytest

from dnsblock.config import BulkGuard, Config
from dnsblock.orders.entry import Entry
from dnsblock.orders.guards import GuardContext, judge, protected_names, released_by_acks
from dnsblock.orders.order import Order
from dnsblock.orders.popular import NameSet, shipped
from dnsblock.orders.verdict import EntryVerdict
from dnsblock.suffixes import icann_suffixes

from .helpers import block, exempt, orders, unblock

CONFIG = Config.model_validate(
    {
        "upstream": {"servers": ["192.0.2.1"]},
        "protected": ["isp.example", "kominfo.go.id"],
        "answers": {
            "landing": {"action": "cname", "target": "landing.example"},
            "garden": {"action": "cname", "target": "*.garden.example"},
            "sinkhole": {"action": "sinkhole", "ipv4": ["192.0.2.53"]},
        },
    }
)
TARGETS = [answer.target for answer in CONFIG.answers.values() if answer.target]
CONTEXT = GuardContext(protected_names(CONFIG.protected, TARGETS), shipped().names)
TELEGRAM = (
    *("t.me", "telegram.me", "telegram.org", "core.telegram.org", "desktop.telegram.org"),
    *("macos.telegram.org", "web.telegram.org", "venus.web.telegram.org", "pluto.web.telegram.org"),
    *("flora.web.telegram.org", "flora-1.web.telegram.org"),
)


def order(*entries: str) -> Order:
    """A block of these entries, each written as in a document."""
    return orders(block("b-1", *entries))[0]


def many(count: int) -> Order:
    return replace(order("a.example"), entries=tuple(Entry(f"n{n}.example", "subtree") for n in range(count)))


def verdicts(*entries: str, context: GuardContext = CONTEXT) -> list[tuple[str, str, str]]:
    """Name, verdict and code of each entry that is not accepted."""
    judged = order(*entries)
    return [(judged.entries[one.index].name, one.verdict, one.code) for one in judge(judged, context)]


def codes(entry: str, context: GuardContext = CONTEXT) -> list[tuple[str, str]]:
    return [(verdict, code) for _, verdict, code in verdicts(entry, context=context)]


def reason(entry: str, context: GuardContext = CONTEXT) -> str:
    (verdict,) = judge(order(entry), context)
    return verdict.reason


# ------- The accidents of the field -------


def test_a_police_list_with_a_messenger_holds_only_the_messenger():
    """May 2023: a police list contained `t.me`, and the providers of a whole country blocked it."""
    assert verdicts("phishing.example", "t.me", "fraud.example") == [("t.me", "held", "POPULAR")]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["drive.usercontent.google.com"], ["POPULAR"]),
        (["google.com", "gstatic.com"], ["POPULAR", "POPULAR"]),
        (["usercontent.google.com"], ["POPULAR"]),
        (["pages.dev"], ["PRIVATE_SUFFIX", "POPULAR"]),
        (["github.io"], ["PRIVATE_SUFFIX", "POPULAR"]),
        (["blogspot.com"], ["PRIVATE_SUFFIX", "POPULAR"]),
        (["uk.com"], ["PRIVATE_SUFFIX"]),
    ],
)
def test_shared_infrastructure_and_hosting_are_held(names: list[str], expected: list[str]):
    """In 2024 and 2025, such entries took down file sharing, fonts and thousands of unrelated sites."""
    found = verdicts(*names)
    assert [code for *_, code in found] == expected
    assert {verdict for _, verdict, _ in found} == {"held"}


@pytest.mark.parametrize("name", ["li", "id", "co.id", "go.id", "com", "xn--p1ai"])
@pytest.mark.parametrize("match", ["exact", "subtree", "below"])
def test_a_truncated_line_that_became_a_registry_is_refused(name: str, match: str):
    """`judi.li` became `li`, and `situs.co.id` became `co.id`, when a line was split."""
    assert codes(f"{{name: {name}, match: {match}}}") == [("refused", "PUBLIC_SUFFIX")]


def test_the_telegram_order_passes_with_its_acks_and_two_signatures():
    """14 July 2017: eleven names, of which some are popular. The issuer means them."""
    judged = judge(order(*TELEGRAM), CONTEXT)
    assert {(one.verdict, one.code) for one in judged} == {("held", "POPULAR")}
    assert {0, 1, 2} <= {one.index for one in judged}
    assert released_by_acks(judged, ["POPULAR"], signers=2, required=1) == ()


# ------- Each guard -------


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("kawasaki.jp", "a public suffix; an order names single domains"),
        ("{name: kawasaki.jp, match: exact}", "a public suffix; an order names single domains"),
        ("anything.kawasaki.jp", "a public suffix; an order names single domains"),
        ("sch.uk", "a public suffix; an order names single domains"),
    ],
)
def test_a_name_whose_children_are_all_public_suffixes_is_refused(entry: str, expected: str):
    """publicsuffix.org/list: the rule `*.kawasaki.jp` does not match `kawasaki.jp` itself."""
    assert reason(entry) == expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [("subtree", ["PUBLIC_SUFFIX"]), ("below", ["PUBLIC_SUFFIX"]), ("exact", [])],
)
def test_a_name_above_a_public_suffix_is_refused_if_it_covers_it(match: str, expected: list[str]):
    """`nordland.no` is no suffix in the list, but `bo.nordland.no` is one."""
    above = next(name for name in icann_suffixes().shown_below if is_no_suffix(name))
    assert [code for _, code in codes(f"{{name: {above}, match: {match}}}")] == expected


def is_no_suffix(name: str) -> bool:
    return "." in name and not icann_suffixes().is_suffix(name)


@pytest.mark.parametrize("entry", ["city.kawasaki.jp", "a.b.kawasaki.jp", "situs.co.id"])
def test_a_name_that_covers_no_public_suffix_is_accepted(entry: str):
    """publicsuffix.org/list: `!city.kawasaki.jp` is an exception."""
    assert codes(entry) == []


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("github.io", ["PRIVATE_SUFFIX", "POPULAR"]),
        ("{name: github.io, match: exact}", ["PRIVATE_SUFFIX", "POPULAR"]),
        ("{name: github.io, match: below}", ["PRIVATE_SUFFIX", "POPULAR"]),
        ("customer.github.io", []),
        ("bubble.io", ["PRIVATE_SUFFIX"]),  # above cdn.bubble.io
        ("{name: bubble.io, match: exact}", []),
        ("eu-1.compute.amazonaws.com", ["PRIVATE_SUFFIX"]),  # the rule is `*.compute.amazonaws.com`
        ("compute.amazonaws.com", ["PRIVATE_SUFFIX"]),
        ("{name: compute.amazonaws.com, match: exact}", ["PRIVATE_SUFFIX"]),
        ("customer.eu-1.compute.amazonaws.com", []),
    ],
)
def test_a_hosting_suffix_is_held_but_not_a_customer_below_it(entry: str, expected: list[str]):
    """Below `pages.dev`, one name is one customer. The suffix itself is everybody."""
    assert [code for _, code in codes(entry)] == expected


PROTECTED = [("refused", "PROTECTED")]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("isp.example", PROTECTED),
        ("{name: isp.example, match: exact}", PROTECTED),
        ("{name: isp.example, match: below}", PROTECTED),
        ("www.isp.example", PROTECTED),
        ("{name: a.b.isp.example, match: exact}", PROTECTED),
        ("landing.example", PROTECTED),
        ("garden.example", PROTECTED),
        ("any.garden.example", PROTECTED),
        ("{name: example, match: exact}", [("refused", "PUBLIC_SUFFIX")]),
        ("resolver.arpa", PROTECTED),
        ("_dns.resolver.arpa", PROTECTED),
        ("2.0.192.in-addr.arpa", PROTECTED),
        ("otherisp.example", []),
        ("example.isp", []),
    ],
)
def test_protected_names_and_names_below_them_are_refused(entry: str, expected: list[tuple[str, str]]):
    """An order with our own landing name was answered with a CNAME to itself."""
    assert codes(entry) == expected


@pytest.mark.parametrize(("match", "expected"), [("subtree", PROTECTED), ("below", PROTECTED), ("exact", [])])
def test_a_name_above_a_protected_one_is_refused_if_it_covers_it(match: str, expected: list):
    """As in lists: an exact entry above a protected name does not reach it."""
    context = replace(CONTEXT, protected=NameSet.of(["portal.isp.example"]))
    assert codes(f"{{name: isp.example, match: {match}}}", context) == expected


def test_the_reason_names_the_protected_name():
    """The issuer sees which name is in the way."""
    assert reason("a.b.isp.example") == "is below the protected name isp.example"
    context = replace(CONTEXT, protected=NameSet.of(["portal.isp.example"]))
    assert reason("isp.example", context) == "covers the protected name portal.isp.example"
    assert reason("portal.isp.example", context) == "a protected name"


def test_a_protected_name_is_accepted_from_a_signer_with_the_role_override():
    """By configuration only: no document can do this."""
    assert codes("isp.example", replace(CONTEXT, may_override=True)) == []
    assert codes("resolver.arpa", replace(CONTEXT, may_override=True)) == []


def test_an_override_opens_protected_names_only():
    """Popular names are still held, and nobody may block a country."""
    context = replace(CONTEXT, may_override=True)
    assert codes("t.me", context) == [("held", "POPULAR")]
    assert codes("co.id", context) == codes("arpa", context) == [("refused", "PUBLIC_SUFFIX")]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("google.com", ["POPULAR"]),
        ("{name: google.com, match: exact}", ["POPULAR"]),
        ("{name: google.com, match: below}", ["POPULAR"]),
        ("www.google.com", ["POPULAR"]),
        ("{name: www.google.com, match: exact}", ["POPULAR"]),
        ("{name: usercontent.google.com, match: below}", ["POPULAR"]),
        ("phishing.sites.google.com", []),
        ("www.phishing.sites.google.com", []),
        ("xn--ggle-0nda.com", []),
        ("notgoogle.com", []),
    ],
)
def test_a_popular_name_is_held_and_names_below_it_are_not(entry: str, expected: list[str]):
    """One page of a popular service is narrower than the service. `www.` is the same site."""
    assert [code for _, code in codes(entry)] == expected


@pytest.mark.parametrize(
    ("match", "expected"), [("subtree", ["POPULAR"]), ("below", ["POPULAR"]), ("exact", [])]
)
def test_a_name_above_a_popular_one_is_held_if_it_covers_it(match: str, expected: list[str]):
    """A popular host may have a parent that nobody knows."""
    context = replace(CONTEXT, popular=NameSet.of(["files.host.example"]))
    assert [code for _, code in codes(f"{{name: host.example, match: {match}}}", context)] == expected


def test_each_guard_that_holds_an_entry_is_named():
    """All must be released: an ack of POPULAR alone does not open a hosting suffix."""
    judged = judge(order("github.io"), CONTEXT)
    assert [one.code for one in judged] == ["PRIVATE_SUFFIX", "POPULAR"]
    (left,) = released_by_acks(judged, ["POPULAR"], signers=2, required=1)
    assert left.code == "PRIVATE_SUFFIX"
    assert released_by_acks(judged, ["POPULAR", "PRIVATE_SUFFIX"], signers=2, required=1) == ()


# ------- BULK -------


def with_sizes(*sizes: int, **bulk: object) -> GuardContext:
    return replace(CONTEXT, sizes=sizes, bulk=BulkGuard.model_validate(bulk))


def is_bulk(count: int, context: GuardContext) -> bool:
    judged = judge(many(count), context)
    assert {(one.verdict, one.code) for one in judged} <= {("held", "BULK")}
    assert len(judged) in (0, count)
    return bool(judged)


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1000, (), False),
        (1001, (), True),  # the first order: there is no usual size
        (1001, (0, 0), True),  # orders without an accepted entry say nothing
        (1001, (11, 11, 5), True),
        (1001, (100, 101, 102), False),  # the median is 101
        (1010, (101,), False),
        (1011, (101,), True),
        (1006, (100, 101), True),  # the median is 100.5
        (1000, (1, 1, 1), False),
        (30_000, (3000,) * 9, False),
    ],
)
def test_an_order_is_bulk_above_both_limits(count: int, sizes: tuple[int, ...], expected: bool):
    """More than 1,000 entries, and more than ten times the issuer's median."""
    assert is_bulk(count, with_sizes(*sizes)) is expected


def test_both_limits_of_bulk_are_options():
    """`guards.bulk`: an issuer of daily deltas is another case than a court."""
    assert is_bulk(6, with_sizes(entries="5"))
    assert not is_bulk(2000, with_sizes(entries="off"))
    assert is_bulk(11, with_sizes(5, entries="5", factor="2"))
    assert not is_bulk(10, with_sizes(5, entries="5", factor="2"))


def test_the_reason_of_bulk_has_the_numbers():
    """The operator decides by them."""
    of_first = judge(many(1001), CONTEXT)[0].reason
    assert of_first == "1,001 new entries, more than 1,000, in the issuer's first order"
    later = judge(many(2000), with_sizes(11, 12))[0].reason
    assert later == "2,000 new entries, more than 1,000 and more than 10 times the issuer's median of 11.5"


def test_a_bulk_order_has_the_other_verdicts_too():
    """A refused entry stays refused after the release of the rest. A popular one needs both codes."""
    large = many(1001)
    entries = (Entry("co.id", "subtree"), Entry("t.me", "subtree"), *large.entries)
    judged = judge(replace(large, entries=entries), CONTEXT)
    assert [(one.index, one.code) for one in judged[:4]] == [
        (0, "PUBLIC_SUFFIX"),
        (1, "POPULAR"),
        (1, "BULK"),
        (2, "BULK"),
    ]
    assert len(judged) == 1004
    left = released_by_acks(judged, ["BULK"], signers=2, required=2)
    assert [(one.index, one.code) for one in left] == [(0, "PUBLIC_SUFFIX"), (1, "POPULAR")]


# ------- Actions -------


def test_lifting_is_never_judged():
    """Five of the eleven Telegram names stayed blocked for hours: no guard may delay an unblock."""
    lifted = unblock("u-1", "b-1", "t.me", "co.id", "isp.example")
    opened = exempt("e-1", "t.me", "isp.example", "github.io")
    for one in orders(lifted, opened):
        assert judge(one, CONTEXT) == ()
        assert judge(replace(one, action="revoke"), CONTEXT) == ()


@pytest.mark.parametrize("action", ["block", "supersede", "notice"])
def test_every_action_that_blocks_is_judged(action: str):
    """The issuer of a notice learns what the later block would meet."""
    assert [one.code for one in judge(replace(order("t.me"), action=action), CONTEXT)] == ["POPULAR"]


def test_entries_that_a_supersede_keeps_are_not_held_again():
    """Otherwise correcting one name of the Telegram order would open `t.me` until a second signature."""
    new = replace(order("t.me", "{name: telegram.org, match: exact}", "whatsapp.com"), action="supersede")
    context = replace(
        CONTEXT, superseded={("t.me", "subtree"), ("telegram.org", "subtree"), ("a.example", "subtree")}
    )
    assert [new.entries[one.index].name for one in judge(new, context)] == ["telegram.org", "whatsapp.com"]


def test_the_size_of_a_supersede_is_that_of_its_new_entries():
    """A correction of one name in a long order is not a bulk order."""
    new = many(5000)
    kept = {(entry.name, entry.match) for entry in new.entries[:4000]}
    assert judge(replace(new, action="supersede"), replace(CONTEXT, superseded=kept)) == ()


# ------- Releases by acks -------


def held(code: str) -> EntryVerdict:
    return EntryVerdict(0, "held", code, "")


@pytest.mark.parametrize(
    ("signers", "required", "is_released"),
    [
        *((0, 1, False), (1, 1, False), (2, 1, True), (3, 1, True)),
        *((1, 2, False), (2, 2, True), (2, 3, False), (3, 3, True), (1, 0, False), (2, 0, True)),
    ],
)
def test_acks_need_a_second_signature_and_all_that_are_required(
    signers: int, required: int, is_released: bool
):
    """`signatures: 2`, or one more signature than the single one that is required."""
    for code in ("POPULAR", "PRIVATE_SUFFIX", "BULK"):
        assert (released_by_acks([held(code)], [code], signers, required) == ()) is is_released


def test_acks_release_only_the_codes_that_they_name():
    """An issuer who knows that a name is popular may still have sent the wrong file."""
    assert released_by_acks([held("BULK")], ["POPULAR"], 2, 1) == (held("BULK"),)
    assert released_by_acks([held("POPULAR")], ["UNKNOWN"], 2, 1) == (held("POPULAR"),)
    assert released_by_acks([held("POPULAR")], [], 2, 1) == (held("POPULAR"),)


def test_acks_never_release_a_refused_entry():
    """Protected names are overridden by configuration, and public suffixes never."""
    refused = [
        EntryVerdict(at, "refused", code, "") for at, code in enumerate(("PROTECTED", "PUBLIC_SUFFIX"))
    ]
    assert released_by_acks(refused, ["PROTECTED", "PUBLIC_SUFFIX"], 9, 1) == tuple(refused)
