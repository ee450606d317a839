"""A dry run of order documents: what would change here if they were submitted now. For `order check`.

Nothing is recorded or published. The state is derived with and without the documents, and compared.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypedDict

from dnsblock._engine import Snapshot
from dnsblock.errors import Refused
from dnsblock.orders.authority import authority_of
from dnsblock.orders.conflicts import Together
from dnsblock.orders.context import Context
from dnsblock.orders.entry import Entry
from dnsblock.orders.order import Order
from dnsblock.orders.orders import Orders
from dnsblock.orders.submission import Submitted, examine_submitted
from dnsblock.policy.lifting import any_below
from dnsblock.policy.snapshot import Policy, policy_at
from dnsblock.policy.verdicts import Verdict, verdicts
from dnsblock.times import utc

MAX_CHECKED = 20_000  # entries of one order


class Signatures(TypedDict):
    """The signatures of a document, as this server judges them now."""

    needed: int
    signers: list[str]  # those that count
    enough: bool
    proposed: bool  # signed by a flagger only
    problems: list[dict[str, Any]]


class Effect(TypedDict):
    """The changes by an order that blocks names, when it takes effect."""

    at: str
    entries: int
    added: int  # entries that would be in force
    checked: int  # of these, looked up
    already_blocked: int  # of those looked up: something here blocks all that they cover
    held: dict[str, int]  # entries by the code of the guard
    refused: int


class Trial(TypedDict):
    """The result for one document."""

    document: Verdict
    acks: list[str]
    signatures: Signatures | None  # None: the document cannot be read
    effect: Effect | None  # None: it is refused, or blocks no names


def try_documents(
    documents: Sequence[Submitted], context: Context, policy: Policy, sees: frozenset[str] | None = None
) -> list[Trial]:
    """The results if these documents were submitted now. `sees`: the issuers of the caller; None: all."""
    context = replace(context, is_trial=True)
    examined = examine_submitted(documents, context, issuers=sees)
    known, config = context.known, context.config
    after = known.with_all(examined.intake.signed).plus(examined.intake.new)
    then = policy_at(policy, after, context.now, config)
    found: list[Trial] = []
    judgements = verdicts(examined, known, after, then, config, sees=sees)
    for one, verdict in zip(documents, judgements, strict=True):
        order = examined.orders.get(one.file)
        judged = None if order is None else after.by_digest.get(order.sha256)
        effect = None
        if judged is not None and verdict["verdict"] != "refused":
            effect = _effect(judged, known, after, policy, context)
        found.append(
            {
                "document": verdict,
                "acks": [] if order is None else list(order.acks),
                "signatures": None if order is None else _signatures(order, one.signatures, context),
                "effect": effect,
            }
        )
    return found


def _signatures(order: Order, armour: bytes | None, context: Context) -> Signatures:
    if order.source is not None and order.source.signatures is None and armour is not None:
        order = replace(order, source=replace(order.source, signatures=armour))
    config = context.config
    issuer = config.issuer(order.issuer)
    needed = 1 if issuer is None else issuer.signatures
    if order.source is None:  # in the ledger already
        signers = [one.principal for one in order.judgement.signers]
        is_proposed = order.judgement.is_proposed
        return Signatures(
            needed=needed, signers=signers, enough=not is_proposed, proposed=is_proposed, problems=[]
        )
    known = Together(context.known)
    facts = (config, context.references.keys, known.rotations(order.issuer), context.now)
    try:
        found = authority_of(order, *facts, targets=known.aims(order))
    except Refused as err:
        return {
            "needed": needed,
            "signers": [],
            "enough": False,
            "proposed": False,
            "problems": err.as_json(),
        }
    return {
        "needed": found.required,
        "signers": [one.principal for one in found.signers],
        "enough": not found.is_proposed,
        "proposed": found.is_proposed,
        "problems": [],
    }


def _effect(order: Order, known: Orders, after: Orders, policy: Policy, context: Context) -> Effect | None:
    if order.action not in ("block", "supersede", "notice"):
        return None
    at = max(context.now, order.effective_at)
    config = context.config
    before = policy_at(policy, known, at, config)
    then = policy_at(before, after, at, config)
    part = then.state.entries_of(order.issuer).parts.get(order.sha256)
    added = [] if part is None else [item.entry for item in part.items]
    held: dict[str, int] = {}
    for one in order.judgement.held:
        held[one.code] = held.get(one.code, 0) + 1
    return {
        "at": utc(at),
        "entries": len(order.entries),
        "added": len(added),
        "checked": min(len(added), MAX_CHECKED),
        "already_blocked": _already_blocked(added[:MAX_CHECKED], before.snapshot),
        "held": held,
        "refused": len(order.refused) + order.judgement.count("refused"),
    }


def _already_blocked(entries: Iterable[Entry], snapshot: Snapshot) -> int:
    """The entries whose names are blocked without them."""
    return sum(
        (entry.match == "below" or _is_blocked(entry.name, snapshot))
        and (entry.match == "exact" or _is_blocked(any_below(entry.name), snapshot))
        for entry in entries
    )


def _is_blocked(name: str, snapshot: Snapshot) -> bool:
    decides = next((entry for entry in snapshot.covering(name) if entry.decides), None)
    return decides is not None and decides.action not in (None, "passthru")
