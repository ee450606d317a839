"""The alerts of the overview: each with a text, its level, and the page that says more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from dnsblock.config_zones import Zone
from dnsblock.errors import printable
from dnsblock.policy.order_facts import OrderFacts
from dnsblock.policy.recorder import facts_of_ledger
from dnsblock.web.console.page import Visit, place

Level = Literal["bad", "warn", "info"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that needs attention."""

    level: Level
    text: str
    address: str | None = None  # of the page that says more
    label: str = ""


def alerts_of(visit: Visit, orders: Sequence[OrderFacts]) -> list[Alert]:
    """All alerts that the visitor may see, the worst first. `orders`: those that it may see."""
    found = list(_of_orders(visit, orders))
    if visit.may("watch"):
        found += [*_of_service(visit), *_of_ledger(visit), *_of_lists(visit)]
    return sorted(found, key=lambda one: ("bad", "warn", "info").index(one.level))


def _of_orders(visit: Visit, orders: Sequence[OrderFacts]) -> Iterator[Alert]:
    say, label = visit.texts.say, visit.texts.say("Orders")
    if count := sum(one["breached"] for one in orders):
        text = say("Orders past their deadline: {}", count)
        yield Alert("bad", text, place("orders", only="breached"), label)
    if count := sum(one["held"] > 0 for one in orders):
        yield Alert("warn", say("Orders with held entries: {}", count), place("orders", only="held"), label)


def _of_service(visit: Visit) -> Iterator[Alert]:
    view, say = visit.view, visit.texts.say
    publisher = view.publisher
    last = publisher.last_publish
    if not last.ok:
        reason = printable((last.error or "").splitlines()[0]) if last.error else ""
        yield Alert("bad", say("The last reload failed ({}): {}", last.reason, reason))
    down, servers = view.upstreams_down, view.config.upstream.servers
    if down and len(down) >= len(servers):
        yield Alert("bad", say("No upstream is up."))
    elif down:
        yield Alert("warn", say("Upstreams that are down: {}", ", ".join(down)))
    if publisher.inbox:
        yield Alert("warn", say("Refused documents in the orders folder: {}", len(publisher.inbox)))
    if restart := publisher.inputs.restart_needed:
        yield Alert("info", say("A restart is needed for new values of: {}", ", ".join(restart)))
    misses = [key for key, _ in view.verification.counts.misses]
    if misses:
        text = say("Orders with missed probes: {}", len(misses))
        yield Alert("bad", text, place("probes"), say("Probes"))


def _of_ledger(visit: Visit) -> Iterator[Alert]:
    view, say = visit.view, visit.texts.say
    facts, more = facts_of_ledger(view.publisher.recorder), (place("ledger"), say("Ledger"))
    if facts["mismatch"] is not None:
        yield Alert("bad", say("The ledger is not used: {}", facts["mismatch"]["reason"]), *more)
    if facts["clock_behind_seconds"]:
        text = say("The clock is {} seconds behind the last record.", round(facts["clock_behind_seconds"]))
        yield Alert("bad", text, *more)
    for one in view.checkpoints.facts()["places"]:
        if one["error"]:
            text = say("A checkpoint was not sent to {}: {}", printable(one["name"]), printable(one["error"]))
            yield Alert("warn", text, *more)


def _of_lists(visit: Visit) -> Iterator[Alert]:
    view, say = visit.view, visit.texts.say
    more = (place("lists"), say("Lists"))
    for zone in view.config.zones:
        if zone.kind == "orders":
            continue
        if (rejection := view.publisher.lists.rejections.get(zone.name)) and not rejection.is_unfetched:
            codes = ", ".join(finding.code for finding in rejection.findings)
            yield Alert("bad", say("The list {} was rejected: {}", zone.name, codes), *more)
        yield from _of_feed(visit, zone, more)


def _of_feed(visit: Visit, zone: Zone, more: tuple[str, str]) -> Iterator[Alert]:
    view, say = visit.view, visit.texts.say
    state = view.refresher.states.get(zone.name)
    if state is not None and state.error:
        text = say("The list {} could not be fetched: {}", zone.name, printable(str(state.error)))
        yield Alert("warn", text, *more)
