"""Formats of lists (trap 18): nine formats, one meaning each, and an account of every line."""

from collections.abc import Iterable

import pytest

from .asking import is_sinkholed
from .harness import Subject
from .lists import assert_adds_up, findings, list_zone, log, names, reports, source, versions

# Two names with all that is below them.
SUBTREES = {
    "plain": ["ads.example", "tracker.example"],
    "subdomains": [".ads.example", "tracker.example"],
    "dnsmasq": ["address=/ads.example/0.0.0.0", "local=/tracker.example/"],
    "unbound": ['local-zone: "ads.example" always_nxdomain', 'local-zone: "tracker.example." static'],
    "adblock": ["[Adblock Plus 2.0]", "! a title", "||ads.example^", "||tracker.example^$important"],
    "csv": ['ads.example,"why, indeed"', "tracker.example,"],
}
# The same two names, and nothing that is below them.
ALONE = {
    "plain": ["ads.example", "tracker.example"],
    "hosts": ["127.0.0.1 localhost", "0.0.0.0 ads.example tracker.example # both"],
    "wildcard": ["ads.example", "tracker.example"],
    "unbound": ["server:", 'local-data: "ads.example A 192.0.2.1"', "local-data: 'tracker.example TXT x'"],
    "adblock": ["|ads.example^", "|tracker.example^"],
    "csv": ["ads.example", "tracker.example"],
    "rpz": [
        "$TTL 60",
        "@ SOA localhost. root.localhost. 1 2 3 4 5",
        "ads.example CNAME .",
        "tracker.example A 192.0.2.1",
    ],
}
MATCHING = {"plain", "hosts", "csv"}  # whose lines do not say what they cover


def zones_of(samples: dict[str, list[str]], match: str, **more: object) -> dict:
    """A zone for each format, and its file."""
    return {
        "zones": [
            list_zone(
                f"{form}.txt", name=form, match=match if form in MATCHING else None, format=form, **more
            )
            for form in samples
        ],
        "lists": {f"{form}.txt": lines for form, lines in samples.items()},
        "inbox": None,
    }


@pytest.mark.parametrize(
    ("samples", "match"), [(SUBTREES, "subtree"), (ALONE, "exact")], ids=["subtrees", "alone"]
)
def test_the_same_list_in_another_format_is_the_same_list(
    subject: Subject, samples: dict[str, list[str]], match: str
):
    """Two operators can compare what they enforce: the digest is that of the meaning."""
    subject.start(**zones_of(samples, match))
    digests = {form: versions(subject, form)[0]["digest"] for form in samples}
    assert len(set(digests.values())) == 1, digests
    assert all(one["entries"] == 2 for form in samples for one in versions(subject, form)[:1])


def test_a_list_of_the_same_names_in_another_order_is_the_same_list(subject: Subject):
    """The digest is of the names, whatever their order and the comments between them."""
    lines = names(50)
    subject.start(
        zones=[list_zone("a.txt", name="a"), list_zone("b.txt", name="b")],
        lists={"a.txt": lines, "b.txt": ["# the same", *reversed(lines), "", lines[3]]},
        inbox=None,
    )
    assert versions(subject, "a")[0]["digest"] == versions(subject, "b")[0]["digest"]
    assert versions(subject, "a")[0]["sha256"] != versions(subject, "b")[0]["sha256"]


RECOGNISABLE = {
    "plain": SUBTREES["plain"],
    "hosts": ALONE["hosts"],
    "wildcard": ["*.ads.example", "*.tracker.example"],
    **{form: SUBTREES[form] for form in ("dnsmasq", "unbound", "adblock")},
    "subdomains": [".ads.example", ".tracker.example"],
    "rpz": ALONE["rpz"],
}


def test_a_detected_format_is_reported(subject: Subject):
    """Otherwise a wrong guess shows only in what is blocked: check, `source list` and log report it."""
    zones = [list_zone(f"{form}.txt", name=form) for form in RECOGNISABLE]
    subject.configure(
        zones=zones, lists={f"{form}.txt": lines for form, lines in RECOGNISABLE.items()}, inbox=None
    )
    checked = reports(subject.cli("check"))
    assert {form: (report["format"], report["is_recognised"]) for form, report in checked.items()} == {
        form: (form, True) for form in RECOGNISABLE
    }
    shown = subject.cli("check", as_json=False).stdout
    assert all(f"list {form}: format {form} (recognised)" in shown for form in RECOGNISABLE)
    subject.launch()
    said = subject.cli("source list")
    assert {one["zone"]: one["format"] for one in said.json["sources"]} == {
        form: form for form in RECOGNISABLE
    }
    logged = "\n".join(log(subject, "info"))
    assert [form for form in RECOGNISABLE if f"list {form}: format {form}" not in logged] == []


def test_a_configured_format_is_not_detected(subject: Subject):
    """The operator knows better than a guess: a hosts file as a plain list is no list at all."""
    subject.configure(
        zones=[list_zone(format="plain", guards={"rejected_percent": "off"})],
        lists={"list.txt": ["ads.example", *(f"0.0.0.0 {name}" for name in names(9))]},
        inbox=None,
    )
    report = reports(subject.cli("check"))["listed"]
    assert (report["format"], report["is_recognised"]) == ("plain", False)
    assert (report["accepted"], report["rejected"]) == (1, 9)


# Of each format: lines, and which of the names are blocked by them and which are not.
COVERED = {
    "plain": (
        ["p.example", "*.star.example"],
        "p.example a.p.example a.star.example",
        "ap.example star.example",
    ),
    "subdomains": ([".s.example", "t.example"], "s.example a.s.example a.b.t.example", "as.example"),
    "hosts": (
        ["0.0.0.0 h.example www.h.example", "::1 localhost"],
        "www.h.example",
        "a.h.example localhost.example",
    ),
    "wildcard": (
        ["*.w.example", "v.example"],
        "a.w.example a.b.w.example v.example",
        "w.example a.v.example",
    ),
    "dnsmasq": (
        ["address=/d.example/e.example/#", "server=/ok.d.example/#", "local=/*.f.example/"],
        "d.example a.e.example a.f.example",
        "ok.d.example a.ok.d.example f.example",
    ),
    "unbound": (
        [
            'local-zone: "u.example" redirect',
            'local-data: "u.example A 192.0.2.1"',
            'local-zone: "ok.u.example" transparent',
            'local-data: "x.example AAAA ::"',
        ],
        "u.example a.u.example x.example",
        "a.ok.u.example ok.u.example a.x.example",
    ),
    "adblock": (
        ["||b.example^", "@@||ok.b.example^", "|c.example^"],
        "b.example a.b.example c.example",
        "ok.b.example a.ok.b.example a.c.example",
    ),
    "csv": (["date,domain", "2025-01-31,k.example"], "k.example a.k.example", "domain.example"),
    "rpz": (
        [
            "$ORIGIN rpz.test.",
            "@ SOA localhost. root.localhost. 1 2 3 4 5",
            "@ NS localhost.",
            "r.example CNAME .",
            "*.q.example CNAME *.",
            "*.o.example CNAME .",
            "ok.o.example CNAME rpz-passthru.",
        ],
        "r.example a.q.example a.o.example",
        "a.r.example q.example ok.o.example r.example.rpz.test",
    ),
}


def test_a_line_means_what_its_format_defines(subject: Subject):
    """`*.ads.example` blocks ads.example in one program and not in the next; here docs/lists.md says it."""
    subject.start(
        zones=[
            list_zone(f"{form}.txt", name=form, format=form, **({"column": 2} if form == "csv" else {}))
            for form in COVERED
        ],
        lists={f"{form}.txt": lines for form, (lines, _, _) in COVERED.items()},
        inbox=None,
    )
    blocked = {
        form: [name for name in said.split() if not answered(subject, name)]
        for form, (_, said, _) in COVERED.items()
    }
    assert {form: missed for form, missed in blocked.items() if missed} == {}, "listed, and not blocked"
    found = {
        form: [name for name in said.split() if answered(subject, name)]
        for form, (_, _, said) in COVERED.items()
    }
    assert {form: more for form, more in found.items() if more} == {}, "blocked, and not listed"


def answered(subject: Subject, name: str) -> bool:
    return is_sinkholed(subject.query(name))


def test_a_column_of_a_table_is_the_list(subject: Subject):
    """A table of an authority has the names somewhere; quotes are those of RFC 4180 section 2."""
    lines = ["no;domain;note", '1;"ads.example";"a ""b"" c"', "2;tracker.example", "# 3;comment.example", "4"]
    subject.configure(
        zones=[list_zone(format="csv", column=2, separator=";", guards={"rejected_percent": "off"})],
        lists={"list.txt": lines},
        inbox=None,
    )
    report = reports(subject.cli("check"))["listed"]
    assert report["entries"] == 2
    assert findings(report, "not applicable") == [("list.txt", 5, "4", "column_missing")]


# ------- Lines that are not taken -------

REJECTED = {
    "plain": {
        "a..example": "empty_label",
        ".a.example": "empty_label",
        f"{'x' * 64}.example": "label_too_long",
        ".".join(["x" * 63] * 4): "name_too_long",
        "two words.example": "bad_character",
        "<b>a</b>.example": "bad_character",
        "example": "top_level",
        "192.0.2.1": "address",
        "2001:db8::1": "address",
        "192.0.2.0/24": "address",
        "https://a.example/": "needs_repair",
    },
    "hosts": {"0.0.0.0 a..example": "empty_label", "0.0.0.0 ok.example b..example": "empty_label"},
    "wildcard": {"a.*.example": "unsupported"},
    "dnsmasq": {"server=/corp.example/192.0.2.53": "unsupported", "address=/#/0.0.0.0": "unsupported"},
    "adblock": {
        "||a.example/path^": "unsupported",
        "/ads[0-9]+/": "unsupported",
        "||a.example^$client=x": "unsupported",
        "a.example##.banner": "unsupported",
    },
    "unbound": {'local-zone: "a.example" nosuchtype': "not_this_format", "forward-zone:": "unsupported"},
    "rpz": {"32.1.2.0.192.rpz-ip CNAME .": "unsupported", "$INCLUDE other.zone": "unsupported"},
}
GOOD = {
    "plain": "good.example",
    "hosts": "0.0.0.0 good.example",
    "wildcard": "*.good.example",
    "dnsmasq": "local=/good.example/",
    "adblock": "||good.example^",
    "unbound": 'local-zone: "good.example" static',
    "rpz": "good.example CNAME .",
}


def test_every_rejected_line_is_reported_with_its_reason(subject: Subject):
    """A line that is passed over in silence is a name that is not blocked although it was ordered."""
    subject.configure(
        zones=[
            list_zone(f"{form}.txt", name=form, format=form, guards={"rejected_percent": "off"})
            for form in REJECTED
        ],
        lists={f"{form}.txt": [GOOD[form], *lines] for form, lines in REJECTED.items()},
        inbox=None,
    )
    said = subject.cli("check")
    assert said.code == 0, said
    for form, report in reports(said).items():
        assert_adds_up(report)
        found = {line: code for _, line, _, code in findings(report) if code not in ("duplicate",)}
        assert found == dict(enumerate(REJECTED[form].values(), start=2)), form
        assert (report["lines"], report["entries"]) == (1 + len(REJECTED[form]), 1), form
        assert all(one["reason"] and one["value"] for one in report["reported"]), form


def test_every_line_is_accounted_for(subject: Subject):
    """Accepted, repaired, duplicate and rejected make the lines, also in metrics; comments are none."""
    lines = [
        "# a comment",
        "",
        "ads.example",
        "ADS.example",
        "Tracker.Example",
        "a.ads.example",
        "bad..example",
        "192.0.2.1",
    ]
    subject.start(
        zones=[list_zone(guards={"rejected_percent": "off"})],
        lists={"list.txt": [*lines, *names(20)]},
        inbox=None,
    )
    report = source(subject)["report"]
    assert_adds_up(report)
    assert (report["lines"], report["silent"], report["rejected"]) == (26, 2, 2)
    assert (report["repaired"], report["duplicate"]) == (1, 1)
    metrics = subject.metrics()
    for kind in ("accepted", "repaired", "duplicate", "rejected"):
        assert metrics.total("dnsblock_source_lines", zone="listed", result=kind) == report[kind]
    assert report["rejected_by"] == {"empty_label": 1, "address": 1}
    for reason, count in report["rejected_by"].items():
        assert metrics.total("dnsblock_source_rejected_lines", zone="listed", reason=reason) == count
    (version,) = versions(subject)
    assert {kind: version[kind] for kind in ("accepted", "repaired", "duplicate", "rejected", "lines")} == {
        kind: report[kind] for kind in ("accepted", "repaired", "duplicate", "rejected", "lines")
    }


# ------- Repairs -------

REPAIRS = {
    "bom": "\ufeffa1.example",
    "crlf": "a2.example\r",
    "case": "A3.Example",
    "dot": "a4.example.",
    "scheme": "https://a5.example",
    "port": "a6.example:443",
    "path": "a7.example/page?query",
    "comma": "a8.example,",
}


def check_repairs(subject: Subject, allowed: Iterable[str]) -> dict:
    subject.configure(
        zones=[list_zone(format="plain", repair=list(allowed), guards={"rejected_percent": "off"})],
        lists={"list.txt": [*REPAIRS.values(), "good.example"]},
        inbox=None,
    )
    report = reports(subject.cli("check"))["listed"]
    assert_adds_up(report)
    return report


def test_an_allowed_repair_is_made_and_counted(subject: Subject):
    """A repair is a guess that was allowed by name, and is counted by the same name."""
    report = check_repairs(subject, REPAIRS)
    assert report["repaired_by"] == dict.fromkeys(REPAIRS, 1)
    assert (report["repaired"], report["accepted"], report["rejected"]) == (8, 1, 0)


def test_a_repair_that_is_not_allowed_is_not_made(subject: Subject):
    """Without permission nothing is guessed, and the message names the permission that is missing."""
    report = check_repairs(subject, [])
    assert (report["repaired"], report["accepted"], report["rejected"]) == (0, 1, 8)
    assert report["rejected_by"] == {"needs_repair": 8}
    reasons = {one["line"]: one["reason"] for one in report["reported"]}
    assert [repair for line, repair in enumerate(REPAIRS, start=1) if repair not in reasons[line]] == []


def test_only_harmless_repairs_are_allowed_by_default(subject: Subject):
    """A web address as a name would block a whole host for one page of it."""
    subject.configure(
        zones=[list_zone(format="plain", guards={"rejected_percent": "off"})],
        lists={"list.txt": [*REPAIRS.values(), "good.example"]},
        inbox=None,
    )
    report = reports(subject.cli("check"))["listed"]
    assert report["repaired_by"] == dict.fromkeys(["bom", "crlf", "case", "dot"], 1)
    assert [line for _, line, _, _ in findings(report, "rejected")] == [5, 6, 7, 8]


def test_one_invalid_name_rejects_the_whole_line(subject: Subject):
    """Half of a line would be a guess about what was meant: it is taken as a whole or rejected as a whole."""
    subject.start(
        zones=[list_zone(format="hosts", guards={"rejected_percent": "off"})],
        lists={"list.txt": ["0.0.0.0 one.example bad..example two.example", "0.0.0.0 three.example"]},
        inbox=None,
    )
    assert [answered(subject, f"{name}.example") for name in ("one", "two", "three")] == [False, False, True]


# ------- Names -------

NAMES = {
    "bücher.example": "xn--bcher-kva.example",
    "straße.example": "xn--strae-oqa.example",  # non-transitional: not strasse.example
    "ÄPFEL.example": "xn--pfel-koa.example",
    "例え。example": "xn--r8jz45g.example",
    "xn--kept-as-it-is.example": "xn--kept-as-it-is.example",
    "_dmarc.under_score.example": "_dmarc.under_score.example",
    "-hyphens-.example": "-hyphens-.example",
}


def test_names_are_mapped_as_browsers_map_them(subject: Subject):
    """UTS 46, non-transitional, RFC 5891 section 4.4: else another name is blocked than browsers ask for."""
    subject.start(zones=[list_zone(format="plain")], lists={"list.txt": [*NAMES, *names(5)]}, inbox=None)
    assert [name for name in NAMES.values() if not answered(subject, name)] == []
    assert not answered(subject, "strasse.example")
    assert source(subject)["report"]["repaired_by"]["idn"] == 4


def test_invalid_utf_8_is_reported(subject: Subject):
    """RFC 3629: a list in Latin-1 would name other letters than were meant."""
    subject.configure(zones=[list_zone(format="plain", guards={"rejected_percent": "off"})], inbox=None)
    subject.put_list(
        "list.txt", b"good.example\n" + "bücher.example\n".encode("latin-1") + b"a\x00b.example\n"
    )
    report = reports(subject.cli("check"))["listed"]
    assert [(line, code) for _, line, _, code in findings(report, "rejected")] == [
        (2, "not_utf8"),
        (3, "bad_character"),
    ]


def test_an_endless_line_is_reported_and_shown_shortened(subject: Subject):
    """A line of megabytes is one line: it is not read in pieces as many names, and does not fill the log."""
    subject.configure(zones=[list_zone(format="plain", guards={"rejected_percent": "off"})], inbox=None)
    subject.put_list("list.txt", b"good.example\n" + b"x.example." * 300_000 + b"\nlast.example\n")
    said = subject.cli("check")
    report = reports(said)["listed"]
    assert (report["lines"], report["entries"], report["rejected"]) == (3, 2, 1)
    assert len(said.stdout) < 5000
