"""The keys of officers: in files, in a real ssh-agent, and on a token in software behind ssh-keygen."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dnsblock.errors import Refused
from dnsblock.signatures.allowed_signers import AllowedSigners
from dnsblock.signatures.officer_key import Signing, read_key
from dnsblock.signatures.signing import add_signature, signature_file
from dnsblock.signatures.verify import verify

from .officers import DOCUMENT, agent, is_signed_by, order, refusal
from .ssh_keys import KINDS, Key, make_key, string

__all__ = ["agent", "order"]  # fixtures

FILE_KINDS = [kind for kind in KINDS if not kind.startswith("sk-")]


# ------- Files


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_a_key_in_a_file_signs(order: Path, tmp_path: Path, kind: str):
    """Every algorithm that ssh-keygen makes a file for, and accepts in a signature."""
    own = make_key(kind)
    key = read_key(own.store(tmp_path / "key"))
    assert key.signing is Signing.HERE
    assert add_signature(order, DOCUMENT, key) == [key.public_key]
    assert is_signed_by(order, own)


def test_a_second_officer_adds_a_signature(order: Path, tmp_path: Path):
    """The file beside the document has both, in the order of signing."""
    first, second = make_key(), make_key("ecdsa-sha2-nistp521")
    add_signature(order, DOCUMENT, read_key(first.store(tmp_path / "first")))
    signature_file(order).write_bytes(signature_file(order).read_bytes().rstrip())  # by an editor
    keys = add_signature(order, DOCUMENT, read_key(second.store(tmp_path / "second")))
    assert [key.fingerprint for key in keys] == [first.fingerprint, second.fingerprint]
    assert is_signed_by(order, first, second)
    assert signature_file(order).name == "order.yaml.sig"


def test_a_new_file_of_signatures_has_the_usual_mode(order: Path, tmp_path: Path):
    """The daemon, another user, reads it in the orders folder."""
    before = os.umask(0o022)
    try:
        add_signature(order, DOCUMENT, read_key(make_key().store(tmp_path / "key")))
    finally:
        os.umask(before)
    assert signature_file(order).stat().st_mode & 0o777 == 0o644


def test_a_second_signature_by_one_key_is_refused(order: Path, tmp_path: Path):
    """It would not count, and the officer would believe that a second one has signed."""
    key = make_key().store(tmp_path / "key")
    add_signature(order, DOCUMENT, read_key(key))
    assert "this key has signed the document already" in refusal(order, key)


def test_no_signature_is_added_to_one_of_an_older_version(order: Path, tmp_path: Path):
    """One officer signs, the document is corrected, the other officer signs: only one of both would count."""
    add_signature(order, DOCUMENT, read_key(make_key().store(tmp_path / "first")))
    order.write_bytes(DOCUMENT + b"# corrected\n")
    second = make_key().store(tmp_path / "second")
    assert "an older version of it. Remove this file, and let all officers sign" in refusal(order, second)
    signature_file(order).write_bytes(b"")
    assert "the file is empty" in refusal(order, second)


def test_two_officers_may_sign_at_the_same_time(order: Path, tmp_path: Path):
    """Of two writers of one file, the later must not remove the signature of the other."""
    keys = [make_key() for _ in range(8)]
    officers = [read_key(key.store(tmp_path / f"key{number}")) for number, key in enumerate(keys)]
    threads = [threading.Thread(target=add_signature, args=(order, DOCUMENT, key)) for key in officers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    signers = AllowedSigners.parse("f", "".join(f"x {key.public_line}\n" for key in keys).encode())
    found, problems = verify(DOCUMENT, signature_file(order).read_bytes(), signers, datetime.now(UTC))
    assert ({signer.fingerprint for signer in found}, problems) == ({key.fingerprint for key in keys}, [])


def _corrupted(path: Path) -> None:
    text = path.read_bytes()
    path.write_bytes(text.replace(b"\n", b"\n!", 1))


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.chmod(0o644), "other users may read this private key: chmod 600"),
        (lambda path: path.write_bytes(b""), "does not begin with the type of a key"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "it is truncated"),
        (_corrupted, "not valid Base64"),
        (
            lambda path: path.write_bytes(b"-----BEGIN EC PRIVATE KEY-----\n"),
            "convert it with `ssh-keygen -p -f",
        ),
        (lambda path: path.write_text("ssh-dss AAAAB3NzaC1kc3MAAAAA\n"), "ssh-dss are not accepted"),
    ],
)
def test_a_file_that_is_no_key_is_refused_with_advice(
    order: Path, tmp_path: Path, prepare: Callable[[Path], object], reason: str
):
    """The officer chose the wrong file, or a copy of it is broken."""
    key = make_key().store(tmp_path / "key")
    prepare(key)
    assert reason in refusal(order, key)


def test_a_key_whose_private_part_is_another_one_does_not_sign(order: Path, tmp_path: Path):
    """The public part of the file is not protected: a signature is checked before it is written."""
    mine, other = (make_key().store(tmp_path / name) for name in ("mine", "other"))
    key = read_key(mine)
    other.rename(mine)
    with pytest.raises(Refused, match="the signature that was made is not valid"):
        add_signature(order, DOCUMENT, key)
    assert not signature_file(order).exists()


# ------- Passphrases


@pytest.fixture
def passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A person who enters it, when ssh-keygen asks."""
    program = tmp_path / "askpass"
    program.write_text("#!/bin/sh\necho correct horse\n")
    program.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    return "correct horse"


def _locked(path: Path, passphrase: str) -> tuple[Path, Key]:
    key = make_key()
    key.store(path)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", path]
    subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
    return path, key


def test_ssh_keygen_asks_for_a_passphrase(order: Path, tmp_path: Path, passphrase: str):
    """It never is in an argument, nor in this process."""
    path, own = _locked(tmp_path / "key", passphrase)
    key = read_key(path)
    assert key.signing is Signing.SSH_KEYGEN
    add_signature(order, DOCUMENT, key)
    assert is_signed_by(order, own)


def test_a_wrong_passphrase_signs_nothing(
    order: Path, tmp_path: Path, passphrase: str, capfd: pytest.CaptureFixture[str]
):
    """The message of ssh-keygen explains it."""
    path, _ = _locked(tmp_path / "key", passphrase + "!")
    assert "ssh-keygen did not sign; its message is above" in refusal(order, path)
    assert "incorrect passphrase" in capfd.readouterr().err


def test_without_ssh_keygen_a_locked_key_is_refused(
    order: Path, tmp_path: Path, passphrase: str, monkeypatch: pytest.MonkeyPatch
):
    """A clerk's computer may lack it."""
    path, _ = _locked(tmp_path / "key", passphrase)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install openssh-client" in refusal(order, path)


# ------- ssh-agent


@pytest.mark.parametrize("kind", FILE_KINDS)
@pytest.mark.usefixtures("agent")
def test_a_key_in_ssh_agent_signs(order: Path, tmp_path: Path, kind: str):
    """KEY is then the .pub file, as for ssh-keygen."""
    own = make_key(kind)
    path = own.store(tmp_path / "key")
    subprocess.run(["ssh-add", "-q", path], check=True)
    path.unlink()
    key = read_key(path.with_name("key.pub"))
    assert key.signing is Signing.AGENT
    add_signature(order, DOCUMENT, key)
    assert is_signed_by(order, own)


@pytest.mark.usefixtures("agent")
def test_an_agent_without_the_key_is_named(order: Path, tmp_path: Path):
    """The usual mistake after a reboot."""
    make_key().store(tmp_path / "key")
    assert "the ssh-agent does not have this key, but 0 others: run `ssh-add KEY`" in refusal(
        order, tmp_path / "key.pub"
    )


@pytest.mark.usefixtures("agent")
def test_a_locked_agent_does_not_sign(order: Path, tmp_path: Path, passphrase: str):
    """`ssh-add -x` while the officer is at lunch: a locked agent lists no keys."""
    path = make_key().store(tmp_path / "key")
    subprocess.run(["ssh-add", "-q", path], check=True)
    subprocess.run(["ssh-add", "-x"], check=True, capture_output=True)
    assert "the ssh-agent does not have this key" in refusal(order, tmp_path / "key.pub")
    assert passphrase


def test_without_an_agent_it_says_so(order: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both possible reasons, with advice."""
    make_key().store(tmp_path / "key")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    assert "SSH_AUTH_SOCK is not set" in refusal(order, tmp_path / "key.pub")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    assert "the ssh-agent cannot be reached: No such file" in refusal(order, tmp_path / "key.pub")


@pytest.mark.parametrize(
    "answer", [b"", b"\0\0\0\x01", b"\xff\xff\xff\xff", string(b"\x05"), string(b"\x0c")]
)
def test_a_broken_agent_is_not_believed(
    order: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
):
    """Something else may listen at the socket."""
    make_key().store(tmp_path / "key")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent"))
        listener.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(4096)
                client.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        message = refusal(order, tmp_path / "key.pub")
        server.join(60)
    assert "not an ssh-agent at SSH_AUTH_SOCK" in message
