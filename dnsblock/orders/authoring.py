"""Files that a new order refers to: the previous order, all orders of the issuer, its letter, and keys.

Everything here is read from files of the author. It needs no configuration and no daemon.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dnsblock import document
from dnsblock.errors import Problem, Refused
from dnsblock.orders.intake import documents_in
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import MAX_DOCUMENT_BYTES, Order, load_entries_file, parse
from dnsblock.orders.orders import Orders
from dnsblock.orders.writing import NewOrder
from dnsblock.signatures.allowed_signers import LineRefused, parse_line
from dnsblock.signatures.sshsig import ORDER_NAMESPACE

MAX_ORIGINAL_BYTES = 256 << 20
MAX_KEY_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Previous:
    """The issuer's last order: the next one has the next `seq`, and its digest as `prev`."""

    order_id: str
    seq: int
    sha256: str


def previous_in(file: Path, issuer: str) -> Previous:
    """The order in a file, as the previous one of this issuer. Raises `Refused`."""
    order = parse(str(file), document.read_bytes(file, max_bytes=MAX_DOCUMENT_BYTES))
    if order.issuer != issuer:
        raise Refused([order.problem(("issuer",), order.issuer, f"not an order of {issuer}")])
    if order.seq is None:
        reason = "this order has no seq, so the issuer does not number its orders: leave --after out"
        raise Refused([order.problem((), order.order_id, reason)])
    return Previous(order.order_id, order.seq, order.sha256)


def own_orders(folder: Path, issuer: str) -> IssuerOrders:
    """All orders of an issuer in a folder. Raises `Refused` if one cannot be read, or is missing."""
    found: list[Order] = []
    problems: list[Problem] = []
    for file in documents_in(folder):
        try:
            order = parse(file, document.read_bytes(Path(file), max_bytes=MAX_DOCUMENT_BYTES))
            if order.issuer == issuer:
                found.append(load_entries_file(order, folder))
        except Refused as err:
            problems.extend(err.problems)
    if problems:
        raise Refused(problems)
    found.sort(key=lambda one: (one.seq or 0, one.issued_at, one.order_id))
    orders = Orders().plus(found).of(issuer)
    if (gap := orders.chain.gap) is not None:
        reason = f"the order with seq {gap} is missing, or does not follow the previous one"
        raise Refused([Problem(str(folder), None, issuer, reason)])
    return orders


def previous_of(orders: IssuerOrders) -> Previous | None:
    """The last of these orders; None if they have no numbers."""
    last = orders.chain.last
    return None if last is None or last.seq is None else Previous(last.order_id, last.seq, last.sha256)


def numbered(order: NewOrder, orders: IssuerOrders) -> NewOrder:
    """The order with the next `seq` and its `prev`. Without them if the issuer does not number its orders.

    Raises `Refused` if an earlier order is missing: then the last one is unknown.
    """
    if (gap := orders.chain.gap) is not None:
        reason = f"the order with seq {gap} is missing on the server, so the last one is unknown"
        raise Refused([Problem("--after", None, "", reason)])
    if not orders.lives:
        return replace(order, seq=1)
    previous = previous_of(orders)
    return order if previous is None else replace(order, seq=previous.seq + 1, prev=previous.sha256)


def original(file: Path, uri: str | None) -> Mapping[str, str]:
    """The field `document` for the authority's letter. Raises `Refused`."""
    digest = hashlib.sha256(document.read_bytes(file, max_bytes=MAX_ORIGINAL_BYTES)).hexdigest()
    return {"sha256": digest, **({} if uri is None else {"uri": uri})}


def signer_lines(files: Sequence[Path], principals: Sequence[str]) -> list[str]:
    """The lines of an allowed_signers file for public keys, each with its principal. Raises `Refused`."""
    lines: list[str] = []
    problems: list[Problem] = []
    for file, principal in zip(files, principals, strict=True):
        key = document.read_bytes(file, max_bytes=MAX_KEY_BYTES).decode("utf-8", "replace").strip()
        line = f'{principal} namespaces="{ORDER_NAMESPACE}" {key}'
        try:
            parse_line(line)
        except LineRefused as err:
            problems.append(Problem(str(file), None, err.value, str(err)))
        lines.append(line)
    if problems:
        raise Refused(problems)
    return lines
