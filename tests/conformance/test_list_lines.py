"""Names in lists as people write them; an invalid name is reported with its line."""

import pytest

from .asking import is_forwarded, is_sinkholed
from .harness import Subject
from .lists import DAY
from .upstreams import StubUpstream

ZONE = {
    "name": "malware",
    "list": "malware.txt",
    "match": "subtree",
    "answer": "sinkhole",
    "source": {"format": "plain", "every_s": DAY},
}
LABEL, LONG_LABEL = "x" * 63, "x" * 64

# As it is written, and the name that is meant.
TAKEN = {
    "plain.example": "plain.example",
    "dot.example.": "dot.example",
    "UPPER.Example": "upper.example",
    "  space.example\t": "space.example",
    "comment.example # why": "comment.example",
    "crlf.example\r": "crlf.example",
    "_8443._https.port.example": "_8443._https.port.example",
    "bücher.example": "xn--bcher-kva.example",
    "ÄPFEL.example": "xn--pfel-koa.example",
    "o\u0308l.example": "xn--l-0ga.example",
    "例え.example": "xn--r8jz45g.example",
    "wide。example": "wide.example",
    f"{LABEL}.example": f"{LABEL}.example",
}

REFUSED_ASCII = [
    *("http://listed.example/", "https://listed.example", "listed.example/path", "listed.example:443"),
    *("a.*.listed.example", "||listed.example^", "@@||listed.example^", "/listed/", "0.0.0.0 listed.example"),
    *("2001:db8::1", "[2001:db8::1]", "192.0.2.0/24"),
    *(".listed.example", "listed..example", "listed.example..", ".", "com"),
    *(f"{LONG_LABEL}.example", ".".join([LABEL] * 4)),
    *("two words.example", "user@listed.example", "<b>listed.example</b>"),
]
PUBLIC_SUFFIXES = ["co.id", "web.id", "co.uk"]
REFUSED_OTHER = [f"{'ü' * 60}.example", "a\u2028b.example", "xn--a\u0301.example"]


def test_a_name_is_accepted_as_people_write_it(subject: Subject, upstream: StubUpstream):
    """Trap 14, RFC 5891 section 4.4, RFC 1035 section 5.1: UTS 46 for U-labels; a dot, a comment, BOM."""
    lists = {"malware.txt": "\ufeff" + "".join(f"{line}\n" for line in ["", "# names", *TAKEN])}
    ready = subject.start(zones=[ZONE], lists=lists, upstreams=[upstream.address], inbox=None)
    assert ready["entries"] == len(TAKEN)
    assert [name for name in TAKEN.values() if not is_sinkholed(subject.query(name))] == []
    assert is_forwarded(subject.query("example"))


@pytest.mark.parametrize(
    "lines",
    [REFUSED_ASCII, REFUSED_OTHER, PUBLIC_SUFFIXES],
    ids=["ASCII", "other scripts", "public suffixes"],
)
def test_an_invalid_name_is_reported_with_its_line(subject: Subject, lines: list[str]):
    """Trap 14, RFC 1035 section 2.3.4, RFC 5891 section 4.2: a guess would block unlisted names."""
    assert_each_is_named(subject, lines)


def test_an_invalid_name_in_any_script_is_reported(subject: Subject):
    """Trap 14: one kind of mistake must not hide the others."""
    assert_each_is_named(subject, [*PUBLIC_SUFFIXES, *REFUSED_ASCII, *REFUSED_OTHER])


def assert_each_is_named(subject: Subject, lines: list[str]) -> None:
    subject.configure(zones=[ZONE], lists={"malware.txt": lines}, inbox=None)
    said = subject.cli("check")
    assert said.code == 1
    named = [problem for problem in said.problems if problem["line"]]
    assert [problem["line"] for problem in named] == list(range(1, len(lines) + 1))
    assert all(problem["value"] and problem["reason"] for problem in named)


def test_an_address_is_no_name(subject: Subject):
    """Trap 14, RFC 1123 section 2.1: no top-level domain is a number; it belongs into a zone of addresses."""
    subject.configure(zones=[ZONE], lists={"malware.txt": ["plain.example", "192.0.2.1"]}, inbox=None)
    said = subject.cli("check")
    (zone,) = said.json["zones"]
    assert [
        (finding["line"], finding["value"], finding["code"]) for finding in zone["report"]["reported"]
    ] == [(2, "192.0.2.1", "address")]
    assert zone["entries"] == 1


def test_an_empty_list_and_a_missing_list_have_different_errors(subject: Subject):
    """Trap 14: neither unblocks anything, and each has its own message."""
    subject.start(zones=[ZONE], lists={"malware.txt": ["listed.example"]}, inbox=None)
    reasons = set()
    for content in ("", "# nothing\n\n", None):
        if content is None:
            (subject.folder / "malware.txt").unlink()
        else:
            subject.put_list("malware.txt", content)
        said = subject.cli("reload")
        assert said.code == 4
        reasons.add(said.problems[0]["reason"])
        assert is_sinkholed(subject.query("listed.example"))
    assert len(reasons) == 2
