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

from dnsblock import __version__
from dnsblock._engine import PlacedZone, Snapshot
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


@dataclass(frozen=True, slots=True)
class Export:
    """Policy zones that are written as one file."""

    wanted: Wanted
    zones: tuple[str, ...]  # in configured order
    placed: tuple[PlacedZone, ...]  # the same, as they are enforced
    soa: tuple[str, str]  # MNAME and RNAME
    serial: int  # of the snapshot in force

    @classmethod
    def of(cls, wanted: Wanted, config: Config, placed: Sequence[PlacedZone], serial: int) -> "Export":
        """`placed`: all zones, in configured order. Raises `Refused` if they cannot be exported as wanted."""
        if problems := list(wanted.problems(config)):
            raise Refused(problems)
        chosen = [
            (zone.name, one)
            for zone, one in zip(config.zones, placed, strict=True)
            if (zone.name in wanted.zones or not wanted.zones) and not zone.is_shadow
        ]
        zones, own = tuple(name for name, _ in chosen), tuple(one for _, one in chosen)
        return cls(wanted, zones, own, (config.soa.mname, config.soa.rname), serial)

    @property
    def digest(self) -> str:
        """The digest of everything that determines the content, apart from the serial."""
        facts = [
            self.wanted.format,
            self.wanted.origin,
            self.zones,
            self.soa,
            Snapshot.digest_of(self.placed),
            __version__,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def write(self, descriptor: int, serial: int | None = None) -> Written:
        """Writes to a file or a pipe. Raises `OSError`. Millions of names take seconds."""
        number = self.serial if serial is None else serial
        snapshot, origin = Snapshot(self.placed, number), self.wanted.origin or NO_ORIGIN
        return Written(number, *snapshot.export(descriptor, self.wanted.format, self._head(number), origin))

    def serial_after(self, path: Path) -> int | None:
        """The serial for a file that replaces this one; None if that has the same content and is complete.

        It is that of the snapshot, or higher: secondaries of the zone transfer it only if it has grown.
        """
        head, tail = _ends(path)
        found = re.search(r"^[;#] serial ([0-9]{1,10}), content ([0-9a-f]{64})$", head, re.MULTILINE)
        if found is None:
            return self.serial
        if found[2] == self.digest and re.search(r"^[;#] end: \{.*\}\n\Z", tail, re.MULTILINE):
            return None
        return max(self.serial, min(int(found[1]) + 1, MAX_SERIAL))

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


def _ends(path: Path) -> tuple[str, str]:
    """The first and the last bytes of a file; nothing if it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return head.decode("utf-8", "replace"), file.read().decode("utf-8", "replace")
    except OSError:
        return "", ""
