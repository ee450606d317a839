"""Reads one list: compiles it, compares it with the enforced version, and applies the guards."""

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dnsblock._engine import CompiledList, ListUnreadable, Names, NotCompiled, Progress
from dnsblock.config import Config
from dnsblock.config_zones import Zone
from dnsblock.control import command_line
from dnsblock.errors import HistoryUnwritable, Problem, Refused
from dnsblock.lists.compile import ADDRESSES, ZONE, Options
from dnsblock.lists.files import ListFiles, Skipped, ensure_readable, heads_of, sha256_of, size_of
from dnsblock.lists.guards import NOT_COMPILED, NOT_FETCHED, UNREADABLE, Finding, judge
from dnsblock.lists.history.facts import Compiled, Current, NewVersion, Version
from dnsblock.lists.report import Report
from dnsblock.lists.sources import Source, source_of
from dnsblock.lists.store import Store, digest_of
from dnsblock.log import event, fault


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a list was rejected, and the content that it had then."""

    fingerprint: str
    options: str
    source_sha256: str  # empty: it could not be read or compiled
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]  # the reasons, including the reported lines
    at: datetime
    report: Report | None = None

    @property
    def is_unfetched(self) -> bool:
        """Whether it is a feed that was not fetched yet, which is not an error."""
        return self.findings[0].code == NOT_FETCHED


@dataclass(frozen=True, slots=True)
class ListVersion:
    """The version of a list to enforce."""

    names: Names
    fingerprint: str
    version: Version | None  # None: new, not in the history yet
    new: NewVersion | None = None
    files: ListFiles | None = None  # the files of a new version, until their content is stored
    rejection: Rejection | None = None  # set if the current content was rejected and this is an older version
    skipped: tuple[Skipped, ...] = ()  # entries of its folder that are not read

    @property
    def report(self) -> Report:
        """The report on its lines."""
        recorded = self.version or self.new
        assert recorded is not None  # noqa: S101  # it is either new or in the history
        return recorded.compiled.report


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the list of a zone."""

    zone: Zone
    config: Config
    store: Store
    now: datetime
    progress: Progress
    is_optional: bool = False  # the daemon can run without this list
    lost: Version | None = None  # the last enforced version, if its compiled file and content are lost

    @property
    def options(self) -> Options:
        """The options for compiling the list."""
        return Options.of(self.zone, self.config)

    @property
    def source(self) -> Source:
        """Where the list comes from."""
        return source_of(self.zone, self.store)

    def read(self, enforced: ListVersion | None) -> ListVersion | Rejection:
        """Reads the list. Returns `enforced`, the enforced version, if nothing has changed."""
        options = self.options.text
        if enforced is None and self.lost is None and self.source.is_unfetched:
            return self._not_fetched()
        try:
            files = self.source.files()
        except Refused as err:
            return self._unreadable("", err)
        if enforced is not None and self._is_known(enforced, files, options):
            # Reading ten million names again would delay orders.
            is_same = enforced.skipped == files.skipped
            return enforced.rejection or (enforced if is_same else replace(enforced, skipped=files.skipped))
        try:
            ensure_readable(files.files)
            if enforced is not None and self._is_the_same(enforced, files, options):
                self._note_fingerprint(enforced, files)
                return replace(enforced, fingerprint=files.fingerprint, rejection=None, skipped=files.skipped)
            compiled = self._compile(files, enforced)
            heads = heads_of(files.files)
        except Refused as err:
            return self._unreadable(files.fingerprint, err)
        except ListUnreadable as err:
            return self._unfit(files, err)
        except (OSError, NotCompiled) as err:
            reason = self._not_compiled(err)
            problem = Problem(files.place, None, "", f"the list cannot be compiled: {reason}")
            return self._rejection(files.fingerprint, (Finding(NOT_COMPILED, reason),), (problem,))
        return self._judged(files, compiled, heads, enforced)

    def _not_fetched(self) -> Rejection:
        reason = "not fetched yet: a running daemon fetches it automatically after startup or a reload"
        problem = Problem(self.source.label, None, "", reason)
        return self._rejection("", (Finding(NOT_FETCHED, reason),), (problem,))

    def _rejection(
        self, fingerprint: str, findings: tuple[Finding, ...], problems: tuple[Problem, ...]
    ) -> Rejection:
        """A rejection without content that the operator could accept."""
        return Rejection(fingerprint, self.options.text, "", findings, problems, self.now)

    def _unreadable(self, fingerprint: str, err: Refused) -> Rejection:
        findings = tuple(Finding(UNREADABLE, problem.reason) for problem in err.problems)
        return self._rejection(fingerprint, findings, err.problems)

    def _unfit(self, files: ListFiles, err: ListUnreadable) -> Rejection:
        """Rejects the content. The same files are read again only if a reload may have raised the limit."""
        label, code, reason = err.args
        findings = (Finding(code, reason),)
        problems = (Problem(label, None, "", str(findings[0])),)
        try:
            sha256 = sha256_of(files.files)
        except OSError:  # they will be read again
            sha256 = ""
        options = "" if code == UNREADABLE else self.options.text
        return Rejection(files.fingerprint, options, sha256, findings, problems, self.now)

    def _not_compiled(self, err: OSError | NotCompiled) -> str:
        if isinstance(err, NotCompiled):
            return str(err)
        folder = self.store.compiled
        advice = f"check the free space and the permissions of {folder} (`df -h`)"
        return f"{err.strerror or err}: {advice}; dnsblock retries automatically"

    def failed(self, err: Exception) -> Rejection:
        """The rejection after an unexpected exception."""
        problems: tuple[Problem, ...]
        if isinstance(err, Refused):
            problems = err.problems
        else:
            fault(f"internal error while reading list {self.zone.name}", zone=self.zone.name)
            reason = f"internal error ({type(err).__name__}: {err}): please report it with the log"
            problems = (Problem(self.source.label, None, "", reason),)
        findings = tuple(Finding(NOT_COMPILED, problem.reason) for problem in problems)
        return self._rejection("", findings, problems)

    def _is_known(self, enforced: ListVersion, files: ListFiles, options: str) -> bool:
        """Whether the files are unchanged since the last read, so that they need not be read again."""
        if not files.fingerprint:
            return False
        if (rejection := enforced.rejection) is not None:
            if not rejection.source_sha256:
                return False  # the disk may have space now
            with self.store.history() as history:
                overruled = history.approved(self.zone.name, rejection.source_sha256, options)
            is_approved = overruled.issuperset(one.code for one in rejection.findings)
            read = (rejection.fingerprint, rejection.options)
            return read == (files.fingerprint, options) and not is_approved
        if (version := enforced.version) is None:
            return False
        return (enforced.fingerprint, version.compiled.options) == (files.fingerprint, options)

    def _is_the_same(self, enforced: ListVersion, files: ListFiles, options: str) -> bool:
        """Whether the files have the content of the version despite a new fingerprint: faster than compiling.

        The content of a version that was just rolled back counts as unchanged, too: the operator has decided.
        """
        version = enforced.version
        if version is None:
            return False
        wanted = [version]
        if version.how != "rollback":
            if size_of(enforced.fingerprint) not in (None, files.size):
                return False  # another size means other content
        else:
            with self.store.history() as history:
                before = history.version(self.zone.name, version.number - 1)
            wanted += [] if before is None else [before]
        sha256 = sha256_of(files.files)
        return any((one.compiled.source_sha256, one.compiled.options) == (sha256, options) for one in wanted)

    def _compile(self, files: ListFiles, enforced: ListVersion | None) -> CompiledList:
        return self.options.compile(
            files.files,
            folder=None if self.store.read_only else self.store.compiled,
            before=None if enforced is None else enforced.names,
            progress=self.progress,
            max_bytes=self.zone.max_bytes,
        )

    def _judged(
        self, files: ListFiles, compiled: CompiledList, heads: Sequence[bytes], enforced: ListVersion | None
    ) -> ListVersion | Rejection:
        options, sha256 = self.options.text, digest_of(compiled.sources)
        before = self.lost if enforced is None else enforced.version
        former_format = "" if before is None else before.compiled.report.format
        report = Report.of(compiled, self.options.match, former_format)
        with self.store.history() as history:
            overruled = history.approved(self.zone.name, sha256, options)
            replayed = None if before is None else history.was_accepted(self.zone.name, sha256)
        lists_exceptions = self.options.lists_exceptions
        found = judge(self.zone, compiled, heads, before, replayed, lists_exceptions=lists_exceptions)
        # The guards also judge content that was accepted by hand: another guard may reject it now.
        if findings := tuple(one for one in found if one.code not in overruled):
            problems = tuple(self._problems(files, report, sha256, findings, before))
            return Rejection(files.fingerprint, options, sha256, findings, problems, self.now, report)
        new = NewVersion(
            zone=self.zone.name,
            compiled=_facts(compiled, sha256, options, report),
            difference=_difference(compiled, enforced),
            accepted_at=self.now,
            how="accepted by hand" if found else "first" if before is None else "refresh",
            fingerprint=files.fingerprint,
        )
        return ListVersion(compiled.names, files.fingerprint, None, new, files, skipped=files.skipped)

    def _note_fingerprint(self, enforced: ListVersion, files: ListFiles) -> None:
        if files.fingerprint and files.fingerprint != enforced.fingerprint and not self.store.read_only:
            try:
                with self.store.history() as history:
                    history.set_fingerprint(self.zone.name, files.fingerprint)
            except HistoryUnwritable as err:  # harmless: it is read again after a restart
                text = f"the fingerprint of list {self.zone.name} could not be recorded: {err}"
                event(logging.ERROR, text, zone=self.zone.name)

    def _problems(
        self,
        files: ListFiles,
        report: Report,
        sha256: str,
        findings: Sequence[Finding],
        before: Version | None,
    ) -> Iterator[Problem]:
        """The problems of a rejected list: first its invalid lines, then those of the list as a whole."""
        if any(one.code in ("TOO_MANY_REJECTED", "EMPTY") for one in findings):
            bad = [*report.of_kind("rejected"), *report.of_kind("left out")]
            if any(one.code == "EMPTY" for one in findings):
                bad += [*report.of_kind("not applicable"), *report.of_kind("lost exception")]
            yield from (one.problem for one in sorted(bad, key=lambda one: (one.file, one.line)))
        for one in findings:
            yield Problem(files.place, None, "", str(one))
        if before is not None or self.is_optional:  # only a running daemon can accept it
            state = "none of the list is enforced"
            if before is not None:
                state = f"version {before.number} stays in force"
            words = ("source", "accept", self.zone.name, sha256, "--reason", "…")
            reason = f"{state}. To accept this content anyway: {command_line(self.config.path, *words)}"
            yield Problem(files.place, None, "", reason)

    # ------- After a restart -------

    def last_enforced(self) -> ListVersion | None:
        """Returns the version that the previous process enforced last."""
        with self.store.history() as history:
            current = history.current(self.zone.name)
        if current is None or not is_of_kind(self.zone, current.version):
            return None
        names = self.store.names(current.version) or self._compile_again(current)
        if names is None:
            return None
        self.store.enforce(current)
        return ListVersion(names, current.fingerprint, current.version)

    def _compile_again(self, current: Current) -> Names | None:
        """Compiles the names of a version from its stored content. The same content gives the same file."""
        version = current.version
        options = _options_of(version)
        compiled = None if options is None else self._compile_stored(version, options, None)
        if compiled is None:
            return None
        if compiled.names.sha256 != version.compiled.file_sha256:
            event(logging.ERROR, f"the stored content of list {self.zone.name} is corrupt and not used")
            return None
        event(logging.WARNING, f"list {self.zone.name} was compiled again from its stored content")
        return compiled.names

    def _compile_stored(
        self, version: Version, options: Options, before: Names | None
    ) -> CompiledList | None:
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
            event(logging.ERROR, f"the stored content of list {self.zone.name} cannot be compiled: {err}")
            return None

    # ------- Older content and the names that are protected now -------

    def leaves_out_as(self, version: Version) -> bool:
        """Whether a version was compiled with the same names dropped as the current options drop."""
        options = _options_of(version)
        return options is not None and options.leaves_out_as(self.options)

    def without_protected(
        self, version: Version, enforced: ListVersion, how: str, note: str
    ) -> ListVersion | None:
        """Compiles the content of a version without the names that are protected now. None if it is lost.

        The other options stay those of the version: the current ones may be for content in another format.
        """
        then = _options_of(version)
        options = None if then is None else then.leaving_out_as(self.options)
        compiled = None if options is None else self._compile_stored(version, options, enforced.names)
        if options is None or compiled is None:
            return None
        report = Report.of(compiled, options.match)
        new = NewVersion(
            zone=self.zone.name,
            compiled=_facts(compiled, version.compiled.source_sha256, options.text, report),
            difference=_difference(compiled, enforced),
            accepted_at=self.now,
            how=how,
            note=note,
            fingerprint=enforced.fingerprint,
        )
        return ListVersion(compiled.names, enforced.fingerprint, None, new)

    def with_current_protection(self, enforced: ListVersion) -> ListVersion:
        """The version to enforce while the current content is rejected, without the names protected now.

        Otherwise a broken feed would keep a name blocked that the operator has just protected.
        """
        if enforced.version is None or self.store.read_only or self.leaves_out_as(enforced.version):
            return enforced
        note = "the settings drop other names now"
        if (version := self.without_protected(enforced.version, enforced, "settings", note)) is not None:
            return version
        text = f"list {self.zone.name}: names that are protected now remain blocked"
        event(logging.ERROR, f"{text}: the content of version {enforced.version.number} is not stored")
        return enforced


def is_of_kind(zone: Zone, version: Version) -> bool:
    """Whether the version is of the zone's current kind: names, addresses, or a policy zone."""
    options = _options_of(version)
    if options is None:
        return True
    formats = {"addresses": ADDRESSES, "rpz": ZONE}
    return formats.get(zone.kind) == (options.format if options.format in formats.values() else None)


def _options_of(version: Version) -> Options | None:
    """The options of a version; None if another version of dnsblock wrote them."""
    try:
        return Options.from_text(version.compiled.options)
    except (ValueError, TypeError):
        return None


def _difference(compiled: CompiledList, enforced: ListVersion | None) -> bytes | None:
    if compiled.difference is None or enforced is None or enforced.version is None:
        return None
    # None if too much changed: the comparison restarts, as with a new list.
    return compiled.difference.lines


def _facts(compiled: CompiledList, source_sha256: str, options: str, report: Report) -> Compiled:
    names = compiled.names
    return Compiled(source_sha256, names.sha256, names.digest, options, report)
