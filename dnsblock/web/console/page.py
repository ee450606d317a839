"""One page of the console: its path, the role that it needs, and a visit of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dnsblock.access import Role
from dnsblock.http.callers import Caller
from dnsblock.http.control import Control, View
from dnsblock.web.console.beside import BASE
from dnsblock.web.console.forms import FormLimits, Sent
from dnsblock.web.console.gate import ConsoleGate, Visitor
from dnsblock.web.console.rendering import render
from dnsblock.web.console.texts import Texts


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a page, after all checks."""

    request: Request
    control: Control
    gate: ConsoleGate
    texts: Texts
    visitor: Visitor | None
    caller: Caller | None
    sent: Sent = field(default_factory=Sent)

    @property
    def by(self) -> Caller:
        """The caller, on pages that need a role."""
        if self.caller is None:
            raise LookupError("a page without a role has no caller")
        return self.caller

    @property
    def view(self) -> View:
        """The readable state, for the caller."""
        return self.control.view(self.by.principal)

    @property
    def now(self) -> datetime:
        """The time by which orders are enforced."""
        return self.view.publisher.recorder.now()

    def may(self, role: Role) -> bool:
        """Whether the visitor has a role."""
        return self.visitor is not None and self.visitor.client.may(role)

    def render(self, template: str, *, status: int = 200, **facts: Any) -> Response:
        """A page with these facts."""
        config = self.control.config
        shared = {
            "texts": self.texts,
            "visitor": self.visitor,
            "may": self.may,
            "path": self.request.url.path,
            "back": back_to(self.request),
            "time_zone": config.time_zone,
            "done": self.request.query_params.get("done", ""),
        }
        return Response(render(template, {**shared, **facts}), status, media_type="text/html")


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Page:
    """A path below /console, and what a request of it needs."""

    path: str
    handler: Handler
    role: Role | None  # None: everyone, also without credentials
    method: Literal["GET", "POST"] = "GET"
    limits: FormLimits = field(default_factory=FormLimits)
    is_use: bool = True  # counts as activity: requests that a script repeats do not


def place(*segments: str, **query: str) -> str:
    """The address of a page. Each segment is percent-encoded, since a number may contain a slash."""
    path = "/".join([BASE, *(quote(segment, safe="") for segment in segments)])
    return f"{path}?{urlencode(query)}" if query else path


def see(address: str) -> Response:
    """Sends the browser to a page after a change, so that reloading that page repeats nothing."""
    return RedirectResponse(address, 303)


def back_to(request: Request) -> str:
    """The present page with its query, for links that return to it."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def own_page(address: str) -> str:
    """This address if it is a page of the console, and else its first page: no link leads elsewhere."""
    is_own = address == BASE or address.startswith((f"{BASE}/", f"{BASE}?"))
    is_plain = is_own and address.isascii() and address.isprintable()
    return address if is_plain and "//" not in address and "\\" not in address else f"{BASE}/"


def query_of(facts: Mapping[str, str | None]) -> dict[str, str]:
    """The values of a query that are set."""
    return {key: value for key, value in facts.items() if value}
