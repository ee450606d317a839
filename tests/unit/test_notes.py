"""Signed checkpoints: C2SP signed-note, tlog-checkpoint and tlog-cosignature."""

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest

from dnsblock.signatures.keys import SigningKey
from dnsblock.signatures.notes import (
    COSIGNATURE,
    SIGNATURE,
    Checkpoint,
    NotANote,
    Signature,
    SignedCheckpoint,
    VerifierKey,
)

# The example of golang.org/x/mod/sumdb/note, whose format signed-note is.
PETER = VerifierKey.from_text("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
PETER_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2p"
    "ZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)
# The example of tlog-cosignature: a checkpoint with the line of a log and that of a witness.
EXAMPLE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhc\
yv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dl\
rDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""
ROOT = hashlib.sha256(b"root").digest()
ORIGIN = "resolver.isp.example/ledger"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture(scope="module")
def note(key: SigningKey) -> SignedCheckpoint:
    return Checkpoint(ORIGIN, 42, ROOT).signed(key)


def cosigned(note: SignedCheckpoint, witness: SigningKey, name: str, at: int) -> Signature:
    """As a witness does it."""
    message = f"cosignature/v1\ntime {at}\n{note.text}".encode()
    verifier = VerifierKey(name, COSIGNATURE, witness.public_bytes)
    return Signature(name, verifier.key_id + at.to_bytes(8, "big") + witness.sign(message))


def test_a_note_of_the_go_implementation_is_verified():
    """Its example: key, text and signature."""
    signature = Signature.from_line(PETER_LINE)
    assert PETER.is_of(signature)
    assert PETER.has_signed(PETER_TEXT, signature)
    assert not PETER.has_signed(PETER_TEXT + "\n", signature)
    assert str(PETER) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"


def test_the_example_of_the_specification_is_read():
    """Every byte of it comes back."""
    read = SignedCheckpoint.from_bytes(EXAMPLE.encode())
    assert (read.checkpoint.origin, read.checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert [signature.name for signature in read.signatures] == [
        "example.com/behind-the-sofa",
        "witness.example.com/w1",
    ]
    assert str(read) == EXAMPLE


def test_a_signed_checkpoint_has_origin_size_and_root(key: SigningKey, note: SignedCheckpoint):
    """tlog-checkpoint: three lines, an empty one, and a signature by the key with the name of the log."""
    lines = str(note).split("\n")
    assert lines[:4] == [ORIGIN, "42", base64.b64encode(ROOT).decode(), ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    again = SignedCheckpoint.from_bytes(str(note).encode())
    verifier = VerifierKey.from_text(str(VerifierKey(ORIGIN, SIGNATURE, key.public_bytes)))
    assert again == note
    assert again.verified([PETER, verifier]) == (verifier,)
    assert again.verified([PETER]) == ()
    assert again.own_key(key.public_bytes) == verifier


def test_openssl_verifies_a_checkpoint(key: SigningKey, note: SignedCheckpoint, tmp_path: Path):
    """Another implementation of Ed25519, and the key in the DER form of RFC 8410."""
    (tmp_path / "text").write_text(note.text)
    (tmp_path / "signature").write_bytes(note.signatures[0].data[4:])
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + key.public_bytes)
    command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key.der -rawin -in text -sigfile signature"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done
    (tmp_path / "text").write_text(note.text.replace("42", "43"))
    assert subprocess.run(command.split(), cwd=tmp_path, capture_output=True).returncode == 1


def test_an_altered_checkpoint_is_invalid(key: SigningKey, note: SignedCheckpoint):
    """Another size, another root, another origin; and a signature with another byte."""
    verifier = VerifierKey(ORIGIN, SIGNATURE, key.public_bytes)
    text, data = str(note), note.signatures[0].data
    others = [
        text.replace("\n42\n", "\n43\n"),
        text.replace("\n42\n", "\n42\n" + base64.b64encode(bytes(32)).decode() + "\n"),
        text.replace(f"{ORIGIN}\n", "other.example\n", 1),
        f"{note.text}\n{Signature(ORIGIN, data[:-1] + bytes([data[-1] ^ 1])).line}",
        f"{note.text}\n{Signature(ORIGIN, data[:-1]).line}",
    ]
    for other in others:
        with pytest.raises(NotANote, match=r"the signature of .* is invalid"):
            SignedCheckpoint.from_bytes(other.encode()).verified([verifier])


def test_a_witness_signs_the_time_too(note: SignedCheckpoint):
    """tlog-cosignature, Ed25519: header, time and the whole text."""
    witness = SigningKey.generate()
    verifier = VerifierKey.from_text(
        str(VerifierKey("witness.example/w1", COSIGNATURE, witness.public_bytes))
    )
    signature = cosigned(note, witness, "witness.example/w1", 1_700_000_000)
    whole = SignedCheckpoint.from_bytes(str(note.with_signatures([signature])).encode())
    assert whole.verified([verifier]) == (verifier,)
    later = Signature(signature.name, signature.data[:11] + b"\xff" + signature.data[12:])
    with pytest.raises(NotANote):
        note.with_signatures([later]).verified([verifier])
    assert len(whole.with_signatures([later]).signatures) == 2, "a newer one replaces it"
    plain = VerifierKey("witness.example/w1", SIGNATURE, witness.public_bytes)
    assert whole.verified([plain]) == (), "the type is part of the key ID"
    assert not verifier.has_signed(note.text, Signature("witness.example/w1", verifier.key_id + b"\0" * 64))


def test_a_key_with_another_id_is_refused():
    """Somebody mistyped it, or the name was changed."""
    for text, why in (
        ("PeterNeuman+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "the ID c74f20a3 is not that"),
        ("PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "which is c74f20a3"),
        ("PeterNeumann+c74f20a3+AxpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "type 1 or 4"),
        ("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T", "not base64"),
        ("PeterNeumann+c74f20a3+AQ==", "not a key"),
        ("+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "not a key"),
        ("Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "not a key"),
        ("PeterNeumann", "not a key"),
        ("", "not a key"),
    ):
        with pytest.raises(NotANote, match=why):
            VerifierKey.from_text(text)


GOOD = (
    "o.example\n7\n"
    + base64.b64encode(ROOT).decode()
    + "\n\n— k "
    + base64.b64encode(b"k" * 68).decode()
    + "\n"
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no signature"),
        (GOOD.encode()[:-1], "no signature"),
        (GOOD.replace("\n\n", "\n").encode(), "no signature"),
        (GOOD.encode() + b"\n", "no signature"),
        (GOOD.encode() + b"more\n", "not a signature line"),
        (GOOD.replace("— k ", "- k ").encode(), "not a signature line"),
        (GOOD.replace("— k ", "— ").encode(), "not a signature line"),
        (GOOD.replace("— k ", "— k+ ").encode(), "not a signature line"),
        (GOOD.replace("— k ", "— k  ").encode(), "not base64"),
        (b"\xff" + GOOD.encode(), "not UTF-8"),
        (GOOD.replace("\n7", "\r\n7").encode(), "control character"),
        (GOOD.replace("\n7\n", "\n07\n").encode(), "size is not a number"),
        (GOOD.replace("\n7\n", "\n-7\n").encode(), "size is not a number"),
        (GOOD.replace("\n7\n", "\n9999999999999999999\n").encode(), "size is not a number"),
        (GOOD.replace("\n7\n", "\n7\nAAAA\n").encode(), "root is not a SHA-256"),
        (GOOD.replace("\n7\n", "\n").encode(), "not a checkpoint"),
        (GOOD.replace("o.example\n", "\n").encode(), "not a checkpoint"),
        (GOOD.replace("\n\n", "\n\nmore\n\n").encode(), "not a checkpoint"),
        (GOOD.encode() + b"\xe2\x80\x94 k QUJDRA==\n", "too short"),
        (GOOD.encode() * 1000, "larger than 65,536 bytes"),
        ((GOOD + GOOD.partition("\n\n")[2] * 64).encode(), "more than 64 signatures"),
    ],
)
def test_a_malformed_note_is_refused(data: bytes, why: str):
    """Notes come from other folders and from witnesses."""
    SignedCheckpoint.from_bytes(GOOD.encode())
    with pytest.raises(NotANote, match=why):
        SignedCheckpoint.from_bytes(data)


def test_extension_lines_stay_part_of_the_signed_text():
    """tlog-checkpoint allows them; this ledger writes none."""
    data = GOOD.replace("\n\n", "\nextension\n\n").encode()
    assert SignedCheckpoint.from_bytes(data).text.endswith("\nextension\n")
