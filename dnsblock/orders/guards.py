"""Guards for orders: they refuse or hold single entries that would block more than the issuer can mean.

Pure functions of an order and a `GuardContext`. Nothing here delays the lifting of a block: only actions that
block names are judged. docs/guards.md says what issuer and operator do about each code.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median
from typing import Literal

from dnsblock.config import BulkGuard
from dnsblock.names import above
from dnsblock.orders.order import Order
from dnsblock.orders.popular import NameSet
from dnsblock.orders.schema import Match
from dnsblock.orders.verdict import EntryVerdict
from dnsblock.suffixes import icann_suffixes, private_suffix, private_suffixes, public_suffix

PUBLIC_SUFFIX, PROTECTED = "PUBLIC_SUFFIX", "PROTECTED"  # refused: nothing releases such an entry
PRIVATE_SUFFIX, POPULAR, BULK = "PRIVATE_SUFFIX", "POPULAR", "BULK"  # held
HOLDING = frozenset({PRIVATE_SUFFIX, POPULAR, BULK})

# A notice blocks nothing yet, but its issuer must learn now what a later block would meet.
JUDGED = frozenset({"block", "supersede", "notice"})

# Special-use names that every client needs: reverse lookups (RFC 1035 3.5), and discovery (RFC 9462).
ALWAYS_PROTECTED = ("arpa", "resolver.arpa")
MAX_NAMES = 10  # in a note

Key = tuple[str, Match]  # an entry, as far as it decides what is blocked


@dataclass(frozen=True, slots=True)
class GuardContext:
    """The input of the guards besides the order itself. It depends on the issuer and on the signers."""

    protected: NameSet  # see `protected_names`
    popular: NameSet
    bulk: BulkGuard = field(default_factory=BulkGuard)
    may_override: bool = False  # a signer has the role `override`: it may block protected names
    sizes: Sequence[int] = ()  # of the issuer's earlier orders: their accepted entries
    superseded: Set[Key] = frozenset()  # accepted entries that have not ended until this supersede ends them


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on an accepted order: some of its entries change nothing."""

    code: Literal["ALREADY_BLOCKED"]
    count: int
    names: tuple[str, ...]  # the first ones

    def __str__(self) -> str:
        entries = "1 entry is" if self.count == 1 else f"{self.count:,} entries are"
        more = ", …" if self.count > len(self.names) else ""
        return f"{self.code}: {entries} blocked already: {', '.join(self.names)}{more}"


def protected_names(configured: Iterable[str], targets: Iterable[str]) -> NameSet:
    """The names that no order may block: the configured ones, and the CNAME targets of answer profiles.

    A block of its own landing name would be answered with a CNAME to itself.
    """
    landing = (target.removeprefix("*.") for target in targets)
    return NameSet.of(dict.fromkeys((*configured, *landing, *ALWAYS_PROTECTED)))


def judge(order: Order, context: GuardContext) -> tuple[EntryVerdict, ...]:
    """The verdicts on the entries that are refused or held, by index. All other entries are accepted.

    A refused entry has one verdict. A held entry has one for each guard: all must be released.
    """
    if order.action not in JUDGED:
        return ()
    # They were judged in the old order: to replace an order never needs a second release.
    known = context.superseded
    entries = [
        (index, entry.name, entry.match)
        for index, entry in enumerate(order.entries)
        if not known or (entry.name, entry.match) not in known
    ]
    found = [
        verdict
        for index, name, match in _suspicious(entries, context)
        for verdict in _on_entry(index, name, match != "exact", context)
    ]
    if reason := _bulk(len(entries), context):
        refused = {one.index for one in found if one.verdict == "refused"}
        found += [EntryVerdict(at, "held", BULK, reason) for at, *_ in entries if at not in refused]
        found.sort(key=lambda one: one.index)
    return tuple(found)


def _suspicious(
    entries: Iterable[tuple[int, str, Match]], context: GuardContext
) -> Iterator[tuple[int, str, Match]]:
    """The entries that a guard may hit. It only looks up sets: an order may have millions of entries."""
    suffixes, parents, above_suffixes = _suffixes()
    popular, protected = context.popular.names, context.protected.names
    above_popular, above_protected = context.popular.shown_below, context.protected.shown_below
    for entry in entries:
        _, name, match = entry
        higher = name.partition(".")[2]
        if (
            not higher
            or name in suffixes
            or higher in parents
            or name in popular
            or (higher in popular and name.startswith("www."))
            or (
                match != "exact"
                and (name in above_suffixes or name in above_popular or name in above_protected)
            )
        ):
            yield entry
            continue
        while name:
            if name in protected:
                yield entry
                break
            name = name.partition(".")[2]


@lru_cache(maxsize=1)
def _suffixes() -> tuple[Set[str], Set[str], Set[str]]:
    """All suffixes, all names whose children are suffixes, and all names above a suffix."""
    public, private = icann_suffixes(), private_suffixes()
    return (
        public.names | private.names | public.parents | private.parents,
        public.parents | private.parents,
        frozenset(public.shown_below) | frozenset(private.shown_below),
    )


def _on_entry(index: int, name: str, is_wide: bool, context: GuardContext) -> Iterator[EntryVerdict]:
    """The verdicts on one entry. `is_wide`: it covers names below its own."""
    if reason := public_suffix(name, is_wide=is_wide):
        yield EntryVerdict(index, "refused", PUBLIC_SUFFIX, reason)
        return
    if not context.may_override and (reason := _protected(name, is_wide, context.protected)):
        yield EntryVerdict(index, "refused", PROTECTED, reason)
        return
    if reason := private_suffix(name, is_wide=is_wide):
        yield EntryVerdict(index, "held", PRIVATE_SUFFIX, reason)
    if reason := _popular(name, is_wide, context.popular):
        yield EntryVerdict(index, "held", POPULAR, reason)


def _protected(name: str, is_wide: bool, protected: NameSet) -> str | None:
    """A protected name is protected with everything below it, and from every entry that covers it."""
    if (own := protected.at_or_above(name)) is not None:
        return "a protected name" if own == name else f"is below the protected name {own}"
    if is_wide and name in protected.shown_below:
        return f"covers the protected name {protected.shown_below[name]}"
    return None


def _popular(name: str, is_wide: bool, popular: NameSet) -> str | None:
    """A popular name is guarded itself, and from every entry that covers it.

    Below it, entries are accepted: they are narrower, such as one page of a hosting service. `www.` is the
    exception, since it is the same site.
    """
    if name in popular.names:
        return "a popular name"
    if (site := name.removeprefix("www.")) in popular.names:
        return f"the web site of the popular name {site}"
    if is_wide and name in popular.shown_below:
        return f"covers the popular name {popular.shown_below[name]}"
    return None


def _bulk(entries: int, context: GuardContext) -> str | None:
    """Why an order is unusually large; None if it is not.

    Without an earlier order there is no usual size, so only the first limit applies. A wrong file is most
    likely in the first order of a new issuer, and the operator can approve it with one command.
    """
    bulk = context.bulk
    if entries <= bulk.entries:
        return None
    text = f"{entries:,} new entries, more than {bulk.entries:,.0f}"
    sizes = [size for size in context.sizes if size > 0]
    if not sizes:
        return f"{text}, in the issuer's first order"
    usual = median(sizes)
    if entries <= bulk.factor * usual:
        return None
    return f"{text} and more than {bulk.factor:,} times the issuer's median of {usual:,.10g}"


def released_by_acks(
    verdicts: Iterable[EntryVerdict], acks: Iterable[str], signers: int, required: int
) -> tuple[EntryVerdict, ...]:
    """The verdicts that remain after the document's `acks`.

    These count only with a second signature: at least two valid signatures of different keys (`signers`),
    and as many as the issuer's configuration requires. They never release a refused entry.
    """
    known = frozenset(acks) & HOLDING if signers >= max(2, required) else frozenset()
    return tuple(one for one in verdicts if one.verdict == "refused" or one.code not in known)


def is_covered(name: str, match: Match, entries: Set[Key]) -> bool:
    """Whether one of the entries covers all that this one covers."""
    if (name, match) in entries or (name, "subtree") in entries:
        return True
    return any((higher, "subtree") in entries or (higher, "below") in entries for higher in above(name))
