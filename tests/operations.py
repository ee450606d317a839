"""The operations of the API, for docs/openapi.json: each with its role, its parameters and its responses."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from dnsblock.http import models, models_operations, models_policy, models_queries, models_status
from dnsblock.http.issuers import MAX_BODY_BYTES, MAX_DOCUMENTS
from dnsblock.http.models import Model
from dnsblock.http.models_queries import Query

Role = Literal["submit", "read", "watch", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)

ORDER_PATH = "/v1/orders/{issuer}/{number}"
EVENT = """id: 17
event: accepted
data: {"n":17,"at":"2026-11-29T23:00:00+00:00","kind":"accepted","issuer":"a.example","order_id":"84/2017"}

"""
FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["document"],
            "properties": {
                "document": {
                    "type": "array",
                    "items": FILE,
                    "minItems": 1,
                    "maxItems": MAX_DOCUMENTS,
                    "description": "An order document, sent as a file. Its name appears in the verdict.",
                },
                "signatures": {
                    "type": "array",
                    "items": FILE,
                    "description": "The signatures (SSHSIG) of the document before this part.",
                },
                "entries": {
                    "type": "array",
                    "items": FILE,
                    "description": "The entries file of the document before this part.",
                },
            },
        }
    }
}
NAMES = {"text/plain": {"schema": {"type": "string"}, "example": "t.me\ntelegram.org\n"}}
IDS = {"text/plain": {"schema": {"type": "string"}, "example": ""}}
CANDIDATE = {"application/octet-stream": {"schema": {"type": "string"}, "example": "one.example\n"}}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A method of a path."""

    tag: str
    method: str
    path: str
    id: str
    role: Role | None  # None: no credentials are needed
    summary: str
    description: str = ""
    query: type[Query] | None = None
    body: dict[str, Any] | None = None
    is_body_required: bool = False
    answers: dict[int, tuple[str, type[Model] | None]]
    kind: str = "application/json"  # of a response without an error
    example: str | None = None
    problems: dict[int, str]  # beside those of every operation


REFUSED = {
    409: "It is refused, for the reasons in `problems`. Nothing has changed, except what `served` shows."
}
NO_ORDER = {404: "There is no such order, or it is of another issuer."}
NO_ISSUER = {404: "There is no such issuer for this client."}
INVALID = {422: "A parameter is invalid."}
BODY = {408: "The body did not arrive in time.", 413: "The body is too large."}
BUSY = {503: "Too many requests at once. Try again after `Retry-After`."}
SUBMITTED = {
    408: "The body did not arrive in time.",
    413: "The body, the signatures or the number of documents is too large.",
    415: "The body is not a form.",
    422: "Every document is refused, each with its problems.",
    503: "Nothing can be accepted now, or too many requests at once. Try again.",
}
PUBLISHED = ("The snapshot in force, and the changes.", models_operations.Published)
SHOWS_ALL = "Staff get the orders of all issuers."

ORDERS = [
    Operation(
        tag="Orders",
        method="post",
        path="/v1/orders",
        id="submitOrders",
        role="submit",
        summary="submits documents, and responds when they are durable and in force",
        description="To submit a document again is safe. "
        f"The body of a request has at most {MAX_BODY_BYTES:,} bytes. Staff also get the changes.",
        body=FORM,
        is_body_required=True,
        answers={
            200: ("Every document was known; nothing has changed.", models.Submission),
            201: ("At least one document is new. Others may be refused.", models.Submission),
        },
        problems=SUBMITTED,
    ),
    Operation(
        tag="Orders",
        method="get",
        path="/v1/orders",
        id="listOrders",
        role="read",
        summary="lists the orders of the client's issuers",
        description=SHOWS_ALL,
        query=models_queries.OrdersQuery,
        answers={200: ("In the sequence of the ledger.", models.OrderPage)},
        problems=INVALID,
    ),
    Operation(
        tag="Orders",
        method="get",
        path=ORDER_PATH,
        id="showOrder",
        role="read",
        summary="shows everything about one order",
        query=models_queries.OrderQuery,
        answers={200: ("The order.", models.Order)},
        problems=NO_ORDER | INVALID,
    ),
    Operation(
        tag="Orders",
        method="get",
        path=f"{ORDER_PATH}/receipt",
        id="signReceipt",
        role="read",
        summary="signs a receipt of the present state",
        description="The receipt is recorded in the ledger. `ssh-keygen -Y verify` checks it.",
        answers={200: ("The receipt.", models.SignedReceipt)},
        problems=NO_ORDER | {503: "More than 300 receipts in an hour, or none can be signed now."},
    ),
    Operation(
        tag="Orders",
        method="get",
        path="/v1/events",
        id="followEvents",
        role="read",
        summary="follows the records of the ledger about the client's issuers",
        description="Without Last-Event-ID and `after`: new events only. Staff get all records.",
        query=models_queries.EventsQuery,
        answers={200: ("Server-sent events. The data of each is one line of JSON.", None)},
        kind="text/event-stream",
        example=EVENT,
        problems={409: "There is no such event."} | INVALID | BUSY,
    ),
    Operation(
        tag="Orders",
        method="post",
        path="/v1/orders/check",
        id="checkOrders",
        role="submit",
        summary="shows the results if documents were submitted now; changes nothing",
        body=FORM,
        is_body_required=True,
        answers={200: ("A result for each document.", models_operations.Trials)},
        problems={status: text for status, text in SUBMITTED.items() if status != 422},
    ),
    Operation(
        tag="Orders",
        method="get",
        path="/v1/orders/last",
        id="lastOrder",
        role="read",
        summary="shows the last numbered order of an issuer, which the next one names in `prev`",
        query=models_queries.LastQuery,
        answers={200: ("The order, and the first missing number.", models_operations.LastNumber)},
        problems=NO_ISSUER | INVALID,
    ),
    Operation(
        tag="Orders",
        method="get",
        path="/v1/orders/statement",
        id="statementContent",
        role="read",
        summary="shows the content of a status statement at a time",
        query=models_queries.StatementQuery,
        answers={200: ("Count and digest.", models_operations.StatementContent)},
        problems=NO_ISSUER | INVALID,
    ),
    Operation(
        tag="Orders",
        method="post",
        path="/v1/orders/approve",
        id="approveOrder",
        role="operate",
        summary="releases held entries; responds when they are in force",
        description="The body has names of entries, one per line. Without a body: everything that is held.",
        query=models_queries.DecisionQuery,
        body=NAMES,
        answers={200: ("The number of released entries.", models_operations.Approved)},
        problems=REFUSED | INVALID | BODY,
    ),
    Operation(
        tag="Orders",
        method="post",
        path="/v1/orders/refuse",
        id="refuseEntries",
        role="operate",
        summary="refuses held entries, which is final",
        description="The body has names of entries, one per line. Without a body: everything that is held.",
        query=models_queries.DecisionQuery,
        body=NAMES,
        answers={200: ("The number of refused entries.", models_operations.EntriesRefused)},
        problems=REFUSED | INVALID | BODY,
    ),
    Operation(
        tag="Orders",
        method="post",
        path="/v1/orders/annul",
        id="annulOrder",
        role="operate",
        summary="ends the entries of an order",
        query=models_queries.DecisionQuery,
        answers={200: ("The number of entries that were in force.", models_operations.Annulled)},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Orders",
        method="get",
        path=f"{ORDER_PATH}/probe",
        id="probeOrder",
        role="watch",
        summary="lists the queries that prove an order, and the expected responses",
        query=models_queries.ProbeQuery,
        answers={200: ("The queries.", models_operations.ProbePlan)},
        problems={404: "There is no such order."} | INVALID,
    ),
    Operation(
        tag="Orders",
        method="post",
        path="/v1/log/accept-restore",
        id="acceptRestore",
        role="operate",
        summary="accepts a ledger that lacks records, or a clock that was set back",
        query=models_queries.ReasonQuery,
        answers={200: PUBLISHED},
        problems=REFUSED | INVALID,
    ),
]
NAMES_OPERATIONS = [
    Operation(
        tag="Names",
        method="get",
        path="/v1/why",
        id="explainName",
        role="watch",
        summary="explains why a name is or is not blocked: now, at a time, as known at a time, for a client",
        query=models_queries.WhyQuery,
        answers={200: ("The explanation.", models_policy.WhyAnswer)},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Names",
        method="get",
        path="/v1/history",
        id="nameHistory",
        role="watch",
        summary="lists all events of a name",
        query=models_queries.HistoryQuery,
        answers={200: ("The oldest event is first.", models_policy.NameHistory)},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Names",
        method="post",
        path="/v1/cache/purge",
        id="purgeCache",
        role="operate",
        summary="purges a name, or everything, from the cache",
        query=models_queries.PurgeQuery,
        answers={200: ("The number of purged responses.", models_operations.Purged)},
        problems=INVALID,
    ),
]
ALLOW = [
    Operation(
        tag="Names",
        method="get",
        path="/v1/allow",
        id="listAllowed",
        role="watch",
        summary="lists the names that are exempt from lists",
        answers={200: ("The exemptions in force.", models_operations.AllowedNames)},
        problems={},
    ),
    Operation(
        tag="Names",
        method="post",
        path="/v1/allow",
        id="allowName",
        role="operate",
        summary="exempts a name from lists until a time, or ends that; never from an order",
        query=models_queries.AllowQuery,
        answers={200: ("The effect.", models_operations.Allowance)},
        problems=REFUSED | INVALID,
    ),
]
LISTS = [
    Operation(
        tag="Lists",
        method="get",
        path="/v1/sources",
        id="listSources",
        role="watch",
        summary="shows each list, its age and its last rejection",
        answers={200: ("The lists.", models_policy.Sources)},
        problems={},
    ),
    Operation(
        tag="Lists",
        method="post",
        path="/v1/sources/{name}/refresh",
        id="refreshSource",
        role="operate",
        summary="fetches or reads a list now, and publishes it",
        query=models_queries.RefreshQuery,
        answers={200: PUBLISHED},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Lists",
        method="post",
        path="/v1/sources/{name}/accept",
        id="acceptContent",
        role="operate",
        summary="accepts rejected content of a list by its digest",
        query=models_queries.AcceptQuery,
        answers={200: PUBLISHED},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Lists",
        method="get",
        path="/v1/versions",
        id="listVersions",
        role="watch",
        summary="lists snapshots, or the versions of a list",
        query=models_queries.VersionsQuery,
        answers={200: ("The newest is first.", models_policy.VersionsAnswer)},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Lists",
        method="get",
        path="/v1/diff",
        id="compareSnapshots",
        role="watch",
        summary="lists the differences between two serials",
        query=models_queries.DiffQuery,
        answers={200: ("The differences by zone.", models_policy.DiffAnswer)},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Lists",
        method="post",
        path="/v1/rollback",
        id="rollBack",
        role="operate",
        summary="publishes the lists of an earlier serial as new versions",
        query=models_queries.RollbackQuery,
        answers={200: PUBLISHED},
        problems=REFUSED | INVALID,
    ),
    Operation(
        tag="Lists",
        method="get",
        path="/v1/export",
        id="exportZones",
        role="watch",
        summary="exports policy zones as a file for other software",
        description="The file is complete only with its last line, which has the counts.",
        query=models_queries.ExportQuery,
        answers={200: ("The file.", None)},
        kind="text/plain",
        problems=REFUSED | INVALID | BUSY,
    ),
    Operation(
        tag="Lists",
        method="post",
        path="/v1/impact",
        id="measureImpact",
        role="operate",
        summary="counts the queries that an order or a list would block; responds after `seconds`",
        description="The body is an order document or a list. One impact run is possible at a time. "
        "It ends if the client disconnects.",
        query=models_queries.ImpactQuery,
        body=CANDIDATE,
        answers={200: ("The counts.", models_policy.ImpactReport)},
        problems=REFUSED | INVALID | BODY,
    ),
    Operation(
        tag="Lists",
        method="get",
        path="/v1/impact",
        id="impactProgress",
        role="watch",
        summary="shows the counts so far of the impact run",
        answers={200: ("Null: none is running.", models_policy.ImpactRunning)},
        problems={},
    ),
    Operation(
        tag="Lists",
        method="delete",
        path="/v1/impact",
        id="endImpact",
        role="operate",
        summary="ends the impact run early; the client that started it gets the counts so far",
        answers={200: ("Whether there was one.", models_policy.ImpactEnded)},
        problems={},
    ),
    Operation(
        tag="Lists",
        method="post",
        path="/v1/impact/past",
        id="pastImpact",
        role="watch",
        summary="estimates what an order or a list would have blocked on past days",
        description="The body is an order document or a list. Takes the option `query_counts`. Names that "
        "were queried fewer than ten times a day are in no figure about a name or an entry.",
        query=models_queries.PastImpactQuery,
        body=CANDIDATE,
        answers={200: ("The estimate.", models_policy.PastImpactReport)},
        problems=REFUSED | INVALID | BODY,
    ),
]
WEBHOOKS = [
    Operation(
        tag="Webhooks",
        method="get",
        path="/v1/webhooks",
        id="listWebhooks",
        role="watch",
        summary="shows each webhook, its state and its dead letters",
        answers={200: ("The webhooks.", models_operations.Webhooks)},
        problems={},
    ),
    Operation(
        tag="Webhooks",
        method="post",
        path="/v1/webhooks/resend",
        id="resendEvents",
        role="operate",
        summary="sends events to webhooks again",
        description="The body has the ids of events, one per line.",
        query=models_queries.ResendQuery,
        body=IDS,
        answers={200: ("The number of events.", models_operations.Resent)},
        problems=REFUSED | INVALID | BODY,
    ),
]
INSTANCE = [
    Operation(
        tag="Instance",
        method="get",
        path="/v1/snapshot",
        id="getSnapshot",
        role="read",
        summary="shows what this instance enforces and since when, with the zones of the client's issuers",
        description="`dnsblock fleet status` compares it between instances.",
        answers={200: ("The instance.", models.Instance)},
        problems={},
    ),
    Operation(
        tag="Instance",
        method="get",
        path="/v1/status",
        id="getStatus",
        role="watch",
        summary="shows the whole state of this instance",
        answers={200: ("The state.", models_status.Status)},
        problems={},
    ),
    Operation(
        tag="Instance",
        method="get",
        path="/v1/work",
        id="getWork",
        role="watch",
        summary="shows downloads and reading of lists that are in progress",
        answers={200: ("The progress.", models_status.Work)},
        problems={},
    ),
    Operation(
        tag="Instance",
        method="post",
        path="/v1/reload",
        id="reload",
        role="operate",
        summary="reads configuration, orders and lists again, and publishes",
        answers={200: PUBLISHED},
        problems=REFUSED,
    ),
]
HEALTH_KIND = "application/health+json"
HEALTH = [
    Operation(
        tag="Health",
        method="get",
        path="/livez",
        id="isAlive",
        role=None,
        summary="responds while the process works",
        answers={200: ("It is alive.", models_status.Health)},
        kind=HEALTH_KIND,
        problems={},
    ),
    Operation(
        tag="Health",
        method="get",
        path="/readyz",
        id="isReady",
        role=None,
        summary="responds with 200 while queries are answered by a policy, otherwise with 503",
        answers={
            200: ("It is ready.", models_status.Health),
            503: ("It is not ready, for the reason in `output`.", models_status.Health),
        },
        kind=HEALTH_KIND,
        problems={},
    ),
]
OPERATIONS = [*ORDERS, *NAMES_OPERATIONS, *ALLOW, *LISTS, *WEBHOOKS, *INSTANCE, *HEALTH]
