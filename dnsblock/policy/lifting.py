"""Names that stay blocked after an order that opens names, and why. For `order check` and `order submit`.

An unblock ends only the entries that it names. Another order, another issuer or a list may still block a
name. docs/orders.md says what each part means.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, TypedDict

from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.names import above
from dnsblock.orders.entry import Entry
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Order
from dnsblock.orders.schema import Match
from dnsblock.orders.state import Entries
from dnsblock.policy.explain import CoveringEntry, Explanation, explain_all
from dnsblock.policy.snapshot import Policy
from dnsblock.times import utc

MAX_CHECKED = 1000  # opened entries
MAX_SHOWN = 100  # of those that stay blocked
MAX_BLOCKERS = 20  # of one of them
MAX_ENTRIES = 1_000_000  # in force, among which names below opened ones are looked for
FEW = 16  # names that one call of `str.endswith` compares quickly

MAX_NAME = 253  # characters

_ANY = "any-other-name-7f3a9c"
# Blocked answers that caches do not keep.
_UNCACHED = frozenset({"refused", "drop", "truncate", "passthru"})

OPENS = frozenset({"unblock", "revoke", "supersede", "exempt"})  # the actions that may open names

Part = Literal["all", "name", "below", "some below"]


class Blocker(TypedDict):
    """An entry that blocks a name. The fields are null if the caller may not see whose it is."""

    kind: Literal["order", "list"]
    zone: str | None
    issuer: str | None  # of an order
    orders: list[str]  # numbers: all of them must be lifted
    entry: str | None
    match: str | None
    action: str | None


class StillBlocked(TypedDict):
    """An entry that the order opens, and the part of it that stays blocked."""

    name: str
    match: str
    part: Part  # `all` of it; its `name`; all other names `below` it; `some below`: the entries in `by`
    by: list[Blocker]  # the first one decides now
    text: str  # the same for people


class Lifting(TypedDict):
    """The effect of an order that opens names."""

    at: str  # when it takes effect, or now
    entries: int  # that it names
    checked: int  # of these
    open: int  # of those checked: nothing here blocks any part of them
    still_blocked: list[StillBlocked]  # the first ones
    still_blocked_total: int
    is_below_checked: bool  # whether names below, in other orders, were looked for
    caches_until: str  # caches of clients may hold the blocked answer until then


def lifting_of(
    order: Order,
    orders: IssuerOrders,
    policy: Policy,
    config: Config,
    now: datetime,
    *,
    sees: frozenset[str] | None = None,
) -> Lifting | None:
    """The effect of an order by the `policy` in which it is in force. None if it opens no names.

    `sees`: the issuers whose orders the caller may see; None: all, and the lists.
    """
    opened = list(opened_by(order, orders))
    if not opened:
        return None
    checked = [(entry.name, entry.match) for entry in opened[:MAX_CHECKED]]
    below, is_below_checked = _below([name for name, match in checked if match != "exact"], policy, config)
    explained = _explained(checked, policy, config)
    found: list[StillBlocked] = []
    still: set[tuple[str, Match]] = set()
    for name, match in checked:
        for one in _parts(name, match, explained, below.get(name, ()), config):
            still.add((name, match))
            shown = one if sees is None else _masked(one, sees)
            found.append({**shown, "text": _text(shown)})
    return {
        "at": utc(max(now, order.effective_at)),
        "entries": len(opened),
        "checked": len(checked),
        "open": len(set(checked)) - len(still),
        "still_blocked": found[:MAX_SHOWN],
        "still_blocked_total": len(found),
        "is_below_checked": is_below_checked,
        "caches_until": utc(_caches_until(order, opened, config, now)),
    }


def opened_by(order: Order, orders: IssuerOrders) -> Iterator[Entry]:
    """The entries that an order opens: of other orders, or of an exemption its own."""
    if order.action == "exempt":
        idle = order.judgement.idle
        yield from (entry for index, entry in enumerate(order.entries) if index not in idle)
        return
    kept = {(entry.name, entry.match) for entry in order.entries}
    for target, life in orders.targets_of(order):
        if life.order.action not in ("block", "supersede"):
            continue
        wanted = None if target.entries is None else {(one.name, one.match) for one in target.entries}
        for entry in life.order.entries:
            key = (entry.name, entry.match)
            if key not in kept and (wanted is None or wanted & {key, (entry.name, None)}):
                yield entry


# ------- What blocks a name -------


def _explained(
    checked: Sequence[tuple[str, Match]], policy: Policy, config: Config
) -> Mapping[str, Explanation]:
    """The explanations of these names, and of any name below each."""
    names = [name for name, match in checked if match != "below"]
    names += [any_below(name) for name, match in checked if match != "exact"]
    return {one["name"]: one for one in explain_all(list(dict.fromkeys(names)), policy, config)}


def any_below(name: str) -> str:
    """A name below another one that no order and no list contains, to look up what covers all of them.

    A name that is too long has no names below it (RFC 1035 section 2.3.4), so it stands for itself.
    """
    below = f"{_ANY}.{name}"
    return below if len(below) <= MAX_NAME else name


def _parts(
    name: str,
    match: Match,
    explained: Mapping[str, Explanation],
    below: Sequence[Blocker],
    config: Config,
) -> Iterator[StillBlocked]:
    own = _blockers(explained.get(name), config) if match != "below" else []
    others = _blockers(explained.get(any_below(name)), config) if match != "exact" else []
    if match == "exact":
        if own:
            yield {"name": name, "match": match, "part": "all", "by": own, "text": ""}
        return
    if others and (own or match == "below"):
        both = [*own, *(one for one in others if one not in own)]
        yield {"name": name, "match": match, "part": "all", "by": both[:MAX_BLOCKERS], "text": ""}
        return
    if own:
        yield {"name": name, "match": match, "part": "name", "by": own, "text": ""}
    if others:
        yield {"name": name, "match": match, "part": "below", "by": others, "text": ""}
    elif below:
        yield {
            "name": name,
            "match": match,
            "part": "some below",
            "by": list(below[:MAX_BLOCKERS]),
            "text": "",
        }


def _blockers(explanation: Explanation | None, config: Config) -> list[Blocker]:
    """The entries that block a name now, or would if those before them were lifted."""
    if explanation is None or explanation["verdict"] != "blocked":
        return []
    zones = {zone.name: zone for zone in config.zones}
    found: list[Blocker] = []
    is_exempt: set[str] = set()
    for entry in explanation["covering"]:
        if entry["mode"] == "shadow" or entry["zone"] in is_exempt:
            continue
        if entry["action"] == "exemption":
            is_exempt.add(entry["zone"])  # of a zone, the longest entry comes first
        elif entry["action"] == "passthru":
            break
        else:
            found.append(_blocker(entry, zones[entry["zone"]]))
    return found[:MAX_BLOCKERS]


def _blocker(entry: CoveringEntry, zone: Zone) -> Blocker:
    return {
        "kind": "list" if zone.issuer is None else "order",
        "zone": zone.name,
        "issuer": zone.issuer,
        "orders": entry["orders"],
        "entry": entry["entry"],
        "match": entry["match"],
        "action": entry["action"],
    }


def _below(names: Sequence[str], policy: Policy, config: Config) -> tuple[dict[str, list[Blocker]], bool]:
    """The entries of orders below each of these names; and whether they were looked for."""
    wanted = frozenset(names)
    zones = [zone for zone in config.zones if zone.issuer is not None and not zone.is_shadow]
    total = sum(len(policy.state.entries_of(zone.issuer)) for zone in zones)
    if not wanted or total > MAX_ENTRIES:
        return {}, not wanted
    found: dict[str, list[Blocker]] = {}
    entries: dict[str, list[Entry]] = {}
    for zone in zones:
        for entry in _candidates(policy.state.entries_of(zone.issuer), wanted):
            entries.setdefault(entry.name, []).append(entry)
    blocked = {
        one["name"]: one for one in explain_all([_in(entries[name]) for name in entries], policy, config)
    }
    for name, items in entries.items():
        by = _blockers(blocked[_in(items)], config)
        if not by:
            continue  # an exemption or a passthru comes first
        for higher in above(name):
            if higher in wanted:
                own = found.setdefault(higher, [])
                own.extend(one for one in by if one not in own)
    return found, True


def _candidates(in_force: Entries, wanted: frozenset[str]) -> Iterator[Entry]:
    """The blocks below one of these names."""
    ends = tuple(f".{name}" for name in wanted) if len(wanted) <= FEW else None
    for part in in_force.parts.values():
        if part.kind != "block":
            continue
        for entry in part.entries:
            is_below = entry.name.endswith(ends) if ends else not wanted.isdisjoint(above(entry.name))
            if is_below:
                yield entry


def _in(entries: Sequence[Entry]) -> str:
    """A name that one of these entries, which have the same name, covers."""
    name = entries[0].name
    is_only_below = all(entry.match == "below" for entry in entries)
    return any_below(name) if is_only_below else name


# ------- What a caller may see, and caches -------


def _masked(one: StillBlocked, sees: frozenset[str]) -> StillBlocked:
    by: list[Blocker] = []
    for blocker in one["by"]:
        kind, shown = blocker["kind"], blocker
        if blocker["issuer"] not in sees:
            shown = Blocker(kind=kind, zone=None, issuer=None, orders=[], entry=None, match=None, action=None)
        if shown not in by:
            by.append(shown)
    return {**one, "by": by}


def _caches_until(order: Order, opened: Iterable[Entry], config: Config, now: datetime) -> datetime:
    """When the last cached answer of a block ends: clients may keep it for the TTL of its profile.

    Before a change that is known, the TTL of answers shrinks. So an order that comes early enough waits for
    no cache.
    """
    zone = next((zone for zone in config.zones if zone.issuer == order.issuer), None)
    ttl = 0
    if zone is not None:
        known = config.answer_names
        for answer in {entry.answer if entry.answer in known else zone.answer for entry in opened}:
            profile = config.answer(answer or zone.answer)
            ttl = max(ttl, 0 if profile.action in _UNCACHED else profile.ttl)
    return max(order.effective_at, now + timedelta(seconds=ttl)) if ttl else max(order.effective_at, now)


# ------- For people -------


def _text(one: StillBlocked) -> str:
    """One line about a name that stays blocked, and by what."""
    name = one["name"]
    match one["part"], one["match"]:
        case "name", _:
            what = f"{name} itself"
        case ("below", _) | ("all", "below"):
            what = f"all names below {name}"
        case "some below", _:
            what = f"names below {name}"
        case _:
            what = name
    return f"{what} by {'; '.join(_said(blocker) for blocker in one['by'])}"


def _said(one: Blocker) -> str:
    if one["zone"] is None:
        return "an order of another issuer" if one["kind"] == "order" else "a list of the provider"
    entry = f"entry {one['entry']} ({one['match']})"
    if one["kind"] == "list":
        return f"list {one['zone']}, {entry}"
    numbers = f"order {', '.join(one['orders'])}" if one["orders"] else "an order"
    return f"{numbers} of {one['issuer']}, {entry}"
