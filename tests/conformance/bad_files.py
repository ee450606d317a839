"""Broken orders and lists, each with what the problem must say: the samples of test_bad_input.py."""

from dataclasses import dataclass
from pathlib import Path

from .harness import Subject
from .orders import as_yaml, block, unblock

UNCHANGED = "kept.example"
LONG_LABEL = "x" * 300


def order_text(*lines: str, order_id: str = "B-9") -> str:
    """A block order of ours with these lines added; its own five lines come first."""
    return "\n".join(
        [
            "schema: dnsblock.order/1",
            "issuer: ministry.example",
            f"order_id: {order_id}",
            "action: block",
            'issued_at: "2026-01-05T09:00:00+07:00"',
            *lines,
            f"end: {order_id}",
            "",
        ]
    )


@dataclass(frozen=True, slots=True)
class Bad:
    """Something broken: where it is put, and what the problem must say."""

    what: str
    file: str
    content: str | bytes
    line: int | None  # None: no one line is to blame, or the parser may choose
    says: str = ""  # in the value or in the reason
    in_list: bool = False

    def put(self, subject: Subject) -> None:
        if self.in_list:
            subject.put_list(self.file, self.content)
        else:
            subject.put_order(self.content, self.file)

    def assert_named_in(self, problems: list[dict]) -> None:
        mine = [problem for problem in problems if Path(problem["file"]).name == self.file]
        assert mine, f"{self.file} is not named in {problems}"
        assert all(problem["reason"] for problem in mine)
        found = [f"{problem['value']} {problem['reason']}".lower() for problem in mine]
        assert any(self.says.lower() in text for text in found), found
        if self.line is not None:
            assert self.line in [problem["line"] for problem in mine]


def in_inbox(
    what: str, content: str | bytes, line: int | None, says: str = "", *, file: str = "bad.yaml"
) -> Bad:
    return Bad(what, file, content, line, says)


def in_list(what: str, content: str | bytes, line: int | None, says: str = "") -> Bad:
    return Bad(what, "malware.txt", content, line, says, in_list=True)


A = "entries: [a.example]"

BAD_ORDERS = [
    in_inbox("broken YAML", order_text("entries: [a.example"), None),
    in_inbox("a tab as indentation", order_text("entries:", "\t- a.example"), 7),
    in_inbox("not a mapping", "- a.example\n- b.example\n", None),
    in_inbox("an empty file", "", None),
    in_inbox("binary rubbish", bytes(range(256)), None),
    in_inbox("not UTF-8", order_text("entries: [b\u00fccher.example]").encode("latin-1"), None),
    in_inbox("an HTML page", "<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n", None),
    in_inbox("broken JSON", '{"schema": "dnsblock.order/1",', None, file="bad.json"),
    in_inbox("an unknown key", order_text("entires: [a.example]", A), 6, "entires"),
    in_inbox("a duplicate key", order_text(A, "entries: [b.example]"), 7, "entries"),
    in_inbox("an anchor", order_text("entries: &names [a.example]"), 6),
    in_inbox("an alias", order_text("entries: [&a a.example, *a]"), 6),
    in_inbox("a tag", order_text("entries: !!python/tuple [a.example]"), 6),
    in_inbox("two documents", order_text(A) + "---\nb: c\n", None),
    in_inbox("no entries", order_text(), None, "entries"),
    in_inbox("an unknown schema", order_text(A).replace("/1", "/2"), 1, "dnsblock.order/2"),
    in_inbox("an unknown action", order_text(A).replace("block\n", "bloc\n"), 4, "bloc"),
    in_inbox(
        "a revoke with entries",
        order_text(A).replace("action: block", "action: revoke"),
        6,
        "revoke has no entries of its own",
    ),
    in_inbox("a time without an offset", order_text(A).replace("+07:00", ""), 5),
    in_inbox("a time that is none", order_text("expires_at: tomorrow", A), 6, "tomorrow"),
    in_inbox("an unknown issuer", order_text(A).replace("ministry", "someone"), 2),
    in_inbox("a label of 300 octets", order_text("entries:", f"- {LONG_LABEL}.example"), 7, "x" * 40),
    in_inbox("a name with spaces", order_text("entries:", "- two words.example"), 7, "two words"),
    in_inbox("an empty label", order_text("entries:", "- a..example"), 7, "a..example"),
    in_inbox("an unknown match", order_text("entries:", "- {name: a.example, match: regex}"), 7, "regex"),
    in_inbox("an unknown answer", order_text("entries:", "- {name: a.example, answer: no}"), 7, "no"),
    in_inbox("a public suffix", order_text("entries:", "- co.id"), 7, "PUBLIC_SUFFIX"),
    in_inbox("a top-level domain", order_text("entries:", "- com"), 7, "PUBLIC_SUFFIX"),
    in_inbox("the root", order_text('entries: ["."]'), 6),
    in_inbox("a number used twice", order_text(A, order_id="B-1"), None, "B-1"),
    in_inbox("a lifting of nothing we know", as_yaml(unblock("U-1", "B-77")), None, "B-77"),
    in_inbox(
        "a lifting of a name the order does not hold",
        as_yaml(unblock("U-1", "B-1", ["other.example"])),
        None,
        "other.example",
    ),
    in_inbox("a lifting with entries", as_yaml(unblock("U-1", "B-1") | {"entries": [UNCHANGED]}), None),
    in_inbox(
        "an unsigned order where none is accepted",
        as_yaml(block("C-1", ["a.example"], issuer="court.example")),
        None,
        "sign",
    ),
]
BAD_LISTS = [
    in_list("binary rubbish", bytes(range(256)) * 8, None),
    in_list("an HTML page", "<!DOCTYPE html>\n<html><body>502 Bad</body></html>\n", 1),
    in_list("a line of a hosts file", "listed.example\n0.0.0.0 a.example\nb.example\n", 2, "0.0.0.0"),
    in_list("a label of 300 octets", f"listed.example\n{LONG_LABEL}.example\n", 2, "x" * 40),
    in_list("a name with spaces", "a.example\nb.example\ntwo words.example\n", 3, "two words"),
    in_list("an empty label", "listed.example\na..example\n", 2, "a..example"),
    in_list("nothing but public suffixes", "com\nco.id\n", 2, "co.id"),
]
