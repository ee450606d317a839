"""What became of the lines of a list: accepted, repaired, a duplicate, not applicable or rejected."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dnsblock._engine import CompiledList
from dnsblock.errors import Problem
from dnsblock.lists.compile import formats_of

LEFT_OUT = ("public_suffix", "protected", "top_level", "too_wide")  # the codes of these lines
Kind = Literal["rejected", "left out", "repaired", "duplicate", "not applicable", "lost exception"]
LOST_EXCEPTION = "lost_exception"  # the code of these lines
APEXLESS_SHARE = 0.95  # of the names: above it, the list is written so, and the names themselves are missing
WARNED = 10  # lines of lost exceptions in warnings


@dataclass(frozen=True, slots=True)
class Told:
    """A line that is worth a look."""

    kind: Kind
    file: str
    line: int
    value: str
    code: str
    reason: str

    @property
    def problem(self) -> Problem:
        """The same, for whom it is a problem."""
        return Problem(self.file, self.line, self.value, self.reason)


@dataclass(frozen=True, slots=True)
class Report:
    """The lines of a list. `lines` are those that say something, the sum of the five numbers behind it."""

    format: str
    is_recognised: bool
    entries: int
    lines: int
    accepted: int
    repaired: int
    duplicate: int
    not_applicable: int  # understood, and nothing that names can say
    rejected: int
    exceptions: int  # of the lines that name something
    apexless: int  # names that are listed as `*.name` alone, where that is not configured
    silent: int  # blank lines and comments
    rejected_by: dict[str, int]
    not_applicable_by: dict[str, int]
    repaired_by: dict[str, int]
    told: tuple[Told, ...]  # the first hundred of each kind
    former_format: str = ""  # of the version before, where another one was recognised then

    @classmethod
    def of(cls, compiled: CompiledList, match: str | None, before: str = "") -> "Report":
        """The report of a list that was just compiled, with this `match`.

        `before` is the format of the version before.
        """
        return cls(
            format=formats_of(compiled),
            is_recognised=compiled.is_recognised,
            entries=compiled.names.entries,
            lines=compiled.lines,
            accepted=compiled.accepted,
            repaired=compiled.repaired,
            duplicate=compiled.duplicate,
            not_applicable=compiled.not_applicable,
            rejected=compiled.rejected,
            exceptions=compiled.exceptions,
            apexless=0 if match == "below" else compiled.apexless,
            silent=compiled.silent,
            rejected_by=dict(sorted(compiled.rejected_by.items())),
            not_applicable_by=dict(sorted(compiled.not_applicable_by.items())),
            repaired_by=dict(sorted(compiled.repaired_by.items())),
            told=tuple(_told(compiled)),
            former_format=before if compiled.is_recognised and before != formats_of(compiled) else "",
        )

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return asdict(self)

    @classmethod
    def from_text(cls, text: str) -> "Report":
        """What `json.dumps` made of `as_json`."""
        read = json.loads(text)
        return cls(**{**read, "told": tuple(Told(**told) for told in read["told"])})

    def of_kind(self, kind: Kind) -> list[Told]:
        """The lines that are told of a kind."""
        return [told for told in self.told if told.kind == kind]

    @property
    def left_out(self) -> list[str]:
        """Lines that would do harm, those that are told, and how many more there are."""
        told = [str(one.problem) for one in self.of_kind("left out")]
        more = sum(self.rejected_by.get(code, 0) for code in LEFT_OUT) - len(told)
        return [*told, f"and {more:,} more lines"] if more > 0 else told

    @property
    def warnings(self) -> list[str]:
        """What the list says and is not enforced, although its lines are understood."""
        return [*self._apexless(), *self._lost_exceptions()]

    def _apexless(self) -> Iterator[str]:
        if self.entries and self.apexless >= APEXLESS_SHARE * self.entries:
            advice = "tell who runs the list, if they are meant"
            if self.format == "wildcard":
                advice = "set `match: subtree` for the zone if they are meant, and `match: below` if not"
            yield (
                f"{self.apexless:,} of {self.entries:,} names are listed as `*.name` alone, so the names "
                f"themselves are not blocked: {advice}"
            )

    def _lost_exceptions(self) -> Iterator[str]:
        lost = self.not_applicable_by.get(LOST_EXCEPTION, 0)
        if not lost:
            return
        told = self.of_kind("lost exception")[:WARNED]
        yield f"{lost:,} exceptions are not carried out, so what they except may be blocked"
        yield from (f"lost exception: {one.problem}" for one in told)
        if lost > len(told):
            yield f"and {lost - len(told):,} more lost exceptions"

    @property
    def summary(self) -> str:
        """One line for a person."""
        how = "recognised" if self.is_recognised else "as configured"
        how += f"; it was {self.former_format} before" if self.former_format else ""
        return (
            f"format {self.format} ({how}), {self.lines:,} lines: {self.accepted:,} accepted, "
            f"{self.repaired:,} repaired, {self.duplicate:,} duplicate, "
            f"{self.not_applicable:,} not applicable, {self.rejected:,} rejected"
        )


def _told(compiled: CompiledList) -> Iterator[Told]:
    kinds: list[tuple[Kind, list[tuple[str, int, str, str, str]]]] = [
        ("left out", compiled.left_out_lines),
        ("rejected", compiled.rejected_lines),
        ("repaired", compiled.repaired_lines),
        ("duplicate", compiled.duplicate_lines),
        ("not applicable", compiled.not_applicable_lines),
        ("lost exception", compiled.lost_exception_lines),
    ]
    for kind, lines in kinds:
        for file, line, value, code, reason in lines:
            yield Told(kind, file, line, value, code, reason)
