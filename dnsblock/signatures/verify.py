"""Verifies the signatures of an order document. Pure: no file, no clock.

How many signers an order needs, and what each of them may do, is decided by the caller.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from dnsblock.errors import printable
from dnsblock.signatures.allowed_signers import AllowedSigners, SignerLine
from dnsblock.signatures.public_key import PublicKey
from dnsblock.signatures.sshsig import ORDER_NAMESPACE, Block, Signature, split
from dnsblock.signatures.wire import Malformed, Unsupported

# Why a signature does not count. docs/signatures.md says what to do about each.
SignatureCode = Literal[
    "UNSIGNED",
    "MALFORMED",  # not an SSH signature, or a truncated one
    "UNSUPPORTED_ALGORITHM",
    "WRONG_NAMESPACE",  # made for something else than orders, or by a key that may not sign orders
    "UNKNOWN_KEY",
    "BAD_SIGNATURE",  # of another document
    "NOT_TOUCHED",  # by a hardware token that nobody touched
    "NOT_YET_VALID_KEY",
    "EXPIRED_KEY",
    "DUPLICATE_SIGNER",
    "WRONG_ROLE",  # by a signer who may not order this
]


@dataclass(frozen=True, slots=True)
class Signer:
    """A key of the issuer that has signed the document."""

    principal: str  # the first of `principals`
    fingerprint: str  # as ssh-keygen prints it, `SHA256:…`
    algorithm: str  # the type of the key, such as `ssh-ed25519`
    principals: tuple[str, ...]  # all names of this key in the file of keys; each may be a pattern

    def as_json(self) -> dict[str, Any]:
        return {"principal": self.principal, "fingerprint": self.fingerprint, "algorithm": self.algorithm}


@dataclass(frozen=True, slots=True)
class SignatureProblem:
    """Why one signature does not count, or why none of a file does."""

    code: SignatureCode
    reason: str  # with advice
    number: int | None = None  # of the signature in the file, from 1
    line: int | None = None  # of the file
    fingerprint: str | None = None

    def __str__(self) -> str:
        which = "" if self.number is None else f"signature {self.number}"
        key = "" if self.fingerprint is None else f" by {self.fingerprint}"
        return f"{which}{key}: {self.code}: {printable(self.reason)}".removeprefix(": ").lstrip()

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "reason": printable(self.reason),
            "number": self.number,
            "line": self.line,
            "fingerprint": self.fingerprint,
        }


def verify(
    document: bytes, signatures: bytes | None, signers: AllowedSigners, at: datetime
) -> tuple[list[Signer], list[SignatureProblem]]:
    """The signers of a document at a time, in the order of the file, and the signatures that do not count.

    `signatures` is the content of the `.sig` file; None if there is none. Each key counts once.
    """
    if signatures is None:
        reason = "there is no file of signatures beside the document: sign it with `dnsblock order sign`"
        return [], [SignatureProblem("UNSIGNED", reason)]
    try:
        blocks = split(signatures)
    except Malformed as err:
        return [], [SignatureProblem("MALFORMED", f"{err}: sign the document with `dnsblock order sign`")]
    found: dict[str, Signer] = {}
    problems = []
    for number, block in enumerate(blocks, start=1):
        verified = _verify_one(document, block, number, signers, at)
        if isinstance(verified, Signer) and verified.fingerprint in found:
            reason = "this key has signed already, and counts once: another officer must sign"
            verified = SignatureProblem("DUPLICATE_SIGNER", reason, number, block.line, verified.fingerprint)
        if isinstance(verified, Signer):
            found[verified.fingerprint] = verified
        else:
            problems.append(verified)
    return list(found.values()), problems


def _verify_one(
    document: bytes, block: Block, number: int, signers: AllowedSigners, at: datetime
) -> Signer | SignatureProblem:
    key: PublicKey | None = None

    def problem(code: SignatureCode, reason: str) -> SignatureProblem:
        return SignatureProblem(code, reason, number, block.line, None if key is None else key.fingerprint)

    try:
        signature = Signature.from_blob(block.decoded())
        key = signature.key
        if signature.namespace != ORDER_NAMESPACE:
            reason = f"made for '{signature.namespace}', not for orders: sign with `dnsblock order sign`"
            return problem("WRONG_NAMESPACE", reason)
        line = signers.find(key, ORDER_NAMESPACE, at)
        if line == "UNKNOWN_KEY":
            where = (
                f"{signers.file}, with the changes of rotate orders," if signers.is_rotated else signers.file
            )
            return problem(line, f"not a key of the issuer: {where} has no valid line for it")
        if not signature.is_of(document):
            reason = "of another document, or this one was changed after it was signed: sign it again"
            return problem("BAD_SIGNATURE", reason)
    except Malformed as err:
        return problem("MALFORMED", str(err))
    except Unsupported as err:
        return problem("UNSUPPORTED_ALGORITHM", str(err))
    if not signature.is_touched:
        reason = "nobody touched the token, so a program may have signed: sign again, and touch it"
        return problem("NOT_TOUCHED", reason)
    if isinstance(line, SignerLine):
        return Signer(line.names[0], key.fingerprint, key.algorithm, line.names)
    return problem(line, _advice(line, signers.file))


def _advice(code: Literal["WRONG_NAMESPACE", "NOT_YET_VALID_KEY", "EXPIRED_KEY"], file: str) -> str:
    match code:
        case "WRONG_NAMESPACE":
            return f"the option namespaces of this key in {file} does not include {ORDER_NAMESPACE}"
        case "NOT_YET_VALID_KEY":
            return f"valid-after of this key in {file} is in the future: sign with a key that is valid now"
        case "EXPIRED_KEY":
            return f"valid-before of this key in {file} has passed: sign with a key that is valid now"
