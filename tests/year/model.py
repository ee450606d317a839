"""A naive model of a list and its history: the rules of docs/lists.md, as simple as possible.

It imports nothing from dnsblock, and it is slow: names are Python sets, and versions a list that is searched.
Any difference from the daemon is a fault in one of them.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, lru_cache

# The public suffixes of the feed's names. tests/unit/test_sources.py tests the others.
SUFFIXES = frozenset({"com", "net", "org", "id", "co.id", "go.id", "web.id", "uk", "co.uk"})
PROTECTED = ("portal.negara.go.id", "resolver.isp.co.id")
LABEL = re.compile(r"[a-z0-9_-]{1,63}")
HTML = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
UNREADABLE = "UNREADABLE"


@cache
def above(name: str) -> tuple[str, ...]:
    """The name, and every name above it."""
    labels = name.split(".")
    return tuple(".".join(labels[skip:]) for skip in range(len(labels)))


# ------- A file -------


@dataclass(frozen=True)
class Content:
    """A plain list and its names. Each name includes all names below it."""

    data: bytes
    names: frozenset[str]
    lines: int  # not blank, and not only a comment
    invalid: int  # lines without a name; protected names and public suffixes do not count
    sha256: str


@lru_cache(maxsize=64)
def parsed(data: bytes) -> Content:
    """Parses a plain list with the repairs crlf, case and dot."""
    names: set[str] = set()
    lines = invalid = 0
    for line in data.split(b"\n"):
        match parsed_line(line):
            case None:
                pass
            case "invalid":
                lines, invalid = lines + 1, invalid + 1
            case "dropped":
                lines += 1
            case name:
                lines += 1
                names.add(name)
    return Content(data, frozenset(names), lines, invalid, hashlib.sha256(data).hexdigest())


@cache
def parsed_line(line: bytes) -> str | None:
    """The name that a line lists, "invalid" or "dropped"; None for a blank line or a comment."""
    word = re.sub(rb"(^|\s)#.*", b"", line, flags=re.DOTALL).strip()
    if not word:
        return None
    name = word.decode("ascii", "replace").lower().removesuffix(".")
    if not is_name(name):
        return "invalid"
    return "dropped" if is_dropped(name) else name


def is_name(text: str) -> bool:
    return len(text) <= 253 and all(LABEL.fullmatch(label) for label in text.split("."))


def is_dropped(name: str) -> bool:
    """Names of one label, public suffixes, and protected names with all names above and below them."""
    is_near = any(name in above(protected) or protected in above(name) for protected in PROTECTED)
    return "." not in name or name in SUFFIXES or is_near


# ------- The list and its history -------


@dataclass
class Version:
    """An accepted version."""

    number: int
    content: Content
    at: datetime
    how: str
    is_withdrawn: bool = False


@dataclass
class Snapshot:
    """A served snapshot."""

    serial: int
    at: datetime
    names: frozenset[str]
    version: int


@dataclass
class Model:
    """One feed with the default guards."""

    versions: list[Version] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    rejected_by: frozenset[str] = frozenset()  # the codes for the present file
    rejections: Counter[tuple[str, str]] = field(default_factory=Counter)  # (digest, code): how often
    approved: str | None = None  # the digest that an operator accepted, until the next version
    on_disk: bytes | None = None

    @property
    def current(self) -> Version:
        return self.versions[-1]

    @property
    def names(self) -> frozenset[str]:
        """The enforced names."""
        return self.current.content.names

    @property
    def serial(self) -> int:
        return self.snapshots[-1].serial

    @property
    def settled(self) -> list[Version]:
        """Versions whose content is not new: the current one, and after a rollback the one before."""
        is_rolled_back = bool(self.versions) and self.current.how == "rollback"
        return self.versions[-2:] if is_rolled_back else self.versions[-1:]

    # ------- Events -------

    def fetched(self, data: bytes | None, now: datetime) -> None:
        """A file was fetched, or the last one was deleted."""
        self.on_disk = data
        self.read(now)

    def read(self, now: datetime) -> None:
        """The daemon reads the file on disk."""
        if self.on_disk is None:
            self._reject("", {UNREADABLE})
            return
        content = parsed(self.on_disk)
        if any(content.data == version.content.data for version in self.settled):
            self.rejected_by = frozenset()
            return
        is_approved = content.sha256 == self.approved
        codes = set() if is_approved else set(self.codes(content))
        if codes:
            self._reject(content.sha256, codes)
            return
        self._accept(
            content, now, "accepted by hand" if is_approved else "refresh" if self.versions else "first"
        )
        self.rejected_by = frozenset()

    def codes(self, content: Content) -> Iterator[str]:
        """The guards that reject a file."""
        if HTML.match(content.data):
            yield "HTML"
        if not content.names:
            yield "EMPTY"
        if content.data and not content.data.endswith(b"\n"):
            yield "TRUNCATED"
        if content.invalid > content.lines * 0.01:
            yield "TOO_MANY_REJECTED"
        if any(version.content.data == content.data for version in self.versions):
            yield "REPLAYED"
        if self.versions and content.names:
            before = self.names
            gone, new = len(before - content.names), len(content.names - before)
            # With fewer than 20 changed names, the share means nothing.
            if gone > 1000 or (gone >= 20 and gone > len(before) * 0.005):
                yield "SHRANK"
            if new > 100_000 or (new >= 20 and new > len(before) * 0.05):
                yield "GREW"

    def rolled_back(self, serial: int, now: datetime) -> None:
        """The lists of a serial become a new version. The version that they replace is withdrawn."""
        snapshot = next(one for one in self.snapshots if one.serial == serial)
        withdrawn = self.current
        self._accept(self.versions[snapshot.version - 1].content, now, "rollback")
        withdrawn.is_withdrawn = True
        self.rejected_by = frozenset()

    def served(self, now: datetime) -> None:
        """The current version is served, with a new serial if the enforced names changed."""
        if not self.snapshots or self.snapshots[-1].names != self.names:
            serial = self.snapshots[-1].serial + 1 if self.snapshots else 1
            self.snapshots.append(Snapshot(serial, now, self.names, self.current.number))
        self.snapshots[-1].version = self.current.number

    def _reject(self, sha256: str, codes: Iterable[str]) -> None:
        self.rejected_by = frozenset(codes)
        self.rejections.update((sha256, code) for code in self.rejected_by)

    def _accept(self, content: Content, now: datetime, how: str) -> None:
        self.versions.append(Version(len(self.versions) + 1, content, now, how))
        self.approved = content.sha256 if self.approved == content.sha256 else None

    # ------- Queries -------

    def is_blocked(self, name: str, names: frozenset[str] | None = None) -> bool:
        names = self.names if names is None else names
        return any(one in names for one in above(name))

    def at(self, when: datetime) -> Version | None:
        """The version that was current at a time."""
        return next((version for version in reversed(self.versions) if version.at <= when), None)

    def difference(self, a: int, b: int) -> list[tuple[str, str | None, str | None]]:
        """The changes from version a to version b: (name, before, after)."""
        before, after = self.versions[a - 1].content.names, self.versions[b - 1].content.names
        gone = [(name, "subtree", None) for name in before - after]
        new = [(name, None, "subtree") for name in after - before]
        return sorted([*gone, *new])

    def events_of(self, name: str) -> list[tuple[int, datetime, str | None, str | None]]:
        """(version, time, before, after) for each version that changed the entry of a name."""
        found = []
        for old, new in zip(self.versions, self.versions[1:], strict=False):
            before, after = ("subtree" if name in one.content.names else None for one in (old, new))
            if before != after:
                found.append((new.number, new.at, before, after))
        return found
