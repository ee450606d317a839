"""The body of POST /v1/orders: a form with order documents, their signatures and their entries files."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from dnsblock.errors import printable
from dnsblock.http.answers import ApiError
from dnsblock.http.connections import BODY_SECONDS
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
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "send a form (multipart/form-data)")
    announced = request.headers.get("content-length", "")
    size = int(announced) if announced.isascii() and announced.isdigit() else None
    if size is not None and size > limits.body:
        raise _too_large(limits)
    is_small = size is not None and size <= SMALL_BYTES
    async with nullcontext() if is_small else turns.turn(caller):
        yield await _read(request, limits, size or 0)


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, "TOO_LARGE", f"the body is larger than {limits.body:,} bytes")


async def _read(request: Request, limits: Limits, size: int) -> list[Submitted]:
    connection = getattr(request.state, "connection", None)
    seconds = BODY_SECONDS if connection is None else connection.expect(size)
    try:
        async with asyncio.timeout(seconds), aclosing(_bounded(request, limits)) as stream:
            parser = _Parser(request.headers, stream, max_files=3 * limits.documents, max_fields=0)
            form = await parser.parse()
    except TimeoutError as err:
        raise ApiError(408, "TOO_SLOW", f"the body did not come within {seconds:.0f} seconds") from err
    except MultiPartException as err:
        reason = f"not a valid form, with each part sent as a file: {printable(err.message)}"
        raise ApiError(400, "MALFORMED", reason) from err
    try:
        return await _documents(form.multi_items(), limits)
    finally:
        await form.close()


async def _bounded(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limits.body:
            raise _too_large(limits)
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
