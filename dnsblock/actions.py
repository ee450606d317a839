"""Operators' and officers' actions: submit or annul orders, and accept a rejected list."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from dnsblock.errors import Problem, Refused
from dnsblock.lists.files import files_of, sha256_of
from dnsblock.lists.guards import NO_LIST
from dnsblock.lists.history.facts import Approval
from dnsblock.log import event
from dnsblock.orders.annulments import annul as annulled
from dnsblock.orders.records import Annulment
from dnsblock.orders.submission import Submitted, examine_submitted
from dnsblock.policy.verdicts import Verdict, verdicts
from dnsblock.publishing import LedgerEntries, ListsChanged, Publisher, Served


async def submit(publisher: Publisher, documents: Sequence[Submitted]) -> tuple[Served | None, list[Verdict]]:
    """Accepts the good ones of these documents; a verdict for each. Raises `Refused`."""
    recorder = publisher.recorder
    recorder.check()
    known, now = recorder.ledger.orders, recorder.now()
    judged = await asyncio.to_thread(examine_submitted, documents, known, publisher.config, now)
    served = None
    if judged.intake.new:
        entries = LedgerEntries("order submit", judged.intake.new, judged.intake.notes)
        served = await publisher.publish(entries)
    orders = recorder.ledger.orders
    found = await asyncio.to_thread(verdicts, judged, known, orders, publisher.policy, publisher.config)
    return served, found


async def annul(publisher: Publisher, issuer: str, order_id: str, reason: str) -> tuple[Served, int]:
    """Ends what an order put in force; returns how many entries that were. Raises `Refused`."""
    annulment = Annulment(issuer, order_id, reason)
    annulled(publisher.recorder.ledger.orders, (annulment,), publisher.recorder.now())
    states = publisher.policy.state.orders
    own = [one for one in states if (one.issuer, one.order_id) == (issuer, order_id)]
    served = await publisher.publish(LedgerEntries("order annul", annulments=(annulment,)))
    return served, own[-1].in_force if own else 0


async def accept_list(publisher: Publisher, zone: str, sha256: str, who: str, reason: str) -> Served:
    """Accepts the rejected content of a list, by its digest. Raises `Refused`."""
    publisher.recorder.check()
    rejection = publisher.lists.rejections.get(zone)
    if (rejection is None or rejection.source_sha256 != sha256) and zone in publisher.lists.zones:
        # `dnsblock check` may have seen the file before the daemon has looked at it.
        with contextlib.suppress(Refused):
            await publisher.publish(ListsChanged(f"accepting list {zone}", zone))
        rejection = publisher.lists.rejections.get(zone)
    if rejection is None or not sha256 or rejection.source_sha256 != sha256:
        why = "no content with this digest is rejected now; `dnsblock source list` shows which are"
        raise Refused([Problem(f"list {zone}", None, sha256, why)])
    codes = tuple(guarded.code for guarded in rejection.guarded)
    if set(codes) & set(NO_LIST):
        why = f"there is no list to accept ({', '.join(codes)}): see `dnsblock source list`"
        raise Refused([Problem(f"list {zone}", None, sha256, why)])
    approval = Approval(zone, sha256, rejection.options, codes, who, reason, datetime.now(UTC))
    async with publisher.inputs.listing:
        await asyncio.to_thread(_approve, publisher, approval)
    text = f"list {zone}: {sha256} is accepted by hand"
    event(logging.WARNING, text, zone=zone, who=who, reason=reason)
    return await publisher.publish(ListsChanged(f"accepted list {zone}", zone))


def _approve(publisher: Publisher, approval: Approval) -> None:
    zone = next(zone for zone in publisher.config.zones if zone.name == approval.zone)
    if sha256_of(files_of(zone, publisher.store).files) != approval.source_sha256:
        why = "the content has changed: look at the new one"
        raise Refused([Problem(f"list {zone.name}", None, approval.source_sha256, why)])
    with publisher.store.history() as history:
        history.approve(approval)
