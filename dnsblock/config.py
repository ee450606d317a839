"""Settings: the YAML file an operator edits becomes one typed, frozen `Config`, or is refused.

`config/dnsblock.yaml` is the reference of all options; a test holds it equal to the defaults here. Relative
paths are relative to the configuration file's folder. Nothing here looks at the network, lists or orders.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from dnsblock import document
from dnsblock.document import Document
from dnsblock.errors import Problem, Refused
from dnsblock.names import canonical

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_ZONES = 64


def load(path: Path, resolv_conf: Path = RESOLV_CONF) -> "Config":
    """Reads and checks the configuration file. Raises `Refused` with all of its problems.

    `resolv_conf` is what `upstream.servers: system` reads.
    """
    config, problems = inspect(path, resolv_conf)
    if problems or config is None:
        raise Refused(problems)
    return config


def inspect(path: Path, resolv_conf: Path = RESOLV_CONF) -> tuple["Config | None", tuple[Problem, ...]]:
    """All problems of the configuration file, and the settings that its faultless parts make, if any.

    With problems, the settings are for looking further into what they name; nothing may run with them.
    """
    path = path.absolute()
    try:
        data = document.read_bytes(path, max_bytes=MAX_BYTES)
        read = document.read(str(path), data, max_bytes=MAX_BYTES)
    except Refused as err:
        return None, err.problems
    value: Any = {} if read.value is None else read.value  # a file of comments: every default
    context = {"file": path, "resolv_conf": resolv_conf}
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


def control_socket(path: Path) -> Path:
    """Where the daemon of this file takes commands. Raises `Refused`.

    Nothing else in the file has to be right: a running daemon must be reachable while its file is mended.
    """
    path = path.absolute()
    read = document.read(str(path), document.read_bytes(path, max_bytes=MAX_BYTES), max_bytes=MAX_BYTES)
    value = read.value if isinstance(read.value, dict) else {}
    only = {key: part for key, part in value.items() if key == "control"}
    try:
        return _Control.model_validate(only, context={"file": path}).control
    except ValidationError as err:
        raise Refused(read.explain(err)) from err


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


MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port; as text `127.0.0.1:53` or `[::1]:53`."""

    host: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Self:
        """ADDRESS:PORT or [V6]:PORT; without a port too where there is a default. Raises `ValueError`."""
        match = _ENDPOINT.fullmatch(text)
        if match is None:
            raise ValueError("must be an address and a port, such as 127.0.0.1:53 or [::1]:53")
        if match["bare"] and _may_end_in_a_port(match["bare"]):
            raise ValueError("may or may not end in a port: write [ADDRESS] or [ADDRESS]:PORT")
        host = _address(match["v6"] or match["bare"] or match["v4"])
        if match["v6"] and host.version == 4:
            raise ValueError("only an IPv6 address is written in brackets")
        if match["port"] is None and default_port is None:
            raise ValueError("has no port: write 127.0.0.1:53 or [::1]:53")
        port = int(match["port"] or default_port or 0)
        if port > 65535:
            raise ValueError("the port must be at most 65535")
        return cls(host, port)


_ENDPOINT = re.compile(
    r"(?:\[(?P<v6>[^\]]*)\]|(?P<bare>[^\[\]]*:[^\[\]]*:[^\[\]]*)|(?P<v4>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?"
)


def system_resolvers(path: Path = RESOLV_CONF) -> tuple[Endpoint, ...]:
    """The machine's own resolvers, in their order. Raises `Refused` that says what to do where there is none.

    An address with a scope (fe80::1%eth0) is passed over: the packet engine binds to no interface.
    """
    advice = "list your resolvers in upstream.servers"
    try:
        text = document.read_bytes(path, max_bytes=MAX_BYTES).decode("utf-8", "replace")
    except Refused as err:
        raise Refused([Problem(str(path), None, "", f"{err.problems[0].reason}: {advice}")]) from err
    found: dict[Endpoint, None] = {}
    scoped = ""
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        if "%" in words[1]:
            scoped = words[1]
            continue
        try:
            found[_checked_server(Endpoint(_address(words[1]), 53))] = None
        except ValueError as err:
            raise Refused([Problem(str(path), number, words[1], f"{err}: correct it, or {advice}")]) from err
    if not found:
        why = (
            "only resolvers with an interface scope, which cannot be used" if scoped else "names no resolver"
        )
        raise Refused([Problem(str(path), None, scoped, f"{why}: {advice}")])
    return tuple(found)


# ------- Values: text from the document, typed once -------


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError as err:
        raise ValueError("must be an IP address, not a name") from err
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("an address with an interface scope cannot be used")
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"write the IPv4 address {address.ipv4_mapped} itself")
    return address


def _ipv4(text: str) -> IPv4Address:
    if isinstance(address := _address(text), IPv4Address):
        return address
    raise ValueError("must be an IPv4 address")


def _ipv6(text: str) -> IPv6Address:
    if isinstance(address := _address(text), IPv6Address):
        return address
    raise ValueError("must be an IPv6 address")


def _may_end_in_a_port(text: str) -> bool:
    """Whether ::1:53 is one address, or ::1 and port 53, only its writer knows."""
    address, _, port = text.rpartition(":")
    try:
        ip_address(address)
    except ValueError:
        return False
    return port.isascii() and port.isdigit()


def _upstream(text: str) -> Endpoint:
    endpoint = Endpoint.parse(text, default_port=53)
    if endpoint.port == 0:
        raise ValueError("an upstream has a port from 1 to 65535")
    return _checked_server(endpoint)


def _checked_server(endpoint: Endpoint) -> Endpoint:
    host = endpoint.host
    if host.is_unspecified or host.is_multicast or host == IPv4Address("255.255.255.255"):
        raise ValueError("no server can have this address")
    return endpoint


def _servers(value: Any, info: ValidationInfo) -> Any:
    if value != "system":
        return value
    try:
        return [
            str(server) for server in system_resolvers((info.context or {}).get("resolv_conf", RESOLV_CONF))
        ]
    except Refused as err:
        raise ValueError(f"system: {err}") from err


def _number(value: Any) -> Any:
    """Plain decimal digits only: pydantic would also take 1_000, 5.0 and numbers of other scripts."""
    if isinstance(value, int):
        return value  # a default
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,15}", value):
        raise ValueError("must be a whole number")
    return int(value)


def _from_text(parse: Callable[[str], object]) -> BeforeValidator:
    """A value that is written as one text; `parse` raises `ValueError` with the reason."""

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("must be one text")
        return parse(value)

    return BeforeValidator(check)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as err:
        raise ValueError("must be a network such as 192.0.2.0/24, with no bits set after the prefix") from err


def _time_zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError) as err:
        raise ValueError("unknown time zone (or the tzdata package is not installed)") from err


def _path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a path")
    return _folder(info.context) / value


def _folder(context: Any) -> Path:
    """The folder of the configuration file, to which relative paths are relative."""
    return _file(context).parent


def _file(context: Any) -> Path:
    return (context or {}).get("file") or Path("dnsblock.yaml").absolute()


def _fits_a_socket(path: Path) -> Path:
    if len(bytes(path)) > 107:  # unix(7): sun_path, less its NUL
        raise ValueError(f"{len(bytes(path))} octets as a full path; a Unix socket's may have 107")
    return path


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", text):
        raise ValueError("must be 1 to 63 lower-case letters, digits, dots, hyphens and underscores")
    return text


def _as_written(value: object) -> Any:
    """A default, written as it would be in the file and read by the same validator."""
    return Field(default=value)


def _not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    if not items:
        raise ValueError("must not be empty")
    return items


Number = BeforeValidator(_number)
NotEmpty = AfterValidator(_not_empty)
Milliseconds = Annotated[int, Number, Field(ge=10, le=600_000)]
Listen = Annotated[Endpoint, _from_text(Endpoint.parse)]
Upstream = Annotated[Endpoint, _from_text(_upstream)]
Network = Annotated[IPv4Network | IPv6Network, _from_text(_network)]
DnsName = Annotated[str, _from_text(canonical)]
FilePath = Annotated[Path, BeforeValidator(_path)]
# What a zone, an answer profile or an issuer is called: it ends in metric labels, so its alphabet is small.
Identifier = Annotated[str, _from_text(_identifier)]


# ------- The options, in the order of config/dnsblock.yaml -------


class _Options(BaseModel):
    """Models, not dataclasses: each option is written once, with its type, its bounds and its default."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True
    )


class Clients(_Options):
    """Who may ask."""

    allow: Annotated[tuple[Network, ...], Field(max_length=10_000)] = _as_written(
        [
            *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
            *("169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10"),
        ]
    )
    others: Literal["refuse", "drop"] = "refuse"  # refuse: REFUSED with EDE 18 (RFC 8914 4.19)


class UpstreamOptions(_Options):
    """Who is asked about what is not blocked."""

    servers: Annotated[tuple[Upstream, ...], Field(max_length=64), NotEmpty, BeforeValidator(_servers)] = (
        _as_written("system")
    )
    attempt_timeout_ms: Milliseconds = 1500
    attempts: Annotated[int, Number, Field(ge=1, le=4)] = 3  # sendings of one query, all upstreams together
    max_outstanding: Annotated[int, Number, Field(ge=1, le=32_768)] = 16_384  # per packet thread


class Udp(_Options):
    """UDP towards clients."""

    max_payload: Annotated[int, Number, Field(ge=512, le=4096)] = 1232  # octets; RFC 9715


class Tcp(_Options):
    """TCP towards clients (RFC 7766)."""

    max_connections: Annotated[int, Number, Field(ge=1, le=100_000)] = 1024  # all packet threads together
    max_pipelined: Annotated[int, Number, Field(ge=1, le=10_000)] = 100  # unanswered queries of a connection
    idle_timeout_ms: Milliseconds = 10_000
    read_timeout_ms: Milliseconds = 5000  # for a message that has begun


class Soa(_Options):
    """The two names in the SOA of our own negative answers (RFC 2308 section 3)."""

    mname: DnsName = "localhost"
    rname: DnsName = "nobody.invalid"


Action = Literal["sinkhole", "nxdomain", "nodata", "refused", "drop", "truncate", "cname", "passthru"]


class Answer(_Options):
    """An answer profile: what the client is told in the place of what it asked for."""

    action: Action
    ipv4: Annotated[tuple[Annotated[IPv4Address, _from_text(_ipv4)], ...], Field(max_length=16)] = ()
    ipv6: Annotated[tuple[Annotated[IPv6Address, _from_text(_ipv6)], ...], Field(max_length=16)] = ()
    target: DnsName | None = None  # of a cname
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


class Zone(_Options):
    """A policy zone: the orders of one issuer, or one plain list."""

    name: Identifier
    answer: Identifier  # the profile of its entries that name none
    issuer: Identifier | None = None
    unsigned: Literal["refuse", "accept"] = (
        "refuse"  # of an issuer: what to do with orders that bear no signature
    )
    list_file: FilePath | None = Field(default=None, alias="list")
    match: Literal["exact", "subtree", "below"] = "subtree"  # of a list: what each of its names covers
    # Whether the targets of CNAME, DNAME, HTTPS and SVCB records in upstreams' answers are judged, too.
    targets: Literal["judge", "ignore"] = "judge"

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if (self.issuer is None) == (self.list_file is None):
            raise ValueError(f"zone {self.name} must have an issuer or a list, and not both")
        if self.issuer is not None and "match" in self.model_fields_set:
            raise ValueError("match belongs to a list: an order says itself what its entries match")
        if self.list_file is not None and "unsigned" in self.model_fields_set:
            raise ValueError("unsigned belongs to an issuer: a list is not signed")
        return self

    @property
    def kind(self) -> Literal["orders", "list"]:
        """Where the zone's entries come from."""
        return "list" if self.issuer is None else "orders"


class Log(_Options):
    """The log on standard error."""

    format: Literal["auto", "human", "json"] = "auto"  # auto: human on a terminal, else JSON
    level: Literal["debug", "info", "warning", "error"] = "info"


class _Control(_Options):
    """The one option that commands need."""

    control: Annotated[FilePath, AfterValidator(_fits_a_socket)] = _as_written("control.sock")


class Config(_Control):
    """All settings."""

    listen: Annotated[tuple[Listen, ...], Field(max_length=64), NotEmpty] = _as_written(
        ["127.0.0.1:53", "[::1]:53"]
    )
    workers: Annotated[int, Number, Field(ge=0, le=1024)] = 0  # packet threads; 0: one per processor
    clients: Clients = _as_written({})
    upstream: UpstreamOptions = _as_written({})
    udp: Udp = _as_written({})
    tcp: Tcp = _as_written({})
    soa: Soa = _as_written({})
    answers: Annotated[dict[Identifier, Answer], Field(max_length=1000)] = _as_written({})
    orders: FilePath | None = None  # the inbox of order documents
    zones: Annotated[tuple[Zone, ...], Field(max_length=MAX_ZONES)] = ()  # first match wins
    state: FilePath = _as_written("state")  # folder of the ledger and the serial
    metrics: Listen | None = _as_written("127.0.0.1:9353")
    stop_timeout_ms: Annotated[int, Number, Field(ge=0, le=600_000)] = 3000
    time_zone: Annotated[ZoneInfo, _from_text(_time_zone)] = _as_written(
        "Asia/Jakarta"
    )  # how times are shown
    log: Log = _as_written({})

    _path: Path = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Remembers which file this is."""
        self._path = _file(context)

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
            if any(_is_reached_at(listen, server) for listen in config.listen):
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
        if zone.issuer is not None and config.orders is None and "orders" not in broken:
            reason = "an issuer's zone needs a folder of orders: set orders"
            yield read.problem(("zones", index, "issuer"), zone.issuer, reason)
