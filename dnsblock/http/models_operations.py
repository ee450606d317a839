"""The JSON of changes, of dry runs and of probes. Times are RFC 3339 in UTC."""

from typing import Literal

from pydantic import Field

from dnsblock.http.models import Count, DocumentVerdict, InputProblem, Model, StaffModel, Time
from dnsblock.http.models_policy import AllowedName, WhyAnswer

# ------- A publish -------


class ZoneChange(StaffModel):
    """The number of names that a zone gained and lost."""

    zone: str
    added: Count
    removed: Count


class AcceptedOrder(StaffModel):
    """An order that was accepted."""

    issuer: str
    order_id: str
    action: str
    state: str
    entries: Count
    effective_at: Time
    expires_at: Time | None


class PublishedChanges(StaffModel):
    """All changes of a publish."""

    zones: tuple[ZoneChange, ...]
    orders: tuple[AcceptedOrder, ...]
    options: tuple[str, ...] = Field(description="Options of the configuration.")


class Published(StaffModel):
    """The snapshot that is in force after a change."""

    serial: int
    digest: str
    entries: Count
    changed: bool = Field(description="False: the content is that of the previous snapshot.")
    restart_needed: tuple[str, ...] = Field(description="Options whose new values need a restart.")
    notes: tuple[str, ...] = Field(description="Warnings.")
    changes: PublishedChanges
    time_zone: str


class StaffSubmission(StaffModel):
    """The result of a submission, for staff."""

    documents: tuple[DocumentVerdict, ...]
    served: Published | None = Field(description="Null if nothing in the request was new.")


class Annulled(StaffModel):
    """The result of an annulment."""

    ended: Count = Field(description="Entries that were in force.")
    served: Published


class Approved(StaffModel):
    """The result of an approval."""

    released: Count = Field(description="Entries that were held.")
    served: Published


class EntriesRefused(StaffModel):
    """The result of a refusal of held entries."""

    refused: Count = Field(description="Entries that were held.")
    served: Published


class Purged(StaffModel):
    """The result of a purge."""

    purged: Count = Field(description="Cached responses.")


# ------- Exemptions from lists -------


class AllowedNames(StaffModel):
    """The exemptions in force."""

    allowed: tuple[AllowedName, ...]
    time_zone: str


class Allowance(StaffModel):
    """The result of an exemption."""

    name: str
    match: str
    until: Time
    before: WhyAnswer
    after: WhyAnswer
    served: Published
    time_zone: str


# ------- Writing orders -------


class TrialSignatures(Model):
    """The signatures of a document, as this server judges them now."""

    needed: Count
    signers: tuple[str, ...] = Field(description="Those that count.")
    enough: bool
    proposed: bool = Field(description="Signed by a flagger only.")
    problems: tuple[InputProblem, ...]


class TrialEffect(Model):
    """The changes by an order that blocks names, when it takes effect."""

    at: Time
    entries: Count
    added: Count = Field(description="Entries that would be in force.")
    checked: Count = Field(description="Of these, looked up.")
    already_blocked: Count = Field(description="Of those looked up: everything that they cover is blocked.")
    held: dict[str, int] = Field(description="Entries by the code of the guard.")
    refused: Count


class Trial(Model):
    """The result for one document."""

    document: DocumentVerdict
    acks: tuple[str, ...]
    signatures: TrialSignatures | None = Field(description="Null: the document cannot be read.")
    effect: TrialEffect | None = Field(description="Null: it is refused, or blocks no names.")


class Trials(Model):
    """A dry run: the results if the documents were submitted now."""

    trials: tuple[Trial, ...]
    time_zone: str


class LastOrder(Model):
    """A numbered order."""

    order_id: str
    seq: int | None
    sha256: str


class LastNumber(Model):
    """The last numbered order of an issuer: the next one names it in `prev`."""

    issuer: str
    last: LastOrder | None
    gap: int | None = Field(description="The first number that is missing.")
    orders: Count


class StatementContent(Model):
    """The content of a status statement."""

    seq: int | None
    entries: Count
    digest: str
    gap: int | None


# ------- Probes -------


class ProbeAnswer(StaffModel):
    """An answer of a profile."""

    action: str
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    target: str | None


class ProbeCheck(StaffModel):
    """A query, and the expected response."""

    entry: str
    name: str
    type: str
    expects: Literal["blocked", "not by this order", "open"]
    answers: tuple[int, ...] = Field(description="Places in the list `answers`; one of these is expected.")


class ProbePlan(StaffModel):
    """The queries that prove an order, for any resolver."""

    issuer: str
    order_id: str
    action: str
    state: str
    names: Count = Field(description="Of the order.")
    probed: Count = Field(description="Of these, in `checks`.")
    answers: tuple[ProbeAnswer, ...]
    checks: tuple[ProbeCheck, ...]


# ------- Webhooks -------


class DeadLetter(StaffModel):
    """An event that a webhook did not receive."""

    id: str = Field(description="To send it again.")
    n: int = Field(description="The record of the ledger.")
    digest: str
    kind: str
    order_id: str | None
    at: Time
    reason: str
    given_up_at: Time
    resent_at: Time | None


class WebhookFacts(StaffModel):
    """A webhook, and its state."""

    name: str
    issuer: str
    url: str
    state: Literal["ok", "failing", "disabled"]
    delivered_at: Time | None
    delivered_n: int | None = Field(description="The last record of the ledger that it received.")
    failing_since: Time | None
    error: str | None
    failures: dict[str, int]
    delivered: Count
    queue: Count = Field(description="Events that wait.")
    oldest_at: Time | None
    dead_letters: tuple[DeadLetter, ...]
    dropped: Count


class Webhooks(StaffModel):
    """All webhooks."""

    webhooks: tuple[WebhookFacts, ...]
    time_zone: str


class Resent(StaffModel):
    """Events that are sent again."""

    events: Count
    webhooks: tuple[str, ...]
