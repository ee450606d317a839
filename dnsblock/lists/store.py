"""The folder of lists: compiled versions, their content, downloads, and the history.

Everything except the history can be rebuilt. Files are written under another name, synced, then renamed, so
that a file is either complete or absent.
"""

import gzip
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from dnsblock import document
from dnsblock._engine import Names, NamesUnusable
from dnsblock.durable import sync_folder
from dnsblock.errors import HistoryUnwritable, Problem, Refused
from dnsblock.lists.history.database import FILE, HistoryCorrupt, corrupt, files_aside, set_aside
from dnsblock.lists.history.facts import Current, Version
from dnsblock.lists.history.history import History
from dnsblock.log import event

T = TypeVar("T")


class Store:
    """The lists of a state folder. With `read_only`, nothing is created or changed."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Raises `Refused` if the folder or the history cannot be used."""
        self.folder = folder
        self.read_only = read_only
        self.compiled = folder / "lists"
        self.feeds = folder / "feeds"
        self._contents = folder / "texts"
        if not read_only:
            try:
                for made in (folder, self.compiled, self.feeds, self._contents):
                    made.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as err:
                reason = (
                    f"{err.strerror}: run as the user that owns the folder `state`, or grant access to it"
                )
                raise Refused([Problem(str(err.filename or folder), None, "", reason)]) from err
        self._lock = threading.Lock()
        self._replaced = 0  # how many histories were replaced
        self._enforced: dict[str, Current] = {}
        self.corrupt: HistoryCorrupt | None = None  # why a read-only history counts as empty
        try:
            self._ensure_whole()
            self._history = History.open(folder, read_only=read_only)
        except HistoryCorrupt as err:
            if read_only:
                self.corrupt = err
                self._history = History.empty(folder)
            else:
                self._history = self._start_new(err)

    def _ensure_whole(self) -> None:
        """Raises `HistoryCorrupt` if the file is empty beside compiled lists: it was truncated."""
        path = self.folder / FILE
        with suppress(OSError):
            if path.stat().st_size == 0 and any(self.compiled.glob("*.names")):
                raise corrupt(path, "an empty file")

    # ------- The history -------

    @contextmanager
    def history(self) -> Iterator[History]:
        """The history, for one thread at a time.

        A corrupt history is set aside, and a new one starts with the enforced versions. `HistoryCorrupt` is
        raised anyway; the caller may retry.
        """
        with self._lock:
            try:
                yield self._history
            except HistoryCorrupt as err:
                self._renew(err)
                raise
            except (Refused, HistoryUnwritable, OSError):
                raise
            except Exception as err:
                # A corrupt page may cause any error.
                try:
                    self._history.verify(err)
                except HistoryCorrupt as corrupt:
                    self._renew(corrupt)
                    raise
                raise

    @contextmanager
    def looking_back(self) -> Iterator[History]:
        """A separate read-only history, for queries while the daemon works. Raises `Refused`."""
        replaced = self._replaced
        try:
            with History.open(self.folder, read_only=True, must_exist=True) as history:
                yield history
        except HistoryCorrupt as err:
            with self._lock:
                if replaced == self._replaced:  # otherwise another thread has replaced it already
                    self._renew(err)
            raise

    def record(self, work: Callable[[History], T]) -> T:
        """Runs `work` with the history. If it is corrupt, runs it again with a new one."""
        try:
            with self.history() as history:
                return work(history)
        except HistoryCorrupt:
            with self.history() as history:
                return work(history)

    def enforce(self, current: Current) -> None:
        """Remembers the enforced version of a list, so that a new history can start with it."""
        self._enforced[current.version.zone] = current

    @property
    def histories_aside(self) -> list[Path]:
        """Corrupt histories that were set aside and are still there."""
        return files_aside(self.folder)

    def _renew(self, err: HistoryCorrupt) -> None:
        if self.read_only:
            return
        self._history.close()
        self._history = self._start_new(err)
        self._history.start_with(self._enforced.values())

    def _start_new(self, err: HistoryCorrupt) -> History:
        try:
            path = set_aside(self.folder)
        except OSError as failed:
            raise err from failed
        self._replaced += 1
        text = f"the history of lists cannot be used, and is set aside as {path}: {err.problems[0].value}"
        consequence = "earlier lists are unknown, and guards have nothing to compare with"
        event(logging.ERROR, f"{text}. A new history starts: {consequence}")
        return History.open(self.folder)

    def close(self) -> None:
        with self._lock:
            self._history.close()

    def download(self, zone: str) -> Path:
        """The path of a feed's download."""
        return self.feeds / f"{zone}.txt"

    def copy(self, zone: str) -> Path:
        """The path of the copy of a zone that is received by zone transfer."""
        return self.feeds / f"{zone}.zone"

    def transfer_state(self, zone: str) -> Path:
        """The path of the facts about its last transfer."""
        return self.feeds / f"{zone}.transfer.json"

    # ------- Compiled versions -------

    def names(self, version: Version) -> Names | None:
        """Opens the names of a version. None, which is logged, if its file is missing, corrupt or foreign."""
        path = self.compiled / f"{version.compiled.file_sha256}.names"
        try:
            return Names.open(str(path), version.compiled.file_sha256)
        except (OSError, NamesUnusable) as err:
            reason = (err.strerror if isinstance(err, OSError) else None) or str(err)  # the engine's has none
            event(logging.ERROR, f"the compiled list {path} cannot be used: {reason}", zone=version.zone)
            return None

    def sweep(self) -> None:
        """Removes compiled files that no version uses: unfinished ones, and those of rejected lists."""
        wanted = {f"{sha256}.names" for sha256 in self.record(History.files)}
        for path in self.compiled.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def sweep_partial(self) -> None:
        """Removes unfinished downloads and content of an earlier process."""
        for path in self.feeds.glob("*.part"):
            path.unlink(missing_ok=True)
        for folder in (*self._contents.glob("*.new"), *self._contents.glob("*.again")):
            shutil.rmtree(folder, ignore_errors=True)

    def prune(self, zones: Sequence[str], generations: int) -> None:
        """Removes compiled files beyond the newest generations of these zones."""
        gone = self.record(
            lambda history: [one for zone in zones for one in history.prune(zone, generations)]
        )
        for sha256 in gone:
            (self.compiled / f"{sha256}.names").unlink(missing_ok=True)

    # ------- Content -------

    def store_content(self, zone: str, source_sha256: str, files: Sequence[tuple[str, str]]) -> bool:
        """Stores the content of a list, compressed, so that it can be compiled again without its files.

        Returns False and stores nothing if the content has changed since. Raises `OSError`.
        """
        stored = self._content(zone, source_sha256)
        partial = self._contents / f"{zone}.new"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(mode=0o700)
            read = [
                (label, 0, _compress(path, partial / f"{place:06}.gz"), True)
                for place, (label, path) in enumerate(files)
            ]
            if digest_of(read) != source_sha256:
                return False
            sync_folder(partial)
            shutil.rmtree(stored, ignore_errors=True)
            partial.rename(stored)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(self._contents)
        return True

    def has_content(self, version: Version) -> bool:
        """Whether the content of a version is stored."""
        return self._content(version.zone, version.compiled.source_sha256).exists()

    @contextmanager
    def content(self, version: Version) -> Iterator[list[tuple[str, str]]]:
        """The stored files of a version, as (label, path); empty if it is not stored. Raises `OSError`."""
        folder = self._content(version.zone, version.compiled.source_sha256)
        again = self._contents / f"{version.zone}.again"
        shutil.rmtree(again, ignore_errors=True)
        try:
            again.mkdir(mode=0o700)
            files: list[tuple[str, str]] = []
            for path in sorted(folder.iterdir()) if folder.exists() else ():
                with gzip.open(path, "rb") as read, (again / path.stem).open("wb") as written:
                    shutil.copyfileobj(read, written, 1 << 20)
                files.append((path.stem, str(again / path.stem)))
            yield files
        finally:
            shutil.rmtree(again, ignore_errors=True)

    def drop_content(self, zone: str, keep: Collection[str]) -> None:
        """Removes the stored content of a zone, except that with these SHA-256."""
        wanted = {self._content(zone, sha256) for sha256 in keep}
        for folder in self._contents.glob(f"{zone}@*"):
            if folder not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _content(self, zone: str, source_sha256: str) -> Path:
        return self._contents / f"{zone}@{source_sha256}"


def digest_of(sources: Sequence[tuple[str, int, str, bool]]) -> str:
    """The SHA-256 that identifies list content: of the file, or over the digests of several files."""
    if len(sources) == 1:
        return sources[0][2]
    return hashlib.sha256("\n".join(sha256 for _, _, sha256, _ in sources).encode()).hexdigest()


def _compress(source: str, target: Path) -> str:
    """Writes a compressed copy and syncs it to disk; returns the SHA-256 of the input."""
    digest = hashlib.sha256()
    with document.open_regular(source) as read, target.open("wb") as written:
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=written, mtime=0) as smaller:
            while part := read.read(1 << 20):
                digest.update(part)
                smaller.write(part)
        written.flush()
        os.fsync(written.fileno())
    return digest.hexdigest()
