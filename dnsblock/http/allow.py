"""The API for names that the operator exempts from lists."""

import asyncio
from datetime import UTC
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.errors import Problem, Refused
from dnsblock.http.answers import ApiError, asked, not_a_name, principal_of, refused, view_of
from dnsblock.http.control import Control, View
from dnsblock.names import NameRefused, canonical
from dnsblock.orders.facts import Allowed
from dnsblock.policy.allowed import shown
from dnsblock.policy.explain import Explanation
from dnsblock.times import NOT_A_TIME, moment


class Allow(BaseModel):
    """The query of POST /v1/allow."""

    name: Annotated[str, Field(max_length=1024)]
    match: Literal["exact", "subtree", "below"] = "subtree"
    until: Annotated[str, Field(max_length=64)] | None = None  # None: ends it now
    reason: Annotated[str, Field(min_length=1, max_length=1000)]


def allow_routes(control: Control) -> list[Route]:
    """`/v1/allow`."""

    async def get_allowed(request: Request) -> JSONResponse:
        """The allowances in force."""
        view = await view_of(control, request)
        allowed = view.publisher.policy.allowed
        found = () if allowed is None else allowed.allowances
        return JSONResponse(
            {"allowed": [shown(one) for one in found], "time_zone": view.config.time_zone.key}
        )

    async def post_allow(request: Request) -> JSONResponse:
        """Exempts a name from lists, and responds when that is served. Refused if only orders block it."""
        query, view = asked(request, Allow), await view_of(control, request)
        fact = _fact(query, view)
        before = await asyncio.to_thread(view.explain, fact.name)
        try:
            if query.until is not None:
                _check_orders(before)
            served = await control.actions.allow(await principal_of(request), fact)
        except Refused as err:
            return refused(err)
        after = await asyncio.to_thread(view.explain, fact.name)
        facts: dict[str, Any] = {"name": fact.name, "match": fact.match, "until": fact.until}
        facts |= {"before": before, "after": after, "served": served.facts()}
        return JSONResponse(facts | {"time_zone": view.config.time_zone.key})

    return [Route("/v1/allow", get_allowed), Route("/v1/allow", post_allow, methods=["POST"])]


def _fact(query: Allow, view: View) -> Allowed:
    """Raises `ApiError`."""
    now = view.publisher.recorder.now()
    try:
        name = canonical(query.name)
        until = now if query.until is None else moment(query.until, view.config.time_zone)
    except NameRefused as err:
        raise not_a_name(err) from err
    except ValueError:
        raise ApiError(400, "INVALID", f"until: {NOT_A_TIME}") from None
    return Allowed(name, query.match, until.astimezone(UTC).isoformat(), query.reason)


def _check_orders(before: Explanation) -> None:
    """Raises `Refused` if orders block the name, and no list."""
    orders = [one for one in before["covering"] if one["orders"] and one["action"] != "exemption"]
    by = before["decided_by"]
    if by is None or not by["orders"] or any(one["kind"] != "orders" for one in before["covering"]):
        return
    problems = [Problem("allow", None, before["name"], _advice(one["zone"], one["orders"])) for one in orders]
    raise Refused(problems)


def _advice(zone: str, numbers: list[str]) -> str:
    text = ", ".join(numbers)
    return (
        f"order {text} (zone {zone}) blocks it, and no exception from lists changes that: "
        "its issuer lifts it by an unblock order, or exempts the name by an exempt order"
    )
