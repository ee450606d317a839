"""Reads all lists of the configuration.

A rejected list changes nothing: its last accepted version stays in force. Other lists are not affected.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dnsblock._engine import Progress
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import Problem, Refused, printable
from dnsblock.lists.compile import Options
from dnsblock.lists.expiry import expires_at, remark
from dnsblock.lists.files import MAX_SKIPPED_SHOWN, Watch
from dnsblock.lists.guards import NOT_FETCHED, UNREADABLE
from dnsblock.lists.history.database import HistoryCorrupt
from dnsblock.lists.history.facts import Version
from dnsblock.lists.reader import ListVersion, Reader, Rejection, is_of_kind
from dnsblock.lists.sources import source_of
from dnsblock.lists.store import Store
from dnsblock.log import event

NONE = ""  # not the name of any zone


@dataclass(slots=True)
class Lists:
    """The lists of the last successful read, by zone name."""

    store: Store
    zones: set[str] = field(default_factory=set)  # the zones that were read or carried over
    listed: dict[str, ListVersion] = field(default_factory=dict)
    missing: dict[str, Rejection] = field(default_factory=dict)  # zones without an enforced list, and why
    expired: dict[str, str] = field(default_factory=dict)  # zones without contact to a server for too long
    is_first: bool = True  # startup: nothing is enforced yet, and required lists must be available

    def read(
        self, config: Config, now: datetime, progress: Progress | None = None, only: str | None = None
    ) -> "Lists":
        """Reads the lists. Raises `Refused` with every problem of lists that have no accepted version.

        With `only`, one zone's list is read and the others are carried over. This object is not changed: its
        lists are enforced until the new ones are published.
        """
        problems: list[Problem] = []
        fresh = Lists(self.store, is_first=False)
        for zone in _zones_with_lists(config):
            try:
                if only not in (None, zone.name) and self._can_carry_over(zone, config):
                    self._carry_over(zone.name, fresh)
                else:
                    self._read(Reader(zone, config, self.store, now, progress or Progress()), fresh)
            except Refused as err:
                problems.extend(err.problems)
            if (text := self._expired(zone, now)) is not None:
                fresh.expired[zone.name] = text
        if problems:
            raise Refused(problems)
        return fresh

    def last_enforced(self, config: Config, now: datetime) -> "Lists":
        """Returns the lists that the previous process enforced last, whatever their files contain now.

        Only lists without a stored version are read. Raises `Refused`.
        """
        last = Lists(self.store)
        for zone in _zones_with_lists(config):
            enforced = Reader(zone, config, self.store, now, Progress()).last_enforced()
            if enforced is not None:
                last._take(zone, enforced)
        return last.read(config, now, only=NONE)

    def _expired(self, zone: Zone, now: datetime) -> str | None:
        """The remark on a zone whose content is too old. None: it is not."""
        source = source_of(zone, self.store)
        contact = source.contact()
        until = expires_at(zone, contact, source.transfer())
        return None if contact is None or until is None or until > now else remark(zone, contact)

    def _can_carry_over(self, zone: Zone, config: Config) -> bool:
        """Whether a zone can be carried over without being read."""
        if (listed := self.listed.get(zone.name)) is not None:
            version = listed.version
            return version is not None and version.compiled.options == Options.of(zone, config).text
        return zone.name in self.zones

    def _carry_over(self, zone: str, fresh: "Lists") -> None:
        fresh.zones.add(zone)
        if zone in self.expired:
            fresh.expired[zone] = self.expired[zone]
        if zone in self.listed:
            fresh.listed[zone] = self.listed[zone]
        if zone in self.missing:
            fresh.missing[zone] = self.missing[zone]

    def with_zones_of(self, read: "Lists", zones: Sequence[str]) -> "Lists":
        """These lists, with some zones replaced by those of another read."""
        fresh = Lists(self.store, is_first=False)
        for zone in self.zones.union(zones):
            (read if zone in zones else self)._carry_over(zone, fresh)
        return fresh

    def instead_of(self, config: Config) -> "Lists":
        """The lists to enforce if those that were read cannot be recorded: these, without the new zones."""
        fresh = Lists(self.store, is_first=False)
        for zone in _zones_with_lists(config):
            fresh.zones.add(zone.name)
            if zone.name in self.zones:
                self._carry_over(zone.name, fresh)
        return fresh

    def with_others(self, config: Config, others: Mapping[str, ListVersion]) -> "Lists":
        """These lists with some replaced, for a rollback."""
        fresh = Lists(self.store, is_first=False)
        for zone in config.zones:
            if zone.name in self.zones:
                self._carry_over(zone.name, fresh)
        for zone in config.zones:
            if zone.name in others:
                fresh._take(zone, others[zone.name])
        return fresh

    @property
    def new(self) -> list[ListVersion]:
        """The new versions, to be accepted."""
        return [listed for listed in self.listed.values() if listed.new is not None]

    @property
    def rejections(self) -> dict[str, Rejection]:
        """The rejections, by zone."""
        rejected = ((zone, listed.rejection) for zone, listed in self.listed.items())
        return self.missing | {zone: one for zone, one in rejected if one is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the operator. None of them is an error."""
        unfetched = ((zone, one) for zone, one in self.missing.items() if one.is_unfetched)
        missing = tuple(
            f"list {zone} is not enforced yet: {problem}"
            for zone, one in unfetched
            for problem in one.problems
        )
        expired = tuple(f"list {zone} has expired: {text}" for zone, text in self.expired.items())
        return (
            missing
            + expired
            + tuple(note for zone, listed in self.listed.items() for note in _skipped(zone, listed))
        )

    @property
    def versions(self) -> dict[str, int]:
        """The version numbers, by zone."""
        known = ((zone, listed.version) for zone, listed in self.listed.items())
        return {zone: version.number for zone, version in known if version is not None}

    def is_changed(self, zone: Zone, watch: Watch) -> bool:
        """Whether the files of a list changed since the last read, or could not be read then.

        A file that is still being written does not count yet. A download is renamed into place when complete.
        """
        listed, rejection = self.listed.get(zone.name), self.rejections.get(zone.name)
        source = source_of(zone, self.store)
        if (self._expired(zone, utc_now()) is None) == (zone.name in self.expired):
            return True
        try:
            files = source.files()
        except Refused:
            return rejection is None or rejection.findings[0].code not in (UNREADABLE, NOT_FETCHED)
        # The cause of a failed compilation may be gone: a full disk, a wrong permission.
        is_judged = rejection is None or bool(rejection.source_sha256)
        last = rejection or listed
        is_same = files.fingerprint == (last.fingerprint if last else "")
        return source.is_complete(files, watch) and not (is_judged and is_same)

    def accepted(self, versions: tuple[Version, ...]) -> None:
        """Stores the versions that the history has given to the new lists."""
        for version in versions:
            new = self.listed[version.zone]
            self.listed[version.zone] = replace(new, version=version, new=None)

    # ------- One list -------

    def _read(self, reader: Reader, fresh: "Lists", *, is_second: bool = False) -> None:
        zone = reader.zone
        enforced = self.listed.get(zone.name)
        if enforced is not None and enforced.version is not None and not is_of_kind(zone, enforced.version):
            enforced = None  # a zone of another kind had this name before
        is_optional = zone.source.may_be_missing or zone.name in self.missing or not self.is_first
        reader = replace(reader, is_optional=is_optional)
        corrupt = enforced if enforced is not None and enforced.names.is_corrupt else None
        try:
            enforced = reader.last_enforced() if enforced is None or corrupt is not None else enforced
            if enforced is None:
                with self.store.history() as history:
                    current = history.current(zone.name)
                lost = None if current is None else current.version
                if lost is not None and is_of_kind(zone, lost):
                    reader = replace(reader, lost=lost)
            read = reader.read(enforced)
            if enforced is not None and isinstance(read, Rejection):
                enforced = reader.with_current_protection(enforced)
        except Exception as err:  # one list must not stop orders, other lists or startup
            if isinstance(err, HistoryCorrupt) and not is_second:
                self._read(reader, fresh, is_second=True)  # the store has started a new history
                return
            read = reader.failed(err)
        enforced = enforced or corrupt  # a corrupt list still has some of its names
        if isinstance(read, ListVersion):
            fresh._take(zone, read)
        elif enforced is not None:
            fresh._take(zone, replace(enforced, rejection=read))
        elif is_optional or read.is_unfetched:
            # At startup a list is required unless `missing` says otherwise. During a reload, a broken
            # list that is new in the configuration must not delay orders.
            if not read.is_unfetched:
                why = "; ".join(str(problem) for problem in read.problems)
                text = f"list {zone.name} is missing, so none of it is enforced: {why}"
                event(logging.ERROR, text, zone=zone.name)
            fresh.missing[zone.name] = read
            fresh.zones.add(zone.name)
        else:
            raise Refused(read.problems)

    def _take(self, zone: Zone, listed: ListVersion) -> None:
        self.zones.add(zone.name)
        self.listed[zone.name] = listed


def _zones_with_lists(config: Config) -> list[Zone]:
    return [zone for zone in config.zones if zone.kind != "orders"]


def _skipped(zone: str, listed: ListVersion) -> Iterator[str]:
    """The unexpected entries of a list's folder: skipped, but neither hidden nor unfinished files."""
    unexpected = [one for one in listed.skipped if not one.is_expected]
    for one in unexpected[:MAX_SKIPPED_SHOWN]:
        yield f"list {zone} does not read {printable(one.name)}: {one.reason}"
    if len(unexpected) > MAX_SKIPPED_SHOWN:
        yield f"list {zone} does not read {len(unexpected) - MAX_SKIPPED_SHOWN:,} more"
