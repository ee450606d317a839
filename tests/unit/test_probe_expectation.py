"""The expected response for each name of an order, and the judgement of a response."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsblock.errors import Refused
from dnsblock.probe import report
from dnsblock.probe.checks import (
    Check,
    Ordered,
    OrderedEntry,
    Plan,
    as_json,
    check_effect,
    checks_of,
    choose,
    from_json,
)
from dnsblock.probe.evidence import Evidence, Row
from dnsblock.probe.expectation import Answer, Blocked, NotBlockedBy, Open, Seen, Verdict, found
from dnsblock.probe.messages import ExtendedError, Question, Record, Reply
from dnsblock.probe.queries import Result

SINKHOLE = Answer("sinkhole", ("192.0.2.53",), ("2001:db8::53",))
TWO = Answer("sinkhole", ("192.0.2.1", "192.0.2.2"))
PAGE, GARDEN = (Answer("cname", target=target) for target in ("page.example", "*.page.example"))
NAME = "one.example"
OURS = ExtendedError(16, "84/2017")
ALIVE = Reply("NOERROR", is_truncated=False)


def reply(
    *records: str, rcode: str = "NOERROR", tc: bool = False, error: ExtendedError | None = None
) -> Reply:
    """Records are written as `A 192.0.2.1`; their owner is NAME."""
    answer = tuple(
        Record(NAME, *record.split()) if " " in record else Record(NAME, record, "") for record in records
    )
    return Reply(rcode, tc, answer, () if error is None else (error,))


def judge(
    expectation: Blocked | NotBlockedBy | Open,
    response: Reply | None,
    qtype: str = "A",
    *,
    reference: Reply | None = None,
    control: Reply | None = ALIVE,
) -> Verdict:
    result = Result(response, "" if response else "no response")
    return expectation.judge(Seen(Question(NAME, qtype), "udp", result, control, reference))


# ------- Blocks -------


@pytest.mark.parametrize(
    ("answer", "qtype", "right", "wrong"),
    [
        (SINKHOLE, "A", reply("A 192.0.2.53"), reply("A 198.51.100.7")),
        (SINKHOLE, "A", reply("A 192.0.2.53", error=OURS), reply("A 192.0.2.53", "A 198.51.100.7")),
        (SINKHOLE, "A", reply("A 192.0.2.53"), reply("CNAME other.example", "A 192.0.2.53")),
        (SINKHOLE, "A", reply("A 192.0.2.53"), reply()),
        (SINKHOLE, "A", reply("A 192.0.2.53"), reply("A 192.0.2.53", rcode="NXDOMAIN")),
        (SINKHOLE, "AAAA", reply("AAAA 2001:db8::53"), reply("AAAA 2001:db8:7::7")),
        (SINKHOLE, "HTTPS", reply(), reply("HTTPS")),
        (Answer("sinkhole", ("192.0.2.53",)), "AAAA", reply(), reply("AAAA 2001:db8:7::7")),
        (TWO, "A", reply("A 192.0.2.2", "A 192.0.2.1"), reply("A 192.0.2.1")),
        (Answer("nodata"), "A", reply(), reply(rcode="NXDOMAIN")),
        (Answer("nodata"), "A", reply(error=OURS), reply("A 198.51.100.7")),
        (Answer("nodata"), "A", reply(), reply(tc=True)),
        (Answer("nxdomain"), "A", reply(rcode="NXDOMAIN"), reply("A 198.51.100.7")),
        (Answer("nxdomain"), "A", reply(), reply(rcode="SERVFAIL")),
        (Answer("nxdomain"), "A", reply(), reply("CNAME other.example", rcode="NXDOMAIN")),
        (Answer("refused"), "A", reply(rcode="REFUSED", error=OURS), reply()),
        (Answer("refused"), "A", reply(rcode="REFUSED"), reply(rcode="REFUSED", error=ExtendedError(18, ""))),
        (Answer("drop"), "A", None, reply(rcode="SERVFAIL")),
        (Answer("truncate"), "A", reply(tc=True), reply("A 198.51.100.7")),
        (PAGE, "A", reply("CNAME page.example", "A 192.0.2.80"), reply("A 192.0.2.80")),
        (PAGE, "HTTPS", reply("CNAME page.example"), reply("CNAME x.example")),
        (GARDEN, "A", reply("CNAME one.example.page.example"), reply("CNAME page.example")),
        (Answer("cname", target="*." + "x." * 121 + "example"), "A", reply(rcode="YXDOMAIN"), reply()),
    ],
)  # fmt: skip
def test_each_answer_profile_has_its_response(answer: Answer, qtype: str, right: Reply | None, wrong: Reply):
    """As on the wire; extended errors are information only, since other resolvers have none."""
    assert not judge(Blocked((answer,)), right, qtype).missed
    assert judge(Blocked((answer,)), wrong, qtype).missed


def test_no_response_is_a_miss_that_is_not_final():
    """A server may be restarting."""
    assert judge(Blocked((SINKHOLE,)), None) == Verdict(missed=True, is_final=False)
    assert judge(Open(), None) == Verdict(missed=True, is_final=False)
    assert judge(NotBlockedBy("1", ()), None) == Verdict(missed=True, is_final=False)


def test_a_silent_or_refusing_server_proves_no_block():
    """The control query shows what it does with other names."""
    assert judge(Blocked((Answer("drop"),)), None, control=None).missed
    assert judge(Blocked((Answer("refused"),)), reply(rcode="REFUSED"), control=reply(rcode="REFUSED")).missed


def test_any_of_several_answers_is_enough():
    """If another order of the issuer may decide, its answer is as good."""
    both = Blocked((SINKHOLE, Answer("nxdomain")))
    assert both.expected(Question(NAME, "A")) == "A 192.0.2.53 or NXDOMAIN or NODATA"
    assert not judge(both, reply(rcode="NXDOMAIN")).missed
    assert judge(both, reply("A 198.51.100.7")).missed


def test_truncate_expects_nothing_over_tcp():
    """There the next zone decides."""
    assert [Blocked((Answer("truncate"),)).applies(over) for over in ("udp", "tcp")] == [True, False]


# ------- Open names -------

UPSTREAMS = reply("A 198.51.100.7")


@pytest.mark.parametrize(
    ("response", "reference", "is_missed"),
    [
        (UPSTREAMS, UPSTREAMS, False),
        (reply("A 198.51.100.99"), UPSTREAMS, False),  # a CDN
        (reply("CNAME cdn.example", "A 198.51.100.99"), UPSTREAMS, False),
        (UPSTREAMS, reply(), False),
        (UPSTREAMS, reply(rcode="SERVFAIL"), False),
        (reply(), reply(), False),
        (reply(rcode="NXDOMAIN"), reply(rcode="NXDOMAIN"), False),
        (reply(rcode="SERVFAIL"), reply(rcode="SERVFAIL"), False),
        (reply(), UPSTREAMS, True),
        (reply("CNAME cdn.example"), UPSTREAMS, True),
        (reply(rcode="NXDOMAIN"), UPSTREAMS, True),
        (reply(rcode="SERVFAIL"), UPSTREAMS, True),
        (reply(rcode="REFUSED"), UPSTREAMS, True),
        (reply("A 192.0.2.53"), UPSTREAMS, True),
        (reply("A 198.51.100.7", "A 192.0.2.53"), UPSTREAMS, True),
        (reply("A 192.0.2.53"), reply("A 192.0.2.53"), True),
        (reply("A 198.51.100.7", error=OURS), UPSTREAMS, True),
        (reply("A 198.51.100.7", error=ExtendedError(15, "")), UPSTREAMS, True),
        (reply("A 198.51.100.7", error=ExtendedError(17, "x")), reply(error=ExtendedError(17, "x")), True),
        (reply("A 198.51.100.7", error=ExtendedError(3, "stale")), UPSTREAMS, False),
        (UPSTREAMS, None, False),
        (reply(rcode="NXDOMAIN"), None, False),
        (reply(rcode="SERVFAIL"), None, True),
        (reply("A 192.0.2.53"), None, True),
    ],
)  # fmt: skip
def test_the_upstreams_answer_is_no_block_and_no_less_than_the_reference_has(
    response: Reply, reference: Reply | None, is_missed: bool
):
    """RCODE, presence of records and extended errors are compared, not the records."""
    assert judge(Open((SINKHOLE,)), response, reference=reference).missed is is_missed


def test_a_difference_that_may_pass_is_not_final():
    """SERVFAIL may be transient, and a record may just have been added; a block's answer is a block."""
    assert not judge(Open((SINKHOLE,)), reply(rcode="SERVFAIL"), reference=UPSTREAMS).is_final
    assert not judge(Open((SINKHOLE,)), reply(), reference=UPSTREAMS).is_final
    assert judge(Open((SINKHOLE,)), reply("A 192.0.2.53"), reference=UPSTREAMS).is_final


def test_the_answer_of_a_cname_block_is_recognised():
    """By its target, whatever address that has."""
    landing = Open((PAGE,))
    assert judge(landing, reply("CNAME page.example", "A 192.0.2.80"), reference=UPSTREAMS).missed
    assert not judge(landing, reply("CNAME cdn.example", "A 192.0.2.80"), reference=UPSTREAMS).missed


def test_without_a_reference_a_negative_answer_may_be_the_block():
    """An upstream may deny the name too, but nothing proves that."""
    assert judge(Open((Answer("nxdomain"),)), reply(rcode="NXDOMAIN")).missed
    assert judge(Open((Answer("nodata"),)), reply()).missed
    assert not judge(Open((Answer("nodata"),)), reply(), "HTTPS").missed
    assert not judge(Open((Answer("nodata"),)), reply(rcode="NXDOMAIN")).missed


def test_a_landing_page_may_have_the_address_of_the_sinkhole():
    """If the reference has it as well, and nobody says that it is blocked."""
    own = Open((SINKHOLE,), may_be_own=True)
    assert not judge(own, reply("A 192.0.2.53"), reference=reply("A 192.0.2.53")).missed
    assert judge(own, reply("A 192.0.2.53"), reference=UPSTREAMS).missed
    assert judge(own, reply("A 192.0.2.53", error=OURS), reference=reply("A 192.0.2.53")).missed


def test_a_name_outside_an_order_may_be_blocked_by_another():
    """The extended error says by which; without one, the records do."""
    outside = NotBlockedBy("84/2017", (SINKHOLE,))
    assert judge(outside, reply("A 192.0.2.53", error=OURS)).missed
    assert judge(outside, reply("A 192.0.2.53")).missed
    assert not judge(outside, reply("A 192.0.2.53", error=ExtendedError(16, "1/2018"))).missed
    assert not judge(outside, reply("A 198.51.100.7")).missed
    assert not judge(outside, reply(rcode="NXDOMAIN")).missed


# ------- The checks of an order -------


def entry(name: str, match: str = "subtree", effect: str = "in force") -> OrderedEntry:
    return OrderedEntry(name, match, (SINKHOLE,), effect)


def ordered(*entries: OrderedEntry, action: str = "block", state: str = "active") -> Ordered:
    return Ordered("a", "84/2017", action, state, entries)


def checks(order: Ordered, answers: tuple[Answer, ...] = ()) -> tuple[Check, ...]:
    names = dict.fromkeys(one.name for one in order.entries)
    return checks_of(order, list(names), answers)


def kinds(order: Ordered) -> dict[tuple[str, str], str]:
    """The expectation of each queried name: itself or `below`."""
    return {
        (check.entry, "below" if check.question.name != check.entry else "itself"): type(
            check.expectation
        ).__name__
        for check in checks(order)
    }


def test_each_match_has_its_expectations():
    """The name itself, and a random name below it."""
    found_kinds = kinds(ordered(entry("s.example"), entry("e.example", "exact"), entry("b.example", "below")))
    assert found_kinds == {
        ("s.example", "itself"): "Blocked",
        ("s.example", "below"): "Blocked",
        ("e.example", "itself"): "Blocked",
        ("e.example", "below"): "NotBlockedBy",
        ("b.example", "itself"): "NotBlockedBy",
        ("b.example", "below"): "Blocked",
    }


def test_an_entry_above_decides_where_an_exact_one_ends():
    """telegram.org with all below it, and core.telegram.org alone."""
    order = ordered(entry("telegram.org"), entry("core.telegram.org", "exact"))
    assert kinds(order)["core.telegram.org", "below"] == "Blocked"


def test_a_lifted_entry_is_open_unless_another_entry_covers_it():
    """A partial unblock leaves the entries above in force."""
    order = ordered(
        entry("telegram.org"), entry("web.telegram.org", effect="ended"), entry("t.me", effect="ended")
    )
    assert kinds(order)["t.me", "itself"] == "Open"
    assert kinds(order)["web.telegram.org", "itself"] == "Blocked"


def test_a_held_entry_has_no_effect():
    """It was never in force: the name may be blocked by others, and not by this order."""
    assert kinds(ordered(entry("t.me", effect="none"))) == {
        ("t.me", "itself"): "NotBlockedBy",
        ("t.me", "below"): "NotBlockedBy",
    }


@pytest.mark.parametrize("action", ["unblock", "exempt"])
def test_an_unblock_opens_the_names_that_its_entries_cover(action: str):
    """It says nothing about other names."""
    entries = (entry("s.example"), entry("e.example", "exact"), entry("b.example", "below"))
    assert kinds(ordered(*entries, action=action)) == {
        ("s.example", "itself"): "Open",
        ("s.example", "below"): "Open",
        ("e.example", "itself"): "Open",
        ("b.example", "below"): "Open",
    }


def test_an_entry_that_lets_names_through_leaves_them_open():
    """The answer `passthru`."""
    order = ordered(OrderedEntry(NAME, "subtree", (Answer("passthru"),)))
    assert set(kinds(order).values()) == {"Open"}


LABELS = st.sampled_from("ab")
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
ENTRIES = st.builds(
    entry,
    NAMES,
    st.sampled_from(["exact", "subtree", "below"]),
    st.sampled_from(["in force", "ended", "none"]),
)


@given(st.lists(ENTRIES, min_size=1, max_size=6))
def test_the_longest_match_decides(entries: list[OrderedEntry]):
    """Against a model: of all entries that cover a name, the longest, and of these the exact one."""
    for check in checks(ordered(*entries)):
        covering = [one for one in entries if one.covers(check.question.name)]
        in_force = [one for one in covering if one.effect == "in force"]
        if in_force:
            wanted = "Blocked"
            best = max(in_force, key=lambda one: (len(one.name), one.match == "exact"))
            assert check.expectation.answers == best.answers
        else:
            wanted = "Open" if any(one.effect == "ended" for one in covering) else "NotBlockedBy"
        assert type(check.expectation).__name__ == wanted


def test_a_name_without_room_below_is_probed_alone():
    """RFC 1035 section 2.3.4 limits its length."""
    long = ".".join(["x" * 61] * 4)
    assert {check.question.name for check in checks(ordered(entry(long)))} == {long}


def test_a_large_order_is_sampled_with_its_popular_names():
    """At most as many popular names again; the sample is another one each time."""
    names = [f"n{number}.example" for number in range(5000)]
    popular, also = set(names[:5]), {names[7]}
    samples = [choose(lambda: names, 100, popular, also) for _ in range(2)]
    for chosen, total in samples:
        assert total == 5000
        assert popular | also <= set(chosen)
        assert 100 <= len(chosen) == len(set(chosen)) <= 106
        assert chosen == sorted(chosen, key=names.index)
    assert samples[0] != samples[1]
    assert len(choose(lambda: names, 100, set(names))[0]) == 200
    assert choose(lambda: names, 5000, popular) == (names, 5000)
    assert choose(lambda: ["t.me", "t.me"], 100, ()) == (["t.me"], 1)


def test_the_checks_are_the_same_after_the_control_api():
    """The command gets them from the daemon as JSON."""
    entries = (entry("s.example"), entry("e.example", "exact"), entry("t.me", effect="ended"))
    order = ordered(*entries)
    plan = Plan(checks(order, (PAGE,)), 3, 3)
    said = json.loads(json.dumps(as_json(order, plan)))
    assert from_json(said) == (replace(order, entries=()), plan, (SINKHOLE, PAGE))


@pytest.mark.parametrize("state", ["held", "scheduled", "proposed", "notice"])
def test_an_order_without_effect_is_not_probed(state: str):
    """A miss would be no fault of the resolver."""
    with pytest.raises(Refused, match=state):
        check_effect(ordered(state=state))


# ------- Results -------


def row(resolver: str, transport: str, name: str, qtype: str, *, missed: bool = False, **more: object) -> Row:
    fields = {"entry": name, "expected": "not blocked", "found": "NODATA", "milliseconds": 1.5} | more
    return Row(resolver, transport, name, qtype, missed=missed, **fields)


def evidence(*rows: Row, names: int = 2, probed: int = 2) -> Evidence:
    at = datetime(2017, 8, 10, 3, 46, tzinfo=UTC)
    return Evidence("a", "84/2017", "unblock", at, 1.25, names, probed, 0, len(rows), rows)


def test_misses_are_grouped_by_resolver_and_name():
    """Types and transports of one miss are named together."""
    wrong = {("r2", "t.me", "A"), ("r2", "t.me", "AAAA")}
    places = product(("r1", "r2"), ("udp", "tcp"), ("t.me", "x.y"), ("A", "AAAA", "HTTPS"))
    rows = [
        row(resolver, over, name, qtype, missed=(resolver, name, qtype) in wrong)
        for resolver, over, name, qtype in places
    ]
    found_evidence = evidence(*rows)
    [miss] = found_evidence.misses
    assert (miss.resolver, miss.name, miss.qtypes, miss.transports) == (
        "r2",
        "t.me",
        ("A", "AAAA"),
        ("udp", "tcp"),
    )
    assert [(one.resolver, one.transport, one.asked, one.missed) for one in found_evidence.summaries] == [
        ("r1", "udp", 6, 0), ("r1", "tcp", 6, 0), ("r2", "udp", 6, 2), ("r2", "tcp", 6, 2),
    ]  # fmt: skip
    assert (
        report.conclusion(found_evidence)
        == "MISSED: 4 of 24 responses are not as expected, for 1 name at 1 resolver"
    )
    assert list(report.miss_tables(found_evidence)) == [
        ("missed at r2:", [["t.me", "A AAAA", "not blocked", "NODATA"]])
    ]


def test_a_sample_is_stated_and_nothing_is_no_success():
    """A probe without queries proves nothing."""
    assert "a random sample of 2 of 9 names" in report.headline(
        evidence(row("r", "udp", "t.me", "A"), names=9)
    )
    assert report.conclusion(evidence()) == "nothing was queried: there is no name to probe"


def test_what_was_found_is_one_short_text():
    """For a table; many records are counted."""
    many = reply(*(f"A 192.0.2.{number}" for number in range(6)))
    assert found(Result(many)) == "A 192.0.2.0, A 192.0.2.1, A 192.0.2.2 and 3 more"
    assert found(Result(reply(error=OURS))) == "NODATA; EDE 16 84/2017"
    assert found(Result(reply(tc=True))) == "TC=1"
    assert found(Result(reply("CNAME x.example", rcode="NXDOMAIN"))) == "NXDOMAIN; CNAME x.example"
    assert found(Result(None, "no response")) == "no response"
