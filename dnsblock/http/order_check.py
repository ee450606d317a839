"""The handlers for the authors of orders: a dry run of documents, and what their next order refers to."""

import asyncio
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.errors import printable
from dnsblock.http.answers import ApiError, answer, asked
from dnsblock.http.callers import Caller
from dnsblock.http.control import Control
from dnsblock.http.models_operations import LastNumber, StatementContent, Trials
from dnsblock.http.models_queries import LastQuery, StatementQuery
from dnsblock.http.orders import Site, for_issuers
from dnsblock.http.submissions import Turns, submission
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.statement import content_of
from dnsblock.policy.trial import Trial
from dnsblock.times import moment


def order_check_routes(control: Control, site: Site) -> list[Route]:
    """`/v1/orders/check`, `/v1/orders/last`, `/v1/orders/statement`. Put them before `orders_routes`."""
    turns = Turns(1)

    async def post_check(request: Request) -> Response:
        """Takes a form with documents as POST /v1/orders, and responds with what would become of them."""
        caller = await site.identify(request, "submit")
        async with submission(request, site.limits, turns, str(caller.principal)) as documents:
            found = await control.actions.try_out(documents, caller.issuers)
        zone = control.view(caller.principal).config.time_zone.key
        if not caller.is_staff:
            for one in found:
                _hide_folders(one)
        return answer(Trials, {"trials": found, "time_zone": zone})

    async def get_last(request: Request) -> Response:
        """The last numbered order of an issuer without a gap before it, and the first missing number."""
        caller, query = await site.identify(request, "read"), asked(request, LastQuery)
        orders = _orders(control, caller, query.issuer)
        order = orders.chain.last
        last = (
            None if order is None else {"order_id": order.order_id, "seq": order.seq, "sha256": order.sha256}
        )
        gap, count = orders.chain.gap, len(orders.lives)
        return answer(LastNumber, {"issuer": query.issuer, "last": last, "gap": gap, "orders": count})

    async def get_statement(request: Request) -> Response:
        """The `seq`, count and digest for a status statement that is made at a time."""
        caller, query = await site.identify(request, "read"), asked(request, StatementQuery)
        orders = _orders(control, caller, query.issuer)
        try:
            at = moment(query.at)
        except ValueError as err:
            raise ApiError(400, "INVALID", f"not a time: {printable(query.at)}") from err
        return answer(StatementContent, await asyncio.to_thread(_statement, orders, at))

    return [
        Route("/v1/orders/check", post_check, methods=["POST"]),
        Route("/v1/orders/last", get_last),
        Route("/v1/orders/statement", get_statement),
    ]


def _hide_folders(trial: Trial) -> None:
    """Removes the folders of this server from the problems: issuers never see them."""
    trial["document"]["problems"] = [for_issuers(one) for one in trial["document"]["problems"]]
    if trial["signatures"] is not None:
        trial["signatures"]["problems"] = [for_issuers(one) for one in trial["signatures"]["problems"]]


def _orders(control: Control, caller: Caller, issuer: str) -> IssuerOrders:
    """The orders of an issuer. Raises `ApiError` if the caller may not see them."""
    if not caller.sees(issuer):
        raise ApiError(404, "NOT_FOUND", f"there is no issuer {printable(issuer)}")
    return control.view(caller.principal).publisher.recorder.ledger.orders.of(issuer)


def _statement(orders: IssuerOrders, at: datetime) -> dict[str, int | str | None]:
    content = content_of(orders, at)
    return {
        "seq": content.seq,
        "entries": content.entries,
        "digest": content.digest,
        "gap": orders.chain.gap,
    }
