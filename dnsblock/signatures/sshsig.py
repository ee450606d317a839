"""The signature format of `ssh-keygen -Y sign`: PROTOCOL.sshsig of OpenSSH, and files of such signatures.

A `.sig` file holds one or more armoured signatures, one after the other. All of it is hostile input.
"""

import base64
import hashlib
from dataclasses import dataclass

from dnsblock.signatures.public_key import TOKEN_BYTES, PublicKey
from dnsblock.signatures.wire import Malformed, Reader, Unsupported, from_base64, string, uint32

ORDER_NAMESPACE = "dnsblock-order@v1"

MAX_FILE_BYTES = 64 * 1024
MAX_SIGNATURES = 16

USER_PRESENT = 0x01  # of a token's flags (PROTOCOL.u2f)
MAGIC = b"SSHSIG"
VERSION = 1
HASHES = ("sha512", "sha256")  # ssh-keygen signs with the first one
BEGIN = b"-----BEGIN SSH SIGNATURE-----"
END = b"-----END SSH SIGNATURE-----"
LINE_CHARACTERS = 70  # in the armour of ssh-keygen


@dataclass(frozen=True, slots=True)
class Block:
    """One armoured signature of a file, or lines that are none."""

    line: int  # its first line in the file, from 1
    text: bytes

    def decoded(self) -> bytes:
        """The bytes in the armour. Raises `Malformed`."""
        lines = self.text.removesuffix(b"\n").split(b"\n")
        if b"\r" in self.text:
            raise Malformed("it has line ends of Windows: save the file with line ends of Unix (LF)")
        if END + BEGIN in lines:
            raise Malformed("a line end is missing between two signatures: sign the document again")
        if lines[0] != BEGIN:
            raise Malformed(f"text that is no signature: remove it, up to the next line {BEGIN.decode()}")
        if lines[-1] != END:
            raise Malformed(f"it is truncated: the line {END.decode()} is missing. Copy the whole file again")
        return from_base64(b"".join(lines[1:-1]))


def split(data: bytes) -> list[Block]:
    """The signatures of a file, one by one. Raises `Malformed` if there are none, or too many."""
    if len(data) > MAX_FILE_BYTES:
        raise Malformed(f"the file is larger than {MAX_FILE_BYTES:,} bytes; a signature has about 300")
    blocks: list[Block] = []
    lines: list[bytes] = []
    for number, line in enumerate([*data.splitlines(keepends=True), BEGIN], start=1):
        if lines and (line.rstrip(b"\n") == BEGIN or lines[-1].rstrip(b"\n") == END):
            blocks.append(Block(number - len(lines), b"".join(lines)))
            lines = []
        lines.append(line)
    if not blocks:
        raise Malformed("the file is empty")
    if len(blocks) > MAX_SIGNATURES:
        raise Malformed(f"the file has more than {MAX_SIGNATURES} signatures")
    return blocks


@dataclass(frozen=True, slots=True)
class Signature:
    """A parsed signature. It may still be of other data, or by another key than it names."""

    key: PublicKey
    namespace: str
    hash: str
    signature: bytes  # an SSH signature of `signed_bytes`

    @classmethod
    def from_blob(cls, blob: bytes) -> "Signature":
        """Parses the bytes in an armour. Raises `Malformed` or `Unsupported`."""
        reader = Reader(blob)
        if reader.take(len(MAGIC)) != MAGIC:
            raise Malformed("it does not begin as an SSH signature")
        if (version := reader.uint32()) > VERSION:
            raise Unsupported(f"version {version} of SSH signatures is not known")
        key, namespace = reader.string(), reader.text()
        reader.string()  # reserved; PROTOCOL.sshsig: ignored
        hash_name, signature = reader.text(), reader.string()
        reader.end()
        if hash_name not in HASHES:
            raise Unsupported(f"the hash {hash_name} is not accepted: {' or '.join(HASHES)}")
        return cls(PublicKey.from_blob(key), namespace, hash_name, signature)

    @property
    def is_touched(self) -> bool:
        """For a key on a hardware token: whether the token says that a person touched it.

        `ssh-keygen -Y verify` ignores this, sshd(8) requires it. Without it, a program on the officer's
        computer could make signatures as soon as the token is plugged in.
        """
        return not self.key.is_token or bool(self.signature[-TOKEN_BYTES] & USER_PRESENT)

    def is_of(self, document: bytes) -> bool:
        """Whether it signs the document with the key it names. Raises `Malformed` or `Unsupported`."""
        return self.key.is_signed(self.signature, signed_bytes(document, self.namespace, self.hash))


def signed_bytes(document: bytes, namespace: str, hash_name: str = HASHES[0]) -> bytes:
    """The bytes that the key signs instead of the document itself."""
    digest = hashlib.new(hash_name, document).digest()
    return MAGIC + string(namespace) + string(b"") + string(hash_name) + string(digest)


def armoured(key: PublicKey, namespace: str, signature: bytes, hash_name: str = HASHES[0]) -> bytes:
    """The text of a signature, as in a `.sig` file. `signature` is an SSH signature of `signed_bytes`."""
    blob = MAGIC + uint32(VERSION) + string(key.blob) + string(namespace) + string(b"")
    text = base64.b64encode(blob + string(hash_name) + string(signature))
    lines = [text[start : start + LINE_CHARACTERS] for start in range(0, len(text), LINE_CHARACTERS)]
    return b"\n".join([BEGIN, *lines, END, b""])
