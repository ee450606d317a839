"""Reading YAML and JSON from untrusted sources (dnsblock/document.py)."""

import os
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from dnsblock.document import Document, read, read_bytes
from dnsblock.errors import Problem, Refused

from .helpers import LINEAR, growth

MIB = 1 << 20


def read_text(text: str) -> Document:
    return read("file.yaml", text.encode(), max_bytes=MIB)


def refused(text: str | bytes, max_bytes: int = MIB) -> Problem:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(Refused) as caught:
        read("file.yaml", data, max_bytes=max_bytes)
    (problem,) = caught.value.problems
    return problem


def test_every_scalar_is_text():
    """YAML's own guesses (no, 1e3, dates) never apply."""
    assert read_text("{a: no, b: 1e3, c: 2017-07-14, d: 0x10, e: 1_0, f: 12:30:45, g: true}").value == {
        "a": "no",
        "b": "1e3",
        "c": "2017-07-14",
        "d": "0x10",
        "e": "1_0",
        "f": "12:30:45",
        "g": "true",
    }


def test_an_empty_plain_value_is_nothing_and_a_quoted_one_is_text():
    """YAML 1.2 section 10.2.1: an empty plain scalar is null."""
    value = read_text("a:\nb: ~\nc: null\nd: ''\ne: 'null'\nf: \"~\"\n").value
    assert value == {"a": None, "b": None, "c": None, "d": "", "e": "null", "f": "~"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_a_document_without_content_is_none(text: str):
    """A file of comments only is empty."""
    assert read_text(text).value is None


def test_json_is_read_as_it_is_written_by_machines():
    """RFC 8259: escapes, nesting and no line breaks."""
    text = '{\n\t"a":[1,2.5,true,null],\r\n\t"b":{"c":"\\u00e9\\/\\"\\n"}\n}\n'
    assert read_text(text).value == {"a": ["1", "2.5", "true", None], "b": {"c": 'é/"\n'}}


def test_a_byte_order_mark_and_windows_line_ends_are_accepted():
    """Editors on Windows write both."""
    document = read("f", b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n  y\r\n", max_bytes=MIB)
    assert document.value == {"a": "1", "b": "x\ny\n"}
    assert document.line(("b",)) == 2


@pytest.mark.parametrize(
    ("text", "line", "value", "reason"),
    [
        ("a: 1\nb: &x 2", 2, "x", "anchors"),
        ("a: 1\nb: *x", 2, "x", "aliases"),
        ("a: 1\nb: !!str 2", 2, "tag:yaml.org,2002:str", "tags"),
        (
            "a: !!python/object/apply:os.system [id]",
            1,
            "tag:yaml.org,2002:python/object/apply:os.system",
            "tags",
        ),
        ("a: ! 2", 1, "!", "tags"),
        ("a: 1\nb: 2\na: 3", 3, "a", "already given on line 1"),
        ("x:\n  a: 1\n  a: 3", 3, "a", "already given on line 2"),
        ("a: {b: 1}\n<<: {c: 1}", 2, "<<", "merge keys"),
        ("a: 1\n---\nb: 2", 2, "---", "second document"),
        ("? [a]\n: 1", 1, "", "key must be text"),
        ("? {a: b}\n: 1", 1, "", "key must be text"),
        ("~: 1", 1, "~", "key must be text"),
        ("a: 1\nb: [", 3, "", "not valid YAML"),
        ("<html>\n<body>: 502: Bad Gateway", 2, "", "not valid YAML"),
        ("a: 1\nb: \x00", 2, "\x00", "control characters"),
        ("a: 1\nb: \x1b[31m", 2, "\x1b", "control characters"),
        ('a: "\\x07"', 1, "\x07", "control characters"),
        ('a: "\\ud800"', 1, "", "not valid YAML"),
        (b"a: 1\nb: \xff\xfe", 2, "ff fe", "not UTF-8"),
        ("a: 1".encode("utf-16"), 1, "ff fe 61 00 3a 00 20 00", "not UTF-8"),
    ],
)
def test_yaml_features_that_orders_exclude_are_refused(text: str | bytes, line: int, value: str, reason: str):
    """Unknown keys, duplicate keys, anchors and tags are refused."""
    problem = refused(text)
    assert (problem.file, problem.line, problem.value) == ("file.yaml", line, value)
    assert reason in problem.reason


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "[[{a: "])
def test_deep_nesting_is_refused_and_ends_nothing(opening: str):
    """libyaml's composer recurses on the C stack: 100,000 brackets would be a crash."""
    assert "nested deeper than 20" in refused(opening * 100_000).reason


def test_depth_up_to_the_limit_is_read():
    """The limit itself is allowed."""
    assert read_text("[" * 20 + "]" * 20).value is not None
    assert "nested deeper" in refused("[" * 21 + "]" * 21).reason


def test_an_alias_bomb_is_refused_at_its_first_anchor():
    """The "billion laughs": ten lines that would be gigabytes."""
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
    )
    assert refused(bomb).line == 1


def test_a_document_above_the_size_limit_is_refused_unread():
    """Bound every size."""
    assert "larger than 1,024 bytes" in refused(b"\xff" * 1025, max_bytes=1024).reason


def test_more_values_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch):
    """The limit is a million; here it is a thousand."""
    monkeypatch.setattr("dnsblock.document.MAX_NODES", 1000)
    assert len(read_text("[" + "a," * 999 + "]").value or ()) == 999
    assert "more than 1,000 values" in refused("[" + "a," * 1000 + "]").reason


@pytest.mark.parametrize(
    ("begin", "part", "end"),
    [("entries:\n", "- n12345.a\n", ""), ("[", "[],", "]"), ("", "- |\n", "")],
    ids=["entries", "lists", "blocks"],
)
def test_the_time_to_read_a_document_grows_with_its_size(begin: str, part: str, end: str):
    """An inbox of hostile documents of 1 MiB must not stop the daemon for minutes."""
    assert growth(lambda parts: read_text(begin + part * parts + end), 10_000) < LINEAR


def test_a_line_is_that_of_the_part_or_of_what_is_around_it():
    """A message without a line cannot be acted on."""
    document = read_text("a: 1\nlist:\n  - x\n  - key:\n      deep: y\n")
    assert document.line(("a",)) == 1
    assert document.line(("list", 1, "key")) == 4
    assert document.line(("list", 1, "key", "deep")) == 5
    assert document.line(("list", 1, "missing", "deeper")) == 4
    assert document.line(("missing",)) == 1


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str
    more: list[str] = []


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner


def test_validation_reports_every_problem_with_its_line_in_plain_english():
    """The messages of pydantic are for programmers."""
    document = read_text("name: [x]\nnmae: y\ninner:\n  word: a\n  more: text\n  wrod: b\n")
    with pytest.raises(Refused) as caught:
        document.validate(Outer)
    assert str(caught.value).splitlines() == [
        "file.yaml:1: name: must be text",
        "file.yaml:2: 'nmae': unknown key",
        "file.yaml:5: 'text': inner.more: must be a list",
        "file.yaml:6: 'wrod': unknown key (inner.wrod)",
    ]


def test_a_missing_key_is_named_with_the_line_of_what_lacks_it():
    """A key that is not there has no line of its own."""
    with pytest.raises(Refused) as caught:
        read_text("name: x\ninner:\n  more: []\n").validate(Outer)
    assert str(caught.value) == "file.yaml:2: 'inner.word': is required and is missing"


def test_a_problem_has_no_terminal_control_sequences():
    """A value may come from a hostile feed and end in a terminal or a log."""
    problem = Problem("in\nbox/\x1b.yaml", 3, "\x1b[2J" + "é" * 100, "no")
    assert str(problem) == "in\\nbox/\\x1b.yaml:3: '\\x1b[2J" + "é" * 72 + "…': no"
    assert problem.as_json() == {
        "file": "in\\nbox/\\x1b.yaml",
        "line": 3,
        "value": "\\x1b[2J" + "é" * 72 + "…",
        "code": "INVALID",
        "reason": "no",
    }


def test_a_file_is_read_whole_or_refused(tmp_path: Path):
    """Bound every size: a file above the limit is refused, not cut."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, max_bytes=100) == b"x" * 100
    with pytest.raises(Refused, match="larger than 99 bytes"):
        read_bytes(path, max_bytes=99)


def test_a_pipe_or_device_is_refused_without_waiting(tmp_path: Path):
    """Opening a FIFO waits for a writer, and a device may never end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "fifo", tmp_path / "link"):
        with pytest.raises(Refused, match="not a regular file"):
            read_bytes(path, max_bytes=100)
    with pytest.raises(Refused, match="Is a directory"):
        read_bytes(tmp_path, max_bytes=100)
    with pytest.raises(Refused, match="No such file"):
        read_bytes(tmp_path / "missing", max_bytes=100)
    with pytest.raises(Refused, match="cannot be read"):
        read_bytes(tmp_path / "nul\0", max_bytes=100)


def test_a_symbolic_link_to_a_file_is_followed(tmp_path: Path):
    """Kubernetes mounts configuration as links."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", max_bytes=1) == b"x"
