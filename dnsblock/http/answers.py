"""Request parsing and responses shared by the parts of the control API."""

import asyncio
import threading
from concurrent.futures import Future
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from dnsblock import times
from dnsblock.change import Served
from dnsblock.errors import PartlyRefused, Problem, Refused
from dnsblock.http.control import Control, View
from dnsblock.log import fault
from dnsblock.principal import Principal

BODY_SECONDS = 60.0  # for a body over a local socket
LOOKUP_SECONDS = 2.0  # for the name of a user
_lookups: dict[int, Future[Principal]] = {}  # one at a time for each user

Model = TypeVar("Model", bound=BaseModel)


def asked(request: Request, model: type[Model]) -> Model:
    """Parses the query string of a request. Raises `HTTPException` with the problems."""
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as err:
        wrong = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in err.errors())
        raise HTTPException(422, wrong) from err


async def principal_of(request: Request) -> Principal:
    """The sender of a request, according to the kernel. Without a name if the user database does not answer.

    The threads are not those of the event loop: a database that hangs must not delay a publish, or a stop.
    """
    uid = request.state.peer_uid
    lookup = _lookups.get(uid)
    if lookup is None:
        lookup = _lookups[uid] = Future()
        threading.Thread(target=_look_up, args=(uid, lookup), name="user", daemon=True).start()
    try:
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(lookup)), LOOKUP_SECONDS)
    except TimeoutError:
        return Principal("local", uid)


def _look_up(uid: int, lookup: Future[Principal]) -> None:
    found = Principal.local(uid)
    _lookups.pop(uid, None)
    lookup.set_result(found)


async def view_of(control: Control, request: Request) -> View:
    """The readable state, for the sender of a request."""
    return control.view(await principal_of(request))


async def body(request: Request, file: str, max_bytes: int) -> bytes:
    """The body of a request, with a limit of size and time. Raises `Refused`."""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > max_bytes:
                    raise Refused([Problem(file, None, "", f"larger than {max_bytes:,} bytes")])
    except TimeoutError as err:
        reason = f"did not come within {BODY_SECONDS:.0f} seconds"
        raise Refused([Problem(file, None, "", reason)]) from err
    return bytes(data)


async def improper(request: Request, err: Exception) -> JSONResponse:
    """The response to an invalid request, perhaps from a command of another version."""
    if not isinstance(err, HTTPException):
        raise err
    is_known = err.status_code not in (404, 405)
    reason = (
        err.detail
        if is_known
        else f"this version of dnsblock has no {request.method} {request.scope['path']}"
    )
    return JSONResponse({"error": "invalid request", "reason": reason}, status_code=err.status_code)


async def failed(request: Request, err: Exception) -> JSONResponse:
    """The response after an internal error; the traceback is logged."""
    reason = (
        f"internal error ({type(err).__name__}): please report it with the traceback in the log of the daemon"
    )
    fault(f"internal error in {request.method} {request.scope['path']}")
    return JSONResponse({"error": "internal error", "reason": reason}, status_code=500)


def served(done: Served) -> JSONResponse:
    """The response after a publish: the serial now served, and the changes."""
    return JSONResponse(done.facts())


def refused(err: Refused) -> JSONResponse:
    """The response for refused input: the reasons, and what is served if everything else was done."""
    facts = {"served": err.served} if isinstance(err, PartlyRefused) else {}
    return JSONResponse({"error": "refused", "problems": err.as_json(), **facts}, status_code=409)


def utc(time: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC."""
    return None if time is None else times.utc(time)
