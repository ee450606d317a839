"""Records in the history: accepted versions, rejected lists and served snapshots."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from dnsblock.config import Config, HistoryOptions
from dnsblock.errors import HistoryUnwritable, Refused
from dnsblock.lists.files import files_of
from dnsblock.lists.history.facts import Current, Published, Refusal, Version
from dnsblock.lists.history.history import History
from dnsblock.lists.lists import Lists
from dnsblock.lists.reader import Rejection
from dnsblock.lists.store import Store
from dnsblock.log import event, fault

END = object()
NOT_SORTED = "what a list changed could not be kept by name, and is tried again with the next new version"
OTHERS_SECONDS = 0.01  # between two steps, so that others can use the history
VERSIONS = 100  # at least so many of the newest versions keep their content while they have a compiled file


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
        lists.store.enforce(Current(version, one.known_by, one.validators))
    lists.accepted(versions)
    for version, listed in zip(versions, new, strict=True):
        text = f"accepted version {version.number} of list {version.zone}: {listed.report.summary}"
        event(logging.INFO, text, zone=version.zone, sha256=version.compiled.source_sha256)
        if former := listed.report.former_format:
            text = f"list {version.zone} is read as {listed.report.format} now, and was {former} before"
            event(logging.WARNING, text, zone=version.zone)
        for left_out in listed.report.left_out:
            event(logging.WARNING, f"list {version.zone} names what no list may block: {left_out}")
        for warning in listed.report.warnings:
            event(logging.WARNING, f"list {version.zone}: {warning}", zone=version.zone)


def refuse(lists: Lists, zone: str, rejection: Rejection) -> None:
    """Records why a list was rejected, and removes its compiled file.

    An error is logged. No other list may be read at the same time: its compiled file would be removed, too.
    """
    for guarded in rejection.guarded:
        text = f"list {zone} is rejected: {rejection.problems[0].file}: {guarded}"
        event(logging.ERROR, text, zone=zone, code=guarded.code)
        refusal = Refusal(
            zone=zone,
            source_sha256=rejection.source_sha256,
            code=guarded.code,
            message=guarded.message,
            numbers=json.dumps(dict(guarded.numbers)),
            at=rejection.at,
        )
        try:
            lists.store.record(partial(History.refuse, refusal=refusal))
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
            if listed.text is not None and listed.version is not None:
                _keep(lists, listed.version, listed.text.files)
                lists.listed[zone] = replace(listed, text=None)
            # Older versions may share the file of a newer one that lists the same names.
            versions = lists.store.record(
                partial(History.versions, zone=zone, limit=max(VERSIONS, generations))
            )
            kept = {version.compiled.source_sha256 for version in versions if version.has_file}
            lists.store.drop_content(zone, kept)
    except (Refused, OSError) as err:
        event(logging.ERROR, f"the text of a list could not be kept: {err}")


def sort_changes(store: Store, is_stopping: Callable[[], bool]) -> None:
    """Indexes the changes of large versions by name, in the background: 15 seconds per million changes."""
    try:
        with store.history() as history:
            steps = history.sort()
        while not is_stopping():
            with store.history():
                if next(steps, END) is END:
                    return
            time.sleep(OTHERS_SECONDS)
    except (HistoryUnwritable, Refused) as err:
        event(logging.ERROR, f"{NOT_SORTED}: {err}")
    except Exception:  # it must not stop DNS and orders
        fault(NOT_SORTED)


def store_missing_content(lists: Lists, config: Config) -> None:
    """Stores the content of current versions that a previous process left unstored, if still available."""
    for zone in config.zones:
        listed = lists.listed.get(zone.name)
        if listed is None or listed.version is None or lists.store.has_content(listed.version):
            continue
        try:
            _keep(lists, listed.version, files_of(zone, lists.store).files)
        except (Refused, OSError) as err:
            event(logging.ERROR, f"the text of a list could not be kept: {err}", zone=zone.name)


def _keep(lists: Lists, version: Version, files: Sequence[tuple[str, str]]) -> None:
    if lists.store.keep_content(version.zone, version.compiled.source_sha256, files):
        return
    text = f"the text of version {version.number} of list {version.zone} is not kept: it is another by now"
    event(logging.WARNING, f"{text}, and the compiled file is all that is left of it", zone=version.zone)


def served(lists: Lists, published: Published, options: HistoryOptions, before: Lists | None) -> None:
    """Records a snapshot that is now served, and removes older lists beyond the configured number.

    `before`: the lists that were enforced until now.
    """
    try:
        lists.store.record(lambda history: history.keep_snapshot(published, keep=options.snapshots))
        lists.store.prune(list(lists.listed), options.generations)
    except (HistoryUnwritable, Refused, OSError) as err:
        event(logging.ERROR, f"what is served could not be written down: {err}")
    now = {listed.names.sha256: listed.names for listed in lists.listed.values()}
    past = {} if before is None else {one.names.sha256: one.names for one in before.listed.values()}
    # First the one, though somebody may hold it for a moment; else both of them take their room in memory.
    for sha256 in past.keys() - now.keys():
        past[sha256].give_back()
    for sha256 in now.keys() - past.keys():
        now[sha256].populate()
