"""Reads the lists that the configuration names, and keeps what they compiled to while they do not change."""

import hashlib
from dataclasses import dataclass, field

from dnsblock import document
from dnsblock.config import Answer, Config, Zone
from dnsblock.errors import Problem, Refused
from dnsblock.policy import PolicyZone
from dnsblock.policy.compile import compile_list

MAX_LIST_BYTES = 1 << 30


@dataclass(slots=True)
class Lists:
    """The compiled lists of the last good reading, by zone name."""

    compiled: dict[str, PolicyZone] = field(default_factory=dict)
    _made_from: dict[str, tuple[str, str, Answer]] = field(default_factory=dict)

    def read(self, config: Config) -> "Lists":
        """The lists as they are now. Raises `Refused` with every problem of every list.

        This object is left as it was: what it holds is still enforced until the new one is published.
        """
        problems: list[Problem] = []
        fresh = Lists()
        for zone in config.zones:
            if zone.kind == "list":
                try:
                    self._read(zone, config, fresh)
                except Refused as err:
                    problems.extend(err.problems)
        if problems:
            raise Refused(problems)
        return fresh

    def _read(self, zone: Zone, config: Config, fresh: "Lists") -> None:
        file = str(zone.list_file)
        assert zone.list_file is not None  # noqa: S101  # a zone of kind list has one
        data = document.read_bytes(zone.list_file, max_bytes=MAX_LIST_BYTES)
        made_from = (hashlib.sha256(data).hexdigest(), zone.match, config.answer(zone.answer))
        fresh._made_from[zone.name] = made_from
        if self._made_from.get(zone.name) == made_from:
            fresh.compiled[zone.name] = self.compiled[zone.name]
        else:
            fresh.compiled[zone.name] = compile_list(zone, config, file, data)
