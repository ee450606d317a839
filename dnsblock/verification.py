"""Verifies orders: builds the scheduled probes from the orders in effect, and records their results."""

from collections.abc import Callable, Collection, Iterator, Sequence

from dnsblock.config import Config, Probes
from dnsblock.errors import LedgerUnwritable
from dnsblock.orders.facts import PlainFact, Probed, Verified
from dnsblock.orders.life import Life
from dnsblock.orders.state import State
from dnsblock.policy.probing import Known, configured_answers, plan_of, zone_of
from dnsblock.principal import DAEMON
from dnsblock.probe.checks import SAMPLE, Ordered, Plan, open_checks
from dnsblock.probe.evidence import Evidence
from dnsblock.probe.queries import Server
from dnsblock.probe.run import Setup
from dnsblock.probe.schedule import LIMITS, OPEN, InEffect, Job, Key, ProbeCounts, Scheduler
from dnsblock.publishing import Publisher

RECORDED = 20  # misses in a record of the ledger
_ACTIONS = frozenset({"block", "supersede", "exempt", "unblock", "revoke"})
_STATES = frozenset({"active", "verified", "partially lifted"})


class Verification:
    """The scheduled probes of a daemon: the `Source` of their scheduler."""

    def __init__(self, publisher: Publisher, listening: Callable[[], list[str]]) -> None:
        """`listening`: the listen addresses."""
        self.counts = ProbeCounts()
        self._publisher, self._listening = publisher, listening
        self._known: tuple[State, Config, list[InEffect]] | None = None

    async def run(self) -> None:
        """Probes until it is cancelled."""
        await Scheduler(self, self.counts).run()

    @property
    def options(self) -> Probes | None:
        """The options in force; None: no probes."""
        return self._publisher.config.probes

    @property
    def serial(self) -> int:
        """The serial in force."""
        return self._publisher.policy.snapshot.serial

    @property
    def _state(self) -> State:
        return self._publisher.recorder.state(self._publisher.policy)

    def orders(self) -> Sequence[InEffect]:
        """The orders in effect, the newest first."""
        state, config = self._state, self._publisher.config
        if self._known is None or self._known[0] is not state or self._known[1] is not config:
            self._known = (state, config, list(_in_effect(state, config)))
        return self._known[2]

    def job(self, key: Key, also: Collection[str]) -> Job | None:
        """The probe of an order, or of the open names. None: no zone enforces it any more."""
        config, options = self._publisher.config, self.options
        if options is None:
            return None
        setup = Setup(self._servers(options), _references(config), LIMITS)
        if key == OPEN:
            checks = open_checks(options.open, configured_answers(config))
            return Job(Plan(checks, open=len(options.open)), None, setup)
        state = self._state
        life = state.known.of(key.issuer).lives.get(key.sha256)
        if life is None or zone_of(key.issuer, config) is None:
            return None
        order, plan = self._plan(life, state, SAMPLE, also)
        return Job(plan, order, setup)

    def plan(self, issuer: str, order_id: str, most: int) -> tuple[Ordered, Plan] | None:
        """The checks of an order, for a command; None if there is no such order. Takes long."""
        state = self._state
        life = state.known.of(issuer).latest(order_id)
        return None if life is None else self._plan(life, state, most, ())

    def _plan(self, life: Life, state: State, most: int, also: Collection[str]) -> tuple[Ordered, Plan]:
        publisher = self._publisher
        popular, now = publisher.inputs.references.popular.names.names, publisher.recorder.now()
        known = Known(state, publisher.policy, publisher.config, now)
        return plan_of(life, known, most=most, popular=popular, also=also)

    def _servers(self, options: Probes) -> list[Server]:
        own = [Server.own(place) for place in self._listening()]
        others = [Server(one) for one in options.servers if one != "own"]
        return [*(own if "own" in options.servers else ()), *others]

    async def record(self, key: Key, evidence: Evidence, *, is_verified: bool) -> None:
        """Records a result in the ledger. Raises `Refused` and `LedgerUnwritable`."""
        names = (key.issuer, key.order_id)
        first = tuple(
            f"{miss.resolver} {miss.name} {' '.join(miss.qtypes)}" for miss in evidence.misses[:RECORDED]
        )
        facts: list[PlainFact] = [Probed(*names, evidence.asked, evidence.missed, first)]
        if is_verified:
            servers = tuple(dict.fromkeys(row.resolver for row in evidence.rows))
            facts.append(Verified(*names, servers))
        if not await self._publisher.note(facts, DAEMON):
            raise LedgerUnwritable("the result of a probe could not be recorded: it is tried again")


def _in_effect(state: State, config: Config) -> Iterator[InEffect]:
    issuers = {zone.issuer for zone in config.zones if not zone.is_shadow}
    for issuer, sha256 in reversed(state.known.sequence):
        own = state.by_issuer[issuer]
        now = own.states[sha256]
        if issuer in issuers and now.action in _ACTIONS and now.state in _STATES:
            order = own.orders.lives[sha256].order
            if own.orders.last_stage(order) != "verified":
                continue
            key = Key(issuer, order.order_id, sha256)
            yield InEffect(key, now.entries, order.verified_at is not None, now.in_force)


def _references(config: Config) -> list[Server]:
    """The upstreams. They answer no plain query if they expect the PROXY protocol."""
    if config.upstream.client_identity == "proxy":
        return []
    return [Server(one.address) for one in config.upstream.servers]
