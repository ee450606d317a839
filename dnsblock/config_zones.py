"""Policy zones: the orders of an issuer, or a list, and how they are read. `Config.zones` has them."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dnsblock.config_rpz import GIVEN, Late, RpzOptions
from dnsblock.names import canonical
from dnsblock.values import (
    AutoNumber,
    FilePath,
    FixedPercentLimit,
    Identifier,
    ListPlace,
    NameLimit,
    Networks,
    NotEmpty,
    Number,
    Options,
    PercentLimit,
    as_written,
)


class Guards(Options):
    """When a whole list is rejected. lists/guards.py defines `auto` for a feed, and for a file or folder.

    Percentages apply from 20 changed names.
    """

    shrank_percent: PercentLimit = as_written("auto")
    shrank_names: NameLimit = as_written("auto")
    grew_percent: PercentLimit = as_written("auto")
    grew_names: NameLimit = as_written("auto")
    rejected_percent: FixedPercentLimit = as_written("1")  # of the lines; 0: any
    truncated: Literal["reject", "accept"] = "reject"  # a last line without its line feed
    replayed: Literal["auto", "reject", "accept"] = "auto"  # an older version; auto: reject it for a feed
    public_suffix: Literal["leave_out", "accept"] = "leave_out"

    @property
    def accepts_truncated(self) -> bool:
        """Whether the last line may lack its line feed."""
        return self.truncated == "accept"

    @property
    def leaves_out_public_suffixes(self) -> bool:
        """Whether public suffixes are dropped."""
        return self.public_suffix == "leave_out"

    def accepts_replayed(self, *, is_feed: bool) -> bool:
        """Whether an older version may return: an operator may undo an edit of a file."""
        return not is_feed if self.replayed == "auto" else self.replayed == "accept"


Format = Literal[
    "auto", "plain", "subdomains", "hosts", "wildcard", "dnsmasq", "unbound", "adblock", "csv", "rpz"
]
_OF_AGE = ("max_age_s", "on_late")
Repair = Literal["bom", "crlf", "case", "dot", "scheme", "port", "path", "comma"]


class Source(Options):
    """How a list is read, how often it is polled or fetched, and its limits."""

    format: Format = "auto"
    column: Annotated[int, Number, Field(ge=1, le=1000)] = 1  # of csv, counted from 1
    separator: Literal[",", ";", "tab", "|"] = ","  # of csv
    repair: Annotated[tuple[Repair, ...], Field(max_length=8)] = ("bom", "crlf", "case", "dot")
    exceptions: Literal["auto", "exempt", "passthru"] = "auto"  # auto: passthru for rpz, exempt for others
    every_s: AutoNumber = as_written("auto")  # auto (None): 3600 for a feed, 5 for a file
    max_mb: Annotated[int, Number, Field(ge=1, le=16_384)] = 1024  # MiB of content
    timeout_s: Annotated[int, Number, Field(ge=1, le=86_400)] = 600  # for a whole download
    ca: FilePath | None = None  # null: the system trust store
    authorization: FilePath | None = None  # a file with one line, the header
    # Of a feed: how long after the last successful fetch its list counts as current; null: for ever.
    max_age_s: Annotated[int, Number, Field(ge=1, le=31_536_000)] | None = None
    on_late: Late = "keep"  # what happens then
    missing: Literal["reject", "start"] = "reject"  # at startup without any version of the list
    guards: Guards = as_written({})

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.every_s is not None and not 1 <= self.every_s <= 31_536_000:
            raise ValueError("every_s must be from 1 to 31536000, or auto")
        if self.max_age_s is None and "on_late" in self.model_fields_set:
            raise ValueError("on_late belongs to max_age_s: without it, no list is late")
        if self.format != "csv" and {"column", "separator"} & self.model_fields_set:
            raise ValueError("column and separator belong to format csv")
        return self

    @property
    def may_be_missing(self) -> bool:
        """Whether the daemon starts without any version of the list."""
        return self.missing == "start"


class Zone(Options):
    """A policy zone: the orders of one issuer, or one list."""

    name: Identifier
    answer: Identifier  # the profile for entries without one
    issuer: Identifier | None = None
    unsigned: Literal["refuse", "accept"] = "refuse"  # of an issuer: how to treat unsigned orders
    names: ListPlace | None = Field(default=None, alias="list")  # a file, a folder or an https URL
    addresses: ListPlace | None = None  # the same, with addresses and prefixes to block in answers
    rpz: RpzOptions | None = None  # a policy zone whose records say the answers
    match: Literal["exact", "subtree", "below"] | None = None  # of a list: the names that each entry covers
    source: Source = as_written({})  # of a list, or of addresses
    # Whether the zone also applies to targets of CNAME, DNAME, HTTPS and SVCB records in upstream responses.
    targets: Literal["judge", "ignore"] = "judge"
    # shadow: matches are only counted, not blocked.
    mode: Literal["enforce", "shadow"] = "enforce"
    clients: Annotated[Networks, NotEmpty] | None = None  # those it applies to; null: all

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if [self.issuer, self.names, self.addresses, self.rpz].count(None) != 3:
            raise ValueError(f"zone {self.name} must have one of issuer, list, addresses and rpz")
        if self.issuer is not None and {"match", "source"} & self.model_fields_set:
            raise ValueError("match and source belong to a list: an order says itself what its entries match")
        if self.addresses is not None:
            of_names = {"match"} & self.model_fields_set
            of_names |= {"format", "column", "separator", "exceptions"} & self.source.model_fields_set
            of_names |= {"public_suffix"} & self.source.guards.model_fields_set
            if of_names:
                options = ", ".join(sorted(of_names))
                raise ValueError(f"{options}: belongs to a list of names, not of addresses")
        if self.match is not None and self.source.format not in ("auto", "plain", "hosts", "csv", "wildcard"):
            raise ValueError(
                f"match belongs to plain, hosts, csv and wildcard: {self.source.format} says it itself"
            )
        if self.match == "exact" and self.source.format == "wildcard":
            raise ValueError("match: exact would leave a list of *.name without effect: use subtree or below")
        feed_alone = {"ca", "authorization", "timeout_s", *_OF_AGE} & self.source.model_fields_set
        if isinstance(self.place, Path) and feed_alone:
            raise ValueError(f"{', '.join(sorted(feed_alone))}: belongs to a feed, not to a file")
        least = 2 * self.every_seconds
        if self.is_feed and self.source.max_age_s is not None and self.source.max_age_s < least:
            reason = f"must be at least twice every_s ({least:,}): one failed fetch would make the list late"
            raise ValueError(f"max_age_s {reason}")
        if self.issuer is None and "unsigned" in self.model_fields_set:
            raise ValueError("unsigned belongs to an issuer: a list is not signed")
        if self.addresses is not None and self.targets == "ignore":
            raise ValueError("targets: ignore would leave a zone of addresses without effect")
        return self

    @model_validator(mode="after")
    def _fits_rpz(self) -> Self:
        if self.rpz is None:
            if self.gives_answers:
                raise ValueError(
                    "answer given belongs to rpz: only the records of such a zone say the answer"
                )
            return self
        own = {"format", "column", "separator", "exceptions", "repair"}
        of_lists = {"match"} & self.model_fields_set | own & self.source.model_fields_set
        if of_lists:
            raise ValueError(f"{', '.join(sorted(of_lists))}: belongs to a list, not to rpz")
        feed_options = {"ca", "authorization", "timeout_s", "max_mb", "every_s", *_OF_AGE}
        of_feeds = feed_options & self.source.model_fields_set
        if self.is_transferred and of_feeds:
            raise ValueError(f"{', '.join(sorted(of_feeds))}: belongs to a list, see the options of rpz")
        if self.is_transferred:
            try:
                canonical(self.name)
            except ValueError as err:
                raise ValueError(f"its name must be that of the zone at its primaries: {err}") from err
        if self.targets == "ignore":
            raise ValueError("targets: ignore does not belong to rpz, whose triggers include them")
        if not self.gives_answers and {"max_ttl", "extended_error"} & self.rpz.model_fields_set:
            raise ValueError("max_ttl and extended_error belong to answer given: a profile has its own")
        return self

    @property
    def accepts_unsigned(self) -> bool:
        """Whether the issuer's unsigned orders are accepted."""
        return self.unsigned == "accept"

    @property
    def judges_targets(self) -> bool:
        """Whether it applies to targets in upstream responses."""
        return self.targets == "judge"

    @property
    def is_shadow(self) -> bool:
        """Whether matches are only counted."""
        return self.mode == "shadow"

    @property
    def gives_answers(self) -> bool:
        """Whether its records say the answers."""
        return self.answer == GIVEN

    @property
    def kind(self) -> Literal["orders", "list", "addresses", "rpz"]:
        """The source of the zone's entries."""
        if self.issuer is not None:
            return "orders"
        if self.rpz is not None:
            return "rpz"
        return "list" if self.addresses is None else "addresses"

    @property
    def place(self) -> Path | str | None:
        """The place of its list or zone file, or its primaries; None for an issuer's orders."""
        if self.rpz is not None:
            place: Path | str = self.rpz.place
            return place
        return self.names if self.addresses is None else self.addresses

    @property
    def is_transferred(self) -> bool:
        """Whether it is received by zone transfer."""
        return self.rpz is not None and self.rpz.primaries is not None

    @property
    def on_late(self) -> Late:
        """The consequence if its servers have not answered for too long."""
        return self.rpz.on_expire if self.rpz is not None and self.is_transferred else self.source.on_late

    @property
    def is_feed(self) -> bool:
        """Whether its list is fetched from a server: from a URL, or by zone transfer."""
        return isinstance(self.place, str)

    @property
    def max_bytes(self) -> int:
        """The largest content of its list."""
        mebibytes = self.source.max_mb if self.rpz is None or self.rpz.file else self.rpz.max_mb
        return mebibytes << 20

    @property
    def every_seconds(self) -> int:
        """How often its list is polled or fetched."""
        return self.source.every_s or (3600 if self.is_feed else 5)
