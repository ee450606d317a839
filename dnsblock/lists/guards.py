"""Guards for whole lists: they reject an implausible list even if each of its lines is valid.

Feeds break about monthly: an error page instead of the list, a truncated download, an old copy. None of
these may block or unblock a name. The operator can accept a rejected list by the digest of its content.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dnsblock._engine import CompiledList
from dnsblock.config import Zone
from dnsblock.lists.history.facts import Version
from dnsblock.lists.store import digest_of

UNREADABLE, NOT_COMPILED = "UNREADABLE", "NOT_COMPILED"
NOT_TEXT, CORRUPT = "NOT_TEXT", "CORRUPT"  # a file that is not text; corrupt or truncated gzip
NO_LIST = (UNREADABLE, NOT_TEXT, CORRUPT, NOT_COMPILED)  # there is no content that the operator could accept
NOT_FETCHED = "NOT_FETCHED"  # a new feed that was never fetched: no guard judged it, and no metric counts it
CODES = (
    *("HTML", "EMPTY", "MIXED", "TRUNCATED", "SPLIT", "TOO_MANY_REJECTED", "REPLAYED", "SHRANK", "GREW"),
    *(UNREADABLE, NOT_TEXT, CORRUPT, NOT_COMPILED),
)


@dataclass(frozen=True, slots=True)
class _Limits:
    """The values of `auto`: how much of a list may change at once."""

    shrank_percent: float
    shrank_names: float
    grew_percent: float
    grew_names: float


# The national feed grows by a few thousand names a day and almost never shrinks.
FEED = _Limits(shrank_percent=0.5, shrank_names=1000, grew_percent=5.0, grew_names=100_000)
# A file may be edited by hand. It may also be a broken copy of a ministry's list.
FILE = _Limits(shrank_percent=10.0, shrank_names=1000, grew_percent=10.0, grew_names=1000)
FEWEST = 20  # percentages apply from this many changed names: in a short list, one name is a large share
_HTML = re.compile(rb"[\xef\xbb\xbf\s]*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
# Lines that are skipped and reported, but do not indicate a broken list.
_HARMLESS = ("address", "public_suffix", "protected", "top_level", "too_wide")


@dataclass(frozen=True, slots=True)
class Guarded:
    """Why a guard rejects a list. `numbers` are the values that it compared."""

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
    *,
    lists_exceptions: bool = False,
) -> list[Guarded]:
    """Returns a result for each guard that rejects this list.

    `heads` are the first bytes of each of its files. `lists_exceptions` is set for a zone with the answer
    passthru. `before` is the enforced version. `replayed` is an older version with the same content, if any.
    """
    if before is not None and before.compiled.entries == 0:
        # The operator has accepted an empty list. Any list with names is better, even an older one.
        before, replayed = None, replayed if replayed is not None and replayed.is_withdrawn else None
    found = [
        _html(compiled, heads),
        _empty(zone, compiled),
        _split(compiled),
        _mixed(compiled) if lists_exceptions else None,
        _truncated(zone, compiled),
        rejected(compiled, zone.source.guards.rejected_percent),
        _replayed(zone, replayed),
    ]
    is_the_same = before is not None and before.compiled.source_sha256 == digest_of(compiled.sources)
    # The operator has just changed how the same content is read.
    if before is not None and not is_the_same and compiled.names.entries > 0:
        found += [_shrank(zone, compiled, before), _grew(zone, compiled, before)]
    return [guarded for guarded in found if guarded is not None]


def _html(compiled: CompiledList, heads: Sequence[bytes]) -> Guarded | None:
    pages = [label for (label, *_), head in zip(compiled.sources, heads, strict=True) if _HTML.match(head)]
    if not pages:
        return None
    what = "a web page in the place of the list, such as an error or a login page"
    return Guarded("HTML", what if len(heads) == 1 else f"{what}: {pages[0]}", {"files": len(pages)})


def _empty(zone: Zone, compiled: CompiledList) -> Guarded | None:
    one = "address" if zone.kind == "addresses" else "name"
    nameless = [
        label
        for (label, *_), (_, naming) in zip(compiled.sources, compiled.formats, strict=True)
        if naming == 0
    ]
    if compiled.names.entries == 0:
        reason = f"the list holds no {one}; leave the zone out if that is meant"
        if compiled.accepted + compiled.repaired:
            reason = (
                "the list excepts all that it names, and so blocks nothing; "
                "if it is a list of exceptions, set `answer: passthru` for its zone"
            )
    elif nameless:
        # In a folder, the other files would hide one that was truncated to nothing.
        reason = f"{nameless[0]} holds no {one}; take it out of the folder if that is meant"
    else:
        return None
    return Guarded("EMPTY", reason, {"lines": compiled.lines, "files": len(nameless)})


def _mixed(compiled: CompiledList) -> Guarded | None:
    """An allow list must mark each name as an exception: blocks in it would pass as well."""
    naming = sum(lines for _, lines in compiled.formats)
    blocks = naming - compiled.exceptions
    if not compiled.exceptions or not blocks:
        return None
    reason = (
        f"{compiled.exceptions:,} lines are exceptions and {blocks:,} are blocks: in a zone with answer "
        "passthru both would pass; make two lists of it, or put it into a zone that blocks"
    )
    return Guarded("MIXED", reason, {"exceptions": compiled.exceptions, "blocks": blocks})


def _truncated(zone: Zone, compiled: CompiledList) -> Guarded | None:
    if zone.source.guards.accepts_truncated:
        return None
    label, octets, _, ends = compiled.sources[-1]
    if not octets or ends:
        return None
    what = f"the last line of {label} does not end with a line feed: the list may have been cut off there"
    if label.endswith(".gz"):
        what += ". If it is complete, add the line feed to the text before it is compressed"
    elif not zone.is_feed:
        what += f". If it is complete, add the line feed: echo >> {shlex.quote(label)}"
    return Guarded("TRUNCATED", what)


def _split(compiled: CompiledList) -> Guarded | None:
    """Rejects a folder if a file ends in the middle of a line that the next file may continue.

    For `two.shop.com.br`, the halves `two.shop.com` and `.br` would be two wrong names. This guard cannot be
    disabled.
    """
    parts = compiled.sources[:-1]
    cut = [label for label, octets, _, ends in parts if octets and not ends]
    if not cut:
        return None
    labels = [label for label, *_ in compiled.sources]
    follows = labels[labels.index(cut[0]) + 1]
    what = f"{cut[0]} does not end with a line feed and {follows} follows: a name may be cut in two there"
    sizes = {octets for _, octets, _, _ in parts}
    if len(sizes) == 1 and compiled.sources[-1][1] <= min(sizes):
        what += f". Their sizes are those of parts of {min(sizes):,} bytes, as `split -b` makes them"
    what += (
        ". If these are parts of one list, put the joined file into the folder instead, or split at line ends"
    )
    what += f" (`split -l`). If they are separate lists, add the line feed: echo >> {shlex.quote(cut[0])}"
    return Guarded("SPLIT", what, {"files": len(cut)})


def rejected(compiled: CompiledList, limit: float) -> Guarded | None:
    """Rejects a list if more than `limit` percent of its lines are invalid."""
    bad = compiled.rejected - sum(compiled.rejected_by.get(code, 0) for code in _HARMLESS)
    if compiled.lines == 0 or bad <= compiled.lines * limit / 100:
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
    if zone.source.guards.accepts_replayed(is_feed=zone.is_feed):
        return None
    return Guarded("REPLAYED", f"this is version {replayed.number} of {at} again, not a newer one")


def _shrank(zone: Zone, compiled: CompiledList, before: Version) -> Guarded | None:
    """Counts unblocked names, whatever the cause: a name was removed, covers less, or is now an exception."""
    guards, difference, usual = zone.source.guards, compiled.difference, _usual(zone)
    if difference is None:  # the previous names are lost, but their number is known
        lost = gone = before.compiled.entries - compiled.names.entries
    else:
        lost, gone = difference.lost, min(difference.removed, difference.lost)
    told = f"{lost:,} {_entries(zone)} are gone"
    if lost != gone:
        told = f"{lost:,} names cover less: {gone:,} are gone, {lost - gone:,} are narrower or excepted now"
    limits = (
        _or(guards.shrank_names, usual.shrank_names),
        _or(guards.shrank_percent, usual.shrank_percent),
    )
    return _beyond("SHRANK", told, lost, before, limits)


def _grew(zone: Zone, compiled: CompiledList, before: Version) -> Guarded | None:
    guards, difference, usual = zone.source.guards, compiled.difference, _usual(zone)
    if difference is None:
        gained = new = compiled.names.entries - before.compiled.entries
    else:
        gained, new = difference.gained, min(difference.added, difference.gained)
    told = f"{gained:,} {_entries(zone)} are new"
    if gained != new:
        told = f"{gained:,} names cover more: {new:,} are new, {gained - new:,} are wider or excepted no more"
    limits = (
        _or(guards.grew_names, usual.grew_names),
        _or(guards.grew_percent, usual.grew_percent),
    )
    return _beyond("GREW", told, gained, before, limits)


def _entries(zone: Zone) -> str:
    return "prefixes" if zone.kind == "addresses" else "names"


def _usual(zone: Zone) -> _Limits:
    return FEED if zone.is_feed else FILE


def _or(setting: float | None, usual: float) -> float:
    return usual if setting is None else setting


def _beyond(
    code: str, told: str, changed: int, before: Version, limits: tuple[float, float]
) -> Guarded | None:
    entries = before.compiled.entries
    share = 100 * changed / entries
    told = f"{told}, of {entries:,} before"
    numbers = {"changed": changed, "before": entries, "percent": round(share, 4)}
    names, percent = limits
    if changed > names:
        return Guarded(code, f"{told}: more than {names:,.0f}", numbers | {"limit": names})
    if share > percent and changed >= FEWEST:
        return Guarded(code, f"{told}: {share:.2f} %, more than {percent:g} %", numbers | {"limit": percent})
    return None
