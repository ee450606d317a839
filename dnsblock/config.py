"""The configuration: all options, with their types, limits and defaults, as one frozen `Config`.

`config/dnsblock.yaml` is the reference of all options; a test ensures that it equals the defaults here.
Switches and words such as `auto` are parsed here, so that no other module compares strings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from dnsblock.config_dnstap import Dnstap
from dnsblock.config_exports import ExportFile
from dnsblock.config_issuers import Issuer
from dnsblock.config_landing import LandingOptions
from dnsblock.config_ledger import LedgerOptions
from dnsblock.config_webhooks import MAX_WEBHOOKS, Webhook
from dnsblock.config_zones import Zone
from dnsblock.control import DEFAULT_SOCKET
from dnsblock.values import (
    AnsweredHere,
    AutoNumber,
    ContactUri,
    Denied,
    DnsName,
    FilePath,
    FixedNameLimit,
    FleetPlace,
    HealthCheckName,
    Identifier,
    IPv4,
    IPv6,
    Language,
    Listen,
    Milliseconds,
    Nat64Prefix,
    Networks,
    NotEmpty,
    Number,
    Options,
    ProbeServer,
    Servers,
    SocketPath,
    Switch,
    TargetName,
    TimeZone,
    Upstream,
    WebAddress,
    as_written,
    file_of,
)

MAX_ZONES = 64


# ------- The options, in the order of config/dnsblock.yaml -------


class AccessControl(Options):
    """The access control list: the networks whose queries are answered."""

    allow: Networks = as_written(
        [
            *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
            *("169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10"),
        ]
    )
    denied: Literal["refuse", "drop"] = "refuse"  # refuse: REFUSED with EDE 18 (RFC 8914 4.19)

    @property
    def drops_denied(self) -> bool:
        """Whether queries of other clients get no response."""
        return self.denied == "drop"


class Limits(Options):
    """Rate limits for clients whose source address may be spoofed: UDP without a valid server cookie.

    A client is an IPv4 address or an IPv6 /64. Its network (/24 or /48) may use as much as 32 clients.
    """

    queries_per_second: Annotated[int, Number, Field(ge=0, le=100_000)] = 1000  # 0: no limit
    errors_per_second: Annotated[int, Number, Field(ge=0, le=100_000)] = 20  # 0: no limit
    slip: Annotated[int, Number, Field(ge=0, le=1000)] = 2  # every Nth over the limit is answered; 0: none
    amplification: Annotated[int, Number, Field(ge=0, le=1000)] = 10  # per byte of the query; 0: no limit
    exempt: Networks = as_written(["127.0.0.0/8", "::1/128"])

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.amplification in (1, 2):
            raise ValueError("amplification must leave room for a small answer: 3 or more, or 0 for no limit")
        return self


class Cookies(Options):
    """DNS cookies (RFC 7873)."""

    secrets: FilePath | None = None  # null: a random secret of this process


class Server(Options):
    """An upstream resolver: only its address, or a mapping."""

    address: Upstream
    weight: Annotated[int, Number, Field(ge=1, le=100)] = 1  # its share among those of the same order
    order: Annotated[int, Number, Field(ge=0, le=63)] = 0  # the lowest with an upstream that is up is used

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    def __str__(self) -> str:
        return str(self.address)


HEALTH_CHECK_TYPES = {"A": 1, "NS": 2, "SOA": 6, "TXT": 16, "AAAA": 28}  # RFC 1035 section 3.2.2, RFC 3596


class HealthCheck(Options):
    """The health-check query that is sent to each upstream."""

    name: HealthCheckName = "."
    type: Literal["A", "AAAA", "NS", "SOA", "TXT"] = "NS"
    interval_ms: Milliseconds = 1000  # doubled repeatedly while it is down
    timeout_ms: Milliseconds = 500
    failures: Annotated[int, Number, Field(ge=1, le=100)] = 3  # consecutive failures until it is down
    successes: Annotated[int, Number, Field(ge=1, le=100)] = 2  # consecutive successes until it is up again


class Ecs(Options):
    """The part of a client's address that EDNS Client Subnet sends (RFC 7871 section 11.1)."""

    ipv4: Annotated[int, Number, Field(ge=1, le=32)] = 24
    ipv6: Annotated[int, Number, Field(ge=1, le=128)] = 56
    private: Literal["hide", "send"] = "hide"  # addresses that are not global

    @property
    def sends_private(self) -> bool:
        """Whether addresses that are not global are sent."""
        return self.private == "send"


class UpstreamOptions(Options):
    """The upstream resolvers for names that are not blocked."""

    servers: Annotated[tuple[Server, ...], Field(max_length=64), NotEmpty, Servers] = as_written("system")
    selection: Literal["first", "least_outstanding", "weighted", "hashed"] = "first"
    health_check: HealthCheck | None = as_written({})  # null: no health checks
    timeout_ms: Milliseconds = 1500
    tries: Annotated[int, Number, Field(ge=1, le=4)] = 3  # per query, over all upstreams
    max_outstanding: Annotated[int, Number, Field(ge=1, le=32_768)] = 16_384  # per worker thread
    client_identity: Literal["none", "proxy", "ecs"] = "none"
    ecs: Ecs = as_written({})


class CacheOptions(Options):
    """The cache of upstream responses. Times in seconds."""

    size_mb: Annotated[int, Number, Field(ge=0, le=65_536)] = 64  # MiB of memory; 0: no cache
    max_ttl: Annotated[int, Number, Field(ge=1, le=604_800)] = 86_400  # RFC 8767 4: a week at most
    max_negative_ttl: Annotated[int, Number, Field(ge=1, le=86_400)] = 3600  # RFC 2308 5: one to three hours
    max_stale: Annotated[int, Number, Field(ge=0, le=604_800)] = 0  # past the TTL (RFC 8767); 0: never
    prefetch: Switch = as_written("true")


class Udp(Options):
    """UDP to clients."""

    max_payload: Annotated[int, Number, Field(ge=512, le=4096)] = 1232  # bytes; RFC 9715


class Tcp(Options):
    """TCP to clients (RFC 7766)."""

    max_connections: Annotated[int, Number, Field(ge=1, le=100_000)] = 1024  # per listen address
    max_connections_per_client: Annotated[int, Number, Field(ge=1, le=100_000)] = 64
    # Per IPv4 /24 or IPv6 /48 and listen address; auto (None): a quarter of max_connections
    max_connections_per_network: AutoNumber = as_written("auto")
    max_pipelined: Annotated[int, Number, Field(ge=1, le=10_000)] = 100  # unanswered queries per connection
    idle_timeout_ms: Milliseconds = 10_000
    read_timeout_ms: Milliseconds = 5000  # to receive the rest of a message

    @model_validator(mode="after")
    def _has_a_share_for_networks(self) -> Self:
        share = self.max_connections_per_network
        if share is not None and not 1 <= share <= 100_000:
            raise ValueError("max_connections_per_network must be from 1 to 100000, or auto")
        return self


class Soa(Options):
    """The two names in the SOA of locally generated negative answers (RFC 2308 section 3)."""

    mname: DnsName = "localhost"
    rname: DnsName = "nobody.invalid"


class Resinfo(Options):
    """The content of the RESINFO record at resolver.arpa (RFC 9606)."""

    infourl: WebAddress | None = None
    qnamemin: Switch = as_written("false")  # whether the upstreams minimise QNAMEs (RFC 9156)


class Local(Options):
    """Special-use names and locally served zones."""

    special_names: AnsweredHere = as_written("answer")  # RFC 6761, 6762, 7686
    private_reverse: AnsweredHere = as_written("answer")  # RFC 6303, 7793
    canary: Denied = as_written("forward")  # of use-application-dns.net
    resinfo: Resinfo | None = None
    snapshot_clients: Networks = ()  # may ask for serial.dnsblock and digest.dnsblock (TXT of class CH)


class StructuredErrors(Options):
    """The JSON of draft-ietf-dnsop-structured-dns-error, for clients that request it by an EDNS option."""

    option: Annotated[int, Number, Field(ge=1, le=65_535)]
    contacts: Annotated[tuple[ContactUri, ...], Field(max_length=4), NotEmpty]
    organization: Annotated[str, Field(min_length=1, max_length=100)]
    language: Language

    @model_validator(mode="after")
    def _is_free(self) -> Self:
        if self.option in (3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15):
            raise ValueError("option is the code of another EDNS option")
        return self


class Signals(Options):
    """Additional information for clients about a block."""

    structured_errors: StructuredErrors | None = None


Action = Literal["sinkhole", "nxdomain", "nodata", "refused", "drop", "truncate", "cname", "passthru"]


class Answer(Options):
    """An answer profile: the response to a blocked query."""

    action: Action
    ipv4: Annotated[tuple[IPv4, ...], Field(max_length=16)] = ()
    ipv6: Annotated[tuple[IPv6, ...], Field(max_length=16)] = ()
    target: TargetName | None = None  # of a cname; `*.NAME`: the QNAME is prepended
    ttl: Annotated[int, Number, Field(ge=0, le=86_400)] = 30  # seconds; also of the SOA in a negative answer
    # RFC 8914; auto: 16 for orders, 15 for a list
    extended_error: Literal["auto", "none", "15", "16", "17"] = "auto"

    @model_validator(mode="after")
    def _fits_its_action(self) -> Self:
        if self.action == "sinkhole" and not (self.ipv4 or self.ipv6):
            raise ValueError("a sinkhole needs at least one address: set ipv4, ipv6 or both")
        if self.action != "sinkhole" and (self.ipv4 or self.ipv6):
            raise ValueError(f"ipv4 and ipv6 belong to action sinkhole, not {self.action}")
        if (self.action == "cname") != (self.target is not None):
            raise ValueError("target belongs to action cname, and a cname needs one")
        return self

    @property
    def is_passthru(self) -> bool:
        """Whether it lets names through instead of blocking them."""
        return self.action == "passthru"

    def extended_error_of(self, zone: "Zone") -> int | None:
        """The INFO-CODE in a zone, if any.

        RFC 8914 section 4.17: Censored (16) for blocks imposed from outside; 4.16: Blocked (15) for the
        operator's own policy.
        """
        if self.extended_error == "auto":
            return 16 if zone.kind == "orders" else 15
        return None if self.extended_error == "none" else int(self.extended_error)


# The built-in profiles, named after their action.
BUILT_IN: dict[str, Answer] = {
    action: Answer.model_validate({"action": action})
    for action in ("passthru", "nxdomain", "nodata", "refused", "drop", "truncate")
}


class ApiOptions(Options):
    """The issuers' API over HTTPS."""

    listen: Listen
    certificate: FilePath  # PEM: the server's certificate, then those between it and the root
    key: FilePath  # PEM: the private key of `certificate`, without a passphrase
    tokens: FilePath  # the clients: names, roles and issuers, with hashed tokens or names of certificates
    clients: FilePath | None = None  # PEM: the authorities of client certificates; null: tokens only


class ConsoleOptions(Options):
    """The console: web pages over HTTPS, on its own listener or on that of the API."""

    listen: Listen | None = None  # null: on the listener of `api`, below /console/
    # Its own files, as in `api`; if all of them are null, those of `api`.
    certificate: FilePath | None = None
    key: FilePath | None = None
    tokens: FilePath | None = None
    clients: FilePath | None = None

    @property
    def has_own_files(self) -> bool:
        """Whether it has its own certificate and clients."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _has_all_files_or_none(self) -> Self:
        needed = [self.certificate, self.key, self.tokens]
        if any(needed) != all(needed) or (self.clients is not None and not all(needed)):
            raise ValueError(
                "set all of certificate, key and tokens, or leave all files out to use those of `api`"
            )
        if all(needed) and self.listen is None:
            raise ValueError("its own files need its own address: set listen")
        return self


class Http(Options):
    """The HTTP listeners: metrics, the control socket, the issuers' API and the console."""

    max_connections: Annotated[int, Number, Field(ge=8, le=10_000)] = 256  # per listener


class BulkGuard(Options):
    """When an order has unusually many entries. Both limits must be exceeded."""

    entries: FixedNameLimit = as_written("1000")  # off: no order is held for its size
    factor: Annotated[int, Number, Field(ge=1, le=10_000)] = 10  # times the median of the issuer's orders


class OrderGuards(Options):
    """Options of the guards for orders (orders/guards.py)."""

    popular: FilePath | None = None  # a list of popular names; null: the one in the package
    bulk: BulkGuard = as_written({})


class Probes(Options):
    """Scheduled probes: the daemon queries resolvers to verify that orders are enforced."""

    servers: Annotated[tuple[ProbeServer, ...], Field(max_length=64), NotEmpty] = as_written(["own"])
    every_s: Annotated[int, Number, Field(ge=10, le=31_536_000)] = 3600  # verified orders and `open`
    open: Annotated[tuple[DnsName, ...], Field(max_length=1000)] = ()  # names that must not be blocked


class HistoryOptions(Options):
    """How much history is kept."""

    generations: Annotated[int, Number, Field(ge=2, le=10_000)] = 30  # compiled versions per list
    snapshots: Annotated[int, Number, Field(ge=2, le=1_000_000)] = 10_000  # recorded serials


class QueryCounts(Options):
    """Counts of queried names, without clients (docs/privacy.md)."""

    memory_mb: Annotated[int, Number, Field(ge=16, le=1024)] = 48  # MiB; a quarter of it is used on disk, too
    days: Annotated[int, Number, Field(ge=1, le=366)] = 31  # then they are removed


class Log(Options):
    """The log on standard error."""

    format: Literal["auto", "human", "json"] = "auto"  # auto: human on a terminal, else JSON
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Options):
    """The whole configuration."""

    listen: Annotated[tuple[Listen, ...], Field(max_length=64), NotEmpty] = as_written(
        ["127.0.0.1:53", "[::1]:53"]
    )
    workers: Annotated[int, Number, Field(ge=0, le=1024)] = 0  # worker threads; 0: one per processor
    access_control: AccessControl = as_written({})
    limits: Limits = as_written({})
    cookies: Cookies = as_written({})
    upstream: UpstreamOptions = as_written({})
    cache: CacheOptions = as_written({})
    udp: Udp = as_written({})
    tcp: Tcp = as_written({})
    soa: Soa = as_written({})
    local: Local = as_written({})
    signals: Signals = as_written({})
    answers: Annotated[dict[Identifier, Answer], Field(max_length=1000)] = as_written({})
    orders: FilePath | None = None  # the inbox of order documents
    issuers: Annotated[tuple[Issuer, ...], Field(max_length=MAX_ZONES)] = ()  # who signs their orders
    zones: Annotated[tuple[Zone, ...], Field(max_length=MAX_ZONES)] = ()  # first match wins
    nat64_prefixes: Annotated[tuple[Nat64Prefix, ...], Field(max_length=16)] = ()  # besides 64:ff9b::/96
    protected: Annotated[
        tuple[DnsName, ...], Field(max_length=10_000)
    ] = ()  # names that no list or order may block
    guards: OrderGuards = as_written({})
    probes: Probes | None = as_written({})  # null: none
    exports: Annotated[tuple[ExportFile, ...], Field(max_length=16)] = ()  # files for other software
    history: HistoryOptions = as_written({})
    query_counts: QueryCounts | None = None  # null: queried names are not counted
    ledger: LedgerOptions = as_written({})
    state: FilePath = as_written("state")  # folder of the ledger, of compiled lists and the serial
    control: SocketPath = as_written(DEFAULT_SOCKET)
    user: Annotated[str, Field(min_length=1, max_length=32)] | None = None  # the daemon switches to it
    metrics: Listen | None = as_written("127.0.0.1:9353")
    api: ApiOptions | None = None  # for issuers; null: none
    console: ConsoleOptions | None = None  # web pages; null: none
    landing: LandingOptions | None = None  # the page for blocked names; null: none
    webhooks: Annotated[tuple[Webhook, ...], Field(max_length=MAX_WEBHOOKS)] = ()  # events for issuers
    http: Http = as_written({})
    dnstap: Dnstap | None = None  # copies of messages for a reader; null: none
    fleet: Annotated[tuple[FleetPlace, ...], Field(max_length=1000)] = ()  # instances to compare with
    stop_timeout_ms: Annotated[int, Number, Field(ge=0, le=600_000)] = 3000
    time_zone: TimeZone = as_written("Asia/Jakarta")  # how times are shown
    log: Log = as_written({})

    _path: Path = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Stores the path of the file."""
        self._path = file_of(context)

    @property
    def path(self) -> Path:
        """The file these settings were read from."""
        return self._path

    @model_validator(mode="after")
    def _console_has_files(self) -> Self:
        if self.console is not None and not self.console.has_own_files and self.api is None:
            raise ValueError("console: needs `api`, or its own listen, certificate, key and tokens")
        return self

    @property
    def https(self) -> Mapping[str, ApiOptions]:
        """The files behind `api` and `console`, by option."""
        found = {} if self.api is None else {"api": self.api}
        console = self.console
        if console is None or (self.api is None and not console.has_own_files):
            return found
        if console.has_own_files:
            own = {name: getattr(console, name) for name in ApiOptions.model_fields}
            return {**found, "console": ApiOptions.model_construct(**own)}
        return {**found, "console": found["api"]}

    @property
    def answer_names(self) -> frozenset[str]:
        """All answer profiles, built-in or configured."""
        return frozenset(BUILT_IN) | frozenset(self.answers)

    @property
    def probes_orders(self) -> bool:
        """Whether the daemon verifies by queries that orders are enforced."""
        return self.probes is not None

    def issuer(self, issuer: str) -> Issuer | None:
        """The signers of an issuer's orders; None if they are not configured."""
        return next((one for one in self.issuers if one.id == issuer), None)

    def answer(self, name: str) -> Answer:
        """The answer profile of that name. Raises `KeyError` for a name that is not in `answer_names`."""
        return self.answers[name] if name in self.answers else BUILT_IN[name]
