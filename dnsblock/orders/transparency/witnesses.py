"""Witnesses: servers of others that cosign the checkpoints of this ledger (C2SP tlog-witness).

A witness cosigns a checkpoint only if it extends the last one that it has cosigned. So a ledger that was cut
or rewritten gets no further cosignature, even if an attacker controls this machine.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass

from dnsblock.https import Response, Server, Unreachable
from dnsblock.signatures.notes import NotANote, Signature, SignedCheckpoint, VerifierKey

TRIES = 3  # another process may submit a checkpoint between two requests
SIZE_TYPE = "text/x.tlog.size"

Proofs = Callable[[int, int], tuple[bytes, ...]]  # consistency proofs from one size to another


class NotCosigned(Exception):  # noqa: N818  # house style: named for what happened
    """A witness has not cosigned; the message says why."""


class Contradicted(NotCosigned):
    """A witness has cosigned another ledger with this origin, or more of this one than there is."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The cosignature of a witness."""

    key: VerifierKey
    signature: Signature
    size: int


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness and its key."""

    server: Server
    key: VerifierKey

    @property
    def name(self) -> str:
        """The name of its key."""
        return self.key.name

    async def cosign(self, note: SignedCheckpoint, proofs: Proofs, known: int) -> Cosigned:
        """Submits a checkpoint. `known` is the size that this witness has cosigned last, as far as is known.

        Raises `NotCosigned`, and `Contradicted` if the ledger does not extend what it has cosigned.
        """
        size = note.checkpoint.size
        old = min(known, size)
        for _ in range(TRIES):
            request = _request(note, old, proofs(old, size))
            try:
                response = await self.server.send("POST", "add-checkpoint", request)
            except Unreachable as err:
                raise NotCosigned(str(err)) from err
            if response.status == 200:
                return self._cosigned(note, response)
            if response.status != 409:
                raise _refusal(response, size)
            cosigned = _cosigned_size(response)
            if cosigned > size:
                raise Contradicted(f"it has cosigned {cosigned:,} records, but the ledger has only {size:,}")
            if cosigned == old:
                raise Contradicted(f"it has cosigned other records: the first {old:,} differ")
            old = cosigned
        raise NotCosigned("the size that it has cosigned changes with each request")

    def _cosigned(self, note: SignedCheckpoint, response: Response) -> Cosigned:
        try:
            lines = response.body.decode("utf-8").splitlines()
            signatures = [Signature.from_line(line) for line in lines]
        except (UnicodeDecodeError, NotANote) as err:
            raise NotCosigned("its response is not a list of signatures") from err
        for signature in signatures:
            if self.key.is_of(signature):
                if self.key.has_signed(note.text, signature):
                    return Cosigned(self.key, signature, note.checkpoint.size)
                raise NotCosigned("its signature is invalid")
        raise NotCosigned(f"its response has no signature of {self.key}")


def _request(note: SignedCheckpoint, old: int, proof: tuple[bytes, ...]) -> bytes:
    lines = [f"old {old}", *(base64.b64encode(sibling).decode("ascii") for sibling in proof), ""]
    return ("\n".join(lines) + f"\n{note}").encode()


def _cosigned_size(response: Response) -> int:
    """The size in a response 409."""
    if response.kind != SIZE_TYPE or not re.fullmatch(rb"(0|[1-9][0-9]{0,18})\n?", response.body):
        raise Contradicted(f"HTTP 409, which means a conflict: {response.text}")
    return int(response.body)


def _refusal(response: Response, size: int) -> NotCosigned:
    match response.status:
        case 403:
            return NotCosigned(
                "it does not know the key of this ledger: give it the key (`dnsblock log key`)"
            )
        case 404:
            return NotCosigned(
                "it does not know the origin of this ledger: give it the key (`dnsblock log key`)"
            )
        case 422:
            return Contradicted(f"the ledger of {size:,} records does not extend the records it has cosigned")
    return NotCosigned(f"HTTP {response.status}: {response.text}")
