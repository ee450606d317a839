"""The sessions of people who signed in with a token, and the limit of failed tries. In memory only.

A restart ends all sessions. Neither the session identifiers nor any client addresses are stored.
"""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass

MAX_SESSIONS = 1000
MAX_OWN = 10  # of one client; a new one replaces the oldest
IDLE_SECONDS = 30 * 60.0
ABSOLUTE_SECONDS = 12 * 3600.0
FAILURES = 20  # failed tries in a row that are logged
FAILURE_SECONDS = 3.0  # after each of these, one more is


@dataclass(slots=True)
class Session:
    """A signed-in browser."""

    credential: str  # of the client, as the file of clients has it
    began: float
    used: float


class Sessions:
    """The open sessions, by the SHA-256 of their identifiers. The times are of a monotonic clock."""

    def __init__(self) -> None:
        self._open: dict[bytes, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, credential: str, now: float) -> str:
        """Starts a session, and returns its new identifier, which is stored nowhere else."""
        self._expire(now)
        own = [key for key, session in self._open.items() if session.credential == credential]
        if len(own) >= MAX_OWN:
            del self._open[own[0]]
        elif len(self._open) >= MAX_SESSIONS:
            del self._open[min(self._open, key=lambda key: self._open[key].used)]
        identifier = secrets.token_urlsafe(32)
        self._open[_digest(identifier)] = Session(credential, now, now)
        return identifier

    def find(self, identifier: str, now: float, *, is_use: bool) -> Session | None:
        """The session with this identifier. Without `is_use`, its idle time goes on."""
        session = self._open.get(_digest(identifier))
        if session is None:
            return None
        if _is_over(session, now):
            self.end(identifier)
            return None
        if is_use:
            session.used = now
        return session

    def end(self, identifier: str) -> None:
        """Ends a session, if there is one."""
        self._open.pop(_digest(identifier), None)

    def keep(self, credentials: Collection[str]) -> None:
        """Ends the sessions of all other credentials."""
        self._open = {key: one for key, one in self._open.items() if one.credential in credentials}

    def _expire(self, now: float) -> None:
        self._open = {key: one for key, one in self._open.items() if not _is_over(one, now)}


def _is_over(session: Session, now: float) -> bool:
    return now - session.used > IDLE_SECONDS or now - session.began > ABSOLUTE_SECONDS


def _digest(identifier: str) -> bytes:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()


class FailedTries:
    """Limits the failed tries to sign in, of all clients together. A valid token is never refused."""

    def __init__(self) -> None:
        self._left, self._at = float(FAILURES), 0.0

    def take(self, now: float) -> bool:
        """Counts one more. False if there were too many."""
        self._left = min(FAILURES, self._left + (now - self._at) / FAILURE_SECONDS)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
