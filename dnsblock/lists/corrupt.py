"""Replaces compiled lists whose files were truncated or became unreadable while in use.

A compiled list is memory-mapped (`engine/src/sys.rs: Mapping`). Lookups miss names on a lost page, so these
names are not blocked until the list is loaded again. As at startup, it is loaded from its compiled file,
from the stored content, or from the list file itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from dnsblock.errors import Refused
from dnsblock.lists.lists import Lists
from dnsblock.log import event

LOOK_SECONDS = 0.5
AGAIN_SECONDS = 60.0  # after a failed try: the disk may have to be replaced first


async def replace_corrupt(
    lists: Callable[[], Lists],
    publish: Callable[[str, str], Awaitable[object]],
    count: Callable[[str], None],
) -> None:
    """Polls the enforced lists, and publishes a zone again if its list is corrupt. Never returns.

    `publish` takes a reason and the zone. `count` counts a zone whose list became corrupt.
    """
    again_at: dict[str, float] = {}
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        corrupt = [zone for zone, listed in lists().listed.items() if listed.names.is_corrupt]
        again_at = {zone: at for zone, at in again_at.items() if zone in corrupt}
        for zone in corrupt:
            if now() < again_at.get(zone, 0):
                continue
            if zone not in again_at:
                count(zone)
            text = f"the compiled file of list {zone} is truncated or unreadable: some names are not blocked"
            event(logging.ERROR, f"{text}; loading it again", zone=zone)
            again_at[zone] = now() + AGAIN_SECONDS
            try:
                await publish(f"corrupt list {zone}", zone)
            except Refused:
                continue  # `publish` logged it
            if zone in lists().listed and not lists().listed[zone].names.is_corrupt:
                event(logging.WARNING, f"list {zone} is complete again", zone=zone)
