"""The folder of lists: compiled versions, the text of the current ones, downloads, and the history of all.

All of it can be made again but the history. Files are whole or not there: written beside, synced, renamed.
"""

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
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
        """Removes what a process that died has left half-made, and compiled files that no version keeps."""
        with self.history() as history:
            wanted = {f"{sha256}.names" for sha256 in history.files()}
        for path in self.compiled.iterdir():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def prune(self, zones: Sequence[str], generations: int) -> None:
        """Removes compiled files beyond the newest generations of these zones."""
        with self.history() as history:
            gone = [sha256 for zone in zones for sha256 in history.prune(zone, generations)]
        for sha256 in gone:
            (self.compiled / f"{sha256}.names").unlink(missing_ok=True)

    # ------- Texts of current versions -------

    def keep_text(self, zone: str, source_sha256: str, files: Sequence[tuple[str, str]]) -> None:
        """Keeps a text, so that it can be compiled again whatever happens to the files it came from.

        Raises `OSError`.
        """
        folder = self._text(zone, source_sha256)
        half = folder.with_suffix(".tmp")
        shutil.rmtree(half, ignore_errors=True)
        try:
            half.mkdir(mode=0o700)
            for place, (_, path) in enumerate(files):
                self._take_over(Path(path), half / f"{place:06}")
            shutil.rmtree(folder, ignore_errors=True)
            half.rename(folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        _sync(self._texts)

    def _take_over(self, source: Path, target: Path) -> None:
        if source.parent == self.feeds:
            os.link(source, target)  # a download is never written to again, only replaced
        else:
            _copy(source, target)

    def text(self, version: Version) -> list[tuple[str, str]]:
        """The files of a version's text, as (label, path); none where it was not kept."""
        folder = self._text(version.zone, version.compiled.source_sha256)
        with contextlib.suppress(OSError):
            return [(path.name, str(path)) for path in sorted(folder.iterdir())]
        return []

    def drop_texts(self, zone: str, keep: str) -> None:
        """Removes the texts of a zone but the one with this sha256."""
        for folder in self._texts.glob(f"{zone}@*"):
            if folder != self._text(zone, keep):
                shutil.rmtree(folder, ignore_errors=True)

    def _text(self, zone: str, source_sha256: str) -> Path:
        return self._texts / f"{zone}@{source_sha256}"


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())


def _sync(folder: Path) -> None:
    """A new name in a folder is on the disk only when the folder is (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
