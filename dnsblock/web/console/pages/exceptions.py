"""Names that the operator exempts from lists until a time."""

from pydantic import ValidationError
from starlette.responses import Response

from dnsblock.http.allow import allow
from dnsblock.http.answers import ApiError
from dnsblock.http.models_queries import AllowQuery
from dnsblock.policy.allowed import shown
from dnsblock.web.console.drafting import MATCHES
from dnsblock.web.console.page import Page, Visit, place, see


async def _exceptions(visit: Visit) -> Response:
    allowed = visit.view.publisher.policy.allowed
    found = [] if allowed is None else [shown(one) for one in allowed.allowances]
    return visit.render("exceptions.html", exceptions=found, matches=MATCHES)


async def _allow(visit: Visit) -> Response:
    return await _change(visit, visit.sent.needed("until", 64), "allowed")


async def _end(visit: Visit) -> Response:
    return await _change(visit, None, "allowance-ended")


async def _change(visit: Visit, until: str | None, done: str) -> Response:
    facts = {
        "name": visit.sent.needed("name", 1024),
        "match": visit.sent.text("match") or "subtree",
        "until": until,
        "reason": visit.sent.needed("reason"),
    }
    try:
        query = AllowQuery.model_validate(facts)
    except ValidationError as err:
        raise ApiError(422, "INVALID", "match: choose one of the matches") from err
    await allow(visit.control, visit.by.principal, query)
    return see(place("exceptions", done=done))


PAGES = (
    Page("/exceptions", _exceptions, "watch"),
    Page("/exceptions", _allow, "operate", "POST"),
    Page("/exceptions/end", _end, "operate", "POST"),
)
