"""What became of the lines of a list: every one is accepted, repaired, a duplicate or rejected."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dnsblock._engine import CompiledList
from dnsblock.errors import Problem
from dnsblock.policy.compiling import formats_of

LEFT_OUT = ("public_suffix", "protected", "top_level")  # the codes of these lines
Kind = Literal["rejected", "left out", "repaired", "duplicate"]


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
    """The lines of a list. `lines` are those that say something, the sum of the four numbers behind it."""

    format: str
    is_recognised: bool
    entries: int
    lines: int
    accepted: int
    repaired: int
    duplicate: int
    rejected: int
    silent: int  # blank lines and comments
    rejected_by: dict[str, int]
    repaired_by: dict[str, int]
    told: tuple[Told, ...]  # the first hundred of each kind
    former_format: str = ""  # of the version before, where another one was recognised then

    @classmethod
    def of(cls, compiled: CompiledList, before: str = "") -> "Report":
        """The report of a list that was just compiled; `before`: the format of the version before."""
        return cls(
            format=formats_of(compiled),
            is_recognised=compiled.is_recognised,
            entries=compiled.names.entries,
            lines=compiled.lines,
            accepted=compiled.accepted,
            repaired=compiled.repaired,
            duplicate=compiled.duplicate,
            rejected=compiled.rejected,
            silent=compiled.silent,
            rejected_by=dict(sorted(compiled.rejected_by.items())),
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
    def summary(self) -> str:
        """One line for a person."""
        how = "recognised" if self.is_recognised else "as configured"
        how += f"; it was {self.former_format} before" if self.former_format else ""
        return (
            f"format {self.format} ({how}), {self.lines:,} lines: {self.accepted:,} accepted, "
            f"{self.repaired:,} repaired, {self.duplicate:,} duplicate, {self.rejected:,} rejected"
        )


def _told(compiled: CompiledList) -> Iterator[Told]:
    kinds: list[tuple[Kind, list[tuple[str, int, str, str, str]]]] = [
        ("left out", compiled.left_out_lines),
        ("rejected", compiled.rejected_lines),
        ("repaired", compiled.repaired_lines),
        ("duplicate", compiled.duplicate_lines),
    ]
    for kind, lines in kinds:
        for file, line, value, code, reason in lines:
            yield Told(kind, file, line, value, code, reason)
