"""The documentation is plain English: short sentences, and standard terms.

No maintained linter did this in November 2026: `vale` on PyPI downloads its program at the first run, so it
needs a network, and `proselint` has neither word lists of your own nor a limit for sentences.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [
    str(page.relative_to(ROOT))
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.yaml")])
]
MOST_WORDS = 30

# What must not come back, and what to write instead. Patterns match whole words, in any case.
INSTEAD = {
    # Phrases
    r"of before": "previous",
    r"anew": "again; restarts",
    r"(every )?(how|so) ?-?manieth": "every Nth",
    r"all the same": "anyway, or still",
    r"by itself": "automatically, or on its own",
    r"as ever": "as usual, or still",
    r"in the place of": "instead of",
    r"(who|whoever) (may )?asks?": "the client; for who may query, the access control list (ACL)",
    r"(whom|whoever)": "name the client, server or person",
    r"(thereof|whereof|therein|wherein|thereby|whereby|hitherto|lest|whilst)": "a modern word",
    r"(is|are|be|being) told": "say where: is logged, `COMMAND` reports it, METRIC counts it",
    r"(says|say|said) so(?! that)": "say where: is logged, `COMMAND` reports it, METRIC counts it",
    r"(is|are) (noted|put on record)": "say where: is logged, is recorded in FILE",
    r"the (more|less|fewer) the (better|worse)": "say what is better, and what to do",
    # Terms
    r"packet threads?": "worker thread(s)",
    r"fall(s|en)? silent|fell silent": "times out",
    r"unwilling": "refused, or returns errors",
    r"patience": "timeout",
    r"(old answers?|answers? whose time is over)": "stale answer (serve-stale)",
    r"(what is kept|kept answers?|answers? that (is|are) kept)": "cached responses; the cache",
    r"cut off": "truncated (TC=1), or interrupted",
    r"ask again over TCP": "truncated (TC=1)",
    r"(questions?|queries) (that are )?under way": "outstanding queries",
    r"(waits?|waited) for the same question": "is coalesced",
    r"(answers?|it) leads? to|where (an|the|its) answers? leads?": "CNAME, DNAME, HTTPS or SVCB target",
    r"holes?|excepted": "exemption, exempt",
    r"cannot be meant": "invalid, malformed",
    r"(hold|holds|held|holding) back": "delay, block, keep",
    r"(that|which) (is|are) not taken|is not taken": "is rejected",
    r"(enforced|served) on(?=[.,;:)]|$)": "remains in force; keeps serving",
    r"(gone|go|goes|went) back (to|from)": "roll back",
    r"names are sold": "a public suffix (registry)",
    r"damaged": "corrupt",
    r"mend(s|ed|ing)?": "fix, repair",
    r"(dnsblock|anycast|all|other|several|the) nodes": "servers, instances",
    r"half a line": "a truncated line",
    r"not covered|also covered by": "not blocked; also matches",
    r"(rooms|doors|bells)": "modules, adapters, wakeups",
}
FORBIDDEN = [(re.compile(rf"\b(?:{phrase})(?!\w)", re.IGNORECASE), use) for phrase, use in INSTEAD.items()]
OCTETS = re.compile(r"\boctets?\b", re.IGNORECASE)
PROTOCOL = re.compile(r"RFC|\b(fields?|labels?|option|RDATA)\b")
HEADLESS = re.compile(r"(Who|Whom|What|That of) (?!to\b)")

# A sentence ends at one of these, with what closes a parenthesis or quotation after it.
END = re.compile(r"(?<=[.!?])[\"'”)\]]*(?=[ \n])")
NO_END = re.compile(r"(\b(e\.g|i\.e|etc|vs|cf|approx|resp|sec|no|art|fig)|^[0-9]+)\.$", re.IGNORECASE)
CODE = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Passage:
    """A paragraph, list item, cell, heading or comment. Inline code is one word: its spaces do not break."""

    line: int
    text: str
    is_title: bool = False


@dataclass(frozen=True)
class Offence:
    line: int
    sentence: str
    what_to_do: str


def unbroken(code: str) -> str:
    return re.sub(r"\s", "\N{NO-BREAK SPACE}", code)


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


def sentences(passage: Passage) -> Iterator[tuple[int, str]]:
    """Each sentence of a passage, with the line where it begins."""
    start = 0
    for end in [*(found.end() for found in END.finditer(passage.text)), len(passage.text)]:
        sentence = passage.text[start:end]
        if end < len(passage.text) and NO_END.search(sentence.strip()):
            continue
        lead = len(sentence) - len(sentence.lstrip(" \n"))
        if sentence.strip():
            yield (
                passage.line + passage.text.count("\n", 0, start + lead),
                re.sub(r"[ \n]+", " ", sentence.strip(" \n")),
            )
        start = end


def offences(page: str, source: str) -> list[Offence]:
    found = []
    for passage in (comments if page.endswith(".yaml") else markdown)(source):
        for line, sentence in sentences(passage):
            prose = CODE.sub("`…`", sentence)
            words = sum(any(map(str.isalnum, word)) or "`" in word for word in prose.split(" "))
            if words > MOST_WORDS:
                found.append(Offence(line, sentence, f"{words} words: make it two sentences, or a list"))
            for pattern, instead in FORBIDDEN:
                found += [
                    Offence(line, sentence, f"'{hit[0]}': write {instead}") for hit in pattern.finditer(prose)
                ]
            if OCTETS.search(prose) and not PROTOCOL.search(prose):
                found.append(
                    Offence(line, sentence, "'octet': write byte, except for a field of the protocol")
                )
            if HEADLESS.match(prose) and not passage.is_title and not prose.endswith("?"):
                found.append(
                    Offence(line, sentence, f"'{prose.split(' ')[0]} …': begin with the noun that is meant")
                )
    return found


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short_and_use_standard_terms(page: str):
    """An operator finds a topic by searching for its standard term."""
    found = offences(page, (ROOT / page).read_text())
    shown = "\n".join(f"{page}:{one.line}: {one.what_to_do}\n    {one.sentence}" for one in found)
    assert not found, f"rewrite these {len(found)}:\n{shown}"


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
