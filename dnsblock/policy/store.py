"""The folder of lists: compiled versions, their texts, downloads, and the history of all.

All of it can be made again but the history. Files are whole or not there: written beside, synced, renamed.
"""

import errno
import gzip
import logging
import os
import shutil
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dnsblock._engine import Names, NamesUnusable
from dnsblock.errors import Problem, Refused
from dnsblock.log import event
from dnsblock.policy.history import History
from dnsblock.policy.history_facts import Version


class Store:
    """The lists of a state folder. With `read_only` nothing is made, and nothing changed."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Raises `Refused` for a folder or a history that cannot be used."""
        self.folder = folder
        self.read_only = read_only
        self.compiled = folder / "lists"
        self.feeds = folder / "feeds"
        self._texts = folder / "texts"
        if not read_only:
            try:
                for made in (folder, self.compiled, self.feeds, self._texts):
                    made.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as err:
                reason = f"{err.strerror}: run as the user that owns the folder `state`, or give it the right"
                raise Refused([Problem(str(err.filename or folder), None, "", reason)]) from err
        self._history = History.open(folder, read_only=read_only)
        self._lock = threading.Lock()

    @contextmanager
    def history(self) -> Iterator[History]:
        """The history, for one thread at a time."""
        with self._lock:
            yield self._history

    def close(self) -> None:
        with self._lock:
            self._history.close()

    def download(self, zone: str) -> Path:
        """Where the text of a feed is put."""
        return self.feeds / f"{zone}.txt"

    # ------- Compiled versions -------

    def names(self, version: Version) -> Names | None:
        """The names of a version; None where its file is gone, corrupt or foreign, which is logged."""
        path = self.compiled / f"{version.compiled.file_sha256}.names"
        try:
            return Names.open(str(path), version.compiled.file_sha256)
        except (OSError, NamesUnusable) as err:
            reason = err.strerror if isinstance(err, OSError) else str(err)
            event(logging.ERROR, f"the compiled list {path} cannot be used: {reason}", zone=version.zone)
            return None

    def sweep(self) -> None:
        """Removes compiled files that no version keeps: half-made ones, and those of refused texts."""
        with self.history() as history:
            wanted = {f"{sha256}.names" for sha256 in history.files()}
        for path in self.compiled.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def sweep_halves(self) -> None:
        """Removes what a process that died has left of downloads and texts."""
        for path in self.feeds.glob("*.part"):
            path.unlink(missing_ok=True)
        for folder in (*self._texts.glob("*.new"), *self._texts.glob("*.again")):
            shutil.rmtree(folder, ignore_errors=True)

    def prune(self, zones: Sequence[str], generations: int) -> None:
        """Removes compiled files beyond the newest generations of these zones."""
        with self.history() as history:
            gone = [sha256 for zone in zones for sha256 in history.prune(zone, generations)]
        for sha256 in gone:
            (self.compiled / f"{sha256}.names").unlink(missing_ok=True)

    # ------- Texts -------

    def take_text(self, zone: str, files: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Copies a text that is to be compiled, so that what is compiled is what is kept, whoever writes to
        its files meanwhile. Returns the copies, as (label, path). Raises `OSError`.
        """
        taken = self._texts / f"{zone}.new"
        shutil.rmtree(taken, ignore_errors=True)
        taken.mkdir(mode=0o700)
        copies = [(label, path, taken / f"{place:06}") for place, (label, path) in enumerate(files)]
        for _, path, copy in copies:
            if Path(path).parent == self.feeds:
                os.link(path, copy)  # a download is never written to again, only replaced
            else:
                _copy(Path(path), copy)
        return tuple((label, str(copy)) for label, _, copy in copies)

    def adopt_text(self, zone: str, source_sha256: str) -> None:
        """Keeps the text that was taken last: it is that of a version. Raises `OSError`."""
        kept = self._text(zone, source_sha256)
        shutil.rmtree(kept, ignore_errors=True)
        (self._texts / f"{zone}.new").rename(kept)

    def drop_taken_text(self, zone: str) -> None:
        """Removes the text that was taken last, where it was not adopted."""
        shutil.rmtree(self._texts / f"{zone}.new", ignore_errors=True)

    def compress_text(self, zone: str, source_sha256: str) -> None:
        """Makes a kept text smaller, and sees to it that it is on the disk. Raises `OSError`."""
        folder = self._text(zone, source_sha256)
        raw = sorted(folder.glob("*[0-9]"))
        for path in raw:
            half = path.with_suffix(".tmp")
            with path.open("rb") as read, half.open("wb") as written:
                with gzip.GzipFile("", "wb", compresslevel=1, fileobj=written, mtime=0) as smaller:
                    shutil.copyfileobj(read, smaller, 1 << 20)
                written.flush()
                os.fsync(written.fileno())
            half.rename(path.with_suffix(".gz"))
            path.unlink()
        if raw:
            _sync(folder)

    @contextmanager
    def text(self, version: Version) -> Iterator[list[tuple[str, str]]]:
        """The files of a version's text, as (label, path); none where it was not kept. Raises `OSError`."""
        folder = self._text(version.zone, version.compiled.source_sha256)
        again = self._texts / f"{version.zone}.again"
        shutil.rmtree(again, ignore_errors=True)
        try:
            again.mkdir(mode=0o700)
            files: list[tuple[str, str]] = []
            for path in sorted(folder.iterdir()) if folder.exists() else ():
                opened = gzip.open if path.suffix == ".gz" else open
                with opened(path, "rb") as read, (again / path.stem).open("wb") as written:
                    shutil.copyfileobj(read, written, 1 << 20)
                files.append((path.stem, str(again / path.stem)))
            yield files
        finally:
            shutil.rmtree(again, ignore_errors=True)

    def drop_texts(self, zone: str, keep: Collection[str]) -> None:
        """Removes the texts of a zone but those with these sha256."""
        wanted = {self._text(zone, sha256) for sha256 in keep}
        for folder in self._texts.glob(f"{zone}@*"):
            if folder not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _text(self, zone: str, source_sha256: str) -> Path:
        return self._texts / f"{zone}@{source_sha256}"


def _copy(source: Path, target: Path) -> None:
    """Never waits for what has taken the place of a file, and copies no device that has no end."""
    with open(source, "rb", opener=_without_waiting) as read, target.open("wb") as written:
        if not stat.S_ISREG(os.fstat(read.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(source))
        shutil.copyfileobj(read, written, 1 << 20)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _sync(folder: Path) -> None:
    """A new name in a folder is on the disk only when the folder is (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
