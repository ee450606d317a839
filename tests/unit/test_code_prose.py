"""Comments, docstrings, messages and names in the code are plain English, too."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from .prose import CODE, Passage, offences_of, report, unbroken

ROOT = Path(__file__).parents[2]
SOURCES = [
    str(file.relative_to(ROOT))
    for pattern in (
        "dnsblock/**/*.py",
        "dnsblock/*.pyi",
        "engine/src/**/*.rs",
        "engine/tests/**/*.rs",
        "tests/**/*.py",
    )
    for file in sorted(ROOT.glob(pattern))
    # These two contain the forbidden phrases: one lists them, the other has sentences with them as examples.
    if file.name not in {"prose.py", "test_prose.py"}
]
# Words in names of types, functions, options and variables, and what a colleague would call it.
NAMES = {
    "octet": "byte",
    "octets": "bytes",
    "letter": "message",
    "letters": "messages",
    "patience": "timeout",
    "told": "the noun that is meant: Report, Finding, Rejection",
    "tells": "client_identity",
    "hole": "exemption",
    "holes": "exemptions",
    "attempts": "tries",
    "asker": "client",
    "anew": "again",
    "bell": "wakeup",
    "unwilling": "refused",
    "damaged": "corrupt",
    "mended": "repaired",
}
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|PRAGMA) ")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

RUST = re.compile(
    r"""(?P<raw>\br\#*"(?:.|\n)*?"\#*)|(?P<string>b?"(?:\\(?:.|\n)|[^"\\])*")|(?P<char>'(?:\\.[^']*|[^'\\])')"""
    r"""|(?P<comment>//[^\n]*)""",
    re.VERBOSE,
)


def comment_blocks(comments: Iterator[tuple[int, int, str]]) -> Iterator[Passage]:
    """Comments in consecutive lines are one passage. An item, a rule and an empty line end it."""
    block: list[str] = []
    first = last = place = 0
    for line, column, comment in comments:
        text = comment.strip()
        continues = line == last + 1 and column == place and text and not re.match(r"[*-]", text)
        if not continues and block:
            yield Passage(first, "\n".join(block))
            block = []
        if text and not text.startswith(("-----", "===")):
            if not block:
                first = line
            block.append(text)
        last, place = line, column
    if block:
        yield Passage(first, "\n".join(block))


def coded(text: str) -> str:
    return CODE.sub(lambda code: unbroken(code[0]), text)


def paragraphs(line: int, text: str) -> Iterator[Passage]:
    """The paragraphs and items of a docstring."""
    yield from comment_blocks((line + index, 0, part) for index, part in enumerate(coded(text).split("\n")))


def python_passages(source: str, *, has_files: bool) -> Iterator[Passage]:
    """Docstrings, comments and texts.

    With `has_files`, a text of several lines is left out. In a test it is the content of a file, such as a
    configuration of BIND.
    """

    def is_prose(text: str) -> bool:
        is_file = has_files and "\n" in text.strip("\n")
        return " " in text and not SQL.match(text) and not is_file

    tree = ast.parse(source)
    documented = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                documented.add(id(node.body[0].value))
                yield from paragraphs(node.body[0].lineno, text)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if is_prose(node.value) and id(node) not in documented | parts:
                yield from paragraphs(node.lineno, node.value)
        elif isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "`…`" for part in node.values)
            if is_prose(text):
                yield from paragraphs(node.lineno, text)
    comments = (
        (token.start[0], token.start[1], coded(token.string.lstrip("#!")))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not re.match(r"# (type|noqa|ruff|mypy)\b", token.string)
    )
    yield from comment_blocks(comments)


def rust_passages(source: str) -> Iterator[Passage]:
    comments = []
    for found in RUST.finditer(source):
        line = source.count("\n", 0, found.start()) + 1
        column = found.start() - (source.rfind("\n", 0, found.start()) + 1)
        if found.lastgroup == "comment":
            comments.append((line, column, coded(found[0].lstrip("/!"))))
        elif found.lastgroup == "string" and " " in found[0]:
            text = re.sub(r"\\\n\s*", "", found[0].strip('b"'))
            yield from paragraphs(line, re.sub(r"\{[^}]*\}", "`…`", text))
    yield from comment_blocks(iter(comments))


def names(file: str, source: str) -> Iterator[tuple[int, str]]:
    """Every name in the code, with its line."""
    if file.endswith(".rs"):
        code = RUST.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), source)
        # Of std::net::IpAddr, and of the crate domain.
        code = code.replace(".octets()", "").replace("::from_octets(", "(")
        for number, line in enumerate(code.splitlines(), start=1):
            yield from ((number, name) for name in IDENTIFIER.findall(line))
    else:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NAME:
                yield token.start[0], token.string


@pytest.mark.parametrize("file", SOURCES)
def test_comments_and_messages_are_short_and_use_standard_terms(file: str):
    """A newcomer reads the comments, an operator the messages: both know the standard terms."""
    source = (ROOT / file).read_text()
    if file.endswith(".rs"):
        passages = rust_passages(source)
    else:
        passages = python_passages(source, has_files=file.startswith("tests/"))
    found = offences_of(passages)
    assert not found, f"rewrite these {len(found)}:\n{report(file, found)}"


STANDARD = re.compile(r"ascii_letters|dead_?letters?", re.IGNORECASE)  # of the alphabet; of a queue


@pytest.mark.parametrize("file", SOURCES)
def test_names_are_standard_terms(file: str):
    """A type or function has the name that a colleague would use (RFC 9499, RPZ)."""
    found = [
        f"{file}:{line}: {name}: write {NAMES[word.lower()]}"
        for line, name in names(file, (ROOT / file).read_text())
        for word in WORD.findall(STANDARD.sub("", name))
        if word.lower() in NAMES
    ]
    assert not found, "\n".join(["rename these:", *found])
