"""The folder with counts of queried names: a file for each day (UTC), without clients and times.

Used by `counting.py` only. A file is written as a whole, and it has at most the bytes that its writer allows.
A corrupt one is set aside and removed with the others of its age.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

from dnsblock import durable
from dnsblock._engine import DayCorrupt, DayCounts
from dnsblock.log import event

MAX_BYTES = 256 << 20  # of a file: a quarter of the largest `memory_mb`

_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})\.counts\.gz(\.corrupt|\.tmp)?")


class CountsFolder:
    """The files of a state folder."""

    def __init__(self, state: Path) -> None:
        self.path = state / "query-counts"

    def days(self) -> list[date]:
        """The days with a file, in order."""
        return sorted(day for day, path in self._files() if path.name.endswith(".gz"))

    def read(self, day: date) -> DayCounts | None:
        """The counts of a day; None if there are none, or none that can be read."""
        path = self._of(day)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            return DayCounts.read(data)
        except FileNotFoundError:
            return None
        except OSError as err:
            event(logging.WARNING, f"counts of queried names cannot be read: {path}: {err.strerror}")
        except DayCorrupt as err:
            event(logging.WARNING, f"counts of queried names are corrupt and set aside: {path}: {err}")
            with suppress(OSError):
                path.replace(f"{path}.corrupt")
        return None

    def write(self, day: date, counts: DayCounts) -> None:
        """Replaces the counts of a day. Raises `OSError`; the file then stays as it was."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.write(self._of(day), counts.data)

    def keep(self, first: date, last: date) -> int:
        """Removes all other days, and what was left behind of them. Returns how many files."""
        return self._remove([path for day, path in self._files() if not first <= day <= last])

    def keep_newest(self, count: int) -> int:
        """Removes the oldest days above a number of files, which a clock that jumps may have made."""
        files = sorted(self._files(), reverse=True)
        return self._remove([path for _, path in files[count:]])

    def clear(self) -> int:
        """Removes all days, and the folder. Returns how many files."""
        removed = self._remove([path for _, path in self._files()])
        with suppress(OSError):  # it is not there, or it has files of somebody else
            self.path.rmdir()
        return removed

    def _of(self, day: date) -> Path:
        return self.path / f"{day.isoformat()}.counts.gz"

    def _files(self) -> Iterator[tuple[date, Path]]:
        try:
            found = list(self.path.iterdir())
        except OSError:
            return
        for path in found:
            if (match := _NAME.fullmatch(path.name)) is not None:
                with suppress(ValueError):  # such as 2026-02-30
                    yield date.fromisoformat(match[1]), path

    @staticmethod
    def _remove(paths: list[Path]) -> int:
        removed = 0
        for path in paths:
            try:
                path.unlink()
                removed += 1
            except OSError as err:
                event(logging.WARNING, f"counts of queried names cannot be removed: {path}: {err.strerror}")
        return removed
