"""Reads order documents with the files beside them: signatures, and names."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dnsblock.client import MAX_SUBMITTED_BYTES, SignedFile
from dnsblock.document import read, read_bytes
from dnsblock.errors import Refused


def read_all(files: Iterable[Path]) -> tuple[list[SignedFile], list[dict[str, Any]]]:
    """The documents that can be read, and a verdict for each other one. It does not delay the others."""
    found: list[SignedFile] = []
    unread: list[dict[str, Any]] = []
    for file in dict.fromkeys(files):
        try:
            found.append(_read_signed(file))
        except Refused as err:
            from dnsblock.policy.verdicts import refused_verdict

            unread.append(dict(refused_verdict(str(file), err.problems)))
    return found, unread


def problem_line(problem: Mapping[str, Any], file: str) -> str:
    """One problem of a document. It may be in another file: that of its names, or of its signatures."""
    parts = [] if problem["file"] == file else [problem["file"]]
    parts += [] if problem["line"] is None else [f"line {problem['line']}"]
    parts += [f"'{problem['value']}'"] if problem["value"] else []
    return ": ".join([*parts, problem["reason"]])


def _read_signed(file: Path) -> SignedFile:
    """A document with its signatures and its entries file, if it has them. Raises `Refused`."""
    called = os.fsencode(file).decode("utf-8", "replace")
    data = read_bytes(file, max_bytes=MAX_SUBMITTED_BYTES)
    beside = file.with_name(file.name + ".sig")
    signatures = read_bytes(beside, max_bytes=MAX_SUBMITTED_BYTES) if beside.exists() else None
    path = _path_of_entries(called, data)
    entries = None if path is None else read_bytes(file.parent / path, max_bytes=MAX_SUBMITTED_BYTES)
    return SignedFile(called, data, signatures, entries)


def _path_of_entries(called: str, data: bytes) -> str | None:
    """The plain name of the entries file in a document, if it has one."""
    try:
        value = read(called, data, max_bytes=len(data)).value
    except Refused:
        return None
    reference = value.get("entries_file") if isinstance(value, dict) else None
    path = reference.get("path") if isinstance(reference, dict) else None
    return path if isinstance(path, str) and "/" not in path and "\0" not in path else None
