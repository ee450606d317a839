"""What has to be enforced: the rules of docs/lists.md once more, as naively as can be.

Nothing here is imported from dnsblock, and nothing is quick: names are Python sets, versions a list that is
walked. Whatever differs from the daemon is a fault of one of the two.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, lru_cache

# Of the public suffixes those that the feed's names have; tests/unit/test_sources.py is about the others.
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


# ------- A text -------


@dataclass(frozen=True)
class Text:
    """A plain list, as its lines are to be understood. Each name stands for itself and all below it."""

    octets: bytes
    names: frozenset[str]
    lines: int  # that say something
    bad: int  # of these, what cannot be meant; what is left out for its harm does not count
    sha256: str


@lru_cache(maxsize=64)
def understood(octets: bytes) -> Text:
    """Reads a plain list with the repairs crlf, case and dot."""
    names: set[str] = set()
    lines = bad = 0
    for line in octets.split(b"\n"):
        match meant(line):
            case None:
                pass
            case "bad":
                lines, bad = lines + 1, bad + 1
            case "left out":
                lines += 1
            case name:
                lines += 1
                names.add(name)
    return Text(octets, frozenset(names), lines, bad, hashlib.sha256(octets).hexdigest())


@cache
def meant(line: bytes) -> str | None:
    """The name that a line lists, or what is to be done about it; None where it says nothing."""
    said = re.sub(rb"(^|\s)#.*", b"", line, flags=re.DOTALL).strip()
    if not said:
        return None
    name = said.decode("ascii", "replace").lower().removesuffix(".")
    if not is_name(name):
        return "bad"
    return "left out" if is_left_out(name) else name


def is_name(text: str) -> bool:
    return len(text) <= 253 and all(LABEL.fullmatch(label) for label in text.split("."))


def is_left_out(name: str) -> bool:
    """A name of one label, a public suffix, and what is protected, with all above and below it."""
    is_near = any(name in above(protected) or protected in above(name) for protected in PROTECTED)
    return "." not in name or name in SUFFIXES or is_near


# ------- The list, and its past -------


@dataclass
class Version:
    """What was accepted, and when."""

    number: int
    text: Text
    at: datetime
    how: str
    is_withdrawn: bool = False


@dataclass
class Snapshot:
    """What was served, and since when."""

    serial: int
    at: datetime
    names: frozenset[str]
    version: int


@dataclass
class Model:
    """One feed with the default guards."""

    versions: list[Version] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    refused: frozenset[str] = frozenset()  # codes about the text that is there now
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)  # (digest, code): how often
    approved: str | None = None  # the digest an operator has accepted, until the next version
    on_disk: bytes | None = None

    @property
    def current(self) -> Version:
        return self.versions[-1]

    @property
    def names(self) -> frozenset[str]:
        """What is enforced."""
        return self.current.text.names

    @property
    def serial(self) -> int:
        return self.snapshots[-1].serial

    @property
    def settled(self) -> list[Version]:
        """Whose texts are no news: the current one's, and that which was rolled back from just now."""
        is_back = bool(self.versions) and self.current.how == "rollback"
        return self.versions[-2:] if is_back else self.versions[-1:]

    # ------- What happens -------

    def fetched(self, octets: bytes | None, now: datetime) -> None:
        """A text came, or the file of the last one is gone."""
        self.on_disk = octets
        self.judged(now)

    def judged(self, now: datetime) -> None:
        """The text on the disk is looked at."""
        if self.on_disk is None:
            self._refuse("", {UNREADABLE})
            return
        text = understood(self.on_disk)
        if any(text.octets == version.text.octets for version in self.settled):
            self.refused = frozenset()
            return
        is_approved = text.sha256 == self.approved
        codes = set() if is_approved else set(self.codes(text))
        if codes:
            self._refuse(text.sha256, codes)
            return
        self._accept(
            text, now, "accepted by hand" if is_approved else "refresh" if self.versions else "first"
        )
        self.refused = frozenset()

    def codes(self, text: Text) -> Iterator[str]:
        """The guards that do not let a text through."""
        if HTML.match(text.octets):
            yield "HTML"
        if not text.names:
            yield "EMPTY"
        if text.octets and not text.octets.endswith(b"\n"):
            yield "TRUNCATED"
        if text.bad > text.lines * 0.01:
            yield "TOO_MANY_REJECTED"
        if any(version.text.octets == text.octets for version in self.versions):
            yield "REPLAYED"
        if self.versions and text.names:
            before = self.names
            gone, new = len(before - text.names), len(text.names - before)
            # Of fewer than 20 names that changed, the share says nothing.
            if gone > 1000 or (gone >= 20 and gone > len(before) * 0.005):
                yield "SHRANK"
            if new > 100_000 or (new >= 20 and new > len(before) * 0.05):
                yield "GREW"

    def rolled_back(self, serial: int, now: datetime) -> None:
        """The lists of a serial are served again, as something new; what they replace is withdrawn."""
        snapshot = next(one for one in self.snapshots if one.serial == serial)
        withdrawn = self.current
        self._accept(self.versions[snapshot.version - 1].text, now, "rollback")
        withdrawn.is_withdrawn = True
        self.refused = frozenset()

    def served(self, now: datetime) -> None:
        """What is current is served, with a new serial where it enforces something else."""
        if not self.snapshots or self.snapshots[-1].names != self.names:
            serial = self.snapshots[-1].serial + 1 if self.snapshots else 1
            self.snapshots.append(Snapshot(serial, now, self.names, self.current.number))
        self.snapshots[-1].version = self.current.number

    def _refuse(self, sha256: str, codes: Iterable[str]) -> None:
        self.refused = frozenset(codes)
        self.refusals.update((sha256, code) for code in self.refused)

    def _accept(self, text: Text, now: datetime, how: str) -> None:
        self.versions.append(Version(len(self.versions) + 1, text, now, how))
        self.approved = text.sha256 if self.approved == text.sha256 else None

    # ------- What is to be told -------

    def is_blocked(self, name: str, names: frozenset[str] | None = None) -> bool:
        names = self.names if names is None else names
        return any(one in names for one in above(name))

    def at(self, when: datetime) -> Version | None:
        """The version that was current at a time."""
        return next((version for version in reversed(self.versions) if version.at <= when), None)

    def difference(self, a: int, b: int) -> list[tuple[str, str | None, str | None]]:
        """What is another in version b than in a: (name, before, after)."""
        before, after = self.versions[a - 1].text.names, self.versions[b - 1].text.names
        gone = [(name, "subtree", None) for name in before - after]
        new = [(name, None, "subtree") for name in after - before]
        return sorted([*gone, *new])

    def events_of(self, name: str) -> list[tuple[int, datetime, str | None, str | None]]:
        """(version, when, before, after) where a version changed what is said about a name."""
        found = []
        for old, new in zip(self.versions, self.versions[1:], strict=False):
            before, after = ("subtree" if name in one.text.names else None for one in (old, new))
            if before != after:
                found.append((new.number, new.at, before, after))
        return found
