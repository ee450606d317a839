"""Fetches the feed of a zone if it was modified, and stores its validators."""

import asyncio
import contextlib
import json
import os
from pathlib import Path

from dnsblock.config import Zone
from dnsblock.errors import FetchFailed
from dnsblock.lists.feed.fetch import Feed, Fetched, Progress, Validators, fetch
from dnsblock.lists.store import Store
from dnsblock.log import fault


def feed_of(zone: Zone) -> Feed:
    """The feed of a zone whose source is a URL."""
    source = zone.source
    return Feed(
        str(zone.place),
        max_bytes=source.max_mb << 20,
        timeout=source.timeout_s,
        ca=source.ca,
        authorization=source.authorization,
    )


async def download(zone: Zone, store: Store, progress: Progress | None) -> Fetched | None:
    """Fetches a feed; None if it is not modified. Raises only `FetchFailed`."""
    try:
        return await _download(zone, store, progress)
    except FetchFailed:
        raise
    except Exception as err:  # a feed must not stop DNS, orders or other lists
        fault(f"a fault while list {zone.name} was fetched", zone=zone.name)
        reason = f"a fault in dnsblock ({type(err).__name__}: {err}): it is tried again; report it"
        raise FetchFailed(str(zone.place).partition("?")[0], "INTERNAL", reason) from err


async def _download(zone: Zone, store: Store, progress: Progress | None) -> Fetched | None:
    into = store.download(zone.name)
    known = into.with_suffix(".json")
    validators = await asyncio.to_thread(_validators, zone, into, known)
    fetched = await fetch(feed_of(zone), into, validators, progress)
    if fetched is not None:
        await asyncio.to_thread(_keep_validators, zone, fetched.validators, known)
    return fetched


def _validators(zone: Zone, text: Path, known: Path) -> Validators | None:
    """The stored validators; None if they are for another URL, or if the download is gone."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(known.read_bytes())
        if kept["url"] == str(zone.place) and text.stat().st_size == kept["octets"]:
            return Validators(kept["etag"], kept["last_modified"])
    return None


def _keep_validators(zone: Zone, validators: Validators, known: Path) -> None:
    """Stores the validators. If this fails, the next fetch is a complete download, nothing worse."""
    kept = {
        "url": str(zone.place),
        "octets": known.with_suffix(".txt").stat().st_size,
        "etag": validators.etag,
        "last_modified": validators.last_modified,
    }
    half = known.with_suffix(".json.tmp")
    with contextlib.suppress(OSError):
        half.write_text(json.dumps(kept))
        os.replace(half, known)
