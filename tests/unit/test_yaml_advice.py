"""The advice for the author of an invalid document (dnsblock/yaml_advice.py)."""

import pytest

from dnsblock.document import read
from dnsblock.errors import Refused

JARGON = ("token", "scalar", "scanning", "mapping", "block", "flow", "simple key", "context", "node")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a:\n\t- b\n", 2, "column 1: a tab: use spaces"),
        ("a: 1\n\tb: 2\n", 2, "column 1: a tab: use spaces"),
        ("a:\n  -\tb\n", 2, "column 4: a tab: use spaces"),
        ("reason: number 5: gambling\n", 1, "column 17: a text with a colon: put the whole text in quotes"),
        ("a:\n  - x: y: z\n", 2, "column 9: a text with a colon"),
        ("contact: @ministry\n", 1, "column 10: a text cannot begin with @"),
        ("a: `b\n", 1, "column 4: a text cannot begin with `"),
        ("a: %b\n", 1, "column 4: a text cannot begin with %"),
        ("a: 1\n%b: 2\n", 2, "column 3: a line cannot begin with %"),
        ("a: 'b\nc: d\n", 1, "column 4: the quote that begins here is not closed"),
        ('a: 1\nb: "c\nd: e\n', 2, "column 4: the quote that begins here is not closed"),
        ("a: 'It's'\n", 1, "column 8: text after the end of a value: put the whole text in quotes"),
        ("a: 'b' c\nd: e\n", 1, "column 8: text after the end of a value"),
        ("a: [b] c\n", 1, "column 8: text after the end of a value"),
        ('a: "\\d"\n', 1, "column 5: a backslash in a text in double quotes"),
        ("a: 1\n b: 2\n", 2, "column 3: indented differently"),
        ("a:\n  - b\n - c\n", 3, "column 2: indented differently"),
        ("a:\n   b: 1\n  c: 2\n", 3, "column 3: indented differently"),
        ("hello\na: b\n", 2, "column 2: indented differently"),
        ("a: [b, c\nd: e\n", 2, "the bracket [ opened on line 1, column 4, is not closed"),
        ("a: {b: c\nd: e\n", 2, "the brace { opened on line 1, column 4, is not closed"),
        (
            '{"a": 1 "b": 2}',
            1,
            "column 12: the brace { opened on line 1, column 1, is not closed, or a comma",
        ),
        ("a:\n  - *.t.me\n", 2, "a text cannot begin with *"),
        ("a: *b\n", 1, "a text cannot begin with *"),
        ("a: &b c\n", 1, "a text cannot begin with &"),
        ("a: & b\n", 1, "a text cannot begin with &"),
        ("a: !b c\n", 1, "a text cannot begin with !"),
        ("a: |b\n", 1, "a text cannot begin with | or >"),
        ("a: ] b\n", 1, "column 4: a value cannot begin with ]"),
        ("a: 1\nb:2\nc: 3\n", 3, "a line that is neither `key: value` nor `- value`"),
        ("a:\n  - x\n  -y\nb: c\n", 4, "a line that is neither `key: value` nor `- value`"),
        ("a: b\n...\nc: d\n", 3, "nothing may follow `...`"),
        ("a: 1\na: 2\n", 2, "this key was already given on line 1"),
        (b"a: b\xfccher\n", 1, "save the file with the encoding UTF-8"),
        ("a: 1\n".encode("utf-16"), 1, "this is UTF-16, not UTF-8 text"),
        ("a: 1\rb: 2\r", 1, "a line end of an old Macintosh"),
    ],
)
def test_the_advice_shows_the_line_and_what_to_change(text: str | bytes, line: int, says: str):
    """In the words of an author of letters, not of a YAML parser."""
    with pytest.raises(Refused) as caught:
        read("o.yaml", text if isinstance(text, bytes) else text.encode(), max_bytes=1000)
    (problem,) = caught.value.problems
    assert (problem.line, says in problem.reason) == (line, True), problem
    assert not any(word in problem.reason for word in JARGON), problem
