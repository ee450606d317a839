"""The records of the history of lists (history.py). Times are aware, UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dnsblock.lists.report import Report
from dnsblock.orders.records import Position


@dataclass(frozen=True, slots=True)
class Compiled:
    """The digest of list content, and the compiled file that it gave."""

    source_sha256: str  # of the content
    file_sha256: str  # of the compiled file, which is named after it
    names_digest: str
    options: str  # JSON: everything else that determines the compiled file
    report: Report


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version to be accepted.

    `difference` is the change since the previous version: lines `+ SCOPE NAME` and `- SCOPE NAME`. A name
    with another scope has one of each. In a policy zone, a scope with its answer is defined by a line
    `= NUMBER SCOPE ANSWER`, and its number stands for it. The difference is None for the first version, and
    for a later one that could not be compared: the entries of the versions before that one are unknown.
    """

    zone: str
    compiled: Compiled
    difference: bytes | None
    accepted_at: datetime
    how: str  # first, refresh, accepted by hand, rollback, settings
    note: str = ""
    withdraws: int | None = None  # the version that a rollback replaces
    fingerprint: str = ""  # as in Current


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a list, in force from `accepted_at` until the next version."""

    zone: str
    number: int  # from 1, without gaps
    compiled: Compiled
    added: int | None  # names added since the previous version; None: there was nothing to compare with
    removed: int | None  # a name with another scope counts in both
    accepted_at: datetime
    how: str
    note: str
    is_withdrawn: bool  # its content must not be accepted again automatically
    has_file: bool  # its compiled file was not pruned


@dataclass(frozen=True, slots=True)
class Current:
    """The enforced version, and the metadata that avoids reading its content again."""

    version: Version
    fingerprint: str  # JSON: fingerprint of the files' metadata; empty: unknown


@dataclass(frozen=True, slots=True)
class Change:
    """A name that differs between two versions, with its scopes. None: not listed.

    In a policy zone, a scope is `SCOPE ANSWER`, here and in the records below.
    """

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class NameEvent:
    """The change of a name in one version."""

    version: int
    at: datetime
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Past:
    """The state of a name in a list at a time."""

    version: int | None  # the version in force then; None: there was none yet
    scope: str | None  # None: not listed
    is_known: bool  # False: a later version without a difference makes this unknown


@dataclass(frozen=True, slots=True)
class RejectedContent:
    """List content that a guard rejected."""

    zone: str
    source_sha256: str
    code: str  # of the guard
    message: str
    numbers: str  # JSON: the values that the guard compared
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """An operator's override of these guards, for this content with these options."""

    zone: str
    source_sha256: str
    options: str
    codes: tuple[str, ...]  # the guards that rejected it
    who: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a zone other than a new version. Repeated rejections are one event; `times` counts them."""

    kind: str  # rejected, accepted by hand, rolled back
    source_sha256: str  # the content concerned
    code: str  # these three for a rejection; for the others, `message` is the given reason
    message: str
    numbers: str
    first_at: datetime
    last_at: datetime
    times: int


@dataclass(frozen=True, slots=True)
class Published:
    """A served snapshot, and the version of each list in it."""

    serial: int
    digest: str
    published_at: datetime
    reason: str
    versions: Mapping[str, int]
    derived_at: datetime  # the time for which the orders were evaluated
    ledger: Position | None = None  # the end of the ledger then; None: it was not used
