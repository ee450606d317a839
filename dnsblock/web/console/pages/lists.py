"""The lists: their age, their rejections, and the operator's decisions about them."""

from datetime import datetime
from typing import Any

from starlette.responses import Response

from dnsblock.clock import utc_now
from dnsblock.http.lists import sources
from dnsblock.lists.guards import NO_LIST
from dnsblock.web.console.page import Page, Visit, place, see


async def _lists(visit: Visit) -> Response:
    now = utc_now()
    return visit.render("lists.html", sources=[_shown(one, now) for one in sources(visit.view)])


def _shown(one: dict[str, Any], now: datetime) -> dict[str, Any]:
    """A list with its age, and whether its rejected content is a list that could be accepted."""
    accepted, rejected = one["accepted_at"], one["rejected"]
    age = None if accepted is None else int((now - datetime.fromisoformat(accepted)).total_seconds())
    is_list = rejected is not None and not set(rejected["codes"]) & set(NO_LIST)
    return {**one, "age": age, "acceptable": is_list}


async def _refresh(visit: Visit) -> Response:
    zone, whole = visit.request.path_params["zone"], bool(visit.sent.text("whole"))
    await visit.control.actions.refresh(visit.by.principal, zone, whole=whole)
    return see(place("lists", done="refreshed"))


async def _accept(visit: Visit) -> Response:
    sha256, reason = visit.sent.needed("sha256", 64), visit.sent.needed("reason")
    zone = visit.request.path_params["zone"]
    await visit.control.actions.accept_list(visit.by.principal, zone, sha256, reason)
    return see(place("lists", done="accepted"))


PAGES = (
    Page("/lists", _lists, "watch"),
    Page("/lists/{zone}/refresh", _refresh, "operate", "POST"),
    Page("/lists/{zone}/accept", _accept, "operate", "POST"),
)
