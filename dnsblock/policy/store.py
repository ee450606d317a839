"""The folder of lists: compiled versions, their texts, downloads, and the history of all.

All of it can be made again but the history. Files are whole or not there: written beside, synced, renamed.
"""

import gzip
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dnsblock import document
from dnsblock._engine import Names, NamesUnusable
from dnsblock.durable import sync_folder
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
            reason = (err.strerror if isinstance(err, OSError) else None) or str(err)  # the engine's has none
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

    def keep_text(self, zone: str, source_sha256: str, files: Sequence[tuple[str, str]]) -> bool:
        """Keeps a text, compressed, so that it can be compiled again whatever happens to its files.

        False, and nothing kept, where it is another text by now. Raises `OSError`.
        """
        kept = self._text(zone, source_sha256)
        half = self._texts / f"{zone}.new"
        shutil.rmtree(half, ignore_errors=True)
        try:
            half.mkdir(mode=0o700)
            read = [
                (label, 0, _compress(path, half / f"{place:06}.gz"), True)
                for place, (label, path) in enumerate(files)
            ]
            if digest_of(read) != source_sha256:
                return False
            sync_folder(half)
            shutil.rmtree(kept, ignore_errors=True)
            half.rename(kept)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        sync_folder(self._texts)
        return True

    def has_text(self, version: Version) -> bool:
        """Whether the text of a version is kept."""
        return self._text(version.zone, version.compiled.source_sha256).exists()

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
                with gzip.open(path, "rb") as read, (again / path.stem).open("wb") as written:
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


def digest_of(sources: Sequence[tuple[str, int, str, bool]]) -> str:
    """The SHA-256 by which a text is accepted: of the file, or, of several, over their own."""
    if len(sources) == 1:
        return sources[0][2]
    return hashlib.sha256("\n".join(sha256 for _, _, sha256, _ in sources).encode()).hexdigest()


def _compress(source: str, target: Path) -> str:
    """Writes a file compressed and on the disk; returns the SHA-256 of what was read."""
    digest = hashlib.sha256()
    with document.open_regular(source) as read, target.open("wb") as written:
        with gzip.GzipFile("", "wb", compresslevel=1, fileobj=written, mtime=0) as smaller:
            while part := read.read(1 << 20):
                digest.update(part)
                smaller.write(part)
        written.flush()
        os.fsync(written.fileno())
    return digest.hexdigest()
