"""Runs the README's own text: what it tells a newcomer to type is typed, and what it promises must appear."""

import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_SECONDS = 600  # the first `make run` builds the engine


def blocks() -> list[tuple[str, str]]:
    """The README's blocks up to "Run it for real", as (language, text)."""
    text = (ROOT / "README.md").read_text().split("## Run it for real")[0]
    return BLOCK.findall(text)


def squeezed(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


@pytest.fixture
def running():
    """`make run`, as the README's first block says, until it tells what to try."""
    assert blocks()[0] == ("sh", "make run\n")
    process = subprocess.Popen(
        ["make", "run"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    shown = b""
    deadline = time.monotonic() + START_SECONDS
    while b"Try, in another terminal" not in shown:
        readable, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        chunk = os.read(process.stdout.fileno(), 65536) if readable else b""
        if not chunk:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"make run did not start: {shown!r} {process.communicate()[1].decode()}")
        shown += chunk
    yield shown.decode()
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)


@pytest.mark.timeout(START_SECONDS + 60)
def test_walk_through_does_what_the_readme_says(running):
    """Both steps of a newcomer, block and lift, by the README's own words."""
    assert "127.0.0.1:5353, [::1]:5353" in running
    assert "11 names" in running
    shown = ""
    ran = 0
    for language, text in blocks()[1:]:
        if language == "sh":
            done = subprocess.run(["sh"], input=text, cwd=ROOT, capture_output=True, text=True, timeout=60)
            assert done.stderr == ""
            shown = squeezed(done.stdout)
            ran += 1
        else:
            for line in squeezed(text).splitlines():
                assert line in shown, f"the README promises {line!r}, but this came:\n{shown}"
    assert ran >= 5


def test_telegram_opens_with_the_answer_of_the_own_resolver(running):
    """Point 3, with `kill -HUP`: the next query of each of the 11 names gets the upstream's answer."""
    upstream = re.search(r"upstream +(\S+):(\d+)", running)
    names = re.findall(
        r"^ *- ([a-z0-9.-]+)$", (ROOT / "blocklists/orders/2017-07-14-telegram-block.yaml").read_text(), re.M
    )
    assert len(names) == 11
    pid = int(
        re.search(
            r'"pid": ?(\d+)', run(".venv/bin/dnsblock", "status", "-c", ".run/dnsblock.yaml", "--json")
        )[1]
    )

    def answer(server: str, port: str, name: str) -> str:
        return run("dig", f"@{server}", "-p", port, "+noall", "+answer", "+comments", "+noedns", name)

    def blocked(name: str) -> bool:
        return "192.0.2.53" in answer("127.0.0.1", "5353", name)

    assert all(blocked(name) for name in names)
    source = ROOT / "blocklists/orders/2017-08-10-telegram-unblock.yaml"
    (ROOT / ".run/orders" / source.name).write_bytes(source.read_bytes())
    os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + 10
    while blocked(names[0]):
        assert time.monotonic() < deadline, "SIGHUP did not lift the block"
    for name in names:
        ours, theirs = (rcode(answer(*server, name)) for server in (("127.0.0.1", "5353"), upstream.groups()))
        assert not blocked(name)
        assert ours == theirs


def rcode(shown: str) -> str:
    return re.search(r"status: ([A-Z]+)", shown)[1]


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False).stdout
