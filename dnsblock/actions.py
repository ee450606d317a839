"""The changes that operators and officers make through the control API. Each is logged with who made it."""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dnsblock._engine import Engine
from dnsblock.change import LedgerEntries, ListsChanged, Reload, RollBack, Served
from dnsblock.clock import utc_now
from dnsblock.errors import FetchFailed, Problem, Refused
from dnsblock.lists.files import sha256_of
from dnsblock.lists.guards import NO_LIST
from dnsblock.lists.history.facts import Approval
from dnsblock.lists.refresh import Refresher
from dnsblock.lists.sources import source_of
from dnsblock.log import event
from dnsblock.orders.allowances import check
from dnsblock.orders.approval import approval_of, refusal_of
from dnsblock.orders.context import Context
from dnsblock.orders.facts import Allowed, Annulment
from dnsblock.orders.submission import Submitted, examine_submitted
from dnsblock.policy.trial import Trial, try_documents
from dnsblock.policy.verdicts import Verdict, verdicts
from dnsblock.principal import Principal
from dnsblock.publishing import ORDER_MS, Publisher


@dataclass(frozen=True, slots=True)
class Actions:
    """The changes. The first argument of each is who makes it. Each may raise `Refused`."""

    _publisher: Publisher
    _refresher: Refresher
    _engine: Engine

    async def reload(self, by: Principal) -> Served:
        """Reads configuration, orders and lists again."""
        return await self._publisher.publish(Reload(by))

    # ------- Orders -------

    async def submit(
        self, by: Principal, documents: Sequence[Submitted], issuers: Collection[str] | None = None
    ) -> tuple[Served | None, list[Verdict]]:
        """Accepts the valid ones of these documents, and returns a verdict for each.

        `issuers`: those whose orders the sender may submit; None: all.
        """
        publisher, recorder = self._publisher, self._publisher.recorder
        recorder.check()
        self._engine.make_way(ORDER_MS)
        known = recorder.ledger.orders
        context = Context(publisher.config, publisher.inputs.references, known, recorder.now())
        examined = await asyncio.to_thread(examine_submitted, documents, context, issuers=issuers)
        served, intake = None, examined.intake
        if intake.new or intake.signed:
            facts = (intake.new, intake.notes, intake.signed, context)
            change = LedgerEntries(by, "order submit", *facts)
            served = await publisher.publish(change)
        publisher.refusals.count(intake.refused)
        if intake.refused:
            await publisher.record(lambda: recorder.record_refusals(intake.refused, by))
        orders, sees = recorder.ledger.orders, None if issuers is None else frozenset(issuers)
        in_force = (orders, publisher.policy, publisher.config)
        return served, await asyncio.to_thread(verdicts, examined, known, *in_force, sees=sees)

    async def try_out(
        self, documents: Sequence[Submitted], issuers: Collection[str] | None = None
    ) -> list[Trial]:
        """The results if these documents were submitted now. Changes nothing."""
        publisher, recorder = self._publisher, self._publisher.recorder
        context = Context(
            publisher.config, publisher.inputs.references, recorder.ledger.orders, recorder.now()
        )
        sees = None if issuers is None else frozenset(issuers)
        return await asyncio.to_thread(try_documents, documents, context, publisher.policy, sees)

    async def annul(self, by: Principal, issuer: str, order_id: str, reason: str) -> tuple[Served, int]:
        """Ends the entries of an order, and returns how many were in force."""
        recorder, annulment = self._publisher.recorder, Annulment(issuer, order_id, reason)
        known = recorder.ledger.orders
        known.decided([annulment], recorder.now(), by)
        decided = tuple(filter(None, [known.of(issuer).order(order_id)]))
        state = self._publisher.policy.state.order(issuer, order_id)
        entries = LedgerEntries(by, "order annul", decisions=(annulment,), decided=decided)
        served = await self._publisher.publish(entries)
        return served, 0 if state is None else state.in_force

    async def approve(
        self, by: Principal, issuer: str, order_id: str, names: Sequence[str], reason: str
    ) -> tuple[Served, int]:
        """Releases held entries of an order, or without names everything in it; returns their number."""
        known = self._publisher.recorder.ledger.orders.of(issuer)
        approval, count = approval_of(known, issuer, order_id, names, reason)
        decided = tuple(filter(None, [known.order(order_id)]))
        entries = LedgerEntries(by, "order approve", decisions=(approval,), decided=decided)
        return await self._publisher.publish(entries), count

    async def refuse(
        self, by: Principal, issuer: str, order_id: str, names: Sequence[str], reason: str
    ) -> tuple[Served, int]:
        """Refuses held entries of an order, or without names all of them; returns their number."""
        known = self._publisher.recorder.ledger.orders.of(issuer)
        refusal, count = refusal_of(known, issuer, order_id, names, reason)
        decided = tuple(filter(None, [known.order(order_id)]))
        entries = LedgerEntries(by, "order refuse", decisions=(refusal,), decided=decided)
        return await self._publisher.publish(entries), count

    async def accept_restore(self, by: Principal, reason: str) -> Served:
        """Accepts a ledger that lacks acknowledged records, or a clock that is behind it."""
        return await self._publisher.accept_restore(by, reason)

    # ------- Lists -------

    async def refresh(self, by: Principal, zone: str, *, whole: bool = False) -> Served:
        """Fetches a feed now, or reads the files of a list again.

        With `whole`, all of it is fetched, even if it is not modified.
        """
        configured = next((one for one in self._publisher.config.zones if one.name == zone), None)
        if configured is None or configured.kind == "orders":
            reason = "no such list; one that is new in the configuration exists after `dnsblock reload`"
            raise Refused([Problem(f"list {zone}", None, "", reason)])
        try:
            await self._refresher.fetch(configured, whole=whole)
        except FetchFailed as err:
            raise Refused([Problem(f"list {zone}", None, "", str(err))]) from err
        served = await self._publisher.publish(ListsChanged(by, f"refresh {zone}", zone))
        self._refresher.reschedule(zone)
        return served

    async def roll_back(self, by: Principal, serial: int, reason: str) -> Served:
        """Publishes the lists of an earlier serial as new versions."""
        return await self._publisher.publish(RollBack(by, serial, reason))

    async def allow(self, by: Principal, allowed: Allowed) -> Served:
        """Exempts a name from lists until a time; a time that has passed ends this."""
        recorder = self._publisher.recorder
        check(allowed, recorder.now(), recorder.ledger.orders.allowances)
        return await self._publisher.publish(LedgerEntries(by, "allow", allowed=(allowed,)))

    async def accept_list(self, by: Principal, zone: str, sha256: str, reason: str) -> Served:
        """Accepts the rejected content of a list, by its digest."""
        publisher = self._publisher
        publisher.recorder.check()
        rejection = publisher.lists.rejections.get(zone)
        if (rejection is None or rejection.source_sha256 != sha256) and zone in publisher.lists.zones:
            # `dnsblock check` may have read the file before the daemon did.
            with contextlib.suppress(Refused):
                await publisher.publish(ListsChanged(by, f"accepting list {zone}", zone))
            rejection = publisher.lists.rejections.get(zone)
        if rejection is None or not sha256 or rejection.source_sha256 != sha256:
            why = "no rejected content has this digest; `dnsblock source list` shows the rejected lists"
            raise Refused([Problem(f"list {zone}", None, sha256, why)])
        codes = tuple(finding.code for finding in rejection.findings)
        if set(codes) & set(NO_LIST):
            why = f"there is no list to accept ({', '.join(codes)}): see `dnsblock source list`"
            raise Refused([Problem(f"list {zone}", None, sha256, why)])
        approval = Approval(zone, sha256, rejection.options, codes, str(by), reason, utc_now())
        async with publisher.inputs.listing:
            await asyncio.to_thread(_approve, publisher, approval)
        text = f"list {zone}: accepted rejected content {sha256}"
        event(logging.WARNING, text, zone=zone, by=by, reason=reason)
        return await publisher.publish(ListsChanged(by, f"accepted list {zone}", zone))

    # ------- Cache -------

    def purge(self, by: Principal, name: str | None, below: bool) -> int:
        """Purges a canonical name from the cache, with `below` the names below it too; None: everything."""
        purged = self._engine.purge(name, below)
        facts = {"name": name or "everything", "below": below, "answers": purged}
        event(logging.INFO, "purged the cache", **facts, by=by)
        return purged


def _approve(publisher: Publisher, approval: Approval) -> None:
    zone = next(zone for zone in publisher.config.zones if zone.name == approval.zone)
    if sha256_of(source_of(zone, publisher.store).files().files) != approval.source_sha256:
        why = "the content has changed: look at the new one"
        raise Refused([Problem(f"list {zone.name}", None, approval.source_sha256, why)])
    with publisher.store.history() as history:
        history.approve(approval)
