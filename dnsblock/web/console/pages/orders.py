"""The orders: states and deadlines, each with its entries, its receipt, and the operator's decisions."""

import asyncio
import io
import zipfile
from typing import get_args

from starlette.responses import Response

from dnsblock.http.answers import ApiError
from dnsblock.http.orders import order_of
from dnsblock.http.paths import order_in
from dnsblock.http.receipts import Receipts, signed_receipt
from dnsblock.orders.form import file_name
from dnsblock.orders.life import StateName
from dnsblock.policy.order_facts import MAX_ENTRIES, OrderFacts
from dnsblock.web.console.forms import FormLimits
from dnsblock.web.console.page import Page, Visit, place, query_of, see
from dnsblock.web.console.pages.overview import orders_of

SHOWN = 50  # orders of one page
STATES: tuple[str, ...] = get_args(StateName)
DECISION = FormLimits(body=1 << 20, fields=MAX_ENTRIES + 10)
FILTERS = ("number", "issuer", "state", "only")

_receipts = Receipts()


async def _orders(visit: Visit) -> Response:
    query = visit.request.query_params
    asked = {name: query.get(name, "")[:200] for name in FILTERS}
    every = await asyncio.to_thread(orders_of, visit)
    found = [one for one in reversed(every) if _is_asked(one, asked)]
    written = query.get("from", "")
    start = int(written) if written.isascii() and written.isdigit() and len(written) < 10 else 0
    start = min(start, max(0, len(found) - 1))

    def page(at: int) -> str:
        return place("orders", **query_of(asked), **{"from": str(max(0, at))})

    return visit.render(
        "orders.html",
        orders=found[start : start + SHOWN],
        total=len(found),
        start=start,
        asked=asked,
        states=STATES,
        issuers=sorted({one["issuer"] for one in every}),
        newer=page(start - SHOWN) if start else None,
        older=page(start + SHOWN) if start + SHOWN < len(found) else None,
    )


def _is_asked(one: OrderFacts, asked: dict[str, str]) -> bool:
    only = {
        "": True,
        "open": one["seconds_left"] is not None,
        "breached": one["breached"],
        "held": one["held"] > 0,
    }
    return (
        asked["number"].lower() in one["order_id"].lower()
        and asked["issuer"] in ("", one["issuer"])
        and asked["state"] in ("", one["state"])
        and only.get(asked["only"], False)
    )


async def _order(visit: Visit) -> Response:
    facts = await order_of(visit.view, visit.by, *order_in(visit.request), MAX_ENTRIES)
    verdicts = facts["verdicts"]
    return visit.render(
        "order.html",
        one=facts,
        held=[one for one in verdicts if one["verdict"] == "held"],
        refused=[one for one in verdicts if one["verdict"] == "refused"],
        shown=len(facts["names"]),
    )


async def _receipt(visit: Visit) -> Response:
    """The receipt and its detached signature, in one archive."""
    issuer, number = order_in(visit.request)
    receipt = await signed_receipt(visit.control, visit.by, issuer, number, _receipts)
    name = file_name(number).removesuffix(".yaml")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"receipt-{name}.json", receipt.text)
        archive.writestr(f"receipt-{name}.json.sig", receipt.signature)
    headers = {"content-disposition": f'attachment; filename="receipt-{name}.zip"'}
    return Response(packed.getvalue(), headers=headers, media_type="application/zip")


# ------- Decisions of the operator -------


async def _approve(visit: Visit) -> Response:
    issuer, number = order_in(visit.request)
    names, reason = visit.sent.texts.get("entry", []), visit.sent.needed("reason")
    if not visit.sent.text("all") and not names:
        raise ApiError(422, "INVALID", "choose the entries to release, or everything that is held")
    wanted = [] if visit.sent.text("all") else names
    await visit.control.actions.approve(visit.by.principal, issuer, number, wanted, reason)
    return see(place("orders", issuer, number, done="approved"))


async def _refuse(visit: Visit) -> Response:
    issuer, number = order_in(visit.request)
    names, reason = visit.sent.texts.get("entry", []), visit.sent.needed("reason")
    if not visit.sent.text("all") and not names:
        raise ApiError(422, "INVALID", "choose the entries to refuse, or everything that is held")
    wanted = [] if visit.sent.text("all") else names
    await visit.control.actions.refuse(visit.by.principal, issuer, number, wanted, reason)
    return see(place("orders", issuer, number, done="entries-refused"))


async def _annul(visit: Visit) -> Response:
    issuer, number = order_in(visit.request)
    if not visit.sent.text("sure"):
        raise ApiError(422, "INVALID", "confirm that this order is meant")
    reason = visit.sent.needed("reason")
    await visit.control.actions.annul(visit.by.principal, issuer, number, reason)
    return see(place("orders", issuer, number, done="annulled"))


PAGES = (
    Page("/orders", _orders, "read"),
    Page("/orders/{issuer}/{number}", _order, "read"),
    Page("/orders/{issuer}/{number}/receipt", _receipt, "read", "POST"),
    Page("/orders/{issuer}/{number}/approve", _approve, "operate", "POST", limits=DECISION),
    Page("/orders/{issuer}/{number}/refuse", _refuse, "operate", "POST", limits=DECISION),
    Page("/orders/{issuer}/{number}/annul", _annul, "operate", "POST"),
)
