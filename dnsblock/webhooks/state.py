"""The state of one webhook: how far its events are delivered, and its dead letters.

One file for each webhook in the folder `webhooks` of the state folder. Events themselves are in the ledger.
"""

import contextlib
import logging
import threading
from bisect import insort
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dnsblock import document, durable
from dnsblock.errors import Refused
from dnsblock.log import event
from dnsblock.orders.records import NotARecord, Position, read_position, sealed, unsealed
from dnsblock.times import utc

FOLDER = "webhooks"
MAX_DEAD_LETTERS = 1000  # of one webhook; then the oldest ones are dropped
MAX_BYTES = 4 << 20  # of the file
ID_DIGITS = 16  # of the digest of a record, in the id of its event


class NotAState(Exception):  # noqa: N818  # house style: named for what happened
    """A file cannot be used; the message says why."""


def event_id(n: int, digest: str) -> str:
    """The id of the event of record `n`: unique among all instances, and the same for each try."""
    return f"{n}-{digest[:ID_DIGITS]}"


@dataclass(slots=True)
class DeadLetter:
    """An event that was not delivered, or that an operator wants to be sent again."""

    n: int  # of the record
    digest: str  # SHA-256 of the record's line
    kind: str
    order_id: str | None
    at: datetime  # of the event
    reason: str  # why it was not delivered
    given_up_at: datetime
    resent_at: datetime | None = None  # when an operator asked for another try; None: nobody did

    @property
    def id(self) -> str:
        """The id of the event."""
        return event_id(self.n, self.digest)

    def as_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            key: utc(value) if isinstance(value, datetime) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "DeadLetter":
        """Parses it. Raises `ValueError`, `KeyError` and `TypeError`."""
        n, digest, kind, reason = value["n"], value["digest"], value["kind"], value["reason"]
        order_id = _optional(str, value["order_id"])
        if not (isinstance(n, int) and n > 0 and all(isinstance(one, str) for one in (digest, kind, reason))):
            raise ValueError("not a dead letter")
        times = (_time(value["given_up_at"]), _optional_time(value["resent_at"]))
        return cls(n, digest, kind, order_id, _time(value["at"]), reason, *times)


@dataclass(slots=True)
class State:
    """The state of one webhook."""

    issuer: str
    url: str
    position: Position  # the records up to here are delivered, given up, or of no interest
    dead: list[DeadLetter] = field(default_factory=list)
    dropped: int = 0  # dead letters that had to be dropped
    delivered_at: datetime | None = None
    delivered_n: int | None = None
    failing_since: datetime | None = None  # None: the last try succeeded
    error: str | None = None  # of the last try
    is_gone: bool = False  # the server has answered 410

    def add(self, dead_letter: DeadLetter) -> None:
        """Adds a dead letter, in the sequence of events. Too old ones are dropped."""
        insort(self.dead, dead_letter, key=lambda one: one.n)
        if (excess := len(self.dead) - MAX_DEAD_LETTERS) > 0:
            del self.dead[:excess]
            self.dropped += excess

    def encoded(self) -> bytes:
        """The content of the file."""
        fields: dict[str, Any] = {
            "issuer": self.issuer,
            "url": self.url,
            "position": {"records": self.position.records, "last": self.position.last},
            "dead": [one.as_json() for one in self.dead],
            "dropped": self.dropped,
            "delivered_n": self.delivered_n,
            "error": self.error,
            "gone": self.is_gone,
        }
        for key in ("delivered_at", "failing_since"):
            time: datetime | None = getattr(self, key)
            fields[key] = None if time is None else utc(time)
        return sealed(fields) + b"\n"

    @classmethod
    def load(cls, path: Path) -> "State | None":
        """Reads the file; None if there is none. Raises `NotAState`."""
        if not path.exists():
            return None
        try:
            value = unsealed(document.read_bytes(path, max_bytes=MAX_BYTES).rstrip())
            return cls(
                issuer=str(value["issuer"]),
                url=str(value["url"]),
                position=read_position(value["position"]),
                dead=[DeadLetter.from_json(one) for one in value["dead"]],
                dropped=int(value["dropped"]),
                delivered_at=_optional_time(value["delivered_at"]),
                delivered_n=_optional(int, value["delivered_n"]),
                failing_since=_optional_time(value["failing_since"]),
                error=_optional(str, value["error"]),
                is_gone=value["gone"] is True,
            )
        except (NotARecord, Refused, ValueError, KeyError, TypeError) as err:
            raise NotAState(str(err) or type(err).__name__) from err


class StateFile:
    """The file of a state, on the disk. A failure is logged once, and tried again with the next change."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.version = 1  # of the state; higher after each change
        self._stored = 0  # the version on the disk
        self._name, self._lock, self._has_failed = name, threading.Lock(), False

    @property
    def is_current(self) -> bool:
        """Whether the disk has the last version."""
        return self.version == self._stored

    def store(self, version: int, data: bytes) -> None:
        """Replaces the file, if this version is newer. A thread of a cancelled task may come late."""
        try:
            with self._lock:
                if version > self._stored:
                    self.path.parent.mkdir(mode=0o700, exist_ok=True)
                    durable.write(self.path, data)
                    self._stored = version
                    self._has_failed = False
        except OSError as err:
            if not self._has_failed:
                text = f"webhook {self._name}: its state is not stored, so a restart repeats events"
                event(logging.ERROR, f"{text}: {err.strerror}: {err.filename}")
            self._has_failed = True

    def remove(self) -> None:
        """Removes the file."""
        with self._lock, contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _time(value: Any) -> datetime:
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("a time without an offset")
    return time


def _optional_time(value: Any) -> datetime | None:
    return None if value is None else _time(value)


def _optional(kind: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else kind(value)
