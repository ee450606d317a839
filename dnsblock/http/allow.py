"""The API for names that the operator exempts from lists."""

import asyncio
from datetime import UTC
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.errors import Problem, Refused
from dnsblock.http.answers import ApiError, answer, asked, not_a_name, refused
from dnsblock.http.callers import Identify, view_of
from dnsblock.http.control import Control, View
from dnsblock.http.models_operations import Allowance, AllowedNames
from dnsblock.http.models_queries import AllowQuery
from dnsblock.names import NameRefused, canonical
from dnsblock.orders.facts import Allowed
from dnsblock.policy.allowed import shown
from dnsblock.policy.explain import Explanation
from dnsblock.principal import Principal
from dnsblock.times import NOT_A_TIME, moment


def allow_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/allow`."""

    async def get_allowed(request: Request) -> Response:
        """The allowances in force."""
        view = await view_of(control, identify, request)
        allowed = view.publisher.policy.allowed
        found = () if allowed is None else allowed.allowances
        facts = {"allowed": [shown(one) for one in found], "time_zone": view.config.time_zone.key}
        return answer(AllowedNames, facts)

    async def post_allow(request: Request) -> Response:
        """Exempts a name from lists, and responds when that is served. Refused if only orders block it."""
        by, query = (await identify(request, "operate")).principal, asked(request, AllowQuery)
        try:
            return answer(Allowance, await allow(control, by, query))
        except Refused as err:
            raise refused(err) from err

    return [Route("/v1/allow", get_allowed), Route("/v1/allow", post_allow, methods=["POST"])]


async def allow(control: Control, by: Principal, query: AllowQuery) -> dict[str, Any]:
    """Exempts a name from lists until a time, or ends that. Raises `ApiError` and `Refused`."""
    view = control.view(by)
    fact = _fact(query, view)
    before = await asyncio.to_thread(view.explain, fact.name)
    if query.until is not None:
        _check_orders(before)
    served = await control.actions.allow(by, fact)
    after = await asyncio.to_thread(view.explain, fact.name)
    facts: dict[str, Any] = {"name": fact.name, "match": fact.match, "until": fact.until}
    facts |= {"before": before, "after": after, "served": served.facts()}
    return facts | {"time_zone": view.config.time_zone.key}


def _fact(query: AllowQuery, view: View) -> Allowed:
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
