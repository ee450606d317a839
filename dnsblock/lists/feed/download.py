"""Writes a downloaded list to disk: decodes it, enforces limits, and commits it atomically.

No network and no asyncio here: `fetch.py` calls it from threads, one call at a time.
"""

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dnsblock.durable import sync_folder
from dnsblock.errors import FetchFailed, shown

PIECE_BYTES = 1 << 20  # decoded at a time: a few kilobytes of gzip can expand to gigabytes
BEGINNING_BYTES = 200  # enough to detect HTML, and to quote in a message
# Whitespace and the byte order mark: not list content, and HTML may begin with them.
BLANKS = b"\xef\xbb\xbf \t\r\n\f\v"


class Download:
    """Takes bytes as they arrive. The list is at `into` only after `commit`.

    Every method except `discard` raises `FetchFailed`. Call `discard` in any case at the end. The partial
    file has a fixed name beside `into`, so the next download removes one that a power failure left behind.
    """

    def __init__(self, into: Path, place: str, max_bytes: int) -> None:
        self._into = into
        self._partial = into.with_name(f"{into.name}.part")
        self._place = place  # the feed's name in messages
        self._max_bytes = max_bytes
        self._file: BinaryIO | None = None
        self._gzip: _Gzip | None = None
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._beginning = b""

    def begin(self, *, gzip: bool) -> None:
        """Creates the file that `add` writes to."""
        self._gzip = _Gzip() if gzip else None
        with self._writing():
            self._partial.unlink(missing_ok=True)
            # Always created: never write through a link that somebody put there.
            self._file = self._partial.open("xb")

    def add(self, received: bytes) -> None:
        """Takes bytes as received from the network."""
        if self._gzip is None:
            self._write(received)
            return
        try:
            for piece in self._gzip.decode(received):
                self._write(piece)
        except zlib.error as err:
            reason = f"its gzip is corrupt ({err}): if this continues, report it to the publisher"
            raise FetchFailed(self._place, "ENCODING", reason) from err

    def commit(self) -> tuple[str, int]:
        """Renames the list into place, durably; returns its SHA-256 and its length."""
        assert self._file is not None  # noqa: S101  # `begin` comes first
        if self._gzip is not None and not self._gzip.is_whole:
            reason = f"its gzip ends in the middle, after {self._size:,} bytes of the list: it is tried again"
            raise FetchFailed(self._place, "TRUNCATED", reason)
        if not self._beginning:
            raise FetchFailed(self._place, "EMPTY", "the list is empty: report it to the publisher")
        with self._writing():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._partial.rename(self._into)
            sync_folder(self._into.parent)
        return self._sha256.hexdigest(), self._size

    def discard(self) -> None:
        """Removes the partial file. Never raises: the original error was already reported."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # an earlier write error occurs again on close
            self._file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _write(self, piece: bytes) -> None:
        assert self._file is not None  # noqa: S101  # `begin` comes first
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise too_large(self._place, self._max_bytes, "it is larger")
        if len(self._beginning) < BEGINNING_BYTES:
            self._beginning = (self._beginning + piece).lstrip(BLANKS)[:BEGINNING_BYTES]
            self._judge_beginning()
        self._sha256.update(piece)
        with self._writing():
            self._file.write(piece)

    def _judge_beginning(self) -> None:
        if self._beginning.startswith(b"<"):  # no list has such a line
            text = shown(self._beginning.decode("utf-8", "replace"))
            reason = f"a web page instead of the list, which begins with '{text}': open it in a browser"
            raise FetchFailed(self._place, "HTML", reason)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            reason = f"{self._partial}: {err.strerror or err}"
            advice = "free disk space (`df -h`), and check that the daemon's user can write to the folder"
            raise FetchFailed(self._place, "UNWRITABLE", f"{reason}: {advice}") from err


def too_large(place: str, max_bytes: int, found: str) -> FetchFailed:
    """The error for a list above the limit; `found` states the size that was seen."""
    reason = f"{found} than {max_bytes:,} bytes: if the list has grown, raise `source.max_mb`"
    return FetchFailed(place, "TOO_LARGE", reason)


class _Gzip:
    """Decodes gzip (RFC 1952), with one or more members, in bounded pieces. httpx would not bound them."""

    def __init__(self) -> None:
        self._member = _member()

    @property
    def is_whole(self) -> bool:
        """Whether the data ended at the end of a member with correct length and checksum."""
        return self._member.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Decodes these bytes. Raises `zlib.error`."""
        while data:
            if self._member.eof:
                self._member = _member()
            # The rest of a full piece comes with the next bytes: at least the checksum follows.
            yield self._member.decompress(data, PIECE_BYTES)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail


def _member() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=31)  # a window of 15 bits, plus 16 for gzip's header and checksum
