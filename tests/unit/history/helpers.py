"""Versions of a list that the tests of the history accept."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dnsblock.errors import Refused
from dnsblock.lists.history.facts import (
    Compiled,
    NewVersion,
)
from dnsblock.lists.history.history import History
from dnsblock.lists.report import Report, ReportedLine

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONE = "national"


def sha(text: str) -> str:
    return text.encode().hex().rjust(64, "0")


def compiled(text: str, *, file: str | None = None, options: str = "subtree") -> Compiled:
    counts = dict.fromkeys(("not_applicable", "exceptions", "apexless", "silent"), 0)
    report = Report(
        format="plain",
        is_recognised=True,
        entries=5,
        lines=9,
        accepted=6,
        repaired=2,
        duplicate=1,
        rejected=3,
        rejected_by={"syntax": 3},
        not_applicable_by={},
        repaired_by={"case": 2},
        reported=(ReportedLine("rejected", "list.txt", 7, "a b", "syntax", "not a name"),),
        **counts,
    )
    return Compiled(sha(text), sha(file or text), sha("names of " + text), options, report)


def new(
    text: str, difference: bytes | None, *, hour: int = 0, zone: str = ZONE, **fields: object
) -> NewVersion:
    version = NewVersion(zone, compiled(text), difference, NOON + hour * HOUR, "refresh")
    return replace(version, **fields)


# Three versions: 1 lists a and b, 2 adds c, 3 removes a and widens b.
THREE = (
    new("one", None, how="first"),
    new("two", b"+ exact c.example\n", hour=1),
    new("three", b"- exact a.example\n- exact b.example\n+ subtree b.example\n", hour=2),
)


def numbers(history: History, zone: str = ZONE) -> list[int]:
    return [version.number for version in history.versions(zone)]


def reasons(refused: pytest.ExceptionInfo[Refused]) -> str:
    return str(refused.value)


BIG = b"".join(b"+ exact name-%d.example\n" % number for number in range(50_000))
