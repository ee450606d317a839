"""Values of the configuration: parses text into an address, a network, a path or a name, or refuses it."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
)

from dnsblock import document
from dnsblock.control import MAX_BYTES, socket_path
from dnsblock.errors import Problem, Refused
from dnsblock.names import canonical
from dnsblock.signatures.notes import VerifierKey, is_name, witness_key

SRV = "srv:"  # before the name of SRV records
RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port; as text `127.0.0.1:53` or `[::1]:53`."""

    host: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.host.version == 6 else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Self:
        """Parses ADDRESS:PORT or [V6]:PORT; with a default, the port is optional. Raises `ValueError`."""
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

    @classmethod
    def of(cls, name: Sequence[Any]) -> Self:
        """Converts a socket address: host, port, and for IPv6 further fields."""
        return cls(ip_address(name[0]), name[1])


_ENDPOINT = re.compile(
    r"(?:\[(?P<v6>[^\]]*)\]|(?P<bare>[^\[\]]*:[^\[\]]*:[^\[\]]*)|(?P<v4>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?"
)


def system_resolvers(path: Path = RESOLV_CONF) -> tuple[Endpoint, ...]:
    """The resolvers of the system, in order. Raises `Refused` with advice if there is none.

    An address with a scope (fe80::1%eth0) is skipped: the engine does not bind to interfaces.
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


# ------- Parsers and validators -------


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        found = ip_address(text)
    except ValueError as err:
        raise ValueError("must be an IP address, not a name") from err
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        raise ValueError("an address with an interface scope cannot be used")
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        raise ValueError(f"write the IPv4 address {found.ipv4_mapped} itself")
    return found


def _ipv4(text: str) -> IPv4Address:
    if isinstance(found := _address(text), IPv4Address):
        return found
    raise ValueError("must be an IPv4 address")


def _ipv6(text: str) -> IPv6Address:
    if isinstance(found := _address(text), IPv6Address):
        return found
    raise ValueError("must be an IPv6 address")


def _may_end_in_a_port(text: str) -> bool:
    """Whether an address is ambiguous: ::1:53 may be one address, or ::1 and port 53."""
    host, _, port = text.rpartition(":")
    try:
        ip_address(host)
    except ValueError:
        return False
    return port.isascii() and port.isdigit()


def _upstream(text: str) -> Endpoint:
    endpoint = Endpoint.parse(text, default_port=53)
    if endpoint.port == 0:
        raise ValueError("an upstream has a port from 1 to 65535")
    return _checked_server(endpoint)


def _reader(text: str) -> Endpoint:
    endpoint = Endpoint.parse(text)
    if endpoint.port == 0:
        raise ValueError("a reader has a port from 1 to 65535")
    return _checked_server(endpoint)


def _primary(text: str) -> Endpoint:
    """A primary; port 0 stands for the default of its transport."""
    endpoint = Endpoint.parse(text, default_port=0)
    if endpoint.port == 0 and endpoint != Endpoint.parse(text, default_port=1):
        return _checked_server(endpoint)
    return _upstream(text)


def _probe_server(text: str) -> Endpoint | str:
    return text if text == "own" else _upstream(text)


def _checked_server(endpoint: Endpoint) -> Endpoint:
    host = endpoint.host
    if host.is_unspecified or host.is_multicast or host == IPv4Address("255.255.255.255"):
        raise ValueError("no server can have this address")
    return endpoint


@dataclass(slots=True)
class FormerServers:
    """The upstreams to keep if the system's resolvers cannot be read any more, and the reason."""

    servers: tuple[str, ...]
    problems: list[Problem] = field(default_factory=list)


def _servers(value: Any, info: ValidationInfo) -> Any:
    if value != "system":
        return value
    context = info.context or {}
    try:
        return [str(server) for server in system_resolvers(context.get("resolv_conf", RESOLV_CONF))]
    except Refused as err:
        former: FormerServers | None = context.get("former")
        if former is not None:
            former.problems = [
                replace(one, reason=f"{one.reason}; the previous upstreams stay in use")
                for one in err.problems
            ]
            return list(former.servers)
        raise ValueError(f"system: {err}") from err


def _number(value: Any) -> Any:
    """Plain decimal digits only: pydantic would also accept 1_000, 5.0 and digits of other scripts."""
    if isinstance(value, int):
        return value  # a default value
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,15}", value):
        raise ValueError("must be a whole number")
    return int(value)


def from_text(parse: Callable[[str], object]) -> BeforeValidator:
    """A validator for a value written as one string; `parse` raises `ValueError` with the reason."""

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("must be one text")
        return parse(value)

    return BeforeValidator(check)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        found = ip_network(text)
    except ValueError as err:
        raise ValueError("must be a network such as 192.0.2.0/24, with no bits set after the prefix") from err
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        raise ValueError("write the IPv4 network itself: clients over IPv4 are looked up there")
    return found


_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291 section 2.5.5.2


def _nat64_prefix(text: str) -> IPv6Network:
    found = _network(text)
    if not isinstance(found, IPv6Network) or found.prefixlen not in (32, 40, 48, 56, 64, 96):
        raise ValueError("must be an IPv6 network of 32, 40, 48, 56, 64 or 96 bits (RFC 6052 section 2.2)")
    return found


def _target_name(text: str) -> str:
    """A name, or `*.` and a name (RPZ draft section 3.6): the QNAME is prepended to that name."""
    return f"*.{canonical(text[2:])}" if text.startswith("*.") else canonical(text)


def _health_check_name(text: str) -> str:
    """A name or the root, for which every resolver can answer."""
    return text if text == "." else canonical(text)


def _contact(text: str) -> str:
    """A URI allowed by draft-ietf-dnsop-structured-dns-error; short, since it must fit into a datagram."""
    if not re.fullmatch(r"(tel:|mailto:)[\x21-\x7e]{1,120}", text):
        raise ValueError("must be a tel: or mailto: URI of at most 120 characters")
    return text


def _web_address(text: str) -> str:
    if not re.fullmatch(r"https://[\x21-\x7e]{1,200}", text):
        raise ValueError("must be an https URL of at most 200 characters")
    return text


def instance_url(text: str) -> str:
    """The issuers' API of an instance, without a slash at the end. Raises `ValueError`."""
    try:
        parts = urlsplit(text)
        is_valid = parts.port != 0 and bool(parts.hostname)
    except ValueError:
        is_valid = False
    if not is_valid or not re.fullmatch(r"https://[^\s/@?#]+/?", text):
        raise ValueError("write https://HOST or https://HOST:PORT")
    return text.rstrip("/")


def fleet_place(text: str) -> str:
    """The URL of an instance, or `srv:NAME` for the targets of SRV records. Raises `ValueError`."""
    if not text.startswith(SRV):
        return instance_url(text)
    return SRV + canonical(text.removeprefix(SRV))


def _list_place(value: Any, info: ValidationInfo) -> Any:
    """A file, a folder, or a URL, which stays a string."""
    if not isinstance(value, str) or "://" not in value:
        return _path(value, info)
    if not re.fullmatch(r"https://[^\s/@]+(/[\x21-\x7e]*)?", value) or len(value) > 2000:
        raise ValueError("a list is fetched from an https:// URL, without a password in it, or is a path")
    if not _has_port(value):
        raise ValueError("the URL must have a port from 1 to 65535, or none")
    return value


def _https_folder(text: str) -> str:
    """A URL to which a name is appended."""
    if not re.fullmatch(r"https://[^\s/@?#]+(/[^\s?#@]*)?", text) or not text.isascii() or len(text) > 1000:
        raise ValueError("must be an https:// URL without a password, query or fragment")
    if not _has_port(text):
        raise ValueError("the URL must have a port from 1 to 65535, or none")
    return text


def _https_url(text: str) -> str:
    """A URL to which requests are sent. Its query may be a secret of the server."""
    if not re.fullmatch(r"https://[^\s/@?#]+(/[^\s#@?]*)?(\?[^\s#]*)?", text) or not text.isascii():
        raise ValueError("must be an https:// URL without a password or fragment")
    if len(text) > 1000 or not _has_port(text) or not urlsplit(text).hostname:
        raise ValueError("must be at most 1,000 characters, with a host, and a port from 1 to 65535 or none")
    return text


def _origin(text: str) -> str:
    if not is_name(text):
        raise ValueError("must be 1 to 255 bytes without white space and without +, such as HOST/ledger")
    return text


def _has_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # not a number, or out of range
        return False


def _percent(value: Any) -> Any:
    """A plain decimal number up to 100.

    Other numbers of Python are refused: with `nan`, every comparison is false and a guard would never fire.
    """
    if isinstance(value, float):
        return value  # a default value
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,4})?", value):
        raise ValueError("must be a plain decimal number such as 0.5")
    if (percent := float(value)) > 100:
        raise ValueError("more than 100 percent")
    return percent


def _positive(value: Any) -> Any:
    if (number := _number(value)) < 0:
        raise ValueError("must be a whole number, and not less than 0")
    return number


def _or_word(parse: Callable[[Any], Any], **words: float | None) -> BeforeValidator:
    """A validator for a value, or a word that stands for another value."""

    def check(value: Any) -> Any:
        return words[value] if isinstance(value, str) and value in words else parse(value)

    return BeforeValidator(check)


def _either(yes: str, no: str) -> PlainValidator:
    """A validator for a switch: one of two words. Pydantic itself would also accept `on` and 1."""

    def check(value: Any) -> bool:
        if value not in (yes, no):
            raise ValueError(f"must be {yes} or {no}")
        return bool(value == yes)

    return PlainValidator(check)


def _language(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,4}", text):
        raise ValueError("must be a language tag such as id or en-GB (RFC 5646)")
    return text


def _time_zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError) as err:
        raise ValueError("unknown time zone (or the tzdata package is not installed)") from err


def _path(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str) and "://" in value:
        raise ValueError("must be a path: a URL is not possible here")
    return document.path_of(value, _folder_of(info.context))


def _folder_of(context: Any) -> Path:
    """The folder of the configuration file, the base of relative paths."""
    return file_of(context).parent


def file_of(context: Any) -> Path:
    """The configuration file being validated."""
    return (context or {}).get("file") or Path("dnsblock.yaml").absolute()


def _socket_path(value: Any, info: ValidationInfo) -> Any:
    return socket_path(value, _folder_of(info.context))


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", text):
        raise ValueError("must be 1 to 63 lower-case letters, digits, dots, hyphens and underscores")
    return text


class Options(BaseModel):
    """Models, not dataclasses: each option is defined once, with its type, limits and default."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True, defer_build=True
    )


def as_written(value: object) -> Any:
    """A default value, written as in the file and parsed by the same validator."""
    return Field(default=value)


def _not_empty(items: tuple[object, ...]) -> tuple[object, ...]:
    if not items:
        raise ValueError("must not be empty")
    return items


Number = BeforeValidator(_number)
NotEmpty = AfterValidator(_not_empty)
Milliseconds = Annotated[int, Number, Field(ge=10, le=600_000)]
Listen = Annotated[Endpoint, from_text(Endpoint.parse)]
Upstream = Annotated[Endpoint, from_text(_upstream)]
ReaderAddress = Annotated[Endpoint, from_text(_reader)]
Primary = Annotated[Endpoint, from_text(_primary)]
ProbeServer = Annotated[Endpoint | Literal["own"], from_text(_probe_server)]
Network = Annotated[IPv4Network | IPv6Network, from_text(_network)]
Nat64Prefix = Annotated[IPv6Network, from_text(_nat64_prefix)]
DnsName = Annotated[str, from_text(canonical)]
HealthCheckName = Annotated[str, from_text(_health_check_name)]
Switch = Annotated[bool, _either("true", "false")]
AnsweredHere = Annotated[bool, _either("answer", "forward")]
Denied = Annotated[bool, _either("nxdomain", "forward")]
Networks = Annotated[tuple[Network, ...], Field(max_length=10_000)]
IPv4 = Annotated[IPv4Address, from_text(_ipv4)]
IPv6 = Annotated[IPv6Address, from_text(_ipv6)]
TargetName = Annotated[str, from_text(_target_name)]
AutoNumber = Annotated[int | None, _or_word(_positive, auto=None)]
# The limit of a guard; `off` is a limit that nothing exceeds.
NameLimit = Annotated[float | None, _or_word(_positive, auto=None, off=math.inf)]
FixedNameLimit = Annotated[float, _or_word(_positive, off=math.inf)]
PercentLimit = Annotated[float | None, _or_word(_percent, auto=None, off=math.inf)]
FixedPercentLimit = Annotated[float, _or_word(_percent, off=math.inf)]
TimeZone = Annotated[ZoneInfo, from_text(_time_zone)]
FilePath = Annotated[Path, BeforeValidator(_path)]
ListPlace = Annotated[Path | str, BeforeValidator(_list_place)]
SocketPath = Annotated[Path, BeforeValidator(_socket_path)]
Servers = BeforeValidator(_servers)
ContactUri = Annotated[str, from_text(_contact)]
WebAddress = Annotated[str, from_text(_web_address)]
FleetPlace = Annotated[str, from_text(fleet_place)]
HttpsFolder = Annotated[str, from_text(_https_folder)]
HttpsUrl = Annotated[str, from_text(_https_url)]
Origin = Annotated[str, from_text(_origin)]
WitnessKey = Annotated[VerifierKey, from_text(witness_key)]
Language = Annotated[str, from_text(_language)]
# The name of a zone, an answer profile or an issuer. It appears in metric labels, so its alphabet is small.
Identifier = Annotated[str, from_text(_identifier)]
