"""Signed checkpoints of the ledger: C2SP tlog-checkpoint, signed-note and tlog-cosignature.

A checkpoint names the ledger (its origin), the number of its records and the root of their Merkle tree. It is
signed with Ed25519. Others cannot be shown another ledger of the same size without a second signature.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from dnsblock.signatures.keys import SigningKey, is_signed

MAX_NOTE_BYTES = 64 << 10
MAX_SIGNATURES = 64  # signed-note: at least 16 must be accepted
MAX_NAME_BYTES = 255
MAX_SIZE = (1 << 63) - 1
ROOT_BYTES = 32  # of a SHA-256
PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64  # RFC 8032, section 5.1

# Signature types of signed-note.
SIGNATURE = 0x01  # Ed25519 over the text
COSIGNATURE = 0x04  # Ed25519 of a witness, with a time

_DASH = "\N{EM DASH} "
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NotANote(ValueError):  # noqa: N818  # house style: named for what happened
    """A text is no checkpoint, no key or no signature; the message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a ledger: how many records it has, and the root of their tree."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The signed text (tlog-checkpoint, "Note text")."""
        return f"{self.origin}\n{self.size}\n{_text(self.root)}\n"

    def signed(self, key: SigningKey) -> "SignedCheckpoint":
        """The checkpoint with the signature of a log. The name of its key is the origin."""
        verifier = VerifierKey(self.origin, SIGNATURE, key.public_bytes)
        signature = Signature(self.origin, verifier.key_id + key.sign(self.text.encode()))
        return SignedCheckpoint(self, self.text, (signature,))


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line of a note."""

    name: str
    data: bytes  # the key ID, then the signature

    @property
    def line(self) -> str:
        """The line, with its line end."""
        return f"{_DASH}{self.name} {_text(self.data)}\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Parses a line without its line end. Raises `NotANote`."""
        name, space, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space or not is_name(name):
            raise NotANote("not a signature line")
        data = _bytes(encoded)
        if len(data) < 5:
            raise NotANote("a signature is too short")
        return cls(name, data)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name, as `NAME+ID+KEY` (signed-note, "Verifier keys")."""

    name: str
    kind: int  # SIGNATURE or COSIGNATURE
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The first bytes of each of its signatures."""
        named = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(named).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_text(bytes([self.kind]) + self.public)}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parses a key. Raises `NotANote`."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        data = _bytes(encoded)
        if not is_name(name) or len(data) != 1 + PUBLIC_BYTES or data[0] not in (SIGNATURE, COSIGNATURE):
            raise NotANote("not a key NAME+ID+KEY with an Ed25519 key of type 1 or 4")
        key = cls(name, data[0], data[1:])
        if key.key_id.hex() != key_id.lower():
            raise NotANote(f"the ID {key_id} is not that of the key, which is {key.key_id.hex()}")
        return key

    def is_of(self, signature: Signature) -> bool:
        """Whether a signature claims to be by this key."""
        return signature.name == self.name and signature.data[:4] == self.key_id

    def has_signed(self, text: str, signature: Signature) -> bool:
        """Whether a signature of this key is valid for a text."""
        data = signature.data[4:]
        if self.kind == SIGNATURE:
            return is_signed(self.public, data, text.encode())
        if len(data) != 8 + SIGNATURE_BYTES:
            return False
        at = int.from_bytes(data[:8], "big")
        return is_signed(self.public, data[8:], f"cosignature/v1\ntime {at}\n{text}".encode())


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A note: a checkpoint with its signatures. Nothing in it is true until a signature is verified."""

    checkpoint: Checkpoint
    text: str  # the signed text; others may add lines to it
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parses a note. Raises `NotANote`."""
        if len(data) > MAX_NOTE_BYTES:
            raise NotANote(f"larger than {MAX_NOTE_BYTES:,} bytes")
        try:
            note = data.decode("utf-8")
        except UnicodeDecodeError as err:
            raise NotANote("not UTF-8") from err
        if _CONTROL.search(note):
            raise NotANote("has a control character")
        head, separator, tail = note.rpartition("\n\n")
        if not separator or not tail.endswith("\n"):
            raise NotANote("has no signature")
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise NotANote(f"has more than {MAX_SIGNATURES} signatures")
        return cls(_checkpoint(head), head + "\n", tuple(map(Signature.from_line, lines)))

    def verified(self, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
        """The keys that have signed it. Raises `NotANote` for an invalid signature of a key among them."""
        found: list[VerifierKey] = []
        for key in keys:
            for signature in self.signatures:
                if key.is_of(signature):
                    if not key.has_signed(self.text, signature):
                        raise NotANote(f"the signature of {key.name} is invalid")
                    found.append(key)
                    break
        return tuple(found)

    def own_key(self, public: bytes) -> VerifierKey:
        """The key of its log, with the name that the log had then."""
        return VerifierKey(self.checkpoint.origin, SIGNATURE, public)

    def with_signatures(self, more: Iterable[Signature]) -> "SignedCheckpoint":
        """The same checkpoint with further signatures. A newer one replaces that of the same key."""
        kept = {(one.name, one.data[:4]): one for one in (*self.signatures, *more)}
        return SignedCheckpoint(self.checkpoint, self.text, tuple(kept.values()))


def witness_key(text: str) -> VerifierKey:
    """Parses the key of a witness: its signatures are cosignatures, even if the key has type 1.

    Raises `NotANote`.
    """
    key = VerifierKey.from_text(text)
    return VerifierKey(key.name, COSIGNATURE, key.public)


def is_name(text: str) -> bool:
    """Whether a text can be an origin or the name of a key."""
    return bool(_NAME.fullmatch(text)) and len(text.encode("utf-8", "replace")) <= MAX_NAME_BYTES


def _checkpoint(head: str) -> Checkpoint:
    lines = head.split("\n")
    if len(lines) < 3 or "" in lines:
        raise NotANote("not a checkpoint: origin, size and root are missing")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size) or int(size) > MAX_SIZE:
        raise NotANote("the size is not a number")
    decoded = _bytes(root)
    if len(decoded) != ROOT_BYTES:
        raise NotANote("the root is not a SHA-256")
    return Checkpoint(origin, int(size), decoded)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    """Decodes base64 (RFC 4648, section 4) in its only canonical form."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise NotANote("not base64") from err
    if _text(data) != text:
        raise NotANote("not base64")
    return data
