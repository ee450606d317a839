"""The parameters of all requests. docs/openapi.json lists them.

An unknown or repeated parameter is refused: it is a mistake, such as a wrong word for a limit.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, IPvAnyAddress

from dnsblock.client import MAX_PROBED, MAX_SERIAL
from dnsblock.config_exports import ExportFormat
from dnsblock.orders.life import StateName
from dnsblock.policy.impact import MAX_SECONDS, MAX_TOP, Match
from dnsblock.policy.past_impact import MAX_DAYS
from dnsblock.probe.checks import SAMPLE

MAX_PAGE = 10_000  # orders in one response
MAX_EVENT = 10**15  # more events than any ledger has
MAX_CHANGES = 100_000  # names of each zone in a difference


def _whole(value: Any) -> Any:
    """Only decimal digits: `int` would also accept `1_0` and ` 1`."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,18}", value):
        raise ValueError("must be a whole number in decimal digits")
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value not in ("true", "false"):
        raise ValueError("must be true or false")
    return value


Whole = BeforeValidator(_whole)
Flag = Annotated[bool, BeforeValidator(_flag)]
Name = Annotated[str, Field(max_length=1024)]
Zone = Annotated[str, Field(max_length=63)]
Issuer = Annotated[str, Field(max_length=63)]
Number = Annotated[str, Field(max_length=200)]
Moment = Annotated[str, Field(max_length=64)]
Serial = Annotated[int, Field(ge=0, le=MAX_SERIAL), Whole]
Reason = Annotated[str, Field(min_length=1, max_length=1000, description="The reason, which is recorded.")]


class Query(BaseModel):
    """The parameters of one request."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# ------- Orders -------


class OrdersQuery(Query):
    """The query of GET /v1/orders."""

    number: Annotated[Number, Field(description="Only with this `order_id`.")] | None = None
    issuer: Annotated[Issuer, Field(description="Only of this issuer.")] | None = None
    # An unknown state is a mistake, not an empty result.
    state: Annotated[StateName, Field(description="Only in this state.")] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description="Orders in the response."), Whole] | None = (
        None
    )
    offset: (
        Annotated[
            int,
            Field(
                ge=0, le=1_000_000_000, description="Counts from the first order. Without it: the last ones."
            ),
            Whole,
        ]
        | None
    ) = None


class OrderQuery(Query):
    """The query of GET /v1/orders/ISSUER/NUMBER."""

    entries: Literal["first", "all"] = Field(
        default="first", description="The first 1,000 entries, or up to 100,000."
    )


class EventsQuery(Query):
    """The query of GET /v1/events."""

    after: (
        Annotated[int, Field(ge=0, lt=MAX_EVENT, description="Only events after this one; 0: all."), Whole]
        | None
    ) = None


class DecisionQuery(Query):
    """The query of POST /v1/orders/approve, /v1/orders/refuse and /v1/orders/annul."""

    issuer: Issuer
    order_id: Number
    reason: Reason


class LastQuery(Query):
    """The query of GET /v1/orders/last."""

    issuer: Issuer


class StatementQuery(Query):
    """The query of GET /v1/orders/statement."""

    issuer: Issuer
    at: Annotated[Moment, Field(description="The time of the statement (RFC 3339).")]


class ProbeQuery(Query):
    """The query of GET /v1/orders/ISSUER/NUMBER/probe."""

    most: Annotated[int, Field(ge=1, le=MAX_PROBED, description="Names to query."), Whole] = SAMPLE


class ResendQuery(Query):
    """The query of POST /v1/webhooks/resend."""

    all: Flag = Field(default=False, description="All dead letters.")
    webhook: Annotated[Zone, Field(description="Only this webhook.")] | None = None


# ------- Names -------


class WhyQuery(Query):
    """The query of GET /v1/why."""

    name: Annotated[Name, Field(description="A domain name, or an address in a response.")]
    at: (
        Annotated[Moment, Field(description="Explain this time: RFC 3339, or local in `time_zone`.")] | None
    ) = None
    known_at: Annotated[Moment, Field(description="By the records of the ledger up to this time.")] | None = (
        None
    )
    client: Annotated[IPvAnyAddress, Field(description="For queries from this address.")] | None = None


class HistoryQuery(Query):
    """The query of GET /v1/history."""

    name: Annotated[Name, Field(description="A domain name, or an address in a response.")]


class PurgeQuery(Query):
    """The query of POST /v1/cache/purge."""

    name: Annotated[Name, Field(description="A domain name. Without it: everything.")] | None = None
    below: Flag = Field(default=False, description="The names below it too.")


class AllowQuery(Query):
    """The query of POST /v1/allow."""

    name: Annotated[Name, Field(description="A domain name.")]
    match: Literal["exact", "subtree", "below"] = "subtree"
    until: Annotated[Moment, Field(description="Without it: the exemption ends now.")] | None = None
    reason: Reason


# ------- Lists and versions -------


class RefreshQuery(Query):
    """The query of POST /v1/sources/NAME/refresh."""

    whole: Flag = Field(default=False, description="Fetch all of it, even if it is not modified.")


class AcceptQuery(Query):
    """The query of POST /v1/sources/NAME/accept."""

    sha256: Annotated[str, Field(max_length=64, description="The digest of the rejected content.")]
    reason: Reason


class VersionsQuery(Query):
    """The query of GET /v1/versions."""

    zone: Annotated[Zone, Field(description="The versions of this list. Without it: snapshots.")] | None = (
        None
    )


class DiffQuery(Query):
    """The query of GET /v1/diff: two serials."""

    a: Serial
    b: Serial
    limit: Annotated[int, Field(ge=0, le=MAX_CHANGES, description="Names of each zone."), Whole] = 1000


class RollbackQuery(Query):
    """The query of POST /v1/rollback."""

    serial: Serial
    reason: Reason


class ReasonQuery(Query):
    """The query of POST /v1/log/accept-restore."""

    reason: Reason


class ExportQuery(Query):
    """The query of GET /v1/export."""

    format: ExportFormat
    zones: Annotated[str, Field(max_length=8192, description="Names of zones, separated by commas.")] = ""
    origin: Annotated[Name, Field(description="The name of the policy zone, for `rpz`.")] | None = None


class CandidateQuery(Query):
    """An order or a list whose impact is asked for."""

    file: Annotated[str, Field(max_length=4096, description="A name for the body; `.yaml`: an order.")]
    top: Annotated[int, Field(ge=0, le=MAX_TOP, description="The most queried names."), Whole]
    match: Annotated[Match, Field(description="Of the names of a list.")] | None = None
    zone: Annotated[Zone, Field(description="Read the list with the options of this zone.")] | None = None
    issuer: Annotated[Issuer, Field(description="With `order_id`: an order in the ledger.")] | None = None
    order_id: Number | None = None


class ImpactQuery(CandidateQuery):
    """The query of POST /v1/impact."""

    seconds: Annotated[int, Field(ge=1, le=MAX_SECONDS), Whole]


class PastImpactQuery(CandidateQuery):
    """The query of POST /v1/impact/past."""

    days: Annotated[int, Field(ge=1, le=MAX_DAYS), Whole]
