"""The JSON of the status of an instance, of its work and of its health. Times are RFC 3339 in UTC."""

from typing import Literal

from pydantic import Field

from dnsblock.http.models import Count, InputProblem, Model, StaffModel, Time
from dnsblock.http.models_policy import SourceFacts


class StatusZone(StaffModel):
    """A policy zone."""

    name: str
    kind: str
    mode: Literal["enforce", "shadow"]
    answer: str
    entries: Count
    digest: str


class StatusOrder(StaffModel):
    """An order, briefly."""

    issuer: str
    order_id: str
    action: str
    state: str
    entries: Count
    in_force: Count
    effective_at: Time
    expires_at: Time | None
    notes: tuple[str, ...]


class RefusedDocument(StaffModel):
    """A document in the folder of orders that is refused."""

    file: str
    issuer: str | None
    order_id: str | None
    problems: tuple[InputProblem, ...]


class Latency(StaffModel):
    """Percentiles in milliseconds; null without data."""

    p50: float | None
    p90: float | None
    p99: float | None


class UpstreamState(StaffModel):
    """An upstream resolver."""

    address: str
    state: Literal["up", "suspected", "down"]
    since: Time | None
    reason: str | None
    outstanding: Count
    latency_ms: Latency


class TrafficFacts(StaffModel):
    """The last minute."""

    seconds: float
    queries: Count
    queries_per_second: float
    blocked: Count
    responses: dict[str, int] = Field(description="By RCODE.")
    latency_ms: dict[str, Latency] = Field(description="By the way in which a response was made.")


class LastPublishFacts(StaffModel):
    """The last attempt to publish. After a failure, the previous snapshot stays in force."""

    ok: bool
    at: Time
    reason: str
    error: str | None


class MissingRecord(StaffModel):
    """A record that was acknowledged, and that the ledger lacks."""

    n: int
    kind: str
    issuer: str | None
    order_id: str | None


class LedgerMismatch(StaffModel):
    """The difference between the ledger and what was recorded. Nothing is published."""

    reason: str
    found: Count
    missing: tuple[MissingRecord, ...]
    missing_total: Count


class CheckpointPlace(StaffModel):
    """A place that keeps signed checkpoints."""

    kind: str
    name: str
    size: Count
    at: Time | None
    failures: Count
    error: str | None
    contradicts: bool


class CheckpointFacts(StaffModel):
    """The last signed checkpoint."""

    records: int | None
    signed_at: Time | None
    places: tuple[CheckpointPlace, ...]


class LedgerFacts(StaffModel):
    """The ledger and the clock."""

    records: Count
    last_record: str | None = Field(description="The SHA-256 of its last line.")
    mismatch: LedgerMismatch | None
    clock_behind_seconds: float
    as_of: Time
    checkpoint: CheckpointFacts


class ProbeMiss(StaffModel):
    """An order, or the open names, with unexpected responses in the last probe."""

    issuer: str | None
    order_id: str | None
    at: Time
    asked: Count
    missed: Count
    first: tuple[str, ...] = Field(description="Resolver, name and type of the first ones.")


class ProbesFacts(StaffModel):
    """The scheduled probes."""

    last_at: Time | None
    unverified: Count
    misses: tuple[ProbeMiss, ...]


class ImpactRunFacts(StaffModel):
    """The impact run in progress."""

    file: str
    seconds: int
    elapsed: float
    names: Count


class Status(StaffModel):
    """The state of an instance."""

    version: str
    pid: int
    started_at: Time
    serial: int
    digest: str
    published_at: Time
    entries: Count = Field(description="Of all zones.")
    zones: tuple[StatusZone, ...]
    sources: tuple[SourceFacts, ...]
    histories_aside: tuple[str, ...] = Field(description="Corrupt histories that were moved.")
    orders: tuple[StatusOrder, ...]
    refused_documents: tuple[RefusedDocument, ...]
    listening: tuple[str, ...]
    metrics: str | None = Field(description="The address of the metrics.")
    api: str | None = Field(description="The address of this API.")
    console: str | None = Field(description="The address of the console, if it has its own.")
    landing: tuple[str, ...] = Field(description="The addresses of the landing page.")
    control: str = Field(description="The path of the control socket.")
    upstreams: tuple[str, ...]
    upstreams_down: tuple[str, ...]
    upstream_states: tuple[UpstreamState, ...]
    traffic: TrafficFacts
    restart_needed: tuple[str, ...]
    workers: Count
    next_change_at: Time | None
    last_publish: LastPublishFacts
    ledger: LedgerFacts
    probes: ProbesFacts | None
    impact_run: ImpactRunFacts | None
    time_zone: str


class FetchProgress(StaffModel):
    """A download of a list."""

    bytes: Count
    announced: int | None


class ReadingProgress(StaffModel):
    """The list that is being read."""

    bytes: Count


class Work(StaffModel):
    """The work in the background."""

    fetching: dict[str, FetchProgress] = Field(description="By zone.")
    reading: ReadingProgress | None


class Health(Model):
    """The health of an instance."""

    status: Literal["pass", "fail"]
    output: str = Field(default="", description="Of a failure: the reason.")
