"""Options of the dnstap output. `Config.dnstap` has them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dnsblock.values import Number, Options, ReaderAddress, SocketPath, as_written

# Any text: it is `identity` or `version` of each event, which readers print.
Label = Annotated[str, Field(min_length=1, max_length=255)]


class ClientPrefix(Options):
    """How many bits of a client's address are sent. With fewer than all, its port is sent as 0."""

    ipv4: Annotated[int, Number, Field(ge=0, le=32)] = 24
    ipv6: Annotated[int, Number, Field(ge=0, le=128)] = 56


class Dnstap(Options):
    """The dnstap output: copies of DNS messages for a reader outside of this process (dnstap.info)."""

    socket: SocketPath | None = None  # the reader's Unix socket
    tcp: ReaderAddress | None = None  # or its address and port
    messages: Literal["policy", "responses", "all"] = "policy"
    identity: Label | None = None
    version: Label | None = None
    client_prefix: ClientPrefix = as_written({})

    @model_validator(mode="after")
    def _has_one_reader(self) -> Self:
        if (self.socket is None) == (self.tcp is None):
            raise ValueError("set either socket or tcp: the reader has one address")
        return self
