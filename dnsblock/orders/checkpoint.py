"""The checkpoint: a small file with the end of the ledger and the served serial at the last publish.

It is written before a publish takes effect. At startup, the ledger must extend it: a ledger that was
truncated, replaced or restored from a backup does not.
"""

import errno
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dnsblock import durable
from dnsblock.errors import Problem, Refused
from dnsblock.orders.records import NotARecord, Position, read_position, sealed, unsealed

MAX_SERIAL = (1 << 32) - 1  # limit of an SOA serial; it never wraps, so later serials are always higher
NEVER = datetime.min.replace(tzinfo=UTC)
MAX_BYTES = 1024  # the file always has this size, so that it can be overwritten on a full disk


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state at the last publish."""

    ledger: Position | None = None  # None: unknown
    root: bytes | None = None  # of the tree of these records; None: an older version wrote it
    serial: int = 0
    digest: str = ""  # of the content with this serial
    # Serials that this process may use if the checkpoint cannot be written. None: it stopped regularly.
    reserved: tuple[int, int] | None = None
    at: datetime = NEVER  # the time of this state


class CheckpointFile:
    """The file in the state folder. `content` is None if it is missing or corrupt."""

    FILE = "checkpoint.json"

    def __init__(self, folder: Path) -> None:
        """Reads the file. Raises `Refused` if it cannot be read."""
        self.path = folder / self.FILE
        self.content: Checkpoint | None = None
        self.is_corrupt = False
        try:
            with self.path.open("rb") as file:
                self.content = _checkpoint(unsealed(file.read(MAX_BYTES + 1).rstrip()))
        except FileNotFoundError:
            pass
        except NotARecord:
            self.is_corrupt = True
        except OSError as err:
            reason = f"{err.strerror}: let the user that runs dnsblock read it"
            raise Refused([Problem(str(self.path), None, "", reason)]) from err

    def keep(self, checkpoint: Checkpoint) -> None:
        """Writes the checkpoint durably. Raises `OSError` on failure; it is not written then."""
        data = _line(checkpoint).ljust(MAX_BYTES - 1) + b"\n"
        try:
            durable.write(self.path, data)
        except OSError:
            # Overwriting in place may work even on a full disk.
            self._overwrite(data)
        self.content = checkpoint

    def _overwrite(self, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_size < len(data) or os.pwrite(descriptor, data, 0) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _line(checkpoint: Checkpoint) -> bytes:
    ledger, reserved = checkpoint.ledger, checkpoint.reserved
    return sealed(
        {
            "ledger": None if ledger is None else {"records": ledger.records, "last": ledger.last},
            "root": None if checkpoint.root is None else checkpoint.root.hex(),
            "serial": checkpoint.serial,
            "digest_of_content": checkpoint.digest,
            "reserved": None if reserved is None else list(reserved),
            "at": checkpoint.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        }
    )


def _checkpoint(fields: dict[str, Any]) -> Checkpoint:
    try:
        ledger, reserved, root = fields["ledger"], fields["reserved"], fields.get("root")
        at = datetime.fromisoformat(fields["at"])
        read = Checkpoint(
            None if ledger is None else read_position(ledger),
            None if root is None else bytes.fromhex(root),
            _serial(fields["serial"]),
            str(fields["digest_of_content"]),
            None if reserved is None else (_serial(reserved[0]), _serial(reserved[1])),
            at.astimezone(UTC),
        )
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as err:
        raise NotARecord("not a checkpoint") from err
    if at.tzinfo is None:
        raise NotARecord("its time has no offset")
    return read


def _serial(value: Any) -> int:
    if isinstance(value, int) and 0 <= value <= MAX_SERIAL:
        return value
    raise ValueError("not a serial")
