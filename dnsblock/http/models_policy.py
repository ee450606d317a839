"""The JSON of `why`, of histories, lists and versions, and of impact runs. Times are RFC 3339 in UTC."""

from pydantic import Field

from dnsblock.http.models import Count, InputProblem, StaffModel, Time

# ------- One name -------


class CoveringEntry(StaffModel):
    """An entry that covers the name."""

    zone: str
    kind: str = Field(description="Of the zone: orders, list, addresses or rpz.")
    mode: str = Field(description="`shadow`: the zone does not decide; its matches are only counted.")
    entry: str = Field(description="A name; in a zone of addresses, a prefix.")
    match: str
    action: str = Field(description="`exemption`: evaluation continues with the next zone.")
    records: tuple[str, ...] = Field(description="The answer of a policy zone, as `TTL TYPE DATA`.")
    orders: tuple[str, ...]
    decides: bool = Field(description="Over UDP.")
    decides_over_tcp: bool
    is_exception: bool = Field(description="In a list: an exemption, or a passthru that is not its answer.")


class AllowedName(StaffModel):
    """A name that is exempt from lists."""

    name: str
    match: str
    since: Time
    until: Time
    by: str
    reason: str


class NameEvent(StaffModel):
    """An event of a name, or of a parent whose entry covers it."""

    at: Time
    zone: str
    what: str = Field(description="Such as `in force`, `ended`, `listed`, `changed` or `gone`.")
    entry: str
    match: str
    by: str = Field(description="An order, or the version of a list.")
    answer: str = Field(description="The records of a policy zone; otherwise empty.")


class Unenforced(StaffModel):
    """An entry for the name that is in an order, but that nothing enforces."""

    zone: str
    order_id: str
    entry: str
    match: str
    state: str = Field(description="held, refused, proposed or notice.")
    code: str = Field(description="The guard; GAP: an earlier order is missing.")
    reason: str


class UnknownOrder(StaffModel):
    """An order in force by the law that was not known here yet."""

    zone: str
    order_id: str
    received_at: Time | None


class EnforcedThen(StaffModel):
    """The treatment of the name at the time, by everything that this instance knew then."""

    known_at: Time
    verdict: str
    decided_by: CoveringEntry | None
    not_enforced: tuple[Unenforced, ...]


class WhyAnswer(StaffModel):
    """The explanation of a name or an address. The last fields exist only with `at` or `known_at`."""

    name: str
    verdict: str = Field(description="`blocked`, `passthru` or `not blocked`.")
    serial: int = Field(description="Of the snapshot; 0: it is not recorded.")
    decided_by: CoveringEntry | None
    verdict_over_tcp: str
    decided_over_tcp_by: CoveringEntry | None
    covering: tuple[CoveringEntry, ...]
    notes: tuple[str, ...]
    allowed: tuple[AllowedName, ...] = Field(default=(), description="Exemptions from lists that cover it.")
    not_enforced: tuple[Unenforced, ...] = Field(default=(), description="Absent for an address.")
    scheduled: tuple[NameEvent, ...] = Field(default=(), description="Absent for an address or a time.")
    time_zone: str = Field(default="", description="Of the provider, for display.")
    at: Time | None = None
    known_at: Time | None = None
    is_scheduled: bool = Field(default=False, description="The time is in the future.")
    here: EnforcedThen | None = Field(default=None, description="Null: the time is in the future.")
    not_known: tuple[UnknownOrder, ...] = Field(
        default=(), description="Orders that came after `here.known_at`."
    )


class NameHistory(StaffModel):
    """The history of a name, the oldest event first."""

    name: str
    events: tuple[NameEvent, ...]
    scheduled: tuple[NameEvent, ...]
    time_zone: str


# ------- Lists -------


class RejectedContent(StaffModel):
    """Content of a list that a guard rejected. The previous version stays in force."""

    at: Time
    sha256: str | None = Field(description="To accept it; null: there is nothing to accept.")
    codes: tuple[str, ...]
    problems: tuple[InputProblem, ...]


class SkippedName(StaffModel):
    """A name that no list may block."""

    name: str
    reason: str


class TransferFacts(StaffModel):
    """The last zone transfer."""

    primary: str
    serial: int
    checked_at: Time | None
    expires_at: Time | None
    expired: str | None = Field(description="Why the zone has expired; null: it has not.")


class ListReport(StaffModel):
    """Counts of the lines of a list."""

    format: str
    is_recognised: bool
    entries: Count
    lines: Count = Field(description="The sum of the next five.")
    accepted: Count
    repaired: Count
    duplicate: Count
    not_applicable: Count = Field(description="Valid in its format, but not about names.")
    rejected: Count
    exceptions: Count
    apexless: Count = Field(description="Names that are listed only as `*.name`.")
    silent: Count = Field(description="Blank lines and comments.")
    rejected_by: dict[str, int]
    not_applicable_by: dict[str, int]
    repaired_by: dict[str, int]
    reported: None = Field(description="Null: `dnsblock check` shows single lines.")
    former_format: str
    serial: int | None = Field(description="Of the SOA record of a policy zone.")


class SourceFacts(StaffModel):
    """A list, and its state."""

    zone: str
    place: str = Field(description="A file, a folder or a URL without its query.")
    format: str | None
    version: int | None
    entries: Count
    sha256: str | None = Field(description="Of the content.")
    accepted_at: Time | None
    how: str | None
    report: ListReport | None
    warnings: tuple[str, ...]
    rejected: RejectedContent | None
    skipped: tuple[SkippedName, ...]
    fetched_at: Time | None
    fetch_error: str | None
    next_at: Time | None
    expires_at: Time | None = Field(
        description="When the content is too old, unless a server answers before."
    )
    expired: str | None = Field(description="Why the content is too old; null: it is not.")
    transfer: TransferFacts | None


class Sources(StaffModel):
    """All lists."""

    sources: tuple[SourceFacts, ...]
    time_zone: str


# ------- Versions -------


class SnapshotFacts(StaffModel):
    """A snapshot that was in force."""

    serial: int
    digest: str
    published_at: Time
    reason: str
    versions: dict[str, int] = Field(description="The version of each list in it.")


class ListVersion(StaffModel):
    """A version of a list."""

    version: int
    sha256: str
    digest: str = Field(description="Of its names and matches.")
    format: str
    entries: Count
    lines: Count
    accepted: Count
    repaired: Count
    duplicate: Count
    rejected: Count
    added: int | None = Field(description="Null: there was nothing to compare with.")
    removed: int | None
    accepted_at: Time
    how: str
    note: str
    is_withdrawn: bool
    has_file: bool


class ListEvent(StaffModel):
    """An event of a list other than a new version. Repeated rejections are one event."""

    kind: str
    sha256: str
    code: str
    message: str
    first_at: Time
    last_at: Time
    times: Count


class VersionsAnswer(StaffModel):
    """The last 1,000 snapshots; or of one list, its versions and events. The newest is first."""

    snapshots: tuple[SnapshotFacts, ...] = Field(default=(), description="Without `zone`.")
    zone: str = Field(default="", description="With `zone`, as the next two.")
    versions: tuple[ListVersion, ...] = ()
    events: tuple[ListEvent, ...] = ()
    time_zone: str


class ZoneDifference(StaffModel):
    """The differences in one zone."""

    zone: str
    a: str = Field(description="The version, or for orders the time.")
    b: str
    total: Count
    changes: tuple[tuple[str, str | None, str | None], ...] = Field(
        description="The first ones: name, match before, match after; null: absent."
    )


class DiffAnswer(StaffModel):
    """The differences between two snapshots."""

    a: int
    b: int
    zones: tuple[ZoneDifference, ...]
    time_zone: str


# ------- Impact runs -------


class QueriedName(StaffModel):
    """A name of the list, and the queries that its entry would have blocked."""

    name: str
    queries: Count


class ImpactProgress(StaffModel):
    """The counts so far."""

    file: str
    seconds: int = Field(description="The planned duration.")
    elapsed: float
    names: Count = Field(description="0 while the names are being read.")
    queries: Count = Field(description="Decided queries, for any name.")
    blocked: Count = Field(description="Those that the list would block.")
    decided: Count = Field(description="Those that an enforced zone already decides.")


class ImpactReport(ImpactProgress):
    """The effect of enforcing the list after all zones."""

    share: float = Field(description="Of all queries.")
    blocking_names: Count
    decided_names: Count
    unasked_names: Count
    top: tuple[QueriedName, ...]
    passed_over: dict[str, int] = Field(description="Lines that would not be enforced, by reason.")


class PastImpactEntry(StaffModel):
    """An entry of the order or list."""

    name: str
    match: str
    queries: Count = Field(description="At least.")
    at_most: Count


class PastImpactDay(StaffModel):
    """A day, by UTC."""

    day: str
    hours: Count = Field(description="In which queries were counted.")
    queries: Count
    blocked: Count = Field(description="At least.")


class PastImpactReport(StaffModel):
    """The effect that an order or a list would have had on past days, without rare names."""

    file: str
    names: Count
    first_day: str
    last_day: str
    days_counted: Count
    hours_counted: Count
    hours: Count = Field(description="Of all these days, the last one as a whole.")
    shown_from: Count = Field(description="The fewest queries on a day with which a name is stored.")
    queries: Count = Field(description="For any name.")
    unlisted: Count = Field(description="Those that the counts of names lack, whatever their names.")
    blocked: Count = Field(description="Queries that the order would have blocked: at least.")
    blocked_at_most: Count
    share: float = Field(description="Of all queries: at least.")
    share_at_most: float
    decided: Count = Field(description="Those for names of the order that an enforced zone decides now.")
    name_error: Count = Field(description="The most queries that are missing in the count of any name.")
    blocking_names: Count = Field(description="Entries that would have blocked a stored name.")
    decided_names: Count = Field(description="Entries of which an enforced zone decides every stored name.")
    unlisted_names: Count = Field(description="Entries without a stored name.")
    entries: tuple[PastImpactEntry, ...]
    top: tuple[QueriedName, ...]
    by_day: tuple[PastImpactDay, ...]
    passed_over: dict[str, int] = Field(description="Lines that would not be enforced, by reason.")


class ImpactRunning(StaffModel):
    """The impact run that is in progress."""

    running: ImpactProgress | None


class ImpactEnded(StaffModel):
    """The result of ending an impact run."""

    ended: bool = Field(description="False: there was none.")
