"""The key of this instance, and the name of its ledger. It signs checkpoints and receipts.

The key is made at the first startup and never replaced: others verify with its public part.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from dnsblock.errors import Problem, Refused
from dnsblock.signatures.keys import SigningKey
from dnsblock.signatures.notes import SIGNATURE, VerifierKey

FILE = "instance.key"


@dataclass(frozen=True)
class Instance:
    """The key of an instance and the origin of its ledger."""

    key: SigningKey
    named: str | None = None  # the origin in the configuration, if any

    @classmethod
    def load(cls, state: Path, origin: str | None = None) -> Self | None:
        """Reads the key; None if there is none yet. Raises `Refused` if it cannot be used."""
        path = state / FILE
        return cls(SigningKey.load(path), origin) if path.exists() else None

    @classmethod
    def load_or_create(cls, state: Path, origin: str | None = None) -> Self:
        """Reads the key, or makes it. Raises `Refused`."""
        found = cls.load(state, origin)
        if found is not None:
            return found
        key, path = SigningKey.generate(), state / FILE
        try:
            key.store(path)
        except OSError as err:
            raise Refused(
                [Problem(str(path), None, "", f"{err.strerror}: the key cannot be stored")]
            ) from err
        return cls(key, origin)

    @cached_property
    def public(self) -> bytes:
        """The 32 bytes of the public key."""
        return self.key.public_bytes

    @cached_property
    def identifier(self) -> str:
        """The beginning of the SHA-256 of the public key: part of the names of its checkpoints."""
        return identifier(self.public)

    @property
    def origin(self) -> str:
        """The name of the ledger in its checkpoints (C2SP tlog-checkpoint). It is unique by default."""
        return self.named or f"dnsblock/{hashlib.sha256(self.public).hexdigest()[:16]}"

    @property
    def verifier(self) -> VerifierKey:
        """The public key as others configure it, to verify checkpoints."""
        return VerifierKey(self.origin, SIGNATURE, self.public)

    @property
    def openssh(self) -> str:
        """The public key as a line of OpenSSH, to verify receipts."""
        return self.key.public_key.line(self.origin)

    @property
    def signers_line(self) -> str:
        """The public key as a line of an allowed_signers file, for `ssh-keygen -Y verify`."""
        return f"{self.origin} {self.key.public_key.line('')}".rstrip()


def identifier(public: bytes) -> str:
    """See `Instance.identifier`."""
    return hashlib.sha256(public).hexdigest()[:8]
