"""docs/ministries.md, run as it is written: two officers and two instances. Its translation has the same
commands.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from unit.https_server import Authority

from .harness import Subject, is_sinkholed
from .issuing import TOKENS, IssuersApi, by_token
from .test_telegram import plain
from .tools import dnsblock, run
from .upstreams import Unbound

DOCS = Path(__file__).parents[2] / "docs"
PAGE, TRANSLATION = ((DOCS / name).read_text() for name in ("ministries.md", "id/kementerian.md"))
ISSUER = "kominfo.go.id"
PROVIDERS = {"isp-one": "ministry", "isp-two": "court"}  # each provider, and the name of its token
NAMES = ["slot.example", "deep.slot.example", "www.portal.example"]
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Ministry:
    """The folder of the officers, and the instances of two providers."""

    def __init__(self, folder: Path, authority: Authority, instances: dict[str, IssuersApi]) -> None:
        self.folder, self.instances = folder, instances
        (folder / "isp.pem").write_bytes(authority.pem.read_bytes())
        askpass = folder / "askpass"
        askpass.write_text("#!/bin/sh\necho a long passphrase\n")
        askpass.chmod(0o700)

    def register(self, upstream: str) -> None:
        """The providers get to know the keys, and answer with tokens and the keys of their instances."""
        for name, api in self.instances.items():
            shutil.copy(self.folder / f"{ISSUER.removesuffix('.go.id')}.allowed_signers", api.subject.folder)
            api.start(
                clients=[by_token(PROVIDERS[name], issuers=[ISSUER])],
                issuers=[{"id": ISSUER, "keys": "kominfo.allowed_signers", "signatures": 2}],
                zones=[{"name": "kominfo", "issuer": ISSUER, "answer": "sinkhole"}],
                ledger={"origin": f"dns.{name}.example/ledger"},
                upstreams=[upstream],
                probes={},
            )
            with (self.folder / "tokens").open("a") as file:
                file.write(f"{api.url} {TOKENS[PROVIDERS[name]]}\n")
            shown = run([dnsblock(), "log", "key", "-c", str(api.subject.config_path)])
            (self.folder / f"{name}.key").write_text(shown.stdout)

    def run(self, script: str) -> str:
        """Runs commands of the guide; returns their output with the addresses of the guide."""
        urls = {
            f"https://dns.{name}.example:8443": api
            for name, api in self.instances.items()
            if api.subject.ready
        }
        for shown, api in urls.items():
            script = script.replace(shown, api.url)
        done = subprocess.run(
            ["sh", "-e"],
            input=script,
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{Path(dnsblock()).parent}:{os.environ['PATH']}",
                "DNSBLOCK_CONFIG": "/nonexistent/dnsblock.yaml",
                "SSH_ASKPASS": str(self.folder / "askpass"),
                "SSH_ASKPASS_REQUIRE": "force",
                "LC_ALL": "C.UTF-8",
                "NO_PROXY": "*",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, (script, done.stdout)
        printed = done.stdout
        for shown, api in urls.items():
            printed = printed.replace(api.url, shown)
        return printed

    def follow(self, number: int) -> None:
        """Runs a step. Each block of output has lines of the commands before it."""
        section = re.search(rf"^## {number}\. .*?(?=^## )", PAGE, re.MULTILINE | re.DOTALL)[0]
        printed = ""
        for language, text in BLOCK.findall(section):
            if language == "sh":
                printed = self.run(text)
                continue
            lines = {*plain(printed), "…"}
            missing = [line for line in plain(text) if line not in lines]
            assert missing == [], f"the guide shows these lines, but this was printed:\n{printed}"

    def blocked(self) -> dict[str, list[str]]:
        """The names that each instance blocks."""
        return {
            place: [name for name in NAMES if is_sinkholed(api.subject.query(name))]
            for place, api in self.instances.items()
        }


@pytest.fixture
def ministry(tmp_path: Path, authority: Authority, client_authority: Authority) -> Iterator[Ministry]:
    """An office with nothing but dnsblock and OpenSSH, and two instances that are not started yet."""
    (tmp_path / "ministry").mkdir()
    with ExitStack() as stack:
        instances = {}
        for name in PROVIDERS:
            (tmp_path / name).mkdir()
            subject = stack.enter_context(closing(Subject(tmp_path / name)))
            instances[name] = IssuersApi(subject, authority, client_authority)
        yield Ministry(tmp_path / "ministry", authority, instances)


def test_officers_follow_the_guide_from_the_key_to_the_proof(ministry: Ministry, unbound: Unbound):
    """Every command and every output of the guide, in its sequence."""
    ministry.follow(1)
    ministry.follow(2)
    ministry.register(unbound.address)
    for step in (3, 4, 5):
        ministry.follow(step)
    assert ministry.blocked() == {place: [] for place in PROVIDERS}
    ministry.follow(6)
    assert ministry.blocked() == dict.fromkeys(PROVIDERS, NAMES)
    ministry.follow(7)
    ministry.follow(8)
    assert ministry.blocked() == {place: [] for place in PROVIDERS}
    ministry.follow(9)
    assert re.findall(r"^## (\d)\.", PAGE, re.MULTILINE) == list("123456789")


def test_the_translation_has_the_same_commands_outputs_and_steps():
    """An officer who reads the guide in Indonesian runs the same commands."""
    assert BLOCK.findall(TRANSLATION) == BLOCK.findall(PAGE)
    for pattern in (r"^(#+ \d?)", r"^\| ?(`[^|]*`) \|", r"^(\*) \*\*"):
        assert len(re.findall(pattern, TRANSLATION, re.MULTILINE)) == len(
            re.findall(pattern, PAGE, re.MULTILINE)
        )
    assert re.findall(r"^## (\d)\.", TRANSLATION, re.MULTILINE) == list("123456789")
