"""Files with policy zones for other software. `Config.exports` has them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dnsblock.values import DnsName, FilePath, Identifier, Options

ExportFormat = Literal["rpz", "text", "hosts"]


class ExportFile(Options):
    """A file with policy zones for other software, which is kept current."""

    file: FilePath
    format: ExportFormat = "rpz"
    origin: DnsName | None = None  # the name of the zone; of rpz
    zones: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()  # empty: all that are enforced

    @model_validator(mode="after")
    def _has_its_name(self) -> Self:
        if (self.format == "rpz") != (self.origin is not None):
            raise ValueError("origin is the name of the zone: rpz needs one, and other formats have none")
        return self
