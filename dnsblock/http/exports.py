"""The handler for exports: policy zones as a file for other software."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dnsblock.errors import Refused, printable
from dnsblock.http.answers import ApiError, asked, refused
from dnsblock.http.callers import Identify, view_of
from dnsblock.http.control import Control
from dnsblock.http.models_queries import ExportQuery
from dnsblock.log import event, fault
from dnsblock.names import NameRefused, canonical
from dnsblock.policy.allowed import zone_of
from dnsblock.rpz.export import Export, Wanted

MOST = 4  # at the same time: each has a thread
PIECE_BYTES = 64 << 10


def export_routes(control: Control, identify: Identify) -> list[Route]:
    """The routes for exports."""
    running = asyncio.Semaphore(MOST)

    async def get_export(request: Request) -> Response:
        """The zones in force now, as one file. It is complete only with its last line, the counts."""
        view, query = await view_of(control, identify, request), asked(request, ExportQuery)
        try:
            origin = None if query.origin is None else canonical(query.origin)
        except NameRefused as err:
            raise ApiError(400, "INVALID", f"origin {printable(query.origin or '')}: {err}") from err
        names = query.zones.split(",") if query.zones else []
        policy = view.publisher.policy
        facts = (policy.placed, policy.snapshot.serial, zone_of(policy.allowed))
        try:
            export = Export.of(Wanted(query.format, origin, names), view.config, *facts)
        except Refused as err:
            raise refused(err) from err
        if running.locked():
            raise ApiError(
                503, "BUSY", f"{MOST} exports are running: try again", headers={"Retry-After": "10"}
            )
        return StreamingResponse(_pieces(export, running), media_type="text/plain; charset=utf-8")

    return [Route("/v1/export", get_export)]


async def _pieces(export: Export, running: asyncio.Semaphore) -> AsyncIterator[bytes]:
    """The file. A thread writes it to a pipe, no faster than the client reads."""
    await running.acquire()
    loop, descriptors = asyncio.get_running_loop(), list[int]()

    def write() -> None:
        try:
            _write(export, descriptors[1])
        finally:  # even if the client has gone long ago
            with contextlib.suppress(RuntimeError):  # the process ends
                loop.call_soon_threadsafe(running.release)

    try:
        descriptors += os.pipe()
        threading.Thread(target=write, name="export", daemon=True).start()
    except BaseException:  # no descriptor or no thread is left
        running.release()
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    reader = asyncio.StreamReader(limit=PIECE_BYTES)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptors[0], "rb", buffering=0)
    )
    try:
        while piece := await reader.read(PIECE_BYTES):
            yield piece
    finally:
        transport.close()  # the writing thread then gets an error, and ends


def _write(export: Export, descriptor: int) -> None:
    try:
        export.write(descriptor)
    except BrokenPipeError:
        pass  # the client has gone
    except OSError as err:  # the client notices that the last line is missing
        event(logging.ERROR, f"an export ended early: {err}")
    except Exception:
        fault("internal error in an export")
    finally:
        os.close(descriptor)
