"""Reads the lists that the configuration names, and keeps what they compiled to while they do not change."""

import hashlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from dnsblock import document
from dnsblock.config import Answer, Config, StructuredErrors, Zone
from dnsblock.errors import Problem, Refused
from dnsblock.policy import PolicyZone
from dnsblock.policy.compile import compile_addresses, compile_list

MAX_LIST_BYTES = 1 << 30
SETTLED_NS = 2_000_000_000  # how old the latest write to a file must be for its version to be told


@dataclass(frozen=True, slots=True)
class _Made:
    """All that a compiled list depends on."""

    sha256: str
    kind: str
    match: str
    answer: Answer
    structured: StructuredErrors | None


@dataclass(frozen=True, slots=True)
class _Version:
    """What a file is known by without being read: whoever writes to it changes its ctime."""

    file: Path
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def _version(file: Path) -> _Version | None:
    """The file's version, or None where it cannot be told: gone, or written a moment ago.

    Within one tick of the kernel's clock a file may be written twice and look the same.
    """
    try:
        status = file.stat()
    except OSError:  # reading it says why
        return None
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED_NS:
        return None
    return _Version(
        file, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


@dataclass(slots=True)
class Lists:
    """The compiled lists of the last good reading, by zone name."""

    compiled: dict[str, PolicyZone] = field(default_factory=dict)
    _made_from: dict[str, "_Made"] = field(default_factory=dict)
    _files: dict[str, "_Version"] = field(default_factory=dict)

    def read(self, config: Config) -> "Lists":
        """The lists as they are now. Raises `Refused` with every problem of every list.

        This object is left as it was: what it holds is still enforced until the new one is published.
        """
        problems: list[Problem] = []
        fresh = Lists()
        for zone in config.zones:
            if zone.kind != "orders":
                try:
                    self._read(zone, config, fresh)
                except Refused as err:
                    problems.extend(err.problems)
        if problems:
            raise Refused(problems)
        return fresh

    def _read(self, zone: Zone, config: Config, fresh: "Lists") -> None:
        file = zone.list_file or zone.addresses
        assert file is not None  # noqa: S101  # a zone of this kind has one of them
        # Looked at before it is read: what is written meanwhile makes it another version the next time.
        version, data = _version(file), None
        if version is not None and self._files.get(zone.name) == version:
            # An order must not wait until ten million names are read again.
            sha256 = self._made_from[zone.name].sha256
        else:
            data = document.read_bytes(file, max_bytes=MAX_LIST_BYTES)
            sha256 = hashlib.sha256(data).hexdigest()
        if version is not None:
            fresh._files[zone.name] = version
        answer, structured = config.answer(zone.answer), config.signals.structured_errors
        made_from = _Made(sha256, zone.kind, zone.match, answer, structured)
        fresh._made_from[zone.name] = made_from
        if self._made_from.get(zone.name) == made_from:
            fresh.compiled[zone.name] = self.compiled[zone.name]
        else:
            if data is None:
                data = document.read_bytes(file, max_bytes=MAX_LIST_BYTES)
                fresh._made_from[zone.name] = replace(made_from, sha256=hashlib.sha256(data).hexdigest())
            compile_zone = compile_list if zone.kind == "list" else compile_addresses
            fresh.compiled[zone.name] = compile_zone(zone, config, str(file), data)
