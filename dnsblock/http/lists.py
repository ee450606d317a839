"""The control API for lists and their history."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dnsblock.actions import accept_list
from dnsblock.client import MAX_SERIAL
from dnsblock.config import Zone
from dnsblock.errors import FetchFailed, Problem, Refused, printable
from dnsblock.http.answers import asked, refused, served, utc
from dnsblock.http.control import Control
from dnsblock.lists.history.facts import Event, Published, Version
from dnsblock.lists.refresh import FeedState
from dnsblock.names import NameRefused, address, canonical
from dnsblock.policy.past import differences, scheduled
from dnsblock.publishing import ListsChanged, RollBack
from dnsblock.times import moment

Serial = Annotated[int, Field(ge=0, le=MAX_SERIAL)]
Reason = Annotated[str, Field(min_length=1, max_length=1000)]
VERSIONS_TOLD = 1000
NOT_A_TIME = (
    "not a time, or not one of the years 1 to 9999 in UTC: write it as 2017-08-10T10:46:00+07:00, "
    "or as 2017-08-10 10:46 in `time_zone`"
)


class Acceptance(BaseModel):
    """The query of POST /v1/sources/NAME/accept."""

    sha256: Annotated[str, Field(max_length=64)]
    who: Reason
    reason: Reason


class Rollback(BaseModel):
    """The query of POST /v1/rollback."""

    serial: Serial
    reason: Reason


class Versions(BaseModel):
    """The query of GET /v1/versions."""

    zone: Annotated[str, Field(max_length=63)] | None = None


class Diff(BaseModel):
    """The query of GET /v1/diff: two serials."""

    a: Serial
    b: Serial
    limit: Annotated[int, Field(ge=0, le=100_000)] = 1000


class History(BaseModel):
    """The query of GET /v1/history."""

    name: Annotated[str, Field(max_length=1024)]


def lists_routes(control: Control) -> list[Route]:
    """The routes for lists and history."""

    async def get_sources(_: Request) -> JSONResponse:
        return JSONResponse({"sources": sources(control), "time_zone": control.config.time_zone.key})

    return [Route("/v1/sources", get_sources), *_changes(control), *_history(control)]


def _changes(control: Control) -> list[Route]:
    """The routes that change which version of a list is in force."""

    async def post_refresh(request: Request) -> JSONResponse:
        name = request.path_params["name"]
        zone = next((zone for zone in control.config.zones if zone.name == name), None)
        if zone is None or zone.kind == "orders":
            return refused(_unknown(name))
        try:
            if zone.is_feed:
                await control.refresher.refresh(zone)
            return served(await control.publisher.publish(ListsChanged(f"refresh {name}", name)))
        except FetchFailed as err:
            return refused(Refused([Problem(f"list {name}", None, "", str(err))]))
        except Refused as err:
            return refused(err)

    async def post_accept(request: Request) -> JSONResponse:
        by_hand = asked(request, Acceptance)
        name = request.path_params["name"]
        try:
            return served(
                await accept_list(control.publisher, name, by_hand.sha256, by_hand.who, by_hand.reason)
            )
        except Refused as err:
            return refused(err)

    async def post_rollback(request: Request) -> JSONResponse:
        back = asked(request, Rollback)
        try:
            return served(await control.publisher.publish(RollBack(back.serial, back.reason)))
        except Refused as err:
            return refused(err)

    return [
        Route("/v1/sources/{name}/refresh", post_refresh, methods=["POST"]),
        Route("/v1/sources/{name}/accept", post_accept, methods=["POST"]),
        Route("/v1/rollback", post_rollback, methods=["POST"]),
    ]


def _history(control: Control) -> list[Route]:
    """The routes that look back."""

    async def get_versions(request: Request) -> JSONResponse:
        zone = asked(request, Versions).zone
        return await _looked_back(control, lambda: _versions(control, zone))

    async def get_diff(request: Request) -> JSONResponse:
        diff = asked(request, Diff)

        def look() -> dict[str, Any]:
            with control.past() as past:
                zones = differences(past, diff.a, diff.b, diff.limit)
            return {"a": diff.a, "b": diff.b, "zones": zones}

        return await _looked_back(control, look)

    async def get_history(request: Request) -> JSONResponse:
        name = asked(request, History).name

        def look() -> dict[str, Any]:
            if (place := address(name)) is not None:
                with control.past() as past:
                    return {"name": str(place), "events": past.address_events(place), "scheduled": []}
            canonical_name = canonical(name)
            with control.past() as past:
                events = past.events(canonical_name)
                coming = scheduled(past.config, past.received, canonical_name)
            return {"name": canonical_name, "events": events, "scheduled": coming}

        return await _looked_back(control, look)

    return [
        Route("/v1/versions", get_versions),
        Route("/v1/diff", get_diff),
        Route("/v1/history", get_history),
    ]


def _unknown(zone: str) -> Refused:
    reason = "there is no such list; one that is new in the configuration is there after `dnsblock reload`"
    return Refused([Problem(f"list {zone}", None, "", reason)])


async def explain_at(control: Control, name: str, at: str) -> JSONResponse:
    """Explains why a name was or was not blocked at a time."""
    try:
        asked = moment(at, control.config.time_zone)
    except ValueError:
        return JSONResponse({"error": "not a time", "reason": NOT_A_TIME}, status_code=400)
    # Times are printed in whole seconds, so a whole second includes all events within it.
    when = asked.replace(microsecond=asked.microsecond or 999_999)

    def look() -> dict[str, Any]:
        with control.past() as past:
            if (place := address(name)) is not None:
                explanation, notes = past.explain_address(place, when)
            else:
                explanation, notes = past.explain(canonical(name), when)
            is_to_come = asked > datetime.now(UTC)
            return {**explanation, "at": utc(asked), "is_scheduled": is_to_come, "notes": notes}

    return await _looked_back(control, look)


async def _looked_back(control: Control, look: Any) -> JSONResponse:
    """Runs a lookup in the history in a thread, since it reads from disk."""
    try:
        found = await asyncio.to_thread(look)
    except Refused as err:
        return refused(err)
    except NameRefused as err:
        return JSONResponse({"error": "not a name", "reason": str(err)}, status_code=400)
    return JSONResponse({**found, "time_zone": control.config.time_zone.key})


def _versions(control: Control, zone: str | None) -> dict[str, Any]:
    with control.past() as past:
        if zone is None:
            return {"snapshots": [_snapshot(one) for one in past.history.snapshots()[:VERSIONS_TOLD]]}
        versions = [_version(one) for one in past.history.versions(zone, VERSIONS_TOLD)]
        events = [_event(one) for one in past.history.events(zone, VERSIONS_TOLD)]
        configured = [one.name for one in control.config.zones if one.kind != "orders"]
        if zone not in configured and not versions and not events:
            raise _unknown(zone)
        return {"zone": zone, "versions": versions, "events": events}


# ------- As JSON -------


def sources(control: Control) -> list[dict[str, Any]]:
    """Each list and its state."""
    return [_source(control, zone) for zone in control.config.zones if zone.kind != "orders"]


def _source(control: Control, zone: "Zone") -> dict[str, Any]:
    listed = control.publisher.lists.listed.get(zone.name)
    version = None if listed is None else listed.version
    rejection = control.publisher.lists.rejections.get(zone.name)
    feed = control.refresher.states.get(zone.name, FeedState())
    return {
        "zone": zone.name,
        "place": str(zone.place).partition("?")[0],
        "format": None if listed is None else listed.report.format,
        "version": None if version is None else version.number,
        "entries": 0 if listed is None else listed.report.entries,
        "sha256": None if version is None else version.compiled.source_sha256,
        "accepted_at": utc(None if version is None else version.accepted_at),
        "how": None if version is None else version.how,
        "report": None if listed is None else {**listed.report.as_json(), "told": None},
        "warnings": [] if listed is None else listed.report.warnings,
        "rejected": None
        if rejection is None
        else {
            "at": utc(rejection.at),
            "sha256": rejection.source_sha256 or None,
            "codes": [guarded.code for guarded in rejection.guarded],
            "problems": [problem.as_json() for problem in rejection.problems],
        },
        "skipped": []
        if listed is None
        else [{"name": printable(one.name), "reason": one.why} for one in listed.skipped],
        "fetched_at": utc(feed.fetched_at),
        "fetch_error": feed.error,
        "next_at": utc(feed.next_at),
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
        "format": one.compiled.format,
        "entries": one.compiled.entries,
        "lines": one.compiled.lines,
        "accepted": one.compiled.accepted,
        "repaired": one.compiled.repaired,
        "duplicate": one.compiled.duplicate,
        "rejected": one.compiled.rejected,
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
