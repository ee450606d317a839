"""Settings: the YAML file an operator edits becomes one typed, frozen `Config`, or is refused.

`config/dnsblock.yaml` is the reference of all options; a test holds it equal to the defaults here. Relative
paths are relative to the configuration file's folder. Nothing here looks at the network, lists or orders.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from dnsblock import document
from dnsblock.control import DEFAULT_SOCKET, MAX_BYTES
from dnsblock.document import Document
from dnsblock.errors import Problem, Refused
from dnsblock.values import (
    RESOLV_CONF,
    ContactUri,
    DnsName,
    Endpoint,
    FilePath,
    FormerServers,
    HealthCheckName,
    Identifier,
    IPv4,
    IPv6,
    Language,
    Listen,
    ListPlace,
    Milliseconds,
    Nat64Prefix,
    Networks,
    NotEmpty,
    Number,
    NumberOrWord,
    Percent,
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


def load(path: Path, resolv_conf: Path = RESOLV_CONF) -> "Config":
    """Reads and checks the configuration file. Raises `Refused` with all of its problems.

    `resolv_conf` is what `upstream.servers: system` reads.
    """
    config, problems = inspect(path, resolv_conf)
    if problems or config is None:
        raise Refused(problems)
    return config


def load_again(running: "Config", resolv_conf: Path = RESOLV_CONF) -> tuple["Config", tuple[Problem, ...]]:
    """What the file of settings that are in force says now, and why some of it is not taken over.

    With a problem in the file these are the running settings; with one in `resolv_conf` alone, its servers.
    """
    former = FormerServers(tuple(str(server) for server in running.upstream.servers))
    config, problems = inspect(running.path, resolv_conf, former)
    if problems or config is None:
        return running, problems
    return config, tuple(former.problems)


def inspect(
    path: Path, resolv_conf: Path = RESOLV_CONF, former: FormerServers | None = None
) -> tuple["Config | None", tuple[Problem, ...]]:
    """All problems of the configuration file, and the settings that its faultless parts make, if any.

    With problems, the settings are for looking further into what they name; nothing may run with them. With
    `former` servers, those stand in for ones that cannot be read.
    """
    path = path.absolute()
    try:
        data = document.read_bytes(path, max_bytes=MAX_BYTES)
        read = document.read(str(path), data, max_bytes=MAX_BYTES)
    except Refused as err:
        return None, err.problems
    value: Any = {} if read.value is None else read.value  # a file of comments: every default
    context = {"file": path, "resolv_conf": resolv_conf, "former": former}
    try:
        config = Config.model_validate(value, context=context)
    except ValidationError as err:
        return _salvage(value, err, context), tuple(_all_problems(read, value, context, err))
    return config, tuple(_cross_check(config, read, broken=frozenset()))


def _salvage(value: Any, errors: ValidationError, context: Any) -> "Config | None":
    """What is left without the broken options; of a list, such as zones, without its broken items."""
    if not isinstance(value, dict):
        return None
    broken = {error["loc"][:2] for error in errors.errors()}

    def right(key: str, part: Any) -> Any:
        return [item for index, item in enumerate(part) if (key, index) not in broken]

    is_broken = {loc[0] for loc in broken if loc and not (len(loc) > 1 and isinstance(loc[1], int))}
    kept = {key: part for key, part in value.items() if key not in is_broken}
    kept = {key: right(key, part) if isinstance(part, list) else part for key, part in kept.items()}
    try:
        return Config.model_validate(kept, context=context)
    except ValidationError:
        return None


def _all_problems(read: Document, value: Any, context: Any, errors: ValidationError) -> Iterator[Problem]:
    """The errors, and what is wrong between those options that are right by themselves."""
    yield from read.explain(errors)
    broken = frozenset(str(error["loc"][0]) for error in errors.errors() if error["loc"])
    try:
        right = {key: part for key, part in value.items() if key not in broken}
        config = Config.model_validate(right, context=context)
    except (ValidationError, AttributeError):  # not even a mapping, or no resolvers to default to
        return
    yield from _cross_check(config, read, broken)


# ------- The options, in the order of config/dnsblock.yaml -------


class _Options(BaseModel):
    """Models, not dataclasses: each option is written once, with its type, its bounds and its default."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True
    )


class AccessControl(_Options):
    """The access control list: the networks whose queries are answered."""

    allow: Networks = as_written(
        [
            *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
            *("169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10"),
        ]
    )
    denied: Literal["refuse", "drop"] = "refuse"  # refuse: REFUSED with EDE 18 (RFC 8914 4.19)


class Limits(_Options):
    """How much of us a client may have that may not be who it says: over UDP, without a valid cookie.

    A client is an IPv4 address or an IPv6 /64; its network (/24, /48) may have as much as 32 of them.
    """

    queries_per_second: Annotated[int, Number, Field(ge=0, le=100_000)] = 1000  # 0: no limit
    errors_per_second: Annotated[int, Number, Field(ge=0, le=100_000)] = 20  # 0: no limit
    slip: Annotated[int, Number, Field(ge=0, le=1000)] = 2  # every how-manieth above is answered; 0: none
    amplification: Annotated[int, Number, Field(ge=0, le=1000)] = 10  # octets for each asked; 0: no limit
    exempt: Networks = as_written(["127.0.0.0/8", "::1/128"])

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.amplification in (1, 2):
            raise ValueError("amplification must leave room for a small answer: 3 or more, or 0 for no limit")
        return self


class Cookies(_Options):
    """DNS cookies (RFC 7873)."""

    secrets: FilePath | None = None  # null: one of this process alone


class Server(_Options):
    """A recursive resolver that is asked: its address alone, or a mapping."""

    address: Upstream
    weight: Annotated[int, Number, Field(ge=1, le=100)] = 1  # its share beside others of its order
    order: Annotated[int, Number, Field(ge=0, le=63)] = 0  # the lowest that has one which is up is asked

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    def __str__(self) -> str:
        return str(self.address)


HEALTH_CHECK_TYPES = {"A": 1, "NS": 2, "SOA": 6, "TXT": 16, "AAAA": 28}  # RFC 1035 section 3.2.2, RFC 3596


class HealthCheck(_Options):
    """The health-check query that is sent to each upstream."""

    name: HealthCheckName = "."
    type: Literal["A", "AAAA", "NS", "SOA", "TXT"] = "NS"
    interval_ms: Milliseconds = 1000  # doubled again and again while it is down
    timeout_ms: Milliseconds = 500
    failures: Annotated[int, Number, Field(ge=1, le=100)] = 3  # in a row: it is down
    successes: Annotated[int, Number, Field(ge=1, le=100)] = 2  # in a row: it is up again


class Ecs(_Options):
    """The part of a client's address that EDNS Client Subnet sends (RFC 7871 section 11.1)."""

    ipv4: Annotated[int, Number, Field(ge=1, le=32)] = 24
    ipv6: Annotated[int, Number, Field(ge=1, le=128)] = 56
    private: Literal["hide", "send"] = "hide"  # addresses that are not global


class UpstreamOptions(_Options):
    """Who is asked about what is not blocked."""

    servers: Annotated[tuple[Server, ...], Field(max_length=64), NotEmpty, Servers] = as_written("system")
    selection: Literal["first", "least_outstanding", "weighted", "hashed"] = "first"
    health_check: HealthCheck | None = as_written({})  # null: no health checks
    timeout_ms: Milliseconds = 1500
    tries: Annotated[int, Number, Field(ge=1, le=4)] = 3  # of one query, all upstreams together
    max_outstanding: Annotated[int, Number, Field(ge=1, le=32_768)] = 16_384  # per worker thread
    client_identity: Literal["none", "proxy", "ecs"] = "none"
    ecs: Ecs = as_written({})


class CacheOptions(_Options):
    """Answers of upstreams that are kept. Times in seconds."""

    size_mb: Annotated[int, Number, Field(ge=0, le=65_536)] = 64  # MiB of memory; 0: nothing is kept
    max_ttl: Annotated[int, Number, Field(ge=1, le=604_800)] = 86_400  # RFC 8767 4: a week at most
    max_negative_ttl: Annotated[int, Number, Field(ge=1, le=86_400)] = 3600  # RFC 2308 5: one to three hours
    max_stale: Annotated[int, Number, Field(ge=0, le=604_800)] = 0  # past the TTL (RFC 8767); 0: never
    prefetch: Switch = "true"


class Udp(_Options):
    """UDP towards clients."""

    max_payload: Annotated[int, Number, Field(ge=512, le=4096)] = 1232  # octets; RFC 9715


class Tcp(_Options):
    """TCP towards clients (RFC 7766)."""

    max_connections: Annotated[int, Number, Field(ge=1, le=100_000)] = 1024  # of each listen address
    max_connections_per_client: Annotated[int, Number, Field(ge=1, le=100_000)] = 64
    # Of an IPv4 /24 or an IPv6 /48 at each listen address; auto: a quarter of max_connections
    max_connections_per_network: Annotated[int | Literal["auto"], NumberOrWord] = "auto"
    max_pipelined: Annotated[int, Number, Field(ge=1, le=10_000)] = 100  # unanswered queries of a connection
    idle_timeout_ms: Milliseconds = 10_000
    read_timeout_ms: Milliseconds = 5000  # for a message that has begun

    @model_validator(mode="after")
    def _has_a_share_for_networks(self) -> Self:
        share = self.max_connections_per_network
        if isinstance(share, int) and not 1 <= share <= 100_000:
            raise ValueError("max_connections_per_network must be from 1 to 100000, or auto")
        return self


class Soa(_Options):
    """The two names in the SOA of our own negative answers (RFC 2308 section 3)."""

    mname: DnsName = "localhost"
    rname: DnsName = "nobody.invalid"


class Resinfo(_Options):
    """What a RESINFO record at resolver.arpa says (RFC 9606)."""

    infourl: WebAddress | None = None
    qnamemin: Switch = "false"  # whether the upstreams minimise QNAMEs (RFC 9156)


class Local(_Options):
    """Names that no upstream is asked about."""

    special_names: Literal["answer", "forward"] = "answer"  # RFC 6761, 6762, 7686
    private_reverse: Literal["answer", "forward"] = "answer"  # RFC 6303, 7793
    canary: Literal["forward", "nxdomain"] = "forward"  # use-application-dns.net
    resinfo: Resinfo | None = None


class StructuredErrors(_Options):
    """The JSON of draft-ietf-dnsop-structured-dns-error, for clients that ask for it by an EDNS option."""

    option: Annotated[int, Number, Field(ge=1, le=65_535)]
    contacts: Annotated[tuple[ContactUri, ...], Field(max_length=4), NotEmpty]
    organization: Annotated[str, Field(min_length=1, max_length=100)]
    language: Language

    @model_validator(mode="after")
    def _is_free(self) -> Self:
        if self.option in (3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15):
            raise ValueError("option is the code of another EDNS option")
        return self


class Signals(_Options):
    """What else clients may be told about a block."""

    structured_errors: StructuredErrors | None = None


Action = Literal["sinkhole", "nxdomain", "nodata", "refused", "drop", "truncate", "cname", "passthru"]


class Answer(_Options):
    """An answer profile: what the client is told in the place of what it asked for."""

    action: Action
    ipv4: Annotated[tuple[IPv4, ...], Field(max_length=16)] = ()
    ipv6: Annotated[tuple[IPv6, ...], Field(max_length=16)] = ()
    target: TargetName | None = None  # of a cname; `*.NAME`: the queried name under that one
    ttl: Annotated[int, Number, Field(ge=0, le=86_400)] = 30  # seconds; also of the SOA in a negative answer
    extended_error: Literal["auto", "none", "15", "16", "17"] = (
        "auto"  # RFC 8914; auto: 16 for orders, 15 for a list
    )

    @model_validator(mode="after")
    def _fits_its_action(self) -> Self:
        if self.action == "sinkhole" and not (self.ipv4 or self.ipv6):
            raise ValueError("a sinkhole needs at least one address: set ipv4, ipv6 or both")
        if self.action != "sinkhole" and (self.ipv4 or self.ipv6):
            raise ValueError(f"ipv4 and ipv6 belong to action sinkhole, not {self.action}")
        if (self.action == "cname") != (self.target is not None):
            raise ValueError("target belongs to action cname, and a cname needs one")
        return self


# The profiles that need no setting: they are called what they do.
BUILT_IN: dict[str, Answer] = {
    action: Answer.model_validate({"action": action})
    for action in ("passthru", "nxdomain", "nodata", "refused", "drop", "truncate")
}


class Guards(_Options):
    """When a whole list is rejected. What auto means for a feed, and for a file or folder: policy/guards.py.

    A percentage counts from 20 changed names on.
    """

    shrank_percent: Annotated[float | Literal["auto", "off"], Percent] = "auto"
    shrank_names: Annotated[int | Literal["auto", "off"], NumberOrWord] = "auto"
    grew_percent: Annotated[float | Literal["auto", "off"], Percent] = "auto"
    grew_names: Annotated[int | Literal["auto", "off"], NumberOrWord] = "auto"
    rejected_percent: Annotated[float | Literal["off"], Percent] = 1.0  # of the lines; 0: any
    truncated: Literal["refuse", "accept"] = "refuse"  # a last line without its line feed
    replayed: Literal["auto", "refuse", "accept"] = "auto"  # an older version; auto: refuse it of a feed
    public_suffix: Literal["leave_out", "accept"] = "leave_out"


Format = Literal[
    "auto", "plain", "subdomains", "hosts", "wildcard", "dnsmasq", "unbound", "adblock", "csv", "rpz"
]
Repair = Literal["bom", "crlf", "case", "dot", "scheme", "port", "path", "comma"]


class Source(_Options):
    """How a list is read, how often it is looked at, and what is put up with."""

    format: Format = "auto"
    column: Annotated[int, Number, Field(ge=1, le=1000)] = 1  # of csv, counted from 1
    separator: Literal[",", ";", "tab", "|"] = ","  # of csv
    repair: Annotated[tuple[Repair, ...], Field(max_length=8)] = ("bom", "crlf", "case", "dot")
    exceptions: Literal["auto", "exempt", "passthru"] = "auto"  # auto: passthru for rpz, exempt for others
    every_s: Annotated[int | Literal["auto"], NumberOrWord] = "auto"  # auto: 3600 for a feed, 5 for a file
    max_mb: Annotated[int, Number, Field(ge=1, le=16_384)] = 1024  # MiB of text
    timeout_s: Annotated[int, Number, Field(ge=1, le=86_400)] = 600  # for a whole download
    ca: FilePath | None = None  # null: the system's authorities
    authorization: FilePath | None = None  # a file whose one line is the header
    missing: Literal["refuse", "start"] = "refuse"  # at a start without any version of the list
    guards: Guards = as_written({})

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if isinstance(self.every_s, int) and not 1 <= self.every_s <= 31_536_000:
            raise ValueError("every_s must be from 1 to 31536000, or auto")
        if self.format != "csv" and {"column", "separator"} & self.model_fields_set:
            raise ValueError("column and separator belong to format csv")
        return self


class Zone(_Options):
    """A policy zone: the orders of one issuer, or one list."""

    name: Identifier
    answer: Identifier  # the profile of its entries that name none
    issuer: Identifier | None = None
    unsigned: Literal["refuse", "accept"] = (
        "refuse"  # of an issuer: what to do with orders that bear no signature
    )
    names: ListPlace | None = Field(default=None, alias="list")  # a file, a folder or an https URL
    addresses: ListPlace | None = None  # the same, of addresses and prefixes that answers may not lead to
    match: Literal["exact", "subtree", "below"] | None = None  # of a list: what each of its names covers
    source: Source = as_written({})  # of a list, or of addresses
    # Whether the targets of CNAME, DNAME, HTTPS and SVCB records in upstreams' answers are judged, too.
    targets: Literal["judge", "ignore"] = "judge"
    # shadow: it decides nothing, and what it would block is counted.
    mode: Literal["enforce", "shadow"] = "enforce"

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if [self.issuer, self.names, self.addresses].count(None) != 2:
            raise ValueError(f"zone {self.name} must have one of issuer, list and addresses")
        if self.issuer is not None and {"match", "source"} & self.model_fields_set:
            raise ValueError("match and source belong to a list: an order says itself what its entries match")
        if self.addresses is not None:
            of_names = {"match"} & self.model_fields_set
            of_names |= {"format", "column", "separator", "exceptions"} & self.source.model_fields_set
            of_names |= {"public_suffix"} & self.source.guards.model_fields_set
            if of_names:
                told = ", ".join(sorted(of_names))
                raise ValueError(f"{told}: belongs to a list of names, not of addresses")
        if self.match is not None and self.source.format not in ("auto", "plain", "hosts", "csv", "wildcard"):
            raise ValueError(
                f"match belongs to plain, hosts, csv and wildcard: {self.source.format} says it itself"
            )
        if self.match == "exact" and self.source.format == "wildcard":
            raise ValueError("match: exact would leave a list of *.name without effect: use subtree or below")
        feed_alone = {"ca", "authorization", "timeout_s"} & self.source.model_fields_set
        if isinstance(self.place, Path) and feed_alone:
            raise ValueError(f"{', '.join(sorted(feed_alone))}: belongs to a feed, not to a file")
        if self.issuer is None and "unsigned" in self.model_fields_set:
            raise ValueError("unsigned belongs to an issuer: a list is not signed")
        if self.addresses is not None and self.targets == "ignore":
            raise ValueError("targets: ignore would leave a zone of addresses without effect")
        return self

    @property
    def kind(self) -> Literal["orders", "list", "addresses"]:
        """Where the zone's entries come from."""
        if self.issuer is not None:
            return "orders"
        return "list" if self.addresses is None else "addresses"

    @property
    def place(self) -> Path | str | None:
        """Where its list is, of names or of addresses; None for an issuer's orders."""
        return self.names if self.addresses is None else self.addresses

    @property
    def is_feed(self) -> bool:
        """Whether its list is fetched."""
        return isinstance(self.place, str)

    @property
    def every_seconds(self) -> int:
        """How often its list is looked at."""
        if self.source.every_s == "auto":
            return 3600 if self.is_feed else 5
        return self.source.every_s


class Http(_Options):
    """The HTTP listeners: metrics and the control socket."""

    max_connections: Annotated[int, Number, Field(ge=8, le=10_000)] = 256  # of each listener


class HistoryOptions(_Options):
    """What is kept of former times."""

    generations: Annotated[int, Number, Field(ge=2, le=10_000)] = 30  # compiled versions of each list
    snapshots: Annotated[int, Number, Field(ge=2, le=1_000_000)] = 10_000  # serials to go back to


class Log(_Options):
    """The log on standard error."""

    format: Literal["auto", "human", "json"] = "auto"  # auto: human on a terminal, else JSON
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(_Options):
    """All settings."""

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
    zones: Annotated[tuple[Zone, ...], Field(max_length=MAX_ZONES)] = ()  # first match wins
    nat64_prefixes: Annotated[tuple[Nat64Prefix, ...], Field(max_length=16)] = ()  # beside 64:ff9b::/96
    protected: Annotated[tuple[DnsName, ...], Field(max_length=10_000)] = ()  # that no list may block
    history: HistoryOptions = as_written({})
    state: FilePath = as_written("state")  # folder of the ledger, of compiled lists and the serial
    control: SocketPath = as_written(DEFAULT_SOCKET)
    user: Annotated[str, Field(min_length=1, max_length=32)] | None = None  # who the daemon becomes
    metrics: Listen | None = as_written("127.0.0.1:9353")
    http: Http = as_written({})
    stop_timeout_ms: Annotated[int, Number, Field(ge=0, le=600_000)] = 3000
    time_zone: TimeZone = as_written("Asia/Jakarta")  # how times are shown
    log: Log = as_written({})

    _path: Path = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Remembers which file this is."""
        self._path = file_of(context)

    @property
    def path(self) -> Path:
        """The file these settings were read from."""
        return self._path

    @property
    def answer_names(self) -> frozenset[str]:
        """Every answer profile there is, built in or configured."""
        return frozenset(BUILT_IN) | frozenset(self.answers)

    def answer(self, name: str) -> Answer:
        """The answer profile of that name. Raises `KeyError` for a name that is not in `answer_names`."""
        return self.answers[name] if name in self.answers else BUILT_IN[name]


# ------- What one option alone cannot tell -------


def _cross_check(config: Config, read: Document, broken: frozenset[str]) -> Iterator[Problem]:
    """Problems between options; those that are `broken` have their defaults here and prove nothing."""
    for name in config.answers.keys() & BUILT_IN.keys():
        yield read.problem(("answers", name), name, "this answer profile is built in and cannot be changed")
    for index, endpoint in enumerate(config.listen):
        if endpoint.port and endpoint in config.listen[:index]:
            yield read.problem(("listen", index), str(endpoint), "is listed twice")
    if not broken & {"listen", "upstream"}:
        for index, server in enumerate(config.upstream.servers):
            if any(_is_reached_at(listen, server.address) for listen in config.listen):
                reason = "this is our own listen address, a loop: list the real resolvers in upstream.servers"
                yield read.problem(("upstream", "servers", index), str(server), reason)
    yield from _check_zones(config, read, broken)


def _is_reached_at(listen: Endpoint, server: Endpoint) -> bool:
    if listen.port != server.port or listen.host.version != server.host.version:
        return False
    return listen.host == server.host or (listen.host.is_unspecified and server.host.is_loopback)


def _check_zones(config: Config, read: Document, broken: frozenset[str]) -> Iterator[Problem]:
    first: dict[tuple[str, str], int] = {}  # (key, value): the line where it was given first
    for index, zone in enumerate(config.zones):
        for key, value in (("name", zone.name), ("issuer", zone.issuer)):
            if value is not None and (key, value) in first:
                reason = f"the zone on line {first[key, value]} has this {key} already"
                yield read.problem(("zones", index, key), value, reason)
            elif value is not None:
                first[key, value] = read.line(("zones", index, key))
        if zone.answer not in config.answer_names and "answers" not in broken:
            reason = f"no such answer profile; there are {', '.join(sorted(config.answer_names))}"
            yield read.problem(("zones", index, "answer"), zone.answer, reason)
        elif "exceptions" in zone.source.model_fields_set and config.answer(zone.answer).action == "passthru":
            reason = "belongs to a list that blocks: with answer passthru, exceptions are what a list lists"
            yield read.problem(("zones", index, "source", "exceptions"), zone.source.exceptions, reason)
        if zone.issuer is not None and config.orders is None and "orders" not in broken:
            reason = "an issuer's zone needs a folder of orders: set orders"
            yield read.problem(("zones", index, "issuer"), zone.issuer, reason)
