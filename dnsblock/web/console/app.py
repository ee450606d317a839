"""The application of the console: routes, checks before each page, and the headers of every response."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dnsblock.errors import Refused
from dnsblock.http.answers import OF_STATUS, ApiError, code_of
from dnsblock.http.callers import caller_of
from dnsblock.http.control import Control
from dnsblock.http.orders import shown_to
from dnsblock.http.paths import RawPath
from dnsblock.http.submissions import Turns, turns_for
from dnsblock.log import fault
from dnsblock.web.console.beside import BASE
from dnsblock.web.console.forms import read_form
from dnsblock.web.console.gate import ConsoleGate, check_same_site
from dnsblock.web.console.page import Page, Visit, back_to, place, see
from dnsblock.web.console.pages import PAGES
from dnsblock.web.console.rendering import statics
from dnsblock.web.console.texts import texts_for

POLICY = "; ".join(
    [
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:"),
        *("connect-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"),
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with `no-referrer`, browsers hide the origin of a form as well
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "strict-transport-security": "max-age=31536000",
    "cache-control": "no-store",
}
LARGE = 4  # large forms that are received at the same time
FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}


def console_app(control: Control, gate: ConsoleGate) -> ASGIApp:
    """The application of the console. Its first page is at /console/."""
    visits = _Visits(control, gate)
    app = Starlette(
        routes=[
            Route("/", _go_to_console),
            Route(BASE, _go_to_console),
            Route(f"{BASE}/static/{{name}}", _static),
            *(Route(f"{BASE}{one.path}", visits.endpoint(one), methods=[one.method]) for one in PAGES),
        ],
        exception_handlers={
            HTTPException: visits.refuse,
            ClientDisconnect: visits.refuse,
            Exception: visits.fail,
        },
    )
    app.router.redirect_slashes = False
    return _WithHeaders(RawPath(app))


async def _go_to_console(_: Request) -> Response:
    return RedirectResponse(f"{BASE}/", 303)


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    found = next((one for one in statics().values() if one.name == name), None)
    if found is None:
        raise ApiError(404, "NOT_FOUND", "there is no such file")
    return Response(found.content, headers=FOR_EVER, media_type=found.media_type)


class _Visits:
    """Makes a visit of each request, after all checks."""

    def __init__(self, control: Control, gate: ConsoleGate) -> None:
        self._control, self._gate, self._turns = control, gate, Turns(LARGE)

    def endpoint(self, page: Page) -> Callable[[Request], Any]:
        """The handler of a route."""

        async def handle(request: Request) -> Response:
            if page.method == "POST":
                check_same_site(request)
            visitor = self._gate.visitor(request, is_use=page.is_use)
            texts = texts_for(request)
            if page.role is None:
                caller = None
            elif visitor is None:
                return self._sign_in_first(page, request)
            else:
                caller = caller_of(visitor.client, page.role)
            visit = Visit(request, self._control, self._gate, texts, visitor, caller)
            if page.method == "GET":
                return await self._show(page, visit)
            async with self._turn(page, visit):
                return await self._show(page, await self._with_form(page, visit))

        return handle

    async def _show(self, page: Page, visit: Visit) -> Response:
        try:
            return await page.handler(visit)
        except Refused as err:
            self._gate.count_refused("REFUSED")
            problems = err.as_json() if visit.caller is None else shown_to(visit.caller, err.as_json())
            return visit.render("error.html", status=409, reason="", problems=problems, code="REFUSED")

    def _turn(self, page: Page, visit: Visit) -> AbstractAsyncContextManager[None]:
        """The turn that a large form waits for. Only pages with a role take one. Raises `ApiError`."""
        if visit.caller is None:
            return nullcontext()
        return turns_for(visit.request, page.limits.body, self._turns, str(visit.caller.principal))

    async def _with_form(self, page: Page, visit: Visit) -> Visit:
        """The visit with the form that was sent, if it is of this session. Raises `ApiError`.

        Signing in and the choice of a language need no session: a page may be older than it.
        """
        sent = await read_form(visit.request, page.limits)
        if visit.visitor is not None and page.role is not None:
            self._gate.check_form(visit.visitor, sent.text("csrf"))
        return Visit(
            *(visit.request, visit.control, visit.gate, visit.texts, visit.visitor, visit.caller), sent=sent
        )

    def _sign_in_first(self, page: Page, request: Request) -> Response:
        self._gate.count_refused("UNAUTHENTICATED")
        if page.method == "GET" and page.is_use:
            return see(place("login", to=back_to(request)))
        raise ApiError(401, "UNAUTHENTICATED", "the session has ended: sign in again")

    # ------- Errors -------

    async def refuse(self, request: Request, err: Exception) -> Response:
        """The page for a request that is not carried out."""
        self._gate.count_refused(code_of(err))
        if not isinstance(err, HTTPException):
            return Response(status_code=400)
        is_known = isinstance(err, ApiError) or err.status_code not in OF_STATUS
        reason = err.detail if is_known else "there is no such page"
        problems = Refused(err.problems).as_json() if isinstance(err, ApiError) else []
        facts = {"reason": reason, "problems": problems, "code": code_of(err)}
        visitor = self._gate.visitor(request, is_use=False)
        visit = Visit(request, self._control, self._gate, texts_for(request), visitor, None)
        response = visit.render("error.html", status=err.status_code, **facts)
        for name, value in (err.headers or {}).items():
            response.headers[name] = value
        return response

    async def fail(self, request: Request, _: Exception) -> Response:
        """The page after an internal error; the traceback is logged."""
        self._gate.count_refused("INTERNAL")
        fault(f"internal error in {request.method} {request.scope['path']}")
        return Response(
            "internal error: the log of the daemon has the traceback", 500, media_type="text/plain"
        )


class _WithHeaders:
    """Adds the headers to every response, also to those of errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                more = [
                    (name.encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name.encode() not in own
                ]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, add)
