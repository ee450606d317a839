"""Reads the names that a clerk copies from a letter into a file, for `order new`.

Such a file is written by hand, so comments, bullets and the match of each name are allowed. Every line that
is not a name is reported, with a hint what to write instead.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dnsblock.errors import Problem, Refused
from dnsblock.names import NameRefused
from dnsblock.orders.entry import Entry
from dnsblock.orders.schema import Match
from dnsblock.orders.spelling import read_name

MAX_BYTES = 256 << 20

_MATCHES: dict[str, Match] = {"exact": "exact", "subtree": "subtree", "below": "below"}
_BULLET = re.compile(r"(?:[-*•]|\d{1,7}[.)])\s+")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_BELOW = re.compile(r"\*\.(?P<name>[^*\s]+)")


@dataclass(frozen=True, slots=True)
class ReadName:
    """A line with a name."""

    line: int
    written: str
    entry: Entry
    is_match_written: bool  # else the match is the default

    @property
    def is_changed(self) -> bool:
        """Whether the canonical name differs from what was written, in more than the case of letters."""
        return self.written.lower() != self.entry.name


@dataclass(frozen=True, slots=True)
class NamesFile:
    """The names in a file."""

    file: str  # its name in problems
    names: tuple[ReadName, ...]
    repeated: tuple[ReadName, ...]  # the same name with the same match was on an earlier line
    problems: tuple[Problem, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries, in the sequence of the file."""
        return tuple(one.entry for one in self.names)


def read_names(file: str, data: bytes, match: Match) -> NamesFile:
    """Parses the content of a file. Raises `Refused` if it is not text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise Refused(
            [Problem(file, line, "", "not UTF-8 text: save the file as plain text, UTF-8")]
        ) from err
    return read_lines(file, text.splitlines(), match)


def read_lines(file: str, lines: Iterable[str], match: Match) -> NamesFile:
    """Parses lines, each with a name. `match` is the default."""
    names: list[ReadName] = []
    repeated: list[ReadName] = []
    problems: list[Problem] = []
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, start=1):
        words = _BULLET.sub("", _COMMENT.sub("", line).strip(), count=1).split()
        if not words:
            continue
        try:
            found = _read_words(number, words, match)
        except NameRefused as err:
            problems.append(Problem(file, number, " ".join(words), str(err)))
            continue
        key = (found.entry.name, found.entry.match)
        (repeated if key in seen else names).append(found)
        seen.add(key)
    return NamesFile(file, tuple(names), tuple(repeated), tuple(problems))


def _read_words(number: int, words: list[str], match: Match) -> ReadName:
    """The name in the words of a line. Raises `NameRefused`."""
    written, *rest = words
    if below := _BELOW.fullmatch(written):
        name = below["name"]
        raise NameRefused(f"a wildcard: write `{name}`, or `{name} below` for the names below it only")
    if len(rest) == 1 and rest[0] in _MATCHES:
        return ReadName(number, written, Entry(read_name(written), _MATCHES[rest[0]]), True)
    if rest:
        raise NameRefused("more than one word: write one name per line, then exact, subtree or below")
    return ReadName(number, written, Entry(read_name(written), match), False)
