"""A client of ssh-agent (draft-ietf-sshm-ssh-agent): lists its keys, and lets it sign."""

import os
import socket
from collections.abc import Callable
from typing import TypeVar

from dnsblock.errors import Problem, Refused
from dnsblock.signatures.public_key import PublicKey
from dnsblock.signatures.wire import Malformed, Reader, string, uint32

MAX_MESSAGE_BYTES = 256 * 1024  # as in OpenSSH
MAX_KEYS = 2048
LIST_TIMEOUT_S = 10
SIGN_TIMEOUT_S = 180  # a person may have to confirm, enter a PIN or touch a token

FAILURE = 5
REQUEST_IDENTITIES, IDENTITIES = 11, 12
SIGN_REQUEST, SIGN_RESPONSE = 13, 14
RSA_SHA2_512 = 4  # flag; ignored for other keys

Result = TypeVar("Result")


def sign(key: PublicKey, data: bytes) -> bytes:
    """The SSH signature of the data by a key of the agent. Raises `Refused`."""
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        reason = "no ssh-agent is running here (SSH_AUTH_SOCK is not set): start one, and run `ssh-add KEY`"
        raise _refused("", f"{reason}; or give the private key file instead of the .pub file")
    if key.blob not in (held := _request(path, bytes([REQUEST_IDENTITIES]), LIST_TIMEOUT_S, _identities)):
        reason = f"the ssh-agent does not have this key, but {len(held)} others: run `ssh-add KEY`"
        raise _refused(key.fingerprint, reason)
    request = bytes([SIGN_REQUEST]) + string(key.blob) + string(data) + uint32(RSA_SHA2_512)
    return _request(path, request, SIGN_TIMEOUT_S, _signature)


def _identities(reader: Reader) -> set[bytes]:
    if reader.byte() != IDENTITIES:
        raise Malformed("it does not list its keys")
    held = set()
    for _ in range(min(reader.uint32(), MAX_KEYS)):
        held.add(reader.string())
        reader.string()  # a comment
    return held


def _signature(reader: Reader) -> bytes:
    match reader.byte():
        case found if found == SIGN_RESPONSE:
            return reader.string()
        case found if found == FAILURE:
            reason = "the ssh-agent did not sign: it is locked, or the touch or the confirmation was missing"
            raise _refused("", f"{reason}. Try again")
        case _:
            raise Malformed("it does not sign")


def _request(path: str, message: bytes, timeout_s: float, parse: Callable[[Reader], Result]) -> Result:
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(timeout_s)
            agent.connect(path)
            agent.sendall(string(message))
            size = Reader(_received(agent, 4)).uint32()
            if size > MAX_MESSAGE_BYTES:
                raise Malformed("its response is too large")
            return parse(Reader(_received(agent, size)))
    except Malformed as err:
        raise _refused(path, f"not an ssh-agent at SSH_AUTH_SOCK: {err}") from err
    except TimeoutError as err:
        reason = f"the ssh-agent has not responded for {timeout_s} s: check SSH_AUTH_SOCK, and try again"
        raise _refused(path, reason) from err
    except OSError as err:
        reason = f"the ssh-agent cannot be reached: {err.strerror or err}. Start one, and set SSH_AUTH_SOCK"
        raise _refused(path, reason) from err


def _received(agent: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        if not (part := agent.recv(count)):
            raise Malformed("it closed the connection")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _refused(value: str, reason: str) -> Refused:
    return Refused([Problem("ssh-agent", None, value, reason)])
