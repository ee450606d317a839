"""Guards for whole lists: they reject an implausible list even if each of its lines is valid.

Feeds break about monthly: an error page instead of the list, a truncated download, an old copy. None of
these may block or unblock a name. The operator can accept a rejected list by the digest of its content.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dnsblock._engine import CompiledList
from dnsblock.config_zones import Zone
from dnsblock.lists.history.facts import Version
from dnsblock.lists.store import digest_of

UNREADABLE, NOT_COMPILED = "UNREADABLE", "NOT_COMPILED"
NOT_TEXT, CORRUPT = "NOT_TEXT", "CORRUPT"  # a file that is not text; corrupt or truncated gzip
NO_LIST = (UNREADABLE, NOT_TEXT, CORRUPT, NOT_COMPILED)  # there is no content that the operator could accept
NOT_FETCHED = "NOT_FETCHED"  # a new feed that was never fetched: no guard judged it, and no metric counts it
CODES = (
    *("HTML", "EMPTY", "MIXED", "TRUNCATED", "SPLIT", "TOO_MANY_REJECTED", "REPLAYED", "SHRANK", "GREW"),
    *("NO_SOA", "ZONEMD"),  # of a policy zone
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
class Finding:
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
) -> list[Finding]:
    """Returns a result for each guard that rejects this list.

    `heads` are the first bytes of each of its files. `lists_exceptions` is set for a zone with the answer
    passthru. `before` is the enforced version. `replayed` is an older version with the same content, if any.
    """
    is_zone = zone.kind == "rpz"
    if before is not None and before.compiled.report.entries == 0:
        # The operator has accepted an empty list. Any list with names is better, even an older one.
        before, replayed = None, replayed if replayed is not None and replayed.is_withdrawn else None
    found = [
        _html(compiled, heads),
        *(
            (_without_soa(compiled), _digest(compiled))
            if is_zone
            else (_empty(zone, compiled), _split(compiled))
        ),
        _mixed(compiled) if lists_exceptions else None,
        _truncated(zone, compiled),
        rejected(compiled, zone.source.guards.rejected_percent),
        _replayed(zone, replayed),
    ]
    is_the_same = before is not None and before.compiled.source_sha256 == digest_of(compiled.sources)
    # The operator has just changed how the same content is read.
    if before is not None and not is_the_same and (is_zone or compiled.names.entries > 0):
        found += [_changed(zone, compiled, before, code) for code in ("SHRANK", "GREW")]
    return [finding for finding in found if finding is not None]


def _html(compiled: CompiledList, heads: Sequence[bytes]) -> Finding | None:
    pages = [label for (label, *_), head in zip(compiled.sources, heads, strict=True) if _HTML.match(head)]
    if not pages:
        return None
    what = "a web page instead of the list, such as an error or login page"
    return Finding("HTML", what if len(heads) == 1 else f"{what}: {pages[0]}", {"files": len(pages)})


def _empty(zone: Zone, compiled: CompiledList) -> Finding | None:
    one = "address" if zone.kind == "addresses" else "name"
    nameless = [
        label
        for (label, *_), (_, naming) in zip(compiled.sources, compiled.formats, strict=True)
        if naming == 0
    ]
    if compiled.names.entries == 0:
        reason = f"the list contains no {one}; remove the zone if this is intended"
        if compiled.accepted + compiled.repaired:
            reason = (
                "all names in the list are exempt, so it blocks nothing; "
                "for a list of exceptions, set `answer: passthru` for its zone"
            )
    elif nameless:
        # In a folder, the other files would hide one that was truncated to nothing.
        reason = f"{nameless[0]} contains no {one}; remove it from the folder if this is intended"
    else:
        return None
    return Finding("EMPTY", reason, {"lines": compiled.lines, "files": len(nameless)})


def _without_soa(compiled: CompiledList) -> Finding | None:
    """A zone may be empty, but it has an SOA record (RFC 1035 section 5.2)."""
    if compiled.serial is not None:
        return None
    return Finding("NO_SOA", "no SOA record of the zone: is this a zone file, and is it complete?")


def _digest(compiled: CompiledList) -> Finding | None:
    """The zone's own digest of its content (RFC 8976)."""
    if compiled.zonemd != "invalid":
        return None
    return Finding(
        "ZONEMD",
        "the content does not have the digest of its ZONEMD record: it was altered, or not all is read",
    )


def _mixed(compiled: CompiledList) -> Finding | None:
    """An allow list must mark each name as an exception: blocks in it would pass as well."""
    naming = sum(lines for _, lines in compiled.formats)
    blocks = naming - compiled.exceptions
    if not compiled.exceptions or not blocks:
        return None
    reason = (
        f"{compiled.exceptions:,} lines are exceptions and {blocks:,} are blocks: in a zone with answer "
        "passthru both would pass; split the list, or use it in a zone that blocks"
    )
    return Finding("MIXED", reason, {"exceptions": compiled.exceptions, "blocks": blocks})


def _truncated(zone: Zone, compiled: CompiledList) -> Finding | None:
    if zone.source.guards.accepts_truncated:
        return None
    label, size, _, ends = compiled.sources[-1]
    if not size or ends:
        return None
    what = f"the last line of {label} does not end with a line feed: the list may be truncated"
    if label.endswith(".gz"):
        what += ". If it is complete, add a line feed before it is compressed"
    elif not zone.is_feed:
        what += f". If it is complete, add a line feed: echo >> {shlex.quote(label)}"
    return Finding("TRUNCATED", what)


def _split(compiled: CompiledList) -> Finding | None:
    """Rejects a folder if a file ends in the middle of a line that the next file may continue.

    For `two.shop.com.br`, the halves `two.shop.com` and `.br` would be two wrong names. This guard cannot be
    disabled.
    """
    parts = compiled.sources[:-1]
    cut = [label for label, size, _, ends in parts if size and not ends]
    if not cut:
        return None
    labels = [label for label, *_ in compiled.sources]
    follows = labels[labels.index(cut[0]) + 1]
    what = f"{cut[0]} does not end with a line feed and {follows} follows: a name may be split there"
    sizes = {size for _, size, _, _ in parts}
    if len(sizes) == 1 and compiled.sources[-1][1] <= min(sizes):
        what += f". Their sizes are those of {min(sizes):,}-byte parts made by `split -b`"
    what += ". If they are parts of one list, join them into one file, or split the list at line ends"
    what += f" (`split -l`). If they are separate lists, add a line feed: echo >> {shlex.quote(cut[0])}"
    return Finding("SPLIT", what, {"files": len(cut)})


def rejected(compiled: CompiledList, limit: float) -> Finding | None:
    """Rejects a list if more than `limit` percent of its lines are invalid."""
    counted = {code: count for code, count in compiled.rejected_by.items() if code not in _HARMLESS}
    bad = compiled.rejected - sum(compiled.rejected_by.get(code, 0) for code in _HARMLESS)
    if compiled.lines == 0 or bad <= compiled.lines * limit / 100:
        return None
    percent = 100 * bad / compiled.lines
    reasons = ", ".join(f"{count:,} {code}" for code, count in sorted(counted.items()))
    text = f"{bad:,} of {compiled.lines:,} lines are invalid ({percent:.2f} %, more than {limit:g} %)"
    numbers = {"rejected": bad, "lines": compiled.lines, "percent": round(percent, 3), "limit": limit}
    return Finding("TOO_MANY_REJECTED", f"{text}: {reasons}", numbers)


def _replayed(zone: Zone, replayed: Version | None) -> Finding | None:
    if replayed is None:
        return None
    at = replayed.accepted_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    if replayed.is_withdrawn:
        return Finding(
            "REPLAYED", f"this is version {replayed.number} of {at}, which was withdrawn by a rollback"
        )
    if zone.source.guards.accepts_replayed(is_feed=zone.is_feed):
        return None
    return Finding("REPLAYED", f"this is the older version {replayed.number} of {at}")


def _changed(zone: Zone, compiled: CompiledList, before: Version, code: str) -> Finding | None:
    """SHRANK or GREW. Counts unblocked or newly blocked names, whatever the cause.

    A name may be removed or added, cover less or more, or be exempt from now on or no longer.
    """
    shrank, difference = code == "SHRANK", compiled.difference
    entries = before.compiled.report.entries
    if difference is None:  # the previous names are lost, but their number is known
        changed = whole = (1 if shrank else -1) * (entries - compiled.names.entries)
    elif shrank:
        changed, whole = difference.lost, min(difference.removed, difference.lost)
    else:
        changed, whole = difference.gained, min(difference.added, difference.gained)
    verb = "are gone" if shrank else "are new"
    what = {"addresses": "prefixes", "rpz": "triggers"}.get(zone.kind, "names")
    text = f"{changed:,} {what} {verb}"
    if changed != whole:
        cover, rest = (
            ("less", "are narrower or exempt now") if shrank else ("more", "are wider or no longer exempt")
        )
        text = f"{changed:,} {what} cover {cover}: {whole:,} {verb}, {changed - whole:,} {rest}"
    percent_changed = 100 * changed / max(entries, 1)
    text = f"{text}, of {entries:,} before"
    numbers = {"changed": changed, "before": entries, "percent": round(percent_changed, 4)}
    names, percent = (_limit(zone, f"{code.lower()}_{unit}") for unit in ("names", "percent"))
    if changed > names:
        return Finding(code, f"{text}: more than {names:,.0f}", numbers | {"limit": names})
    if percent_changed > percent and changed >= FEWEST:
        text = f"{text}: {percent_changed:.2f} %, more than {percent:g} %"
        return Finding(code, text, numbers | {"limit": percent})
    return None


def allows_changes(zone: Zone, entries: int, lost: int, gained: int) -> bool:
    """Whether SHRANK and GREW accept that so many of `entries` cover less, and so many more."""
    for code, changed in (("shrank", lost), ("grew", gained)):
        names, percent = (_limit(zone, f"{code}_{unit}") for unit in ("names", "percent"))
        if changed > names or (changed >= FEWEST and 100 * changed / max(entries, 1) > percent):
            return False
    return True


def _limit(zone: Zone, option: str) -> float:
    setting: float | None = getattr(zone.source.guards, option)
    usual: float = getattr(FEED if zone.is_feed else FILE, option)
    return usual if setting is None else setting
