"""Fetches the feed of a zone if it was modified; stores its validators and when its server last answered."""

import asyncio
import contextlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

from dnsblock import durable
from dnsblock.clock import utc_now
from dnsblock.config_zones import Zone
from dnsblock.errors import FetchFailed
from dnsblock.lists.feed.contact import known_of
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
    known = known_of(into)
    validators = None if whole else await asyncio.to_thread(_validators, zone, into, known)
    fetched = await fetch(feed_of(zone), into, validators, progress)
    if fetched is not None:
        await asyncio.to_thread(_store, zone, fetched.validators, known)
    elif validators is not None:
        try:
            await asyncio.to_thread(_write, zone, validators, known)
        except OSError as err:
            reason = f"{err.filename or known}: {err.strerror or err}"
            advice = "free disk space (`df -h`), and check that the daemon's user can write to the folder"
            raise FetchFailed(feed_of(zone).place, "UNWRITABLE", f"{reason}: {advice}") from err
    return fetched


def _validators(zone: Zone, downloaded: Path, known: Path) -> Validators | None:
    """The stored validators; None if they are for another URL, or if the download is gone."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        stored = json.loads(known.read_bytes())
        if stored["url"] == str(zone.place) and downloaded.stat().st_size == stored["size"]:
            return Validators(stored["etag"], stored["last_modified"])
    return None


def _store(zone: Zone, validators: Validators, known: Path) -> None:
    """Stores the facts about a download. If this fails, the next fetch is a complete one, nothing worse."""
    try:
        _write(zone, validators, known)
    except OSError:
        with contextlib.suppress(OSError):
            known.unlink(missing_ok=True)  # its time is that of an earlier download


def _write(zone: Zone, validators: Validators, known: Path) -> None:
    size = known.with_suffix(".txt").stat().st_size
    stored = {"url": str(zone.place), "size": size, "checked_at": utc_now().isoformat()}
    durable.write(known, json.dumps(stored | asdict(validators)).encode())
