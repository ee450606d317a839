"""A document, a real ssh-agent, and checks of the file of signatures, for the tests of officers' keys."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dnsblock.errors import Refused
from dnsblock.signatures.allowed_signers import AllowedSigners
from dnsblock.signatures.officer_key import read_key
from dnsblock.signatures.signing import add_signature, signature_file
from dnsblock.signatures.verify import verify

from .ssh_keys import Key

DOCUMENT = b"order_id: 84/2017\n"


@pytest.fixture
def order(tmp_path: Path) -> Path:
    path = tmp_path / "order.yaml"
    path.write_bytes(DOCUMENT)
    return path


def is_signed_by(order: Path, *keys: Key) -> bool:
    """Whether these keys have signed, and nothing else is in the file."""
    signers = AllowedSigners.parse("f", "".join(f"x {key.public_line}\n" for key in keys).encode())
    signatures = signature_file(order).read_bytes()
    found, problems = verify(order.read_bytes(), signatures, signers, datetime.now(UTC))
    assert problems == []
    return [signer.fingerprint for signer in found] == [key.fingerprint for key in keys]


def refusal(order: Path, key: Path) -> str:
    before = signature_file(order).read_bytes() if signature_file(order).exists() else None
    with pytest.raises(Refused) as refused:
        add_signature(order, order.read_bytes(), read_key(key))
    assert before == (signature_file(order).read_bytes() if signature_file(order).exists() else None)
    return str(refused.value)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real ssh-agent."""
    path = tmp_path / "agent.sock"
    with subprocess.Popen(["ssh-agent", "-D", "-P", "*", "-a", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield
        process.terminate()
