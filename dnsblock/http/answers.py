"""Request parsing and responses shared by all routes.

Errors are problem details (RFC 9457): `code` and `problems` are for programs, `detail` is for people.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from dnsblock import times
from dnsblock.change import Served
from dnsblock.errors import PartlyRefused, Problem, Refused, printable
from dnsblock.http.connections import body_seconds
from dnsblock.http.models import Model
from dnsblock.http.models_operations import Published
from dnsblock.log import fault
from dnsblock.principal import Principal

LOOKUP_SECONDS = 2.0  # for the name of a user
KNOWN_SECONDS = 60.0  # then the name is looked up again
_lookups: dict[int, Future[Principal]] = {}  # one at a time for each user
_found: dict[int, tuple[float, Principal]] = {}  # the last one of each user, and when

# The title of each code, which is the last part of the type (RFC 9457, section 3.1).
TITLES = {
    "MALFORMED": "malformed request",
    "INVALID": "invalid value",
    "UNAUTHENTICATED": "no valid credentials",
    "FORBIDDEN": "not allowed for this client",
    "NOT_FOUND": "not found",
    "METHOD_NOT_ALLOWED": "method not allowed",
    "TOO_SLOW": "the request took too long",
    "REFUSED": "refused",
    "UNKNOWN_EVENT": "unknown event",
    "TOO_LARGE": "request too large",
    "UNSUPPORTED_MEDIA_TYPE": "unsupported media type",
    "BUSY": "too many requests at once",
    "UNAVAILABLE": "nothing can be accepted now",
    "INTERNAL": "internal error",
}
OF_STATUS = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}

Parsed = TypeVar("Parsed", bound=BaseModel)


class ApiError(HTTPException):
    """A request that is not carried out; it becomes a response with problem details."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        problems: Iterable[Problem] = (),
        headers: Mapping[str, str] | None = None,
        *,
        served: Mapping[str, Any] | None = None,
    ) -> None:
        """`served`: the snapshot in force, if everything else in the request was carried out."""
        super().__init__(status, detail, headers)
        self.code = code
        self.problems = tuple(problems)
        self.served = served


def asked(request: Request, model: type[Parsed], *, only: Collection[str] | None = None) -> Parsed:
    """Parses the query string of a request. Raises `ApiError` with the problems.

    `only`: the parameters that are read; all others are ignored.
    """
    given = request.query_params
    if only is not None:
        given = QueryParams([(key, value) for key, value in given.multi_items() if key in only])
    if len(given) != len(given.multi_items()):
        raise ApiError(422, "INVALID", "a parameter is repeated: give each once")
    try:
        return model.model_validate(dict(given))
    except ValidationError as err:
        wrong = "; ".join(
            f"{one['loc'][0]}: {one['msg'].removeprefix('Value error, ')}" for one in err.errors()
        )
        raise ApiError(422, "INVALID", printable(wrong)) from err


def not_a_name(err: Exception) -> ApiError:
    """The error for text that is not a domain name."""
    return ApiError(400, "INVALID", str(err))


async def principal_of(request: Request) -> Principal:
    """The sender of a request, according to the kernel. Without a name if the user database does not answer.

    The threads are not those of the event loop: a database that hangs must not delay a publish, or a stop.
    """
    uid = request.state.peer_uid
    found = _found.get(uid)
    if found is not None and time.monotonic() - found[0] < KNOWN_SECONDS:
        return found[1]
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
    _found[uid] = (time.monotonic(), found)
    _lookups.pop(uid, None)
    lookup.set_result(found)


async def body(request: Request, file: str, max_bytes: int) -> bytes:
    """The body of a request, with a limit of size and time. Raises `ApiError`."""
    data = bytearray()
    seconds = body_seconds(request, 0)
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                data += part
                if len(data) > max_bytes:
                    reason = f"TOO_LARGE: larger than {max_bytes:,} bytes"
                    raise ApiError(413, "TOO_LARGE", reason, [Problem(file, None, "", reason)])
    except TimeoutError as err:
        reason = f"TOO_SLOW: did not come within {seconds:.0f} seconds"
        raise ApiError(408, "TOO_SLOW", reason, [Problem(file, None, "", reason)]) from err
    return bytes(data)


# ------- Errors


def problem_details(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """An error as RFC 9457 defines it, with `code` and further members."""
    details = {
        "type": f"urn:dnsblock:problem:{code.lower().replace('_', '-')}",
        "title": TITLES[code],
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }
    media_type = "application/problem+json"
    return JSONResponse(details, status_code=status, headers=headers, media_type=media_type)


def code_of(err: Exception) -> str:
    """The code of an error, also of one by starlette."""
    if isinstance(err, ApiError):
        return err.code
    return OF_STATUS.get(err.status_code, "MALFORMED") if isinstance(err, HTTPException) else "MALFORMED"


def refusals(count_refused: Callable[[str], None]) -> dict[Any, Callable[[Request, Exception], Any]]:
    """The handlers of an application for errors: each response is counted by its code."""

    async def refuse(request: Request, err: Exception) -> JSONResponse:
        count_refused(code_of(err))
        return await improper(request, err)

    async def fail(request: Request, err: Exception) -> JSONResponse:
        count_refused("INTERNAL")
        return await failed(request, err)

    return {HTTPException: refuse, ClientDisconnect: refuse, Exception: fail}


async def improper(request: Request, err: Exception) -> JSONResponse:
    """The response to an invalid request, perhaps from a command of another version."""
    if isinstance(err, ClientDisconnect):
        return problem_details(400, "MALFORMED", "the client has disconnected")
    if not isinstance(err, HTTPException):
        raise err
    is_known = isinstance(err, ApiError) or err.status_code not in OF_STATUS
    reason = (
        err.detail
        if is_known
        else f"this version of dnsblock has no {request.method} {request.scope['path']}"
    )
    more: dict[str, Any] = {}
    if isinstance(err, ApiError) and err.problems:
        more["problems"] = Refused(err.problems).as_json()
    if isinstance(err, ApiError) and err.served is not None:
        more["served"] = err.served
    headers = {"allow": _methods(request)} if err.status_code == 405 else err.headers
    return problem_details(err.status_code, code_of(err), reason, headers=headers, **more)


def _methods(request: Request) -> str:
    """The methods of a path, which may be those of several routes."""
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE)
    return ", ".join(sorted({method for route in routes for method in route.methods}))


async def failed(request: Request, err: Exception) -> JSONResponse:
    """The response after an internal error; the traceback is logged."""
    reason = (
        f"internal error ({type(err).__name__}): please report it with the traceback in the log of the daemon"
    )
    fault(f"internal error in {request.method} {request.scope['path']}")
    return problem_details(500, "INTERNAL", reason)


def refused(err: Refused) -> ApiError:
    """The error for refused input: the reasons, and the snapshot in force if everything else was done."""
    served = err.served if isinstance(err, PartlyRefused) else None
    detail = "; ".join(one.reason for one in err.problems[:1]) or "refused"
    return ApiError(409, "REFUSED", printable(detail), err.problems, served=served)


# ------- Results


def answer(model: type[Model], facts: Mapping[str, Any]) -> Response:
    """The response with these facts, as the model describes them."""
    return model.model_validate(facts).response()


async def changed(publish: Awaitable[Served]) -> Response:
    """The response after a publish: the serial now served and the changes, or the refusal."""
    try:
        return answer(Published, (await publish).facts())
    except Refused as err:
        raise refused(err) from err


def utc(time: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC."""
    return None if time is None else times.utc(time)
