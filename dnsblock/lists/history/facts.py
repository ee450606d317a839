"""What the history of lists (history.py) is told, and what it tells: plain facts. Times are aware, UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dnsblock.orders.records import Position


@dataclass(frozen=True, slots=True)
class Compiled:
    """A text, and what it was compiled to."""

    source_sha256: str  # of the text
    file_sha256: str  # of the compiled file: its name on the disk
    names_digest: str
    format: str
    options: str  # whatever else the compiled file depends on
    entries: int
    lines: int
    accepted: int
    repaired: int
    duplicate: int
    rejected: int
    report: str  # JSON


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be accepted.

    `difference` is what changed since the version before: lines `+ SCOPE NAME` and `- SCOPE NAME`, one of
    each for a name that has another scope now. It is None for the first version, and for a later one that
    there is nothing to compare with: it hides what was listed before it.
    """

    zone: str
    compiled: Compiled
    difference: bytes | None
    accepted_at: datetime
    how: str  # first, refresh, accepted by hand, rollback, settings
    note: str = ""
    withdraws: int | None = None  # the version that a rollback goes back from
    known_by: str = ""  # as in Current
    validators: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """What a list was, from `accepted_at` until the next version."""

    zone: str
    number: int  # from 1, without gaps
    compiled: Compiled
    added: int | None  # names listed since the version before; None: it was compared with nothing
    removed: int | None  # one with another scope is counted in both
    accepted_at: datetime
    how: str
    note: str
    is_withdrawn: bool  # its text must not come back by itself
    has_file: bool  # the compiled file was not pruned


@dataclass(frozen=True, slots=True)
class Current:
    """The version that is enforced, and what spares reading or fetching its text again."""

    version: Version
    known_by: str  # JSON: what the file looks like from outside; empty: nothing is known
    validators: str  # JSON: what a server is asked by, ETag and Last-Modified


@dataclass(frozen=True, slots=True)
class Change:
    """A name whose scope is not the same in two versions. None: not listed."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class NameEvent:
    """What one version changed for a name."""

    version: int
    at: datetime
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Past:
    """What a list said about a name at a time."""

    version: int | None  # the one of that time; None: there was none yet
    scope: str | None  # None: not listed
    is_known: bool  # False: a later version was compared with nothing, and hides what was before it


@dataclass(frozen=True, slots=True)
class Refusal:
    """A text that a guard did not let through."""

    zone: str
    source_sha256: str
    code: str  # of the guard
    message: str
    numbers: str  # JSON: what the guard went by
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """An operator's word that a text is right, read with these options, whatever these guards say."""

    zone: str
    source_sha256: str
    options: str
    codes: tuple[str, ...]  # by which it was rejected
    who: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a zone beside its versions. A refusal that is repeated is one event, `times` over."""

    kind: str  # rejected, accepted by hand, rolled back
    source_sha256: str  # the text it is about
    code: str  # these three of a refusal; `message` is the reason given for the others
    message: str
    numbers: str
    first_at: datetime
    last_at: datetime
    times: int


@dataclass(frozen=True, slots=True)
class Published:
    """A snapshot that was served, and the version of each list in it."""

    serial: int
    digest: str
    published_at: datetime
    reason: str
    versions: Mapping[str, int]
    derived_at: datetime  # the time for which the state of the orders was derived
    ledger: Position | None = None  # how far the ledger went then; None: it was not used
