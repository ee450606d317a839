"""The file beside a document that holds its signatures: NAME.sig."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dnsblock import durable
from dnsblock.document import read_bytes
from dnsblock.errors import Problem, Refused
from dnsblock.signatures.officer_key import OfficerKey
from dnsblock.signatures.public_key import PublicKey
from dnsblock.signatures.sshsig import MAX_FILE_BYTES, MAX_SIGNATURES, ORDER_NAMESPACE, Signature, split
from dnsblock.signatures.wire import Malformed, Unsupported


def signature_file(document: Path) -> Path:
    """The file with the signatures of a document."""
    return document.with_name(document.name + ".sig")


def add_signature(
    path: Path, document: bytes, key: OfficerKey, before: Callable[[], None] = lambda: None
) -> list[PublicKey]:
    """Signs the document at a path, and adds the signature to its file. Returns all keys that have signed it.

    Calls `before` when a person may be asked for a passphrase or a touch. Raises `Refused`; if the key has
    signed the document already, nobody is asked.
    """
    file = signature_file(path)
    _existing(file, document, key)
    before()
    text = key.sign(document)
    with _locked(path.parent):
        # Read again: another officer may have signed meanwhile.
        keys, content = _existing(file, document, key)
        try:
            durable.write(file, content + text, mode=0o666)
        except OSError as err:
            raise Refused([Problem(str(file), None, "", f"cannot be written: {err.strerror}")]) from err
    return [*keys, key.public_key]


def read_signatures(document: Path) -> bytes | None:
    """The content of the file with the signatures of a document; None if there is none. Raises `Refused`."""
    file = signature_file(document)
    return read_bytes(file, max_bytes=MAX_FILE_BYTES) if file.exists() else None


def _existing(file: Path, document: bytes, key: OfficerKey) -> tuple[list[PublicKey], bytes]:
    """The keys that have signed the document, and the content of its file, to which this key may add."""
    if not file.exists():
        return [], b""
    content = read_bytes(file, max_bytes=MAX_FILE_BYTES)
    keys: list[PublicKey] = []
    line = None
    try:
        for block in split(content):
            line = block.line
            signature = Signature.from_blob(block.decoded())
            if signature.namespace != ORDER_NAMESPACE or not signature.is_of(document):
                raise Malformed("this signature is of another document, or of an older version of it")
            keys.append(signature.key)
    except (Malformed, Unsupported) as err:
        advice = "Remove this file, and let all officers sign the document again"
        raise Refused([Problem(str(file), line, "", f"{err}. {advice}")]) from err
    if key.public_key in keys:
        reason = "this key has signed the document already, and counts once: another officer must sign"
        raise Refused([Problem(str(file), None, key.public_key.fingerprint, reason)])
    if len(keys) >= MAX_SIGNATURES:
        raise Refused([Problem(str(file), None, "", f"a document has at most {MAX_SIGNATURES} signatures")])
    return keys, content if content.endswith(b"\n") else content + b"\n"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lets officers who share a folder write one after the other."""
    with ExitStack() as stack:
        with suppress(OSError):  # some network file systems have no locks, and some folders cannot be read
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
