"""Writes policy zones for other software: an RPZ zone file, a list of names, or a hosts file.

The engine writes the entries (engine/src/export.rs). Here are the choice of zones and the head of the file.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dnsblock import __version__, document
from dnsblock._engine import PlacedZone, PolicyZone, Snapshot
from dnsblock.config import Config
from dnsblock.config_exports import ExportFormat
from dnsblock.errors import Problem, Refused

NO_ORIGIN = "invalid"  # the engine needs a name, and only RPZ has one
MAX_SERIAL = (1 << 32) - 1
HEAD_BYTES = 8192  # of a file; its head has at most 64 names of zones
TAIL_BYTES = 1024
REFRESH, RETRY, EXPIRE, MINIMUM = 300, 60, 2_592_000, 60  # seconds, in the SOA record


@dataclass(frozen=True, slots=True)
class Written:
    """The counts of a file that was written."""

    serial: int
    entries: int
    records: int
    left_out: Mapping[str, int]  # entries that the format cannot express, by the reason


UNKNOWN_COUNTS: dict[str, Any] = {"entries": 0, "records": 0, "left_out": {}}


@dataclass(frozen=True, slots=True)
class Current:
    """A file that was written before."""

    written: Written
    is_current: bool  # it is complete, and has the same content


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted file."""

    format: ExportFormat
    origin: str | None  # the name of an RPZ zone
    zones: Sequence[str] = ()  # empty: all that are enforced

    def problems(self, config: Config) -> Iterator[Problem]:
        """A name of the zone that is missing or has no meaning, and zones that cannot be exported."""
        if self.format == "rpz" and self.origin is None:
            why = "rpz needs the name of the zone, such as rpz.isp.example"
            yield Problem("export", None, "origin", why)
        if self.format != "rpz" and self.origin is not None:
            yield Problem("export", None, self.origin, f"only rpz has the name of a zone, not {self.format}")
        known = {zone.name: zone for zone in config.zones}
        for name in self.zones:
            if name not in known:
                yield Problem("export", None, name, f"no such zone; there are {', '.join(known) or 'none'}")
            elif known[name].is_shadow:
                why = "a shadow zone enforces nothing: others would enforce its export"
                yield Problem("export", None, name, why)
        for zone in config.zones:
            is_chosen = zone.name in self.zones or not self.zones
            if self.format == "rpz" and is_chosen and not zone.is_shadow and not zone.judges_targets:
                why = "has `targets: ignore`, and RPZ always applies to targets too: name the other zones"
                yield Problem("export", None, zone.name, why)
            if is_chosen and not zone.is_shadow and zone.clients is not None:
                why = "is for some clients only, which other software cannot know: name the other zones"
                yield Problem("export", None, zone.name, why)


@dataclass(frozen=True, slots=True)
class Export:
    """Policy zones that are written as one file."""

    wanted: Wanted
    zones: tuple[str, ...]  # in configured order
    placed: tuple[PlacedZone, ...]  # the same, as they are enforced
    soa: tuple[str, str]  # MNAME and RNAME
    serial: int  # of the snapshot in force
    allowed: PolicyZone | None  # names that the operator exempts from lists

    @classmethod
    def of(
        cls,
        wanted: Wanted,
        config: Config,
        placed: Sequence[PlacedZone],
        serial: int,
        allowed: PolicyZone | None,
    ) -> "Export":
        """`placed`: all zones, in configured order. `allowed`: names that the operator exempts from lists.

        Raises `Refused` if they cannot be exported as wanted.
        """
        if problems := list(wanted.problems(config)):
            raise Refused(problems)
        chosen = [
            (zone.name, one)
            for zone, one in zip(config.zones, placed, strict=True)
            if (zone.name in wanted.zones or not wanted.zones) and not zone.is_shadow
        ]
        zones, own = tuple(name for name, _ in chosen), tuple(one for _, one in chosen)
        why = "opens names for some clients, which this file cannot express: name the other zones"
        opening = [
            Problem("export", None, name, why)
            for index, (name, one) in enumerate(chosen)
            if one.zone.opens_for_clients and (wanted.format != "rpz" or index > 0)
        ]
        if opening:
            raise Refused(opening)
        return cls(wanted, zones, own, (config.soa.mname, config.soa.rname), serial, allowed)

    @property
    def digest(self) -> str:
        """The digest of everything that determines the content, apart from the serial."""
        facts = [
            self.wanted.format,
            self.wanted.origin,
            self.zones,
            self.soa,
            Snapshot.digest_of(self.placed, allowed=self.allowed),
            __version__,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def write(self, descriptor: int, serial: int | None = None) -> Written:
        """Writes to a file or a pipe. Raises `OSError`. Millions of names take seconds."""
        number = self.serial if serial is None else serial
        snapshot = Snapshot(self.placed, number, allowed=self.allowed)
        origin = self.wanted.origin or NO_ORIGIN
        return Written(number, *snapshot.export(descriptor, self.wanted.format, self._head(number), origin))

    def current(self, path: Path) -> "Current | None":
        """The facts of the file at this path; None if there is none, or an empty one.

        Raises `OSError`, and `Refused` for a file that is no export: replacing it could lose anything.
        """
        try:
            with document.open_regular(path) as file:
                head = file.read(HEAD_BYTES).decode("utf-8", "replace")
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                tail = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        if not head:
            return None
        found = re.match(r"[;#] dnsblock .*\n[;#] serial ([0-9]{1,10}), content ([0-9a-f]{64})\n", head)
        if found is None:
            why = "is no export of dnsblock, and is not replaced: move it away, or use another name"
            raise Refused([Problem(str(path), None, "", why)])
        counts = counts_in(tail)
        written = Written(min(int(found[1]), MAX_SERIAL), **(counts or UNKNOWN_COUNTS))
        return Current(written, counts is not None and found[2] == self.digest)

    def serial_after(self, *former: Written) -> int:
        """The serial for a file after these: that of the snapshot, or higher (RFC 1982), never 0.

        Secondaries transfer the zone only if its serial has grown.
        """
        serial = self.serial
        for one in former:
            if not 0 < (serial - one.serial) % (MAX_SERIAL + 1) < 1 << 31:
                serial = one.serial % MAX_SERIAL + 1
        return serial

    def _head(self, serial: int) -> str:
        comment = ";" if self.wanted.format == "rpz" else "#"
        lines = [
            f"{comment} dnsblock {__version__}: zones {', '.join(self.zones) or 'none'}",
            f"{comment} serial {serial}, content {self.digest}",
        ]
        if self.wanted.format == "rpz":
            mname, rname = self.soa
            times = f"{REFRESH} {RETRY} {EXPIRE} {MINIMUM}"
            soa = f"@ SOA {mname}. {rname}. {serial} {times}"
            lines += [f"$ORIGIN {self.wanted.origin}.", f"$TTL {MINIMUM}", soa, "@ NS localhost."]
        return "\n".join(lines) + "\n"


def counts_in(tail: str) -> dict[str, Any] | None:
    """The counts in the last line of an export; None if that is missing."""
    found = re.search(r"^[;#] end: (\{.*\})\n\Z", tail, re.MULTILINE)
    try:
        counts = {} if found is None else json.loads(found[1])
    except (ValueError, RecursionError):  # somebody has edited it
        return None
    match counts:
        case {"entries": int(entries), "records": int(records), "left_out": dict(left_out)} if all(
            isinstance(count, int) for count in left_out.values()
        ):
            return {"entries": entries, "records": records, "left_out": left_out}
    return None
