"""The recorded serials and versions of lists, their differences, and the way back to one of them."""

import asyncio

from starlette.responses import Response

from dnsblock.http.answers import ApiError, asked
from dnsblock.http.lists import diff_of, versions_of
from dnsblock.http.models_queries import DiffQuery, RollbackQuery, VersionsQuery
from dnsblock.web.console.page import Page, Visit, place, see

SHOWN = 200  # serials
NAMES_SHOWN = 500  # of each zone in a comparison


async def _versions(visit: Visit) -> Response:
    view, zone = visit.view, asked(visit.request, VersionsQuery, only=("zone",)).zone or None
    found = await asyncio.to_thread(versions_of, view, zone)
    snapshots = found.get("snapshots", [])
    serial = view.publisher.policy.snapshot.serial
    before = next((one["serial"] for one in snapshots if one["serial"] != serial), serial)
    return visit.render(
        "versions.html",
        zone=zone,
        zones=[one.name for one in view.config.zones if one.kind != "orders"],
        serial=serial,
        snapshots=snapshots[:SHOWN],
        total=len(snapshots),
        versions=found.get("versions", []),
        events=found.get("events", []),
        most=max((one["entries"] for one in found.get("versions", [])), default=0) or 1,
        compare={"a": before, "b": serial},
    )


async def _diff(visit: Visit) -> Response:
    wanted, view = asked(visit.request, DiffQuery, only=("a", "b")), visit.view
    found = await asyncio.to_thread(diff_of, view, wanted.a, wanted.b, NAMES_SHOWN)
    serial = view.publisher.policy.snapshot.serial
    return visit.render("diff.html", a=wanted.a, b=wanted.b, differences=found["zones"], serial=serial)


async def _rollback(visit: Visit) -> Response:
    serial, reason = visit.sent.needed("serial", 20), visit.sent.needed("reason")
    try:
        back = RollbackQuery.model_validate({"serial": serial, "reason": reason})
    except ValueError as err:
        raise ApiError(422, "INVALID", "serial: must be a recorded serial") from err
    await visit.control.actions.roll_back(visit.by.principal, back.serial, back.reason)
    return see(place("versions", done="rolled-back"))


PAGES = (
    Page("/versions", _versions, "watch"),
    Page("/diff", _diff, "watch"),
    Page("/rollback", _rollback, "operate", "POST"),
)
