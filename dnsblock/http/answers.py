"""Answers that several parts of the control API give."""

from datetime import datetime
from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse

from dnsblock.errors import Refused

if TYPE_CHECKING:
    from dnsblock.daemon import Served


def served(done: "Served") -> JSONResponse:
    """What is served after a publish."""
    return JSONResponse(
        {
            "serial": done.serial,
            "digest": done.digest,
            "entries": done.entries,
            "changed": done.changed,
            "restart_needed": list(done.restart_needed),
            "notes": list(done.notes),
        }
    )


def refused(err: Refused) -> JSONResponse:
    """Why something was not done."""
    return JSONResponse({"error": "refused", "problems": err.as_json()}, status_code=409)


def utc(time: datetime | None) -> str | None:
    """A time as RFC 3339 in UTC."""
    return None if time is None else time.isoformat(timespec="seconds").replace("+00:00", "Z")
