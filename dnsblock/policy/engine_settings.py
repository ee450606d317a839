"""Engine settings besides the snapshot: ACL, rate limits, locally served names, upstreams, workers."""

import os
import re
import stat
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from dnsblock import document
from dnsblock._engine import (
    AccessControl,
    CacheOptions,
    ClientIdentity,
    Dnstap,
    Forwarding,
    HealthCheck,
    LocalZones,
    RateLimits,
    Rules,
    Settings,
    Suffixes,
    TcpLimits,
    TransferredZone,
    Upstream,
)
from dnsblock.config import HEALTH_CHECK_TYPES, Config, Resinfo, UpstreamOptions
from dnsblock.errors import Problem, Refused
from dnsblock.suffixes import public_suffixes

MAX_UPSTREAMS = 64  # old and new ones together during a reload
MAX_SECRETS = 8
MAX_SECRETS_BYTES = 4096
EXTENDED_ERRORS = "0,3-4,13,15-19,22"  # the INFO-CODEs that the engine sends (RFC 8914 section 4)


def engine_rules(config: Config, secrets: Sequence[bytes], transferred: Sequence[TransferredZone]) -> Rules:
    """The rules for this configuration, with these cookie secrets and zones that accept NOTIFY."""
    limits, local, cache = config.limits, config.local, config.cache
    structured = config.signals.structured_errors
    return Rules(
        access_control=AccessControl(
            allow=prefixes_of(config.access_control.allow),
            drops_others=config.access_control.drops_denied,
        ),
        rate_limits=RateLimits(
            queries_per_second=limits.queries_per_second,
            errors_per_second=limits.errors_per_second,
            slip=limits.slip,
            amplification=limits.amplification,
            exempt=prefixes_of(limits.exempt),
        ),
        cache=CacheOptions(
            cache_bytes=cache.size_mb << 20,
            max_ttl=cache.max_ttl,
            max_negative_ttl=cache.max_negative_ttl,
            max_stale=cache.max_stale,
            prefetch=cache.prefetch,
        ),
        local_zones=LocalZones(
            special_names=local.special_names,
            private_reverse=local.private_reverse,
            canary=local.canary,
            resinfo=None if local.resinfo is None else resinfo_rdata(local.resinfo),
            snapshot_clients=prefixes_of(local.snapshot_clients),
        ),
        cookie_secrets=secrets,
        max_payload=config.udp.max_payload,
        idle_timeout_ms=config.tcp.idle_timeout_ms,
        structured_option=None if structured is None else structured.option,
        soa=(config.soa.mname, config.soa.rname),
        suffixes=_suffixes(),
        transferred=transferred,
        dnstap=_dnstap(config),
    )


def _dnstap(config: Config) -> Dnstap | None:
    dnstap = config.dnstap
    if dnstap is None:
        return None
    return Dnstap(
        socket=dnstap.socket,
        tcp=None if dnstap.tcp is None else (dnstap.tcp.host, dnstap.tcp.port),
        messages=dnstap.messages,
        identity=dnstap.identity,
        version=dnstap.version,
        client_prefix=(dnstap.client_prefix.ipv4, dnstap.client_prefix.ipv6),
    )


def prefixes_of(
    networks: Sequence[IPv4Network | IPv6Network],
) -> list[tuple[IPv4Address | IPv6Address, int]]:
    """Networks for the engine: each one's first address and its length."""
    return [(network.network_address, network.prefixlen) for network in networks]


def nat64_prefixes(config: Config) -> list[tuple[IPv6Address, int]]:
    """The NAT64 prefixes other than the well-known one."""
    return [(prefix.network_address, prefix.prefixlen) for prefix in config.nat64_prefixes]


@lru_cache(maxsize=1)
def _suffixes() -> Suffixes:
    return Suffixes(*public_suffixes())


# ------- Receiving and forwarding queries


def worker_count(config: Config) -> int:
    """The number of worker threads: as configured, or one per processor available to this process."""
    return config.workers or len(os.sched_getaffinity(0))


def engine_settings(config: Config) -> Settings:
    """Settings of upstreams and of TCP clients."""
    upstream, tcp = config.upstream, config.tcp
    forwarding = Forwarding(
        [
            Upstream(server.address.host, server.address.port, weight=server.weight, order=server.order)
            for server in upstream.servers
        ],
        selection=upstream.selection,
        tries=upstream.tries,
        timeout_ms=upstream.timeout_ms,
        max_outstanding=upstream.max_outstanding,
        health_check=_health_check(upstream),
        client_identity=_client_identity(upstream),
        max_payload=config.udp.max_payload,
    )
    limits = TcpLimits(
        max_connections=tcp.max_connections,
        max_connections_per_client=tcp.max_connections_per_client,
        max_connections_per_network=tcp.max_connections_per_network,
        max_pipelined=tcp.max_pipelined,
        idle_timeout_ms=tcp.idle_timeout_ms,
        read_timeout_ms=tcp.read_timeout_ms,
    )
    return Settings(forwarding, limits)


def _health_check(upstream: UpstreamOptions) -> HealthCheck | None:
    check = upstream.health_check
    if check is None:
        return None
    return HealthCheck(
        qname=check.name,
        qtype=HEALTH_CHECK_TYPES[check.type],
        interval_ms=check.interval_ms,
        timeout_ms=check.timeout_ms,
        failures=check.failures,
        successes=check.successes,
    )


def _client_identity(upstream: UpstreamOptions) -> ClientIdentity | None:
    match upstream.client_identity:
        case "none":
            return None
        case "proxy":
            return ClientIdentity.proxy()
        case "ecs":
            ecs = upstream.ecs
            return ClientIdentity.ecs(
                ipv4_prefix=ecs.ipv4, ipv6_prefix=ecs.ipv6, sends_private=ecs.sends_private
            )


# ------- Files and resource records


@lru_cache(maxsize=1)
def _own_secret() -> bytes:
    """The cookie secret if none is configured. After a restart, returning clients get a new cookie."""
    return os.urandom(16)


def read_secrets(path: Path | None) -> list[bytes]:
    """Reads cookie secrets: 32 hexadecimal digits per line; the first one signs (RFC 9018 section 5).

    No message ever contains a secret or a part of one.
    """
    if path is None:
        return [_own_secret()]
    data = document.read_bytes(path, max_bytes=MAX_SECRETS_BYTES)
    problems: list[Problem] = []
    secrets: list[bytes] = []
    try:
        mode = path.stat().st_mode
    except OSError as err:  # it became unreadable after the configuration was checked
        raise Refused([Problem(str(path), None, "", f"cannot be read: {err.strerror}")]) from err
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        problems.append(
            Problem(str(path), None, "", "others may read it: chmod o-rwx it, and make new secrets")
        )
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.partition(b"#")[0].strip()
        if not text:
            continue
        if re.fullmatch(rb"[0-9A-Fa-f]{32}", text):
            secrets.append(bytes.fromhex(text.decode()))
        else:
            problems.append(
                Problem(str(path), number, "", "a secret is 32 hexadecimal digits: openssl rand -hex 16")
            )
    if not problems and not 1 <= len(secrets) <= MAX_SECRETS:
        reason = f"holds {len(secrets)} secrets: 1 to {MAX_SECRETS}, the first signs and all verify"
        problems.append(Problem(str(path), None, "", reason))
    if problems:
        raise Refused(problems)
    return secrets


def resinfo_rdata(resinfo: Resinfo) -> bytes:
    """RDATA of a RESINFO record: character-strings, as of TXT (RFC 9606 sections 4 and 5)."""
    strings = ["qnamemin"] if resinfo.qnamemin else []
    strings.append(f"exterr={EXTENDED_ERRORS}")
    if resinfo.infourl is not None:
        strings.append(f"infourl={resinfo.infourl}")
    return b"".join(bytes([len(text)]) + text.encode("ascii") for text in strings)
