"""Keys and SSH signatures for tests, written from PROTOCOL.sshsig and PROTOCOL.u2f without dnsblock.

`ssh-keygen` needs a token to sign with a token's key. Here the token is software: key, flags and counter.
"""

import base64
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

ORDER = "dnsblock-order@v1"
TOUCHED = 0x01
HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
CURVES = {
    "nistp256": (ec.SECP256R1(), "sha256"),
    "nistp384": (ec.SECP384R1(), "sha384"),
    "nistp521": (ec.SECP521R1(), "sha512"),
}
KINDS = (
    "ssh-ed25519",
    *(f"ecdsa-sha2-{curve}" for curve in CURVES),
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def string(content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return struct.pack(">I", len(data)) + data


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


@dataclass(frozen=True)
class Key:
    """A private key and its SSH name."""

    kind: str
    private: object
    blob: bytes  # the public key

    @property
    def public_line(self) -> str:
        return f"{self.kind} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def store(self, path: Path) -> Path:
        """Writes the private key without passphrase, in OpenSSH's format."""
        path.write_bytes(self.private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        path.chmod(0o600)
        path.with_name(path.name + ".pub").write_text(f"{self.public_line} a comment\n")
        return path

    def raw(
        self, data: bytes, *, flags: int = TOUCHED, counter: int = 7, rsa_kind: str = "rsa-sha2-512"
    ) -> bytes:
        """The SSH signature of the data."""
        if self.kind.startswith("sk-"):
            token = struct.pack(">BI", flags, counter)
            data = hashlib.sha256(b"ssh:").digest() + token + hashlib.sha256(data).digest()
            return string(self.kind) + string(self._signed(data)) + token
        if self.kind == "ssh-rsa":
            name = {"rsa-sha2-256": "sha256", "rsa-sha2-512": "sha512"}[rsa_kind]
            return string(rsa_kind) + string(self.private.sign(data, padding.PKCS1v15(), HASHES[name]))
        return string(self.kind) + string(self._signed(data))

    def _signed(self, data: bytes) -> bytes:
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(data)
        name = next(hashed for curve, hashed in CURVES.values() if curve.name == self.private.curve.name)
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(HASHES[name])))
        return mpint(r) + mpint(s)

    def sign(
        self,
        document: bytes,
        namespace: str = ORDER,
        *,
        hashed: str = "sha512",
        version: int = 1,
        reserved: bytes = b"",
        rest: bytes = b"",
        change: Callable[[bytes], bytes] = bytes,
        **options: object,
    ) -> bytes:
        """The content of a `.sig` file. `change` is applied to the bytes in the armour."""
        digest = hashlib.new(hashed, document).digest()
        signed = b"SSHSIG" + string(namespace) + string(b"") + string(hashed) + string(digest)
        head = b"SSHSIG" + struct.pack(">I", version) + string(self.blob) + string(namespace)
        blob = head + string(reserved) + string(hashed) + string(self.raw(signed, **options)) + rest
        return armoured(change(blob))


def make_key(kind: str = "ssh-ed25519", *, bits: int = 2048) -> Key:
    """A new key of one of the `KINDS`."""
    application = string("ssh:") if kind.startswith("sk-") else b""
    if "ed25519" in kind:
        private = ed25519.Ed25519PrivateKey.generate()
        return Key(
            kind, private, string(kind) + string(private.public_key().public_bytes_raw()) + application
        )
    if kind == "ssh-rsa":
        key = rsa.generate_private_key(65537, bits)
        numbers = key.public_key().public_numbers()
        return Key(kind, key, string(kind) + mpint(numbers.e) + mpint(numbers.n))
    curve = next(curve for curve in CURVES if curve in kind)
    own = ec.generate_private_key(CURVES[curve][0])
    point = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Key(kind, own, string(kind) + string(curve) + string(point) + application)


def armoured(blob: bytes) -> bytes:
    text = base64.b64encode(blob)
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])


def blob_of(signature: bytes) -> bytes:
    """The bytes in an armour."""
    return base64.b64decode(b"".join(signature.split(b"\n")[1:-2]))


# ------- A token in software


def token_file(key: Key, *, handle: bytes, flags: int) -> bytes:
    """The key file of a token (PROTOCOL.key and PROTOCOL.u2f): it has a handle instead of a private key."""
    private = (
        struct.pack(">II", 1, 1)
        + key.blob
        + bytes([flags])
        + string(handle)
        + string(b"")
        + string("comment")
    )
    private += bytes(range(1, 9))[: -len(private) % 8]
    blob = b"openssh-key-v1\0" + string("none") + string("none") + string(b"") + struct.pack(">I", 1)
    text = base64.b64encode(blob + string(key.blob) + string(private)).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join(
        ["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""]
    ).encode()


def token_signature(kind: str, path: Path, flags: int, data: bytes) -> tuple[bytes, bytes]:
    """The two numbers that a token returns; of Ed25519, the signature and nothing."""
    private = load_ssh_private_key(path.read_bytes(), None)
    signed = Key(kind, private, b"").raw(data, flags=flags)[4 + len(kind) + 4 : -5]
    if "ed25519" in kind:
        return signed, b""
    size = struct.unpack(">I", signed[:4])[0]
    return signed[4 : 4 + size].lstrip(b"\0"), signed[8 + size :].lstrip(b"\0")
