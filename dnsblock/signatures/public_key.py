"""Public keys of OpenSSH, of the algorithms that are accepted. They are parsed without `cryptography`.

Two keys are equal if their numbers are, however they were written: one key never counts as two signers.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dnsblock.signatures.algorithms import CURVES, P256, RSA_HASHES, Ecdsa, Ed25519, Key, Rsa
from dnsblock.signatures.wire import Malformed, Reader, Unsupported, from_base64, string

MAX_BLOB_BYTES = 8192
TOKEN_BYTES = 5  # after a token's signature: its flags, and its counter of signatures (PROTOCOL.u2f)

# The name of a key's type: its parser.
PARSERS: dict[str, Callable[[Reader], Key]] = {
    "ssh-ed25519": Ed25519.read,
    **{f"ecdsa-sha2-{curve.name}": partial(Ecdsa.read, curve=curve) for curve in CURVES},
    "ssh-rsa": Rsa.read,
    "sk-ssh-ed25519@openssh.com": Ed25519.read,
    "sk-ecdsa-sha2-nistp256@openssh.com": partial(Ecdsa.read, curve=P256),
}
ADVICE = "make a key with `ssh-keygen -t ed25519`; accepted are also ECDSA, hardware tokens and RSA"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key of an accepted algorithm."""

    algorithm: str  # the name of the key's type in SSH, such as `ssh-ed25519`
    key: Key
    application: bytes | None = None  # of a key on a hardware token: what it was made for, such as `ssh:`

    @classmethod
    def from_blob(cls, blob: bytes) -> "PublicKey":
        """Parses the encoding of a key. Raises `Malformed` or `Unsupported`."""
        if len(blob) > MAX_BLOB_BYTES:
            raise Malformed(f"the key is larger than {MAX_BLOB_BYTES:,} bytes")
        reader = Reader(blob)
        algorithm = reader.text()
        if "-cert-v01@" in algorithm:
            raise Unsupported("certificates are not supported: sign with the key itself")
        if (parse := PARSERS.get(algorithm)) is None:
            raise Unsupported(f"keys of the type {algorithm} are not accepted: {ADVICE}")
        key = parse(reader)
        application = reader.string() if algorithm.startswith("sk-") else None
        reader.end()
        return cls(algorithm, key, application)

    @classmethod
    def from_words(cls, algorithm: str, text: str) -> "PublicKey":
        """Parses the two words of a key in a line. Raises `Malformed` or `Unsupported`."""
        key = cls.from_blob(from_base64(text.encode("ascii", "replace")))
        if key.algorithm != algorithm:
            raise Malformed(f"the line names {algorithm}, but the type of the key is {key.algorithm}")
        return key

    @property
    def blob(self) -> bytes:
        """The canonical encoding."""
        application = b"" if self.application is None else string(self.application)
        return string(self.algorithm) + self.key.encoded() + application

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen prints it: `SHA256:` and Base64 without padding."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii").rstrip("=")

    @property
    def is_token(self) -> bool:
        """Whether the private part is on a hardware token."""
        return self.application is not None

    def line(self, comment: str = "") -> str:
        """The key as in a `.pub` file of OpenSSH, without a line end."""
        return f"{self.algorithm} {base64.b64encode(self.blob).decode('ascii')} {comment}".rstrip(" ")

    def is_signed(self, signature: bytes, data: bytes) -> bool:
        """Whether an SSH signature of the data is by this key. Raises `Malformed` or `Unsupported`."""
        reader = Reader(signature)
        kind = reader.text()
        accepted = tuple(RSA_HASHES) if self.algorithm == "ssh-rsa" else (self.algorithm,)
        if kind not in accepted:
            raise Unsupported(f"its algorithm {kind} is not accepted for this key: {' or '.join(accepted)}")
        content = reader.string()
        if self.application is not None:
            # A token signs hashes, so that it knows the application, but not the data.
            token = reader.take(TOKEN_BYTES)
            data = hashlib.sha256(self.application).digest() + token + hashlib.sha256(data).digest()
        reader.end()
        return self.key.is_signed(kind, content, data)
