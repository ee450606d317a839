"""Checks order documents without a daemon and without a configuration, as `order new` and `order check` do.

Only the server knows who may order what, its own protected names, and what is in force. See `trial`.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice

from dnsblock.config import BulkGuard
from dnsblock.errors import Refused, printable
from dnsblock.orders.guards import GuardContext, judge, protected_names
from dnsblock.orders.order import Order, parse, with_entries
from dnsblock.orders.popular import shipped
from dnsblock.orders.remarks import remarks
from dnsblock.orders.submission import Submitted, missing_entries
from dnsblock.orders.verdict import Judgement
from dnsblock.policy.trial import Trial
from dnsblock.policy.verdicts import Verdict, entry_facts, refused_verdict
from dnsblock.times import utc

MAX_VERDICTS = 10_000
USUAL_BULK = 1000  # entries; the default of the option `guards.bulk.entries`


def try_alone(one: Submitted, now: datetime) -> Trial:
    """Every finding on a document that does not depend on a server."""
    order: Order | None = None
    try:
        order = parse(one.file, one.data)
        if order.entries_file is not None and one.entries is None:
            raise missing_entries(order)
        if order.entries_file is not None and one.entries is not None:
            order = with_entries(order, order.entries_file.path, one.entries)
        verdict = _verdict(one.file, _judged(order), now)
    except Refused as err:
        verdict = refused_verdict(one.file, err.problems, order)
    acks = [] if order is None else list(order.acks)
    return {"document": verdict, "acks": acks, "signatures": None, "effect": None}


def _judged(order: Order) -> Order:
    """The order with the verdicts of the guards that need no configuration."""
    context = GuardContext(
        protected=protected_names((), ()),
        popular=shipped().names,
        bulk=BulkGuard.model_validate({"entries": "off"}),  # only the server knows what is usual
    )
    return replace(order, judgement=Judgement().with_verdicts(judge(order, context)))


def _verdict(file: str, order: Order, now: datetime) -> Verdict:
    refused = order.judgement.count("refused")
    is_refused = bool(order.entries) and refused == len(order.entries)
    return {
        "file": printable(file),
        "issuer": order.issuer,
        "order_id": order.order_id,
        "sha256": order.sha256,
        "verdict": "refused" if is_refused else "accepted",
        "state": None,
        "in_force": 0,
        "entries": len(order.entries),
        "held": order.judgement.count("held"),
        "refused": len(order.refused) + refused,
        "entry_verdicts": list(islice(entry_facts(order), MAX_VERDICTS)),
        "effective_at": utc(order.effective_at),
        "expires_at": None if order.expires_at is None else utc(order.expires_at),
        "changes": [],
        "notes": [*remarks(order, now), *_further(order, now)],
        "lifting": None,
        "problems": [],
    }


def _further(order: Order, now: datetime) -> Iterator[str]:
    if order.expires_at is not None and order.expires_at <= now:
        yield "EXPIRED: expires_at has passed: a server refuses this order, unless a later one refers to it"
    if order.action in ("block", "supersede") and len(order.entries) > USUAL_BULK:
        yield f"BULK: over {USUAL_BULK:,} entries: a server may hold them, if earlier orders were small"
