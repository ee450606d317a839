"""Meaning of the lines of a list: exceptions, names without their apex, rules that names cannot express."""

import pytest

from .asking import is_forwarded, is_sinkholed
from .harness import Subject
from .lists import (
    assert_adds_up,
    enforced,
    findings,
    is_logged,
    list_zone,
    log,
    names,
    refused_by,
    reports,
    source,
    sources,
    versions,
)
from .upstreams import StubUpstream

ORDINARY = names(20)


def passing(place: str, *, name: str = "allowed", **fields: object) -> dict:
    return list_zone(place, name=name, **fields) | {"answer": "passthru"}


# ------- Exceptions -------


def two_lists(subject: Subject, upstream: StubUpstream, first: list[str], **fields: object) -> None:
    """A list with an exception, above a list that blocks the same names."""
    subject.start(
        zones=[
            list_zone("first.txt", name="first", **fields),
            list_zone("second.txt", name="second", format="plain"),
        ],
        lists={"first.txt": first, "second.txt": ["b.example", *ORDINARY]},
        upstreams=[upstream.address],
        inbox=None,
    )


RPZ = ["b.example CNAME .", "*.b.example CNAME .", "ok.b.example CNAME rpz-passthru."]
ADBLOCK = ["||b.example^", "@@||ok.b.example^"]


def test_a_passthru_of_an_rpz_zone_stops_later_zones(subject: Subject, upstream: StubUpstream):
    """RPZ draft section 3.3: PASSTHRU ends the search; so do BIND and Unbound."""
    two_lists(subject, upstream, RPZ)
    assert is_sinkholed(subject.query("x.b.example"))
    assert is_forwarded(subject.query("ok.b.example"))
    why = subject.cli("why", "ok.b.example").json
    assert why["verdict"] == "passthru"
    decided = why["decided_by"]
    assert (decided["zone"], decided["action"], decided["is_exception"]) == ("first", "passthru", True)
    shown = subject.cli("why", "ok.b.example", as_json=False).stdout
    assert "an exception of its list" in shown
    assert subject.cli("history", "ok.b.example").json["events"][0]["match"] == "pass-exact"
    when = versions(subject, "second")[0]["accepted_at"]
    assert subject.cli("why", "ok.b.example", "--at", when).json["verdict"] == "passthru"


def test_an_exception_of_another_format_continues_with_the_next_zone(
    subject: Subject, upstream: StubUpstream
):
    """An ad blocker's exception is about its own list: another list may block the name."""
    two_lists(subject, upstream, ADBLOCK)
    assert is_sinkholed(subject.query("ok.b.example"))
    why = subject.cli("why", "ok.b.example").json
    assert (why["decided_by"]["zone"], why["decided_by"]["is_exception"]) == ("second", False)
    exempt = [one for one in why["covering"] if one["zone"] == "first" and one["action"] == "exemption"]
    assert [(one["entry"], one["is_exception"]) for one in exempt] == [("ok.b.example", True)]


def test_the_meaning_of_an_exception_is_configurable(subject: Subject, upstream: StubUpstream):
    """`source.exceptions`: another meaning than the format's, either way; a reload changes it."""
    two_lists(subject, upstream, RPZ, exceptions="exempt")
    assert is_sinkholed(subject.query("ok.b.example"))
    subject.configure(
        zones=[
            list_zone("first.txt", name="first", exceptions="passthru"),
            list_zone("second.txt", name="second", format="plain"),
        ],
        lists={"first.txt": ADBLOCK},
        upstreams=[upstream.address],
        inbox=None,
    )
    subject.reload()
    assert is_forwarded(subject.query("ok.b.example"))
    assert is_sinkholed(subject.query("b.example"))


def test_an_exception_in_a_shadow_zone_has_no_effect(subject: Subject, upstream: StubUpstream):
    """A zone in shadow lets nothing through either, or a shadow zone would unblock."""
    subject.start(
        zones=[
            list_zone("first.txt", name="first") | {"mode": "shadow"},
            list_zone("second.txt", name="second", format="plain"),
        ],
        lists={"first.txt": RPZ, "second.txt": ["b.example"]},
        upstreams=[upstream.address],
        inbox=None,
    )
    assert is_sinkholed(subject.query("ok.b.example"))


EXCEPTIONS = {
    "@@||a.example": "a.example",
    "@@b.example": "b.example",
    "@@://c.example^|": "c.example",
    "@@|https://d.example^|": "d.example",
    "@@|e.example^": "e.example",
    "||f.example^$badfilter": "f.example",
    "||g.example^$badfilter,important": "g.example",
}


def test_every_exception_syntax_of_ad_blockers_is_read(subject: Subject):
    """AdGuard's and uBlock Origin's syntax; a lost exception leaves a name blocked that should be open."""
    blocks = [f"||{name}^{'$important' if name == 'g.example' else ''}" for name in EXCEPTIONS.values()]
    subject.start(
        zones=[list_zone(format="adblock")],
        lists={"list.txt": [*list(EXCEPTIONS)[-1:], *blocks, *list(EXCEPTIONS)[:-1], "||z.example^"]},
        inbox=None,
    )
    assert [name for name in EXCEPTIONS.values() if is_sinkholed(subject.query(name))] == []
    assert is_sinkholed(subject.query("z.example"))
    report = source(subject)["report"]
    assert_adds_up(report)
    assert (report["rejected"], report["not_applicable_by"]) == (0, {"switched_off": 2})
    assert source(subject)["warnings"] == []


LOST = {
    "adblock": [
        "@@||ok.example^$client=192.0.2.1",
        "@@||ok.example/path",
        "@@/^ok[0-9]/",
        "@@||ok..example^",
        "@@||co.id^",
        "||elsewhere.example^$badfilter",
    ],
    "rpz": [
        "ok.example CNAME rpz-passthru",
        "32.1.2.0.192.rpz-client-ip CNAME rpz-passthru.",
        "* CNAME rpz-passthru.",
    ],
    "unbound": ['local-zone: "*.ok.example" transparent', 'local-zone: "com" always_transparent'],
    "dnsmasq": ["server=/#/#", "server=/ok..example/#"],
    "plain": ["@@||ok.example^"],
}
BLOCKS = {
    "adblock": "||n{}.example^",
    "rpz": "n{}.example CNAME .",
    "unbound": 'local-zone: "n{}.example" static',
    "dnsmasq": "local=/n{}.example/",
    "plain": "n{}.example",
}


def test_an_unreadable_exception_has_a_code_and_a_warning_of_its_own(subject: Subject):
    """Its name may be blocked by mistake: check, log, `source list` and a metric report it."""
    subject.configure(
        zones=[list_zone(f"{form}.txt", name=form, format=form) for form in LOST],
        lists={
            f"{form}.txt": [*lines, *(BLOCKS[form].format(number) for number in range(20))]
            for form, lines in LOST.items()
        },
        inbox=None,
    )
    said = subject.cli("check")
    assert said.code == 0, said
    for form, report in reports(said).items():
        assert_adds_up(report)
        assert (report["rejected"], report["not_applicable_by"]) == (0, {"lost_exception": len(LOST[form])})
        assert [line for _, line, _, _ in findings(report, "lost exception")] == list(
            range(1, len(LOST[form]) + 1)
        ) or form == "adblock"
    subject.launch()
    listed = subject.cli("source list", as_json=False).stdout
    metrics = subject.metrics()
    for form, lines in LOST.items():
        count = len(lines)
        words = (f"list {form}: {count} exceptions cannot be applied",)
        assert is_logged(subject, *words), log(subject)
        assert words[0] in listed
        assert (
            metrics.total("dnsblock_source_not_applicable_lines", zone=form, reason="lost_exception") == count
        )
        assert metrics.total("dnsblock_source_lines", zone=form, result="not_applicable") == count


def test_exceptions_are_the_entries_of_a_passthru_zone(subject: Subject, upstream: StubUpstream):
    """An allow list in the form of an ad blocker, or of RPZ, is no empty list."""
    subject.start(
        zones=[
            passing("adblock.txt"),
            passing("rpz.txt", name="rpz", format="rpz"),
            passing("plain.txt", name="plain"),
            list_zone("list.txt"),
        ],
        lists={
            "adblock.txt": ["@@||a.example^", "@@||ok.a2.example^"],
            "rpz.txt": ["b.example CNAME rpz-passthru."],
            "plain.txt": ["c.example"],
            "list.txt": ["a.example", "b.example", "c.example", "d.example"],
        },
        upstreams=[upstream.address],
        inbox=None,
    )
    assert enforced(subject, "a.example", "x.a.example", "b.example", "c.example") == [False] * 4
    assert enforced(subject, "x.b.example", "d.example") == [True, True]
    assert {zone: one["entries"] for zone, one in sources(subject).items()} == {
        "allowed": 2,
        "rpz": 1,
        "plain": 1,
        "listed": 4,
    }


@pytest.mark.parametrize(
    "lines",
    [["@@||a.example^", "||b.example^"], ["a.example CNAME rpz-passthru.", "b.example CNAME ."]],
    ids=["adblock", "rpz"],
)
def test_a_list_of_exceptions_with_a_block_is_rejected(
    subject: Subject, upstream: StubUpstream, lines: list[str]
):
    """The block would let its name pass: the opposite of what the list says."""
    subject.start(
        zones=[passing("allowed.txt"), list_zone("list.txt")],
        lists={"allowed.txt": lines[:1], "list.txt": ["a.example", "b.example"]},
        upstreams=[upstream.address],
        inbox=None,
    )
    subject.put_list("allowed.txt", lines)
    said = subject.cli("reload")
    assert said.code == 4
    assert refused_by(subject, "allowed") == ["MIXED"]
    assert enforced(subject, "a.example", "b.example") == [False, True]


def test_source_exceptions_is_refused_in_a_passthru_zone(subject: Subject):
    """An option without an effect would be believed."""
    subject.configure(
        zones=[passing("allowed.txt", exceptions="exempt")], lists={"allowed.txt": ["a.example"]}, inbox=None
    )
    said = subject.cli("check")
    assert said.code == 1
    assert any("exceptions" in problem["reason"] for problem in said.problems)


# ------- Names without their apex -------


@pytest.mark.parametrize("lines", [ORDINARY, [*ORDINARY * 2, "bare.example"]], ids=["all", "nearly all"])
def test_a_list_of_wildcards_only_gets_a_warning(subject: Subject, lines: list[str]):
    """Its authors mean the names as well; the names themselves stay open, and nothing else reports it."""
    stars = [f"*.{name}" if name != "bare.example" else name for name in lines]
    subject.configure(zones=[list_zone()], lists={"list.txt": stars}, inbox=None)
    words = "names are listed only as `*.name`"
    assert any(words in note and "match: subtree" in note for note in subject.cli("check").json["notes"])
    subject.launch()
    assert is_logged(subject, words)
    assert words in subject.cli("source list", as_json=False).stdout
    for match, covers in (("subtree", True), ("below", False)):
        subject.configure(zones=[list_zone(match=match)], inbox=None)
        subject.reload()
        assert source(subject)["warnings"] == []
        assert enforced(subject, ORDINARY[0], f"x.{ORDINARY[0]}") == [covers, True]


@pytest.mark.parametrize(
    "lines",
    [
        [line for name in ORDINARY for line in (name, f"*.{name}")],
        [*(f"*.{name}" for name in ORDINARY[:15]), *ORDINARY[15:]],
        ORDINARY,
    ],
    ids=["both", "some", "plain"],
)
def test_a_list_with_wildcards_and_names_gets_no_warning(subject: Subject, lines: list[str]):
    """A warning about a sound list teaches to read no warnings."""
    subject.start(zones=[list_zone()], lists={"list.txt": lines}, inbox=None)
    assert source(subject)["warnings"] == []


SIX = {
    "plain": "{}",
    "subdomains": ".{}",
    "wildcard": "*.{}",
    "dnsmasq": "address=/{}/0.0.0.0",
    "unbound": 'local-zone: "{}" always_nxdomain',
    "adblock": "||{}^",
    "hosts": "0.0.0.0 {}",
    "csv": "1,{}",
}


def test_the_same_subtrees_have_one_digest_in_every_format(subject: Subject):
    """A wildcard list with `match: subtree` means what its adblock form says."""
    open_match = ("plain", "hosts", "csv", "wildcard")
    subject.start(
        zones=[
            list_zone(
                f"{form}.txt",
                name=form,
                match="subtree" if form in open_match else None,
                format=form,
                **({"column": 2} if form == "csv" else {}),
            )
            for form in SIX
        ],
        lists={f"{form}.txt": [line.format(name) for name in ORDINARY] for form, line in SIX.items()},
        inbox=None,
    )
    assert len({versions(subject, form)[0]["digest"] for form in SIX}) == 1


# ------- Lines that are understood -------

# Of each format: lines that are no names, and by which codes they are counted; the silent ones have none.
UNDERSTOOD: dict[str, dict[str, str | None]] = {
    "plain": {
        "! Title: a list": None,
        "; a comment": None,
        "// a comment": None,
        "\u00a0": None,
        "\u3000# a comment": None,
        "a.*.example": "unsupported",
    },
    "hosts": {"! Title": None, "; x": None, "// x": None, "0.0.0.0 a.*.example": "unsupported"},
    "csv": {
        "Blocked domains": None,
        "No.;Domain name (as of 01.02.2026)": None,
        ";": None,
        "1;good.example": None,
        "2;": "no_name",
        "3": "column_missing",
    },
    "rpz": {
        "@ SOA localhost. root.localhost. 1 2 3 4 5": None,
        "@ NS localhost.": None,
        '@ TXT "about"': None,
        "32.1.2.0.192.rpz-ip CNAME .": "unsupported",
        "32.1.2.0.192.rpz-client-ip CNAME .": "unsupported",
        "ns.a.example.rpz-nsdname CNAME .": "unsupported",
        "32.1.2.0.192.rpz-nsip CNAME .": "unsupported",
        "# a comment": None,
    },
    "adblock": {
        "[Adblock Plus 2.0]": None,
        "! Title": None,
        "a.example##.banner": "unsupported",
        "##.ad": "unsupported",
        "||a.example^$third-party": "unsupported",
        "||a.example/path": "unsupported",
        "-ad-300x250.": "unsupported",
        "@@||a.example^$generichide": "unsupported",
    },
    "dnsmasq": {"cache-size=1000": "unsupported", "no-resolv": "unsupported", "! x": None},
    "unbound": {"do-ip6: no": "unsupported", "forward-zone:": "unsupported", "server:": None},
}
NAMED = {**BLOCKS, "hosts": "0.0.0.0 n{}.example", "csv": "9;n{}.example"}


def test_recognised_lines_without_names_do_not_reject_a_list(subject: Subject):
    """Real lists have many: with them counted as malformed the guard of one line in a hundred rejects all."""
    subject.start(
        zones=[
            list_zone(
                f"{form}.txt",
                name=form,
                format=form,
                **({"column": 2, "separator": ";"} if form == "csv" else {}),
            )
            for form in UNDERSTOOD
        ],
        lists={
            f"{form}.txt": [*lines, *(NAMED[form].format(number) for number in range(5))]
            for form, lines in UNDERSTOOD.items()
        },
        inbox=None,
    )
    for form, lines in UNDERSTOOD.items():
        report = source(subject, form)["report"]
        assert_adds_up(report)
        codes = [code for code in lines.values() if code]
        expected = {code: codes.count(code) for code in sorted(set(codes))}
        assert (report["rejected"], report["not_applicable_by"]) == (0, expected), form
        assert report["entries"] == 5 + (form == "csv"), form
    assert refused_by(subject, "plain") == []


def test_white_space_of_word_processors_separates_words(subject: Subject):
    """U+00A0 and U+3000 come with text that was copied from a web page or a document."""
    lines = ["\u00a0a.example", "b.example\u00a0", "\u3000c.example\u2003# why"]
    subject.start(zones=[list_zone(format="plain")], lists={"list.txt": lines}, inbox=None)
    assert enforced(subject, "a.example", "b.example", "c.example") == [True] * 3


def test_malformed_lines_reject_a_list(subject: Subject):
    """Lines that are counted separately must not hide invalid lines."""
    subject.start(zones=[list_zone(format="adblock")], lists={"list.txt": ["||a.example^"]}, inbox=None)
    subject.put_list(
        "list.txt", ["||a.example^", *["a.example##.banner"] * 50, *["||bad..example^", "||bad.ex ample^"]]
    )
    assert subject.cli("reload").code == 4
    assert refused_by(subject) == ["TOO_MANY_REJECTED"]
