"""The handlers for lists and their history."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock.clock import utc_now
from dnsblock.config_zones import Zone
from dnsblock.errors import Problem, Refused, printable
from dnsblock.http.answers import ApiError, answer, asked, changed, not_a_name, refused, utc
from dnsblock.http.callers import Identify, view_of
from dnsblock.http.control import Control, View
from dnsblock.http.models import Model
from dnsblock.http.models_policy import DiffAnswer, NameHistory, Sources, VersionsAnswer, WhyAnswer
from dnsblock.http.models_queries import (
    AcceptQuery,
    DiffQuery,
    HistoryQuery,
    RefreshQuery,
    RollbackQuery,
    VersionsQuery,
)
from dnsblock.lists.history.facts import Event, Published, Version
from dnsblock.lists.refresh import FetchStatus
from dnsblock.lists.transfer.state import TransferState
from dnsblock.names import NameRefused, address, canonical
from dnsblock.policy.past import differences, scheduled
from dnsblock.times import NOT_A_TIME, moment

MAX_VERSIONS = 1000
VERSION_COUNTS = ("format", "entries", "lines", "accepted", "repaired", "duplicate", "rejected")


def lists_routes(control: Control, identify: Identify) -> list[Route]:
    """The routes for lists and history."""

    async def get_sources(request: Request) -> Response:
        view = await view_of(control, identify, request)
        return answer(Sources, {"sources": sources(view), "time_zone": view.config.time_zone.key})

    return [
        Route("/v1/sources", get_sources),
        *_changes(control, identify),
        *_history(control, identify),
    ]


def _changes(control: Control, identify: Identify) -> list[Route]:
    """The routes that change which version of a list is in force."""

    async def post_refresh(request: Request) -> Response:
        by, query = (await identify(request, "operate")).principal, asked(request, RefreshQuery)
        zone = request.path_params["name"]
        return await changed(control.actions.refresh(by, zone, whole=query.whole))

    async def post_accept(request: Request) -> Response:
        by, query = (await identify(request, "operate")).principal, asked(request, AcceptQuery)
        zone = request.path_params["name"]
        return await changed(control.actions.accept_list(by, zone, query.sha256, query.reason))

    async def post_rollback(request: Request) -> Response:
        by, query = (await identify(request, "operate")).principal, asked(request, RollbackQuery)
        return await changed(control.actions.roll_back(by, query.serial, query.reason))

    return [
        Route("/v1/sources/{name}/refresh", post_refresh, methods=["POST"]),
        Route("/v1/sources/{name}/accept", post_accept, methods=["POST"]),
        Route("/v1/rollback", post_rollback, methods=["POST"]),
    ]


def _history(control: Control, identify: Identify) -> list[Route]:
    """The routes that look back."""

    async def get_versions(request: Request) -> Response:
        view, zone = await view_of(control, identify, request), asked(request, VersionsQuery).zone
        return await _look_up(view, VersionsAnswer, lambda: versions_of(view, zone))

    async def get_diff(request: Request) -> Response:
        view, diff = await view_of(control, identify, request), asked(request, DiffQuery)
        return await _look_up(view, DiffAnswer, lambda: diff_of(view, diff.a, diff.b, diff.limit))

    async def get_history(request: Request) -> Response:
        view, name = await view_of(control, identify, request), asked(request, HistoryQuery).name
        return await _look_up(view, NameHistory, lambda: history_of(view, name))

    return [
        Route("/v1/versions", get_versions),
        Route("/v1/diff", get_diff),
        Route("/v1/history", get_history),
    ]


def _unknown(zone: str) -> Refused:
    reason = "there is no such list; one that is new in the configuration is there after `dnsblock reload`"
    return Refused([Problem(f"list {zone}", None, "", reason)])


async def explain_at(view: View, name: str, at: str | None, known_at: str | None) -> Response:
    """Explains why a name was or was not blocked at a time, by all orders or by those known at a time."""
    return await _look_up(view, WhyAnswer, lambda: why_at(view, name, at, known_at))


def why_at(view: View, name: str, at: str | None, known_at: str | None) -> dict[str, Any]:
    """As `explain_at`. Reads from disk. Raises `ApiError`, `NameRefused` and `Refused`."""
    now, zone = utc_now(), view.config.time_zone
    try:
        when = now if at is None else moment(at, zone)
        known = None if known_at is None else moment(known_at, zone)
    except ValueError:
        raise ApiError(400, "INVALID", NOT_A_TIME) from None
    with view.past() as past:
        target = address(name) or canonical(name)
        explained = past.explain(target, _whole(when), None if known is None else _whole(known))
        return {**explained, "at": utc(when), "known_at": utc(known)}


def _whole(time: datetime) -> datetime:
    """Times are printed in whole seconds, so a whole second includes all events within it."""
    return time.replace(microsecond=time.microsecond or 999_999)


async def _look_up(view: View, model: type[Model], look: Callable[[], dict[str, Any]]) -> Response:
    """Runs a lookup in the history in a thread, since it reads from disk."""
    try:
        found = await asyncio.to_thread(look)
    except Refused as err:
        raise refused(err) from err
    except NameRefused as err:
        raise not_a_name(err) from err
    return answer(model, {**found, "time_zone": view.config.time_zone.key})


def history_of(view: View, name: str) -> dict[str, Any]:
    """The events of a name or an address. Reads from disk. Raises `NameRefused` and `Refused`."""
    if (place := address(name)) is not None:
        with view.past() as past:
            return {"name": str(place), "events": past.address_events(place), "scheduled": []}
    canonical_name = canonical(name)
    with view.past() as past:
        events = past.events(canonical_name)
        coming = scheduled(past.config, past.orders, canonical_name)
    return {"name": canonical_name, "events": events, "scheduled": coming}


def diff_of(view: View, a: int, b: int, limit: int) -> dict[str, Any]:
    """The differences between two serials, with up to `limit` names of each zone. Raises `Refused`."""
    with view.past() as past:
        return {"a": a, "b": b, "zones": differences(past, a, b, limit)}


def versions_of(view: View, zone: str | None) -> dict[str, Any]:
    """The recorded serials, or the versions and events of one list. Raises `Refused`."""
    with view.past() as past:
        if zone is None:
            return {"snapshots": [_snapshot(one) for one in past.history.snapshots()[:MAX_VERSIONS]]}
        versions = [_version(one) for one in past.history.versions(zone, MAX_VERSIONS)]
        events = [_event(one) for one in past.history.events(zone, MAX_VERSIONS)]
        configured = [one.name for one in view.config.zones if one.kind != "orders"]
        if zone not in configured and not versions and not events:
            raise _unknown(zone)
        return {"zone": zone, "versions": versions, "events": events}


# ------- As JSON -------


def sources(view: View) -> list[dict[str, Any]]:
    """Each list and its state."""
    return [_source(view, zone) for zone in view.config.zones if zone.kind != "orders"]


def _source(view: View, zone: "Zone") -> dict[str, Any]:
    listed = view.publisher.lists.listed.get(zone.name)
    version = None if listed is None else listed.version
    rejection = view.publisher.lists.rejections.get(zone.name)
    feed = view.refresher.states.get(zone.name, FetchStatus())
    return {
        "zone": zone.name,
        "place": str(zone.place).partition("?")[0],
        "format": None if listed is None else listed.report.format,
        "version": None if version is None else version.number,
        "entries": 0 if listed is None else listed.report.entries,
        "sha256": None if version is None else version.compiled.source_sha256,
        "accepted_at": utc(None if version is None else version.accepted_at),
        "how": None if version is None else version.how,
        "report": None if listed is None else {**listed.report.as_json(), "reported": None},
        "warnings": [] if listed is None else listed.report.warnings,
        "rejected": None
        if rejection is None
        else {
            "at": utc(rejection.at),
            "sha256": rejection.source_sha256 or None,
            "codes": [finding.code for finding in rejection.findings],
            "problems": [problem.as_json() for problem in rejection.problems],
        },
        "skipped": []
        if listed is None
        else [{"name": printable(one.name), "reason": one.reason} for one in listed.skipped],
        "fetched_at": utc(feed.fetched_at),
        "fetch_error": feed.error,
        "next_at": utc(feed.next_at),
        "expires_at": utc(view.refresher.expires_at(zone)),
        "expired": view.publisher.lists.expired.get(zone.name),
        "transfer": None
        if feed.transfer is None
        else _transfer(feed.transfer, view.publisher.lists.expired.get(zone.name)),
    }


def _transfer(last: TransferState | None, expired: str | None) -> dict[str, Any] | None:
    if last is None:
        return None
    return {
        "primary": last.primary,
        "serial": last.serial,
        "checked_at": utc(last.checked_at),
        "expires_at": utc(last.expires_at),
        "expired": expired,
    }


def _snapshot(one: Published) -> dict[str, Any]:
    return {
        "serial": one.serial,
        "digest": one.digest,
        "published_at": utc(one.published_at),
        "reason": one.reason,
        "versions": dict(one.versions),
    }


def _version(one: Version) -> dict[str, Any]:
    return {
        "version": one.number,
        "sha256": one.compiled.source_sha256,
        "digest": one.compiled.names_digest,
        **{name: getattr(one.compiled.report, name) for name in VERSION_COUNTS},
        "added": one.added,
        "removed": one.removed,
        "accepted_at": utc(one.accepted_at),
        "how": one.how,
        "note": one.note,
        "is_withdrawn": one.is_withdrawn,
        "has_file": one.has_file,
    }


def _event(one: Event) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "sha256": one.source_sha256,
        "code": one.code,
        "message": one.message,
        "first_at": utc(one.first_at),
        "last_at": utc(one.last_at),
        "times": one.times,
    }
