"""Policy zones in RPZ format, whose records say how names are answered. `Zone.rpz` has the options."""

from typing import Annotated, Literal

from pydantic import Field

from dnsblock.values import FilePath, Number, Options

GIVEN = "given"  # the answer of a zone of records: what they say (BIND's `policy given`)


class RpzOptions(Options):
    """A policy zone in RPZ format (draft-vixie-dnsop-dns-rpz-00)."""

    file: FilePath  # a zone file
    # Seconds: no answer that the records give has a longer TTL. A block that ends is gone as soon.
    max_ttl: Annotated[int, Number, Field(ge=0, le=86_400)] = 30
    extended_error: Literal["auto", "none", "15", "16", "17"] = "auto"  # RFC 8914; auto: 15

    @property
    def info_code(self) -> int | None:
        """The INFO-CODE of the answers that the records give."""
        if self.extended_error == "auto":
            return 15
        return None if self.extended_error == "none" else int(self.extended_error)
