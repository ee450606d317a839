"""Past policy: what was enforced at a time, and the events of a name. From the ledger and list history."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from itertools import islice, zip_longest
from typing import TypedDict

from dnsblock._engine import Answer, Names, PlacedZone, PolicyZone, Rule, Snapshot
from dnsblock.clock import utc_now
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.errors import Problem, Refused
from dnsblock.lists.history.facts import Published
from dnsblock.lists.history.history import History
from dnsblock.lists.lists import Lists
from dnsblock.lists.reader import is_of_kind
from dnsblock.names import suffixes
from dnsblock.orders.allowances import Allowance
from dnsblock.orders.allowances import about as covering_allowances
from dnsblock.orders.entry import Entry
from dnsblock.orders.known import about, known_about
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.life import Life
from dnsblock.orders.orders import Orders, fold
from dnsblock.orders.spans import Span, scheduled_spans, spans_of
from dnsblock.orders.state import derive
from dnsblock.policy import prefixes
from dnsblock.policy.allowed import compile_allowed, zone_of
from dnsblock.policy.engine_settings import nat64_prefixes
from dnsblock.policy.explain import CoveringEntry, Explanation, explain
from dnsblock.policy.snapshot import Policy, placement
from dnsblock.policy.zones import compile_orders, list_rule, list_zone
from dnsblock.times import utc

IN_FUTURE = (
    "this time is in the future: the answer uses the orders that are scheduled now and the current lists "
    "and settings; later orders may change it"
)
Target = str | IPv4Address | IPv6Address  # a canonical name, or an address in a response
MAX_VERSIONS = 10_000  # of a policy zone, that are searched
ALL_LISTS = "(lists)"  # instead of a zone: no zone has such a name
TRIGGERS = ".rpz-ip"  # the end of the name of a prefix
UNKNOWN_SHOWN = 5  # of the parents of a name, or the prefixes that contain an address


class NameEvent(TypedDict):
    """An event of a name, or of a parent whose entry covers it."""

    at: str  # RFC 3339, UTC
    zone: str
    what: str  # in force, ended; listed, changed, gone; listed, not known since when; allowed
    entry: str
    match: str
    by: str  # an order, the version of a list, or who allowed the name and why
    answer: str  # of a policy zone: the records without their owner; otherwise empty


class Unenforced(TypedDict):
    """An entry for the name that is in an order, but that nothing enforces."""

    zone: str
    order_id: str
    entry: str
    match: str
    state: str  # held, refused, proposed, notice
    code: str  # of the guard; GAP: an earlier order is missing; PROPOSED; NOTICE
    reason: str


class Unknown(TypedDict):
    """An order in force by the law that was not known here yet."""

    zone: str
    order_id: str
    received_at: str | None


class Enforced(TypedDict):
    """How this instance treated the name at the time, by everything that it knew then."""

    known_at: str
    verdict: str
    decided_by: CoveringEntry | None
    not_enforced: list[Unenforced]


class PastExplanation(Explanation):
    """The result of `why --at --known-at`: the law at a time, and how this instance treated the name then."""

    is_scheduled: bool  # the time is in the future
    not_enforced: list[Unenforced]
    here: Enforced | None  # None: the time is in the future
    not_known: list[Unknown]  # orders that came after `here.known_at`
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Past:
    """Access to past policy. The zones are those of the current configuration."""

    config: Config
    ledger: Ledger
    lists: Lists
    history: History

    @property
    def orders(self) -> Orders:
        """The orders known now."""
        return self.ledger.orders

    # ------- At a time -------

    def explain(self, target: Target, when: datetime, known_at: datetime | None = None) -> PastExplanation:
        """Explains why a canonical name or an address was or was not blocked at a time.

        By all orders known now, or with `known_at` by the records up to then: an order of 2017 that came in
        2026 is law in 2017. Of lists, the version that was in force counts. For a future time, the orders and
        lists that are known now count. The entries are compiled again, by the code that answers queries.
        """
        now = utc_now()
        covers, kind = self._covers_of(target)
        until = when if known_at is None else min(when, known_at)
        is_scheduled = when.replace(microsecond=0) > now
        notes = [IN_FUTURE] if is_scheduled else []
        lists = {
            zone.name: self._list_at(zone, covers, until, notes)
            for zone in self.config.zones
            if zone.kind == kind
        }
        lists |= {
            zone.name: self._records_at(zone, until, notes)
            for zone in self.config.zones
            if zone.kind == "rpz"
        }
        whole = about(self.orders, covers)
        law = whole if known_at is None else self._known(covers, known_at)
        allowed = tuple(one for one in self.orders.allowances.at(when) if one.since <= until)
        explained = self._explained(
            target, law, when, lists, allowances=allowed, serial=self._serial_at(until)
        )
        here: Enforced | None = None
        if not is_scheduled:
            then = law if until == known_at else self._known(covers, until)
            done = self._explained(target, then, when, lists, allowances=allowed, serial=0)
            here = {
                "known_at": utc(until),
                "verdict": done["verdict"],
                "decided_by": done["decided_by"],
                "not_enforced": list(not_enforced(self.config, then, covers, when)),
            }
        return {
            **explained,
            "is_scheduled": is_scheduled,
            "not_enforced": list(not_enforced(self.config, law, covers, when)),
            "here": here,
            "not_known": list(self._unknown(whole, covers, when, known_at or until)),
            "notes": notes,
        }

    def _serial_at(self, when: datetime) -> int:
        """The serial that was served then; 0 if it is not recorded."""
        return next((one.serial for one in self.history.snapshots(when, 1)), 0)

    def _covers_of(self, target: Target) -> tuple[list[str], str]:
        """The names of entries that cover a name or an address, and the kind of zones that have these."""
        if isinstance(target, str):
            return suffixes(target), "list"
        nat64 = nat64_prefixes(self.config)
        embedded = prefixes.embedded(target, [IPv6Network(prefix) for prefix in nat64])
        return [name for one in (target, *embedded) for name in prefixes.covering(one)], "addresses"

    def _known(self, names: Sequence[str], when: datetime) -> Orders:
        return known_about(self.ledger.records, self.orders, names, when)

    def _explained(
        self,
        target: Target,
        orders: Orders,
        when: datetime,
        lists: Mapping[str, PolicyZone],
        *,
        allowances: tuple[Allowance, ...],
        serial: int,
    ) -> Explanation:
        """By these few orders, by these zones of lists, and without names that are allowed."""
        state = derive(orders, when)
        wanted, _ = self._covers_of(target)
        placed: list[PlacedZone] = []
        for zone in self.config.zones:
            if zone.issuer is not None:
                items = state.entries_of(zone.issuer).only(wanted)
                compiled = compile_orders(zone, self.config, items, is_served=False).compiled
            elif zone.name in lists:
                compiled = lists[zone.name]
            else:
                continue
            placed.append(placement(zone, compiled, None, is_shadow=zone.is_shadow).place())
        allowed = compile_allowed(allowances)
        snapshot = Snapshot(placed, serial, nat64_prefixes(self.config), zone_of(allowed))
        return explain(target, Policy(snapshot, tuple(placed), state, when, allowed=allowed), self.config)

    def _unknown(
        self, orders: Orders, covers: Sequence[str], when: datetime, known_at: datetime
    ) -> Iterator[Unknown]:
        """The orders in force by the law for this name that were not known here yet."""
        for zone in self.config.zones:
            for life in orders.of(zone.issuer or "").lives.values():
                order = life.order
                if order.received_at is None or order.received_at <= known_at:
                    continue
                entries = _covering_entries(life, covers)
                if any(life.is_in_force(index, when) for index, _ in entries):
                    received = utc(order.received_at)
                    yield {"zone": zone.name, "order_id": order.order_id, "received_at": received}

    def _list_at(self, zone: Zone, covers: Sequence[str], when: datetime, notes: list[str]) -> PolicyZone:
        entries = self._entries_at(zone, covers, when, notes)
        if zone.kind == "addresses":
            shown = "".join(f"{prefixes.shown(name)}\n" for name, _ in entries)
            return PolicyZone.from_addresses(zone.name, shown.encode(), list_rule(zone, self.config))
        lines: list[str] = []
        for name, scopes in entries:
            for word in _words(scopes):
                rule, scope = _rule_and_match(word)
                lines.append(f"{scope} {rule} {name}\n")
        rules = [list_rule(zone, self.config), Rule(None), Rule(Answer("passthru", ttl=0))]
        return PolicyZone.from_entries(zone.name, rules, "".join(lines).encode())

    def _records_at(self, zone: Zone, when: datetime, notes: list[str]) -> PolicyZone:
        """A policy zone with the records that it had at a time, if they are still stored."""
        then = [one for one in self.history.versions(zone.name, MAX_VERSIONS) if one.accepted_at <= when]
        names: Names | None = None
        if not then:
            notes.append(f"policy zone {zone.name}: there was no version yet")
        elif not is_of_kind(zone, then[0]):
            notes.append(f"policy zone {zone.name}: it was a list of another kind then")
        elif not then[0].has_file or (names := self.lists.store.names(then[0])) is None:
            notes.append(
                f"policy zone {zone.name}: version {then[0].number} of that time is not stored any more"
            )
        return list_zone(zone, self.config, names)

    def _entries_at(
        self, zone: Zone, covers: Sequence[str], when: datetime, notes: list[str]
    ) -> list[tuple[str, str]]:
        """The entries of a list for these names at a time."""
        entries: list[tuple[str, str]] = []
        unknown: list[str] = []
        for name in covers:
            past = self.history.scope_at(zone.name, name, when, self._scope_now(zone, name))
            if not past.is_known:
                unknown.append(prefixes.shown(name))
            elif past.version is None:
                notes.append(f"list {zone.name}: there was no version yet")
                break
            if past.scope:
                entries.append((name, past.scope))
        for name in unknown[:UNKNOWN_SHOWN]:
            notes.append(f"list {zone.name}: its entry for {name} at that time is unknown")
        return entries

    def _scope_now(self, zone: Zone, name: str) -> str | None:
        listed = self.lists.listed.get(zone.name)
        return None if listed is None else listed.names.scope(name)

    # ------- Of a name -------

    def events(self, name: str) -> list[NameEvent]:
        """The events of a canonical name, and of parents whose entries cover it, oldest first.

        `scheduled` events are not included.
        """
        covers, now = suffixes(name), utc(utc_now())
        found: list[NameEvent] = []
        for zone in self.config.zones:
            if zone.issuer is not None:
                spans = spans_of(self.ledger.records, self.orders, zone.issuer, covers)
                found += _order_events(zone, covers, spans)
            elif zone.kind in ("list", "rpz"):
                found += self._list_events(zone, covers)
        found += _allowed_events(self.orders, covers)
        return sorted((one for one in found if one["at"] <= now), key=lambda one: one["at"])

    def address_events(self, address: IPv4Address | IPv6Address) -> list[NameEvent]:
        """The events of the prefixes that contain an address, oldest first."""
        covers = prefixes.covering(address)
        found: list[NameEvent] = []
        for zone in self.config.zones:
            if zone.kind in ("addresses", "rpz"):
                found += self._list_events(zone, covers)
        for one in found:
            one["entry"], one["match"] = prefixes.shown(one["entry"]), "prefix"
        return sorted(found, key=lambda one: one["at"])

    def _list_events(self, zone: Zone, covers: Sequence[str]) -> Iterator[NameEvent]:
        is_of_prefixes = covers[0].endswith(TRIGGERS)  # each prefix contains the address itself
        begins = self.history.beginnings(zone.name)
        for name in covers:
            if "." not in name:
                continue  # no list contains a top-level domain
            changes = self.history.events_of(zone.name, name)
            for version, next_one in zip_longest(begins, begins[1:]):
                until = None if next_one is None else next_one.number
                # The next change tells what it listed then; without one, the current list does.
                later = [one for one in changes if one.version > version.number]
                following = later[0] if later and (until is None or later[0].version < until) else None
                scope = following.before if following else None
                if following is None and until is None:
                    scope = self._scope_now(zone, name)
                if scope is not None and _covers(scope, is_itself=is_of_prefixes or name == covers[0]):
                    # A later version without a difference: the name may have been listed long before.
                    what = "listed" if version.number == 1 else "listed, not known since when"
                    yield _list_event(version.accepted_at, zone, what, (name, scope), version.number)
            is_itself = is_of_prefixes or name == covers[0]
            for change in changes:
                scopes = [one for one in (change.before, change.after) if one is not None]
                if any(_covers(one, is_itself=is_itself) for one in scopes):
                    what = (
                        "listed" if change.before is None else "gone" if change.after is None else "changed"
                    )
                    yield _list_event(change.at, zone, what, (name, scopes[-1]), change.version)


def _words(scope: str) -> list[str]:
    """The scopes of an entry, without the answer that follows in a policy zone."""
    return scope.partition(" ")[0].split(",")


def _rule_and_match(word: str) -> tuple[int, str]:
    """The rule of a list entry, numbered as in the engine (listed, exempt, passthru), and its match."""
    for rule, prefix in enumerate(("except-", "pass-"), start=1):
        if word.startswith(prefix):
            return rule, word.removeprefix(prefix)
    return 0, word


def _covers(scope: str, *, is_itself: bool) -> bool:
    """Whether an entry with this scope covers the queried name."""
    words = {_rule_and_match(word)[1] for word in _words(scope)}
    return "subtree" in words or ("exact" if is_itself else "below") in words


def _covering_entries(life: Life, covers: Sequence[str]) -> Iterator[tuple[int, Entry]]:
    """The entries of an order that cover a name, with their indexes. `covers`: the name and its parents."""
    for index, entry in enumerate(life.order.entries):
        if entry.name in covers and _covers(entry.match, is_itself=entry.name == covers[0]):
            yield index, entry


def not_enforced(config: Config, orders: Orders, covers: Sequence[str], at: datetime) -> Iterator[Unenforced]:
    """The entries of orders about a name that would be in force, if nothing held or refused them."""
    for zone in config.zones:
        for life in orders.of(zone.issuer or "").lives.values():
            order = life.order
            if order.is_annulled(at) or not life.has_started(at) or life.is_over(at):
                continue
            for index, entry in _covering_entries(life, covers):
                if life.ended(index, at) is None and (why := _why_not(life, index)) is not None:
                    state, code, reason = why
                    yield {
                        "zone": zone.name,
                        "order_id": order.order_id,
                        "entry": entry.name,
                        "match": entry.match,
                        "state": state,
                        "code": code,
                        "reason": reason,
                    }


def _why_not(life: Life, index: int) -> tuple[str, str, str] | None:
    """The state, the code and the reason if an entry is not enforced."""
    standing = life.standing
    if standing is not None and standing.state in ("held", "proposed", "notice"):
        _, _, reason = standing.note.partition(": ")
        return standing.state, "GAP" if standing.state == "held" else standing.state.upper(), reason
    if index in life.order.judgement.idle:
        verdict = next(one for one in life.order.judgement.verdicts if one.index == index)
        return verdict.verdict, verdict.code, verdict.reason
    return None


def _order_events(zone: Zone, covers: Sequence[str], spans: Iterable[Span]) -> Iterator[NameEvent]:
    """When an issuer's entries take or took effect, and when they end or ended."""
    for span in spans:
        if _covers(span.entry.match, is_itself=span.entry.name == covers[0]):
            what = "exempt" if span.order.action == "exempt" else "in force"
            yield _order_event(span.start, zone, what, span.entry, f"order {span.order.order_id}")
            if span.end is not None:
                yield _order_event(span.end, zone, "ended", span.entry, span.why_ended)


def _allowed_events(orders: Orders, covers: Sequence[str]) -> Iterator[NameEvent]:
    """When the operator has exempted a name from lists, and when that ends or ended."""
    known = list(covering_allowances(orders.allowances.all, covers))
    begins = {(one.key, one.since) for one in known}
    for one in known:
        by = f"{one.by}: {one.reason}"
        if one.until <= one.since:  # the record of an end
            yield _event(one.since, ALL_LISTS, "not allowed any more", one.key, by)
            continue
        yield _event(one.since, ALL_LISTS, "allowed", one.key, by)
        if (one.key, one.until) not in begins:  # otherwise the next record has the event
            yield _event(one.until, ALL_LISTS, "not allowed any more", one.key, by)


def scheduled(config: Config, orders: Orders, name: str) -> list[NameEvent]:
    """The future events of a canonical name according to the known orders, next one first."""
    covers, now = suffixes(name), utc_now()
    found: list[NameEvent] = []
    for zone in config.zones:
        if zone.issuer is not None:
            found += _order_events(zone, covers, scheduled_spans(orders.of(zone.issuer), covers, now))
    found += _allowed_events(orders, covers)
    return sorted((event for event in found if event["at"] > utc(now)), key=lambda one: one["at"])


def _order_event(at: datetime, zone: Zone, what: str, entry: Entry, by: str) -> NameEvent:
    match = str(entry.match)
    return _event(at, zone.name, what, (entry.name, match), by)


def _list_event(at: datetime, zone: Zone, what: str, found: tuple[str, str], version: int) -> NameEvent:
    entry, scope = found
    match, _, answer = scope.partition(" ")
    return _event(at, zone.name, what, (entry, match), f"version {version}", answer=answer)


def _event(
    at: datetime, zone: str, what: str, found: tuple[str, str], by: str, *, answer: str = ""
) -> NameEvent:
    entry, match = found
    return {
        "at": utc(at),
        "zone": zone,
        "what": what,
        "entry": entry,
        "match": match,
        "by": by,
        "answer": answer,
    }


# ------- Between two snapshots -------


class ZoneDifference(TypedDict):
    """The differences in a zone, as (name, before, after): matches or scopes; null if absent.

    In a policy zone, the answer follows after a space.
    """

    zone: str
    a: str  # the version, or for orders the time
    b: str
    total: int
    changes: list[tuple[str, str | None, str | None]]  # the first ones


def differences(past: Past, serial_a: int, serial_b: int, limit: int) -> list[ZoneDifference]:
    """The differences between snapshots a and b, by zone, with up to `limit` names each.

    Raises `Refused` for serials and versions that are not recorded.
    """
    a, b = _recorded(past.history, serial_a), _recorded(past.history, serial_b)
    found: list[ZoneDifference] = []
    issuers = {zone.name: zone for zone in past.config.zones if zone.issuer is not None}
    configured = [zone.name for zone in past.config.zones]
    # Include lists that were enforced then but have no zone now.
    for name in dict.fromkeys([*configured, *sorted(a.versions.keys() | b.versions.keys())]):
        changes: Iterator[tuple[str, str | None, str | None]]
        old, new = a.versions.get(name), b.versions.get(name)
        if name in issuers:
            changes = _order_changes(issuers[name], past, a, b)
            states = (utc(a.published_at), utc(b.published_at))
        elif old is not None and new is not None:
            changes = _list_changes(past.history, name, old, new)
            states = (f"version {old}", f"version {new}")
        else:
            if old != new:
                found.append(_whole_list(past.history, name, old, new))
            continue
        shown = list(islice(changes, limit))
        total = len(shown) + sum(1 for _ in changes)
        if total:
            found.append({"zone": name, "a": states[0], "b": states[1], "total": total, "changes": shown})
    return found


def _whole_list(history: History, zone: str, a: int | None, b: int | None) -> ZoneDifference:
    """A list that only one of two snapshots has: only the number of names, since all of them differ."""
    versions = [None if number is None else history.version(zone, number) for number in (a, b)]
    states = ["no such list" if number is None else f"version {number}" for number in (a, b)]
    total = sum(0 if version is None else version.compiled.report.entries for version in versions)
    return {"zone": zone, "a": states[0], "b": states[1], "total": total, "changes": []}


def _recorded(history: History, serial: int) -> Published:
    if (snapshot := history.snapshot(serial)) is not None:
        return snapshot
    reason = "this serial is not recorded; `dnsblock versions` lists the serials"
    raise Refused([Problem(f"serial {serial}", None, "", reason)])


def _list_changes(
    history: History, zone: str, a: int, b: int
) -> Iterator[tuple[str, str | None, str | None]]:
    if a != b:
        for change in history.difference(zone, a, b):
            yield prefixes.shown(change.name), change.before, change.after


def _order_changes(
    zone: Zone, past: Past, a: Published, b: Published
) -> Iterator[tuple[str, str | None, str | None]]:
    before, after = (_entries_of(zone, past, snapshot) for snapshot in (a, b))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _entries_of(zone: Zone, past: Past, snapshot: Published) -> dict[str, str]:
    """The match and the order of each name of an issuer in a snapshot."""
    entries: dict[str, str] = {}
    orders = _orders_of(past, snapshot)
    for item in derive(orders, snapshot.derived_at).entries_of(zone.issuer):
        word = f"{'except-' if item.kind == 'exempt' else ''}{item.entry.match} ({item.order_id})"
        name = item.entry.name
        entries[name] = f"{entries[name]}, {word}" if name in entries else word
    return entries


def _orders_of(past: Past, snapshot: Published) -> Orders:
    """The orders that a snapshot was compiled from: by the position in the ledger, not by time.

    An order is written to the ledger just after the time for which it is first compiled. Raises `Refused` if
    the ledger has been replaced since.
    """
    position = snapshot.ledger
    if position is None:  # the operator has replaced the ledger since: only the times are known
        return fold(record for record in past.ledger.records if record.at <= snapshot.published_at)
    if not past.ledger.extends(position):
        reason = "the ledger does not contain the records that it was compiled from"
        raise Refused([Problem(f"serial {snapshot.serial}", None, "", reason)])
    return fold(past.ledger.records[: position.records])
