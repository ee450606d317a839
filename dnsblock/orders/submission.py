"""Documents that are sent to the daemon instead of being put into the inbox. The same checks apply."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dnsblock.errors import Refused
from dnsblock.orders.context import Context
from dnsblock.orders.intake import (
    Intake,
    RefusedDocument,
    costs_only_itself,
    judge_all,
    may_need_signatures,
    with_signatures,
)
from dnsblock.orders.order import Order, parse, with_entries


@dataclass(frozen=True, slots=True)
class Submitted:
    """A document with its signatures and its entries file, as received."""

    file: str  # its name in problems
    data: bytes
    entries: bytes | None = None
    signatures: bytes | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """The result of judging documents."""

    documents: tuple[Submitted, ...]
    intake: Intake
    orders: dict[str, Order]  # by file: each readable document, even if it is already in the ledger


def examine_submitted(
    documents: Sequence[Submitted], context: Context, *, issuers: Collection[str] | None = None
) -> Examined:
    """Judges submitted documents. Pure: nothing is written. `issuers` that are not in it are refused."""
    read: dict[str, Order] = {}
    new: dict[str, Order] = {}  # by digest
    refused: list[RefusedDocument] = []
    for one in documents:
        with costs_only_itself(one.file) as problems:
            order = with_signatures(_read(one), one.signatures)
            if issuers is not None and order.issuer not in issuers:
                reason = "FORBIDDEN: this client may not submit orders of this issuer"
                raise Refused([order.problem(("issuer",), order.issuer, reason)])
            known = context.known.by_digest.get(order.sha256)
            if known is not None and known.annulled is not None:
                by, why = known.annulled.by.public(), known.annulled.reason
                reason = f"ANNULLED: was annulled by {by} ({why}): send a corrected document"
                raise Refused([order.problem(("order_id",), order.order_id, reason)])
            read[one.file] = known or new.get(order.sha256) or order
            if known is None or (one.signatures is not None and may_need_signatures(known)):
                new.setdefault(order.sha256, order)
        if problems:
            sha256 = hashlib.sha256(one.data).hexdigest()
            refused.append(RefusedDocument(one.file, tuple(problems), sha256=sha256))
    return Examined(tuple(documents), judge_all(new.values(), refused, context), read)


def _read(one: Submitted) -> Order:
    order = parse(one.file, one.data)
    if order.entries_file is None:
        return order
    if one.entries is None:
        raise missing_entries(order)
    return with_entries(order, order.entries_file.path, one.entries)


def missing_entries(order: Order) -> Refused:
    """The problem if the entries file of an order is missing."""
    path = "" if order.entries_file is None else order.entries_file.path
    reason = "its entries file was not sent: put it beside the document"
    return Refused([order.problem(("entries_file",), path, reason)])
