"""The transparency report as JSON and as CSV; `page.py` makes the page."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from dnsblock.reports.transparency import KINDS, Report, Row

_PLAIN = (
    *("issuer", "order_id", "action", "state", "category"),
    *("issued_at", "received_at", "effective_at", "enforced_at", "verified_at", "ended_at", "expires_at"),
    *("deadline_at", "breached", "seconds_to_enforce", "seconds_to_verify", "seconds_to_lift"),
    *("names", "names_in_force"),
)
COLUMNS = ("list", *_PLAIN, "legal_basis")
NAME_COLUMNS = ("name", "match")


def as_json(report: Report) -> Iterator[str]:
    """One JSON object."""
    yield json.dumps(report, ensure_ascii=False, indent=1) + "\n"


def as_csv(report: Report) -> Iterator[str]:
    """RFC 4180: one row for each order, or for each of its names."""
    with_names = any(row["listed_names"] is not None for kind in KINDS for row in report["orders"][kind])
    yield _line([*COLUMNS, *(NAME_COLUMNS if with_names else ())])
    for kind in KINDS:
        for row in report["orders"][kind]:
            cells = [kind, *(row.get(column) for column in _PLAIN), "; ".join(row["legal_basis"])]
            if not with_names:
                yield _line(cells)
                continue
            for name, match in _listed(row) or [("", "")]:
                yield _line([*cells, name, match])


def _listed(row: Row) -> list[tuple[str, str]]:
    found = row["listed_names"] or {}
    return [(name, match) for match, names in found.items() for name in names]


def _line(cells: list[Any]) -> str:
    file = io.StringIO()
    csv.writer(file).writerow([_cell(cell) for cell in cells])
    return file.getvalue()


def _cell(value: Any) -> str:
    """The text of a cell. One that a spreadsheet would run as a formula gets an apostrophe."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str():
            return f"'{value}" if value[:1] in "=+-@\t\r" and value else value
    return str(value)
