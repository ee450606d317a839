"""The fields of an order document, with their types and limits. Used only by `order`.

They contain the information for citizens and courts: who ordered what, when, on which law, and for which
reason.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from dnsblock.values import Identifier, Number

Match = Literal["exact", "subtree", "below"]
Action = Literal["block", "unblock", "exempt", "revoke", "supersede", "snapshot", "notice", "rotate"]

MAX_ENTRIES = 100_000  # in the document itself; larger orders use an entries_file
MAX_ENTRIES_FILE_LINES = 20_000_000
DOCUMENT_SUFFIXES = (".yaml", ".yml", ".json")


def _time(value: Any) -> datetime:
    """RFC 3339 with an offset: without one, a time is ambiguous in Indonesia's three time zones."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time with seconds and an offset, such as 2017-07-14T11:30:00+07:00")
    try:
        time = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as err:
        raise ValueError("there is no such time") from err
    if not 1970 <= time.year <= 2999:
        raise ValueError("must be in the years 1970 to 2999 (for no end, leave expires_at out)")
    return time


_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([Zz]|[+-][0-9]{2}:[0-9]{2})")


def _schema(value: str) -> str:
    if value != "dnsblock.order/1":
        raise ValueError("this version reads dnsblock.order/1")
    return value


def _order_id(value: str) -> str:
    # It is sent to clients as the EXTRA-TEXT of the extended DNS error (RFC 8914 section 2).
    if not value or not value.isprintable() or value != value.strip():
        raise ValueError("must be printable text, without spaces around it")
    if len(value.encode()) > 200:
        raise ValueError("longer than 200 bytes")
    return value


def _sha256(value: str) -> str:
    digest = value.removeprefix("sha256:").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("must be sha256: and 64 hexadecimal digits")
    return digest


def _fingerprint(value: str) -> str:
    if not re.fullmatch(r"SHA256:[A-Za-z0-9+/]{43}", value):
        raise ValueError("must be a fingerprint, as `ssh-keygen -lf KEY.pub` prints it: SHA256:…")
    return value


def _file_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}", value):
        raise ValueError(
            "must be the bare name of a file in the orders folder: letters, digits, - _ and dots"
        )
    if value.lower().endswith(DOCUMENT_SUFFIXES):
        raise ValueError("would be read as an order: give it another ending, such as .txt")
    return value


def _guard_code(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z_]{0,39}", value):
        raise ValueError("must be a guard code in capitals, such as POPULAR")
    return value


Text = Annotated[str, Field(min_length=1, max_length=4000)]
Category = Annotated[str, Field(min_length=1, max_length=200)]
Urgency = Literal["routine", "urgent", "immediate"]
Time = Annotated[datetime, BeforeValidator(_time)]
OrderId = Annotated[str, AfterValidator(_order_id)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
GuardCode = Annotated[str, AfterValidator(_guard_code)]


class _Fields(BaseModel):
    # Built at the first use: a daemon with its orders in `orders.cache` parses none at startup.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class EntryFields(_Fields):
    """An entry with more fields than a name."""

    name: str
    match: Match = "subtree"
    note: Text | None = None
    answer: Identifier | None = None


class TargetEntryFields(_Fields):
    """An entry of a target with more fields than a name."""

    name: str
    match: Match | None = None


class TargetFields(_Fields):
    """An order that an unblock lifts. Its entries are `all` or a list, and are parsed separately."""

    order_id: OrderId
    entries: Any


class Reason(_Fields):
    """The reason, for the citizen who meets the block: in Indonesian and in English."""

    id: Text | None = None
    en: Text | None = None


class OriginalDocument(_Fields):
    """The letter of the authority: its digest and its address."""

    sha256: Sha256
    uri: Text | None = None


class Subject(_Fields):
    """The operator of the names, and how to reach them."""

    name: Text
    contact: Text | None = None


class EarlierContact(_Fields):
    """When and how the authority asked the subject to act before it ordered a block."""

    at: Time
    by: Text  # such as e-mail
    about: Text | None = None


class Conditions(_Fields):
    """The conditions for lifting the block: in Indonesian and in English."""

    id: Text | None = None
    en: Text | None = None


class Statement(_Fields):
    """The issuer's statement of its orders in force (action `snapshot`): it shows if one is missing here."""

    seq: Annotated[int, Number, Field(ge=0)] | None = None  # of the issuer's last order; null: not numbered
    entries: Annotated[int, Number, Field(ge=0)]
    digest: Sha256  # see `orders/statement.py`
    valid_until: Time


class KeyChanges(_Fields):
    """The signing keys that the issuer adds and removes (action `rotate`)."""

    add: Annotated[tuple[Text, ...], Field(max_length=100)] = ()  # lines of an allowed_signers file
    remove: Annotated[tuple[Fingerprint, ...], Field(max_length=100)] = ()


class EntriesFile(_Fields):
    """The file beside the document with its entries, one name per line."""

    path: Annotated[str, AfterValidator(_file_name)]
    sha256: Sha256
    lines: Annotated[int, Number, Field(ge=1, le=MAX_ENTRIES_FILE_LINES)]


class Header(_Fields):
    """Every field of the document. Entries and targets are only counted here: `order` parses them."""

    schema_: Annotated[str, AfterValidator(_schema), Field(alias="schema")]
    issuer: Identifier
    order_id: OrderId
    seq: Annotated[int, Number, Field(ge=1)] | None = None
    prev: Sha256 | None = None
    action: Action
    issued_at: Time
    effective_at: Time | None = None
    deadline_at: Time | None = None
    expires_at: Time | None = None
    review_at: Time | None = None
    urgency: Urgency | None = None
    category: Category | None = None
    legal_basis: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    reason: Reason | None = None
    contact: Text | None = None
    document: OriginalDocument | None = None
    subject: Subject | None = None
    notices: Annotated[tuple[EarlierContact, ...], Field(max_length=100)] = ()
    conditions: Conditions | None = None
    notice: OrderId | None = None  # of a block: the notice that announced it
    statement: Statement | None = None
    keys: KeyChanges | None = None
    entries: Annotated[list[Any], Field(min_length=1, max_length=MAX_ENTRIES)] | None = None
    entries_file: EntriesFile | None = None
    targets: Annotated[list[Any], Field(min_length=1, max_length=10_000)] | None = None
    acks: Annotated[tuple[GuardCode, ...], Field(max_length=100)] = ()
    end: str | None = None
