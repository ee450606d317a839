"""The reference of the configuration, from config/dnsblock.yaml: every option, its default and its comment.

The file is read as text: its comments are the reference. A comment above an option describes it. A comment
below one, with an empty line after it, is an example.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .text import definition, escaped

KEY = re.compile(r"( *)([a-z0-9_]+):(?: (.*))?$")
# A term, then two or more spaces, then what it means.
ITEM = re.compile(r"( {2,})(\S(?:.*?\S)?) {2,}(\S.*)$")
BULLET = re.compile(r"( {2,})\* (\S.*)$")


@dataclass
class Option:
    """An option, with its comment and the examples below it, without `#`."""

    path: str
    default: list[str]
    comment: list[str]
    examples: list[str] = field(default_factory=list)


@dataclass
class Item:
    """A term in a comment, with the text in the column on its right and the items below it."""

    term: str
    indent: int
    column: int
    text: list[str]
    items: "list[Item]" = field(default_factory=list)


def reference(source: str) -> str:
    """Each top-level option as a section, and the options in it as a definition list, in Markdown."""
    sections = []
    for option in options(source):
        default = f"{option.path}: {' '.join(option.default)}".rstrip()
        example = [_code(option.examples)] if option.examples else []
        if "." in option.path:
            sections.append(definition(f"`{default}`", *blocks(option.comment), *example))
        else:
            shown = [] if default.endswith(":") else [f"```yaml\n{default}\n```"]
            described = blocks(option.comment)
            parts = [f"### {option.path}", *described[:1], *shown, *described[1:], *example]
            sections.append("\n\n".join(parts) + "\n")
    return "\n".join(sections)


def options(source: str) -> list[Option]:
    """Every option that has a line of its own, in the order of the file. The head of the file is left out."""
    found: list[Option] = []
    place: list[tuple[int, str]] = []  # the keys around a line, with their indentation
    comment: list[str] = []
    for line in [*source.split("\n\n", 1)[1].splitlines(), ""]:
        key = KEY.match(line)
        if line.lstrip().startswith("#"):
            comment.append(line.strip()[1:])
        elif key:
            depth = len(key[1])
            place = [*(one for one in place if one[0] < depth), (depth, key[2])]
            found.append(Option(".".join(name for _, name in place), [key[3] or ""], comment))
            comment = []
        elif line.strip():
            found[-1].default.append(line.strip())
        else:
            found[-1].examples += comment
            comment = []
    return found


def blocks(comment: Sequence[str]) -> list[str]:
    """The paragraphs, lists and examples of a comment, in Markdown."""
    found: list[str] = []
    for kind, lines in _runs(comment):
        if kind == "prose":
            found.append(escaped(" ".join(line.strip() for line in lines)))
        else:
            found.append(_list(lines) if ITEM.match(lines[0]) else _code(lines))
    return found


def _runs(comment: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Consecutive lines of one kind. A sentence about another option, in backquotes, is a new paragraph."""
    run: list[str] = []
    for line in comment:
        is_prose = not line.startswith(("  ", " {"))
        begins = line.startswith(" `") and run and run[-1].endswith(".")
        if run and (begins or is_prose == run[0].startswith(("  ", " {"))):
            yield "prose" if not run[0].startswith(("  ", " {")) else "columns", run
            run = []
        run.append(line)
    if run:
        yield "prose" if not run[0].startswith(("  ", " {")) else "columns", run


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```yaml", *(line.strip() for line in lines), "```"])


def _list(lines: Sequence[str]) -> str:
    """Terms and their meanings, in columns, as a definition list."""
    top = Item("", -1, -1, [])
    around = [top]
    for line in lines:
        _place(line, around)
    return "\n".join(map(_rendered, top.items))


def _place(line: str, around: list[Item]) -> None:
    """Adds a line to the items around it, the innermost last. The text of an item may be an item itself."""
    indent = len(line) - len(line.lstrip())
    found = ITEM.match(line)
    if found:
        while around[-1].indent >= indent:
            around.pop()
        item = Item(found[2], indent, found.start(3), [])
        around[-1].items.append(item)
        around.append(item)
        _place(" " * item.column + found[3], around)
        return
    while any(item.column == indent for item in around) and around[-1].column != indent:
        around.pop()
    around[-1].text.append(line.strip())


def _rendered(item: Item) -> str:
    text = escaped(" ".join(item.text))
    return definition(f"`{item.term}`", text, "\n".join(map(_rendered, item.items)))
