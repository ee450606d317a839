"""Signs a checkpoint of the ledger whenever it has grown, and at least daily, and sends it to its places.

Nothing waits for this: an order is durable, acknowledged and enforced before its checkpoint is signed.
"""

import asyncio
import base64
import contextlib
import logging
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from dnsblock.clock import utc_now
from dnsblock.errors import Refused
from dnsblock.log import event, fault
from dnsblock.orders.claims import Accepted, Claim
from dnsblock.orders.facts import PublishedCheckpoint
from dnsblock.orders.transparency.distribution import Distributor, Place, failing
from dnsblock.orders.transparency.folder import CheckpointFolder
from dnsblock.principal import DAEMON
from dnsblock.publishing import Publisher
from dnsblock.signatures.notes import SignedCheckpoint
from dnsblock.times import utc

PAUSE_SECONDS = 1.0  # between two checkpoints: many orders at once get one
QUIET_SECONDS = 10.0  # without a new record: then the whole file is compared once
COMPARED_SECONDS = 3600.0  # then it is compared although records keep coming
RETRY_SECONDS = 300.0  # for places that do not have the last checkpoint
RECORDED_EVERY = timedelta(hours=24)  # the ledger itself records a checkpoint
STOP_SECONDS = 2.0  # for the second folder, at the end of the process


class Checkpoints:
    """Follows the ledger of a publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        signer = publisher.recorder.signer
        self._distributor = Distributor(signer.instance.public, signer.keep, self._contradiction)
        self._distributor.follow(publisher.config.ledger)
        self._sent: tuple[int, object] | None = None  # records, and the places that they were sent to
        self._tried = 0.0
        self._compared = (0, time.monotonic())  # records of the whole ledger, and when
        self._grown = (0, 0.0)  # records, and when these were first seen
        self.signed: SignedCheckpoint | None = None  # the last one
        self.signed_at = utc_now()
        records = reversed(publisher.recorder.ledger.records)
        recorded = (record.at for record in records if isinstance(record.fact, PublishedCheckpoint))
        self._recorded_at = next(recorded, None)  # the last one that the ledger has itself

    @property
    def places(self) -> list[Place]:
        """The places where checkpoints are kept, beside the state folder and the log."""
        return list(self._distributor.places.values())

    def facts(self) -> dict[str, Any]:
        """The last checkpoint and its places, for `status`."""
        signed = None if self.signed is None else self.signed.checkpoint
        return {
            "records": None if signed is None else signed.size,
            "signed_at": None if signed is None else utc(self.signed_at),
            "places": [place.facts() for place in self.places],
        }

    async def run(self) -> None:
        """Follows the ledger until it is cancelled."""
        while True:
            try:
                if self._publisher.recorder.is_touched:
                    # Not only the next publish finds out that somebody has changed the ledger.
                    await self._publisher.record(self._publisher.recorder.watch)
                if self._is_due():
                    await self._send()
                await self._compare()
            except Exception:  # DNS and orders need no checkpoint
                fault("internal error while signing a checkpoint of the ledger")
            await asyncio.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """Closes the records after a regular stop. The log and the second folder get the last checkpoint."""
        self._publisher.recorder.close(in_order=True)
        note = self._publisher.recorder.last_checkpoint
        if note is not None:
            self._distributor.send_last(note, self._publisher.config.ledger, STOP_SECONDS)

    async def _compare(self) -> None:
        """Compares the whole file once after it has grown: finds a change in the middle of an own write."""
        recorder = self._publisher.recorder
        size, now = recorder.ledger.tree.size, time.monotonic()
        if size != self._grown[0]:
            self._grown = size, now
        compared, at = self._compared
        is_quiet = now - self._grown[1] >= QUIET_SECONDS
        if size == compared or not (is_quiet or now - at >= COMPARED_SECONDS):
            return
        if not await asyncio.to_thread(recorder.is_as_written):
            await self._publisher.record(recorder.distrust)
        self._compared = size, now

    def _is_due(self) -> bool:
        recorder, options = self._publisher.recorder, self._publisher.config.ledger
        if recorder.mismatch is not None or recorder.ledger.tree.size == 0:
            return False
        if self._sent != (recorder.ledger.tree.size, options) or self._record_is_due():
            return True
        return bool(failing(self.places)) and time.monotonic() - self._tried > RETRY_SECONDS

    def _record_is_due(self) -> bool:
        """Whether no checkpoint was recorded in the ledger for a day."""
        return self._recorded_at is None or utc_now() - self._recorded_at > RECORDED_EVERY

    async def _send(self) -> None:
        publisher = self._publisher
        recorder, options = publisher.recorder, publisher.config.ledger
        signer = recorder.signer
        if signer.instance.named != options.origin:
            signer.instance = replace(signer.instance, named=options.origin)
        try:
            note = await asyncio.to_thread(recorder.checkpoint_now)
            if self._record_is_due():
                checkpoint = note.checkpoint
                root = base64.b64encode(checkpoint.root).decode("ascii")
                facts = [PublishedCheckpoint(checkpoint.size, root)]
                await publisher.note(facts, DAEMON)
                self._recorded_at = utc_now()
                with contextlib.suppress(OSError):  # they only take up space
                    await asyncio.to_thread(recorder.signer.remove_old)
                note = await asyncio.to_thread(recorder.checkpoint_now)
        except Refused as err:
            if self._tried == 0.0 or time.monotonic() - self._tried > RETRY_SECONDS:
                event(logging.ERROR, f"the ledger has no new checkpoint: {err}")
                self._tried = time.monotonic()
            return
        self.signed, self.signed_at = note, utc_now()
        self._sent, self._tried = (note.checkpoint.size, options), time.monotonic()
        await self._distributor.send(note, recorder.signer.consistency, options)

    def _contradiction(self, folder: CheckpointFolder) -> str | None:
        """A checkpoint in the second folder that the ledger does not extend, perhaps mounted late."""
        recorder = self._publisher.recorder
        ledger, public = recorder.ledger, recorder.signer.instance.public
        found = folder.contradiction(ledger.tree, public, Accepted(ledger.records).has)
        if found is None:
            return None
        claim = Claim.of_checkpoint(found)
        recorder.contradict(claim)
        return f"the ledger does not extend {claim}"
