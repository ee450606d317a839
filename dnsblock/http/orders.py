"""The control API for orders: submits documents, and annuls an order."""

import asyncio
import contextlib
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.client import MAX_SUBMITTED_BYTES, MAX_SUBMITTED_DOCUMENTS
from dnsblock.errors import Problem, Refused
from dnsblock.http.answers import asked, body, principal_of, refused
from dnsblock.http.control import Control
from dnsblock.orders.submission import Submitted

MAX_MANIFEST_BYTES = 1 << 20
SMALL_BYTES = 2 << 20  # a body up to this size does not wait for others


class Annul(BaseModel):
    """The query of POST /v1/orders/annul."""

    issuer: Annotated[str, Field(max_length=63)]
    order_id: Annotated[str, Field(max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class Part(BaseModel):
    """An entry of the manifest: the sizes in the body of a document and of the entries file after it."""

    file: Annotated[str, Field(max_length=4096)]
    document: Annotated[int, Field(ge=0)]
    entries: Annotated[int, Field(ge=0)] | None = None


MANIFEST = TypeAdapter(Annotated[list[Part], Field(min_length=1, max_length=MAX_SUBMITTED_DOCUMENTS)])


def orders_routes(control: Control) -> list[Route]:
    """`/v1/orders`: POST submits documents. `/v1/orders/annul`: POST annuls an order."""
    one_at_a_time = asyncio.Lock()  # a body may be large

    async def post_orders(request: Request) -> JSONResponse:
        """Takes a line of JSON listing the documents, then their bytes; responds when they are in force."""
        try:
            announced = request.headers.get("content-length", "")
            is_small = announced.isascii() and announced.isdigit() and int(announced) <= SMALL_BYTES
            async with contextlib.nullcontext() if is_small else one_at_a_time:
                documents = _documents(await body(request, "order submit", MAX_SUBMITTED_BYTES))
                served, verdicts = await control.actions.submit(await principal_of(request), documents)
        except Refused as err:
            return refused(err)
        except ClientDisconnect:
            return JSONResponse({"error": "gone"}, status_code=400)  # the client has disconnected
        facts = None if served is None else served.facts()
        return JSONResponse({"documents": verdicts, "served": facts})

    async def post_annul(request: Request) -> JSONResponse:
        """Ends the entries of an order, and responds when that is served."""
        what = asked(request, Annul)
        try:
            by = await principal_of(request)
            served, ended = await control.actions.annul(by, what.issuer, what.order_id, what.reason)
        except Refused as err:
            return refused(err)
        return JSONResponse({"ended": ended, "served": served.facts()})

    return [
        Route("/v1/orders", post_orders, methods=["POST"]),
        Route("/v1/orders/annul", post_annul, methods=["POST"]),
    ]


def _documents(data: bytes) -> list[Submitted]:
    """The documents in a body. Raises `Refused`."""
    end = data.find(b"\n", 0, MAX_MANIFEST_BYTES)
    try:
        parts = MANIFEST.validate_json(data[: max(end, 0)])
    except ValidationError as err:
        raise _malformed() from err
    documents: list[Submitted] = []
    at = end + 1
    for part in parts:
        start, at = at, at + part.document
        content = data[start:at]
        entries = None
        if part.entries is not None:
            start, at = at, at + part.entries
            entries = data[start:at]
        documents.append(Submitted(part.file, content, entries))
    if at != len(data) or len({one.file for one in documents}) != len(documents):
        raise _malformed()
    return documents


def _malformed() -> Refused:
    reason = "the request is not what `dnsblock order submit` of this version sends"
    return Refused([Problem("order submit", None, "", reason)])
