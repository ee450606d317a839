"""docs/signatures.md: its commands are run as an officer and a provider run them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

from dnsblock.signatures.allowed_signers import AllowedSigners
from dnsblock.signatures.public_key import PARSERS
from dnsblock.signatures.verify import SignatureCode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "signatures.md").read_text()
ORDER = ROOT / "blocklists" / "orders" / "2017-07-14-telegram-block.yaml"


def test_the_commands_of_the_page_make_and_verify_two_signatures(tmp_path: Path):
    """Two officers with passphrases sign one order; dnsblock and ssh-keygen verify both signatures."""
    (tmp_path / "order.yaml").write_bytes(ORDER.read_bytes())
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho a long passphrase\n")
    askpass.chmod(0o700)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "PATH": path}

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    scripts = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    make, show, sign, second, compare, verify, alone, split = scripts
    for name in ("budi", "sari"):
        run(make.replace("budi", name))
        with (tmp_path / "kominfo.allowed_signers").open("a") as keys:
            keys.write(f"{name}@kominfo.go.id {(tmp_path / name).with_suffix('.pub').read_text()}")
    fingerprint = run(show).split()[1]
    assert fingerprint in run(compare).splitlines()[0]
    assert fingerprint in run(sign)
    assert "now has 2 signatures" in run(second)
    shown = run(verify)
    assert ("verified: order" in shown, "signers: 2 valid, 1 required" in shown) == (True, True)
    assert f'Good "dnsblock-order@v1" signature for budi@kominfo.go.id with ED25519 key {fingerprint}' in run(
        alone
    )
    assert re.findall(r"signature for (\w+)@", run(split)) == ["budi", "sari"]


def test_every_code_of_a_signature_is_documented_with_advice():
    """The table says what to do about each."""
    table = PAGE.split("## Signatures that do not count", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(get_args(SignatureCode))


def test_every_accepted_algorithm_is_documented():
    """An officer chooses a key by this table."""
    table = PAGE.split("## Accepted algorithms", 1)[1].split("\n### ", 1)[0]
    types = re.findall(r"`([\w@.-]+)`", table)
    assert {f"ecdsa-sha2{one}" if one.startswith("-nistp") else one for one in types} == set(PARSERS)


def test_the_options_of_the_example_are_valid():
    """The file of keys is copied from the page; its keys are shortened there."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA5mcnCMdsz/dbgEMx3bCiVyyLGmpAUqmLMlHuO+2Yhk"
    lines = re.findall(r"^(\w+@\S+ namespaces\S+) s", PAGE, re.MULTILINE)
    signers = AllowedSigners.parse("f", "".join(f"{line} {key}\n" for line in lines).encode())
    assert (len(signers.lines), signers.problems) == (2, ())
