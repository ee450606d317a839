"""Where the daemon is asked: listen addresses and metrics, at startup and when a reload changes them.

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

BACKLOG = 64  # connections of Prometheus that wait to be accepted


def bind_engine(config: Config, inherited: Inherited) -> Engine:
    """The engine, with all its sockets: those of the previous process, or new ones. Raises `Refused`."""
    try:
        settings = engine_settings(config)
        return Engine(_addresses(config), worker_count(config), settings, inherited.descriptors)
    except OSError as err:
        raise Refused([_not_bound(err)]) from err
    finally:
        inherited.close()


@dataclass(frozen=True, slots=True)
class Bound:
    """The sockets of a new configuration, bound and not yet served."""

    config: Config  # with the old value of each option whose new one cannot be used
    listening: Listening | None  # None: as it was
    metrics: "Metrics | None"  # None: as it was
    problems: tuple[Problem, ...]

    def close(self) -> None:
        """Gives up what was bound: nothing of it will be served."""
        if self.metrics is not None:
            self.metrics.close()


@dataclass(frozen=True, slots=True)
class Metrics:
    """The socket that Prometheus asks, if there is one."""

    sock: socket.socket | None = None

    @classmethod
    def bind(cls, endpoint: Endpoint | None) -> "Metrics":
        """Raises `Refused`."""
        return cls() if endpoint is None else cls(_bind_metrics(endpoint))

    @property
    def endpoint(self) -> str | None:
        """Where it listens; port 0 has become a real one."""
        return None if self.sock is None else str(Endpoint.of(self.sock.getsockname()))

    def close(self) -> None:
        """Takes no more connections."""
        if self.sock is not None:
            self.sock.close()


def bind(wanted: Config, now: Config, engine: Engine, metrics_endpoint: str | None) -> Bound:
    """Binds what is new in `wanted`. `metrics_endpoint` is where Prometheus is answered now."""
    problems: list[Problem] = []
    kept: dict[str, Any] = {}
    listening: Listening | None = None
    metrics: Metrics | None = None
    if wanted.listen != now.listen:
        try:
            listening = engine.listen(_addresses(wanted))
        except OSError as err:
            problems.append(_not_bound(err))
            kept["listen"] = now.listen
    # A port that was drawn, and is configured now, is served already.
    if wanted.metrics != now.metrics and (wanted.metrics is None or str(wanted.metrics) != metrics_endpoint):
        try:
            metrics = Metrics.bind(wanted.metrics)
        except Refused as err:
            problems.extend(err.problems)
            kept["metrics"] = now.metrics
    addresses = {server.address for config in (wanted, now) for server in config.upstream.servers}
    if len(addresses) > MAX_UPSTREAMS:
        reason = f"more than {MAX_UPSTREAMS} upstreams, old and new together: change them in two reloads"
        problems.append(Problem(str(wanted.path), None, "upstream.servers", reason))
        kept["upstream"] = now.upstream
    return Bound(wanted.model_copy(update=kept), listening, metrics, tuple(problems))


def _addresses(config: Config) -> list[tuple[Any, int]]:
    return [(endpoint.host, endpoint.port) for endpoint in config.listen]


def _not_bound(err: OSError) -> Problem:
    return Problem(str(err.filename or "listen"), None, "", binding_advice(err, "listen"))


def _bind_metrics(endpoint: Endpoint) -> socket.socket:
    """Listens for Prometheus. Raises `Refused`."""
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
