"""Binds the listen addresses and those of the metrics and the API, at startup and after a reload.

New sockets are bound before old ones are closed. If an address cannot be bound, its option keeps its old
value; the rest of the configuration is not affected.
"""

import socket
from collections.abc import Mapping
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
    http: "Mapping[str, HttpSocket]"  # by option; those that have changed
    landing: "LandingSockets"  # those in use, if they are unchanged
    landing_in_use: "LandingSockets"
    problems: tuple[Problem, ...]

    def close(self) -> None:
        """Closes sockets that will not be used."""
        for one in self.http.values():
            one.close()
        self.landing.close(keep=self.landing_in_use)


@dataclass(frozen=True, slots=True)
class HttpSocket:
    """The socket of an HTTP listener, if there is one."""

    sock: socket.socket | None = None

    @classmethod
    def bind(cls, config: Config, option: str) -> "HttpSocket":
        """Listens on the address of `metrics`, `api` or `console`. Raises `Refused`."""
        endpoint = _endpoint(config, option)
        return cls() if endpoint is None else cls(_bind_http(endpoint, option))

    @property
    def endpoint(self) -> str | None:
        """The address, with the real port instead of 0."""
        return None if self.sock is None else str(Endpoint.of(self.sock.getsockname()))

    def close(self) -> None:
        """Stops listening."""
        if self.sock is not None:
            self.sock.close()


class LandingSockets:
    """The sockets of the landing page, by configured address."""

    def __init__(self, sockets: Mapping[Endpoint, socket.socket]) -> None:
        self._sockets = sockets

    @classmethod
    def bind(cls, config: Config, now: "LandingSockets | None" = None) -> "LandingSockets":
        """Listens on the addresses of `landing`, but uses the sockets in `now`. Raises `Refused`."""
        had = {} if now is None else now._by_any_address()
        found: dict[Endpoint, socket.socket] = {}
        try:
            for endpoint in _landing_addresses(config):
                found[endpoint] = had.get(endpoint) or _bind_http(endpoint, "landing", only_its_family=True)
        except Refused:
            for sock in found.values():
                if sock not in had.values():
                    sock.close()
            raise
        return cls(found)

    def _by_any_address(self) -> dict[Endpoint, socket.socket]:
        """By the configured addresses, and by the actual ones where the kernel chose the port."""
        return {**{Endpoint.of(sock.getsockname()): sock for sock in self._sockets.values()}, **self._sockets}

    @property
    def endpoints(self) -> list[str]:
        """The addresses, with the real ports instead of 0."""
        return [str(Endpoint.of(sock.getsockname())) for sock in self._sockets.values()]

    @property
    def descriptors(self) -> list[int]:
        """Their descriptors."""
        return [sock.fileno() for sock in self._sockets.values()]

    def __enter__(self) -> "LandingSockets":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, keep: "LandingSockets | None" = None) -> None:
        """Stops listening, but for the sockets that others have."""
        kept = set() if keep is None else set(keep._sockets.values())
        for sock in set(self._sockets.values()) - kept:
            sock.close()


def bind(
    wanted: Config,
    now: Config,
    engine: Engine,
    http: Mapping[str, str | None],
    landing: LandingSockets,
) -> Bound:
    """Binds new addresses of `wanted`. `http` has the current addresses of the HTTP listeners, by option."""
    problems: list[Problem] = []
    unchanged: dict[str, Any] = {}
    listening: Listening | None = None
    if wanted.listen != now.listen:
        try:
            listening = engine.listen(_addresses(wanted))
        except OSError as err:
            problems.append(_not_bound(err))
            unchanged["listen"] = now.listen
    sockets: dict[str, HttpSocket] = {}
    for option, current in http.items():
        endpoint = _endpoint(wanted, option)
        # The configured port may be one that the kernel chose before.
        if endpoint == _endpoint(now, option) or (endpoint is not None and str(endpoint) == current):
            continue
        try:
            sockets[option] = HttpSocket.bind(wanted, option)
        except Refused as err:
            problems.extend(err.problems)
            unchanged[option] = getattr(now, option)
    landing_sockets = landing
    if _landing_addresses(wanted) != _landing_addresses(now):
        try:
            landing_sockets = LandingSockets.bind(wanted, landing)
        except Refused as err:
            problems.extend(err.problems)
            unchanged["landing"] = now.landing
    addresses = {server.address for config in (wanted, now) for server in config.upstream.servers}
    if len(addresses) > MAX_UPSTREAMS:
        reason = f"more than {MAX_UPSTREAMS} upstreams, old and new together: change them in two reloads"
        problems.append(Problem(str(wanted.path), None, "upstream.servers", reason))
        unchanged["upstream"] = now.upstream
    config = wanted.model_copy(update=unchanged)
    return Bound(config, listening, sockets, landing_sockets, landing, tuple(problems))


def _landing_addresses(config: Config) -> tuple[Endpoint, ...]:
    return () if config.landing is None else config.landing.listen


def _endpoint(config: Config, option: str) -> Endpoint | None:
    """The configured address of an HTTP listener."""
    if option == "metrics":
        return config.metrics
    options = config.api if option == "api" else config.console
    return None if options is None else options.listen


def _addresses(config: Config) -> list[tuple[Any, int]]:
    return [(endpoint.host, endpoint.port) for endpoint in config.listen]


def _not_bound(err: OSError) -> Problem:
    return Problem(str(err.filename or "listen"), None, "", binding_advice(err, "listen"))


def _bind_http(endpoint: Endpoint, option: str, *, only_its_family: bool = False) -> socket.socket:
    """Listens on the address of an HTTP listener. Raises `Refused`.

    `only_its_family`: `[::]` accepts no IPv4, so that `0.0.0.0` can have the same port.
    """
    family = socket.AF_INET6 if endpoint.host.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if only_its_family and family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((str(endpoint.host), endpoint.port))
        sock.listen(BACKLOG)
    except OSError as err:
        sock.close()
        reason = f"{binding_advice(err, option)} (`null` for none)"
        raise Refused([Problem(str(endpoint), None, "", reason)]) from err
    return sock
