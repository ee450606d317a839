"""The documentation is plain English: short sentences, and standard terms."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from .prose import CODE, Offence, Passage, offences_of, report, unbroken

ROOT = Path(__file__).parents[2]
PAGES = [
    str(page.relative_to(ROOT))
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/**/*.yaml")])
]


def markdown(source: str) -> Iterator[Passage]:
    """What a reader of the page sees as prose: no code blocks, no HTML, no addresses of links."""
    line, is_title = 1, False
    for token in MarkdownIt("commonmark").enable("table").parse(source):
        if token.map:
            line = token.map[0] + 1
        if token.type in {"heading_open", "th_open"}:
            is_title = True
        elif token.type in {"heading_close", "th_close"}:
            is_title = False
        elif token.type == "inline":
            text = ""
            for child in token.children or []:
                if child.type == "code_inline":
                    text += unbroken(f"`{child.content}`")
                elif child.type in {"softbreak", "hardbreak"}:
                    text += "\n"
                elif child.type in {"text", "image"}:
                    text += child.content
            yield Passage(line, text, is_title)


def comments(source: str) -> Iterator[Passage]:
    """Comments of a YAML file, and the texts of alerts.

    An indented line, an item and an empty line end a passage, as does the end of the comment.
    """
    values, is_prose = [], False
    for token in yaml.scan(source):
        if isinstance(token, yaml.ScalarToken):
            values.append((token.start_mark.index, token.end_mark.index))
            if is_prose:
                text = re.sub(r"^[>|\"']-?|[\"']$", "", source[slice(*values[-1])].strip())
                yield Passage(token.start_mark.line + 1, text)
            is_prose = token.value in {"summary", "description"}
    block: list[str] = []
    first, column, index = 1, -1, 0
    for number, line in enumerate(source.splitlines(keepends=True), start=1):
        at = next(
            (
                found.start()
                for found in re.finditer(r"(?:(?<=^)|(?<=\s))#", line)
                if not any(start <= index + found.start() < end for start, end in values)
            ),
            None,
        )
        index += len(line)
        text = "" if at is None else line[at + 1 :].rstrip()
        continues = at == column and not line[:at].strip() and re.match(r" ?[^\s*-]", text)
        if not continues and block:
            yield Passage(first, "\n".join(block))
            block = []
        if text.strip():
            if not block:
                first, column = number, -1 if text.startswith("  ") else at
            block.append(CODE.sub(lambda code: unbroken(code[0]), text.strip()))
    if block:
        yield Passage(first, "\n".join(block))


def offences(page: str, source: str) -> list[Offence]:
    return offences_of((comments if page.endswith(".yaml") else markdown)(source))


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short_and_use_standard_terms(page: str):
    """An operator finds a topic by searching for its standard term."""
    found = offences(page, (ROOT / page).read_text())
    assert not found, f"rewrite these {len(found)}:\n{report(page, found)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (f"{'word ' * 30}.", []),
        (f"{'word ' * 31}.", [1]),
        (f"{'word ' * 20}end.\n{'word ' * 20}end.", []),  # two sentences
        (f"{'word ' * 20}e.g. {'word ' * 20}end.", [1]),  # one
        (f"First.\nSecond `a. b` {'word ' * 30}", [2]),  # on its own line; code is one word
        (f"`{'word ' * 40}`", []),
        (f"[{'word ' * 5}](https://example.net/anew)", []),
        (f"[{'word ' * 31}](https://example.net)", [1]),
        (f"```\n{'word ' * 40}\nanew\n```\n\nIt starts anew.", [6]),
        ("* An item of\n* before", []),
        ("* An item of\n  before", [1]),
        ("`all the same` is *all the* same", [1]),
        ("## What it does\n\nWhat it does is listed.", [3]),
        ("What does it do?", []),
        ("A label has 63 octets. A file has 63 octets.", [1]),
        ("A whole.", []),
        ("| a | what |\n|---|---|\n| What to do: run it | " + "word " * 28 + "|\n| x | by itself |", [4]),
    ],
)
def test_markdown_is_read_as_its_reader_sees_it(source: str, expected: list[int]):
    """Code, addresses of links and HTML are not prose."""
    assert [one.line for one in offences("page.md", source)] == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# It starts\n# anew.\nkey: value\n", [1]),
        ("# It starts\n\n# anew. It starts anew.\n", [3, 3]),
        ('key: "# anew"  # anew\n', [1]),
        ("key: value # of\n           # before\n", [1]),
        ("key: value # of\nother: value # before\n", []),
        ("# Run it:\n#   dnsblock of\n#   before\n", []),
        (f"# {'word ' * 20}\n# {'word ' * 20}\n", [1]),
        (f"# * {'word ' * 20}\n# * {'word ' * 20}\n", []),
        ("# It\n# starts. It `anew` starts\n# anew.\nkey: value\n", [2]),
        ("summary: >-\n  It starts. It\n  starts anew.\nanew: anew\n", [2]),
        ('description: "It starts anew"\n', [1]),
    ],
)
def test_comments_of_yaml_and_texts_of_alerts_are_read(source: str, expected: list[int]):
    """Values of options are not prose; the texts of alerts are."""
    assert [one.line for one in offences("file.yaml", source)] == expected
