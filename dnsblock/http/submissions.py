"""The body of POST /v1/orders: a form with order documents, their signatures and their entries files."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    nullcontext,
)
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from dnsblock.errors import printable
from dnsblock.http.answers import ApiError
from dnsblock.http.connections import body_seconds
from dnsblock.orders.submission import Submitted

PARTS = ("document", "signatures", "entries")
MAX_SIGNATURES_BYTES = 64 << 10
FORM_BYTES = 8 << 10  # of the form itself, for each part: its headers and boundary
SMALL_BYTES = 2 << 20  # a body up to this size does not wait for others
TURN_SECONDS = 30.0  # that a large body waits for others; its connection has a longer deadline
RETRY = {"retry-after": "10"}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the requests of one application."""

    body: int  # bytes
    documents: int
    large: int  # bodies of more than `SMALL_BYTES` that are received at the same time


class _Parser(MultiPartParser):
    """Keeps the parts in memory: their total is limited, and a service may not have a folder for files."""

    spool_max_size = 1 << 40


class Turns:
    """Limits how many large requests are in memory: in all, and one for each caller."""

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._own: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """Waits until the block may hold a large request. Raises `ApiError`."""
        own = self._own.setdefault(caller, asyncio.Lock())
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await held.enter_async_context(own)
                    await held.enter_async_context(self._all)
            except TimeoutError as err:
                reason = "other large requests are being processed: try again later"
                raise ApiError(503, "BUSY", reason, headers=RETRY) from err
            yield


@asynccontextmanager
async def submission(
    request: Request, limits: Limits, turns: Turns, caller: str
) -> AsyncIterator[list[Submitted]]:
    """The documents of a form, while the block processes them. Raises `ApiError`."""
    async with turns_for(request, limits.body, turns, caller):
        most_files = 3 * limits.documents
        async with receive_form(request, limits.body, max_files=most_files, max_fields=0) as parts:
            documents = await _documents(parts, limits)
        yield documents


def turns_for(request: Request, most: int, turns: Turns, caller: str) -> AbstractAsyncContextManager[None]:
    """The turn that a request with a large body must wait for. Raises `ApiError` if it is not a form."""
    size = _announced(request, most)
    return nullcontext() if size is not None and size <= SMALL_BYTES else turns.turn(caller)


@asynccontextmanager
async def receive_form(
    request: Request, most: int, *, max_files: int, max_fields: int, max_field_bytes: int = 0
) -> AsyncIterator[list[tuple[str, UploadFile | str]]]:
    """The parts of a form with a body of at most `most` bytes, in memory, while the block reads them.

    Raises `ApiError`.
    """
    seconds = body_seconds(request, _announced(request, most) or 0)
    options = {"max_files": max_files, "max_fields": max_fields, "max_part_size": max_field_bytes}
    try:
        async with asyncio.timeout(seconds), aclosing(_bounded(request, most)) as stream:
            form = await _Parser(request.headers, stream, **options).parse()
    except TimeoutError as err:
        raise ApiError(408, "TOO_SLOW", f"the body did not come within {seconds:.0f} seconds") from err
    except MultiPartException as err:
        reason = f"not a valid form, with each part sent as a file: {printable(err.message)}"
        raise ApiError(400, "MALFORMED", reason) from err
    try:
        yield form.multi_items()
    finally:
        await form.close()


def _announced(request: Request, most: int) -> int | None:
    """The announced size of a form; None if there is none. Raises `ApiError`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "send a form (multipart/form-data)")
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isascii() and announced.isdigit() else None
    if size is not None and size > most:
        raise _too_large(most)
    return size


def _too_large(most: int) -> ApiError:
    return ApiError(413, "TOO_LARGE", f"the body is larger than {most:,} bytes")


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most:
            raise _too_large(most)
        yield chunk


async def _documents(parts: list[tuple[str, UploadFile | str]], limits: Limits) -> list[Submitted]:
    """Signatures and entries belong to the document before them. Raises `ApiError`."""
    documents: list[Submitted] = []
    for name, part in parts:
        if name not in PARTS or isinstance(part, str):
            reason = f"unknown part '{printable(name[:40])}': the parts are {', '.join(PARTS)}"
            raise ApiError(400, "MALFORMED", reason)
        data = await part.read()
        if name == "document":
            documents.append(Submitted(part.filename or "document", data))
            continue
        if not documents or getattr(documents[-1], name) is not None:
            reason = f"a part '{name}' must follow its document, and each document has at most one"
            raise ApiError(400, "MALFORMED", reason)
        if name == "signatures" and len(data) > MAX_SIGNATURES_BYTES:
            raise ApiError(413, "TOO_LARGE", f"signatures of more than {MAX_SIGNATURES_BYTES:,} bytes")
        last = documents[-1]
        documents[-1] = replace(last, entries=data) if name == "entries" else replace(last, signatures=data)
    if not documents:
        raise ApiError(400, "MALFORMED", "there is no part 'document'")
    if len(documents) > limits.documents:
        raise ApiError(413, "TOO_LARGE", f"more than {limits.documents:,} documents")
    if len({one.file for one in documents}) != len(documents):
        raise ApiError(400, "MALFORMED", "two documents have the same file name")
    return documents
