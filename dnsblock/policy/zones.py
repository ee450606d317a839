"""Compiles the policy zones of orders and lists, and defines the answer for the names of each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dnsblock import config as settings
from dnsblock._engine import Answer, Names, PolicyZone, Rule
from dnsblock.config import Config, Zone
from dnsblock.lists.lists import Lists
from dnsblock.orders.state import InForce


def compile_orders(zone: Zone, config: Config, in_force: Sequence[InForce]) -> PolicyZone:
    """Compiles the zone of an issuer. If orders overlap, the answer has the number of the first one."""
    rules: dict[tuple[str | None, str], int] = {}
    compiled: list[Rule] = []
    lines: list[str] = []
    for item in sorted(in_force, key=_precedence):
        # An exemption is never a passthru: it lifts the block of this issuer only.
        answer = None if item.kind == "exempt" else _answer_of(item, zone, config)
        key = (answer, "" if answer is None else item.order_id)
        if key not in rules:
            rules[key] = len(compiled)
            compiled.append(_rule(zone, config, answer, key[1]))
        lines.append(f"{item.entry.match} {rules[key]} {item.entry.name}\n")
    return PolicyZone.from_entries(zone.name, compiled, "".join(lines).encode())


def _rule(zone: Zone, config: Config, answer: str | None, order_id: str) -> Rule:
    if answer is None:
        return Rule(None)
    why = f"order {order_id} of {zone.issuer}"
    return Rule(engine_answer(zone, config, answer), order_id, structured_text(config, why))


def _answer_of(item: InForce, zone: Zone, config: Config) -> str:
    """The entry's own answer, or that of the zone.

    A configuration without the answer profile of an order is refused when it is read. If a profile is missing
    anyway, the zone's answer is used: failing here would keep orders from ending.
    """
    return item.entry.answer if item.entry.answer in config.answer_names else zone.answer


def _precedence(item: InForce) -> tuple[datetime, str]:
    return (item.effective_at.astimezone(UTC), item.order_id)


@dataclass(frozen=True, slots=True)
class ListZone:
    """A compiled zone of a list, and everything that determines it."""

    compiled: PolicyZone
    names: Names | None  # None: no list is enforced
    answer: settings.Answer
    structured: settings.StructuredErrors | None

    def is_of(
        self, names: Names | None, answer: settings.Answer, structured: settings.StructuredErrors | None
    ) -> bool:
        """Whether the zone has these names and this answer, and its compiled file is readable."""
        if (self.answer, self.structured) != (answer, structured):
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
            names = None if listed is None else listed.names
            answer, structured = config.answer(zone.answer), config.signals.structured_errors
            if before is not None and (keeps_former or before.is_of(names, answer, structured)):
                compiled[zone.name] = before
            else:
                made = _list_zone(zone, config, names)
                compiled[zone.name] = ListZone(made, names, answer, structured)
    return compiled


def _list_zone(zone: Zone, config: Config, names: Names | None) -> PolicyZone:
    if names is None:
        return PolicyZone.from_entries(zone.name, [list_rule(zone, config)], b"")
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
