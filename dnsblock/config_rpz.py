"""Policy zones in RPZ format, whose records say how names are answered. `Zone.rpz` has the options.

They are in a zone file, or they come from the zone's primaries by zone transfer.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dnsblock.values import (
    DnsName,
    Endpoint,
    FilePath,
    Networks,
    NotEmpty,
    Number,
    Options,
    Primary,
)

GIVEN = "given"  # the answer of a zone of records: what they say (BIND's `policy given`)
Late = Literal["keep", "shadow", "withdraw"]  # what happens to a list whose servers do not answer
DNS_PORT, TLS_PORT = 53, 853  # RFC 1035 section 4.2; RFC 9103 section 7.3.1


class TransferKey(Options):
    """A key shared with the primaries, which signs all messages (TSIG, RFC 8945)."""

    name: DnsName
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    secret_file: FilePath  # one line, in base64


class TransferTls(Options):
    """Zone transfer over TLS (RFC 9103)."""

    name: DnsName  # in the primary's certificate
    ca: FilePath | None = None  # PEM; null: the system trust store


class RpzOptions(Options):
    """A policy zone in RPZ format (draft-vixie-dnsop-dns-rpz-00)."""

    file: FilePath | None = None  # a zone file
    primaries: Annotated[tuple[Primary, ...], Field(max_length=16), NotEmpty] | None = None
    key: TransferKey | None = None
    tls: TransferTls | None = None
    notify_from: Networks = ()  # who may send NOTIFY, besides the primaries
    # After the time that the zone's SOA record says, without any contact to a primary.
    on_expire: Late = "keep"
    max_records: Annotated[int, Number, Field(ge=1, le=100_000_000)] = 30_000_000
    max_mb: Annotated[int, Number, Field(ge=1, le=16_384)] = 2048  # MiB, of messages and of the copy
    timeout_s: Annotated[int, Number, Field(ge=1, le=86_400)] = 600  # for a whole transfer
    # Seconds: no answer that the records give has a longer TTL. A block that ends is gone as soon.
    max_ttl: Annotated[int, Number, Field(ge=0, le=86_400)] = 30
    extended_error: Literal["auto", "none", "15", "16", "17"] = "auto"  # RFC 8914; auto: 15

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if (self.file is None) == (self.primaries is None):
            raise ValueError("rpz must have either file or primaries")
        of_transfers = {"key", "tls", "notify_from", "on_expire", "max_records", "max_mb", "timeout_s"}
        if self.primaries is None and (unused := of_transfers & self.model_fields_set):
            raise ValueError(f"{', '.join(sorted(unused))}: belongs to primaries, not to a file")
        return self

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """The primaries with their ports."""
        port = DNS_PORT if self.tls is None else TLS_PORT
        return tuple(Endpoint(one.host, one.port or port) for one in self.primaries or ())

    @property
    def place(self) -> Any:
        """The zone file, or the primaries as text."""
        return self.file or ", ".join(map(str, self.servers))

    @property
    def is_authentic(self) -> bool:
        """Whether nobody between a primary and this server can change a transfer."""
        return self.primaries is None or self.key is not None or self.tls is not None

    @property
    def info_code(self) -> int | None:
        """The INFO-CODE of the answers that the records give."""
        if self.extended_error == "auto":
            return 15
        return None if self.extended_error == "none" else int(self.extended_error)
