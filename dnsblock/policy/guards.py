"""Guards for whole lists: a list that is too odd is not taken, whatever its lines say.

Feeds break about monthly: an error page in the list's place, a download that was cut off, an old copy. None
of that may block or unblock anyone. The operator can accept a refused text by its digest.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dnsblock._engine import CompiledList
from dnsblock.config import Zone
from dnsblock.policy.history_facts import Version

UNREADABLE, NOT_COMPILED = "UNREADABLE", "NOT_COMPILED"
NOT_FETCHED = "NOT_FETCHED"  # of a feed that is new: no guard has seen it, and nothing is counted
CODES = (
    *("HTML", "EMPTY", "TRUNCATED", "TOO_MANY_REJECTED", "REPLAYED", "SHRANK", "GREW"),
    *(UNREADABLE, NOT_COMPILED),
)
# What `auto` stands for, for a feed. The national list grows by some thousands of names a day and almost
# never shrinks; a file of one's own is edited as one likes.
SHRANK_PERCENT, SHRANK_NAMES = 0.5, 1000
GREW_PERCENT, GREW_NAMES = 5.0, 100_000
_HTML = re.compile(rb"[\xef\xbb\xbf\s]*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
# Lines that are left out and told, but are no sign of a broken list.
_HARMLESS = ("address", "public_suffix", "protected", "top_level")


@dataclass(frozen=True, slots=True)
class Guarded:
    """Why a list is refused. `numbers` are what the guard went by."""

    code: str
    message: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def judge(
    zone: Zone,
    compiled: CompiledList,
    heads: Sequence[bytes],
    before: Version | None,
    replayed: Version | None,
) -> list[Guarded]:
    """Every guard that does not let this list through; `heads` are the first octets of each of its files.

    `before` is the version that is enforced; `replayed` an older one that had the same text, if one did.
    """
    if before is not None and before.compiled.entries == 0:
        # Somebody has accepted a list of nothing: whatever names something is better, also an older text.
        before, replayed = None, replayed if replayed is not None and replayed.is_withdrawn else None
    found = [
        _html(compiled, heads),
        _empty(compiled),
        _truncated(zone, compiled),
        rejected(compiled, zone.source.guards.rejected_percent),
        _replayed(zone, replayed),
    ]
    if before is not None and compiled.names.entries > 0:
        found += [_shrank(zone, compiled, before), _grew(zone, compiled, before)]
    return [guarded for guarded in found if guarded is not None]


def _html(compiled: CompiledList, heads: Sequence[bytes]) -> Guarded | None:
    pages = [label for (label, *_), head in zip(compiled.sources, heads, strict=True) if _HTML.match(head)]
    if not pages:
        return None
    what = "a web page in the place of the list, such as an error or a login page"
    return Guarded("HTML", what if len(heads) == 1 else f"{what}: {pages[0]}", {"files": len(pages)})


def _empty(compiled: CompiledList) -> Guarded | None:
    nameless = [
        label
        for (label, *_), (_, naming) in zip(compiled.sources, compiled.formats, strict=True)
        if naming == 0
    ]
    if compiled.names.entries == 0:
        reason = "the list holds no name; leave the zone out if that is meant"
        if compiled.accepted + compiled.repaired:
            reason = "the list excepts all that it names, and so blocks nothing"
    elif nameless:
        # Of a folder: a file that was cut to nothing is hidden by those beside it.
        reason = f"{nameless[0]} holds no name; take it out of the folder if that is meant"
    else:
        return None
    return Guarded("EMPTY", reason, {"lines": compiled.lines, "files": len(nameless)})


def _truncated(zone: Zone, compiled: CompiledList) -> Guarded | None:
    if not _is_on(zone, zone.source.guards.truncated):
        return None
    cut = [label for label, octets, _, ends in compiled.sources if octets and not ends]
    if not cut:
        return None
    return Guarded("TRUNCATED", f"the last line of {cut[0]} has no end: the list may have been cut off there")


def _is_on(zone: Zone, setting: str) -> bool:
    return setting == "refuse" or (setting == "auto" and zone.is_feed)


def rejected(compiled: CompiledList, limit: float | str) -> Guarded | None:
    """Whether more than so many of a hundred lines cannot be meant."""
    bad = compiled.rejected - sum(compiled.rejected_by.get(code, 0) for code in _HARMLESS)
    if isinstance(limit, str) or compiled.lines == 0 or bad <= compiled.lines * limit / 100:
        return None
    percent = 100 * bad / compiled.lines
    reasons = ", ".join(f"{count:,} {code}" for code, count in sorted(compiled.rejected_by.items()))
    told = f"{bad:,} of {compiled.lines:,} lines cannot be meant ({percent:.2f} %, more than {limit:g} %)"
    numbers = {"rejected": bad, "lines": compiled.lines, "percent": round(percent, 3), "limit": limit}
    return Guarded("TOO_MANY_REJECTED", f"{told}: {reasons}", numbers)


def _replayed(zone: Zone, replayed: Version | None) -> Guarded | None:
    if replayed is None:
        return None
    at = replayed.accepted_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    if replayed.is_withdrawn:
        return Guarded("REPLAYED", f"this is version {replayed.number} of {at}, which was rolled back from")
    if not _is_on(zone, zone.source.guards.replayed):
        return None
    return Guarded("REPLAYED", f"this is version {replayed.number} of {at} again, not a newer one")


def _shrank(zone: Zone, compiled: CompiledList, before: Version) -> Guarded | None:
    """Goes by what is unblocked, whatever does it: a name may be gone, cover less, or be excepted now."""
    guards, difference = zone.source.guards, compiled.difference
    if difference is None:  # where the names of before are lost, their number is left
        lost = gone = before.compiled.entries - compiled.names.entries
    else:
        lost, gone = difference.lost, min(difference.removed, difference.lost)
    told = f"{lost:,} names are gone"
    if lost != gone:
        told = f"{lost:,} names cover less: {gone:,} are gone, {lost - gone:,} are narrower or excepted now"
    limits = (
        _limit(zone, guards.shrank_names, SHRANK_NAMES),
        _limit(zone, guards.shrank_percent, SHRANK_PERCENT),
    )
    return _beyond("SHRANK", told, lost, before, limits)


def _grew(zone: Zone, compiled: CompiledList, before: Version) -> Guarded | None:
    guards, difference = zone.source.guards, compiled.difference
    if difference is None:
        gained = new = compiled.names.entries - before.compiled.entries
    else:
        gained, new = difference.gained, min(difference.added, difference.gained)
    told = f"{gained:,} names are new"
    if gained != new:
        told = f"{gained:,} names cover more: {new:,} are new, {gained - new:,} are wider or excepted no more"
    limits = (
        _limit(zone, guards.grew_names, GREW_NAMES),
        _limit(zone, guards.grew_percent, GREW_PERCENT),
    )
    return _beyond("GREW", told, gained, before, limits)


def _limit(zone: Zone, setting: float | str, usual: float) -> float | None:
    if setting == "auto":
        return usual if zone.is_feed else None
    return None if isinstance(setting, str) else setting


def _beyond(
    code: str, told: str, changed: int, before: Version, limits: tuple[float | None, float | None]
) -> Guarded | None:
    entries = before.compiled.entries
    share = 100 * changed / entries
    told = f"{told}, of {entries:,} before"
    numbers = {"changed": changed, "before": entries, "percent": round(share, 4)}
    names, percent = limits
    if names is not None and changed > names:
        return Guarded(code, f"{told}: more than {names:,.0f}", numbers | {"limit": names})
    if percent is not None and share > percent:
        return Guarded(code, f"{told}: {share:.2f} %, more than {percent:g} %", numbers | {"limit": percent})
    return None
