"""Runs docs/orders.md, "From the letter to a signed order in two minutes", with a real daemon."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from .harness import ORDERS_ZONE, Subject, is_forwarded, is_sinkholed
from .tools import dnsblock, run, tool
from .upstreams import StubUpstream

PAGE = Path(__file__).parents[2] / "docs" / "orders.md"
ISSUER = "kominfo.go.id"
TODAY = re.compile(r"20[2-9]\d-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+")  # the times of 2017 stay


def blocks() -> list[tuple[str, str]]:
    """The blocks of the walk-through, as (language, text)."""
    part = PAGE.read_text().split("## From the letter to a signed order", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```(sh|text)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def squeezed(text: str) -> list[str]:
    lines = (TODAY.sub("NOW", " ".join(line.split())) for line in text.splitlines())
    return [re.sub(r"serial \d+", "serial N", line) for line in lines]


@pytest.fixture
def office(subject: Subject, upstream: StubUpstream) -> Subject:
    """As the walk-through presupposes: two officers with keys, and a provider that knows them."""
    keys = subject.folder / f"{ISSUER.removesuffix('.go.id')}.allowed_signers"
    for officer in ("budi", "sari"):
        command = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", officer, "-f", officer]
        assert run(command, cwd=subject.folder).returncode == 0
        with keys.open("a") as file:
            file.write(f"{officer}@{ISSUER} {(subject.folder / f'{officer}.pub').read_text()}")
    zone = {key: value for key, value in ORDERS_ZONE.items() if key != "unsigned"} | {"issuer": ISSUER}
    issuers = [{"id": ISSUER, "keys": keys.name, "signatures": 1}]
    subject.start(zones=[zone], issuers=issuers, upstreams=[upstream.address])
    return subject


def test_the_walk_through_from_names_to_a_lifted_block_does_what_it_shows(office: Subject):
    """A clerk follows it word by word; each block of output is what the commands before it print."""
    environment = {
        **os.environ,
        "PATH": f"{Path(dnsblock()).parent}:{os.environ['PATH']}",
        "DNSBLOCK_CONFIG": str(office.config_path),
        "LC_ALL": "C.UTF-8",
    }
    printed: list[str] = []
    for language, text in blocks():
        if language == "sh":
            done = subprocess.run(
                ["sh", "-e"],
                input=text,
                cwd=office.folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert done.returncode == 0, (text, done)
            printed = squeezed(done.stdout)
            if "submit telegram-block.yaml" in text:
                assert is_sinkholed(office.query("www.telegram.org"))
        else:
            for line in squeezed(text):
                assert line in printed, f"the page shows {line!r}, but this was printed:\n{printed}"
    assert is_forwarded(office.query("t.me"))
    assert [(one["order_id"], one["state"]) for one in office.status()["orders"]] == [
        ("telegram-2017-07-14", "lifted"),
        ("telegram-2017-08-10", "active"),
    ]
