"""The search box: why a name is blocked or not, now and at a time, and what happened to it."""

import asyncio
from typing import Any

from starlette.responses import Response

from dnsblock.errors import Refused
from dnsblock.http.answers import ApiError
from dnsblock.http.api import why_now
from dnsblock.http.lists import history_of, why_at
from dnsblock.names import NameRefused, address
from dnsblock.web.console.page import Page, Visit

FIELDS = {"name": 1024, "at": 64, "known_at": 64, "client": 64}
EVENTS_SHOWN = 200


async def _search(visit: Visit) -> Response:
    query = visit.request.query_params
    asked = {name: query.get(name, "").strip()[:most] for name, most in FIELDS.items()}
    found: dict[str, Any] | None = None
    history: list[Any] = []
    wrong = ""
    if asked["name"]:
        try:
            found, history = await asyncio.to_thread(_look, visit, asked)
        except (ApiError, NameRefused, Refused) as err:
            wrong = err.detail if isinstance(err, ApiError) else str(err)
    return visit.render(
        "search.html",
        status=400 if wrong else 200,
        asked=asked,
        found=found,
        history=history[-EVENTS_SHOWN:],
        wrong=wrong,
        issuers={zone.name: zone.issuer for zone in visit.view.config.zones},
    )


def _look(visit: Visit, asked: dict[str, str]) -> tuple[dict[str, Any], list[Any]]:
    """The explanation, and the events of the name. Reads from disk. Raises as `why_at`."""
    view, name = visit.view, asked["name"]
    at, known_at = asked["at"] or None, asked["known_at"] or None
    client = address(asked["client"]) if asked["client"] else None
    if asked["client"] and client is None:
        raise ApiError(400, "INVALID", "client: not an IP address")
    if client is not None and (at or known_at):
        raise ApiError(400, "INVALID", "a client can be looked up for now only: leave the times empty")
    found = why_at(view, name, at, known_at) if at or known_at else why_now(view, name, client)
    empty: dict[str, Any] = {
        "at": None,
        "known_at": None,
        "here": None,
        "not_known": [],
        "not_enforced": [],
        "scheduled": [],
    }
    try:
        events = history_of(view, name)["events"]
    except Refused:  # without a history, the explanation is still true
        events = []
    return {**empty, **found}, events


PAGES = (Page("/search", _search, "watch"),)
