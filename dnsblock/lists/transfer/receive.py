"""Receives a zone from one of its primaries: asks for its serial, then for what has changed.

The engine reads the messages (`engine/src/transfer.rs`); here are connections, limits of time, and files. A
primary may send anything, or nothing: everything wrong ends in `FetchFailed`, and the previous copy stays.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from dnsblock import durable
from dnsblock._engine import Transfer, TransferFailed, TsigKey, is_newer
from dnsblock.clock import utc_now
from dnsblock.config_rpz import RpzOptions
from dnsblock.config_zones import Zone
from dnsblock.errors import FetchCode, FetchFailed, Refused
from dnsblock.lists.transfer.keys import read_key
from dnsblock.lists.transfer.state import USUAL, Copies, FetchRequest, IPAddress, TransferState
from dnsblock.log import event
from dnsblock.threads import in_thread
from dnsblock.tls import client_context
from dnsblock.values import Endpoint

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 5.0  # to the SOA query: other primaries may wait to be asked
SILENCE_SECONDS = 30.0  # between two reads; `rpz.timeout_s` limits the whole transfer
PIECE_BYTES = 1 << 18  # passed to a thread at a time

Progress = Callable[[int, int | None], None]
Kind = Literal["axfr", "ixfr"]
RETRIED = "it is tried again"
# After these failures of an incremental transfer, the whole zone would fail, too.
NO_WHOLE_ZONE = ("SERIAL", "TOO_LARGE", "UNREACHABLE", "TLS", "UNWRITABLE")


async def receive(
    zone: Zone, copies: Copies, progress: Progress | None = None, request: FetchRequest = USUAL
) -> Kind | None:
    """Updates the copy of a zone; None if no primary has anything newer. Raises `FetchFailed`.

    The primaries are asked in turn until one has a newer serial: first the one that has sent NOTIFY, then
    the last good one. If the whole zone is requested, the first that answers sends it, whatever its serial.
    Run one at a time for each zone.
    """
    options = zone.rpz
    assert options is not None  # noqa: S101  # a zone of this kind
    key, context = await in_thread(_secrets, options)
    state = await in_thread(TransferState.load, copies.state)
    failures: list[FetchFailed] = []
    is_current = False
    for server in _in_turn(options.servers, state, request.notified_by):
        session = _Session(zone, options, server, copies, key, context, progress, request)
        try:
            kind = await session.run()
        except FetchFailed as err:
            failures.append(err)
            continue
        if kind is not None:
            _log_others(zone, failures)
            return kind
        is_current = True
    if not is_current:
        raise _one_of(failures)
    _log_others(zone, failures)
    return None


def _in_turn(
    servers: Sequence[Endpoint], state: TransferState | None, notified_by: IPAddress | None
) -> list[Endpoint]:
    last = None if state is None else state.primary
    return sorted(servers, key=lambda server: (server.host != notified_by, str(server) != last))


def _one_of(failures: Sequence[FetchFailed]) -> FetchFailed:
    """One exception for all primaries, with the code of the first."""
    if len(failures) == 1:
        return failures[0]
    first, *others = failures
    return FetchFailed(first.place, first.code, "; ".join([first.reason, *map(str, others)]))


def _log_others(zone: Zone, failures: Sequence[FetchFailed]) -> None:
    """Another primary has answered, so this costs nothing yet."""
    for failure in failures:
        text = f"list {zone.name}: a primary cannot be used: {failure}"
        event(logging.WARNING, text, zone=zone.name, code=failure.code)


def _secrets(options: RpzOptions) -> tuple[TsigKey | None, ssl.SSLContext | None]:
    """Read for every transfer, so that a new key needs no reload. Raises `FetchFailed`."""
    place = ", ".join(map(str, options.servers))
    try:
        key = None if options.key is None else read_key(options.key)
        context = None if options.tls is None else client_context(None, None, options.tls.ca)
    except Refused as err:
        raise FetchFailed(place, "UNREADABLE", str(err)) from err
    if context is not None:
        context.set_alpn_protocols(["dot"])  # RFC 9103 section 7.1
    return key, context


@dataclass(frozen=True, slots=True)
class _Session:
    """One connection to a primary."""

    zone: Zone
    options: RpzOptions
    server: Endpoint
    copies: Copies
    key: TsigKey | None
    context: ssl.SSLContext | None
    progress: Progress | None
    request: FetchRequest

    def failed(self, code: FetchCode, reason: str) -> FetchFailed:
        return FetchFailed(str(self.server), code, reason)

    async def run(self) -> Kind | None:
        """Updates the copy; None if it is current. Raises `FetchFailed`."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                kind = await self._transfer()
        except TimeoutError as err:
            reason = f"not complete after {self.options.timeout_s:,} seconds"
            advice = "check the network and the primary; if the zone has grown, raise `rpz.timeout_s`"
            raise self.failed("TOO_SLOW", f"{reason}: {advice}") from err
        except TransferFailed as err:
            raise self._as_failure(err) from err
        finally:
            await in_thread(self.copies.partial.unlink, missing_ok=True)
        if kind is not None:
            text = f"received zone {self.zone.name} by zone transfer in {time.monotonic() - started:.1f} s"
            size = self.copies.copy.stat().st_size
            facts = {"zone": self.zone.name, "primary": str(self.server), "kind": kind, "copy_bytes": size}
            event(logging.INFO, text, **facts)
        return kind

    def _as_failure(self, err: TransferFailed) -> FetchFailed:
        code, reason = err.args
        return self.failed(cast(FetchCode, code if code in get_args(FetchCode) else "INTERNAL"), reason)

    async def _transfer(self) -> Kind | None:
        whole = self.request.whole
        transfer = await in_thread(self._begin)
        async with self._connection() as (reader, writer):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._ask(transfer, "SOA", reader, writer)
            except TimeoutError as err:
                reason = f"no answer to the SOA query within {ANSWER_SECONDS:g} seconds"
                raise self.failed("TOO_SLOW", f"{reason}: {RETRIED}") from err
            if not whole and self._is_current(transfer):
                await in_thread(self._note, transfer)
                return None
            least = None if whole or transfer.soa is None else transfer.soa.serial
            if transfer.serial is not None and not whole:
                with self._falling_back():
                    return await self._receive_changes(transfer, least, reader, writer)
        # Over another connection: a server may close this one after a query, or after an error.
        transfer = await in_thread(self._begin)
        async with self._connection() as (reader, writer):
            await self._ask(transfer, "AXFR", reader, writer, least)
            return await in_thread(self._commit, transfer)

    async def _receive_changes(
        self,
        transfer: Transfer,
        least: int | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> Kind | None:
        """Receives the changes since the copy, over another connection if the server has closed this one."""
        try:
            await self._ask(transfer, "IXFR", reader, writer, least)
        except FetchFailed as err:
            if err.code != "TRUNCATED":
                raise
            transfer = await in_thread(self._begin)
            async with self._connection() as (other_reader, other_writer):
                await self._ask(transfer, "IXFR", other_reader, other_writer, least)
        await self._advance(transfer)
        return await in_thread(self._commit, transfer)

    @contextmanager
    def _falling_back(self) -> Iterator[None]:
        """After most failures of an incremental transfer, the whole zone may still be right."""
        try:
            yield
        except (TransferFailed, FetchFailed) as err:
            code, reason = err.args if isinstance(err, TransferFailed) else (err.code, err.reason)
            if code in NO_WHOLE_ZONE:
                raise
            text = f"list {self.zone.name}: no incremental transfer, so the whole zone follows: {reason}"
            event(logging.WARNING, text, zone=self.zone.name, code=code)

    def _begin(self) -> Transfer:
        state = TransferState.load(self.copies.state)
        copy: Path | None = self.copies.copy
        try:
            is_whole = state is not None and self.copies.copy.stat().st_size == state.size
        except OSError:
            is_whole = False
        if state is None or state.zone != self.zone.name or not is_whole:
            copy = None
        return Transfer(
            self.zone.name,
            key=self.key,
            copy=copy,
            into=self.copies.partial,
            max_records=self.options.max_records,
            max_bytes=self.zone.max_bytes,
        )

    def _is_current(self, transfer: Transfer) -> bool:
        """Whether the primary has the serial of the copy. Raises `FetchFailed` if its serial is older."""
        soa = transfer.soa
        assert soa is not None  # noqa: S101  # the response to the query was complete
        if transfer.serial is None or is_newer(soa.serial, transfer.serial):
            return False
        if soa.serial == transfer.serial:
            return True
        reason = f"its serial {soa.serial} is not newer than {transfer.serial} of the copy (RFC 1982)"
        advice = f"raise it there, or take that zone: dnsblock source refresh {self.zone.name} --whole"
        raise self.failed("SERIAL", f"{reason}: {advice}")

    async def _advance(self, transfer: Transfer) -> None:
        """Lets the changes be enforced before the copy is stored, which takes seconds for a large zone."""
        changes = await in_thread(transfer.changes)
        if self.request.advance is None or changes is None or transfer.serial is None or transfer.soa is None:
            return
        try:
            await self.request.advance(transfer.serial, changes, transfer.soa.serial)
        except Refused as err:  # it was logged; the new copy is published as usual
            event(logging.DEBUG, f"not enforced in advance: {err}", zone=self.zone.name)

    def _commit(self, transfer: Transfer) -> Kind | None:
        """Gives the new copy its name."""
        kind = transfer.finish()
        if kind is not None:
            # The state has the size of the copy: after a crash in between, all of it is transferred again.
            try:
                self.copies.partial.replace(self.copies.copy)
                durable.sync_folder(self.copies.copy.parent)
            except OSError as err:
                raise self._unwritable(err) from err
        self._note(transfer)
        return cast(Kind | None, kind)

    def _note(self, transfer: Transfer) -> None:
        """Stores that the copy is current now."""
        soa = transfer.soa
        assert soa is not None  # noqa: S101  # the response was complete
        try:
            state = TransferState.of(self.zone.name, str(self.server), soa, utc_now(), self.copies.copy)
            state.store(self.copies.state)
        except OSError as err:
            raise self._unwritable(err) from err

    def _unwritable(self, err: OSError) -> FetchFailed:
        advice = "free disk space (`df -h`), and check that the daemon's user can write to the folder"
        return self.failed("UNWRITABLE", f"{err.filename}: {err.strerror or err}: {advice}")

    async def _ask(
        self,
        transfer: Transfer,
        rtype: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        least: int | None = None,
    ) -> None:
        """Sends a query, and passes on its response until it is complete."""
        received = 0
        try:
            writer.write(transfer.query(rtype, least))
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await writer.drain()
                    piece = await reader.read(PIECE_BYTES)
                if not piece:
                    reason = f"the connection ends within the response to {rtype}, after {received:,} bytes"
                    raise self.failed("TRUNCATED", f"{reason}: {RETRIED}; see the log of the primary")
                received += len(piece)
                if self.progress is not None and rtype != "SOA":
                    self.progress(received, None)
                if await in_thread(transfer.take, piece):
                    return
        except TimeoutError as err:
            reason = f"no data for {SILENCE_SECONDS:g} seconds, after {received:,} bytes: {RETRIED}"
            raise self.failed("TOO_SLOW", reason) from err
        except OSError as err:
            reason = f"the connection fails after {received:,} bytes ({err.strerror or err}): {RETRIED}"
            raise self.failed("TRUNCATED", reason) from err

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await self._connect()
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port, tls = str(self.server.host), self.server.port, self.options.tls
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    *(host, port),
                    limit=PIECE_BYTES,
                    ssl=self.context,
                    server_hostname=None if tls is None else tls.name,
                )
        except TimeoutError as err:
            reason = f"no connection within {CONNECT_SECONDS:g} seconds: check address, port and firewall"
            raise self.failed("UNREACHABLE", reason) from err
        except ssl.SSLError as err:
            why = getattr(err, "verify_message", None) or err.reason or "the handshake fails"
            raise self.failed("TLS", f"{why}: check `rpz.tls` and the primary's certificate") from err
        except OSError as err:
            reason = f"no connection ({err.strerror or err}): check address, port and firewall"
            raise self.failed("UNREACHABLE", reason) from err
        session = writer.get_extra_info("ssl_object")
        if session is not None and session.selected_alpn_protocol() != "dot":
            writer.transport.abort()
            raise self.failed("TLS", "the server does not offer DNS over TLS (ALPN `dot`, RFC 9103)")
        return reader, writer
