"""The key of an officer: in a file, in ssh-agent, or on a hardware token.

Keys with a passphrase and keys on a token are used by `ssh-keygen`, so that passphrase and PIN never enter
this process.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dnsblock.document import read_bytes
from dnsblock.errors import Problem, Refused
from dnsblock.signatures import agent
from dnsblock.signatures.algorithms import CURVES, hash_of
from dnsblock.signatures.allowed_signers import KEY_TYPE
from dnsblock.signatures.keys import MAX_FILE_BYTES, check_mode
from dnsblock.signatures.public_key import ADVICE, PublicKey
from dnsblock.signatures.sshsig import MAX_FILE_BYTES as MAX_SIGNATURES_BYTES
from dnsblock.signatures.sshsig import ORDER_NAMESPACE, Signature, armoured, signed_bytes, split
from dnsblock.signatures.wire import Malformed, Reader, Unsupported, from_base64, mpint, string

OPENSSH_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----"
OPENSSH_END = b"-----END OPENSSH PRIVATE KEY-----"
OPENSSH_MAGIC = b"openssh-key-v1\0"  # PROTOCOL.key


class Signing(Enum):
    """The maker of the signature."""

    HERE = "here"
    AGENT = "ssh-agent"
    SSH_KEYGEN = "ssh-keygen"  # asks for the passphrase or the PIN, and for the touch


@dataclass(frozen=True, slots=True)
class OfficerKey:
    """A key to sign with, as far as it is known without its passphrase or its token."""

    path: Path
    public_key: PublicKey
    signing: Signing

    def sign(self, document: bytes, namespace: str = ORDER_NAMESPACE) -> bytes:
        """The armoured signature of a document. May wait for a person. Raises `Refused`."""
        match self.signing:
            case Signing.HERE:
                made = _sign_here(self, signed_bytes(document, namespace))
                text = armoured(self.public_key, namespace, made)
            case Signing.AGENT:
                made = agent.sign(self.public_key, signed_bytes(document, namespace))
                text = armoured(self.public_key, namespace, made)
            case Signing.SSH_KEYGEN:
                text = _sign_by_ssh_keygen(self.path, document, namespace)
        signature = _checked(text, document, namespace, self.public_key)
        if signature is None:
            raise _refused(self.path, "the signature that was made is not valid: use another key")
        if not signature.is_touched:
            reason = "the token signed without a touch: make a key without the option no-touch-required"
            raise _refused(self.path, reason)
        return text


def read_key(path: Path) -> OfficerKey:
    """Reads a private key file, or the `.pub` file of a key in ssh-agent. Raises `Refused`."""
    data = read_bytes(path, max_bytes=MAX_FILE_BYTES)
    try:
        if not data.startswith(b"-----BEGIN "):
            return OfficerKey(path, _public(data), Signing.AGENT)
        check_mode(path)
        if not data.startswith(OPENSSH_BEGIN):
            reason = f"not in the format of OpenSSH: convert it with `ssh-keygen -p -f {path}`"
            raise _refused(path, reason)
        cipher, key = _public_part(data)
    except Malformed as err:
        reason = f"not a key of OpenSSH: {err}. Give a private key file, or the .pub file of an agent's key"
        raise _refused(path, reason) from err
    except Unsupported as err:
        raise _refused(path, str(err)) from err
    is_here = cipher == "none" and not key.is_token
    return OfficerKey(path, key, Signing.HERE if is_here else Signing.SSH_KEYGEN)


def _public(data: bytes) -> PublicKey:
    """The key of a `.pub` file."""
    line = data.decode("utf-8", "replace").strip().partition("\n")[0]
    words = line.split()
    if len(words) < 2 or not KEY_TYPE.match(line):
        raise Malformed("it does not begin with the type of a key")
    return PublicKey.from_words(words[0], words[1])


def _public_part(data: bytes) -> tuple[str, PublicKey]:
    """The cipher of a private key file, and its public key, neither of them encrypted (PROTOCOL.key)."""
    if not data.rstrip().endswith(OPENSSH_END):
        raise Malformed("it is truncated")
    text = data.strip().removeprefix(OPENSSH_BEGIN).removesuffix(OPENSSH_END)
    reader = Reader(from_base64(b"".join(text.split())))
    if reader.take(len(OPENSSH_MAGIC)) != OPENSSH_MAGIC:
        raise Malformed("it does not begin as a private key")
    cipher = reader.text()
    reader.string(), reader.string()  # how the passphrase becomes a key
    if reader.uint32() != 1:
        raise Malformed("it has several keys")
    return cipher, PublicKey.from_blob(reader.string())


# ------- The three ways to sign -------


def _sign_here(key: OfficerKey, data: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        private = load_ssh_private_key(read_bytes(key.path, max_bytes=MAX_FILE_BYTES), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise _refused(key.path, "the private part of the key is corrupt: use another copy of it") from err
    match private:
        case ed25519.Ed25519PrivateKey():
            return string("ssh-ed25519") + string(private.sign(data))
        case ec.EllipticCurvePrivateKey():
            curve = next(curve for curve in CURVES if key.public_key.algorithm.endswith(curve.name))
            r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hash_of(curve.hash))))
            return string(key.public_key.algorithm) + string(mpint(r) + mpint(s))
        case rsa.RSAPrivateKey():
            made = private.sign(data, padding.PKCS1v15(), hash_of("sha512"))
            return string("rsa-sha2-512") + string(made)
        case _:
            raise _refused(key.path, f"a key of this type cannot sign: {ADVICE}")


def _sign_by_ssh_keygen(path: Path, document: bytes, namespace: str) -> bytes:
    if (program := shutil.which("ssh-keygen")) is None:
        reason = "a key with a passphrase or on a token needs ssh-keygen: install openssh-client"
        raise _refused(path, reason)
    with tempfile.TemporaryDirectory(prefix="dnsblock-sign-") as folder:
        # Not by standard input: without a terminal, ssh-keygen reads the passphrase from it.
        copy = Path(folder, "document")
        copy.write_bytes(document)
        # No timeout: it waits for a person, who can interrupt it.
        command = [program, "-q", "-Y", "sign", "-f", str(path), "-n", namespace, str(copy)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603  # no shell
        if done.returncode != 0:
            raise _refused(path, "ssh-keygen did not sign; its message is above")
        return read_bytes(Path(folder, "document.sig"), max_bytes=MAX_SIGNATURES_BYTES)


def _checked(text: bytes, document: bytes, namespace: str, key: PublicKey) -> Signature | None:
    """A new signature, parsed; None if others would not accept it."""
    try:
        [block] = split(text)
        signature = Signature.from_blob(block.decoded())
        is_good = signature.key == key and signature.namespace == namespace and signature.is_of(document)
    except ValueError:
        return None
    return signature if is_good else None


def _refused(path: Path, reason: str) -> Refused:
    return Refused([Problem(str(path), None, "", reason)])
