"""The list of popular names for the guard POPULAR: the one in the package, or the file in `guards.popular`.

An operator may use a published ranking with lines such as `1,example.com`. The file is bounded, and one
invalid line refuses it: a truncated or wrong file must not disable the guard unnoticed.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dnsblock import document
from dnsblock.errors import Problem, Refused, capped
from dnsblock.names import NameRefused, above, canonical

MAX_BYTES = 32 << 20
MAX_NAMES = 1_000_000
SHIPPED = Path(__file__).parent / "data" / "popular.txt"


@dataclass(frozen=True, slots=True)
class NameSet:
    """Names, prepared to find those that an entry covers without a search."""

    names: frozenset[str]  # canonical
    shown_below: Mapping[str, str]  # each name above one of them, with the first one below it

    @classmethod
    def of(cls, names: Iterable[str]) -> "NameSet":
        """The set of these canonical names."""
        kept = tuple(names)
        shown_below: dict[str, str] = {}
        for name in kept:
            for higher in above(name):
                shown_below.setdefault(higher, name)
        return cls(frozenset(kept), shown_below)

    def at_or_above(self, name: str) -> str | None:
        """The nearest of these names that is this name, or above it."""
        return next((one for one in (name, *above(name)) if one in self.names), None)


@dataclass(frozen=True, slots=True)
class Popular:
    """A list of popular names, and the SHA-256 of its file."""

    names: NameSet
    sha256: str


@lru_cache(maxsize=1)
def shipped() -> Popular:
    """The list in the package. It is read when the first order is judged, and kept."""
    return load(SHIPPED)


def load(path: Path, former: Popular | None = None) -> Popular:
    """Reads a list of popular names; `former` itself if it has the same content. Raises `Refused`."""
    data = document.read_bytes(path, max_bytes=MAX_BYTES)
    sha256 = hashlib.sha256(data).hexdigest()
    if former is not None and former.sha256 == sha256:
        return former
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise Refused([Problem(str(path), line, "", "not UTF-8 text")]) from err
    names, problems = _parse(str(path), lines)
    if not names and not problems:
        problems.append(
            Problem(str(path), None, "", "contains no name: the guard POPULAR needs at least one")
        )
    if problems:
        raise Refused(capped(problems, 100))
    return Popular(NameSet.of(names), sha256)


def _parse(file: str, lines: Iterable[str]) -> tuple[list[str], list[Problem]]:
    """The names in the lines: a name, or a rank, a comma and a name. A line may be empty or a comment."""
    names: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(names) + len(problems) >= MAX_NAMES:
            problems.append(Problem(file, number, "", f"more than {MAX_NAMES:,} names"))
            break
        rank, comma, name = text.partition(",")
        try:
            names.append(canonical(name.lstrip() if comma and rank.isdecimal() else text))
        except NameRefused as err:
            problems.append(Problem(file, number, text, str(err)))
    return names, problems
