"""The HTTPS API: for authorities that push orders, and for the provider's own staff."""

from collections import Counter

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dnsblock.access import ApiAccess, Role
from dnsblock.http.answers import TITLES, ApiError, refusals
from dnsblock.http.api import routes
from dnsblock.http.callers import Caller, api_caller
from dnsblock.http.connections import TlsConnections
from dnsblock.http.control import Control
from dnsblock.http.events import Streams
from dnsblock.http.orders import Site
from dnsblock.http.paths import RawPath
from dnsblock.http.submissions import FORM_BYTES, MAX_SIGNATURES_BYTES, Limits
from dnsblock.orders.order import MAX_DOCUMENT_BYTES
from dnsblock.orders.schema import MAX_ENTRIES

NAME_BYTES = 254  # of a name in text form, with its line end
MAX_BODY_BYTES = MAX_DOCUMENT_BYTES + MAX_SIGNATURES_BYTES + MAX_ENTRIES * NAME_BYTES + 3 * FORM_BYTES
MAX_DOCUMENTS = 100  # in one request
LIMITS = Limits(MAX_BODY_BYTES, MAX_DOCUMENTS, large=4)
STATUSES = (200, 201, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 500, 503)


class Gate:
    """The credentials in force, the open streams and the counts of the issuers' API."""

    def __init__(self, access: ApiAccess | None, most: int) -> None:
        """`most`: connections at the same time."""
        self.streams, self.connections = Streams(), TlsConnections(most)
        self.responses: Counter[int] = Counter(dict.fromkeys(STATUSES, 0))  # by status
        self.refused: Counter[str] = Counter(dict.fromkeys(TITLES, 0))  # by code
        self._access = access
        self.connections.context = None if access is None else access.context

    @property
    def open_streams(self) -> int:
        """Open streams of events."""
        return self.streams.count

    def renew(self, access: ApiAccess | None) -> None:
        """Uses the credentials that a reload has read."""
        if access is None or access is self._access:
            return
        self._access = access
        self.streams.end()
        self.connections.renew(access.context)

    async def identify(self, request: Request, role: Role) -> Caller:
        """The client of a request, if it has the role. Raises `ApiError`."""
        if self._access is None:
            raise ApiError(401, "UNAUTHENTICATED", "there are no clients")
        return api_caller(self._access, request, role)

    def count_refused(self, code: str) -> None:
        """Counts a request or a document that is refused."""
        self.refused[code] += 1


def issuers_app(control: Control, gate: Gate) -> ASGIApp:
    """The application behind the HTTPS listener. A client of issuers sees only their orders."""
    app = Starlette(
        routes=routes(control, Site(gate.identify, LIMITS, gate.count_refused), gate.streams),
        exception_handlers=refusals(gate.count_refused),
    )
    app.router.redirect_slashes = False
    return _Counted(RawPath(app), gate.responses)


class _Counted:
    """Counts the responses of an application by status."""

    def __init__(self, app: ASGIApp, responses: Counter[int]) -> None:
        self._app, self._responses = app, responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._responses[message["status"]] += 1
            await send(message)

        await self._app(scope, receive, count)
