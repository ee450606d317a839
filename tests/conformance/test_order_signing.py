"""`order sign` and `order verify`, with keys of ssh-keygen, and ssh-keygen as the judge. No daemon runs."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from .orders import shipped
from .tools import dnsblock, run, tool

NAMESPACE = "dnsblock-order@v1"


@dataclass(frozen=True)
class Office:
    """A folder with a document, the keys of two officers, and the file of keys."""

    folder: Path
    document: str = "order.yaml"

    def officer(self, name: str, options: str = "") -> str:
        """A new key of an officer, in the file of keys; returns the file of the private key."""
        keygen = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name]
        assert run(keygen, cwd=self.folder).returncode == 0
        public = (self.folder / f"{name}.pub").read_text()
        with (self.folder / "allowed_signers").open("a") as file:
            file.write(f"{name}@kominfo.go.id {options} {public}")
        return name

    def order(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DNSBLOCK_CONFIG": str(self.folder / "dnsblock.yaml"), "COLUMNS": "80"}
        return run(
            [dnsblock(), "order", command, self.document, *arguments], cwd=self.folder, env=environment
        )

    def sign(self, key: str) -> subprocess.CompletedProcess[str]:
        return self.order("sign", "--key", key)

    def verify(self, *arguments: str) -> dict:
        done = self.order("verify", "--keys", "allowed_signers", "--json", *arguments)
        answer = json.loads(done.stdout)
        assert done.returncode == (0 if answer["verified"] else 1)
        return answer

    def is_good(self, signature: str, who: str) -> bool:
        """The verdict of ssh-keygen."""
        command = [tool("ssh-keygen"), "-Y", "verify", "-f", "allowed_signers", "-I", f"{who}@kominfo.go.id"]
        document = (self.folder / self.document).read_text()
        done = run([*command, "-n", NAMESPACE, "-s", signature], cwd=self.folder, input=document)
        return done.returncode == 0


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "order.yaml").write_bytes(shipped("block")[0].read_bytes())
    return Office(tmp_path)


# ------- Signing -------


def test_a_signed_order_is_verified_by_ssh_keygen(office: Office):
    """A provider, or a court, needs nothing of ours to verify an order."""
    budi = office.officer("budi")
    done = office.sign(budi)
    assert done.returncode == 0
    [fingerprint] = [word for word in done.stdout.split() if word.startswith("SHA256:")]
    assert done.stdout == f"signed by {fingerprint} (ssh-ed25519)\norder.yaml.sig now has 1 signature\n"
    assert done.stderr == "signing order telegram-2017-07-14 of kominfo.go.id, block\n"
    assert office.is_good("order.yaml.sig", "budi")
    shown = run([tool("ssh-keygen"), "-l", "-f", "budi.pub"], cwd=office.folder).stdout
    assert fingerprint in shown.split()


def test_a_signature_of_ssh_keygen_is_verified(office: Office):
    """An officer may sign without dnsblock."""
    office.officer("budi")
    signing = [tool("ssh-keygen"), "-Y", "sign", "-f", "budi", "-n", NAMESPACE, "order.yaml"]
    assert run(signing, cwd=office.folder).returncode == 0
    answer = office.verify()
    assert answer["verified"]
    assert [signer["principal"] for signer in answer["signers"]] == ["budi@kominfo.go.id"]


def test_two_officers_sign_into_one_file(office: Office):
    """A threshold of two needs both; ssh-keygen verifies each of them when the file is split."""
    assert office.sign(office.officer("budi")).returncode == 0
    assert not office.verify("--signatures", "2")["verified"]
    assert office.sign(office.officer("sari")).returncode == 0
    answer = office.verify("--signatures", "2")
    assert (answer["verified"], answer["count"], answer["required"], answer["problems"]) == (True, 2, 2, [])
    parts = (office.folder / "order.yaml.sig").read_text().split("-----BEGIN")[1:]
    for part, who in zip(parts, ("budi", "sari"), strict=True):
        (office.folder / "one.sig").write_text(f"-----BEGIN{part}")
        assert office.is_good("one.sig", who)


def test_a_second_signature_by_the_same_key_is_refused(office: Office):
    """It would not count."""
    budi = office.officer("budi")
    assert office.sign(budi).returncode == 0
    before = (office.folder / "order.yaml.sig").read_bytes()
    done = office.sign(budi)
    assert done.returncode == 4
    assert "this key has signed the document already" in done.stderr
    assert (office.folder / "order.yaml.sig").read_bytes() == before


def test_a_signature_is_reported_as_json(office: Office):
    """For programs of an authority."""
    office.sign(office.officer("budi"))
    done = office.order("sign", "--key", office.officer("sari"), "--json")
    answer = json.loads(done.stdout)
    assert {key: answer[key] for key in ("file", "issuer", "order_id", "action", "signatures")} == {
        "file": "order.yaml",
        "issuer": "kominfo.go.id",
        "order_id": "telegram-2017-07-14",
        "action": "block",
        "signatures": "order.yaml.sig",
    }
    assert [one["algorithm"] for one in answer["signed_by"]] == ["ssh-ed25519", "ssh-ed25519"]
    assert answer["signed_by"][1] == answer["signer"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello\n", "not an order: order_id, issuer or action is missing"),
        (b"a: [\n", "order.yaml:"),
        (b"x" * (1 << 20) + b"\n", "larger than 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_order_is_not_signed(office: Office, content: bytes, reason: str):
    """The officer took the wrong file. No instance would accept it."""
    (office.folder / "order.yaml").write_bytes(content)
    done = office.sign(office.officer("budi"))
    assert done.returncode == 4
    assert reason in done.stderr
    assert not (office.folder / "order.yaml.sig").exists()


# ------- Verifying -------


def test_a_changed_document_is_not_verified_and_the_reason_is_printed(office: Office):
    """The message names the key, the code and what to do, in 80 columns."""
    office.sign(office.officer("budi"))
    document = office.folder / "order.yaml"
    document.write_text(document.read_text().replace("t.me", "t.mx"))
    done = office.order("verify", "--keys", "allowed_signers")
    assert done.returncode == 1
    expected = (
        "NOT verified: order telegram-2017-07-14 of kominfo.go.id, block\n  signers: 0 valid, 1 required\n"
    )
    assert done.stdout == expected
    assert "BAD_SIGNATURE" in done.stderr
    assert "sign it again" in " ".join(done.stderr.split())
    assert max(map(len, done.stderr.splitlines())) <= 80


def test_an_order_is_verified_with_the_keys_of_its_time(office: Office):
    """In years, when the key has expired, a court still verifies the order."""
    office.sign(office.officer("budi", 'valid-before="20200101Z"'))
    [problem] = office.verify()["problems"]
    assert problem["code"] == "EXPIRED_KEY"
    answer = office.verify("--at", "2017-07-14T11:30:00+07:00")
    assert (answer["verified"], answer["at"]) == (True, "2017-07-14T04:30:00Z")
    assert office.order("verify", "--keys", "allowed_signers", "--at", "yesterday").returncode == 2


def test_a_line_of_the_keys_that_does_not_count_is_reported(office: Office):
    """Otherwise the officer whose line it is learns of it by a refused order."""
    office.sign(office.officer("budi"))
    with (office.folder / "allowed_signers").open("a") as file:
        file.write("sari@kominfo.go.id ssh-ed25519\n")
    answer = office.verify()
    assert answer["verified"]
    [problem] = answer["key_problems"]
    assert (problem["line"], "the key is missing" in problem["reason"]) == (2, True)
    assert "ignored: allowed_signers:2" in office.order("verify", "--keys", "allowed_signers").stderr


def test_an_unsigned_document_is_not_verified(office: Office):
    """The usual mistake: only the document was sent."""
    office.officer("budi")
    [problem] = office.verify()["problems"]
    assert problem["code"] == "UNSIGNED"
    assert "sign it with `dnsblock order sign`" in problem["reason"]


def test_without_keys_those_of_the_configuration_are_used(office: Office):
    """The operator verifies with what the daemon uses."""
    assert office.order("verify").returncode == 2
    office.sign(office.officer("budi"))
    (office.folder / "dnsblock.yaml").write_text(
        "listen: [127.0.0.1:0]\nupstream: {servers: [127.0.0.1:1]}\n"
        "answers: {sinkhole: {action: nodata}}\norders: null\n"
        "issuers: [{id: kominfo.go.id, keys: allowed_signers, signatures: 2}]\n"
        "zones: [{name: kominfo, issuer: kominfo.go.id, answer: sinkhole}]\n"
    )
    done = office.order("verify", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["count"], answer["required"]) == (1, 1, 2)
    config = office.folder / "dnsblock.yaml"
    clerk = "signatures: 1, roles: {budi@kominfo.go.id: {may: [propose]}}"
    config.write_text(config.read_text().replace("signatures: 2", clerk))
    done = office.order("verify", "--json")
    answer = json.loads(done.stdout)
    [problem] = answer["problems"]
    assert (done.returncode, answer["count"], problem["code"]) == (1, 0, "WRONG_ROLE"), "as the daemon says"
    assert office.verify()["verified"], "a file of keys has no roles"
    text = (office.folder / "order.yaml").read_text().replace("kominfo.go.id", "other.example")
    (office.folder / "order.yaml").write_text(text)
    done = office.order("verify")
    assert done.returncode == 4
    assert "no keys are configured for this issuer" in done.stderr
