"""The files of a list, and a fingerprint of their metadata that shows a change without reading them."""

import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dnsblock import document
from dnsblock.errors import Problem, Refused
from dnsblock.lists.store import digest_of

SETTLED_NS = 2_000_000_000  # a file counts as complete if its last write is at least this old
# Minimum age of a write, so that the next write gets a different time: a few ticks of the kernel's clock.
# It is two seconds on a file system that stores whole seconds only.
TICKS_NS, COARSE_NS = 100_000_000, 2_000_000_000
MAX_FILES = 1000  # of a folder
MAX_SKIPPED_SHOWN = 10
NOT_A_FILE = "not a regular file: a pipe, a socket or a device"


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry in a list's folder that is not read, and the reason."""

    name: str
    reason: str
    is_expected: bool = False  # a hidden or unfinished file, skipped as documented


@dataclass(frozen=True, slots=True)
class ListFiles:
    """The current files of a list, as (label, path)."""

    files: tuple[tuple[str, str], ...]
    size: int  # bytes
    fingerprint: str  # every write changes it; empty: a file was just written
    is_settled: bool  # by their times, the files have not been written to recently
    skipped: tuple[Skipped, ...] = ()  # other entries in the folder

    @classmethod
    def of(
        cls,
        found: Sequence[tuple[Path, os.stat_result]],
        skipped: Sequence[Skipped] = (),
        *,
        label: str = "",
        is_replaced: bool = False,
    ) -> "ListFiles":
        """The files that were found. `label` is used in messages instead of their paths.

        `is_replaced`: a file is only ever replaced, so its ctime adds nothing. The ctime also changes with
        permissions and links.
        """
        files = tuple((label or str(path), str(path)) for path, _ in found)
        times = {
            path: (s.st_mtime_ns,) if is_replaced else (s.st_mtime_ns, s.st_ctime_ns) for path, s in found
        }
        latest = max(map(max, times.values()), default=0)
        age = time.time_ns() - latest
        # A file that is written twice within one tick of the kernel's clock looks unchanged. A time in the
        # future is safe: a write now would give the file another time.
        is_certain = age >= (TICKS_NS if latest % 1_000_000_000 else COARSE_NS) or age <= -COARSE_NS
        facts = [[str(path), s.st_dev, s.st_ino, s.st_size, *times[path]] for path, s in found]
        # Unexpected entries count, too. An unfinished file does not: it will get its final name soon.
        others = [[one.name, 0, 0, 0] for one in skipped if not one.is_expected]
        fingerprint = json.dumps(facts + others) if is_certain else ""
        size = sum(status.st_size for _, status in found)
        return cls(files, size, fingerprint, age >= SETTLED_NS, tuple(skipped))

    @property
    def place(self) -> str:
        """The file or folder, for messages about the list as a whole."""
        return self.files[0][0] if len(self.files) == 1 else str(Path(self.files[0][1]).parent)


@dataclass(slots=True)
class Watch:
    """Detects between polls whether the files of a list are still being written.

    The times of the files show it, unless they are in the future: the files came from a server whose clock is
    fast, or our clock was set back. The files then count as settled if they look the same for as long.
    """

    _fingerprint: str = ""
    _since: int = 0

    def is_settled(self, files: ListFiles) -> bool:
        """Whether the files have not been written to recently."""
        now = time.monotonic_ns()
        if files.fingerprint != self._fingerprint:
            self._fingerprint, self._since = files.fingerprint, now
        return files.is_settled or (files.fingerprint != "" and now - self._since >= SETTLED_NS)


def file_at(path: Path) -> tuple[Path, os.stat_result]:
    """A list that is one file. Raises `OSError`, and `Refused` if it is not a regular file."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused([Problem(str(path), None, "", "not a regular file")])
    return path, status


def files_in(folder: Path) -> tuple[list[tuple[Path, os.stat_result]], list[Skipped]]:
    """The files of a folder sorted by name, and its skipped entries. Raises `OSError` and `Refused`."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    expected = {name: reason for name in names if (reason := _reason_to_skip(name))}
    wanted = [name for name in names if name not in expected]
    if len(wanted) > MAX_FILES:
        reason = f"the folder contains more than {MAX_FILES:,} files: check that it is the right one"
        raise Refused([Problem(str(folder), None, "", reason)])
    skipped = [Skipped(_printable(name), reason, is_expected=True) for name, reason in expected.items()]
    found = []
    for path in (folder / name for name in wanted):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            found.append((path, status))
        else:
            is_folder = stat.S_ISDIR(status.st_mode)
            reason = (
                "a folder: only files directly in the list's folder are read" if is_folder else NOT_A_FILE
            )
            skipped.append(Skipped(_printable(path.name), reason))
    if not found:
        reason = "the folder contains no list"
        if skipped:
            shown = ", ".join(f"{one.name} ({one.reason})" for one in skipped[:MAX_SKIPPED_SHOWN])
            reason += f"; it contains {shown}"
        raise Refused([Problem(str(folder), None, "", reason)])
    for path, _ in found:
        if (name := _printable(path.name)) != path.name:  # neither the history nor the API could show it
            reason = "the name of this file is not UTF-8: rename it"
            raise Refused([Problem(str(folder / name), None, "", reason)])
    return found, skipped


def _printable(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def _reason_to_skip(name: str) -> str:
    """Why a file with this name is skipped; empty if it is read."""
    if name.startswith("."):
        return "hidden: the name begins with a dot"
    if name.endswith(("~", ".tmp", ".part", ".swp")):
        return "unfinished or a copy of an editor, by its name"
    return ""


def size_of(fingerprint: str) -> int | None:
    """The total size that a fingerprint contains; None if it contains none."""
    try:
        return sum(size for _, _, _, size, *_ in json.loads(fingerprint)) if fingerprint else None
    except (ValueError, TypeError):  # it comes from the history, which may be on a failing disk
        return None


def sha256_of(files: Sequence[tuple[str, str]]) -> str:
    """The digest of the content of these files, as `digest_of`. Raises `OSError`."""
    digests: list[tuple[str, int, str, bool]] = []
    for label, path in files:
        with document.open_regular(path) as file:
            digests.append((label, 0, hashlib.file_digest(file, "sha256").hexdigest(), True))
    return digest_of(digests)


def ensure_readable(files: Sequence[tuple[str, str]]) -> None:
    """Opens each file. Raises `Refused` naming the one that cannot be opened: compiling does not name it."""
    for label, path in files:
        with readable(label):
            document.open_regular(path).close()


@contextmanager
def readable(label: str = "") -> Iterator[None]:
    """Turns an `OSError` into the `Refused` for a file that cannot be read; `label` replaces its path."""
    try:
        yield
    except OSError as err:
        raise Refused(
            [Problem(label or str(err.filename), None, "", f"cannot be read: {err.strerror or err}")]
        ) from err


def heads_of(files: Sequence[tuple[str, str]]) -> list[bytes]:
    """The first bytes of each file's content. Raises `OSError`."""
    heads = []
    for _, path in files:
        with document.open_regular(path) as file:
            head = file.read(1024)
        if head.startswith(b"\x1f\x8b"):  # gzip: the engine has read all of it without an error
            head = zlib.decompressobj(wbits=31).decompress(head, 1024)
        heads.append(head)
    return heads
