"""A fetch that fails changes nothing: broken and endless responses, a full disk, cancellation."""

import asyncio
import gc
import gzip
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from dnsblock.errors import FetchCode
from dnsblock.lists.feed import https
from dnsblock.lists.feed.download import Download
from dnsblock.lists.feed.fetch import Fetched, FetchFailed, fetch

from ..https_server import (
    Server,
    chunk,
    for_ever,
    gzipped,
    head,
    then_silent,
    whole,
)
from .helpers import BEFORE, CHUNKED, LIST, MIB, Getter, peak_of


@pytest.fixture
def interrupted_handshakes() -> Iterator[None]:
    """A handshake may be interrupted: it leaves its socket to the garbage collector (httpcore 1.0.9)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        yield
        gc.collect()


# ------- What breaks monthly -------


def test_a_list_shorter_than_its_content_length_is_refused(server: Server, get: Getter):
    """RFC 9112 section 8: fewer bytes than `Content-Length` are an incomplete message."""
    failed = get.fails(server.serve(whole(LIST)[:-100]))
    assert failed.code == "TRUNCATED"
    assert f"{len(LIST) - 100:,} bytes of {len(LIST):,}" in str(failed)


@pytest.mark.parametrize("end", [b"", b"3\r\nabc", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n"])
def test_truncated_chunks_are_refused(server: Server, get: Getter, end: bytes):
    """RFC 9112 section 8: without the last chunk the message is incomplete."""
    assert get.fails(server.serve(CHUNKED + chunk(LIST) + end)).code == "TRUNCATED"


def test_invalid_chunks_are_refused(server: Server, get: Getter):
    """RFC 9112 section 7.1: an invalid chunk size ends the message."""
    assert get.fails(server.serve(CHUNKED + chunk(LIST) + b"no number\r\n")).code == "TRUNCATED"


@pytest.mark.parametrize("cut", [1, 8, 9, 10_000])
def test_truncated_gzip_is_refused(server: Server, get: Getter, cut: int):
    """Although its length on the wire is what was announced."""
    body = gzip.compress(LIST)[:-cut]
    assert get.fails(server.serve(whole(body, content_encoding="gzip"))).code == "TRUNCATED"


def test_corrupt_gzip_is_refused(server: Server, get: Getter):
    """RFC 1952 section 2.3.1: checksum and length must match."""
    body = bytearray(gzip.compress(LIST))
    body[-6] ^= 1  # of the checksum
    assert get.fails(server.serve(whole(bytes(body), content_encoding="gzip"))).code == "ENCODING"
    assert get.fails(server.serve(whole(LIST, content_encoding="gzip"))).code == "ENCODING"
    assert get.fails(server.serve(whole(gzip.compress(LIST) + b"x", content_encoding="gzip"))).code in (
        "ENCODING",
        "TRUNCATED",
    )


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "\x9b31m"])
def test_an_encoding_that_was_not_asked_for_is_refused(server: Server, get: Getter, encoding: str):
    """RFC 9110 section 8.4: only gzip was offered."""
    assert get.fails(server.serve(whole(LIST, content_encoding=encoding))).code == "ENCODING"


def test_a_list_without_a_detectable_end_is_refused(server: Server, get: Getter):
    """RFC 9112, section 8: without a length, a lost connection looks like the end."""
    assert get.fails(server.serve(head(content_type="text/plain") + LIST)).code == "NO_LENGTH"


@pytest.mark.parametrize(
    "response",
    [
        whole(b"name.example\n", content_type="text/html"),
        whole(b"name.example\n", content_type="Text/HTML; charset=utf-8"),
        whole(b"<!DOCTYPE html><title>502 Bad Gateway</title>", content_type="text/plain"),
        whole(b"\xef\xbb\xbf\r\n\t <html>"),
        whole(b"\n" * (3 << 18) + b'<?xml version="1.0"?><Error/>'),
        gzipped(b"<html>\x1b[2J</html>"),
    ],
)
def test_a_web_page_instead_of_the_list_is_refused(server: Server, get: Getter, response: bytes):
    """An error page with status 200 is the most frequent fault of feeds."""
    assert get.fails(server.serve(response)).code == "HTML"


def test_the_message_quotes_the_web_page(server: Server, get: Getter):
    """ "Sign in" in the message explains more than a code."""
    failed = get.fails(server.serve(whole(b"<title>502 Bad Gateway</title>\x1b[2J")))
    assert "<title>502 Bad Gateway</title>" in str(failed)


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf"])
def test_an_empty_list_is_refused(server: Server, get: Getter, body: bytes):
    """An empty response must not unblock everything."""
    assert get.fails(server.serve(whole(body))).code == "EMPTY"
    assert get.fails(server.serve(gzipped(body))).code == "EMPTY"


@pytest.mark.parametrize(
    "status", ["500 Internal Server Error", "404 Not Found", "206 Partial Content", "204 No Content"]
)
def test_any_other_status_is_refused(server: Server, get: Getter, status: str):
    """RFC 9110 section 15: only 200 brings a list."""
    failed = get.fails(server.serve(whole(b"name.example\n" if status[:3] != "204" else b"", status)))
    assert (failed.code, failed.retry_after) == ("STATUS", None)
    assert status in str(failed)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_retry_after_of_429_and_503_is_reported(server: Server, get: Getter, status: str):
    """RFC 9110 section 10.2.3: `Retry-After`."""
    failed = get.fails(server.serve(whole(b"", status, retry_after="120")))
    assert (failed.code, failed.retry_after) == ("STATUS", 120)
    assert get.fails(server.serve(whole(b"", status))).retry_after is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x16\x03\x01\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://[::1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_response_that_is_not_http_is_refused(server: Server, get: Getter, content: bytes):
    """Hostile input: whatever answers on the port, the failure has a code."""
    assert get.fails(server.serve(content)).code == "PROTOCOL"


def test_terminal_control_sequences_are_not_shown(server: Server, get: Getter):
    """Bytes above 127 are allowed in a header, and \\x9b starts a terminal control sequence."""
    failed = get.fails(server.serve(whole(LIST, content_encoding="\x9b2J")))
    assert "\\x9b2j" in str(failed)
    failed = get.fails(server.serve(whole(b"", "500 \x1b[2J\x9b2J")))
    assert "500 \\x1b[2J" in str(failed)
    fetched = get(server.serve(whole(LIST, content_type="text/plain\x9b2J")))
    assert isinstance(fetched, Fetched)
    assert fetched.content_type == "text/plain\\x9b2J"


# ------- What never ends -------


def test_a_list_announced_above_the_limit_is_not_read(server: Server, get: Getter):
    """`Content-Length` above `source.max_mb` is enough to refuse."""
    failed = get.fails(server.serve(head(content_length="9" * 19)))
    assert failed.code == "TOO_LARGE"
    assert "9,999,999,999,999,999,999" in str(failed)


@pytest.mark.usefixtures("interrupted_handshakes")
def test_an_option_that_a_failure_names_is_one_of_the_configuration(
    server: Server, get: Getter, tmp_path: Path
):
    """The searched text must exist in config/dnsblock.yaml."""
    too_large = head(content_length="9" * 19)
    advised = {
        "`source.max_mb`": get.fails(server.serve(too_large)),
        "`source.timeout_s`": get.fails(server.serve(then_silent(b"")), timeout=0.2),
        "`list`": get.fails(server.serve(whole(b"", "404 Not Found"))),
        "`source.authorization`": get.fails(server.serve(whole(LIST)), authorization=tmp_path / "none"),
    }
    for option, failed in advised.items():
        assert option in str(failed)
    feed = get.feed(server.serve(whole(LIST)))
    with pytest.raises(FetchFailed, match=r"`source\.ca`"):
        asyncio.run(fetch(replace(feed, ca=tmp_path / "none"), get.into, None))


def test_the_limit_is_the_largest_list_there_may_be(server: Server, get: Getter):
    """Exactly `source.max_mb` is accepted, one byte more is not."""
    get(server.serve(whole(LIST)), max_bytes=len(LIST))
    assert get.into.read_bytes() == LIST
    get.into.write_bytes(BEFORE)
    for response in (whole(LIST), gzipped(LIST), CHUNKED + chunk(LIST) + chunk(b"")):
        assert get.fails(server.serve(response), max_bytes=len(LIST) - 1).code == "TOO_LARGE"


@pytest.mark.parametrize("fields", [{}, {"content_encoding": "gzip"}])
def test_an_endless_list_ends(server: Server, get: Getter, fields: dict[str, str]):
    """Whether it is a list or, compressed, one member after another of nothing at all."""
    content = gzip.compress(b"") if fields else LIST
    url = server.serve(
        for_ever(head(transfer_encoding="chunked", **fields), chunk(content * 100 if fields else content))
    )
    assert get.fails(url, max_bytes=MIB).code == "TOO_LARGE"


def test_a_gzip_bomb_fills_neither_memory_nor_disk(server: Server, get: Getter):
    """A few kilobytes of gzip can become gigabytes: the limit applies to the output."""
    body = gzip.compress(bytes(256 * MIB))
    assert len(body) < MIB
    url = server.serve(whole(body, content_encoding="gzip"))
    assert peak_of(lambda: get.fails(url, max_bytes=64 * MIB)) < 8 * MIB
    assert get.fails(url, max_bytes=64 * MIB).code == "TOO_LARGE"


@pytest.mark.usefixtures("interrupted_handshakes")
def test_a_trickling_response_ends(server: Server, get: Getter):
    """Each byte comes in time, the list never."""
    url = server.serve(for_ever(head(content_length="1000000"), b"a", pause=0.01))
    for seconds in (0.5, 5, 50):  # on a busy machine, the response may begin after the shorter times
        failed = get.fails(url, timeout=seconds)
        assert failed.code == "TOO_SLOW"
        if "of 1,000,000" in str(failed):
            break
    assert "of 1,000,000" in str(failed)


@pytest.mark.usefixtures("interrupted_handshakes")
@pytest.mark.parametrize(
    "content", [b"", b"HTTP/1.1 200 OK\r\n", head(content_length="10"), whole(LIST)[:-1]]
)
def test_a_silent_server_ends_the_fetch(
    server: Server, get: Getter, content: bytes, monkeypatch: pytest.MonkeyPatch
):
    """Bound every time: a server may stop at any point of a response."""
    url = server.serve(then_silent(content))
    assert get.fails(url, timeout=0.5).code == "TOO_SLOW"
    monkeypatch.setattr(https, "SILENCE_SECONDS", 0.5)
    assert get.fails(url, timeout=600).code == "TOO_SLOW"


# ------- The disk, and the one who waits -------


@pytest.mark.parametrize("folder", ["missing", "list.txt"])
def test_an_unwritable_folder_is_reported(server: Server, get: Getter, folder: str):
    """The failure is local: its message names the folder, not the server."""
    feed, into = get.feed(server.serve(whole(LIST))), get.into.parent / folder / "new.txt"
    with pytest.raises(FetchFailed, match=re.escape(str(into))) as caught:
        asyncio.run(fetch(feed, into, None))
    assert caught.value.code == "UNWRITABLE"
    get.has_touched_nothing()


FETCH_ON_A_SMALL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from dnsblock.lists.feed.fetch import Feed, FetchFailed, fetch

url, ca, into = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    asyncio.run(fetch(Feed(url, 1 << 30, 60, Path(ca)), Path(into), None))
except FetchFailed as err:
    print(err)
"""


@pytest.mark.parametrize("size", [len(LIST), 100_001])
def test_a_full_disk_is_reported(server: Server, get: Getter, size: int):
    """Also if it shows only at the last byte, which was in memory until then."""
    url = server.serve(whole(LIST[:size]))
    command = [sys.executable, "-c", FETCH_ON_A_SMALL_DISK, url, str(get.authority.pem), str(get.into)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{url}: UNWRITABLE: {get.into}.part: File too large")
    get.has_touched_nothing()


def test_cancelling_a_download_leaves_no_file(server: Server, get: Getter):
    """A stop of the daemon must not leave half of a list."""
    feed = get.feed(server.serve(then_silent(whole(LIST)[:-1])))

    async def cancel_midway() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(fetch(feed, get.into, None, lambda *_: begun.set()))
        await asyncio.wait_for(begun.wait(), 30)
        assert get.into.with_name("list.txt.part").exists()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_midway())
    get.has_touched_nothing()


def test_cancelling_waits_for_the_disk(server: Server, get: Getter, monkeypatch: pytest.MonkeyPatch):
    """Else a thread would go on with a file that is thrown away, or with another one of the same number."""
    on_the_disk, disk_answers = threading.Event(), threading.Event()

    def write(*_: object) -> None:
        on_the_disk.set()
        assert disk_answers.wait(30)

    async def cancel_twice() -> None:
        task = asyncio.create_task(fetch(get.feed(server.serve(whole(LIST))), get.into, None))
        assert await asyncio.to_thread(on_the_disk.wait, 30)
        for _ in range(2):
            task.cancel()
            for _ in range(100):
                await asyncio.sleep(0)
        assert not task.done()
        disk_answers.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(Download, "add", write)
    asyncio.run(cancel_twice())
    get.has_touched_nothing()


@pytest.mark.usefixtures("interrupted_handshakes")
def test_cancelling_at_any_step_leaves_a_complete_list(server: Server, get: Getter):
    """After each turn of the event loop, until one fetch is done before it would be cancelled."""
    feed = get.feed(server.serve(whole(LIST)))

    async def cancel_after(turns: int) -> bool:
        task = asyncio.create_task(fetch(feed, get.into, None))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        await asyncio.wait({task})
        return was_done

    turns = 1
    while not asyncio.run(cancel_after(turns)):
        assert list(get.into.parent.iterdir()) == [get.into]
        assert get.into.read_bytes() in (BEFORE, LIST)
        turns += 1 + turns // 4
    assert get.into.read_bytes() == LIST


def test_an_error_of_the_caller_leaves_no_file(server: Server, get: Getter):
    """Whatever ends the fetch, the previous list stays whole."""

    def fail(*_: object) -> None:
        raise OSError("of the caller")

    with pytest.raises(OSError, match="of the caller"):
        asyncio.run(fetch(get.feed(server.serve(whole(LIST))), get.into, None, fail))
    get.has_touched_nothing()


# ------- Documentation -------


def test_every_failure_is_documented():
    """An operator looks the code up in docs/lists.md, or for zone transfers in docs/zone-transfer.md."""
    docs = Path(__file__).parents[3] / "docs"
    pages = {"lists.md": "Feeds over HTTPS", "zone-transfer.md": "When a transfer fails"}
    codes: set[str] = set()
    for page, heading in pages.items():
        text = (docs / page).read_text(encoding="utf-8")
        section = re.split(rf"^#+ {heading}$", text, maxsplit=1, flags=re.MULTILINE)[1]
        codes |= set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE))
    assert codes == set(get_args(FetchCode))
