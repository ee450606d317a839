"""Ed25519 keys of this program: made, stored and loaded as private key files of OpenSSH, and used to sign.

The instance's own key is one. Keys of officers are read by `signers.py`.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dnsblock.document import read_bytes
from dnsblock.durable import sync_folder
from dnsblock.errors import Problem, Refused
from dnsblock.signatures.algorithms import Ed25519, verify_ed25519
from dnsblock.signatures.public_key import PublicKey
from dnsblock.signatures.sshsig import armoured, signed_bytes
from dnsblock.signatures.wire import string

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key. It is never printed."""

    _seed: bytes = field(repr=False)  # 32 bytes (RFC 8032, section 5.1.5)

    @classmethod
    def generate(cls) -> "SigningKey":
        """Makes a new random key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Reads a private key file of OpenSSH without passphrase. Raises `Refused`."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key

        check_mode(path)
        data = read_bytes(path, max_bytes=MAX_FILE_BYTES)
        try:
            key = load_ssh_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as err:  # TypeError: it has a passphrase
            reason = (
                "not an Ed25519 private key of OpenSSH without passphrase: restore the file from a backup"
            )
            raise Refused([Problem(str(path), None, "", reason)]) from err
        if not isinstance(key, Ed25519PrivateKey):
            reason = "not an Ed25519 key: restore the file from a backup"
            raise Refused([Problem(str(path), None, "", reason)])
        return cls(key.private_bytes_raw())

    def store(self, path: Path) -> None:
        """Writes the key to a new file in OpenSSH's format, which only its owner may read, and syncs it.

        A file with this name is never replaced. Raises `FileExistsError`, or another `OSError`.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        data = self._private().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        partial = path.with_name(path.name + ".tmp")
        partial.unlink(missing_ok=True)  # of a crash
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # Unlike rename(2), link(2) replaces nothing: the file gets its name once, with its whole content.
            os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)

    @property
    def public_bytes(self) -> bytes:
        """The 32 bytes of the public key, for notes (C2SP) and for `is_signed`."""
        return self._private().public_key().public_bytes_raw()

    @property
    def public_key(self) -> PublicKey:
        """The public key in OpenSSH's form: `line()` prints it, `fingerprint` names it."""
        return PublicKey("ssh-ed25519", Ed25519(self.public_bytes))

    def sign(self, data: bytes) -> bytes:
        """A bare Ed25519 signature of the data, 64 bytes (RFC 8032)."""
        return self._private().sign(data)

    def sign_ssh(self, document: bytes, namespace: str) -> bytes:
        """The content of a `.sig` file for the document, as `ssh-keygen -Y sign -n NAMESPACE` writes it."""
        signature = string("ssh-ed25519") + string(self.sign(signed_bytes(document, namespace)))
        return armoured(self.public_key, namespace, signature)

    def _private(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._seed)


def is_signed(public_bytes: bytes, signature: bytes, data: bytes) -> bool:
    """Whether a bare Ed25519 signature of the data is by the key with these 32 bytes. Never raises."""
    return verify_ed25519(public_bytes, signature, data)


def check_mode(path: Path) -> None:
    """Refuses a private key that other users may read, as OpenSSH does. Raises `Refused`."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as err:
        raise Refused([Problem(str(path), None, "", f"cannot be read: {err.strerror}")]) from err
    if mode & 0o077:
        reason = f"other users may read this private key: chmod 600 {path}"
        raise Refused([Problem(str(path), None, f"{mode:04o}", reason)])
