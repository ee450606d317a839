"""Compiles the content of a list in the engine, with the options of its zone."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from dnsblock._engine import CompiledList, Names, Progress, compile_list, compile_zone
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.suffixes import public_suffixes, public_suffixes_digest

ADDRESSES = "addresses"  # the format of a list of addresses
ZONE = "zone"  # the format of a policy zone with the answers of its records
MAX_BYTES = 16 << 30  # of content, if no configuration sets a lower limit
COMPILER = 3  # increment it if the same content would now compile to different names


@dataclass(frozen=True, slots=True)
class Options:
    """Everything besides the content that determines a compiled list."""

    compiler: int
    format: str | None  # None: detect it
    match: str | None  # None: the default of the format
    column: int
    separator: str
    repair: tuple[str, ...]
    exceptions: str  # the effect of exceptions in the list; `listed`: the list consists of exceptions
    public_suffixes: str | None  # digest of the public suffixes to drop; None: keep them
    protected: tuple[str, ...]
    zone: str = ""  # of a policy zone: its name, where its file does not say it

    @classmethod
    def of(cls, zone: Zone, config: Config) -> Self:
        """Returns the options of a zone. Nothing is dropped from an allow list."""
        source = zone.source
        if zone.kind == "addresses":
            repair = tuple(sorted(source.repair))
            return cls(COMPILER, ADDRESSES, None, 1, ",", repair, "auto", public_suffixes=None, protected=())
        if zone.kind == "rpz":
            suffixes = public_suffixes_digest() if source.guards.leaves_out_public_suffixes else None
            protected = tuple(sorted(config.protected))
            return cls(COMPILER, ZONE, None, 1, ",", (), "auto", suffixes, protected, zone=zone.name)
        is_block = not config.answer(zone.answer).is_passthru
        leaves_out = is_block and source.guards.leaves_out_public_suffixes
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
    def for_impact_run(cls, match: str | None, config: Config | None = None) -> Self:
        """Returns the options for an impact run. With a configuration, names that it protects are dropped."""
        repair = ("bom", "case", "crlf", "dot")
        if config is None:
            return cls(COMPILER, None, match, 1, ",", repair, "auto", public_suffixes=None, protected=())
        protected = tuple(sorted(config.protected))
        return cls(COMPILER, None, match, 1, ",", repair, "auto", public_suffixes_digest(), protected)

    @property
    def lists_exceptions(self) -> bool:
        """Whether the list consists of exceptions, or of names to let through."""
        return self.exceptions == "listed"

    @property
    def text(self) -> str:
        """The options as JSON."""
        written = asdict(self)
        if not self.zone:
            del written["zone"]  # as before there were policy zones
        return json.dumps(written, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parses `text`. Raises `ValueError` or `TypeError` if another version of dnsblock wrote it."""
        read: dict[str, Any] = json.loads(text)
        lists = {key: tuple(part) for key, part in read.items() if isinstance(part, list)}
        return cls(**{**read, **lists})

    def leaves_out_as(self, other: Self) -> bool:
        """Whether both drop the same names from every list."""
        return (self.public_suffixes, self.protected) == (other.public_suffixes, other.protected)

    def leaving_out_as(self, other: Self) -> Self:
        """These options, but with the names to drop taken from `other`."""
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
        """Compiles files, given as (label, path), into a folder or into memory.

        Raises `OSError`, `NotCompiled`, and `ListUnreadable` for a file that is not text, or for more than
        `max_bytes` of content.
        """
        suffixes, parents, exceptions = public_suffixes() if self.public_suffixes else ((), (), ())
        if self.format == ZONE:
            return compile_zone(
                files,
                name=self.zone,
                takes_wide=self.public_suffixes is None,
                max_bytes=max_bytes,
                suffixes=suffixes,
                suffix_parents=parents,
                suffix_exceptions=exceptions,
                protected=self.protected,
                folder=None if folder is None else str(folder),
                before=before,
                progress=progress,
            )
        return compile_list(
            files,
            format=self.format,
            scope=self.match,
            column=self.column,
            separator=self.separator,
            repairs=self.repair,
            exceptions=self.exceptions,
            max_bytes=max_bytes,
            suffixes=suffixes,
            suffix_parents=parents,
            suffix_exceptions=exceptions,
            protected=self.protected,
            folder=None if folder is None else str(folder),
            before=before,
            progress=progress,
        )


def formats_of(compiled: CompiledList) -> str:
    """The detected or configured formats of a list. A folder may hold several."""
    naming = {form for form, lines in compiled.formats if lines}
    return ", ".join(sorted(naming or {form for form, _ in compiled.formats}))
