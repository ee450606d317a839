"""Rolls back to the lists of an earlier snapshot. Orders are not affected: only an order lifts an order."""

import logging
from dataclasses import replace
from datetime import datetime

from dnsblock._engine import Progress
from dnsblock.config import Config
from dnsblock.errors import Problem, Refused
from dnsblock.lists.history.facts import NewVersion, Version
from dnsblock.lists.lists import Lists
from dnsblock.lists.reader import ListVersion, Reader, is_of_kind
from dnsblock.log import event


def lists_of(serial: int, reason: str, lists: Lists, config: Config, now: datetime) -> Lists:
    """Returns the lists of the snapshot with this serial, as new versions to be published.

    The current versions are withdrawn: their content is not accepted again automatically. Names that are
    protected now are dropped from the older lists, too. A zone whose kind has changed since then stays as it
    is: only the configuration decides that. Raises `Refused` if a version is unknown or no longer stored.
    """
    with lists.store.history() as history:
        snapshot = history.snapshot(serial)
        if snapshot is None:
            raise _refused(serial, "this serial is not recorded; `dnsblock versions` lists the serials")
        wanted_versions: dict[str, Version] = {}
        for zone, now_listed in lists.listed.items():
            number = snapshot.versions.get(zone)
            if number is None or now_listed.version is None:
                continue  # the zone did not exist then: only the configuration adds and removes zones
            if (found := history.version(zone, number)) is None:
                raise _refused(serial, f"version {number} of list {zone} is not in the history")
            wanted_versions[zone] = found
    others: dict[str, ListVersion] = {}
    of_other_kind: list[str] = []
    for one in config.zones:
        if one.name in wanted_versions:
            wanted, now_listed = wanted_versions[one.name], lists.listed[one.name]
            if not is_of_kind(one, wanted):
                of_other_kind.append(one.name)
                continue
            note = f"back to version {wanted.number}, serial {serial}: {reason}"
            listed = _listed(wanted, now_listed, note, Reader(one, config, lists.store, now, Progress()))
            if listed.names.sha256 != now_listed.names.sha256:
                others[one.name] = listed
    kinds = f"the kind of {', '.join(of_other_kind)} has changed in the configuration since then"
    if not others:
        reason = kinds if of_other_kind else "its lists are in force already; orders are not rolled back"
        raise _refused(serial, reason)
    if of_other_kind:
        event(logging.WARNING, f"rollback to serial {serial}: not rolled back: {kinds}")
    return lists.with_others(config, others)


def _listed(wanted: Version, listed: ListVersion, note: str, reader: Reader) -> ListVersion:
    assert listed.version is not None  # noqa: S101  # the caller has checked
    if wanted.compiled.file_sha256 == listed.version.compiled.file_sha256:
        return listed
    where = f"version {wanted.number} of list {wanted.zone}"
    if not reader.leaves_out_as(wanted):
        renewed = reader.without_protected(wanted, listed, "rollback", note)
        if renewed is None or renewed.new is None:
            reason = "the protected names have changed since then, and its content is not stored"
            raise Refused([Problem(where, None, "", reason)])
        return replace(renewed, new=replace(renewed.new, withdraws=listed.version.number))
    names = reader.store.names(wanted) if wanted.has_file else None
    if names is None:
        reason = "its compiled file was removed; `history.generations` sets how many are stored"
        raise Refused([Problem(where, None, "", reason)])
    new = NewVersion(
        zone=wanted.zone,
        compiled=wanted.compiled,
        difference=_difference(wanted, listed.version, reader),
        accepted_at=reader.now,
        how="rollback",
        note=note,
        withdraws=listed.version.number,
        # The list file has not changed: it is read again only after the next write.
        fingerprint=listed.fingerprint,
    )
    return ListVersion(names, listed.fingerprint, None, new)


def _difference(wanted: Version, current: Version, reader: Reader) -> bytes | None:
    """The difference from the current version back to the wanted one, from the history."""
    lines: list[str] = []
    numbers: dict[str, str] = {}
    with reader.store.history() as history:
        try:
            changes = history.difference(wanted.zone, current.number, wanted.number)
        except Refused:
            return None  # a version between them has no difference
        for change in changes:
            for sign, scope in (("-", change.before), ("+", change.after)):
                if scope is None:
                    continue
                if " " in scope and scope not in numbers:  # with the answer of a policy zone
                    numbers[scope] = str(len(numbers))
                    lines.append(f"= {numbers[scope]} {scope}\n")
                lines.append(f"{sign} {numbers.get(scope, scope)} {change.name}\n")
    return "".join(lines).encode()


def _refused(serial: int, reason: str) -> Refused:
    return Refused([Problem(f"serial {serial}", None, "", reason)])
