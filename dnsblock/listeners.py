"""Binds the listen addresses and the metrics address, at startup and after a reload.

New sockets are bound before old ones are closed. If an address cannot be bound, its option keeps its old
value; the rest of the configuration is not affected.
"""

import socket
from dataclasses import dataclass
from typing import Any

from dnsblock._engine import Engine, Listening
from dnsblock.config import Config
from dnsblock.errors import Problem, Refused, binding_advice
from dnsblock.handover import Inherited
from dnsblock.policy.engine_settings import MAX_UPSTREAMS, engine_settings, worker_count
from dnsblock.values import Endpoint

BACKLOG = 64  # connections that may wait to be accepted


def bind_engine(config: Config, inherited: Inherited) -> Engine:
    """The engine with all its sockets: inherited or new ones. Raises `Refused`."""
    try:
        settings = engine_settings(config)
        return Engine(_addresses(config), worker_count(config), settings, inherited.descriptors)
    except OSError as err:
        raise Refused([_not_bound(err)]) from err
    finally:
        inherited.close()


@dataclass(frozen=True, slots=True)
class Bound:
    """The sockets of a new configuration: bound, not in use yet."""

    config: Config  # options with unusable new values keep the old ones
    listening: Listening | None  # None: unchanged
    metrics: "Metrics | None"  # None: unchanged
    problems: tuple[Problem, ...]

    def close(self) -> None:
        """Closes sockets that will not be used."""
        if self.metrics is not None:
            self.metrics.close()


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics socket, if there is one."""

    sock: socket.socket | None = None

    @classmethod
    def bind(cls, endpoint: Endpoint | None) -> "Metrics":
        """Raises `Refused`."""
        return cls() if endpoint is None else cls(_bind_metrics(endpoint))

    @property
    def endpoint(self) -> str | None:
        """The address, with the real port instead of 0."""
        return None if self.sock is None else str(Endpoint.of(self.sock.getsockname()))

    def close(self) -> None:
        """Stops listening."""
        if self.sock is not None:
            self.sock.close()


def bind(wanted: Config, now: Config, engine: Engine, metrics_endpoint: str | None) -> Bound:
    """Binds new addresses of `wanted`. `metrics_endpoint` is the current metrics address."""
    problems: list[Problem] = []
    unchanged: dict[str, Any] = {}
    listening: Listening | None = None
    metrics: Metrics | None = None
    if wanted.listen != now.listen:
        try:
            listening = engine.listen(_addresses(wanted))
        except OSError as err:
            problems.append(_not_bound(err))
            unchanged["listen"] = now.listen
    # The configured port may be one that the kernel chose before.
    if wanted.metrics != now.metrics and (wanted.metrics is None or str(wanted.metrics) != metrics_endpoint):
        try:
            metrics = Metrics.bind(wanted.metrics)
        except Refused as err:
            problems.extend(err.problems)
            unchanged["metrics"] = now.metrics
    addresses = {server.address for config in (wanted, now) for server in config.upstream.servers}
    if len(addresses) > MAX_UPSTREAMS:
        reason = f"more than {MAX_UPSTREAMS} upstreams, old and new together: change them in two reloads"
        problems.append(Problem(str(wanted.path), None, "upstream.servers", reason))
        unchanged["upstream"] = now.upstream
    return Bound(wanted.model_copy(update=unchanged), listening, metrics, tuple(problems))


def _addresses(config: Config) -> list[tuple[Any, int]]:
    return [(endpoint.host, endpoint.port) for endpoint in config.listen]


def _not_bound(err: OSError) -> Problem:
    return Problem(str(err.filename or "listen"), None, "", binding_advice(err, "listen"))


def _bind_metrics(endpoint: Endpoint) -> socket.socket:
    """Listens on the metrics address. Raises `Refused`."""
    family = socket.AF_INET6 if endpoint.host.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(endpoint.host), endpoint.port))
        sock.listen(BACKLOG)
    except OSError as err:
        sock.close()
        reason = f"{binding_advice(err, 'metrics')} (`null` for none)"
        raise Refused([Problem(str(endpoint), None, "", reason)]) from err
    return sock
