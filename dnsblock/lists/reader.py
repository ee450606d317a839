"""Reads one list: compiles it, compares it with the enforced version, and applies the guards."""

import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dnsblock._engine import CompiledList, ListUnreadable, Names, NotCompiled, Progress
from dnsblock.config import Config, Zone
from dnsblock.control import command_line
from dnsblock.errors import HistoryUnwritable, Problem, Refused
from dnsblock.lists import files as texts
from dnsblock.lists.compile import ADDRESSES, Options, formats_of
from dnsblock.lists.files import ListFiles, Skipped
from dnsblock.lists.guards import NOT_COMPILED, NOT_FETCHED, UNREADABLE, Guarded, judge
from dnsblock.lists.history.database import FILE, damaged
from dnsblock.lists.history.facts import Compiled, Current, NewVersion, Version
from dnsblock.lists.report import Report
from dnsblock.lists.store import Store, digest_of
from dnsblock.log import event, fault


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a list was rejected, and the content that it had then."""

    known_by: str
    options: str
    source_sha256: str  # empty: it could not be read or compiled
    guarded: tuple[Guarded, ...]
    problems: tuple[Problem, ...]  # the reasons, including the reported lines
    at: datetime
    report: Report | None = None

    @property
    def is_to_come(self) -> bool:
        """Whether it is a feed that was not fetched yet, which is not an error."""
        return self.guarded[0].code == NOT_FETCHED


@dataclass(frozen=True, slots=True)
class ListVersion:
    """The version of a list to enforce."""

    names: Names
    report: Report
    known_by: str
    version: Version | None  # None: new, not in the history yet
    new: NewVersion | None = None
    text: ListFiles | None = None  # the files of a new version, until their content is stored
    rejection: Rejection | None = None  # set if the current content was rejected and this is an older version
    skipped: tuple[Skipped, ...] = ()  # entries of its folder that are not read


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the list of a zone."""

    zone: Zone
    config: Config
    store: Store
    now: datetime
    progress: Progress
    goes_on_without: bool = False  # the daemon can run without this list
    lost: Version | None = None  # the last enforced version, if its compiled file and content are lost

    @property
    def options(self) -> Options:
        """The options for compiling the list."""
        return Options.of(self.zone, self.config)

    def read(self, held: ListVersion | None) -> ListVersion | Rejection:
        """Reads the list. Returns `held`, the enforced version, if nothing has changed."""
        options = self.options.text
        if held is None and self.lost is None and self._is_to_come:
            return self._not_fetched()
        try:
            text = texts.files_of(self.zone, self.store)
        except Refused as err:
            return self._unreadable("", err)
        if held is not None and self._is_known(held, text, options):
            # Reading ten million names again would delay orders.
            is_same = held.skipped == text.skipped
            return held.rejection or (held if is_same else replace(held, skipped=text.skipped))
        try:
            texts.ensure_readable(text.files)
            if held is not None and self._is_the_same(held, text, options):
                self._know(held, text)
                return replace(held, known_by=text.known_by, rejection=None, skipped=text.skipped)
            compiled = self._compile(text, held)
            heads = texts.heads_of(text.files)
        except Refused as err:
            return self._unreadable(text.known_by, err)
        except ListUnreadable as err:
            return self._unfit(text, err)
        except (OSError, NotCompiled) as err:
            reason = self._not_compiled(err)
            guarded = (Guarded(NOT_COMPILED, reason),)
            problems = (Problem(text.place, None, "", f"the list cannot be compiled: {reason}"),)
            return Rejection(text.known_by, options, "", guarded, problems, self.now)
        return self._judged(text, compiled, heads, held)

    @property
    def _is_to_come(self) -> bool:
        return self.zone.is_feed and not self.store.download(self.zone.name).exists()

    def _not_fetched(self) -> Rejection:
        reason = "not fetched yet: a daemon fetches it by itself, right after a reload or at its first start"
        problem = Problem(str(self.zone.place).partition("?")[0], None, "", reason)
        guarded = (Guarded(NOT_FETCHED, reason),)
        return Rejection("", self.options.text, "", guarded, (problem,), self.now)

    def _unreadable(self, known_by: str, err: Refused) -> Rejection:
        guarded = tuple(Guarded(UNREADABLE, problem.reason) for problem in err.problems)
        return Rejection(known_by, self.options.text, "", guarded, err.problems, self.now)

    def _unfit(self, text: ListFiles, err: ListUnreadable) -> Rejection:
        """Rejects the content. The same files are read again only if a reload may have raised the limit."""
        label, code, reason = err.args
        guarded = (Guarded(code, reason),)
        problems = (Problem(label, None, "", str(guarded[0])),)
        try:
            sha256 = texts.sha256_of(text.files)
        except OSError:  # they will be read again
            sha256 = ""
        options = "" if code == UNREADABLE else self.options.text
        return Rejection(text.known_by, options, sha256, guarded, problems, self.now)

    def _not_compiled(self, err: OSError | NotCompiled) -> str:
        if isinstance(err, NotCompiled):
            return str(err)
        folder = self.store.compiled
        advice = f"see that the disk of {folder} has room (`df -h`) and that the daemon may write there"
        return f"{err.strerror or err}: {advice}; it is tried again by itself"

    def failed(self, err: Exception) -> Rejection:
        """The rejection after an unexpected exception."""
        problems: tuple[Problem, ...]
        if isinstance(err, Refused):
            problems = err.problems
        else:
            fault(f"a fault while list {self.zone.name} was read", zone=self.zone.name)
            reason = f"a fault in dnsblock ({type(err).__name__}: {err}): report it with what the log says"
            problems = (Problem(str(self.zone.place).partition("?")[0], None, "", reason),)
        guarded = tuple(Guarded(NOT_COMPILED, problem.reason) for problem in problems)
        return Rejection("", self.options.text, "", guarded, problems, self.now)

    def _is_known(self, held: ListVersion, text: ListFiles, options: str) -> bool:
        """Whether the files are unchanged since the last read, so that they need not be read again."""
        if not text.known_by:
            return False
        if (refused := held.rejection) is not None:
            if not refused.source_sha256:
                return False  # the disk may have space now
            with self.store.history() as history:
                overruled = history.approved(self.zone.name, refused.source_sha256, options)
            is_approved = overruled.issuperset(guarded.code for guarded in refused.guarded)
            return (refused.known_by, refused.options) == (text.known_by, options) and not is_approved
        version = held.version
        return version is not None and (held.known_by, version.compiled.options) == (text.known_by, options)

    def _is_the_same(self, held: ListVersion, text: ListFiles, options: str) -> bool:
        """Whether the files have the content of the version despite a new fingerprint: faster than compiling.

        The content of a version that was just rolled back counts as unchanged, too: the operator has decided.
        """
        version = held.version
        if version is None:
            return False
        wanted = [version]
        if version.how != "rollback":
            if texts.octets_of(held.known_by) not in (None, text.octets):
                return False  # another size means other content
        else:
            with self.store.history() as history:
                before = history.version(self.zone.name, version.number - 1)
            wanted += [] if before is None else [before]
        sha256 = texts.sha256_of(text.files)
        return any((one.compiled.source_sha256, one.compiled.options) == (sha256, options) for one in wanted)

    def _compile(self, text: ListFiles, held: ListVersion | None) -> CompiledList:
        return self.options.compile(
            text.files,
            folder=None if self.store.read_only else self.store.compiled,
            before=None if held is None else held.names,
            progress=self.progress,
            max_bytes=self.zone.source.max_mb << 20,
        )

    def _judged(
        self, text: ListFiles, compiled: CompiledList, heads: Sequence[bytes], held: ListVersion | None
    ) -> ListVersion | Rejection:
        options, sha256 = self.options.text, digest_of(compiled.sources)
        before = self.lost if held is None else held.version
        report = Report.of(compiled, self.options.match, "" if before is None else before.compiled.format)
        with self.store.history() as history:
            overruled = history.approved(self.zone.name, sha256, options)
            replayed = None if before is None else history.was_accepted(self.zone.name, sha256)
        lists_exceptions = self.options.lists_exceptions
        found = judge(self.zone, compiled, heads, before, replayed, lists_exceptions=lists_exceptions)
        # The guards also judge content that was accepted by hand: another guard may reject it now.
        if guarded := tuple(one for one in found if one.code not in overruled):
            problems = tuple(self._problems(text, report, sha256, guarded, before))
            return Rejection(text.known_by, options, sha256, guarded, problems, self.now, report)
        new = NewVersion(
            zone=self.zone.name,
            compiled=_facts(compiled, sha256, options, report),
            difference=_difference(compiled, held),
            accepted_at=self.now,
            how="accepted by hand" if found else "first" if before is None else "refresh",
            known_by=text.known_by,
        )
        return ListVersion(compiled.names, report, text.known_by, None, new, text, skipped=text.skipped)

    def _know(self, held: ListVersion, text: ListFiles) -> None:
        if text.known_by and text.known_by != held.known_by and not self.store.read_only:
            try:
                with self.store.history() as history:
                    history.know(self.zone.name, known_by=text.known_by, validators="")
            except HistoryUnwritable as err:  # harmless: it is read again after a restart
                text_told = f"what list {self.zone.name} is known by could not be written down: {err}"
                event(logging.ERROR, text_told, zone=self.zone.name)

    def _problems(
        self,
        text: ListFiles,
        report: Report,
        sha256: str,
        guarded: Sequence[Guarded],
        before: Version | None,
    ) -> Iterator[Problem]:
        """The problems of a rejected list: first its invalid lines, then those of the list as a whole."""
        if any(one.code in ("TOO_MANY_REJECTED", "EMPTY") for one in guarded):
            bad = [*report.of_kind("rejected"), *report.of_kind("left out")]
            if any(one.code == "EMPTY" for one in guarded):
                bad += [*report.of_kind("not applicable"), *report.of_kind("lost exception")]
            yield from (told.problem for told in sorted(bad, key=lambda told: (told.file, told.line)))
        for one in guarded:
            yield Problem(text.place, None, "", str(one))
        if before is not None or self.goes_on_without:  # only a running daemon can accept it
            stays = "nothing of the list is enforced"
            if before is not None:
                stays = f"version {before.number} stays in force"
            words = ("source", "accept", self.zone.name, sha256, "--reason", "…")
            reason = f"{stays}. To accept this content anyway: {command_line(self.config.path, *words)}"
            yield Problem(text.place, None, "", reason)

    # ------- After a restart -------

    def enforced(self) -> ListVersion | None:
        """Returns the version that the previous process enforced last."""
        with self.store.history() as history:
            current = history.current(self.zone.name)
            try:
                report = None if current is None else Report.from_text(current.version.compiled.report)
            except (ValueError, TypeError, LookupError) as err:
                raise damaged(self.store.folder / FILE, f"the report of list {self.zone.name}") from err
        if current is None or report is None or not self.is_of_this_kind(current.version):
            return None
        names = self.store.names(current.version) or self._compile_again(current)
        if names is None:
            return None
        self.store.enforce(current)
        return ListVersion(names, report, current.known_by, current.version)

    def is_of_this_kind(self, version: Version) -> bool:
        """Whether the version is of the zone's current kind: names or addresses."""
        options = _options_of(version)
        return options is None or (options.format == ADDRESSES) == (self.zone.kind == "addresses")

    def _compile_again(self, current: Current) -> Names | None:
        """Compiles the names of a version from its stored content. The same content gives the same file."""
        version = current.version
        options = _options_of(version)
        compiled = None if options is None else self._compile_kept(version, options, None)
        if compiled is None:
            return None
        if compiled.names.sha256 != version.compiled.file_sha256:
            event(logging.ERROR, f"the text of list {self.zone.name} that was kept is another: not used")
            return None
        event(logging.WARNING, f"list {self.zone.name} was compiled again from the text that was kept")
        return compiled.names

    def _compile_kept(self, version: Version, options: Options, before: Names | None) -> CompiledList | None:
        """Compiles the stored content of a version. None if it is not stored or cannot be compiled."""
        if self.store.read_only:
            return None
        try:
            with self.store.content(version) as files:
                if not files:
                    return None
                folder = self.store.compiled
                return options.compile(files, folder=folder, before=before, progress=self.progress)
        except (OSError, EOFError, zlib.error, NotCompiled, ListUnreadable) as err:
            event(logging.ERROR, f"the text of list {self.zone.name} cannot be compiled again: {err}")
            return None

    # ------- Older content and the names that are protected now -------

    def leaves_out_as(self, version: Version) -> bool:
        """Whether a version was compiled with the same names dropped as the current options drop."""
        options = _options_of(version)
        return options is not None and options.leaves_out_as(self.options)

    def renewed(self, version: Version, held: ListVersion, how: str, note: str) -> ListVersion | None:
        """Compiles the content of a version without the names that are protected now. None if it is lost.

        The other options stay those of the version: the current ones may be for content in another format.
        """
        then = _options_of(version)
        options = None if then is None else then.leaving_out_as(self.options)
        compiled = None if options is None else self._compile_kept(version, options, held.names)
        if options is None or compiled is None:
            return None
        report = Report.of(compiled, options.match)
        new = NewVersion(
            zone=self.zone.name,
            compiled=_facts(compiled, version.compiled.source_sha256, options.text, report),
            difference=_difference(compiled, held),
            accepted_at=self.now,
            how=how,
            note=note,
            known_by=held.known_by,
        )
        return ListVersion(compiled.names, report, held.known_by, None, new)

    def protecting(self, held: ListVersion) -> ListVersion:
        """The version to enforce while the current content is rejected, without the names protected now.

        Otherwise a broken feed would keep a name blocked that the operator has just protected.
        """
        if held.version is None or self.store.read_only or self.leaves_out_as(held.version):
            return held
        note = "other names are left out by the settings now"
        if (renewed := self.renewed(held.version, held, "settings", note)) is not None:
            return renewed
        text = f"list {self.zone.name}: names that no list may block by the settings of now stay blocked"
        event(logging.ERROR, f"{text}, since the text of version {held.version.number} is kept no more")
        return held


def _options_of(version: Version) -> Options | None:
    """The options of a version; None if another version of dnsblock wrote them."""
    try:
        return Options.from_text(version.compiled.options)
    except (ValueError, TypeError):
        return None


def _difference(compiled: CompiledList, held: ListVersion | None) -> bytes | None:
    if compiled.difference is None or held is None or held.version is None:
        return None
    # None if too much changed: the comparison restarts, as with a new list.
    return compiled.difference.lines


def _facts(compiled: CompiledList, source_sha256: str, options: str, report: Report) -> Compiled:
    return Compiled(
        source_sha256=source_sha256,
        file_sha256=compiled.names.sha256,
        names_digest=compiled.names.digest,
        format=formats_of(compiled),
        options=options,
        entries=compiled.names.entries,
        lines=compiled.lines,
        accepted=compiled.accepted,
        repaired=compiled.repaired,
        duplicate=compiled.duplicate,
        rejected=compiled.rejected,
        report=json.dumps(report.as_json()),
    )
