"""Signatures of webhooks, by the specification Standard Webhooks 1.0.0, with symmetric secrets (v1).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import stat
from collections.abc import Sequence
from pathlib import Path

from dnsblock import document
from dnsblock.errors import Problem, Refused

PREFIX = b"whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
MAX_SECRETS = 2  # during a rotation: the new one, and the one before
MAX_FILE_BYTES = 4096
_HOW = "make one with: echo whsec_$(openssl rand -base64 32)"


def read_secrets(path: Path) -> list[bytes]:
    """Reads the secrets of a webhook, one per line; `#` begins a comment. Raises `Refused`.

    No message ever contains a secret or a part of one.
    """
    data = document.read_bytes(path, max_bytes=MAX_FILE_BYTES)
    try:
        mode = path.stat().st_mode
    except OSError as err:
        raise Refused([Problem(str(path), None, "", f"cannot be read: {err.strerror}")]) from err
    problems: list[Problem] = []
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        reason = "others may read it: chmod o-rwx it, and make a new secret"
        problems.append(Problem(str(path), None, "", reason))
    secrets: list[bytes] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.partition(b"#")[0].strip()
        if not text:
            continue
        secret = _secret(text)
        if secret is None:
            limits = f"{MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"
            reason = f"a secret is whsec_ and the base64 of {limits}; {_HOW}"
            problems.append(Problem(str(path), number, "", reason))
        else:
            secrets.append(secret)
    if not problems and not 1 <= len(secrets) <= MAX_SECRETS:
        reason = f"holds {len(secrets)} secrets: 1, or {MAX_SECRETS} during a rotation; {_HOW}"
        problems.append(Problem(str(path), None, "", reason))
    if problems:
        raise Refused(problems)
    return secrets


def _secret(text: bytes) -> bytes | None:
    if not text.startswith(PREFIX):
        return None
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return secret if MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES else None


def headers(event_id: str, timestamp: int, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The headers of one try: id, time of the try (Unix time), and a signature with each secret."""
    content = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    digests = (hmac.digest(secret, content, hashlib.sha256) for secret in secrets)
    signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures,
    }
