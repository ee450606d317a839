"""Reads configuration, orders and lists again for the Publisher, in threads, one at a time of each kind."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from dnsblock._engine import Progress
from dnsblock.access import ApiAccess, read_access
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.config_file import load_again
from dnsblock.errors import Problem, Refused
from dnsblock.lists.lists import Lists
from dnsblock.log import event
from dnsblock.orders.orders import Orders
from dnsblock.policy.snapshot import NO_FILES, Draft, missing_answers, read
from dnsblock.policy.zones import ListZone, compile_lists

LISTS_TIMEOUT = 0.25  # seconds that a reload waits for lists that are being read; its orders do not wait

# A reload applies every option but these: threads, open files, and the socket through which it comes.
FIXED = ("workers", "state", "control", "user")


@dataclass(frozen=True, slots=True)
class Present:
    """The configuration, lists and orders in force when a read begins."""

    config: Config
    lists: Lists
    list_zones: Mapping[str, ListZone]
    known: Orders
    now: datetime  # by which orders are enforced


@dataclass(frozen=True, slots=True)
class ReadLists:
    """Lists that were read while something else may have been published."""

    config: Config  # by which they were read
    lists: Lists
    zones: tuple[str, ...]  # the zones that were read
    list_zones: Mapping[str, ListZone]  # compiled

    def merged_into(self, now: Lists, config: Config) -> Lists:
        """The present lists, with these for their zones, unless a zone is configured otherwise by now."""
        read = {zone.name: zone for zone in self.config.zones if zone.name in self.zones}
        same = [zone.name for zone in config.zones if read.get(zone.name) == zone]
        return now.with_zones_of(self.lists, same)


class Inputs:
    """Reads inputs in threads, and keeps the secrets and file digests of the last read."""

    def __init__(self, started: Draft) -> None:
        self.reading, self.listing = asyncio.Lock(), asyncio.Lock()
        self.progress: Progress | None = None  # of lists, while some are read
        self.restart_needed: tuple[str, ...] = ()  # options whose new values wait for a restart
        self.files = started.files or NO_FILES
        self.references = started.references
        self.access = started.access
        self._secrets = started.secrets
        # Held by the threads that read, even after their callers have given up.
        self._reader_at_work, self._lister_at_work = threading.Lock(), threading.Lock()
        self.compiler_at_work = threading.Lock()  # the same for the compilation of the next scheduled change

    @property
    def are_being_read(self) -> bool:
        """Whether a thread still reads or compiles."""
        locks = (self._reader_at_work, self._lister_at_work, self.compiler_at_work)
        return any(lock.locked() for lock in locks)

    def adopt(self, draft: Draft) -> None:
        """Keeps the secrets and the digests of referenced files, once they are in force."""
        self._secrets = draft.secrets or self._secrets
        self.references = draft.references
        self.access = {**self.access, **draft.access}
        self.files = self.files if draft.files is None else draft.files

    @contextlib.asynccontextmanager
    async def listing_or_not(self) -> AsyncIterator[bool]:
        """The right to read lists. False if they are being read, and take longer than `LISTS_TIMEOUT`.

        An order must not wait until ten million names are compiled: they are published later.
        """
        try:
            async with asyncio.timeout(LISTS_TIMEOUT):
                await self.listing.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self.listing.release()

    def read(self, present: Callable[[], Present], reads_lists: bool) -> Draft:
        """Reads everything again, in a thread. Raises `Refused`.

        If the configuration file is refused, orders and lists are read by the settings in force.
        """
        with self._reader_at_work:
            in_force = present()
            config, known = in_force.config, in_force.known
            wanted, problems = load_again(config)
            if missing := tuple(missing_answers(wanted, known, in_force.now)):
                wanted, problems = config, (*problems, *missing)
            restart_needed = tuple(name for name in FIXED if getattr(config, name) != getattr(wanted, name))
            self.restart_needed = restart_needed
            if restart_needed:
                text = f"restart needed for new values of: {', '.join(restart_needed)}"
                event(logging.WARNING, text)
            wanted = wanted.model_copy(update={option: getattr(config, option) for option in FIXED})
            wanted, access, unusable = self._read_access(wanted, config)
            with self._with_progress() if reads_lists else contextlib.nullcontext() as progress:
                draft = read(
                    *(wanted, known, in_force.lists, in_force.now, progress),
                    reads_lists=reads_lists,
                    former_secrets=self._secrets,
                    former_files=self.files,
                    former_references=self.references,
                )
            # In this thread, so that no order waits for it.
            zones = compile_lists(draft.config, draft.lists, in_force.list_zones)
            problems = (*problems, *unusable, *draft.problems)
            draft = replace(draft.with_access(access), problems=problems)
            return replace(draft, restart_needed=restart_needed, list_zones=zones)

    def _read_access(
        self, wanted: Config, config: Config
    ) -> tuple[Config, dict[str, ApiAccess], tuple[Problem, ...]]:
        """The credentials of API and console. If some cannot be used, the previous ones stay in force."""
        access: dict[str, ApiAccess] = {}
        problems: list[Problem] = []
        for option, files in wanted.https.items():
            former = self.access.get(option)
            try:
                access[option] = read_access(files, former, of=option)
            except Refused as err:
                problems.extend(err.problems)
                wanted = wanted.model_copy(update={option: getattr(config, option)})
                if former is not None and option in config.https:
                    access[option] = former
        return wanted, access, tuple(dict.fromkeys(problems))

    def read_lists(self, present: Callable[[], Present], only: str | None) -> ReadLists:
        """Reads the lists again, or the list of one zone, in a thread. Raises `Refused`."""
        with self._lister_at_work, self._with_progress() as progress:
            in_force = present()
            config = in_force.config
            fresh = in_force.lists.read(config, utc_now(), progress, only)
            zones = tuple(fresh.zones) if only is None else (only,)
            compiled = compile_lists(config, fresh, in_force.list_zones)
            for name, zone in present().list_zones.items():
                if zone.ahead is not None and name in compiled:
                    compiled[name].compiled.find_empty()  # not under the lock of the commit
            return ReadLists(config, fresh, zones, compiled)

    @contextlib.contextmanager
    def _with_progress(self) -> Iterator[Progress]:
        """Publishes the progress of a read for `GET /v1/work`."""
        self.progress = Progress()
        try:
            yield self.progress
        finally:
            self.progress = None
