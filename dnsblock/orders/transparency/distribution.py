"""Brings signed checkpoints to the configured places: a folder, an HTTPS server, the log, witnesses.

A place that fails delays nothing else. It gets the next checkpoint, which covers all earlier records.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dnsblock.clock import utc_now
from dnsblock.config_ledger import LedgerOptions
from dnsblock.https import Server, Unreachable
from dnsblock.log import event, fault
from dnsblock.orders.transparency.folder import CheckpointFolder, file_name
from dnsblock.orders.transparency.witnesses import Contradicted, NotCosigned, Proofs, Witness
from dnsblock.signatures.notes import Signature, SignedCheckpoint
from dnsblock.times import utc

FOLDER_SECONDS = 30.0  # a network file system may hang


@dataclass(slots=True)
class Place:
    """The state of one place, for `status` and metrics."""

    kind: str  # folder, url or witness
    name: str
    size: int = 0  # records of the last checkpoint that it has
    at: datetime | None = None  # when it got that
    failures: int = 0
    error: str | None = None  # of the last try; None: it succeeded
    contradicts: bool = False  # it knows records that the ledger does not have

    def facts(self) -> dict[str, Any]:
        """The same as JSON."""
        return asdict(self) | {"at": None if self.at is None else utc(self.at)}


class Distributor:
    """Sends checkpoints to their places. One round at a time.

    `public` is the key of this instance. `keep` stores a checkpoint with cosignatures in the state folder.
    `contradiction` finds a checkpoint in a folder that the ledger does not extend.
    """

    def __init__(
        self,
        public: bytes,
        keep: Callable[[SignedCheckpoint], None],
        contradiction: Callable[[CheckpointFolder], str | None],
    ) -> None:
        self.places: dict[tuple[str, str], Place] = {}
        self._public, self._keep, self._contradiction = public, keep, contradiction
        self._logged = ""
        self._writer: _Writer | None = None

    def follow(self, options: LedgerOptions) -> None:
        """Takes the places of a configuration; known ones keep their state."""
        at = options.checkpoints
        names = [("folder", str(at.folder))] if at.folder else []
        names += [("url", at.url)] if at.url else []
        names += [("witness", witness.key.name) for witness in options.witnesses]
        self.places = {name: self.places.get(name) or Place(*name) for name in names}

    async def send(self, note: SignedCheckpoint, proofs: Proofs, options: LedgerOptions) -> None:
        """Sends a checkpoint to all places, first to the witnesses. Logs what fails."""
        self.follow(options)
        self._log(note)
        note = await self._cosigned(note, proofs, options)
        at = options.checkpoints
        await asyncio.gather(
            *([self._try("folder", str(at.folder), note, self._store(at.folder, note))] if at.folder else []),
            *([self._try("url", at.url, note, self._put(options, at.url, note))] if at.url else []),
        )

    def send_last(self, note: SignedCheckpoint, options: LedgerOptions, seconds: float) -> None:
        """Sends a checkpoint to the log and the second folder, without an event loop and within a time."""
        self._log(note)
        folder = options.checkpoints.folder
        if folder is None or (self._writer is not None and self._writer.is_alive()):
            return
        writer = _Writer(folder, note, self._public, self._contradiction)
        writer.join(seconds)
        reason = writer.error or writer.contradiction
        if writer.is_alive() or reason:
            text = f"the folder {folder} does not have the last checkpoint"
            event(logging.ERROR, f"{text}: {reason or 'it cannot be written in time'}")

    def _log(self, note: SignedCheckpoint) -> None:
        """The log line is a place, too: it often goes to another machine at once."""
        if note.text != self._logged:
            size, origin = note.checkpoint.size, note.checkpoint.origin
            text = f"checkpoint of the ledger: {size:,} records"
            event(logging.INFO, text, checkpoint=str(note), origin=origin, size=size)
            self._logged = note.text

    async def _cosigned(
        self, note: SignedCheckpoint, proofs: Proofs, options: LedgerOptions
    ) -> SignedCheckpoint:
        """The checkpoint with the cosignatures of the witnesses that respond."""
        found: list[Signature] = []

        async def ask(witness: Witness) -> None:
            known = self.places["witness", witness.name].size
            found.append((await witness.cosign(note, proofs, known)).signature)

        witnesses = [Witness(Server(one.url, one.ca), one.key) for one in options.witnesses]
        await asyncio.gather(*(self._try("witness", one.name, note, ask(one)) for one in witnesses))
        if not found:
            return note
        note = note.with_signatures(found)
        try:
            await asyncio.to_thread(self._keep, note)
        except OSError as err:
            event(logging.ERROR, f"cosignatures could not be stored: {err.strerror}: {err.filename}")
        return note

    async def _store(self, folder: Path, note: SignedCheckpoint) -> None:
        if self._writer is None or not self._writer.is_alive():
            loop = asyncio.get_running_loop()
            self._writer = _Writer(folder, note, self._public, self._contradiction, loop)
        writer = self._writer
        try:
            async with asyncio.timeout(FOLDER_SECONDS):
                await writer.done.wait()
        except TimeoutError as err:
            raise Unreachable(f"a file was not written within {FOLDER_SECONDS:g} s") from err
        if writer.error is not None:
            raise writer.error
        if writer.contradiction is not None:
            raise Contradicted(writer.contradiction)
        if writer.note != note:
            raise Unreachable("the file before it has only now been written")

    async def _put(self, options: LedgerOptions, url: str, note: SignedCheckpoint) -> None:
        server = Server(url, options.checkpoints.ca, options.checkpoints.authorization)
        response = await server.send("PUT", file_name(note, self._public), str(note).encode())
        if not 200 <= response.status < 300:
            raise Unreachable(f"HTTP {response.status}: {response.text}")

    async def _try(self, kind: str, name: str, note: SignedCheckpoint, work: Awaitable[None]) -> None:
        """Does the work for one place, and keeps the result."""
        place = self.places[kind, name]
        try:
            await work
        except (NotCosigned, Unreachable) as err:
            self._failed(place, str(err), contradicts=isinstance(err, Contradicted))
        except OSError as err:
            self._failed(place, f"{err.strerror or err}: {err.filename or name}")
        except Exception as err:  # a place must not stop the others
            fault(f"internal error while sending a checkpoint to the {kind} {name}")
            self._failed(place, f"internal error ({type(err).__name__})")
        else:
            if place.error is not None:
                event(logging.WARNING, f"the {kind} {name} has the checkpoint again")
            place.size, place.at = note.checkpoint.size, utc_now()
            place.error, place.contradicts = None, False

    def _failed(self, place: Place, reason: str, *, contradicts: bool = False) -> None:
        """Logs a failure once, until it changes."""
        place.failures += 1
        if reason != place.error:
            text = f"the {place.kind} {place.name} does not have the checkpoint: {reason}"
            if contradicts:
                event(logging.CRITICAL, text)
            else:
                event(logging.ERROR, text)
        place.error, place.contradicts = reason, contradicts


class _Writer(threading.Thread):
    """Writes into the second folder. It may hang there, and must not delay the end of the process."""

    def __init__(
        self,
        folder: Path,
        note: SignedCheckpoint,
        public: bytes,
        contradiction: Callable[[CheckpointFolder], str | None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(daemon=True, name="checkpoints")
        self.note, self.done = note, asyncio.Event()
        self.error: OSError | None = None
        self.contradiction: str | None = None
        self._folder, self._public, self._find = CheckpointFolder(folder), public, contradiction
        self._loop = loop
        self.start()

    def run(self) -> None:
        try:
            self.contradiction = self._find(self._folder)
            if self.contradiction is None:
                self._folder.keep(self.note, self._public)
        except OSError as err:
            self.error = err
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the process ends
                self._loop.call_soon_threadsafe(self.done.set)


def failing(places: Iterable[Place]) -> list[Place]:
    """The places that do not have the last checkpoint."""
    return [place for place in places if place.error is not None]
