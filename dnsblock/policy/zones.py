"""Compiles the policy zones of orders and lists, and defines the answer for the names of each."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dnsblock import config as settings
from dnsblock._engine import Answer, Names, PolicyZone, RecordChanges, Rule
from dnsblock.config import Config
from dnsblock.config_rpz import RpzOptions
from dnsblock.config_zones import Zone
from dnsblock.lists.compile import Options
from dnsblock.lists.guards import allows_changes
from dnsblock.lists.lists import Lists
from dnsblock.orders.life import Part
from dnsblock.orders.state import Entries
from dnsblock.policy.order_counters import ORDER_COUNTERS, OrderCounters
from dnsblock.suffixes import public_suffixes

LARGEST_CHANGE = 1000  # names, or an eighth of the zone: the most that the engine's overlay holds


@dataclass(frozen=True, slots=True)
class OrderZone:
    """A compiled zone of orders, and everything that determines it."""

    compiled: PolicyZone
    in_force: Entries
    options: tuple[Zone, Mapping[str, settings.Answer], settings.StructuredErrors | None]
    rules: "_Rules"
    given: int  # how many of the rules the compiled zone has; others may have been added since

    @property
    def is_grown(self) -> bool:
        """Whether half as much has changed since it was compiled as a change of it can hold."""
        return self.compiled.is_grown

    def compiled_again(self) -> "OrderZone":
        """The same zone, compiled from its own entries. Raises `OSError` and `NotCompiled`."""
        return replace(self, compiled=self.compiled.compiled_again())


def compile_orders(
    zone: Zone,
    config: Config,
    in_force: Entries,
    former: OrderZone | None = None,
    *,
    is_served: bool = True,
) -> OrderZone:
    """Compiles the zone of an issuer. If orders overlap, the answer has the number of the first one.

    `former`: the same zone at another time. If few of its entries differ, only these are compiled.
    A zone that is not served only answers a question, such as what a draft would change. Its orders get no
    counter: otherwise anybody who may check drafts could use up all counters with invented numbers.
    """
    options = (zone, config.answers, config.signals.structured_errors)
    if former is not None and former.options == options:
        if not is_served:
            former = replace(former, rules=former.rules.copy())
        changed = _with_changes(former, in_force)
        if changed is not None:
            compiled, given = changed
            return OrderZone(compiled, in_force, options, former.rules, given)
    rules = _Rules(zone, config, counters=ORDER_COUNTERS if is_served else None)
    parts = [one for part in sorted(in_force.parts.values(), key=_precedence_of) for one in rules.parts(part)]
    compiled = PolicyZone.from_parts(zone.name, rules.since(0), parts)
    return OrderZone(compiled, in_force, options, rules, rules.count)


def _with_changes(former: OrderZone, in_force: Entries) -> tuple[PolicyZone, int] | None:
    """The former zone with the entries in force now, and its number of rules; None: compile it again."""
    rules = former.rules
    most = max(LARGEST_CHANGE, len(former.in_force) // 8)
    if abs(len(in_force) - len(former.in_force)) > most:
        return None
    gone, come = in_force.changed_since(former.in_force)
    changed = gone | come
    if not changed:
        return former.compiled, former.given
    if len(changed) > most:
        return None
    if rules.count > max(LARGEST_CHANGE, 2 * in_force.answers):
        return None  # most rules are those of orders that have ended
    now = sorted(in_force.only(changed).parts.values(), key=_precedence_of)
    parts = [one for part in now for one in rules.parts(part)]
    if removed := changed.difference(*(part.names for part in now)):
        parts.append(("remove", 0, "\n".join(removed)))
    new = rules.since(former.given)
    compiled = former.compiled.with_changes(new, parts)
    return None if compiled is None else (compiled, former.given + len(new))


class _Rules:
    """The rules of a zone of orders: one for each order and answer.

    They are added, never removed, so that all versions of a zone share them. Thread-safe: the next scheduled
    change is compiled while orders come.
    """

    def __init__(self, zone: Zone, config: Config, counters: OrderCounters | None) -> None:
        self._zone, self._config, self._counters = zone, config, counters
        self._known = config.answer_names
        self._answers: dict[str, Answer] = {}
        self._indexes: dict[tuple[str | None, str], int] = {}
        self._compiled: list[Rule] = []
        self._adding = threading.Lock()

    def copy(self) -> "_Rules":
        """The same rules for a zone that is not served. Those that are added have no counter."""
        new = _Rules(self._zone, self._config, counters=None)
        with self._adding:
            new._indexes, new._compiled = dict(self._indexes), list(self._compiled)
        return new

    @property
    def count(self) -> int:
        """The number of rules."""
        return len(self._compiled)

    def since(self, given: int) -> list[Rule]:
        """The rules after the first `given` ones."""
        return self._compiled[given:]

    def parts(self, part: Part) -> list[tuple[str, int, str]]:
        """The entries of an order for the engine: the match, the rule, and the names, one per line."""
        kind, order_id = part.kind, part.order.order_id
        rules = {answer: self.index(kind, answer, order_id) for answer in part.answers}
        matches = part.matches
        if len(matches) == len(rules) == 1:  # the usual case, faster
            (match,), (rule,) = matches, rules.values()
            return [(match, rule, part.text)]
        return [(entry.match, rules[entry.answer], entry.name) for entry in part.entries]

    def index(self, kind: str, answer: str | None, order_id: str) -> int:
        """The index of the rule for an entry of an order."""
        key = self._key(kind, answer, order_id)
        index = self._indexes.get(key)
        if index is not None:
            return index
        with self._adding:
            if key not in self._indexes:
                self._compiled.append(self._rule(*key))
                self._indexes[key] = len(self._compiled) - 1
            return self._indexes[key]

    def _key(self, kind: str, answer: str | None, order_id: str) -> tuple[str | None, str]:
        if kind == "exempt":
            return (None, "")  # it lifts the block of this issuer only
        # A configuration without the answer profile of an order is refused when it is read. If a profile
        # is missing anyway, the zone's answer is used: failing here would keep orders from ending.
        return (answer if answer in self._known else self._zone.answer, order_id)

    def _rule(self, answer: str | None, order_id: str) -> Rule:
        if answer is None:
            return Rule(None)
        if answer not in self._answers:
            self._answers[answer] = engine_answer(self._zone, self._config, answer)
        why = f"order {order_id} of {self._zone.issuer}"
        counters, issuer = self._counters, self._zone.issuer or ""
        counter = 0 if counters is None else counters.number(issuer, order_id)
        return Rule(self._answers[answer], order_id, structured_text(self._config, why), counter)


def _precedence_of(part: Part) -> tuple[datetime, str]:
    return (part.order.effective_at.astimezone(UTC), part.order.order_id)


@dataclass(frozen=True, slots=True)
class Answers:
    """The settings that determine the answers of a list or of a policy zone."""

    kind: str
    profile: settings.Answer | None  # None: those that the records give
    given: RpzOptions | None
    structured: settings.StructuredErrors | None

    @classmethod
    def of(cls, zone: Zone, config: Config) -> "Answers":
        """The answers of a zone."""
        profile = None if zone.gives_answers else config.answer(zone.answer)
        return cls(zone.kind, profile, zone.rpz, config.signals.structured_errors)


@dataclass(frozen=True, slots=True)
class RecordsTransfer:
    """An incremental transfer: the serials before and after it, and its changes."""

    since: int
    changes: RecordChanges
    serial: int


@dataclass(frozen=True, slots=True)
class ListZone:
    """A compiled zone of a list, and everything that determines it."""

    compiled: PolicyZone
    names: Names | None  # None: no list is enforced
    answers: "Answers"
    is_shadow: bool = False  # matches are only counted
    journal: tuple["RecordsTransfer", ...] = ()  # changes that were made to it since `names` were compiled

    @property
    def ahead(self) -> int | None:
        """The serial of the last changes since `names` were compiled; None: there are none."""
        return self.journal[-1].serial if self.journal else None

    def is_of(self, names: Names | None, answers: "Answers") -> bool:
        """Whether the zone has these names and answers, and its compiled file is readable."""
        if self.answers != answers:
            return False
        if self.names is None or names is None or self.names is names:
            return self.names is names
        return self.names.sha256 == names.sha256 and not (self.names.is_corrupt or names.is_corrupt)


def compile_lists(
    config: Config, lists: Lists, former: Mapping[str, ListZone], *, keeps_former: bool = False
) -> dict[str, ListZone]:
    """The zones of all lists, by name. Zones of `former` with the same list and answer are reused.

    With `keeps_former`, all zones of `former` stay as they are: new lists could not be recorded.
    """
    compiled: dict[str, ListZone] = {}
    for zone in config.zones:
        if zone.kind != "orders":
            if zone.name not in lists.zones:
                raise LookupError(f"list {zone.name} was not read")
            listed, before = lists.listed.get(zone.name), former.get(zone.name)
            names = None if listed is None or is_withdrawn(zone, lists) else listed.names
            answers = Answers.of(zone, config)
            # Nothing of changes that belong to a rejected version stays.
            is_ahead = before is not None and before.ahead is not None and zone.name in lists.rejections
            if before is not None and (keeps_former or (before.is_of(names, answers) and not is_ahead)):
                compiled[zone.name] = before
            else:
                compiled[zone.name] = ListZone(list_zone(zone, config, names), names, answers)
            if (shadow := is_shadow(zone, lists)) != compiled[zone.name].is_shadow:
                compiled[zone.name] = replace(compiled[zone.name], is_shadow=shadow)
    return compiled


def latest(
    config: Config, in_force: Mapping[str, ListZone], read: Mapping[str, ListZone], lists: Lists
) -> dict[str, ListZone]:
    """The zones that were compiled when `lists` were read, instead of those in force.

    Changes that were made to a zone while its copy before them was compiled are made again.
    """
    zones = {**in_force, **read}
    for zone in config.zones:
        former = in_force.get(zone.name)
        if former is None or former.ahead is None or zone.name in lists.rejections:
            continue
        if zones[zone.name].ahead is None:
            zones[zone.name] = _caught_up(zone, config, lists, former, zones[zone.name])
    return zones


def _caught_up(zone: Zone, config: Config, lists: Lists, former: ListZone, compiled: ListZone) -> ListZone:
    if compiled.is_of(former.names, former.answers):
        return former
    listed = lists.listed.get(zone.name)
    serials = [transfer.since for transfer in former.journal]
    if listed is None or listed.report.serial not in serials:
        return compiled
    compiled.compiled.find_empty()
    for transfer in former.journal[serials.index(listed.report.serial) :]:
        after = with_records(zone, config, lists, compiled, transfer)
        if after is None:
            break  # the next version has them
        compiled = after
    return compiled


def with_records(
    zone: Zone, config: Config, lists: Lists, before: ListZone, transfer: RecordsTransfer
) -> ListZone | None:
    """A policy zone after an incremental transfer, before its new copy is compiled.

    None: it has to be compiled first, as in `PolicyZone.amended`, or because a guard may reject it.
    """
    listed = lists.listed.get(zone.name)
    version = None if listed is None else listed.version
    if listed is None or version is None or listed.rejection is not None or zone.name in lists.expired:
        return None
    options = Options.of(zone, config)
    in_force = listed.report.serial if before.ahead is None else before.ahead
    if (in_force, version.compiled.options) != (transfer.since, options.text) or before.names is None:
        return None
    if listed.report.rejected_by.get("conflict"):
        return None  # a record that is not read may be hidden by one that goes
    suffixes, parents, exceptions = public_suffixes() if options.public_suffixes else ((), (), ())
    amended = before.compiled.amended(
        transfer.changes,
        zone=zone.name,
        takes_wide=options.public_suffixes is None,
        suffixes=suffixes,
        suffix_parents=parents,
        suffix_exceptions=exceptions,
        protected=options.protected,
    )
    if amended is None:
        return None
    compiled, lost, gained = amended
    if not allows_changes(zone, listed.report.entries, lost, gained):
        return None
    return replace(before, compiled=compiled, journal=(*before.journal, transfer))


def is_withdrawn(zone: Zone, lists: Lists) -> bool:
    """Whether nothing of a zone is enforced, since its servers are out of reach for too long."""
    return zone.on_late == "withdraw" and zone.name in lists.expired


def is_shadow(zone: Zone, lists: Lists) -> bool:
    """Whether matches of a zone are only counted: as configured, or since it has expired."""
    return zone.is_shadow or (zone.on_late == "shadow" and zone.name in lists.expired)


def list_zone(zone: Zone, config: Config, names: Names | None) -> PolicyZone:
    """The zone of a list or of a policy zone with these names; without names, it is empty."""
    if names is None:
        return PolicyZone.from_entries(zone.name, [Rule(None)], b"")
    if zone.rpz is not None:
        if not zone.gives_answers:
            return PolicyZone.from_records(zone.name, names, rule=list_rule(zone, config))
        why = structured_text(config, f"policy zone {zone.name}")
        max_ttl, info_code = zone.rpz.max_ttl, zone.rpz.info_code
        return PolicyZone.from_records(
            zone.name, names, max_ttl=max_ttl, extended_error=info_code, structured=why
        )
    make = PolicyZone.from_triggers if zone.kind == "addresses" else PolicyZone.from_names
    return make(zone.name, names, list_rule(zone, config))


def list_rule(zone: Zone, config: Config) -> Rule:
    """The rule for the names of a list."""
    answer = engine_answer(zone, config, zone.answer)
    return Rule(answer, structured=structured_text(config, f"list {zone.name}"))


def structured_text(config: Config, why: str) -> tuple[str, str] | None:
    """The structured error for clients that support it: the complete and the shortest valid form.

    Minified I-JSON (draft-ietf-dnsop-structured-dns-error): contacts, justification, organization, language.
    No sub-error: none is allowed with Censored (16), and for our own lists none adds anything to the code.
    """
    options = config.signals.structured_errors
    if options is None:
        return None
    brief = {"c": list(options.contacts)}
    whole = {**brief, "j": why, "o": options.organization, "l": options.language}
    return _minified(whole), _minified(brief)


def _minified(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def engine_answer(zone: Zone, config: Config, name: str) -> Answer:
    """Converts an answer profile for the engine."""
    profile = config.answer(name)
    return Answer(
        profile.action,
        ttl=profile.ttl,
        extended_error=profile.extended_error_of(zone),
        addresses=[*profile.ipv4, *profile.ipv6],
        target=profile.target,
    )
