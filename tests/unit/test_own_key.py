"""The instance's own Ed25519 key: made, stored, loaded, and used to sign."""

import os
import subprocess
from pathlib import Path

import pytest

from dnsblock.errors import Refused
from dnsblock.signatures.keys import SigningKey, is_signed

from .ssh_keys import make_key

RECEIPT = "dnsblock-receipt@v1"


def test_a_stored_key_is_the_same_after_a_restart(tmp_path: Path):
    """All receipts of an instance are by one key."""
    key = SigningKey.generate()
    key.store(tmp_path / "instance.key")
    assert SigningKey.load(tmp_path / "instance.key") == key
    assert SigningKey.generate() != key


def test_only_the_owner_may_read_a_stored_key(tmp_path: Path):
    """The issue: mode 0600, whatever the umask is."""
    before = os.umask(0)
    try:
        SigningKey.generate().store(tmp_path / "instance.key")
    finally:
        os.umask(before)
    assert (tmp_path / "instance.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["instance.key"]


def test_a_stored_key_is_never_replaced(tmp_path: Path):
    """Two starts at once, or a mistake: the key that has signed receipts must stay."""
    path = tmp_path / "instance.key"
    key = SigningKey.generate()
    key.store(path)
    with pytest.raises(FileExistsError):
        SigningKey.generate().store(path)
    assert SigningKey.load(path) == key
    assert [path.name for path in tmp_path.iterdir()] == ["instance.key"]


def test_a_crash_while_a_key_is_stored_does_not_prevent_the_next_start(tmp_path: Path):
    """A half-written file has another name, and is replaced."""
    (tmp_path / "instance.key.tmp").write_bytes(b"-----BEGIN")
    SigningKey.generate().store(tmp_path / "instance.key")
    assert [path.name for path in tmp_path.iterdir()] == ["instance.key"]


def test_ssh_keygen_reads_a_stored_key(tmp_path: Path):
    """`dnsblock log key` prints the public part; an operator compares it with ssh-keygen's."""
    key = SigningKey.generate()
    key.store(tmp_path / "instance.key")
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", tmp_path / "instance.key"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == key.public_key.line()
    assert key.public_key.line("instance") == f"{key.public_key.line()} instance"


def test_ssh_keygen_verifies_a_receipt(tmp_path: Path):
    """The issue: `ssh-keygen -Y verify` checks receipts."""
    key = SigningKey.generate()
    (tmp_path / "allowed").write_text(f"instance {key.public_key.line()}\n")
    (tmp_path / "sig").write_bytes(key.sign_ssh(b"a receipt", RECEIPT))
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "instance", "-n", RECEIPT, "-s", "sig"]
    for content, code in ((b"a receipt", 0), (b"another", 255)):
        done = subprocess.run(command, cwd=tmp_path, input=content, capture_output=True)
        assert done.returncode == code, done.stderr


def test_bare_signatures_are_verified():
    """C2SP notes have bare Ed25519 signatures (RFC 8032)."""
    key = SigningKey.generate()
    signature = key.sign(b"note")
    assert len(signature) == 64
    assert len(key.public_bytes) == 32
    assert is_signed(key.public_bytes, signature, b"note")
    for public, signed, data in (
        (key.public_bytes, signature, b"other"),
        (SigningKey.generate().public_bytes, signature, b"note"),
        (key.public_bytes, signature[:-1], b"note"),
        (b"", signature, b"note"),
        (b"\xff" * 32, b"\xff" * 64, b""),
    ):
        assert not is_signed(public, signed, data)


def test_a_key_is_not_printed():
    """A traceback or a log line must not give it away."""
    assert repr(SigningKey.generate()) == "SigningKey()"


def _is_refused(path: Path) -> str:
    with pytest.raises(Refused) as refused:
        SigningKey.load(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_a_file_that_is_not_such_a_key_is_refused(tmp_path: Path):
    """Each says what to do: without the key, no receipt can be signed."""
    path = tmp_path / "instance.key"
    assert "cannot be read: No such file" in _is_refused(path)
    make_key("ecdsa-sha2-nistp256").store(path)
    assert "not an Ed25519 key" in _is_refused(path)
    path.write_bytes(b"")
    assert "restore the file from a backup" in _is_refused(path)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "locked"], check=True
    )
    assert "without passphrase" in _is_refused(tmp_path / "locked")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path):
    """As OpenSSH does: a key that was readable for others may have been copied."""
    SigningKey.generate().store(tmp_path / "instance.key")
    (tmp_path / "instance.key").chmod(0o640)
    message = _is_refused(tmp_path / "instance.key")
    assert "'0640'" in message
    assert f"chmod 600 {tmp_path / 'instance.key'}" in message
