"""When the server of a feed last answered: stored beside the download, with its validators.

`fetching.py` stores it. Reading it takes no HTTP client, which startup would have to import.
"""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path


def known_of(download: Path) -> Path:
    """The file of the facts about a download."""
    return download.with_suffix(".json")


def last_contact(download: Path) -> datetime | None:
    """When the server last sent the list or said that it is not modified; None if there is no download.

    Without a stored time, it is that of the download.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, OverflowError):
        stored = json.loads(known_of(download).read_bytes())
        if download.exists():
            return datetime.fromisoformat(stored["checked_at"]).astimezone(UTC)
    with contextlib.suppress(OSError):
        return datetime.fromtimestamp(download.stat().st_mtime, UTC)
    return None
