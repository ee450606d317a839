"""Checks that an order document is complete. Used only by `order`, for each document.

An unfinished or interrupted copy is often valid YAML, with fewer names or without the end of the block. So
the content itself must prove that it is complete; no clock, lock or rename is needed. YAML ends with the line
`end: ORDER_ID`, JSON with its closing brace.
"""

import re

from dnsblock.document import Document
from dnsblock.errors import Problem

_LINE_OF_END = re.compile(r"[ \t]*(#[^\n]*)?\n")
_AGAIN = "it is read again at the next reload"


def incomplete(read: Document) -> list[Problem]:
    """Why a document may be truncated; empty if it is complete.

    Nothing may follow the end marker, not even a comment: a copy truncated there would have other bytes.
    """
    if read.value is None:
        return [_without_end(read.file, None)]
    if not isinstance(read.value, dict):
        return []  # not an order at all: refused for that reason
    value = read.value
    order_id, end = value.get("order_id"), value.get("end")
    if isinstance(end, str) and isinstance(order_id, str) and end != order_id:
        reason = f"end: is not the order_id; either it is wrong or the file is truncated; {_AGAIN}"
        return [read.problem(("end",), end, reason)]
    if read.is_enclosed:
        if read.rest in ("", "\n"):
            return []
        return [Problem(read.file, None, "", "nothing may follow the closing brace: remove it")]
    if end is None:
        return [_without_end(read.file, order_id if isinstance(order_id, str) else None)]
    if list(value)[-1] != "end":
        reason = "end: must be the last key, since it proves that the file is complete"
        return [read.problem(("end",), "end", reason)]
    if "\n" not in read.rest:
        reason = (
            f"INCOMPLETE: the last line, `end`, has no line end: add it, or copy the file again; {_AGAIN}"
        )
        return [read.problem(("end",), "end", reason)]
    if not _LINE_OF_END.fullmatch(read.rest):
        reason = "end: must be the last line of the file: remove what follows it"
        return [read.problem(("end",), "end", reason)]
    return []


def cut_off(file: str, data: bytes) -> list[Problem]:
    """The problems of an unreadable document that may be truncated."""
    text = data.decode("utf-8-sig", "replace").strip()
    if text.startswith("{"):
        if text.endswith("}"):
            return []
        return [Problem(file, None, "", f"INCOMPLETE: the closing brace is missing; {_AGAIN}")]
    if text.rpartition("\n")[2].startswith("end:"):
        return []
    return [_without_end(file, None)]


def _without_end(file: str, order_id: str | None) -> Problem:
    line = f"end: {order_id or 'ORDER_ID'}"
    reason = (
        f"INCOMPLETE: the file does not end with the line `{line}`: it is still being written, is truncated, "
        f"or lacks that line: add it at the end; {_AGAIN}"
    )
    return Problem(file, None, "", reason)
