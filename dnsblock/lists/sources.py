"""The sources of lists: a file, a folder of files, a feed, or the primaries of a zone.

Everything that depends on the kind is here.

The source of a zone is made when it is needed: an operator may replace a file by a folder at any time.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from dnsblock._engine import ListUnreadable, zone_files
from dnsblock.config_zones import Zone
from dnsblock.errors import FetchFailed, Problem, Refused
from dnsblock.lists.feed.contact import last_contact
from dnsblock.lists.feed.schedule import FetchSchedule, PollSchedule, Schedule
from dnsblock.lists.files import ListFiles, Watch, file_at, files_in, readable
from dnsblock.lists.store import Store
from dnsblock.lists.transfer.schedule import TransferSchedule
from dnsblock.lists.transfer.state import USUAL, Copies, FetchRequest, TransferState
from dnsblock.log import fault

Progress = Callable[[int, int | None], None]  # bytes received, and bytes announced
FetchResult = Literal["ok", "not_modified", "axfr", "ixfr"]  # the last two: by zone transfer


class Source(Protocol):
    """Where the list of a zone comes from."""

    @property
    def label(self) -> str:
        """The place of the list in messages, without secrets."""

    @property
    def is_unfetched(self) -> bool:
        """Whether there is no content yet because it was never fetched, which is not an error."""

    def files(self) -> ListFiles:
        """The current files. Raises `Refused` if they cannot be read or are too large."""

    def is_complete(self, files: ListFiles, watch: Watch) -> bool:
        """Whether the files are not still being written."""

    async def fetch(
        self, progress: Progress | None = None, request: FetchRequest = USUAL
    ) -> FetchResult | None:
        """Updates the files from a server; None if there is none. Raises only `FetchFailed`."""

    def schedule(self) -> Schedule:
        """When to look for new content."""

    def contact(self) -> datetime | None:
        """The last successful fetch, as it is stored; None if there was none."""

    def transfer(self) -> TransferState | None:
        """The last contact to a primary; None if there was none, or no zone transfer."""


def source_of(zone: Zone, store: Store) -> Source:
    """The source of the list of a zone."""
    if zone.is_transferred:
        return TransferSource(zone, store)
    if not isinstance(zone.place, Path):
        return FeedSource(zone, store)
    if zone.kind == "rpz":
        return ZoneFileSource(zone, zone.place)
    return FolderSource(zone, zone.place) if os.path.isdir(zone.place) else FileSource(zone, zone.place)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file, which is polled."""

    zone: Zone
    path: Path

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def is_unfetched(self) -> bool:
        return False

    def files(self) -> ListFiles:
        with readable():
            return _limited(self.zone, self.label, ListFiles.of([file_at(self.path)]))

    def is_complete(self, files: ListFiles, watch: Watch) -> bool:
        return watch.is_settled(files)

    async def fetch(self, _: Progress | None = None, request: FetchRequest = USUAL) -> FetchResult | None:
        return None

    def schedule(self) -> Schedule:
        return PollSchedule(self.zone.every_seconds)

    def contact(self) -> datetime | None:
        return None

    def transfer(self) -> TransferState | None:
        return None


@dataclass(frozen=True, slots=True)
class FolderSource(FileSource):
    """A folder, whose files are one list. It is polled, too."""

    def files(self) -> ListFiles:
        with readable():
            return _limited(self.zone, self.label, ListFiles.of(*files_in(self.path)))


@dataclass(frozen=True, slots=True)
class ZoneFileSource(FileSource):
    """A zone file, and the files of its folder that it includes."""

    def files(self) -> ListFiles:
        with readable():
            main = file_at(self.path)
            known = _included.get(self.path)
            if known is None or known[0] != _fingerprint([main, *map(_stat, known[1])]):
                known = self._look()
            found = [main, *map(file_at, known[1])]
            return _limited(self.zone, self.label, ListFiles.of(found))

    def _look(self) -> "_Included":
        try:
            _, *paths = map(Path, zone_files(str(self.path), self.zone.max_bytes))
        except ListUnreadable as err:
            label, _, reason = err.args
            raise Refused([Problem(label, None, "", reason)]) from err
        included = (_fingerprint(map(_stat, [self.path, *paths])), paths)
        _included[self.path] = included
        return included


_Included = tuple[list[tuple[str, int, int, int]], list[Path]]
# The files that zone files include, and the state of all of these then: to find them, a whole zone is read.
_included: dict[Path, _Included] = {}


def _stat(path: Path) -> tuple[Path, os.stat_result]:
    return path, path.stat()


def _fingerprint(found: Iterable[tuple[Path, os.stat_result]]) -> list[tuple[str, int, int, int]]:
    return [(str(path), s.st_ino, s.st_size, max(s.st_mtime_ns, s.st_ctime_ns)) for path, s in found]


@dataclass(frozen=True, slots=True)
class FeedSource:
    """A list that is fetched from an HTTPS server. Its download is renamed into place when it is complete."""

    zone: Zone
    store: Store

    @property
    def label(self) -> str:
        return str(self.zone.place).partition("?")[0]

    @property
    def is_unfetched(self) -> bool:
        return not self.store.download(self.zone.name).exists()

    def files(self) -> ListFiles:
        with readable(self.label):  # the path of a download is of no use to the operator
            found = [file_at(self.store.download(self.zone.name))]
        return _limited(self.zone, self.label, ListFiles.of(found, label=self.label, is_replaced=True))

    def is_complete(self, files: ListFiles, watch: Watch) -> bool:
        return True

    async def fetch(
        self, progress: Progress | None = None, request: FetchRequest = USUAL
    ) -> FetchResult | None:
        # Imported here: without feeds, startup does not need httpx, which takes a sixth of its time.
        from dnsblock.lists.feed import fetching

        fetched = await fetching.download(self.zone, self.store, progress, whole=request.whole)
        return "not_modified" if fetched is None else "ok"

    def schedule(self) -> Schedule:
        return FetchSchedule(self.zone.every_seconds)

    def contact(self) -> datetime | None:
        return last_contact(self.store.download(self.zone.name))

    def transfer(self) -> TransferState | None:
        return None


@dataclass(frozen=True, slots=True)
class TransferSource:
    """A policy zone that is received by zone transfer. A complete copy replaces the one before."""

    zone: Zone
    store: Store

    @property
    def label(self) -> str:
        return f"{self.zone.name} from {self.zone.place}"

    @property
    def copies(self) -> Copies:
        """The files of the zone."""
        return Copies(self.store.copy(self.zone.name), self.store.transfer_state(self.zone.name))

    @property
    def is_unfetched(self) -> bool:
        return not self.copies.copy.exists()

    def files(self) -> ListFiles:
        with readable(self.label):  # the path of a copy is of no use to the operator
            found = [file_at(self.copies.copy)]
        return _limited(self.zone, self.label, ListFiles.of(found, label=self.label, is_replaced=True))

    def is_complete(self, files: ListFiles, watch: Watch) -> bool:
        return True

    async def fetch(
        self, progress: Progress | None = None, request: FetchRequest = USUAL
    ) -> FetchResult | None:
        # Imported here: without zone transfers, startup does not need TLS.
        from dnsblock.lists.transfer.receive import receive

        try:
            kind = await receive(self.zone, self.copies, progress, request)
            return kind or "not_modified"
        except FetchFailed:
            raise
        except Exception as err:  # one zone must not stop DNS, orders or other lists
            fault(f"internal error while receiving zone {self.zone.name}", zone=self.zone.name)
            reason = f"internal error ({type(err).__name__}: {err}): it is tried again; please report it"
            raise FetchFailed(self.label, "INTERNAL", reason) from err

    def schedule(self) -> Schedule:
        return TransferSchedule(self.transfer)

    def contact(self) -> datetime | None:
        return None if (last := self.transfer()) is None else last.checked_at

    def transfer(self) -> TransferState | None:
        return TransferState.load(self.copies.state)


def _limited(zone: Zone, label: str, files: ListFiles) -> ListFiles:
    limit = zone.max_bytes
    if files.size > limit:
        option = "rpz.max_mb" if zone.is_transferred else "source.max_mb"
        reason = f"larger than {limit:,} bytes: check that it is the list; `{option}` is the limit"
        raise Refused([Problem(label, None, f"{files.size:,} bytes", reason)])
    return files
