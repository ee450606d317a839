"""Keeps the files of the option `exports` current: each is replaced when what it contains has changed.

Nothing waits for this. A file that cannot be written keeps its content, and costs no other file anything.
"""

import asyncio
import glob
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dnsblock import durable
from dnsblock.config_exports import ExportFile
from dnsblock.errors import Refused
from dnsblock.log import event, fault
from dnsblock.publishing import Publisher
from dnsblock.rpz.export import Export, Wanted, Written

RETRY_SECONDS = 30.0  # after a failure
MODE = 0o644  # other servers read it, as other users


@dataclass(frozen=True, slots=True)
class Kept:
    """The last attempt for one file."""

    written: Written | None  # None: not by this process
    failure: str | None


class Exports:
    """Follows a publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._kept: dict[Path, Kept] = {}

    @property
    def kept(self) -> Mapping[Path, Kept]:
        """The last attempt for each file that is configured."""
        files = [one.file for one in self._publisher.config.exports]
        return {file: self._kept[file] for file in files if file in self._kept}

    async def run(self) -> None:
        """Follows the publisher until it is cancelled."""
        changed = self._publisher.may_export
        while True:
            changed.clear()
            for one in self._publisher.config.exports:
                await self._renew(one)
            failing = any(one.failure for one in self.kept.values())
            try:
                await asyncio.wait_for(changed.wait(), RETRY_SECONDS if failing else None)
            except TimeoutError:
                continue

    async def _renew(self, one: ExportFile) -> None:
        publisher = self._publisher
        before = self._kept.get(one.file, Kept(None, None))
        try:
            policy, wanted = publisher.policy, Wanted(one.format, one.origin, one.zones)
            export = Export.of(wanted, publisher.config, policy.placed, policy.snapshot.serial)
            written = await asyncio.to_thread(_replace, one.file, export)
        except (OSError, Refused) as err:
            why = err.strerror or str(err) if isinstance(err, OSError) else str(err)
            if why != before.failure:
                event(logging.ERROR, f"the export {one.file} was not written, and stays as it was: {why}")
            self._kept[one.file] = Kept(before.written, why)
        except Exception:  # neither DNS nor orders need it
            fault(f"internal error while writing the export {one.file}")
            self._kept[one.file] = Kept(before.written, "internal error, see the log")
        else:
            self._kept[one.file] = Kept(written or before.written, None)
            if written is not None:
                text = f"wrote the export {one.file}: serial {written.serial}, {written.entries:,} entries"
                event(logging.INFO, text, left_out=sum(written.left_out.values()))


def _replace(path: Path, export: Export) -> Written | None:
    """Replaces a file if its content differs. Raises `OSError`; the file stays as it was then."""
    serial = export.serial_after(path)
    if serial is None:
        return None
    _remove_left_behind(path)
    # Its own name: a process that restarts may still be writing when its successor begins.
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            os.fchmod(descriptor, MODE)  # the umask of the unit is stricter
            written = export.write(descriptor, serial)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # frees the space on a full disk
    durable.sync_folder(path.parent)
    return written


def _remove_left_behind(path: Path) -> None:
    """Removes incomplete files of processes that were killed."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        process = partial.name.removeprefix(f"{path.name}.").removesuffix(".tmp")
        if process.isdecimal() and (int(process) == os.getpid() or not Path("/proc", process).exists()):
            partial.unlink(missing_ok=True)
