"""Maintenance by an operator: reloads the daemon, and purges its cache."""

import asyncio

from starlette.responses import Response

from dnsblock.errors import Refused, printable
from dnsblock.http.answers import not_a_name
from dnsblock.names import NameRefused, canonical
from dnsblock.web.console.page import Page, Visit, place, see

SHOWN = 50  # refused documents


async def _maintenance(visit: Visit) -> Response:
    publisher = visit.view.publisher
    inbox = [
        {"file": printable(one.file), "problems": Refused(one.problems).as_json()}
        for one in publisher.inbox[:SHOWN]
    ]
    return visit.render("maintenance.html", last=publisher.last_publish, inbox=inbox)


async def _reload(visit: Visit) -> Response:
    await visit.control.actions.reload(visit.by.principal)
    return see(place("maintenance", done="reloaded"))


async def _purge(visit: Visit) -> Response:
    written = visit.sent.text("name")
    try:
        name = canonical(written) if written else None
    except NameRefused as err:
        raise not_a_name(err) from err
    below = name is not None and bool(visit.sent.text("below"))
    await asyncio.to_thread(visit.control.actions.purge, visit.by.principal, name, below)
    return see(place("maintenance", done="purged"))


PAGES = (
    Page("/maintenance", _maintenance, "operate"),
    Page("/reload", _reload, "operate", "POST"),
    Page("/purge", _purge, "operate", "POST"),
)
