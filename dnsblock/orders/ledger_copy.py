"""The copy of the ledger, `acknowledged.jsonl`: it has the acknowledged records if the ledger loses them."""

import os
from pathlib import Path

from dnsblock import durable
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.records import Position

FILE = "acknowledged.jsonl"


class LedgerCopy:
    """The copy in a state folder. Only the daemon writes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._copied = 0  # bytes of the ledger that are in the copy
        self._is_synced = True

    @property
    def size(self) -> int:
        """Its size in bytes; 0 if it is missing."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def extend(self, ledger: Ledger) -> None:
        """Copies new records. Raises `OSError`."""
        if self._copied != ledger.size:
            _append(ledger.path, self.path, self._copied, ledger.size)
            self._copied, self._is_synced = ledger.size, False

    def sync(self) -> None:
        """Makes the copy durable. Raises `OSError`."""
        if not self._is_synced:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._is_synced = True

    def renew(self, ledger: Ledger) -> None:
        """Brings the copy up to date. A crash may have left it incomplete, or an editor changed it."""
        path, real, size = self.path, ledger.path, ledger.size
        # A hard link means that it was set aside: write a new file then.
        if path.exists() and path.stat().st_nlink == 1 and _is_beginning(path, real, size):
            self._copied = path.stat().st_size
            self.extend(ledger)
        else:
            with real.open("rb") as file:
                durable.write(path, file.read(size))
            self._copied = size
        self.sync()

    def put_aside(self, position: Position) -> None:
        """Keeps records that are discarded, as evidence of the blocks that were in force."""
        if position.last is not None and self.path.exists():
            aside = self.path.with_name(f"acknowledged-{position.records}-{position.last[:16]}.jsonl")
            aside.unlink(missing_ok=True)
            os.link(self.path, aside)


def _is_beginning(path: Path, whole: Path, size: int) -> bool:
    """Whether a file is a prefix of the first `size` bytes of another."""
    length = path.stat().st_size
    if length > size:
        return False
    with path.open("rb") as one, whole.open("rb") as other:
        while part := one.read(1 << 20):
            if part != other.read(len(part)):
                return False
    return True


def _append(source: Path, target: Path, begin: int, end: int) -> None:
    """Copies bytes `begin` to `end` of `source` to the same offset in `target`, and truncates it there."""
    with source.open("rb") as read_from:
        read_from.seek(begin)
        data = read_from.read(end - begin)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, begin)
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], begin + written)
    finally:
        os.close(descriptor)
