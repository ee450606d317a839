"""A feed is fetched over HTTPS whole, and only if it has changed."""

import asyncio
import gzip
import hashlib
from pathlib import Path

import pytest

from dnsblock.lists.feed.fetch import Fetched, Validators, fetch

from ..https_server import (
    Server,
    chunk,
    gzipped,
    head,
    whole,
)
from .helpers import CHUNKED, LIST, MIB, Getter, peak_of

# ------- What goes well -------


def test_a_list_is_fetched_whole(server: Server, get: Getter):
    """The file holds exactly the bytes that the server sent, and its digest."""
    url = server.serve(whole(LIST, content_type="text/plain; charset=utf-8", etag='"7"'))
    fetched = get(url)
    assert isinstance(fetched, Fetched)
    assert fetched.path.read_bytes() == LIST
    assert (fetched.size, fetched.sha256) == (len(LIST), hashlib.sha256(LIST).hexdigest())
    assert (fetched.validators, fetched.content_type) == (Validators('"7"'), "text/plain; charset=utf-8")
    assert list(get.into.parent.iterdir()) == [get.into]


def test_a_list_in_chunks_is_fetched_whole(server: Server, get: Getter):
    """RFC 9112 section 7.1: chunked coding is removed."""
    get(server.serve(CHUNKED + chunk(LIST[:1000]) + chunk(LIST[1000:]) + chunk(b"")))
    assert get.into.read_bytes() == LIST


@pytest.mark.parametrize("name", ["gzip", "GZIP", "x-gzip"])
def test_a_list_comes_compressed(server: Server, get: Getter, name: str):
    """RFC 9110 section 8.4.1.3: `x-gzip` is the same as `gzip`, in any case."""
    body = gzip.compress(LIST)
    fetched = get(server.serve(whole(body, content_encoding=name)))
    assert server.requests[0].headers["accept-encoding"] == "gzip"
    assert isinstance(fetched, Fetched)
    assert (fetched.size, fetched.sha256) == (len(LIST), hashlib.sha256(LIST).hexdigest())
    assert get.into.read_bytes() == LIST


def test_gzip_of_several_members_is_one_list(server: Server, get: Getter):
    """RFC 1952, section 2.2: the first member alone would be half of a list."""
    body = gzip.compress(LIST[:1000]) + gzip.compress(b"") + gzip.compress(LIST[1000:])
    get(server.serve(whole(body, content_encoding="gzip")))
    assert get.into.read_bytes() == LIST


def test_gzip_in_pieces_of_any_size_loses_nothing(server: Server, get: Getter):
    """A few bytes may decode to more than one buffer, and end at any place."""
    for size in (MIB - 1, MIB, MIB + 1, 3 * MIB):
        body = (b"a.example\n" * MIB)[:size]
        get(server.serve(gzipped(body)))
        assert get.into.read_bytes() == body


def test_gzip_needs_no_content_length(server: Server, get: Getter):
    """RFC 1952 section 2.3.1: checksum and length prove that it is complete."""
    get(server.serve(head(content_encoding="gzip") + gzip.compress(LIST)))
    assert get.into.read_bytes() == LIST


def test_progress_is_reported_to_the_end(server: Server, get: Getter):
    """A display that stops at 99 % looks like a hanging download."""
    progress: list[tuple[int, int | None]] = []
    feed = get.feed(server.serve(whole(LIST)))
    asyncio.run(fetch(feed, get.into, None, lambda content, of: progress.append((content, of))))
    assert progress[-1] == (len(LIST), len(LIST))
    assert progress == sorted(progress)
    assert len(progress) > 1


def test_a_partial_file_left_by_a_power_cut_is_replaced(server: Server, get: Getter):
    """A partial file of an earlier fetch must not be appended to."""
    get.into.with_name("list.txt.part").write_bytes(b"half")
    get(server.serve(whole(LIST)))
    assert get.into.read_bytes() == LIST
    assert list(get.into.parent.iterdir()) == [get.into]


def test_nothing_is_written_through_a_symlink_in_place_of_the_partial_file(
    server: Server, get: Getter, tmp_path: Path
):
    """A symlink in the folder must not redirect the download to another file."""
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    get.into.with_name("list.txt.part").symlink_to(target)
    get(server.serve(whole(LIST)))
    assert (target.read_bytes(), get.into.read_bytes()) == (b"untouched", LIST)


def test_a_large_list_costs_little_memory(server: Server, get: Getter):
    """The list is written in pieces: memory does not grow with its size."""
    url = server.serve(gzipped(b"name.example\n" * (5 * MIB)))
    assert peak_of(lambda: get(url, max_bytes=100 * MIB)) < 8 * MIB
    assert get.into.stat().st_size == 65 * MIB


# ------- The same list again -------


def test_a_list_that_is_not_modified_is_not_sent_again(server: Server, get: Getter):
    """RFC 9110, section 13.1."""
    first = get(server.serve(whole(LIST, etag='W/"7"', last_modified="Tue, 01 Sep 2026 10:00:00 GMT")))
    assert isinstance(first, Fetched)
    second = get(server.serve(head("304 Not Modified", etag='W/"7"')), first.validators)
    assert second is None
    asked = server.requests[-1].headers
    assert asked["if-none-match"] == 'W/"7"'
    assert asked["if-modified-since"] == "Tue, 01 Sep 2026 10:00:00 GMT"
    assert get.into.read_bytes() == LIST


@pytest.mark.parametrize("known", [None, Validators()])
def test_not_modified_without_validators_is_refused(server: Server, get: Getter, known: Validators | None):
    """RFC 9110 section 15.4.5: 304 answers conditional requests only."""
    failed = get.fails(server.serve(head("304 Not Modified")), known)
    assert failed.code == "STATUS"
    assert not {"if-none-match", "if-modified-since"} & server.requests[-1].headers.keys()


@pytest.mark.parametrize("etag", ['"caf\xe9"', '"\x1b[2J"', '"' + "7" * 300 + '"'])
def test_invalid_validators_are_not_stored(server: Server, get: Getter, etag: str):
    """RFC 9110 section 8.8.3: an invalid ETag would break the next request."""
    fetched = get(server.serve(whole(LIST, etag=etag, last_modified="today")))
    assert isinstance(fetched, Fetched)
    assert fetched.validators == Validators(None, "today")
