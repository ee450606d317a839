"""Serials: new content always gets a higher serial, even after a kill or with a full disk."""

from dataclasses import replace
from datetime import datetime

from dnsblock.errors import Problem, Refused
from dnsblock.orders.checkpoint import MAX_SERIAL, Checkpoint, CheckpointFile
from dnsblock.orders.records import Position

Range = tuple[int, int]  # first and last

# The checkpoint reserves serials for use when it cannot be written. A restart cannot know how many of them
# were used, so it skips all of them.
GAP = 1000  # from the last serial to the first reserved one
RESERVED = 1000


class Serials:
    """The last serial and the digest of its content, stored in the checkpoint."""

    def __init__(self, file: CheckpointFile, at_least: int = 0) -> None:
        """Continues from the checkpoint. `at_least` is the last serial in the history of lists."""
        last = file.content or Checkpoint()
        self._file = file
        self.serial, self.digest = last.serial, last.digest
        self._perhaps_used = last.reserved
        self._free: Range | None = None
        self._has_changed = False
        if at_least > self.serial:
            # The checkpoint is lost or outdated. The history may lack the last serials, too.
            self.serial, self.digest = min(at_least + GAP, MAX_SERIAL), ""

    def next(self, digest: str) -> int:
        """The serial for this content: the last one if nothing changed, otherwise a higher one.

        Raises `Refused` after the highest.
        """
        if digest == self.digest:
            return self.serial
        serial = self.serial + 1
        if self._perhaps_used is not None:
            first, last = self._perhaps_used
            # The content differs from that before a kill: it may have had a serial of that range.
            if first <= serial <= last or (serial < first and not self._has_changed):
                serial = last + 1
        if serial > MAX_SERIAL:
            raise Refused([Problem(str(self._file.path), None, str(self.serial), _USED_UP)])
        return serial

    def keep(
        self, serial: int, digest: str, ledger: Position | None, root: bytes | None, at: datetime
    ) -> None:
        """Sets the serial, and the position of the ledger with the root of its tree, durably.

        Raises `OSError` on failure; nothing is changed then.
        """
        if self._perhaps_used is not None and self._perhaps_used[1] <= serial:
            self._perhaps_used = None
        first = max(serial + GAP, 0 if self._perhaps_used is None else self._perhaps_used[1] + 1)
        free = (min(first, MAX_SERIAL), min(first + RESERVED - 1, MAX_SERIAL))
        reserved = _span(self._perhaps_used, free)
        last, wanted = self._file.content, Checkpoint(ledger, root, serial, digest, reserved, at)
        # A new time alone does not justify a write, unless the clock was set back.
        if last is None or at < last.at or replace(last, at=at) != wanted:
            self._file.keep(wanted)
        self.serial, self.digest, self._free, self._has_changed = serial, digest, free, True

    def take_reserved(self, digest: str) -> int:
        """The serial for content if the checkpoint cannot be written. Raises `Refused` if none is left."""
        if digest == self.digest:
            return self.serial
        if self._free is None or self._free[0] > self._free[1]:
            raise Refused([Problem(str(self._file.path), None, "", _UNWRITABLE)])
        self._perhaps_used = _span(self._perhaps_used, self._free)
        self.serial, self.digest = self._free[0], digest
        self._free = (self.serial + 1, self._free[1])
        return self.serial

    def release(self, ledger: Position | None, root: bytes | None) -> None:
        """Records a regular stop: the reserved serials were not used. Raises `OSError`."""
        used = self._perhaps_used
        is_to_come = used is not None and used[0] > self.serial
        if self._file.content is not None:
            reserved = used if is_to_come else None
            last = replace(self._file.content, ledger=ledger, root=root, reserved=reserved)
            self._file.keep(replace(last, serial=self.serial, digest=self.digest))


def _span(one: Range | None, other: Range) -> Range:
    return other if one is None else (min(one[0], other[0]), max(one[1], other[1]))


_USED_UP = (
    "the serials are used up, and no other content can be published. Stop the daemon, move checkpoint.json "
    "and lists.sqlite out of the state folder, and start it. "
    "Run `dnsblock log accept-restore --reason TEXT`. Serials begin at 1 again, so reset whatever records "
    "serials, such as monitoring"
)
_UNWRITABLE = "cannot be written, and the serials that were reserved for that are used up: make room for it"
