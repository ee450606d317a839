"""The options of the ledger: who stores and cosigns its checkpoints. `Config.ledger` has them."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from dnsblock.values import FilePath, HttpsFolder, Options, Origin, WitnessKey, as_written


class CheckpointPlaces(Options):
    """Further places where signed checkpoints of the ledger are stored."""

    folder: FilePath | None = None
    url: HttpsFolder | None = None  # each checkpoint is PUT to this URL and its file name
    ca: FilePath | None = None  # null: the system trust store
    authorization: FilePath | None = None  # a file with one line, the header

    @model_validator(mode="after")
    def _belongs_to_a_url(self) -> Self:
        if self.url is None and (self.ca or self.authorization):
            raise ValueError("ca and authorization belong to url")
        return self


class WitnessOptions(Options):
    """A server that cosigns checkpoints (C2SP tlog-witness)."""

    url: HttpsFolder
    key: WitnessKey
    ca: FilePath | None = None  # null: the system trust store


class LedgerOptions(Options):
    """The ledger: its name, and who stores and cosigns its checkpoints."""

    origin: Origin | None = None  # null: made from the instance's key
    checkpoints: CheckpointPlaces = as_written({})
    witnesses: Annotated[tuple[WitnessOptions, ...], Field(max_length=16)] = ()
