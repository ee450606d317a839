"""The packet engine: policy zones are compiled here, packets are answered here.

Whatever compiles, binds or joins runs without the interpreter's lock, and no worker thread ever takes it. The
boundary is few calls with big arguments and no callbacks.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import final

__all__ = [
    "BUILD_PROFILE",
    "MAX_ATTEMPTS",
    "Answer",
    "CompiledList",
    "Counts",
    "Covering",
    "Engine",
    "ListDifference",
    "ListRefused",
    "ListUnfit",
    "Listening",
    "Names",
    "NamesUnusable",
    "NotAName",
    "NotCompiled",
    "PolicyZone",
    "Probe",
    "Progress",
    "Rule",
    "Rules",
    "Settings",
    "Snapshot",
    "Suffixes",
    "Tally",
    "Trial",
    "UpstreamCounts",
    "__version__",
    "canonical_name",
    "compile_list",
    "keep_capabilities",
    "keep_net_bind_service",
]

__version__: str
BUILD_PROFILE: str
"""`release` or `debug`: figures of a debug build mean nothing."""
MAX_ATTEMPTS: int
"""How often one query can be sent upstream at most."""

class ListRefused(ValueError):  # noqa: N818
    """A text that does not become a zone.

    `args` are the first hundred problems as (line, value, reason), and how many there are.
    """

class NotAName(ValueError):  # noqa: N818
    """A text that is not a domain name; the message says why."""

def canonical_name(text: str) -> str:
    """The domain name that a text means, in lower-case A-labels and without a trailing dot.

    Lists are read by the same parser. Raises `NotAName`, and `UnicodeEncodeError` for a lone surrogate.
    """

class NotCompiled(RuntimeError):  # noqa: N818
    """Entries that do not become a list although each can be meant: an attack on its table, or a fault."""

class ListUnfit(ValueError):  # noqa: N818
    """A file that is no list in text.

    `args` are its label, a code (`NOT_TEXT`, `CORRUPT`, `UNREADABLE`), and what was found and what to do.
    """

class NamesUnusable(ValueError):  # noqa: N818
    """A file that is no compiled list of this version, or whose octets are not those that were asked for."""

@final
class Names:
    """A compiled list: names and what is said about each. Immutable; of a file, mapped and read only.

    The file is named by its SHA-256, and the same text makes the same octets on every machine.
    """

    @staticmethod
    def open(path: str, sha256: str) -> Names:
        """Maps a file whose octets have this SHA-256. Raises `OSError` and `NamesUnusable`."""

    def scope(self, text: str) -> str | None:
        """What is said about exactly this canonical name: `subtree`, `exact` or `below`, each with `except-`
        or `pass-` before it for an exception; two of them with a comma, where the name and what is below
        differ.
        """

    def difference(self, before: Names) -> ListDifference:
        """What this list says that the one before did not, and the other way round, whole."""

    def give_back(self) -> None:
        """Gives its memory back to the kernel; it can be used as before, and is read again then."""

    def populate(self) -> None:
        """Reads all of it into memory, so that no query waits for the disk."""

    @property
    def is_damaged(self) -> bool:
        """Whether its file was cut off, or could not be read, while it was in use: names are missing then."""

    @property
    def entries(self) -> int:
        """Names that are listed; those that are only excepted do not count."""

    @property
    def digest(self) -> str:
        """`sha256:` over the names and what is said about them: the same from every format."""

    @property
    def sha256(self) -> str:
        """Of all octets, in hexadecimal."""

    @property
    def octets(self) -> int: ...

@final
class ListDifference:
    """How two lists differ. A changed name is listed in both, with something else said about it."""

    added: int
    removed: int
    changed: int
    lost: int
    """Names of which less is covered than before: gone, narrowed, or excepted now."""
    gained: int
    """Names of which more is covered than before."""
    lines: bytes | None
    """`+ SCOPE NAME` and `- SCOPE NAME`, a line each; None where they are more than 32 MiB."""

@final
class Progress:
    """How much of a list was read, for another thread that shows it."""

    def __new__(cls) -> Progress: ...
    @property
    def octets(self) -> int: ...

@final
class CompiledList:
    """A compiled list, and what became of each of its lines.

    `lines` are those that say something: accepted + repaired + duplicate + not applicable + rejected. Lines
    that are not applicable are understood, and say what names cannot. Of the lines that name something,
    `exceptions` are exceptions. `apexless` names are listed as `*.name` alone. The first hundred of each kind
    are told as (file, line, value, code, text). `sources` are (label, octets, SHA-256, ends with a line
    feed); `formats`, of each file in turn, (format, lines that name something).
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

def compile_list(
    files: Sequence[tuple[str, str]],
    *,
    format: str | None,  # noqa: A002  # the word that the configuration has
    scope: str | None,
    column: int,
    separator: str,
    repairs: Sequence[str],
    exceptions: str,
    max_octets: int,
    suffixes: Sequence[str],
    suffix_parents: Sequence[str],
    suffix_exceptions: Sequence[str],
    protected: Sequence[str],
    folder: str | None,
    before: Names | None,
    progress: Progress,
) -> CompiledList:
    """Compiles files, each with its label for reports; into `folder`, or into memory.

    Files that are compressed with gzip are read as their text, of which all files together may have
    `max_octets`.

    `exceptions` says what the exceptions of the list do: `hole`, `passthru`, `auto` (as in the format), or
    `listed`. Malformed lines are left out and reported. Each entry is looked up through the code that
    answers queries before this returns. Raises `OSError`, `NotCompiled`, `ListUnfit`, and `ValueError` for
    unfit options.
    """

@final
class Answer:
    """An answer profile. `ttl` in seconds; `extended_error` an INFO-CODE of RFC 8914.

    A target `*.NAME` is the queried name under that one. Raises `ValueError` for an unknown action, and for a
    target without action `cname` or the other way round.
    """

    def __new__(
        cls,
        action: str,
        *,
        ttl: int,
        extended_error: int | None = None,
        addresses: Sequence[IPv4Address | IPv6Address] = ...,
        target: str | None = None,
    ) -> Answer: ...

@final
class Rule:
    """What an entry does: answer, or, with None, be a hole through which the next zone is asked.

    `reference` is the order's own number, at most 200 octets; clients get it as EXTRA-TEXT. `structured` is
    what those get that read structured errors: the whole JSON, and a brief one for where that does not fit.
    """

    def __new__(
        cls, answer: Answer | None, reference: str = "", structured: tuple[str, str] | None = None
    ) -> Rule: ...

@final
class PolicyZone:
    """One issuer's orders or one list, compiled. Immutable."""

    @staticmethod
    def from_names(name: str, names: Names, rule: Rule) -> PolicyZone:
        """A zone of a compiled list: what it lists has this rule; what it excepts is a hole or passes."""

    @staticmethod
    def from_triggers(name: str, names: Names, rule: Rule) -> PolicyZone:
        """A zone of a compiled list of addresses. Raises `ValueError` for a list of names."""

    @staticmethod
    def from_addresses(name: str, data: bytes, rule: Rule) -> PolicyZone:
        """Compiles a list of addresses and prefixes, one a line, `#` comments. Raises `ListRefused`."""

    @staticmethod
    def from_entries(name: str, rules: Sequence[Rule], data: bytes) -> PolicyZone:
        """Compiles `MATCH RULE NAME` lines, RULE being a place in `rules`. Raises `ListRefused`.

        Of entries that say different things about one name, `exact` beats `subtree` and `below`, then a hole
        beats an answer, then the earlier line wins.
        """

    def lookup(self, names: bytes) -> bytes:
        """One octet for each line of `names`: 1 where the zone covers it, as for a query."""

    @property
    def name(self) -> str: ...
    @property
    def entries(self) -> int:
        """Distinct owner names, or prefixes; those that are only excepted do not count."""

    @property
    def digest(self) -> str:
        """`sha256:` over names and rules in canonical order."""

@final
class Covering:
    """An entry that covers a name or an address.

    `action` is None for a hole, `scope` is `prefix` for addresses. No entry of a zone in shadow decides.
    """

    zone: str
    entry: str
    scope: str
    action: str | None
    reference: str
    decides: bool  # over UDP
    decides_over_tcp: bool  # differs where a zone of `truncate` comes first
    is_shadow: bool

@final
class Snapshot:
    """The policy zones in configured order. Immutable.

    Each zone comes with the Unix time, in seconds, of its next scheduled change, to which its TTLs are cut,
    with whether it judges the targets (CNAME, DNAME, HTTPS, SVCB) in upstreams' answers, and with whether it
    is in shadow: then it decides nothing, and what it would block is counted. `nat64` are the prefixes of
    translators beside the well-known one (RFC 6052), as addresses and lengths.
    """

    def __new__(
        cls,
        zones: Sequence[tuple[PolicyZone, int | None, bool, bool]],
        serial: int,
        nat64: Sequence[tuple[IPv4Address | IPv6Address, int]] = ...,
    ) -> Snapshot: ...
    @staticmethod
    def digest_of(
        zones: Sequence[tuple[PolicyZone, int | None, bool, bool]],
        nat64: Sequence[tuple[IPv4Address | IPv6Address, int]] = ...,
    ) -> str:
        """The digest that a snapshot of these zones has."""

    def covering(self, text: str) -> list[Covering]:
        """Every entry that covers a canonical name, zones in order; at most one decides."""

    def covering_address(self, address: IPv4Address | IPv6Address) -> list[Covering]:
        """Every prefix that holds an address, zones in order, longest first; at most one decides."""

    @property
    def serial(self) -> int: ...
    @property
    def digest(self) -> str:
        """`sha256:` over the zones' names and digests, and what each zone is for, in order."""

    @property
    def entries(self) -> int:
        """Entries that are enforced."""

@final
class Suffixes:
    """The public suffix list: suffixes, names whose children all are suffixes, and those children that
    are none. Raises `ValueError` for what is no name.
    """

    def __new__(cls, names: Sequence[str], parents: Sequence[str], exceptions: Sequence[str]) -> Suffixes: ...

@final
class Rules:
    """What queries are decided by beside the snapshot; exchanged together with it.

    `exempt` networks are not limited. 0 means no limit for `queries_per_second`, `errors_per_second` and
    `amplification` (octets of a response for each of the query), and no answer at all for `slip`.
    `secrets` sign cookies: the first signs, all verify. `resinfo` is the RDATA of a RESINFO record.
    `cache_octets` of memory are for upstreams' answers (0: none is kept); `max_ttl`, `max_negative_ttl`
    and `max_stale` (0: never) are seconds for which upstreams' answers are kept. Raises `ValueError` for
    what is out of bounds.
    """

    def __new__(
        cls,
        *,
        clients: Sequence[tuple[IPv4Address | IPv6Address, int]],
        drop_others: bool,
        exempt: Sequence[tuple[IPv4Address | IPv6Address, int]],
        queries_per_second: int,
        errors_per_second: int,
        slip: int,
        amplification: int,
        secrets: Sequence[bytes],
        max_payload: int,
        idle_timeout_ms: int,
        structured_option: int | None,
        soa: tuple[str, str],
        special_names: bool,
        private_reverse: bool,
        canary: bool,
        resinfo: bytes | None,
        cache_octets: int,
        max_ttl: int,
        max_negative_ttl: int,
        max_stale: int,
        prefetch: bool,
        suffixes: Suffixes,
    ) -> Rules: ...

@final
class Probe:
    """A question by which upstreams are seen to be alive; `.` is the root. `failures` of them in a row and an
    upstream is down, `successes` and it is up again. Raises `ValueError` for what is out of bounds.
    """

    def __new__(
        cls,
        *,
        question: str,
        qtype: int,
        interval_ms: int,
        timeout_ms: int,
        failures: int,
        successes: int,
    ) -> Probe: ...

@final
class Settings:
    """How the engine takes queries and forwards them; a publish may change it.

    Times in milliseconds, sizes in octets, bounds for all threads together but `max_outstanding`, which is
    per thread; `max_connections` is per listener, and
    `max_connections_per_network` a quarter of it where it is `None`.

    Upstreams are address, port, weight and order. `choice` is `first`, `least_outstanding`, `weighted` or
    `hashed`; `tells` is `none` or `proxy` with None, or `subnet` with the bits of IPv4 and IPv6 addresses
    that are told, and whether of private ones, too. Raises `ValueError` for what is out of bounds.
    """

    def __new__(
        cls,
        *,
        max_payload: int,
        upstreams: Sequence[tuple[IPv4Address | IPv6Address, int, int, int]],
        choice: str,
        attempts: int,
        attempt_timeout_ms: int,
        max_outstanding: int,
        probe: Probe | None,
        tells: tuple[str, tuple[int, int, bool] | None],
        max_connections: int,
        max_connections_per_client: int,
        max_connections_per_network: int | None,
        max_pipelined: int,
        idle_timeout_ms: int,
        read_timeout_ms: int,
    ) -> Settings: ...

@final
class UpstreamCounts:
    """What was counted about one upstream. Buckets are (upper bound in seconds, count), not cumulative."""

    address: tuple[str, int]
    udp_queries: int
    tcp_queries: int
    timeouts: int
    network_errors: int
    mismatches: int
    taken_over: int
    """Queries that were sent to another at once, as this one was not up any more."""
    unwilling: int
    failures: int
    """Answers that say that it does not answer such a query; another was asked."""
    is_up: bool
    is_without_edns: bool
    is_suspected: bool
    """Not used, until a health check has told whether it is down."""
    changed: tuple[int, str] | None
    """When it last went up or down, in Unix seconds, and why."""
    outstanding: int
    probes: dict[str, int]
    """By what became of them: `good`, `bad` (an answer that says that it cannot), `lost`."""
    latency_buckets: list[tuple[float, int]]
    latency_seconds: float

@final
class Counts:
    """All worker threads' counters, summed."""

    queries: dict[tuple[str, str], int]
    """By transport and outcome."""
    blocked: dict[tuple[str, str], int]
    """By zone and action."""
    shadow_blocked: dict[tuple[str, str], int]
    """The same of zones in shadow: what they would have blocked."""
    upstreams: list[UpstreamCounts]
    tcp_connections: int
    tcp_refused: dict[str, int]
    """Connections closed at once, by who had its share: `client` or `network`."""
    outstanding: int
    panics: int
    unsent: int
    truncated: int
    """Responses over UDP with TC set."""
    dropped_records: int
    """Records of upstreams' responses that were not passed on."""
    limited: dict[str, int]
    """Queries and error answers above a client's limit, by what became of them."""
    rcodes: dict[str, int]
    """Responses to clients, by RCODE."""
    waited: dict[str, tuple[list[tuple[float, int]], float]]
    """Time to these responses, by who made them ("here", "upstream"): buckets as above, and their sum."""
    joined: int
    """Queries that waited for a question that was under way already."""
    prefetched: int
    refused: dict[str, int]
    """Questions asked again because their answer was about to expire."""
    cache_entries: int
    cache_octets: int
    cache_evictions: int
    """Kept answers that had to make room."""

@final
class Tally:
    """What a trial has counted so far."""

    queries: int
    """Queries that were decided, whatever their name."""
    blocked: int
    """Of them, those that the zone would have blocked."""
    decided: int
    """And those for its names about which a zone that is enforced decides already."""
    blocking_names: int
    """Names by which at least one query would have been blocked."""
    asked_names: int
    """Names that were asked for, decided by others already or not."""
    top: list[tuple[str, int]]
    """The names by which most would have been blocked, the highest count first."""

@final
class Trial:
    """A zone whose entries are counted and never decide."""

    def tally(self, top: int) -> Tally:
        """What was counted so far, with at most so many names."""

@final
class Listening:
    """Addresses that are listened on, while nothing is answered there yet."""

@final
class Engine:
    """Sockets and worker threads; serves one snapshot at a time. Modelled on `asyncio.Server`."""

    def __new__(
        cls,
        listen: Sequence[tuple[IPv4Address | IPv6Address, int]],
        workers: int,
        settings: Settings,
        inherited: Sequence[int],
    ) -> Engine:
        """Binds. Raises `OSError`, whose `filename` is the address that cannot be had.

        `inherited` are descriptors that the previous process has left open. Sockets among them that listen on
        one of these addresses are used instead of new ones, with the queries that have queued up in them.
        They are duplicated; the caller closes its own.
        """

    def start(self, snapshot: Snapshot, rules: Rules) -> None:
        """Starts to answer. Raises `RuntimeError` when called twice."""

    def check(self, snapshot: Snapshot) -> None:
        """Raises `ValueError` for a snapshot that `publish` would refuse; changes nothing."""

    def listen(self, listen: Sequence[tuple[IPv4Address | IPv6Address, int]]) -> Listening:
        """Binds what is new among these addresses; `publish` then serves them, and closes others.

        Raises `OSError`, whose `filename` is the address that cannot be had.
        """

    def publish(
        self,
        snapshot: Snapshot,
        rules: Rules,
        settings: Settings | None = None,
        listening: Listening | None = None,
    ) -> None:
        """Every query that comes after this returns is judged by these; on an error nothing changes.

        Upstreams that are in the settings still keep what is known of them, and addresses their sockets.
        Without settings or addresses, those of before stay.
        """

    def begin_trial(self, zone: PolicyZone) -> Trial:
        """Counts from now on what this zone would block behind all others, whatever is published meanwhile.

        Raises `RuntimeError` while there is one already, and before `start` or after `stop`.
        """

    def end_trial(self) -> None:
        """Takes the trial away, if there is one."""

    def stop(self, patience_ms: int) -> None:
        """Takes no more queries, answers what was asked, and joins. May be called again."""

    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens; ports that were 0 have become real ones."""

    def sockets(self) -> list[tuple[tuple[str, int], list[int]]]:
        """The descriptors of the sockets of each of these addresses; they stay the engine's."""

    def running(self) -> int:
        """Worker threads that are alive."""

    def take_events(self) -> list[str]:
        """Rare events since the last call, for the log. Frees old snapshots; call it once a second."""

    def counters(self) -> Counts: ...
    def purge(self, name: str | None, below: bool) -> int:
        """Drops what is kept about a canonical name, with `below` about all below it too; None: everything.

        Returns how many answers that were. Raises `ValueError` for what is no name.
        """

def keep_capabilities() -> None:
    """Keeps the permitted capabilities of this thread when root becomes another user. Raises `OSError`."""

def keep_net_bind_service() -> None:
    """Gives up all capabilities of this thread but CAP_NET_BIND_SERVICE. Raises `OSError`."""
