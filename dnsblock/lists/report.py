"""The report on the lines of a list: accepted, repaired, duplicate, not applicable or rejected."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dnsblock._engine import CompiledList
from dnsblock.errors import Problem
from dnsblock.lists.compile import formats_of

LEFT_OUT = ("public_suffix", "protected", "top_level", "too_wide")  # the codes of dropped names
Kind = Literal["rejected", "left out", "repaired", "duplicate", "not applicable", "lost exception"]
LOST_EXCEPTION = "lost_exception"  # the code of an exception that is not enforced
APEXLESS_SHARE = 0.95  # above this share of `*.name`, the list is written so throughout and lacks the apexes
COUNTS = (
    *("lines", "accepted", "repaired", "duplicate", "not_applicable", "rejected"),
    *("exceptions", "apexless", "silent"),
)
REASONS = ("rejected_by", "not_applicable_by", "repaired_by")
WARNED = 10  # lost exceptions that warnings list


@dataclass(frozen=True, slots=True)
class ReportedLine:
    """A reported line."""

    kind: Kind
    file: str
    line: int
    value: str
    code: str
    reason: str

    @property
    def problem(self) -> Problem:
        """The line as a `Problem`."""
        return Problem(self.file, self.line, self.value, self.reason)


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of the lines of a list. `lines` excludes the silent ones; it is the sum of the next five.

    The history stores it with each version; the API, the commands and the metrics show it.
    """

    format: str
    is_recognised: bool
    entries: int
    lines: int
    accepted: int
    repaired: int
    duplicate: int
    not_applicable: int  # valid in its format, but not about names
    rejected: int
    exceptions: int  # among the lines with names
    apexless: int  # names listed only as `*.name`, if `match` is not configured
    silent: int  # blank lines and comments
    rejected_by: dict[str, int]
    not_applicable_by: dict[str, int]
    repaired_by: dict[str, int]
    reported: tuple[ReportedLine, ...]  # the first hundred of each kind
    former_format: str = ""  # the previous version's format, if a different one was detected
    serial: int | None = None  # of a policy zone's SOA record

    @classmethod
    def of(cls, compiled: CompiledList, match: str | None, before: str = "") -> "Report":
        """The report on a list that was just compiled with this `match`.

        `before` is the format of the previous version.
        """
        fields: dict[str, Any] = {name: getattr(compiled, name) for name in COUNTS}
        if match == "below":  # the operator has chosen it
            fields["apexless"] = 0
        fields |= {name: dict(sorted(getattr(compiled, name).items())) for name in REASONS}
        recognised = formats_of(compiled)
        return cls(
            **fields,
            format=recognised,
            is_recognised=compiled.is_recognised,
            entries=compiled.names.entries,
            reported=tuple(_reported(compiled)),
            former_format=before if compiled.is_recognised and before != recognised else "",
            serial=compiled.serial,
        )

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return asdict(self)

    @classmethod
    def from_text(cls, text: str) -> "Report":
        """Parses the JSON text of `as_json`. Raises `ValueError`, `TypeError` or `LookupError`."""
        values = json.loads(text)
        report = cls(reported=tuple(ReportedLine(**line) for line in values.pop("reported")), **values)
        if not all(isinstance(getattr(report, name), int) for name in ("entries", *COUNTS)):
            raise ValueError("a count is not a number")
        return report

    def of_kind(self, kind: Kind) -> list[ReportedLine]:
        """The reported lines of one kind."""
        return [one for one in self.reported if one.kind == kind]

    @property
    def left_out(self) -> list[str]:
        """Texts for the dropped names: the reported lines, and how many more there are."""
        shown = [str(one.problem) for one in self.of_kind("left out")]
        more = sum(self.rejected_by.get(code, 0) for code in LEFT_OUT) - len(shown)
        return [*shown, f"and {more:,} more lines"] if more > 0 else shown

    @property
    def warnings(self) -> list[str]:
        """Warnings about valid lines whose meaning is not enforced."""
        return [*self._apexless(), *self._lost_exceptions()]

    def _apexless(self) -> Iterator[str]:
        if self.entries and self.apexless >= APEXLESS_SHARE * self.entries:
            advice = "if they should be, ask the publisher of the list"
            if self.format == "wildcard":
                advice = (
                    "set `match: subtree` for the zone to block them, or `match: below` if this is intended"
                )
            yield (
                f"{self.apexless:,} of {self.entries:,} names are listed only as `*.name`, so the names "
                f"themselves are not blocked: {advice}"
            )

    def _lost_exceptions(self) -> Iterator[str]:
        lost = self.not_applicable_by.get(LOST_EXCEPTION, 0)
        if not lost:
            return
        shown = self.of_kind("lost exception")[:WARNED]
        yield f"{lost:,} exceptions cannot be applied, so the names that they exempt may be blocked"
        yield from (f"lost exception: {one.problem}" for one in shown)
        if lost > len(shown):
            yield f"and {lost - len(shown):,} more lost exceptions"

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


def _reported(compiled: CompiledList) -> Iterator[ReportedLine]:
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
            yield ReportedLine(kind, file, line, value, code, reason)
