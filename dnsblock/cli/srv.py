"""Finds the instances of a fleet by SRV records (RFC 2782): `srv:NAME` stands for all of their targets."""

import asyncio
from collections.abc import Iterable, Sequence

from dnsblock.errors import Problem, Refused
from dnsblock.probe.messages import Question
from dnsblock.probe.queries import Client, Limits, Server
from dnsblock.values import SRV, Endpoint

LIMITS = Limits(timeout_s=2.0)


def with_targets(places: Iterable[str], resolvers: Sequence[Endpoint]) -> tuple[str, ...]:
    """The URLs among these places, and those of the targets of their SRV records. Raises `Refused`.

    `resolvers`: the servers that are queried, in turn.
    """
    urls: list[str] = []
    for place in places:
        if not place.startswith(SRV):
            urls.append(place)
            continue
        name = place.removeprefix(SRV)
        urls += asyncio.run(_targets(name, resolvers))
    return tuple(dict.fromkeys(urls))


async def _targets(name: str, resolvers: Sequence[Endpoint]) -> list[str]:
    failures: list[str] = []
    async with Client(LIMITS) as client:
        for resolver in resolvers:
            result = await client.server(Server(resolver)).ask(Question(name, "SRV"), "udp")
            reply = result.reply
            if reply is None or reply.rcode not in ("NOERROR", "NXDOMAIN"):
                failures.append(f"{resolver}: {result.failure if reply is None else reply.rcode}")
                continue
            # RFC 2782: the target `.` says that the service is not available.
            found = sorted(one.data for one in reply.answer if one.rtype == "SRV" and one.data)
            if not found:
                raise Refused([Problem(f"{SRV}{name}", None, "", "has no SRV record with a target")])
            return [f"https://{target}" for target in found]
    raise Refused([Problem(f"{SRV}{name}", None, "", f"cannot be looked up: {'; '.join(failures)}")])
