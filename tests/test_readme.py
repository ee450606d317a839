"""Runs the commands of the README, and checks that they print what it shows."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conformance.tools import wait_for

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_SECONDS = 600  # the first `make run` builds the engine


def blocks() -> list[tuple[str, str]]:
    """The blocks of the walk-through, as (language, text)."""
    text = (ROOT / "README.md").read_text().split("## Beside other servers")[0]
    return BLOCK.findall(text)


def squeezed(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def start() -> tuple[subprocess.Popen[bytes], str]:
    """`make run`, as the README's first block says, and what it has printed when it tells what to try."""
    assert blocks()[0] == ("sh", "make run\n")
    process = subprocess.Popen(
        ["make", "run"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    shown = b""
    deadline = time.monotonic() + START_SECONDS
    while b"Try this in another terminal" not in shown:
        readable, _, _ = select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))
        chunk = os.read(process.stdout.fileno(), 65536) if readable else b""
        if not chunk:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"make run did not start: {shown!r} {process.communicate()[1].decode()}")
        shown += chunk
    return process, shown.decode()


def stop(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)


@pytest.fixture
def running():
    """The walk-through's daemon while a test runs, and what it printed."""
    process, shown = start()
    yield shown
    stop(process)


def port_of(running: str) -> str:
    """The port of the walk-through: the README's, or the next free one where that is taken."""
    return re.search(r"is listening on 127\.0\.0\.1:(\d+)", running)[1]


@pytest.mark.timeout(START_SECONDS + 60)
def test_walk_through_does_what_the_readme_says(running):
    """Both steps of a newcomer, block and lift, by the README's own words."""
    port = port_of(running)
    assert port == "5300" or f"In the README's commands write {port} instead" in running
    assert "11 names" in running
    shown = ""
    ran = 0
    for language, text in blocks()[1:]:
        if language == "sh":
            commands = text.replace("-p 5300", f"-p {port}")
            done = subprocess.run(
                ["sh"], input=commands, cwd=ROOT, capture_output=True, text=True, timeout=300
            )
            assert done.stderr == ""
            shown = squeezed(done.stdout)
            ran += 1
        else:
            for line in squeezed(text).splitlines():
                assert line in shown, f"the README promises {line!r}, but this came:\n{shown}"
    assert ran >= 5


def test_telegram_opens_with_the_answer_of_the_own_resolver(running):
    """Point 3, with `kill -HUP`: the next query of each of the 11 names gets the upstream's answer."""
    port = port_of(running)
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
        return "192.0.2.53" in answer("127.0.0.1", port, name)

    assert all(blocked(name) for name in names)
    source = ROOT / "blocklists/orders/2017-08-10-telegram-unblock.yaml"
    (ROOT / ".run/orders" / source.name).write_bytes(source.read_bytes())
    os.kill(pid, signal.SIGHUP)
    wait_for(lambda: not blocked(names[0]), "SIGHUP lifts the block")

    def is_same(name: str) -> bool:
        ours, theirs = (rcode(answer(*server, name)) for server in (("127.0.0.1", port), upstream.groups()))
        return ours == theirs and ours is not None

    for name in names:
        assert not blocked(name)
        # The resolver of this machine may need longer for one of the two queries than a client waits.
        wait_for(lambda asked=name: is_same(asked), f"{name} has the response of the resolver")


@pytest.mark.timeout(START_SECONDS + 60)
def test_a_second_make_run_leaves_the_first_one_alone(running):
    """The state of a running instance is not deleted; the second one says what to do."""
    before = (ROOT / ".run/state/ledger.jsonl").read_bytes()
    second = subprocess.run(["make", "run"], cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS)
    assert second.returncode != 0
    assert "dnsblock already runs from this folder" in second.stderr
    # The first one goes on writing: a signed checkpoint has its record, for example.
    assert (ROOT / ".run/state/ledger.jsonl").read_bytes().startswith(before)
    command = re.search(r"^Its address and state: (.+)$", second.stderr, re.MULTILINE)[1]
    status = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    # 1 where the resolvers of this machine cannot be reached.
    assert (status.returncode in (0, 1), status.stderr) == (True, "")


@pytest.mark.timeout(START_SECONDS + 60)
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_make_run_takes_the_next_free_port(kind: socket.SocketKind):
    """A taken port, over UDP or over TCP, is replaced and the new one is printed."""
    with socket.socket(socket.AF_INET, kind) as taken:
        # Where somebody else holds port 5300 it is taken, too.
        with contextlib.suppress(OSError):
            if (
                kind == socket.SOCK_STREAM
            ):  # as servers do: closed connections of an earlier test do not count
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", 5300))
            if kind == socket.SOCK_STREAM:
                taken.listen(1)
        process, shown = start()
    try:
        port = port_of(shown)
        assert int(port) > 5300
        assert f"Port 5300 is taken. In the README's commands write {port} instead." in shown
        assert "192.0.2.53" in run("dig", "@127.0.0.1", "-p", port, "+short", "web.telegram.org")
    finally:
        stop(process)


def rcode(shown: str) -> str | None:
    """The response code that dig prints; None without a response."""
    found = re.search(r"status: ([A-Z]+)", shown)
    return found and found[1]


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout
