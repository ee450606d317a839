"""Goes back to the lists of an earlier snapshot. Orders are not touched: only an order ends an order."""

from datetime import datetime

from dnsblock.config import Config
from dnsblock.errors import Problem, Refused
from dnsblock.policy.history import History
from dnsblock.policy.history_facts import NewVersion, Version
from dnsblock.policy.reading import Listed
from dnsblock.policy.reports import Report
from dnsblock.policy.sources import Lists


def lists_of(serial: int, reason: str, lists: Lists, config: Config, now: datetime) -> Lists:
    """The lists of a snapshot's serial, as new versions of theirs, to be published.

    What is gone back from is withdrawn: its text does not come back by itself, only another one does. Raises
    `Refused` where a version is not known or not kept any more.
    """
    with lists.store.history() as history:
        snapshot = history.snapshot(serial)
        if snapshot is None:
            raise _refused(serial, "no such serial is kept; `dnsblock versions` lists them")
        others: dict[str, Listed] = {}
        for zone, now_listed in lists.listed.items():
            number = snapshot.versions.get(zone)
            if number is None or now_listed.version is None:
                continue  # the zone was not there then: the configuration decides about zones
            if (wanted := history.version(zone, number)) is None:
                raise _refused(serial, f"version {number} of list {zone} is not in the history")
            if wanted.compiled.file_sha256 != now_listed.version.compiled.file_sha256:
                note = f"back to version {number}, serial {serial}: {reason}"
                new = _new_version(wanted, now_listed, note, now, history)
                others[zone] = _listed(wanted, now_listed, new, lists)
    if not others:
        raise _refused(serial, "its lists are those that are enforced now; orders are not rolled back")
    return lists.with_others(config, others)


def _new_version(wanted: Version, listed: Listed, note: str, now: datetime, history: History) -> NewVersion:
    assert listed.version is not None  # noqa: S101  # the caller has looked
    return NewVersion(
        zone=wanted.zone,
        compiled=wanted.compiled,
        difference=_difference(wanted, listed.version, history),
        accepted_at=now,
        how="rollback",
        note=note,
        withdraws=listed.version.number,
        # The file is what it was: it is not read again until it is written to.
        known_by=listed.known_by,
    )


def _listed(wanted: Version, listed: Listed, new: NewVersion, lists: Lists) -> Listed:
    names = lists.store.names(wanted) if wanted.has_file else None
    if names is None:
        where = f"version {wanted.number} of list {wanted.zone}"
        reason = "its compiled file is kept no more: `history.generations` says how many are"
        raise Refused([Problem(where, None, "", reason)])
    return Listed(names, Report.from_text(wanted.compiled.report), listed.known_by, None, new)


def _difference(wanted: Version, current: Version, history: History) -> bytes | None:
    """From the current version back to the wanted one, as the history knows it."""
    try:
        changes = history.difference(wanted.zone, current.number, wanted.number)
    except Refused:
        return None  # one between them was compared with nothing
    lines: list[str] = []
    for change in changes:
        if change.before is not None:
            lines.append(f"- {change.before} {change.name}\n")
        if change.after is not None:
            lines.append(f"+ {change.after} {change.name}\n")
    return "".join(lines).encode()


def _refused(serial: int, reason: str) -> Refused:
    return Refused([Problem(f"serial {serial}", None, "", reason)])
