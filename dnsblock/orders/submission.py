"""Documents that are sent to the daemon instead of being put into the inbox. The same checks apply."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from dnsblock.config import Config
from dnsblock.errors import Refused
from dnsblock.orders.intake import Intake, RefusedDocument, judge_all, judge_entry
from dnsblock.orders.order import Judge, Order, parse, with_entries


@dataclass(frozen=True, slots=True)
class Submitted:
    """A document and its entries file, as received."""

    file: str  # its name in problems
    data: bytes
    entries: bytes | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """The result of judging documents."""

    documents: tuple[Submitted, ...]
    intake: Intake
    orders: dict[str, Order]  # by file: each readable document, even if it is already in the ledger


def examine_submitted(
    documents: Sequence[Submitted], known: Sequence[Order], config: Config, now: datetime
) -> Judged:
    """Judges submitted documents. Pure: nothing is written."""
    by_digest = {digest: order for order in known for digest in order.digests}
    judge = partial(judge_entry, answers=config.answer_names)
    read: dict[str, Order] = {}
    new: list[Order] = []
    refused: list[RefusedDocument] = []
    for one in documents:
        try:
            order = _read(one, judge)
            known_order = by_digest.get(order.sha256)
            if known_order is None:
                new.append(order)
                by_digest |= dict.fromkeys(order.digests, order)
            elif known_order.annulled is not None:
                reason = (
                    f"was annulled by {known_order.annulled.by} ({known_order.annulled.reason}): "
                    "send a corrected document"
                )
                raise Refused([order.problem(("order_id",), order.order_id, reason)])
            read[one.file] = known_order or order
        except Refused as err:
            refused.append(RefusedDocument(one.file, err.problems))
    return Judged(tuple(documents), judge_all(new, refused, known, config, now), read)


def _read(one: Submitted, judge: Judge) -> Order:
    order = parse(one.file, one.data, judge)
    if order.entries_file is None:
        return order
    if one.entries is None:
        reason = "its entries file was not sent: put it beside the document"
        raise Refused([order.problem(("entries_file",), order.entries_file.path, reason)])
    return with_entries(order, order.entries_file.path, one.entries, judge)
