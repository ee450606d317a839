"""Fetches the feed of a zone if it was modified, and stores its validators."""

import asyncio
import contextlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

from dnsblock import durable
from dnsblock.config_zones import Zone
from dnsblock.errors import FetchFailed
from dnsblock.lists.feed.fetch import Feed, Fetched, Progress, Validators, fetch
from dnsblock.lists.store import Store
from dnsblock.log import event, fault


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


async def download(
    zone: Zone, store: Store, progress: Progress | None, *, whole: bool = False
) -> Fetched | None:
    """Fetches a feed; None if it is not modified. Raises only `FetchFailed`.

    With `whole`, it is fetched even if it is not modified.
    """
    try:
        fetched = await _download(zone, store, progress, whole=whole)
    except FetchFailed:
        raise
    except Exception as err:  # a feed must not stop DNS, orders or other lists
        fault(f"internal error while fetching list {zone.name}", zone=zone.name)
        reason = (
            f"internal error ({type(err).__name__}: {err}): the list is fetched again later; please report it"
        )
        raise FetchFailed(str(zone.place).partition("?")[0], "INTERNAL", reason) from err
    if fetched is not None:
        facts = {"zone": zone.name, "bytes": fetched.size, "sha256": fetched.sha256}
        event(logging.INFO, f"fetched list {zone.name} in {fetched.seconds:.1f} s", **facts)
    return fetched


async def _download(zone: Zone, store: Store, progress: Progress | None, *, whole: bool) -> Fetched | None:
    into = store.download(zone.name)
    known = into.with_suffix(".json")
    validators = None if whole else await asyncio.to_thread(_validators, zone, into, known)
    fetched = await fetch(feed_of(zone), into, validators, progress)
    if fetched is not None:
        await asyncio.to_thread(_store_validators, zone, fetched.validators, known)
    return fetched


def _validators(zone: Zone, downloaded: Path, known: Path) -> Validators | None:
    """The stored validators; None if they are for another URL, or if the download is gone."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        stored = json.loads(known.read_bytes())
        if stored["url"] == str(zone.place) and downloaded.stat().st_size == stored["size"]:
            return Validators(stored["etag"], stored["last_modified"])
    return None


def _store_validators(zone: Zone, validators: Validators, known: Path) -> None:
    """Stores the validators. If this fails, the next fetch is a complete download, nothing worse."""
    with contextlib.suppress(OSError):
        size = known.with_suffix(".txt").stat().st_size
        stored = {"url": str(zone.place), "size": size} | asdict(validators)
        durable.write(known, json.dumps(stored).encode())
