"""When the content of a list is too old to be enforced as before: `rpz.on_expire` and `source.on_late`.

Pure. `lists.py` uses it with the stored time of the last contact, `refresh.py` with the time in memory.
"""

from datetime import datetime, timedelta

from dnsblock.config_zones import Zone
from dnsblock.lists.transfer.state import TransferState
from dnsblock.times import utc

_CONSEQUENCES = {
    "keep": "the copy stays in force",
    "shadow": "its matches are only counted",
    "withdraw": "nothing of it is enforced",
}


def expires_at(zone: Zone, contact: datetime | None, transfer: TransferState | None) -> datetime | None:
    """From when on the content is too old, unless a server answers before. None: never.

    `contact` is the last successful one. A transferred zone has its limit in its SOA record.
    """
    if zone.is_transferred:
        return None if transfer is None else transfer.expires_at
    if zone.source.max_age_s is None or contact is None:
        return None
    return contact + timedelta(seconds=zone.source.max_age_s)


def remark(zone: Zone, contact: datetime) -> str:
    """The remark on a list that has expired, for operators."""
    consequence = _CONSEQUENCES[zone.on_late]
    if zone.is_transferred:
        return f"no primary was reached since {utc(contact)}: {consequence}"
    limit = f"`source.max_age_s` is {zone.source.max_age_s:,} seconds"
    return f"not fetched since {utc(contact)}, and {limit}: {consequence}"
