"""The handler that tells a client what this instance enforces, and since when."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dnsblock import __version__
from dnsblock.http.callers import Identify
from dnsblock.http.control import Control
from dnsblock.http.models import Instance, InstanceZone
from dnsblock.times import utc


def snapshot_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/snapshot`."""

    async def get_snapshot(request: Request) -> Response:
        """Serial, digest and time of the snapshot, the digests of the client's zones, and its queries."""
        caller = await identify(request, "read")
        view = control.view(caller.principal)
        policy, traffic = view.publisher.policy, view.traffic.facts(view.counters())
        zones = tuple(
            InstanceZone(name=zone.name, issuer=zone.issuer, mode=zone.mode, digest=compiled.digest)
            for zone, compiled in zip(view.config.zones, policy.zones, strict=True)
            if zone.issuer is not None and caller.sees(zone.issuer)
        )
        return Instance(
            version=__version__,
            started_at=utc(view.started_at),
            serial=policy.snapshot.serial,
            digest=policy.snapshot.digest,
            published_at=utc(view.publisher.published_at),
            queries=traffic["queries"],
            seconds=traffic["seconds"],
            zones=zones,
        ).response()

    return [Route("/v1/snapshot", get_snapshot)]
