"""The proof of enforcement: scheduled probes, and the ledger with its checkpoint."""

from itertools import islice
from typing import Any

from starlette.responses import Response

from dnsblock.http.api import probe_facts
from dnsblock.policy.recorder import facts_of_ledger
from dnsblock.web.console.page import Page, Visit, place, see

RECORDS_SHOWN = 100


async def _probes(visit: Visit) -> Response:
    view = visit.view
    options = view.config.probes
    servers = [] if options is None else [str(one) for one in options.servers]
    return visit.render("probes.html", probes=None if options is None else probe_facts(view), servers=servers)


async def _ledger(visit: Visit) -> Response:
    view = visit.view
    recorder = view.publisher.recorder
    records: list[dict[str, Any]] = [
        {
            "n": one.n,
            "at": one.at,
            "kind": one.kind,
            "by": one.by,
            "issuer": getattr(one.fact, "issuer", None),
            "order_id": getattr(one.fact, "order_id", None),
        }
        for one in islice(reversed(recorder.ledger.records), RECORDS_SHOWN)
    ]
    ledger, checkpoint = facts_of_ledger(recorder), view.checkpoints.facts()
    return visit.render("ledger.html", records=records, ledger=ledger, checkpoint=checkpoint)


async def _accept_restore(visit: Visit) -> Response:
    await visit.control.actions.accept_restore(visit.by.principal, visit.sent.needed("reason"))
    return see(place("ledger", done="restored"))


PAGES = (
    Page("/probes", _probes, "watch"),
    Page("/ledger", _ledger, "watch"),
    Page("/ledger/accept-restore", _accept_restore, "operate", "POST"),
)
