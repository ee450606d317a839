"""The JSON about orders, which docs/openapi.json describes. Times are RFC 3339 in UTC.

Issuers see it: a field that is not defined here is never sent to them.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from dnsblock.orders.issuer import Stage
from dnsblock.orders.life import StateName
from dnsblock.orders.schema import Action

PIECE_BYTES = 32 << 10

Time = Annotated[str, Field(examples=["2017-07-14T04:30:00Z"])]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class Model(BaseModel):
    """A part of a response."""

    # Built at the first use: a daemon that nobody asks starts sooner.
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    def response(self, status: int = 200) -> Response:
        """The response with this content. A large one is in pieces: the limit of time is for each of them."""
        content = self.model_dump_json(exclude_unset=True).encode()
        if len(content) <= PIECE_BYTES:
            return Response(content, status, media_type="application/json")
        headers = {"content-length": str(len(content))}
        return StreamingResponse(_pieces(content), status, headers, media_type="application/json")


class StaffModel(Model):
    """A part of a response for staff only: they may see every field."""

    model_config = ConfigDict(extra="allow")


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), PIECE_BYTES):
        yield content[at : at + PIECE_BYTES]


# ------- Submission -------


class InputProblem(Model):
    """One problem of a document, and its place."""

    file: str = Field(description="The name of the file, as it was sent.")
    line: int | None = Field(description="From 1; null if the problem is not in one line.")
    value: str = Field(description="The invalid value; empty if there is nothing to show.")
    code: str = Field(description="The code of the reason; INVALID for a reason without one.")
    reason: str = Field(description="Why it is refused, and what to do if that is not obvious.")


class EntryVerdict(Model):
    """The verdict on one entry that is held or refused."""

    name: str
    match: str | None
    verdict: Literal["held", "refused"]
    code: str = Field(description="The guard, such as POPULAR.")
    reason: str
    line: int | None = Field(description="Of an entry that cannot be read.")


class Blocker(Model):
    """An entry that blocks a name. The fields are null if the client may not see whose it is."""

    kind: Literal["order", "list"]
    zone: str | None
    issuer: str | None
    orders: tuple[str, ...] = Field(description="Their numbers: all of them must be lifted.")
    entry: str | None
    match: str | None
    action: str | None


class StillBlocked(Model):
    """An entry that the order opens, and the part of it that stays blocked."""

    name: str
    match: str
    part: Literal["all", "name", "below", "some below"] = Field(
        description="All of it, its name itself, all names below it, or only the entries in `by`."
    )
    by: tuple[Blocker, ...] = Field(description="The first one decides now.")
    text: str = Field(description="The same, for people.")


class Lifting(Model):
    """The effect of an order that opens names."""

    at: Time = Field(description="When it takes effect, or now.")
    entries: Count = Field(description="Entries that it opens.")
    checked: Count = Field(description="Of these, looked up.")
    open: Count = Field(description="Of those looked up: nothing on this server blocks them any more.")
    still_blocked: tuple[StillBlocked, ...] = Field(description="The first 100.")
    still_blocked_total: Count
    is_below_checked: bool = Field(description="Whether entries of other orders below were looked for.")
    caches_until: Time = Field(description="Caches of clients may hold the blocked answer until then.")


class DocumentVerdict(Model):
    """The verdict on one document. A held entry does not hold up the others."""

    file: str = Field(description="The name of the file, as it was sent.")
    issuer: str | None = Field(description="Null if the document cannot be read.")
    order_id: str | None
    sha256: Sha256 | None
    verdict: Literal["accepted", "held", "refused"]
    state: StateName | None
    in_force: Count = Field(description="Entries in force now.")
    entries: Count
    held: Count = Field(description="Entries that are held.")
    refused: Count = Field(description="Entries that are refused.")
    entry_verdicts: tuple[EntryVerdict, ...] = Field(
        description="The first 1,000 entries that are held or refused. All others are accepted."
    )
    effective_at: Time | None
    expires_at: Time | None
    changes: tuple[str, ...] = Field(description="The changes by the order.")
    notes: tuple[str, ...] = Field(description="Possible mistakes, and what still blocks a name.")
    lifting: Lifting | None = Field(default=None, description="Of an order that opens names.")
    problems: tuple[InputProblem, ...] = Field(description="Why the document is refused.")


class Snapshot(Model):
    """The snapshot that is in force after a change."""

    serial: int
    digest: str


class Submission(Model):
    """The result of a submission."""

    documents: tuple[DocumentVerdict, ...] = Field(description="In the sequence of the request.")
    served: Snapshot | None = Field(description="Null if nothing in the request was new.")


# ------- Orders -------


class OrderSummary(Model):
    """An order in a list."""

    issuer: str
    order_id: str
    sha256: Sha256
    seq: int | None
    action: Action
    state: StateName
    last_stage: Stage = Field(
        description="The last stage that it can reach. Only what a probe can prove becomes verified; "
        "an order that enforces nothing is only accepted."
    )
    entries: Count
    in_force: Count = Field(description="Entries in force now.")
    held: Count
    refused: Count
    issued_at: Time
    received_at: Time | None
    effective_at: Time
    enforced_at: Time | None = Field(description="When this instance first answered by the order.")
    verified_at: Time | None = Field(description="When probes got the expected answer for every name.")
    ended_at: Time | None
    expires_at: Time | None
    deadline_at: Time | None
    breached: bool = Field(description="The deadline has passed, and the order is not carried out.")
    seconds_left: int | None = Field(description="Until the deadline, while the order is not carried out.")
    urgency: str | None
    category: str | None
    notes: tuple[str, ...]


class OrderPage(Model):
    """Orders in the sequence of the ledger."""

    orders: tuple[OrderSummary, ...]
    offset: Count = Field(description="The place of the first one among all that match.")
    total: Count = Field(description="How many match.")
    time_zone: str = Field(description="The time zone of the provider, for display.")


class OrderEntry(Model):
    """One entry of an order, or of the order that it ends."""

    name: str
    match: str
    in_force: bool
    verdict: Literal["accepted", "held", "refused"]
    ended_by: str | None = Field(description="The number of the order that ended it.")
    ended_at: Time | None
    answer: dict[str, Any] | None = Field(description="The response to a query; null for an exemption.")


class OrderTarget(Model):
    """An order that this one ends, wholly or in part."""

    order_id: str
    entries: int | None = Field(description="The number of entries that are named; null: all.")


class Signer(Model):
    """A valid signature."""

    principal: str
    fingerprint: str
    algorithm: str
    proposed: bool = Field(description="By a flagger, who proposed the order: it does not count.")


class Release(Model):
    """A release of held entries."""

    at: Time
    by: str
    reason: str
    entries: tuple[str, ...] | None = Field(description="Null: everything that was held.")


class EntryRefusal(Model):
    """A refusal of held entries by the operator. It is final."""

    at: Time
    by: str
    reason: str
    entries: tuple[str, ...]


class Annulment(Model):
    """The operator has annulled the order."""

    at: Time
    by: str
    reason: str


class Order(OrderSummary):
    """Everything about one order."""

    prev: str | None
    legal_basis: tuple[str, ...]
    reason: dict[str, Any] | None
    contact: str | None
    document: dict[str, Any] | None
    subject: dict[str, Any] | None
    notices: tuple[dict[str, Any], ...]
    conditions: dict[str, Any] | None
    review_at: Time | None
    statement: dict[str, Any] | None
    keys: dict[str, Any] | None
    notice: str | None
    acks: tuple[str, ...]
    targets: tuple[OrderTarget, ...]
    signers: tuple[Signer, ...]
    releases: tuple[Release, ...]
    refusals: tuple[EntryRefusal, ...]
    annulled: Annulment | None
    verdicts: tuple[EntryVerdict, ...] = Field(description="Entries that are held or refused.")
    names: tuple[OrderEntry, ...] = Field(description="The first entries; see the parameter `entries`.")
    blocked_queries: Count | None = Field(
        description="Queries that the order has blocked since the daemon started. "
        "Null for issuers, and for an order that has blocked no name since then."
    )
    time_zone: str = Field(description="The time zone of the provider, for display.")


class SignedReceipt(Model):
    """A receipt, and its detached signature."""

    receipt: str = Field(description="JSON as text: the signature is of these bytes.")
    signature: str = Field(description="SSHSIG, for `ssh-keygen -Y verify`.")


# ------- Errors -------


class ProblemDetails(Model):
    """An error (RFC 9457)."""

    type: str = Field(description="A URN that ends with the code.")
    title: str
    status: int
    detail: str = Field(description="The reason, for people.")
    code: str = Field(description="The reason, for programs.")
    problems: tuple[InputProblem, ...] = Field(default=(), description="Every problem of the documents.")
    documents: tuple[DocumentVerdict, ...] = Field(
        default=(), description="The verdict on each document, if documents are refused."
    )
    served: dict[str, Any] | None = Field(
        default=None, description="The snapshot in force, if everything else was carried out. For staff."
    )


# ------- The instance -------


class InstanceZone(Model):
    """A zone of orders, and its content."""

    name: str
    issuer: str
    mode: Literal["enforce", "shadow"]
    digest: str = Field(description="The same on every instance that enforces the same orders alike.")


class Instance(Model):
    """The content that an instance enforces, and since when."""

    version: str = Field(description="Of dnsblock.")
    started_at: Time
    serial: int = Field(description="Of the snapshot in force. Each instance counts its own.")
    digest: str = Field(description="Of the snapshot: the same on every instance that enforces the same.")
    published_at: Time = Field(description="Since when this snapshot is in force.")
    queries: int = Field(description="In the last `seconds`, over all transports.")
    seconds: float = Field(description="About a minute; shorter after startup.")
    zones: tuple[InstanceZone, ...] = Field(description="The zones of the client's issuers.")
