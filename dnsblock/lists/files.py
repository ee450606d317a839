"""The files of a list, and a fingerprint of their metadata that shows a change without reading them."""

import hashlib
import json
import os
import stat
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dnsblock import document
from dnsblock.config import Zone
from dnsblock.errors import Problem, Refused
from dnsblock.lists.store import Store, digest_of

SETTLED_NS = 2_000_000_000  # a file counts as complete if its last write is at least this old
# Minimum age of a write, so that the next write gets a different time: a few ticks of the kernel's clock, or
# two seconds on a file system that stores whole seconds only.
TICKS_NS, COARSE_NS = 100_000_000, 2_000_000_000
MAX_FILES = 1000  # of a folder
SKIPPED_TOLD = 10
NOT_A_FILE = "not a regular file: a pipe, a socket or a device"


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry in a list's folder that is not read, and the reason."""

    name: str
    why: str
    is_expected: bool = False  # a hidden or unfinished file, skipped as documented


@dataclass(frozen=True, slots=True)
class ListFiles:
    """The current files of a list, as (label, path)."""

    files: tuple[tuple[str, str], ...]
    octets: int
    known_by: str  # fingerprint: every write changes it; empty: a file was just written
    is_settled: bool  # by their times, the files have not been written to recently
    skipped: tuple["Skipped", ...] = ()  # other entries in the folder

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

    _known_by: str = ""
    _since: int = 0

    def is_settled(self, text: ListFiles) -> bool:
        """Whether the files have not been written to recently."""
        now = time.monotonic_ns()
        if text.known_by != self._known_by:
            self._known_by, self._since = text.known_by, now
        return text.is_settled or (text.known_by != "" and now - self._since >= SETTLED_NS)


def files_of(zone: Zone, store: Store) -> ListFiles:
    """Returns the files of a zone's list. Raises `Refused` if they cannot be read or are too large."""
    if isinstance(zone.place, Path):
        place, label = zone.place, str(zone.place)
    else:
        place, label = store.download(zone.name), str(zone.place).partition("?")[0]
    try:
        found, skipped = _files(place)
    except OSError as err:
        # In a folder, name the unreadable file. The path of a download is of no use to the operator.
        file = label if zone.is_feed else str(err.filename or label)
        raise Refused([_unreadable(file, err)]) from err
    files = tuple((str(path) if isinstance(zone.place, Path) else label, str(path)) for path, _ in found)
    octets = sum(status.st_size for _, status in found)
    limit = zone.source.max_mb << 20
    if octets > limit:
        reason = f"larger than {limit:,} octets: is it the list? `source.max_mb` is the limit"
        raise Refused([Problem(label, None, f"{octets:,} octets", reason)])
    known_by, is_settled = _known_by(found, skipped, is_feed=zone.is_feed)
    return ListFiles(files, octets, known_by, is_settled, skipped)


def _files(place: Path) -> tuple[list[tuple[Path, os.stat_result]], tuple[Skipped, ...]]:
    """Returns the file, or the files of a folder sorted by name, and the skipped entries of the folder."""
    status = place.stat()
    if not stat.S_ISDIR(status.st_mode):
        if not stat.S_ISREG(status.st_mode):
            raise Refused([Problem(str(place), None, "", "not a regular file")])
        return [(place, status)], ()
    with os.scandir(place) as entries:
        names = sorted(entry.name for entry in entries)
    expected = {name: why for name in names if (why := _why_passed_over(name))}
    wanted = [name for name in names if name not in expected]
    if len(wanted) > MAX_FILES:
        reason = f"the folder holds more than {MAX_FILES:,} files: is it the right one?"
        raise Refused([Problem(str(place), None, "", reason)])
    skipped = [Skipped(_printed(name), why, is_expected=True) for name, why in expected.items()]
    found = []
    for path in (place / name for name in wanted):
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            found.append((path, status))
        else:
            is_folder = stat.S_ISDIR(status.st_mode)
            why = "a folder: only files directly in the list's folder are read" if is_folder else NOT_A_FILE
            skipped.append(Skipped(_printed(path.name), why))
    if not found:
        reason = "the folder holds no list"
        if skipped:
            reason += f"; it holds {', '.join(f'{one.name} ({one.why})' for one in skipped[:SKIPPED_TOLD])}"
        raise Refused([Problem(str(place), None, "", reason)])
    _ensure_utf8(place, found)
    return found, tuple(skipped)


def _ensure_utf8(place: Path, found: Sequence[tuple[Path, os.stat_result]]) -> None:
    for path, _ in found:
        name = _printed(path.name)
        if name != path.name:  # neither the history nor the API could show such a name
            reason = "the name of this file is not UTF-8: rename it"
            raise Refused([Problem(str(place / name), None, "", reason)])


def _printed(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def _why_passed_over(name: str) -> str:
    """Why a file with this name is skipped; empty if it is read."""
    if name.startswith("."):
        return "hidden: the name begins with a dot"
    if name.endswith(("~", ".tmp", ".part", ".swp")):
        return "unfinished or a copy of an editor, by its name"
    return ""


def _known_by(
    found: Sequence[tuple[Path, os.stat_result]], skipped: Sequence[Skipped], *, is_feed: bool
) -> tuple[str, bool]:
    """Returns the fingerprint of the files, and whether they have settled.

    A file that is written twice within one tick of the kernel's clock looks unchanged. A download is
    replaced, never written to, so its ctime adds nothing. The ctime also changes with permissions and
    links.
    """
    times = {path: (s.st_mtime_ns,) if is_feed else (s.st_mtime_ns, s.st_ctime_ns) for path, s in found}
    latest = max(map(max, times.values()), default=0)
    age = time.time_ns() - latest
    # A time in the future works, too: a write now would give the file another time.
    is_told = age >= (TICKS_NS if latest % 1_000_000_000 else COARSE_NS) or age <= -COARSE_NS
    files = [[str(path), s.st_dev, s.st_ino, s.st_size, *times[path]] for path, s in found]
    # Unexpected entries count, too. An unfinished file does not: it will get its final name soon.
    others = [[one.name, 0, 0, 0] for one in skipped if not one.is_expected]
    known_by = json.dumps(files + others)
    return known_by if is_told else "", age >= SETTLED_NS


def octets_of(known_by: str) -> int | None:
    """Returns the total size that a fingerprint states; None if it states none."""
    try:
        return sum(size for _, _, _, size, *_ in json.loads(known_by)) if known_by else None
    except (ValueError, TypeError):  # it comes from the history, which may be on a failing disk
        return None


def sha256_of(files: Sequence[tuple[str, str]]) -> str:
    """Reads the files and returns the digest of the list, as `digest_of`. Raises `OSError`."""
    digests: list[tuple[str, int, str, bool]] = []
    for label, path in files:
        with document.open_regular(path) as file:
            digests.append((label, 0, hashlib.file_digest(file, "sha256").hexdigest(), True))
    return digest_of(digests)


def ensure_readable(files: Sequence[tuple[str, str]]) -> None:
    """Opens each file. Raises `Refused` naming the one that cannot be opened: compiling does not name it."""
    for label, path in files:
        try:
            document.open_regular(path).close()
        except OSError as err:
            raise Refused([_unreadable(label, err)]) from err


def _unreadable(file: str, err: OSError) -> Problem:
    return Problem(file, None, "", f"cannot be read: {err.strerror or err}")


def heads_of(files: Sequence[tuple[str, str]]) -> list[bytes]:
    """Returns the first bytes of each file's content. Raises `OSError`."""
    heads = []
    for _, path in files:
        with document.open_regular(path) as file:
            head = file.read(1024)
        if head.startswith(b"\x1f\x8b"):  # gzip: the engine has read all of it without an error
            head = zlib.decompressobj(wbits=31).decompress(head, 1024)
        heads.append(head)
    return heads
