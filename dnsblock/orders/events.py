"""Records of the ledger as issuers see them: the data of the events in the issuers' API and in webhooks."""

from typing import Any

from dnsblock.orders.facts import Approval, EntriesRefused, Judged, plain_as_json
from dnsblock.orders.order import Order
from dnsblock.orders.records import AcceptedRestore, Fact, Record
from dnsblock.principal import Principal

NOT_SHOWN = frozenset({"file", "signatures"})  # of other senders, and long


def issuer_of(record: Record) -> str | None:
    """The issuer that may see a record; None: no issuer."""
    issuer: str | None = getattr(record.fact, "issuer", None)
    return issuer


def facts_of(record: Record) -> dict[str, Any]:
    """The data of an event for its issuer: number, time, kind and cause of a record, and its short facts."""
    facts = {"n": record.n, "at": record.at.isoformat(), "kind": record.kind, "by": _by(record.by)}
    return {**facts, **_facts(record.fact)}


def _by(by: Principal) -> dict[str, Any]:
    """The cause of a record. The provider's staff are not named to issuers."""
    return by.as_json() if by.kind == "issuer" else {"kind": by.kind}


def _facts(fact: Fact) -> dict[str, Any]:
    match fact:
        case Order():
            return {
                "issuer": fact.issuer,
                "order_id": fact.order_id,
                "sha256": fact.sha256,
                "action": fact.action,
            }
        case Judged(judgement=judgement):
            return {
                "issuer": fact.issuer,
                "order_id": fact.order_id,
                "sha256": fact.sha256,
                "proposed": judgement.is_proposed,
                "signers": [one.principal for one in judgement.signers],
                "held": judgement.count("held"),
                "refused": judgement.count("refused"),
            }
        case AcceptedRestore():
            return {}
        case EntriesRefused(issuer=issuer, order_id=order_id, reason=reason):
            return {"issuer": issuer, "order_id": order_id, "entries": len(fact.entries), "reason": reason}
        case Approval():
            entries = None if fact.entries is None else len(fact.entries)
            return {**plain_as_json(fact), "entries": entries}
    return {key: value for key, value in plain_as_json(fact).items() if key not in NOT_SHOWN}
