"""Reads the lists that the configuration names, and keeps what they compiled to while they do not change."""

import hashlib
from dataclasses import dataclass, field

from dnsblock import document
from dnsblock.config import Answer, Config, StructuredErrors, Zone
from dnsblock.errors import Problem, Refused
from dnsblock.policy import PolicyZone
from dnsblock.policy.compile import compile_addresses, compile_list

MAX_LIST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Made:
    """All that a compiled list depends on."""

    sha256: str
    kind: str
    match: str
    answer: Answer
    structured: StructuredErrors | None


@dataclass(slots=True)
class Lists:
    """The compiled lists of the last good reading, by zone name."""

    compiled: dict[str, PolicyZone] = field(default_factory=dict)
    _made_from: dict[str, "_Made"] = field(default_factory=dict)

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
        data = document.read_bytes(file, max_bytes=MAX_LIST_BYTES)
        sha256 = hashlib.sha256(data).hexdigest()
        answer, structured = config.answer(zone.answer), config.signals.structured_errors
        made_from = _Made(sha256, zone.kind, zone.match, answer, structured)
        fresh._made_from[zone.name] = made_from
        if self._made_from.get(zone.name) == made_from:
            fresh.compiled[zone.name] = self.compiled[zone.name]
        else:
            compile_zone = compile_list if zone.kind == "list" else compile_addresses
            fresh.compiled[zone.name] = compile_zone(zone, config, str(file), data)
