"""The section `cache` of the configuration: what a reload takes over, and what is refused (trap 16)."""

import pytest

from .asking import is_forwarded
from .caching import NAME, assert_lives, gives, number_of, numbered, says, set_cache, soa, start
from .harness import Subject
from .tools import wait_for
from .upstreams import StubUpstream


def test_a_reload_applies_new_limits_of_ttls(subject: Subject, upstream: StubUpstream):
    """Responses that are fetched afterwards have the new limits."""
    start(subject, upstream)
    said = set_cache(subject, upstream, cache={"max_ttl": 2, "max_negative_ttl": 1})
    assert said["restart_needed"] == []
    upstream.script = gives(ttl=300)
    assert_lives(subject, upstream, 2)
    upstream.script = says(authority=[soa()], rcode=3)
    assert_lives(subject, upstream, 1, "gone.example")


def test_a_new_cache_size_starts_with_an_empty_cache(subject: Subject, upstream: StubUpstream):
    """Without a restart: a cache that is too small is noticed while it is in use."""
    upstream.script = numbered()
    start(subject, upstream)
    assert number_of(subject.query(NAME)) == 1
    assert set_cache(subject, upstream, cache={"size_mb": 8})["restart_needed"] == []
    assert [number_of(subject.query(NAME)) for _ in range(2)] == [2, 2]
    set_cache(subject, upstream, cache={"size_mb": 0})
    assert [number_of(subject.query(NAME)) for _ in range(2)] == [3, 4]


def test_a_reload_without_cache_changes_keeps_the_cache(subject: Subject, upstream: StubUpstream):
    """Trap 16: orders come every day and must not send every query upstream again."""
    upstream.script = numbered()
    start(subject, upstream)
    assert number_of(subject.query(NAME)) == 1
    for _ in range(3):
        subject.reload()
        assert number_of(subject.query(NAME)) == 1


@pytest.mark.parametrize(
    ("cache", "says"),
    [
        ({"size_mb": -1}, "-1"),
        ({"size_mb": "big"}, "big"),
        ({"size_mb": 10**9}, "1000000000"),
        ({"max_ttl": -1}, "-1"),
        ({"max_negative_ttl": -1}, "-1"),
        ({"max_stale": -1}, "-1"),
        ({"max_stale": "1d"}, "1d"),
        ({"prefetch": "sometimes"}, "sometimes"),
        ({"max_tll": 5}, "max_tll"),
        ([64], "cache"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_option_of_the_cache_is_named_with_its_line(subject: Subject, cache: object, says: str):
    """Any error says which file, line and value; a slip must not become a cache of all memory."""
    subject.configure(cache=cache)
    checked = subject.cli("check")
    assert checked.code == 1
    lines = subject.config_path.read_text().splitlines()
    (problem,) = checked.problems
    assert 1 <= problem["line"] <= len(lines)
    assert says in f"{problem['value']} {problem['reason']}" or says in lines[problem["line"] - 1]


def test_a_reload_with_a_wrong_option_changes_nothing(subject: Subject, upstream: StubUpstream):
    """The previous configuration stays in force, and the cache stays."""
    upstream.script = numbered()
    start(subject, upstream)
    assert number_of(subject.query(NAME)) == 1
    subject.configure(cache={"max_ttl": -1}, upstreams=[upstream.address])
    assert subject.cli("reload").code == 4
    assert number_of(subject.query(NAME)) == 1
    upstream.script = gives()
    wait_for(lambda: is_forwarded(subject.query("new.example")), "it goes on")
