"""The JSON of the orders' API, which docs/openapi.json describes. Times are RFC 3339 in UTC."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputProblem(_Model):
    """One problem of a document, and its place."""

    file: str = Field(description="The name of the file, as it was sent.")
    line: int | None = Field(description="From 1; null if the problem is not in one line.")
    value: str = Field(description="The invalid value; empty if there is nothing to show.")
    reason: str = Field(description="Why it is refused, and what to do if that is not obvious.")


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="A URN that ends with the code.")
    title: str
    status: int
    detail: str = Field(description="The reason, for people.")
    code: str = Field(description="The reason, for programs.")
    problems: tuple[InputProblem, ...] = Field(default=(), description="Every problem of the documents.")
    documents: "tuple[DocumentVerdict, ...]" = Field(
        default=(), description="The verdict on each document, if documents are refused."
    )


class EntryVerdict(_Model):
    """An entry that is held or refused."""

    name: str
    match: str | None
    verdict: Literal["held", "refused"]
    code: str = Field(description="Of the guard, such as POPULAR.")
    reason: str
    line: int | None


class Blocker(_Model):
    """An entry that blocks a name. The fields are null if the client may not see whose it is."""

    kind: Literal["order", "list"]
    zone: str | None
    issuer: str | None
    orders: tuple[str, ...] = Field(description="Their numbers: all of them must be lifted.")
    entry: str | None
    match: str | None
    action: str | None


class StillBlocked(_Model):
    """An entry that the order opens, and the part of it that stays blocked."""

    name: str
    match: str
    part: Literal["all", "name", "below", "some below"] = Field(
        description="All of it, its name itself, all names below it, or only the entries in `by`."
    )
    by: tuple[Blocker, ...] = Field(description="The first one decides now.")


class Lifting(_Model):
    """The effect of an order that opens names."""

    at: str = Field(description="When it takes effect, or now.")
    entries: int = Field(description="Entries that it opens.")
    checked: int = Field(description="Of these, looked up.")
    open: int = Field(description="Of those looked up: nothing on this server blocks them any more.")
    still_blocked: tuple[StillBlocked, ...] = Field(description="The first 100.")
    still_blocked_total: int
    is_below_checked: bool = Field(description="Whether entries of other orders below were looked for.")
    caches_until: str = Field(description="Caches of clients may hold the blocked answer until then.")


class DocumentVerdict(_Model):
    """The verdict on one document."""

    file: str = Field(description="The name of the file, as it was sent.")
    issuer: str | None = Field(description="Null if the document cannot be read.")
    order_id: str | None
    sha256: str | None
    verdict: Literal["accepted", "held", "refused"]
    state: str | None
    in_force: int = Field(description="Entries in force now.")
    entries: int
    held: int = Field(description="Entries that are held.")
    refused: int = Field(description="Entries that are refused.")
    entry_verdicts: tuple[EntryVerdict, ...] = Field(description="The first 1,000; the others are accepted.")
    effective_at: str | None
    expires_at: str | None
    changes: tuple[str, ...] = Field(description="What the order has changed.")
    notes: tuple[str, ...] = Field(description="Possible mistakes, and what still blocks a name.")
    lifting: Lifting | None = Field(default=None, description="Of an order that opens names.")
    problems: tuple[InputProblem, ...]


class Submission(_Model):
    """The result of a submission."""

    documents: tuple[DocumentVerdict, ...] = Field(description="In the sequence of the request.")
    served: dict[str, Any] | None = Field(
        description="The serial and digest of the snapshot now in force; null if nothing is new."
    )
