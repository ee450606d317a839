"""Long operations show progress at a terminal, and nowhere else."""

import asyncio
import contextlib
import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from unit.https_server import Authority, Server, head

from .harness import Subject
from .lists import NO_PROXY, Feed, enforced, list_zone, names, text_of
from .orders import block
from .tools import dnsblock, wait_for
from .upstreams import StubUpstream

SLOW = "näme.example\n".encode() * 1_500_000  # letters outside ASCII cost time
LAX = {"grew_percent": "off", "shrank_percent": "off"}  # these lists are short


@dataclass
class Seen:
    """The terminal output of a command so far."""

    process: subprocess.Popen[str]
    content: bytearray = field(default_factory=bytearray)

    def has(self, text: str) -> bool:
        return text.encode() in self.content

    def result(self) -> str:
        """Its standard output, when it has ended well."""
        out, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, bytes(self.content)
        return out


@contextlib.contextmanager
def at_a_terminal(subject: Subject, *command: str) -> Iterator[Seen]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [dnsblock(), *command, "-c", str(subject.config_path)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    seen = Seen(process)

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: nobody writes any more
            while content := os.read(ours, 4096):
                seen.content += content

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with process:
            yield seen
    finally:
        process.kill()
        reader.join()
        os.close(ours)


class Halting:
    """An HTTPS server that sends half of a list, and the rest when the test continues."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.goes_on = threading.Event()

    async def __call__(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        half = len(self._body) // 2
        writer.write(head(**{"Content-Length": str(len(self._body))}) + self._body[:half])
        await writer.drain()
        await asyncio.to_thread(self.goes_on.wait, 300)
        writer.write(self._body[half:])
        await writer.drain()


def test_check_shows_how_much_of_the_lists_was_read(subject: Subject):
    """`dnsblock check` of a national list takes seconds."""
    subject.configure(zones=[list_zone()], lists={"list.txt": SLOW}, inbox=None)
    with at_a_terminal(subject, "check") as seen:
        result = seen.result()
    assert seen.has("reading lists")
    assert "MB" in seen.content.decode()
    assert "reading lists" not in result


def test_a_refresh_shows_how_much_of_a_feed_was_fetched(subject: Subject, web: Server, authority: Authority):
    """Half a minute for a national list over a slow line."""
    subject.environment.update(NO_PROXY)
    feed = Feed(web, text_of(names(50)))
    subject.start(zones=[feed.zone(authority.pem, guards=LAX)], inbox=None)
    body = text_of([*names(50), *(f"n{number}.example" for number in range(100_000))])
    feed.behaviour = halting = Halting(body)
    with at_a_terminal(subject, "source", "refresh", "listed") as seen:
        wait_for(lambda: seen.has("fetching listed"), "the bar is there")
        size = f"/{len(body) / 1e6:.1f} MB"
        wait_for(lambda: size in seen.content.decode(), f"the bar tells {size}")
        halting.goes_on.set()
        assert "serving serial 2" in seen.result()
    assert enforced(subject, "n99999.example") == [True]


def test_a_reload_shows_how_much_of_the_lists_was_read(subject: Subject):
    """`dnsblock reload` of a national list takes seconds, in the daemon."""
    subject.start(zones=[list_zone()], lists={"list.txt": ["first.example"]}, inbox=None)
    subject.put_list("list.txt", SLOW)
    with at_a_terminal(subject, "reload") as seen:
        assert "serving serial" in seen.result()
    assert seen.has("reading lists")


def test_impact_shows_what_was_counted_so_far(subject: Subject, upstream: StubUpstream):
    """A run lasts a minute or more: a wrong file is seen early."""
    subject.start(upstreams=[upstream.address])
    order = subject.put_order(block("T-1", ["tried.example"]))
    with at_a_terminal(subject, "impact", str(order), "--seconds", "3") as seen:
        assert "would have blocked" in seen.result()
    assert seen.has("queries")


def test_programs_get_no_progress_display(subject: Subject):
    """With --json, also at a terminal; and into a file or a pipe never."""
    subject.configure(zones=[list_zone()], lists={"list.txt": SLOW}, inbox=None)
    with at_a_terminal(subject, "check", "--json") as seen:
        assert seen.result().startswith("{")
    assert seen.content == b""
    said = subject.cli("check", as_json=False)
    assert (said.code, said.stderr) == (0, "")
