"""What the HTTP applications use of the daemon: the control API, and the metrics."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from dnsblock.config import Config
from dnsblock.http.connections import Connections
from dnsblock.http.traffic import Traffic
from dnsblock.lists.refresh import Refresher
from dnsblock.lists.store import Store
from dnsblock.policy import Counts
from dnsblock.policy.explain import Explanation
from dnsblock.policy.past import NameEvent, Past
from dnsblock.policy.trial import Trials
from dnsblock.publishing import Publisher


class Control(Protocol):
    """A running daemon, as `dnsblock.daemon.Daemon` is one."""

    @property
    def publisher(self) -> Publisher:
        """What is enforced, and how to change it."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def store(self) -> Store:
        """The state folder of lists."""

    @property
    def refresher(self) -> Refresher:
        """Fetches the lists of feeds."""

    @property
    def trials(self) -> Trials:
        """Impact runs."""

    @property
    def traffic(self) -> Traffic:
        """The last minute."""

    @property
    def http(self) -> Mapping[str, Connections]:
        """The connections of each HTTP listener, by its name."""

    @property
    def started_at(self) -> datetime:
        """When this process started."""

    @property
    def listening(self) -> list[str]:
        """The listen addresses; ports that were 0 have become real ones."""

    @property
    def metrics_endpoint(self) -> str | None:
        """Where Prometheus is answered."""

    @property
    def upstreams_down(self) -> list[str]:
        """Upstreams that are marked down."""

    @property
    def workers(self) -> int:
        """Worker threads."""

    def counters(self) -> Counts:
        """What the worker threads have counted."""

    def explain(self, name: str) -> Explanation:
        """Why a canonical name is blocked, or not."""

    def explain_address(self, address: IPv4Address | IPv6Address) -> Explanation:
        """Why responses may not contain this address, or may."""

    def scheduled(self, name: str) -> list[NameEvent]:
        """What the orders known today will do to a canonical name."""

    def past(self) -> AbstractContextManager[Past]:
        """The history. Raises `Refused`."""

    def purge(self, name: str | None, below: bool) -> int:
        """Purges a canonical name from the cache, with `below` the names below it too; None: everything."""
