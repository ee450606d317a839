"""The packet engine: compiles policy zones and answers packets.

Calls that take long release the interpreter's lock, and no worker thread ever takes it. The boundary has few
calls, large arguments and no callbacks.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal, final

__all__ = [
    "BUILD_PROFILE",
    "MAX_TRIES",
    "SHOWN_FROM",
    "AccessControl",
    "Answer",
    "CacheOptions",
    "ClientIdentity",
    "CompiledList",
    "Counts",
    "Covering",
    "DayCorrupt",
    "DayCounts",
    "Dnstap",
    "Engine",
    "Forwarding",
    "HealthCheck",
    "ImpactCounts",
    "ImpactRun",
    "ListDifference",
    "ListRefused",
    "ListUnreadable",
    "Listening",
    "LocalZones",
    "Names",
    "NamesUnusable",
    "NotAName",
    "NotCompiled",
    "PastImpact",
    "PlacedZone",
    "PolicyZone",
    "Progress",
    "RateLimits",
    "RecordChanges",
    "Rule",
    "Rules",
    "Settings",
    "Snapshot",
    "Soa",
    "Suffixes",
    "TcpLimits",
    "Transfer",
    "TransferFailed",
    "TransferredZone",
    "TsigKey",
    "Upstream",
    "UpstreamCounts",
    "__version__",
    "canonical_name",
    "compile_list",
    "compile_zone",
    "file_digests",
    "is_newer",
    "keep_capabilities",
    "keep_net_bind_service",
    "past_impact",
    "sealed_lines",
    "tree_parents",
    "zone_files",
]

_Address = IPv4Address | IPv6Address
_Network = tuple[_Address, int]  # an address and the length of its prefix

__version__: str
BUILD_PROFILE: str
"""`release` or `debug`. Measurements of a debug build are meaningless."""
MAX_TRIES: int
"""The maximum number of upstream tries per query."""
SHOWN_FROM: int
"""The number of queries on a day from which on a name is stored in `DayCounts`."""

class ListRefused(ValueError):  # noqa: N818
    """Content that cannot be compiled into a zone.

    `args` are the first hundred problems as (line, value, reason), and the total number of problems.
    """

class NotAName(ValueError):  # noqa: N818
    """A string that is not a domain name; the message says why."""

def canonical_name(text: str) -> str:
    """Parses a domain name into lower-case A-labels without a trailing dot.

    Lists use the same parser. Raises `NotAName`, and `UnicodeEncodeError` for a lone surrogate.
    """

def sealed_lines(data: bytes) -> list[tuple[bytes, str, bytes, bool]]:
    """Hashes the lines of a ledger that end in `data`, without holding the interpreter.

    The fields of a line: its bytes without the line end, its SHA-256 in hexadecimal, and its hash as a leaf
    of a Merkle tree (RFC 6962, section 2.1). The last one says whether its digest is that of its content.
    """

def tree_parents(hashes: bytes) -> bytes:
    """The hashes of the next level of a Merkle tree, one after the other (RFC 6962, section 2.1).

    A last hash without a neighbour has no parent.
    """

def file_digests(paths: Sequence[str], max_bytes: int) -> list[str | None]:
    """The SHA-256 of each file in hexadecimal, without holding the interpreter.

    None for a file that is not regular, has more bytes, or cannot be read. Symbolic links are followed.
    """

class NotCompiled(RuntimeError):  # noqa: N818
    """Valid entries that cannot be compiled into a list: an attack on its hash table, or a bug."""

class ListUnreadable(ValueError):  # noqa: N818
    """A file that is not a text list.

    `args` are its label, a code (`NOT_TEXT`, `CORRUPT`, `UNREADABLE`), and a text with the cause and a hint.
    """

class NamesUnusable(ValueError):  # noqa: N818
    """A file that is not a compiled list of this version, or has another SHA-256 than requested."""

@final
class Names:
    """A compiled list: names and the scope of each. Immutable; a file is mapped read-only.

    The file is named after its SHA-256. The same content gives the same bytes on every server.
    """

    @staticmethod
    def open(path: str, sha256: str) -> Names:
        """Maps a file, which must have this SHA-256. Raises `OSError` and `NamesUnusable`."""

    def scope(self, text: str) -> str | None:
        """The scope of exactly this canonical name: `subtree`, `exact` or `below`. None: it is not listed.

        In a policy zone, the answer follows after a space: `exact 300 A 192.0.2.1`.

        An exception has the prefix `except-` or `pass-`. Two scopes, joined by a comma, are returned if the
        name and the names below it differ.
        """

    def release_memory(self) -> None:
        """Releases its memory to the kernel. The list stays usable; its file is read again on use."""

    def populate(self) -> None:
        """Reads the whole list into memory, so that no query waits for the disk."""

    @property
    def is_corrupt(self) -> bool:
        """Whether its file was truncated or became unreadable while in use: names are missing then."""

    @property
    def entries(self) -> int:
        """The number of listed names, without exceptions."""

    @property
    def digest(self) -> str:
        """`sha256:` over the names and their scopes; independent of the format."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of the whole file, in hexadecimal."""

@final
class ListDifference:
    """The difference between two lists. A changed name is in both, with another scope.

    In `lines`, a line `= NUMBER SCOPE ANSWER` of a policy zone defines a number that stands for the scope.
    """

    added: int
    removed: int
    changed: int
    lost: int  # names that cover less than before: removed, narrowed, or now an exception
    gained: int  # names that cover more than before
    lines: bytes | None  # lines `+ SCOPE NAME` and `- SCOPE NAME`; None if they exceed 32 MiB

@final
class Progress:
    """How much of a list has been read, for display by another thread."""

    def __new__(cls) -> Progress: ...
    @property
    def bytes(self) -> int: ...

@final
class CompiledList:
    """A compiled list, and the counts of its lines.

    `lines` excludes blank lines and comments: accepted + repaired + duplicate + not applicable + rejected.
    Lines that are not applicable are valid, but do not describe names. `exceptions` are the exceptions among
    the lines with names. `apexless` names are listed only as `*.name`. The first hundred lines of each kind
    are reported as (file, line, value, code, text). `sources` are (label, bytes, SHA-256, ends with a line
    feed). `formats` are, for each file in turn, (format, lines with names).
    """

    names: Names
    difference: ListDifference | None
    formats: list[tuple[str, int]]
    is_recognised: bool
    sources: list[tuple[str, int, str, bool]]
    lines: int
    accepted: int
    repaired: int
    duplicate: int
    not_applicable: int
    rejected: int
    exceptions: int
    apexless: int
    silent: int
    rejected_by: dict[str, int]
    not_applicable_by: dict[str, int]
    repaired_by: dict[str, int]
    rejected_lines: list[tuple[str, int, str, str, str]]
    repaired_lines: list[tuple[str, int, str, str, str]]
    duplicate_lines: list[tuple[str, int, str, str, str]]
    left_out_lines: list[tuple[str, int, str, str, str]]
    not_applicable_lines: list[tuple[str, int, str, str, str]]
    lost_exception_lines: list[tuple[str, int, str, str, str]]
    serial: int | None  # of the SOA record of a policy zone; None also if it has none
    zonemd: str  # of a policy zone (RFC 8976): `absent`, `unusable`, `valid` or `invalid`

def zone_files(path: str, max_bytes: int) -> list[str]:
    """The files of a zone: its own, then those that it includes, in this order, all from its folder.

    Raises `OSError`, and `ListUnreadable` for a file that cannot be included.
    """

def compile_zone(
    files: Sequence[tuple[str, str]],
    *,
    name: str,
    takes_wide: bool,
    max_bytes: int,
    suffixes: Sequence[str],
    suffix_parents: Sequence[str],
    suffix_exceptions: Sequence[str],
    protected: Sequence[str],
    folder: str | None,
    before: Names | None,
    progress: Progress,
) -> CompiledList:
    """Compiles a policy zone with the answers of its records, from the files that `zone_files` returns.

    `name` is that of the zone, where its file does not say it. `takes_wide`: triggers of one label, `*` and
    very large networks are enforced, too. Otherwise as `compile_list`.
    """

def compile_list(
    files: Sequence[tuple[str, str]],
    *,
    format: str | None,  # noqa: A002  # the configuration's name for it
    scope: str | None,
    column: int,
    separator: str,
    repairs: Sequence[str],
    exceptions: str,
    max_bytes: int,
    suffixes: Sequence[str],
    suffix_parents: Sequence[str],
    suffix_exceptions: Sequence[str],
    protected: Sequence[str],
    folder: str | None,
    before: Names | None,
    progress: Progress,
) -> CompiledList:
    """Compiles files, each with a label for reports, into `folder` or into memory.

    Files compressed with gzip are decompressed. `max_bytes` limits the total uncompressed size.

    `exceptions` is the effect of exceptions in the list: `exempt`, `passthru`, `auto` (as in the format), or
    `listed`. Malformed lines are skipped and reported. Before it returns, each entry is verified with the
    lookup that answers queries. Raises `OSError`, `NotCompiled`, `ListUnreadable`, and `ValueError` for
    invalid options.
    """

@final
class Answer:
    """An answer profile. `ttl` in seconds; `extended_error` an INFO-CODE of RFC 8914.

    With a target `*.NAME`, the QNAME is prepended to NAME. Raises `ValueError` for an unknown action, for a
    target without the action `cname`, and for `cname` without a target.
    """

    def __new__(
        cls,
        action: str,
        *,
        ttl: int,
        extended_error: int | None = None,
        addresses: Sequence[_Address] = ...,
        target: str | None = None,
    ) -> Answer: ...

@final
class Rule:
    """The effect of an entry: an answer, or None for an exemption, after which the next zone is evaluated.

    `reference` is the number of the order, at most 200 bytes; clients get it as EXTRA-TEXT. `structured` is
    for clients that support structured errors: the complete JSON, and a short form if that does not fit.
    `counter` counts the queries that the order blocks: 1 to 16,383, or 0 for none.
    """

    def __new__(
        cls,
        answer: Answer | None,
        reference: str = "",
        structured: tuple[str, str] | None = None,
        counter: int = 0,
    ) -> Rule: ...

@final
class PolicyZone:
    """One issuer's orders or one list, compiled. Immutable."""

    @staticmethod
    def from_names(name: str, names: Names, rule: Rule) -> PolicyZone:
        """A zone of a compiled list. The rule applies to its names; exceptions are exemptions or passthru."""

    @staticmethod
    def from_records(
        name: str,
        names: Names,
        *,
        rule: Rule | None = None,
        max_ttl: int = 0,
        extended_error: int | None = None,
        structured: tuple[str, str] | None = None,
    ) -> PolicyZone:
        """A compiled policy zone with the answers of its records, or with one rule for all of them.

        `max_ttl` in seconds limits their TTLs. Raises `ValueError` for a list.
        """

    @staticmethod
    def from_triggers(name: str, names: Names, rule: Rule) -> PolicyZone:
        """A zone of a compiled list of addresses. Raises `ValueError` for a list of names."""

    @staticmethod
    def from_addresses(name: str, data: bytes, rule: Rule) -> PolicyZone:
        """Compiles addresses and prefixes, one per line, with `#` comments. Raises `ListRefused`."""

    @staticmethod
    def from_entries(name: str, rules: Sequence[Rule], data: bytes) -> PolicyZone:
        """Compiles `MATCH RULE NAME` lines; RULE is an index into `rules`. Raises `ListRefused`.

        If entries for a name conflict, `exact` beats `subtree` and `below`, then an exemption beats an
        answer, then the earlier line wins. Names that were chosen for their hashes are compiled, too.
        """

    @staticmethod
    def from_parts(name: str, rules: Sequence[Rule], parts: Sequence[tuple[str, int, str]]) -> PolicyZone:
        """The same from parts with one match and rule each: match, rule, and the names, one per line."""

    def with_changes(self, rules: Sequence[Rule], parts: Sequence[tuple[str, int, str]]) -> PolicyZone | None:
        """This zone of entries, with changes, as if it were compiled again.

        The parts, as of `from_parts`, replace all entries of their names; the match `remove` leaves none.
        `rules` are more rules; their indexes follow those of the rules given before. None: there are too many
        changes, so compile it.
        """

    def find_empty(self) -> None:
        """Of a zone of records: prepares `amended`. Some 0.3 s for a million names; again, nothing."""

    def amended(
        self,
        changes: RecordChanges,
        *,
        zone: str,
        takes_wide: bool,
        suffixes: Sequence[str],
        suffix_parents: Sequence[str],
        suffix_exceptions: Sequence[str],
        protected: Sequence[str],
    ) -> tuple[PolicyZone, int, int] | None:
        """This zone of records after changes of single records, and how many owners cover less and more.

        It decides as the zone that is compiled from all records. None: it has to be compiled, because that is
        not certain. The digest is another one. Options as of `compile_zone`.
        """

    @property
    def opens_for_clients(self) -> bool:
        """Whether a trigger for the addresses of clients lets names pass that others do not get."""

    @property
    def is_grown(self) -> bool:
        """Whether `with_changes` has made half of the changes that it can make before it returns None."""

    def compiled_again(self) -> PolicyZone:
        """The same zone, compiled from its own entries. Raises `OSError` and `NotCompiled`."""

    @property
    def name(self) -> str: ...
    @property
    def entries(self) -> int:
        """The number of distinct owner names or prefixes, without exceptions."""

    @property
    def digest(self) -> str:
        """`sha256:` over names and rules in canonical order."""

@final
class PlacedZone:
    """A policy zone with its options in a snapshot.

    `next_change_at`: Unix time in seconds of its next scheduled change, which limits its TTLs.
    `judges_targets`: it also applies to targets (CNAME, DNAME, HTTPS, SVCB) in upstream responses.
    `is_shadow`: its matches are only counted. `is_list`: the operator may exempt names from it. `clients`: it
    applies to these networks only.
    """

    def __new__(
        cls,
        zone: PolicyZone,
        *,
        next_change_at: int | None,
        judges_targets: bool,
        is_shadow: bool,
        is_list: bool,
        clients: Sequence[tuple[_Address, int]] | None = None,
    ) -> PlacedZone: ...
    @property
    def zone(self) -> PolicyZone: ...

@final
class Covering:
    """An entry that covers a name or an address.

    `action` is None for an exemption. `scope` is `prefix` for addresses of responses, `client` for those of
    clients. Shadow entries never decide.
    """

    zone: str
    entry: str
    scope: str
    action: str | None
    records: list[str]  # of a policy zone whose records give the answers: these, without their owner
    decides: bool  # over UDP
    decides_over_tcp: bool  # differs if a zone with the answer `truncate` comes first
    is_shadow: bool

@final
class Snapshot:
    """The policy zones in configured order. Immutable.

    `nat64` are the NAT64 prefixes besides the well-known one (RFC 6052). The entries of `allowed` except
    names from lists: those that a list blocks by no longer name. No list judges the targets of such a name.
    """

    def __new__(
        cls,
        zones: Sequence[PlacedZone],
        serial: int,
        nat64: Sequence[_Network] = ...,
        allowed: PolicyZone | None = None,
    ) -> Snapshot: ...
    @staticmethod
    def digest_of(
        zones: Sequence[PlacedZone], nat64: Sequence[_Network] = ..., allowed: PolicyZone | None = None
    ) -> str:
        """The digest of a snapshot with these zones."""

    def covering(self, target: str | _Address, client: _Address | None = None) -> list[Covering]:
        """All entries that cover a canonical name or an address, in zone order. At most one decides.

        The longest prefix of a zone comes first. `client` is the address of the client. Without it, rules for
        certain clients do not apply.
        """

    def export(self, descriptor: int, kind: str, head: str, origin: str) -> tuple[int, int, dict[str, int]]:
        """Writes the enforced zones as a file of this kind: `rpz` with the name `origin`, `text` or `hosts`.

        `head` comes first; the last line is a comment with the counts. Returns the numbers of entries and of
        records, and by reason the entries that the format cannot express. Raises `OSError` and `ValueError`.
        """

    @property
    def serial(self) -> int: ...
    @property
    def digest(self) -> str:
        """`sha256:` over name, digest and flags (targets, shadow) of each zone, `nat64` and `allowed`."""

    @property
    def entries(self) -> int:
        """The number of enforced entries."""

@final
class Suffixes:
    """The public suffix list: suffixes, names whose children are all suffixes, and exceptions among these.

    Raises `ValueError` for an invalid name.
    """

    def __new__(cls, names: Sequence[str], parents: Sequence[str], exceptions: Sequence[str]) -> Suffixes: ...

@final
class AccessControl:
    """Clients that may query. Queries of others are dropped or refused."""

    def __new__(cls, *, allow: Sequence[_Network], drops_others: bool) -> AccessControl: ...

@final
class RateLimits:
    """Limits for clients whose source address may be spoofed. `exempt` networks have none.

    0 means no limit for `queries_per_second`, `errors_per_second` and `amplification` (response bytes per
    query byte). With `slip` 0, all queries over the limit are dropped.
    """

    def __new__(
        cls,
        *,
        queries_per_second: int,
        errors_per_second: int,
        slip: int,
        amplification: int,
        exempt: Sequence[_Network],
    ) -> RateLimits: ...

@final
class CacheOptions:
    """The size of the cache (0: no cache), and how long responses are cached, in seconds.

    `max_stale` is the limit for stale answers (0: never).
    """

    def __new__(
        cls, *, cache_bytes: int, max_ttl: int, max_negative_ttl: int, max_stale: int, prefetch: bool
    ) -> CacheOptions: ...

@final
class LocalZones:
    """The locally served zones. `resinfo` is the RDATA of a RESINFO record.

    `snapshot_clients` may ask for the serial and the digest of the snapshot.
    """

    def __new__(
        cls,
        *,
        special_names: bool,
        private_reverse: bool,
        canary: bool,
        resinfo: bytes | None,
        snapshot_clients: Sequence[_Network],
    ) -> LocalZones: ...

@final
class TransferredZone:
    """A zone that is received by zone transfer: who may send NOTIFY, and with which key.

    `zone` is the name of the zone, `label` that of the policy zone.
    """

    def __new__(
        cls, zone: str, label: str, *, notify_from: Sequence[_Network], key: TsigKey | None
    ) -> TransferredZone: ...

@final
class Rules:
    """The options that decide queries besides the snapshot, swapped atomically with it.

    The first of `cookie_secrets` signs cookies, all verify. `idle_timeout_ms` is announced to TCP clients.
    Raises `ValueError` for values out of range.
    """

    def __new__(
        cls,
        *,
        access_control: AccessControl,
        rate_limits: RateLimits,
        cache: CacheOptions,
        local_zones: LocalZones,
        cookie_secrets: Sequence[bytes],
        max_payload: int,
        idle_timeout_ms: int,
        structured_option: int | None,
        soa: tuple[str, str],
        suffixes: Suffixes,
        transferred: Sequence[TransferredZone],
        dnstap: Dnstap | None,
    ) -> Rules: ...

@final
class Dnstap:
    """The dnstap output: the reader's Unix socket, or its address and port.

    `messages` is `policy`, `responses` or `all`. `client_prefix`: the bits of a client's address that are
    sent, for IPv4 and IPv6. Raises `ValueError` for values out of range.
    """

    def __new__(
        cls,
        *,
        socket: Path | None,
        tcp: tuple[_Address, int] | None,
        messages: str,
        identity: str | None,
        version: str | None,
        client_prefix: tuple[int, int],
    ) -> Dnstap: ...

@final
class Upstream:
    """An upstream resolver. Raises `ValueError` for a weight out of range."""

    def __new__(cls, address: _Address, port: int, *, weight: int, order: int) -> Upstream: ...

@final
class HealthCheck:
    """The health-check query to upstreams; the QNAME `.` is the root.

    An upstream is marked down after `failures` consecutive failures, and up after `successes` consecutive
    successes. Raises `ValueError` for values out of range.
    """

    def __new__(
        cls, *, qname: str, qtype: int, interval_ms: int, timeout_ms: int, failures: int, successes: int
    ) -> HealthCheck: ...

@final
class ClientIdentity:
    """How the client's address is sent to upstreams."""

    @staticmethod
    def proxy() -> ClientIdentity:
        """By the PROXY protocol."""

    @staticmethod
    def ecs(*, ipv4_prefix: int, ipv6_prefix: int, sends_private: bool) -> ClientIdentity:
        """By EDNS Client Subnet, with prefixes of these lengths. Raises `ValueError` for invalid lengths."""

@final
class Forwarding:
    """Settings for queries to upstreams.

    `selection` is `first`, `least_outstanding`, `weighted` or `hashed`. `max_outstanding` is per thread.
    Raises `ValueError` for values out of range.
    """

    def __new__(
        cls,
        upstreams: Sequence[Upstream],
        *,
        selection: str,
        tries: int,
        timeout_ms: int,
        max_outstanding: int,
        health_check: HealthCheck | None,
        client_identity: ClientIdentity | None,
        max_payload: int,
    ) -> Forwarding: ...

@final
class TcpLimits:
    """Limits for TCP clients, for all threads together. `max_connections` is per listener.

    `max_connections_per_network` is a quarter of it if `None`.
    """

    def __new__(
        cls,
        *,
        max_connections: int,
        max_connections_per_client: int,
        max_connections_per_network: int | None,
        max_pipelined: int,
        idle_timeout_ms: int,
        read_timeout_ms: int,
    ) -> TcpLimits: ...

@final
class Settings:
    """Settings for receiving and forwarding queries; a publish may change them."""

    def __new__(cls, forwarding: Forwarding, tcp: TcpLimits) -> Settings: ...

@final
class UpstreamCounts:
    """The counters of one upstream. Buckets are (upper bound in seconds, count), not cumulative."""

    address: tuple[str, int]
    udp_queries: int
    tcp_queries: int
    timeouts: int
    network_errors: int
    mismatches: int
    taken_over: int  # queries that failed over to another upstream because this one went down
    refused: int
    failures: int  # error responses after which the query was retried with another upstream
    is_up: bool
    is_without_edns: bool
    is_suspected: bool  # whether it is suspect: not used until a health check shows whether it is down
    changed: tuple[int, str] | None
    """The Unix time in seconds of its last change to up or down, and the reason."""
    outstanding: int
    health_checks: dict[str, int]  # health checks by result: `good`, `bad` (an error response), `lost`
    latency_buckets: list[tuple[float, int]]
    latency_seconds: float

@final
class Counts:
    """The counters of all worker threads, summed."""

    queries: dict[tuple[str, str], int]  # queries by transport and outcome
    blocked: dict[tuple[str, str], int]  # blocked queries by zone and action
    shadow_blocked: dict[tuple[str, str], int]
    """The same for shadow zones: queries that they would have blocked."""
    order_blocked: dict[int, int]  # blocked queries by the counter of the order, without zeros
    upstreams: list[UpstreamCounts]
    tcp_connections: int
    tcp_refused: dict[str, int]
    """Connections closed immediately, by the limit that was reached: `client` or `network`."""
    outstanding: int
    panics: int
    unsent: int
    truncated: int  # responses over UDP with TC set
    dropped_records: int  # records removed from upstream responses
    limited: dict[str, int]  # queries and error responses over a client's limit, by result
    rcodes: dict[str, int]  # responses to clients, by RCODE
    waited: dict[str, tuple[list[tuple[float, int]], float]]
    """Response times by origin ("here", "upstream"): buckets as above, and their sum."""
    joined: int  # queries that were coalesced with an outstanding one
    notifies: dict[str, int]  # NOTIFY messages, by result
    prefetched: int  # upstream queries that prefetched an expiring response
    refused: dict[str, int]
    cache_entries: int
    cache_bytes: int
    cache_evictions: int  # cached responses that were evicted
    dnstap_sent: int  # frames that the reader's socket has taken
    dnstap_failed_connections: int  # to the reader: failed, or ended by it
    dnstap_dropped: dict[str, int]  # frames that were not sent, by reason: `queue_full` or `stopped`
    is_dnstap_connected: bool | None  # None: there is no output

@final
class ImpactCounts:
    """The counts of an impact run so far."""

    queries: int  # decided queries, for any name
    blocked: int  # those that the zone would have blocked
    decided: int  # those for its names that an enforced zone already decides
    blocking_names: int  # names that would have blocked at least one query
    queried_names: int  # queried names, whether or not another zone already decides them
    top: list[tuple[str, int]]  # the names that would have blocked the most queries, highest count first

@final
class ImpactRun:
    """A shadow zone with a counter for each entry."""

    def counts(self, top: int) -> ImpactCounts:
        """The counts so far, with at most `top` names."""

class DayCorrupt(ValueError):  # noqa: N818  # house style: named for what happened
    """The bytes are no counts of a day. The only argument is the reason."""

@final
class DayCounts:
    """Counts of queried names of a day. They hold no name with fewer than `SHOWN_FROM` queries."""

    @staticmethod
    def read(data: bytes) -> DayCounts:
        """Reads and checks `data` of another one. Raises `DayCorrupt`."""

    def plus(self, other: DayCounts, max_bytes: int) -> DayCounts:
        """The sum of two parts of a day in at most `max_bytes`. Raises `DayCorrupt`."""

    @property
    def data(self) -> bytes:
        """Text in gzip format."""

    @property
    def queries(self) -> int:
        """All queries."""

    @property
    def listed(self) -> int:
        """Those in the counts of names."""

    @property
    def bound(self) -> int:
        """The most queries that are missing in the count of any name, or for a name that is missing."""

    @property
    def hours(self) -> int:
        """A bit for each hour in which queries were counted."""

    @property
    def names(self) -> int:
        """The number of names."""

@final
class PastImpact:
    """The queries that a zone would have blocked on past days, after all zones that are enforced now."""

    queries: int
    listed: int  # queries in the counts of names
    bound: int  # the sum of all days
    blocked: int  # queries that the zone would have blocked, and no enforced zone decides now: at least
    blocked_at_most: int
    decided: int  # those for its names that an enforced zone decides now
    blocking_entries: int  # entries that would have blocked a counted name
    queried_entries: int  # entries with a counted name
    blocked_by_day: list[int]
    entries: list[tuple[str, Literal["exact", "subtree", "below"], int, int]]  # queries at least and at most
    names: list[tuple[str, int]]  # the most queried names that would have been blocked

def past_impact(zone: PolicyZone, snapshot: Snapshot, days: list[DayCounts], *, top: int) -> PastImpact:
    """Sums the counts of these days, with at most `top` entries and names. Raises `DayCorrupt`."""

@final
class Listening:
    """Bound listen addresses that are not served yet."""

class TransferFailed(RuntimeError):  # noqa: N818  # house style: named for what happened
    """A zone transfer failed. `args` are the code and the reason with advice."""

@final
class TsigKey:
    """A key that signs messages (TSIG, RFC 8945). `algorithm`: hmac-sha256, hmac-sha384 or hmac-sha512.

    Raises `ValueError` for an invalid name or algorithm; no message has the secret.
    """

    def __new__(cls, name: str, algorithm: str, secret: bytes) -> TsigKey: ...

@final
class Soa:
    """The numbers of a zone's SOA record (RFC 1035, section 3.3.13). Times are in seconds."""

    serial: int
    refresh: int
    retry: int
    expire: int

@final
class RecordChanges:
    """The records that an incremental transfer removes and adds."""

    def __len__(self) -> int: ...

@final
class Transfer:
    """The messages of a zone transfer over one connection (RFC 5936, RFC 1995), and the copy of the zone.

    Use it from one thread at a time. All methods raise `TransferFailed`; the copy is then unchanged.
    """

    def __new__(
        cls,
        zone: str,
        *,
        key: TsigKey | None,
        copy: Path | None,
        into: Path,
        max_records: int,
        max_bytes: int,
    ) -> Transfer:
        """`copy`: the present copy. `into`: where a new one is written."""

    @property
    def serial(self) -> int | None:
        """The serial of the present copy; None if there is none that can be used."""

    @property
    def soa(self) -> Soa | None:
        """The primary's SOA record, once it is known."""

    def query(self, rtype: str, least: int | None = None) -> bytes:
        """A query with its length as over TCP: `SOA`, `IXFR` for the changes since the copy, or `AXFR`.

        No zone with an older serial than `least` is taken.
        """

    def take(self, received: bytes) -> bool:
        """Takes received bytes. Returns whether the response to the query is complete."""

    def changes(self) -> RecordChanges | None:
        """The changes of a complete incremental transfer; None of another one."""

    def finish(self) -> str | None:
        """After a complete transfer, writes the new copy to `into`: `axfr` or `ixfr`; None: nothing new."""

@final
class Engine:
    """Sockets and worker threads; serves one snapshot at a time. Modelled on `asyncio.Server`."""

    def __new__(
        cls,
        listen: Sequence[tuple[_Address, int]],
        workers: int,
        settings: Settings,
        inherited: Sequence[int],
    ) -> Engine:
        """Binds the addresses. Raises `OSError`, whose `filename` is the address that could not be bound.

        `inherited` are descriptors that the previous process left open. Sockets among them for one of these
        addresses are used instead of new ones, including their queued queries. They are duplicated; the
        caller closes its own.
        """

    def start(self, snapshot: Snapshot, rules: Rules) -> None:
        """Starts answering. Raises `RuntimeError` if called twice."""

    def check(self, snapshot: Snapshot) -> None:
        """Raises `ValueError` for a snapshot that `publish` would refuse. Changes nothing."""

    def listen(self, listen: Sequence[tuple[_Address, int]]) -> Listening:
        """Binds the new ones among these addresses; `publish` then serves them and closes others.

        Raises `OSError`, whose `filename` is the address that could not be bound.
        """

    def publish(
        self,
        snapshot: Snapshot,
        rules: Rules,
        settings: Settings | None = None,
        listening: Listening | None = None,
    ) -> None:
        """Applies these to every query that arrives after it returns. On an error, nothing changes.

        Upstreams that remain in the settings keep their state, and addresses keep their sockets. Without
        settings or addresses, the previous ones stay.
        """

    def make_way(self, milliseconds: int) -> None:
        """For so long, busy worker threads let queries collect for 0.4 ms.

        On processors that it shares with them, the control plane then gets longer turns. If there are more
        processors than worker threads, nothing changes.
        """

    def begin_impact_run(self, zone: PolicyZone) -> ImpactRun:
        """Starts counting what this zone would block after all others, across later publishes.

        Raises `RuntimeError` during another impact run, before `start`, and after `stop`.
        """

    def end_impact_run(self) -> None:
        """Removes the impact run, if any."""

    def count_queries(self, max_bytes: int | None) -> None:
        """Counts queried names in so much memory from now on; None: not any more. Drops the counts so far."""

    def query_counts(self, *, hours: int, max_bytes: int, clears: bool) -> DayCounts | None:
        """The counts so far in at most `max_bytes`; None while nothing is counted.

        `clears`: they start again at zero. Each query is in this result or in the next one.
        """

    def stop(self, timeout_ms: int) -> None:
        """Stops accepting queries, answers outstanding ones, and joins. May be called again."""

    def addresses(self) -> list[tuple[str, int]]:
        """The listen addresses, with the actual ports instead of 0."""

    def sockets(self) -> list[tuple[tuple[str, int], list[int]]]:
        """The descriptors of the sockets of each address, still owned by the engine."""

    def notified_descriptor(self) -> int:
        """A descriptor that is readable while `take_notified` has something. The engine closes it."""

    def take_notified(self) -> list[tuple[str, _Address]]:
        """The policy zones whose primaries have sent NOTIFY since the last call, and the last sender."""

    def running(self) -> int:
        """The number of running worker threads."""

    def take_events(self) -> list[str]:
        """Rare events since the last call, for the log. Frees old snapshots; call it once a second."""

    def counters(self) -> Counts: ...
    def purge(self, name: str | None, below: bool) -> int:
        """Purges a canonical name from the cache, with `below` also the names below it; None: everything.

        Returns the number of purged responses. Raises `ValueError` for an invalid name.
        """

def keep_capabilities() -> None:
    """Keeps this thread's permitted capabilities when root switches to another user. Raises `OSError`."""

def keep_net_bind_service() -> None:
    """Drops all capabilities of this thread except CAP_NET_BIND_SERVICE. Raises `OSError`."""

def is_newer(serial: int, than: int) -> bool:
    """Whether a serial is newer than another one (RFC 1982)."""
