"""Compiles the text of a list, as the configuration says, through the engine."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from dnsblock._engine import CompiledList, Names, Progress, compile_list
from dnsblock.config import Config, Zone
from dnsblock.suffixes import public_suffixes, public_suffixes_digest

ADDRESSES = "addresses"  # the format of a list that is none of names
MAX_BYTES = 16 << 30  # of text, where no configuration says less
COMPILER = 3  # goes up whenever the same text would compile to other names


@dataclass(frozen=True, slots=True)
class Options:
    """All that a compiled list depends on beside its text."""

    compiler: int
    format: str | None  # None: to be recognised
    match: str | None  # None: as the format has it
    column: int
    separator: str
    repair: tuple[str, ...]
    exceptions: str  # what the exceptions of the list do; `listed`: they are what it lists
    public_suffixes: str | None  # digest of those that are left out; None: they are taken
    protected: tuple[str, ...]

    @classmethod
    def of(cls, zone: Zone, config: Config) -> Self:
        """Those of a zone. An allow list may name what it likes."""
        source = zone.source
        if zone.kind == "addresses":
            repair = tuple(sorted(source.repair))
            return cls(COMPILER, ADDRESSES, None, 1, ",", repair, "auto", public_suffixes=None, protected=())
        is_block = config.answer(zone.answer).action != "passthru"
        leaves_out = is_block and source.guards.public_suffix == "leave_out"
        return cls(
            compiler=COMPILER,
            format=None if source.format == "auto" else source.format,
            match=zone.match,
            column=source.column,
            separator="\t" if source.separator == "tab" else source.separator,
            repair=tuple(sorted(source.repair)),
            exceptions=source.exceptions if is_block else "listed",
            public_suffixes=public_suffixes_digest() if leaves_out else None,
            protected=tuple(sorted(config.protected)) if is_block else (),
        )

    @classmethod
    def for_trial(cls, match: str | None, config: Config | None = None) -> Self:
        """Those of a list that is only tried; with a configuration, without what no list may block there."""
        repair = ("bom", "case", "crlf", "dot")
        if config is None:
            return cls(COMPILER, None, match, 1, ",", repair, "auto", public_suffixes=None, protected=())
        protected = tuple(sorted(config.protected))
        return cls(COMPILER, None, match, 1, ",", repair, "auto", public_suffixes_digest(), protected)

    @property
    def lists_exceptions(self) -> bool:
        """Whether the list is one of exceptions, or of names that pass."""
        return self.exceptions == "listed"

    @property
    def text(self) -> str:
        """The same as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `text` was. Raises `ValueError` or `TypeError` for another one's."""
        read: dict[str, Any] = json.loads(text)
        lists = {key: tuple(part) for key, part in read.items() if isinstance(part, list)}
        return cls(**{**read, **lists})

    def leaves_out_as(self, other: Self) -> bool:
        """Whether the same names are left out, whatever a list says."""
        return (self.public_suffixes, self.protected) == (other.public_suffixes, other.protected)

    def leaving_out_as(self, other: Self) -> Self:
        """The same, but for what is left out."""
        return replace(
            self, compiler=COMPILER, public_suffixes=other.public_suffixes, protected=other.protected
        )

    def compile(
        self,
        files: Sequence[tuple[str, str]],
        *,
        folder: Path | None,
        before: Names | None,
        progress: Progress,
        max_bytes: int = MAX_BYTES,
    ) -> CompiledList:
        """Compiles files, as (label, path), into a folder or memory.

        Raises `OSError`, `NotCompiled`, and `ListUnfit` for a file that is no text, or for more than
        `max_bytes` of text.
        """
        suffixes, parents, exceptions = public_suffixes() if self.public_suffixes else ((), (), ())
        return compile_list(
            files,
            format=self.format,
            scope=self.match,
            column=self.column,
            separator=self.separator,
            repairs=self.repair,
            exceptions="hole" if self.exceptions == "exempt" else self.exceptions,  # the engine's word
            max_octets=max_bytes,
            suffixes=suffixes,
            suffix_parents=parents,
            suffix_exceptions=exceptions,
            protected=self.protected,
            folder=None if folder is None else str(folder),
            before=before,
            progress=progress,
        )


def formats_of(compiled: CompiledList) -> str:
    """The formats that a list was read in; of a folder they may be several."""
    naming = {form for form, lines in compiled.formats if lines}
    return ", ".join(sorted(naming or {form for form, _ in compiled.formats}))
