"""The interface of the daemon that the HTTP applications use: the control API and the metrics."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from dnsblock.actions import Actions
from dnsblock.checkpoints import Checkpoints
from dnsblock.config import Config
from dnsblock.counting import QueryCounting
from dnsblock.exports import Exports
from dnsblock.http.connections import Connections
from dnsblock.http.series import Series
from dnsblock.http.traffic import Traffic
from dnsblock.landing.process import Landing
from dnsblock.lists.refresh import Refresher
from dnsblock.lists.store import Store
from dnsblock.orders.state import State
from dnsblock.orders.statement import Statements
from dnsblock.policy import Counts
from dnsblock.policy.explain import Address, Explanation
from dnsblock.policy.impact import ImpactRuns
from dnsblock.policy.past import NameEvent, Past
from dnsblock.principal import Principal
from dnsblock.publishing import Publisher
from dnsblock.verification import Verification
from dnsblock.webhooks.webhooks import Webhooks


class ApiCounts(Protocol):
    """The counts of the issuers' API; implemented by `dnsblock.http.issuers.Gate`."""

    @property
    def responses(self) -> Mapping[int, int]:
        """Responses by status."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused requests and documents by code."""

    @property
    def open_streams(self) -> int:
        """Open streams of events."""


class ConsoleCounts(Protocol):
    """The counts of the console; implemented by `dnsblock.web.console.gate.ConsoleGate`."""

    @property
    def refused(self) -> Mapping[str, int]:
        """Refused requests by code."""

    @property
    def open_sessions(self) -> int:
        """Sessions of people who signed in with a token."""


class Control(Protocol):
    """A running daemon, for a principal; implemented by `dnsblock.daemon.Daemon`."""

    @property
    def actions(self) -> Actions:
        """The changes."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    def view(self, by: Principal) -> "View":
        """The readable state."""


class View(Protocol):
    """The readable state of a running daemon; implemented by `dnsblock.daemon.Daemon`."""

    @property
    def publisher(self) -> Publisher:
        """The enforced policy."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def state(self) -> State:
        """The state of all orders."""

    @property
    def checkpoints(self) -> Checkpoints:
        """The signed checkpoints of the ledger."""

    @property
    def exports(self) -> Exports:
        """The files that are kept current for other software."""

    @property
    def landing(self) -> Landing:
        """The landing page."""

    @property
    def webhooks(self) -> Webhooks:
        """The servers of issuers that get events."""

    @property
    def counting(self) -> QueryCounting:
        """The counts of queried names."""

    @property
    def statements(self) -> Statements:
        """The status statements of the issuers."""

    @property
    def store(self) -> Store:
        """The state folder of lists."""

    @property
    def refresher(self) -> Refresher:
        """Fetches the lists of feeds."""

    @property
    def impact_runs(self) -> ImpactRuns:
        """Impact runs."""

    @property
    def traffic(self) -> Traffic:
        """The statistics of the last minute."""

    @property
    def http(self) -> Mapping[str, Connections]:
        """The connections of each HTTP listener, by its name."""

    @property
    def gate(self) -> ApiCounts:
        """The counts of the issuers' API."""

    @property
    def console(self) -> ConsoleCounts:
        """The counts of the console."""

    @property
    def series(self) -> Series:
        """The figures of the last hours."""

    @property
    def started_at(self) -> datetime:
        """When this process started."""

    @property
    def listening(self) -> list[str]:
        """The listen addresses, with the actual ports instead of 0."""

    def http_endpoints(self) -> Mapping[str, str | None]:
        """The addresses of the listeners `metrics`, `api` and `console`, by option."""

    @property
    def upstreams_down(self) -> list[str]:
        """Upstreams that are marked down."""

    @property
    def workers(self) -> int:
        """The number of worker threads."""

    @property
    def verification(self) -> Verification:
        """Scheduled probes, and the orders that they have verified."""

    def counters(self) -> Counts:
        """The counters of the worker threads."""

    def explain(self, target: str | Address, client: Address | None = None) -> Explanation:
        """Explains why a canonical name or an address is or is not blocked, for a client."""

    def scheduled(self, name: str) -> list[NameEvent]:
        """The future events of a canonical name according to the known orders."""

    def past(self) -> AbstractContextManager[Past]:
        """The history. Raises `Refused`."""
