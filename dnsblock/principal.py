"""The principal of a change: a local user, a client of the HTTPS API, or the daemon itself.

Ledger, history and log record it.
"""

import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Any, Literal

from dnsblock.errors import printable

_UCRED = struct.Struct("3i")  # unix(7): process, user and group


@dataclass(frozen=True, slots=True)
class Principal:
    """The identity behind a call, from the kernel or from verified credentials."""

    kind: Literal["daemon", "local", "issuer", "operator"]  # operator: the staff, over HTTPS
    uid: int | None = None
    user: str | None = None  # None: the system knows no name for this uid
    client: str | None = None  # of an issuer or an operator: the name in the file `api.tokens`

    def __str__(self) -> str:
        if self.kind == "daemon":
            return "daemon"
        if self.kind == "issuer":
            return f"API client {self.client}"
        if self.kind == "operator":
            return f"operator {self.client}"
        return f"uid {self.uid}" if self.user is None else f"{self.user} (uid {self.uid})"

    def public(self) -> str:
        """The name for issuers: the provider's staff are not named to them."""
        return "the operator" if self.kind in ("local", "operator") else str(self)

    @classmethod
    def local(cls, uid: int) -> "Principal":
        """The user of a process on this machine. Blocks if the system looks up users over the network."""
        try:
            return cls("local", uid, printable(pwd.getpwuid(uid).pw_name))
        except (KeyError, OSError):
            return cls("local", uid)

    def as_json(self) -> dict[str, Any]:
        """The fields that a record of the ledger stores."""
        if self.client is not None:
            return {"kind": self.kind, "client": self.client}
        return {"kind": self.kind, "uid": self.uid, "user": self.user}

    @classmethod
    def from_json(cls, value: Any) -> "Principal":
        """Parses the fields of a record. Raises `ValueError`."""
        if value == _DAEMON_AS_JSON:
            return DAEMON
        match value:
            case {"kind": "local", "uid": int(uid), "user": str() | None as user, **rest} if not rest:
                return cls("local", uid, user)
            case {"kind": "issuer" | "operator" as kind, "client": str(client), **rest} if not rest:
                return cls(kind, client=client)
        raise ValueError("not a principal")


DAEMON = Principal("daemon")
_DAEMON_AS_JSON = DAEMON.as_json()


def peer_uid(sock: socket.socket) -> int:
    """The user that connected this Unix socket, according to the kernel (SO_PEERCRED)."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)
