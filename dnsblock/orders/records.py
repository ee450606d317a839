"""The records of the ledger: the fields of each kind, and their encoding as one line of JSON.

A line is JSON in canonical form (RFC 8785: sorted keys, no spaces, UTF-8) with one more key at its end,
`digest`: the SHA-256 of the line without it. So every byte of every record is covered, even in the last one.
`prev_record` is the SHA-256 of the previous line, without its line end.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic_core import from_json

from dnsblock.errors import Refused
from dnsblock.orders.facts import Judged, PlainFact, plain_as_json, plain_from_json
from dnsblock.orders.order import Order, parse
from dnsblock.principal import Principal

VERSION = 2  # of the record format; `docs/orders.md` describes it. Version 1 is read, too


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a ledger: the number of records, and the SHA-256 of the last one's line."""

    records: int
    last: str | None  # None: a ledger without records


@dataclass(frozen=True, slots=True)
class LostCheckpoint:
    """A signed checkpoint whose records were lost."""

    extended: int  # the most records of another signed checkpoint that the ledger does extend
    records: int
    root: str  # of the tree, in base64


@dataclass(frozen=True, slots=True)
class AcceptedRestore:
    """The operator accepted a ledger that does not extend the acknowledged one."""

    reason: str
    acknowledged: Position | None  # the expected position; None: the checkpoint was missing
    found: Position  # the actual position
    # The signed checkpoint with the most records that the ledger does not extend, if there is one.
    checkpoint: LostCheckpoint | None = None


Fact = Order | Judged | AcceptedRestore | PlainFact


class Record(NamedTuple):
    """A fact, when it was recorded, and who caused that. A tuple, since a startup makes one for each line."""

    n: int  # from 1
    at: datetime
    by: Principal
    fact: Fact
    version: int = (
        VERSION  # of the format; in version 1, the document of an order also meant that it is accepted
    )

    @property
    def kind(self) -> str:
        """The kind of the record."""
        return kind_of(self.fact)


class NotARecord(Exception):  # noqa: N818
    """A line is not a valid record; the message says why."""


class NewerRecord(Exception):  # noqa: N818
    """A newer dnsblock wrote this record; the argument is its version."""


def encode(record: Record, prev_record: str | None) -> bytes:
    """The line of a record, without its line end."""
    kind, payload = kind_of(record.fact), _payload(record.fact)
    at = record.at.astimezone(UTC).isoformat(timespec="microseconds")
    envelope = {"version": VERSION, "n": record.n, "kind": kind, "at": at, "by": record.by.as_json()}
    if clash := payload.keys() & {*envelope, "prev_record", "digest"}:
        raise LookupError(f"a fact has a field of the envelope: {clash}")
    return sealed({**envelope, **payload, "prev_record": prev_record})


Promise = tuple[str, str, str, str | None]  # issuer, order_id, sha256, and that of the entries file
Find = Callable[[Promise], Order | None]  # an order that was parsed before


def decode(
    line: bytes, n: int, prev_record: str | None, find: Find | None = None, *, is_sealed: bool = False
) -> Record:
    """Parses the line of record `n`, which follows `prev_record`. Raises `NotARecord` and `NewerRecord`.

    An order with an `entries_file` has no entries yet, unless `find` knows it. `is_sealed`: the digest of the
    line was verified.
    """
    fields = _json(line) if is_sealed else unsealed(line)
    version = fields.get("version")
    if isinstance(version, int) and version > VERSION:
        raise NewerRecord(version)
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise NotARecord("not a record of this version")
    if (fields.get("n"), fields.get("prev_record")) != (n, prev_record):
        raise NotARecord("this record does not follow the previous one")
    try:
        fact = _read(n, fields, find)
        at = datetime.fromisoformat(fields["at"])
        by = Principal.from_json(fields["by"])
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise NotARecord("not a record of this version") from err
    if at.tzinfo is None:
        raise NotARecord("its time has no offset")
    return Record(n, at.astimezone(UTC), by, fact, version)


def sealed(fields: dict[str, Any]) -> bytes:
    """The line of these fields: in canonical form, with its digest."""
    line = canonical(fields)
    return line[:-1] + b',"digest":"%s"}' % hashlib.sha256(line).hexdigest().encode()


def canonical(value: dict[str, Any]) -> bytes:
    """JSON in canonical form (RFC 8785), for objects whose numbers are integers and whose keys are ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# No text in a record can contain this: JSON escapes the quotation marks.
_END = re.compile(rb',"digest":"([0-9a-f]{64})"}')


def end_of_record(data: bytes) -> int | None:
    """The end of the first record in these bytes; None if there is no complete one."""
    found = _END.search(data)
    return None if found is None else found.end()


def unsealed(line: bytes) -> dict[str, Any]:
    """The fields of an intact line. Raises `NotARecord`."""
    end = _END.search(line)
    if end is None or end.end() != len(line):
        raise NotARecord("not a record")
    content = line[: end.start()] + b"}"
    if hashlib.sha256(content).hexdigest().encode() != end[1]:
        raise NotARecord("this record was changed: its digest does not match")
    return _json(content)


def _json(content: bytes) -> dict[str, Any]:
    try:
        fields = from_json(content)  # a third of the time of `json.loads`
    except ValueError as err:
        raise NotARecord("not a record") from err
    if not isinstance(fields, dict) or content[:1] != b"{":
        raise NotARecord("not a record")
    return fields


# ------- The fields of each kind -------


def kind_of(fact: Fact) -> str:
    """The kind of a record with this fact."""
    match fact:
        case Order():
            return "received"
        case Judged():
            return "accepted"
        case AcceptedRestore():
            return "restore_accepted"
    return fact.KIND


def _payload(fact: Fact) -> dict[str, Any]:
    match fact:
        case Order(source=source):
            assert source is not None  # noqa: S101  # a newly parsed order has its bytes
            return {
                "issuer": fact.issuer,
                "order_id": fact.order_id,
                "sha256": fact.sha256,
                "document": source.data.decode(),
                "entries_file": fact.entries_file.sha256 if fact.entries_file else None,
            }
        case Judged():
            return fact.as_json()
        case AcceptedRestore():
            acknowledged = None if fact.acknowledged is None else _position(fact.acknowledged)
            return {
                "reason": fact.reason,
                "acknowledged": acknowledged,
                "found": _position(fact.found),
                "checkpoint": None if fact.checkpoint is None else asdict(fact.checkpoint),
            }
    return plain_as_json(fact)


def _read(n: int, fields: dict[str, Any], find: Find | None) -> Fact:
    """The fact of a record. Raises `KeyError`, `TypeError`, `ValueError` and `NotARecord`."""
    kind = fields["kind"]
    match kind:
        case "received" | "order":  # `order` in version 1, where it also meant accepted
            return _order(n, fields, find)
        case "accepted":
            return Judged.from_json(fields)
        case "restore_accepted":
            return _accepted_restore(fields)
        case "annulment":  # of version 1
            return plain_from_json("annulled", fields)
    return plain_from_json(kind, fields)


def _position(position: Position) -> dict[str, Any]:
    return {"records": position.records, "last": position.last}


def _order(n: int, fields: dict[str, Any], find: Find | None) -> Order:
    data: bytes = fields["document"].encode()
    promised = (fields["issuer"], fields["order_id"], fields["sha256"], fields["entries_file"])
    order: Order | None = None
    # In version 1, no record says what an order was parsed to.
    may_find = find is not None and fields["version"] != 1
    if find is not None and may_find and hashlib.sha256(data).hexdigest() == fields["sha256"]:
        order = find(promised)
    try:
        order = order or parse(f"ledger.jsonl record {n}", data)
    except Refused as err:
        raise NotARecord(f"its order cannot be read ({err.problems[0].reason})") from err
    if promise_of(order) != promised:
        raise NotARecord("its fields are not those of its document")
    return order if order.source is None else replace(order, source=None)


def promise_of(order: Order) -> Promise:
    """The fields of its document that its record repeats."""
    entries_file = None if order.entries_file is None else order.entries_file.sha256
    return order.issuer, order.order_id, order.sha256, entries_file


def _accepted_restore(fields: dict[str, Any]) -> AcceptedRestore:
    acknowledged = fields["acknowledged"]
    return AcceptedRestore(
        _text(fields["reason"]),
        None if acknowledged is None else read_position(acknowledged),
        read_position(fields["found"]),
        _lost_checkpoint(fields.get("checkpoint")),
    )


def _lost_checkpoint(value: Any) -> LostCheckpoint | None:
    match value:
        case None:
            return None
        case {"extended": int(extended), "records": int(records), "root": str(root)}:
            return LostCheckpoint(extended, records, root)
    raise ValueError("not a checkpoint")


def read_position(value: Any) -> Position:
    """Parses a position. Raises `ValueError`."""
    match value:
        case {"records": int(records), "last": str() | None as last} if (records == 0) == (last is None):
            return Position(records, last)
    raise ValueError("not a number of records and the SHA-256 of the last one")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
