"""Translates syntax errors of the YAML parser for the author of a document. Only `document` uses it.

The parser's messages are about scanners, tokens and scalars. The author is a clerk who writes an order, or an
operator in a hurry: our message names the place and the correction.
"""

import re
from dataclasses import dataclass

IN_QUOTES = "put the whole text in quotes, and write each ' in it twice: key: 'the text'"


@dataclass(frozen=True, slots=True)
class Failure:
    """The place and reason of a syntax error. Lines and columns count from 1."""

    context: str
    problem: str
    line: int
    column: int
    began: tuple[int, int] | None  # line and column where the incomplete part begins


@dataclass(frozen=True, slots=True)
class Advice:
    """The line, and the correction with its column."""

    line: int
    reason: str


def advise(text: str, failure: Failure) -> Advice:
    """The advice for the author of `text`."""
    place = (failure.line, failure.column)
    if "quoted scalar" in failure.context and failure.began and "escape" not in failure.problem:
        place = failure.began  # the error is at the end of the file, far from the open quote
    line = _line(text, place[0])
    reason = _reason(line, place[1], failure)
    return Advice(place[0], f"not valid YAML or JSON: column {place[1]}: {reason}")


def not_utf8(data: bytes) -> str:
    """The advice for bytes that are not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "this is UTF-16, not UTF-8 text: save the file with the encoding UTF-8"
    return "not UTF-8 text: save the file with the encoding UTF-8"


def _line(text: str, number: int) -> str:
    lines = text.split("\n", number)
    return lines[number - 1] if number <= len(lines) else ""


def _reason(line: str, column: int, failure: Failure) -> str:
    problem, context, char = failure.problem, failure.context, line[column - 1 : column]
    opened = (
        "" if failure.began is None else f"opened on line {failure.began[0]}, column {failure.began[1]}, "
    )
    if char == "\t" or "tab character" in problem:
        return "a tab: use spaces for indentation, or put a text that holds a tab in quotes"
    if "cannot start any token" in problem:
        return f"a text cannot begin with {char}: {IN_QUOTES}"
    if "quoted scalar" in context:
        if "escape" in problem:
            return r"a backslash in a text in double quotes: use single quotes, or write \\"
        return "the quote that begins here is not closed: add the closing quote"
    if "flow sequence" in context:
        return f"the bracket [ {opened}is not closed, or a comma is missing before this place"
    if "flow mapping" in context:
        return f"the brace {{ {opened}is not closed, or a comma is missing before this place"
    return _reason_in_lines(line, column, problem, context, char)


def _reason_in_lines(line: str, column: int, problem: str, context: str, char: str) -> str:
    """The correction outside brackets, braces and quotes."""
    if "mapping values are not allowed" in problem:
        if re.search(r":\s", line[: column - 1]):
            return f"a text with a colon: {IN_QUOTES}"
        return _INDENTED
    if "simple key" in context:
        return (
            "a line that is neither `key: value` nor `- value`: write a space after the colon or the hyphen"
        )
    if "alias" in context:
        return f"a text cannot begin with *: {IN_QUOTES}. A wildcard is {{name: NAME, match: below}}"
    if "anchor" in context or "tag" in context:
        return f"a text cannot begin with & or !: {IN_QUOTES}"
    if "directive" in context:
        return f"a line cannot begin with %: {IN_QUOTES}"
    if "block scalar" in context:
        return f"a text cannot begin with | or >: {IN_QUOTES}"
    if "expected node content" in problem:
        return f"a value cannot begin with {char}: {IN_QUOTES}"
    if line[: column - 1].strip(" -"):
        return f"text after the end of a value: {IN_QUOTES}"
    if "document start" in problem:
        return "nothing may follow `...`: remove that line"
    return _INDENTED


_INDENTED = (
    "indented differently from the lines it belongs to: begin keys of one level, and items of one list, in "
    "the same column"
)
