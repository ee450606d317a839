"""The verdicts on an accepted order: which entries are held or refused, who signed it, who released what.

They are recorded in the ledger when the order is accepted. `orders/standing.py` combines the records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from dnsblock.principal import Principal

OPERATOR = "OPERATOR"  # the code of an entry that the operator has refused


@dataclass(frozen=True, slots=True)
class EntryVerdict:
    """Why one entry of an order is not enforced. Entries without a verdict are accepted.

    held: it may be released later, by the issuer's second signature or by the operator.
    """

    index: int  # in `Order.entries`
    verdict: Literal["held", "refused"]
    code: str  # of the guard, such as POPULAR
    reason: str


@dataclass(frozen=True, slots=True)
class Signed:
    """A valid signature of an order."""

    principal: str  # in the issuer's allowed_signers file
    fingerprint: str  # of the key: SHA256:…
    algorithm: str


@dataclass(frozen=True, slots=True)
class Release:
    """A release of held entries, or of a held order, with who and why."""

    at: datetime
    by: Principal
    reason: str
    entries: tuple[int, ...] | None = None  # None: everything that is held in this order


@dataclass(frozen=True, slots=True)
class EntryRefusal:
    """A refusal of held entries by the operator, with who and why. It is final: nothing releases them."""

    at: datetime
    by: Principal
    reason: str
    entries: frozenset[int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The standing of an accepted order, as recorded in the ledger."""

    signers: tuple[Signed, ...] = ()
    verdicts: tuple[EntryVerdict, ...] = ()
    is_proposed: bool = False  # signed by flaggers only: no officer of the issuer has approved it
    releases: tuple[Release, ...] = ()
    refusals: tuple[EntryRefusal, ...] = ()
    approved_at: datetime | None = None  # when an officer signed what a flagger had proposed
    proposers: tuple[Signed, ...] = field(default=(), compare=False)  # who had signed it before
    idle: frozenset[int] = field(default=frozenset(), compare=False)  # indexes that are held or refused now
    passes_gap: bool = False  # the operator approved it although an earlier order is missing
    ignored: tuple[str, ...] = ()  # targets that did not exist when it was accepted, by order_id
    # Entries that targets did not have: the order_id of each target, and the entries as text.
    unknown: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def held(self) -> tuple[EntryVerdict, ...]:
        """The entries that are held and not released."""
        if not self.verdicts:  # nearly every order
            return ()
        return tuple(one for one in self.verdicts if one.verdict == "held" and one.index in self.idle)

    @property
    def refused(self) -> tuple[EntryVerdict, ...]:
        """The refused entries."""
        if not self.verdicts:
            return ()
        return tuple(one for one in self.verdicts if one.verdict == "refused")

    def count(self, verdict: Literal["held", "refused"]) -> int:
        """The number of entries that are held now, or refused. Several guards may hold one entry."""
        return len({one.index for one in (self.held if verdict == "held" else self.refused)})

    def with_verdicts(self, verdicts: Sequence[EntryVerdict]) -> "Judgement":
        """The judgement with these verdicts instead of its own, by index. Decisions of the operator stay."""
        if not (verdicts or self.verdicts or self.refusals):
            return self
        # Of one entry: the narrowest guard first. The ledger groups them otherwise.
        by_code = sorted(verdicts, key=lambda one: one.code, reverse=True)
        in_order = sorted(by_code, key=lambda one: one.index)
        return replace(self, verdicts=tuple(in_order))._settled()

    def released(self, release: Release) -> "Judgement":
        """The judgement after a release."""
        passes_gap = self.passes_gap or release.entries is None
        return replace(self, releases=(*self.releases, release), passes_gap=passes_gap)._settled()

    def refusing(self, refusal: EntryRefusal) -> "Judgement":
        """The judgement after the operator has refused held entries."""
        return replace(self, refusals=(*self.refusals, refusal))._settled()

    def _settled(self) -> "Judgement":
        free: set[int] = set()
        for release in self.releases:
            if release.entries is None:
                free = {one.index for one in self.verdicts}
            else:
                free.update(release.entries)
        refused = {index: one.reason for one in self.refusals for index in one.entries}
        verdicts = self.verdicts
        if refused:
            others = (one for one in verdicts if one.index not in refused)
            theirs = (
                EntryVerdict(index, "refused", OPERATOR, f"refused by the operator: {reason}")
                for index, reason in refused.items()
            )
            verdicts = tuple(sorted((*others, *theirs), key=lambda one: one.index))
        idle = (one.index for one in verdicts if one.verdict == "refused" or one.index not in free)
        return replace(self, verdicts=verdicts, idle=frozenset(idle))


ACCEPTED = Judgement()
