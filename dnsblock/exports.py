"""Keeps the files of the option `exports` current: each is replaced when what it contains has changed.

Nothing waits for this, not even the end of the process: each file has a thread of its own. A file that cannot
be written keeps its content, and costs no other file anything.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from dnsblock import durable
from dnsblock.config_exports import ExportFile
from dnsblock.errors import Refused
from dnsblock.log import event, fault
from dnsblock.policy.allowed import zone_of
from dnsblock.publishing import Publisher
from dnsblock.rpz.export import Export, Wanted, Written

LOOK_SECONDS = 30.0  # somebody may have removed a file, or the reason of a failure is gone
MODE = 0o644  # other servers read it, as other users


@dataclass(frozen=True, slots=True)
class Kept:
    """The last attempt for one file."""

    written: Written | None  # the counts of the file; None: it was never written
    failure: str | None


class Exports:
    """Follows a publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._kept: dict[Path, Kept] = {}
        self._at_work: dict[Path, asyncio.Task[None]] = {}

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
                if one.file not in self._at_work:
                    self._at_work[one.file] = asyncio.create_task(self._renew(one))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), LOOK_SECONDS)

    async def _renew(self, one: ExportFile) -> None:
        publisher = self._publisher
        before, policy, config = (
            self._kept.get(one.file, Kept(None, None)),
            publisher.policy,
            publisher.config,
        )
        try:
            wanted = Wanted(one.format, one.origin, one.zones)
            facts = (policy.placed, policy.snapshot.serial, zone_of(policy.allowed))
            export = Export.of(wanted, config, *facts)
            written, is_new = await _in_thread(one.file, export, before.written)
        except (OSError, Refused) as err:
            why = err.strerror or str(err) if isinstance(err, OSError) else str(err)
            if why != before.failure:
                event(logging.ERROR, f"the export {one.file} was not written, and stays as it was: {why}")
            self._kept[one.file] = Kept(before.written, why)
        except Exception:  # neither DNS nor orders need it
            fault(f"internal error while writing the export {one.file}")
            self._kept[one.file] = Kept(before.written, "internal error, see the log")
        else:
            self._kept[one.file] = Kept(written, None)
            if is_new:
                text = f"wrote the export {one.file}: serial {written.serial}, {written.entries:,} entries"
                event(logging.INFO, text, left_out=sum(written.left_out.values()))
        finally:
            del self._at_work[one.file]
        if publisher.policy is not policy or publisher.config is not config:
            publisher.may_export.set()  # something was published meanwhile


async def _in_thread(path: Path, export: Export, before: Written | None) -> tuple[Written, bool]:
    """As `_replace`, in a thread that the end of the process does not wait for."""
    result: Future[tuple[Written, bool]] = Future()
    result.set_running_or_notify_cancel()  # at the end of the process, nobody awaits it any more

    def run() -> None:
        try:
            result.set_result(_replace(path, export, before))
        except BaseException as err:  # `await` raises it
            result.set_exception(err)

    threading.Thread(target=run, name="export", daemon=True).start()
    return await asyncio.wrap_future(result)


def _replace(path: Path, export: Export, before: Written | None) -> tuple[Written, bool]:
    """Replaces a file if its content differs; the result says whether it did. `before`: written before.

    Raises `OSError`, and `Refused` for a file that is no export; the file stays as it was then.
    """
    current = export.current(path)
    if current is not None and current.is_current:
        return current.written, False
    former = (before, None if current is None else current.written)
    serial = export.serial_after(*(one for one in former if one is not None))
    durable.remove_left_behind(path)
    # Its own name: a process that restarts may still be writing when its successor begins.
    partial = durable.partial_of(path)
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
    return written, True
