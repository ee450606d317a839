"""A new order: written in a form and checked, downloaded to be signed, and submitted with its signature."""

import asyncio
import io
import zipfile
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from dnsblock.errors import Refused
from dnsblock.http.answers import ApiError
from dnsblock.http.callers import unavailable
from dnsblock.http.issuers import MAX_BODY_BYTES
from dnsblock.http.orders import shown_to
from dnsblock.http.submissions import MAX_SIGNATURES_BYTES
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.submission import Submitted
from dnsblock.web.console.drafting import MATCHES, OFFERED, Draft, draft_of, values_of
from dnsblock.web.console.forms import FormLimits, Sent
from dnsblock.web.console.page import Page, Visit
from dnsblock.web.console.rendering import render

DOCUMENT_SHOWN = 20_000  # characters
FOUND_SHOWN = 200  # entries that are held or refused
DRAFT = FormLimits(body=MAX_BODY_BYTES, fields=60, files=1)
SIGNED = FormLimits(body=MAX_BODY_BYTES, fields=10, files=3)
NO_TRIAL: dict[str, Any] = {"draft": None, "trial": None, "problems": []}


async def _form(visit: Visit) -> Response:
    return _page(visit, Sent(), NO_TRIAL)


def _page(visit: Visit, sent: Sent, found: dict[str, Any], status: int = 200) -> Response:
    wrong = {one["file"].removeprefix("--").replace("-", "_") for one in found["problems"]}
    return visit.render(
        "new_order.html",
        status=status,
        issuers=_issuers(visit),
        actions=OFFERED,
        matches=MATCHES,
        values=values_of(sent),
        wrong=wrong,
        **found,
    )


async def _send(visit: Visit) -> Response:
    """Shows the result of the check, or downloads the document."""
    found = await _checked(visit)
    draft: Draft | None = found["draft"]
    if visit.sent.text("do") == "download" and draft is not None:
        return _download(draft.document)
    return _page(visit, visit.sent, found, 200 if draft is not None else 422)


async def _check(visit: Visit) -> Response:
    """The result of the check alone, for the script of the page."""
    facts = {"texts": visit.texts, "time_zone": visit.control.config.time_zone, **await _checked(visit)}
    return Response(render("_findings.html", facts), media_type="text/html")


async def _checked(visit: Visit) -> dict[str, Any]:
    """The document of a form and what would become of it, as `dnsblock order check` finds it."""
    view = visit.view
    try:
        draft = await asyncio.to_thread(
            draft_of, visit.sent, _orders(visit, visit.sent.text("issuer")), view.config.time_zone, visit.now
        )
    except Refused as err:
        return {**NO_TRIAL, "problems": shown_to(visit.by, err.as_json())}
    (trial,) = await visit.control.actions.try_out([draft.document], visit.by.issuers)
    trial["document"]["problems"] = shown_to(visit.by, trial["document"]["problems"])
    if trial["signatures"] is not None:
        trial["signatures"]["problems"] = shown_to(visit.by, trial["signatures"]["problems"])
    document = draft.document.data.decode()
    return {
        "draft": draft,
        "trial": trial,
        "problems": [],
        "document": document[:DOCUMENT_SHOWN],
        "is_cut": len(document) > DOCUMENT_SHOWN,
        "found": trial["document"]["entry_verdicts"][:FOUND_SHOWN],
    }


def _issuers(visit: Visit) -> list[str]:
    """The issuers whose orders the visitor may write."""
    config, sees = visit.view.config, visit.by.sees
    known = [zone.issuer for zone in config.zones if zone.issuer is not None]
    return [issuer for issuer in dict.fromkeys(known) if sees(issuer)]


def _orders(visit: Visit, issuer: str) -> IssuerOrders | None:
    """The earlier orders of an issuer. None if it is not one of the visitor's."""
    if issuer not in _issuers(visit):
        return None
    return visit.view.publisher.recorder.ledger.orders.of(issuer)


def _download(document: Submitted) -> Response:
    """The document; with its entries file, both in one archive."""
    name = document.file
    if document.entries is None:
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(document.data, headers=headers, media_type="application/yaml")
    packed, stem = io.BytesIO(), name.removesuffix(".yaml")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, document.data)
        archive.writestr(f"{stem}.txt", document.entries)
    headers = {"content-disposition": f'attachment; filename="{stem}.zip"'}
    return Response(packed.getvalue(), headers=headers, media_type="application/zip")


# ------- Submission -------


async def _submit_form(visit: Visit) -> Response:
    return visit.render("submit.html", verdicts=None, served=None)


async def _submit(visit: Visit) -> Response:
    """Submits a document, and shows the verdict on it."""
    files = visit.sent.files
    document = files.get("document")
    if document is None:
        raise ApiError(422, "INVALID", "choose the document of the order")
    signatures, entries = files.get("signatures"), files.get("entries")
    if signatures is not None and len(signatures.data) > MAX_SIGNATURES_BYTES:
        raise ApiError(413, "TOO_LARGE", f"signatures of more than {MAX_SIGNATURES_BYTES:,} bytes")
    one = Submitted(
        document.name,
        document.data,
        None if entries is None else entries.data,
        None if signatures is None else signatures.data,
    )
    try:
        served, verdicts = await visit.control.actions.submit(visit.by.principal, [one], visit.by.issuers)
    except Refused as err:  # nothing is accepted now, for a reason that is not in the document
        raise unavailable(visit.by, "nothing can be accepted now", err) from err
    _prepare(visit, verdicts)
    is_refused = verdicts[0]["verdict"] == "refused"
    if is_refused:
        visit.gate.count_refused("REFUSED")
    facts = {"verdicts": verdicts, "served": None if served is None else served.serial}
    return visit.render("submit.html", status=422 if is_refused else 200, **facts)


def _prepare(visit: Visit, verdicts: Sequence[Any]) -> None:
    """Leaves out what the visitor may not see."""
    for one in verdicts:
        one["problems"] = shown_to(visit.by, one["problems"])


PAGES = (
    Page("/new-order", _form, "submit"),
    Page("/new-order", _send, "submit", "POST", limits=DRAFT),
    Page("/new-order/check", _check, "submit", "POST", limits=DRAFT),
    Page("/submit", _submit_form, "submit"),
    Page("/submit", _submit, "submit", "POST", limits=SIGNED),
)
