"""The handlers for orders."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.change import Served
from dnsblock.errors import Refused, printable, without_folders
from dnsblock.http.answers import ApiError, answer, asked, body, problem_details, refused
from dnsblock.http.callers import Caller, Identify, unavailable
from dnsblock.http.control import Control, View
from dnsblock.http.models import Order, OrderPage, Submission
from dnsblock.http.models_operations import Annulled, Approved, EntriesRefused, StaffSubmission
from dnsblock.http.models_queries import DecisionQuery, OrderQuery, OrdersQuery
from dnsblock.http.paths import order_in
from dnsblock.http.submissions import Limits, Turns, submission
from dnsblock.orders.life import Life
from dnsblock.orders.state import State
from dnsblock.policy.order_counters import ORDER_COUNTERS
from dnsblock.policy.order_facts import MAX_ENTRIES, OrderFacts, list_orders, whole_order
from dnsblock.policy.verdicts import Verdict
from dnsblock.principal import Principal

MAX_NAMES_BYTES = 32 << 20  # of a decision
DEFAULT_PAGE = 1000  # over HTTPS; commands list all orders
MAX_ENTRIES_SENT = 100_000  # of one order, over HTTPS


@dataclass(frozen=True, slots=True)
class Site:
    """The differences between the applications that serve these routes."""

    identify: Identify
    limits: Limits
    count_refused: Callable[[str], None]  # a document, by code


def operator_routes(control: Control, identify: Identify) -> list[Route]:
    """The decisions about an order: for operators only."""

    async def post_annul(request: Request) -> Response:
        """Ends the entries of an order, and responds when that is served."""
        by, what = (await identify(request, "operate")).principal, asked(request, DecisionQuery)
        try:
            served, ended = await control.actions.annul(by, what.issuer, what.order_id, what.reason)
        except Refused as err:
            raise refused(err) from err
        return answer(Annulled, {"ended": ended, "served": served.facts()})

    async def post_approve(request: Request) -> Response:
        """Releases what is held in an order, and responds when that is served."""
        by, what = (await identify(request, "operate")).principal, asked(request, DecisionQuery)
        try:
            names = await _names(request, "order approve")
            facts = (what.issuer, what.order_id, names, what.reason)
            served, released = await control.actions.approve(by, *facts)
        except Refused as err:
            raise refused(err) from err
        return answer(Approved, {"released": released, "served": served.facts()})

    async def post_refuse(request: Request) -> Response:
        """Refuses what guards hold in an order. That is final."""
        by, what = (await identify(request, "operate")).principal, asked(request, DecisionQuery)
        try:
            names = await _names(request, "order refuse")
            served, count = await control.actions.refuse(by, what.issuer, what.order_id, names, what.reason)
        except Refused as err:
            raise refused(err) from err
        return answer(EntriesRefused, {"refused": count, "served": served.facts()})

    return [
        Route("/v1/orders/annul", post_annul, methods=["POST"]),
        Route("/v1/orders/approve", post_approve, methods=["POST"]),
        Route("/v1/orders/refuse", post_refuse, methods=["POST"]),
    ]


async def _names(request: Request, what: str) -> list[str]:
    """The names of entries in the body of a request, one per line."""
    return (await body(request, what, MAX_NAMES_BYTES)).decode("utf-8", "replace").split()


def orders_routes(control: Control, site: Site) -> list[Route]:
    """`/v1/orders` and what is below it, except what only operators may do."""
    turns = Turns(site.limits.large)

    async def post_orders(request: Request) -> Response:
        """Takes a form with documents; responds when they are in the ledger and in force."""
        caller = await site.identify(request, "submit")
        async with submission(request, site.limits, turns, str(caller.principal)) as documents:
            try:
                served, verdicts = await control.actions.submit(caller.principal, documents, caller.issuers)
            except Refused as err:  # nothing is accepted now, for a reason that is not in the documents
                raise unavailable(caller, "nothing can be accepted now", err) from err
        return _submitted(site, caller, served, verdicts)

    async def get_orders(request: Request) -> Response:
        """The orders that the caller may see, in the sequence of the ledger: the last, or from `offset`."""
        caller, query = await site.identify(request, "read"), asked(request, OrdersQuery)
        page = await asyncio.to_thread(_page, control.view(caller.principal), caller, query)
        return page.response()

    async def get_order(request: Request) -> Response:
        """Everything about one order: the latest one, if an annulled one had the same number."""
        caller, query = await site.identify(request, "read"), asked(request, OrderQuery)
        view, named = control.view(caller.principal), order_in(request)
        every = MAX_ENTRIES_SENT if caller.is_remote else None
        facts = await order_of(view, caller, *named, every if query.entries == "all" else MAX_ENTRIES)
        return Order.model_validate({**facts, "time_zone": view.config.time_zone.key}).response()

    return [
        Route("/v1/orders", post_orders, methods=["POST"]),
        Route("/v1/orders", get_orders),
        Route("/v1/orders/{issuer}/{number}", get_order),
    ]


async def order_of(view: View, caller: Caller, issuer: str, number: str, most: int | None) -> dict[str, Any]:
    """Everything about one order, with up to `most` entries. Raises `ApiError` if the caller sees none."""
    state, now = view.state, view.publisher.recorder.now()
    life = life_of(state, caller, issuer, number)
    named = {"named": str if caller.is_staff else Principal.public}
    facts = await asyncio.to_thread(whole_order, life, state, view.config, now, most, **named)
    await asyncio.to_thread(_add_notes, [facts], view, state, now)
    # Not for issuers: read again and again, it shows when somebody asks for a name of an order.
    facts["blocked_queries"] = None
    if caller.is_staff:
        counts = view.counters().order_blocked
        facts["blocked_queries"] = ORDER_COUNTERS.blocked_by(issuer, number, counts)
    return facts


def life_of(state: State, caller: Caller, issuer: str, number: str) -> Life:
    """The latest order with a number. Raises `ApiError`, also if the caller may not see it."""
    life = state.known.of(issuer).latest(number) if caller.sees(issuer) else None
    if life is None:
        reason = f"there is no order {printable(number)} of {printable(issuer)}"
        raise ApiError(404, "NOT_FOUND", reason)
    return life


def _add_notes(
    found: Sequence[OrderFacts] | Sequence[dict[str, Any]], view: View, state: State, now: datetime
) -> None:
    """Adds what is wrong with the last status statement of each issuer."""
    if any(one["action"] == "snapshot" for one in found):
        view.statements.update(state.known)
        zone = view.config.time_zone
        for one in found:
            one["notes"].extend(view.statements.notes(one["issuer"], one["sha256"], now, zone))


def _page(view: View, caller: Caller, query: OrdersQuery) -> OrderPage:
    state, now = view.state, view.publisher.recorder.now()
    listed = list_orders(state, view.config, now, caller.issuers)
    wanted = {"order_id": query.number, "issuer": query.issuer, "state": query.state}
    asked_for = {key: value for key, value in wanted.items() if value is not None}
    found = [one for one in listed if asked_for.items() <= one.items()] if asked_for else listed
    limit = query.limit or (DEFAULT_PAGE if caller.is_remote else len(found))
    start = max(0, len(found) - limit) if query.offset is None else query.offset
    page = found[start : start + limit]
    _add_notes(page, view, state, now)
    facts = {"offset": start, "total": len(found), "time_zone": view.config.time_zone.key}
    return OrderPage.model_validate({"orders": page, **facts})


def _submitted(site: Site, caller: Caller, served: Served | None, verdicts: Sequence[Verdict]) -> Response:
    """201 if the ledger has a new document; 200 if it has all of them already; otherwise the refusal."""
    for one in verdicts:
        one["problems"] = shown_to(caller, one["problems"])
    codes = [_code(one) for one in verdicts if one["verdict"] == "refused"]
    for code in codes:
        site.count_refused(code)
    if served is None and codes:
        problems = [problem for one in verdicts for problem in one["problems"]]
        status, code = (403, "FORBIDDEN") if set(codes) == {"FORBIDDEN"} else (422, "REFUSED")
        facts: dict[str, Any] = {"problems": problems, "documents": verdicts}
        return problem_details(status, code, problems[0]["reason"], **facts)
    status = 200 if served is None else 201
    result = {"documents": verdicts, "served": None if served is None else served.facts()}
    if caller.is_staff:
        return StaffSubmission.model_validate(result).response(status)
    # Without the changes of the publish: they may concern other issuers.
    return Submission.model_validate(result).response(status)


def shown_to(caller: Caller, problems: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The problems as a caller may see them. Issuers do not see the folders of this server."""
    return list(problems) if caller.is_staff else [for_issuers(problem) for problem in problems]


def for_issuers(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem without the folders of this server: it may be in the issuer's file of keys."""
    texts = {key: without_folders(problem[key]) for key in ("file", "reason")}
    return {**problem, **texts}


def _code(verdict: Verdict) -> str:
    is_foreign = any(one["reason"].startswith("FORBIDDEN:") for one in verdict["problems"])
    return "FORBIDDEN" if is_foreign else "REFUSED"
