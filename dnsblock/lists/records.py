"""Records in the history: accepted versions, rejected lists and served snapshots."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dnsblock.config import Config, HistoryOptions
from dnsblock.errors import HistoryUnwritable, Refused
from dnsblock.lists.history.facts import Current, Published, RejectedContent, Version
from dnsblock.lists.history.history import History
from dnsblock.lists.lists import Lists
from dnsblock.lists.reader import Rejection
from dnsblock.lists.sources import source_of
from dnsblock.log import event

VERSIONS = 100  # the content of the newest versions is stored while they have a compiled file: at least these


def accept(lists: Lists) -> None:
    """Records new versions before they are enforced.

    Raises `HistoryUnwritable` and `Refused`; nothing is recorded then.
    """
    new = lists.new
    if not new:
        return
    news = [listed.new for listed in new if listed.new is not None]
    versions = lists.store.record(lambda history: history.accept(news))
    for version, one in zip(versions, news, strict=True):
        lists.store.enforce(Current(version, one.fingerprint))
    lists.accepted(versions)
    for version, listed in zip(versions, new, strict=True):
        text = f"accepted version {version.number} of list {version.zone}: {listed.report.summary}"
        event(logging.INFO, text, zone=version.zone, sha256=version.compiled.source_sha256)
        if former := listed.report.former_format:
            text = f"the format of list {version.zone} is now {listed.report.format}, previously {former}"
            event(logging.WARNING, text, zone=version.zone)
        for left_out in listed.report.left_out:
            event(logging.WARNING, f"list {version.zone} contains a name that no list may block: {left_out}")
        for warning in listed.report.warnings:
            event(logging.WARNING, f"list {version.zone}: {warning}", zone=version.zone)


def record_rejection(lists: Lists, zone: str, rejection: Rejection) -> None:
    """Records why a list was rejected, and removes its compiled file.

    An error is logged. No other list may be read at the same time: its compiled file would be removed, too.
    """
    for finding in rejection.findings:
        text = f"list {zone} is rejected: {rejection.problems[0].file}: {finding}"
        event(logging.ERROR, text, zone=zone, code=finding.code)
        rejected = RejectedContent(
            zone=zone,
            source_sha256=rejection.source_sha256,
            code=finding.code,
            message=finding.message,
            numbers=json.dumps(dict(finding.numbers)),
            at=rejection.at,
        )
        try:
            lists.store.record(partial(History.record_rejection, rejected=rejected))
        except (HistoryUnwritable, Refused) as err:
            event(logging.ERROR, f"the rejection could not be recorded: {err}")
    try:
        # A feed that is broken for weeks brings new content twice a day, each as large as the list.
        lists.store.sweep()
    except (Refused, OSError) as err:
        event(logging.ERROR, f"the compiled file of a rejected list could not be removed: {err}")


def store_content(lists: Lists, generations: int) -> None:
    """Stores the content of compiled versions, in case a compiled file becomes unusable.

    Runs in the background: a list of ten million names takes some seconds.
    """
    try:
        for zone, listed in list(lists.listed.items()):
            if listed.files is not None and listed.version is not None:
                _store(lists, listed.version, listed.files.files)
                lists.listed[zone] = replace(listed, files=None)
            # Older versions may share the file of a newer one that lists the same names.
            versions = lists.store.record(
                partial(History.versions, zone=zone, limit=max(VERSIONS, generations))
            )
            stored = {version.compiled.source_sha256 for version in versions if version.has_file}
            lists.store.drop_content(zone, stored)
    except (Refused, OSError) as err:
        event(logging.ERROR, f"the content of a list could not be stored: {err}")


def store_missing_content(lists: Lists, config: Config) -> None:
    """Stores the content of current versions that a previous process left unstored, if still available."""
    for zone in config.zones:
        listed = lists.listed.get(zone.name)
        if listed is None or listed.version is None or lists.store.has_content(listed.version):
            continue
        try:
            _store(lists, listed.version, source_of(zone, lists.store).files().files)
        except (Refused, OSError) as err:
            event(logging.ERROR, f"the content of a list could not be stored: {err}", zone=zone.name)


def _store(lists: Lists, version: Version, files: Sequence[tuple[str, str]]) -> None:
    if lists.store.store_content(version.zone, version.compiled.source_sha256, files):
        return
    text = f"the content of version {version.number} of list {version.zone} was not stored: it has changed"
    event(logging.WARNING, f"{text}; only the compiled file remains", zone=version.zone)


def served(lists: Lists, published: Published, options: HistoryOptions, before: Lists | None) -> None:
    """Records a snapshot that is now served, and removes older lists beyond the configured number.

    `before`: the lists that were enforced until now.
    """
    try:
        lists.store.record(lambda history: history.record_snapshot(published, keep=options.snapshots))
        lists.store.prune(list(lists.listed), options.generations)
    except (HistoryUnwritable, Refused, OSError) as err:
        event(logging.ERROR, f"the served snapshot could not be recorded: {err}")
    now = {listed.names.sha256: listed.names for listed in lists.listed.values()}
    past = {} if before is None else {one.names.sha256: one.names for one in before.listed.values()}
    # Free the previous list first, so that both are not in memory at the same time.
    for sha256 in past.keys() - now.keys():
        past[sha256].release_memory()
    for sha256 in now.keys() - past.keys():
        now[sha256].populate()
