"""A plain list of 1,000,000 names: it loads, each name of a sample is found, and none of its neighbours."""

import random
import select
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from . import wire
from .harness import Subject, is_sinkholed
from .lists import ANY_CHANGE, UNWATCHED
from .upstreams import Unbound

COUNT = 1_000_000
SAMPLE = 20_000
WINDOW = 64
pytestmark = pytest.mark.timeout(1200)
WORDS = (
    "judi",
    "slot",
    "bola",
    "film",
    "nonton",
    "togel",
    "poker",
    "gacor",
    "casino",
    "drama",
    "manga",
    "stream",
)
TOPS = ("com", "net", "org", "info", "xyz", "co.id", "online", "me", "io", "web.id")


def names(count: int, seed: int = 20170714) -> list[str]:
    """Names as in the national list: words, numbers, few top-level domains, some below others."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        word = f"{rng.choice(WORDS)}{rng.choice(('', '-'))}{rng.choice(WORDS)}{rng.randrange(10_000_000)}"
        name = f"{word}.{rng.choice(TOPS)}"
        found[name] = None
        if rng.random() < 0.2:
            found[f"{rng.choice(('www', 'm', 'cdn'))}.{name}"] = None
    return list(found)[:count]


def neighbours(listed: list[str], rng: random.Random) -> Iterable[str]:
    """Unlisted names close to the listed ones: one character more, less or other, and below."""
    while True:
        name = rng.choice(listed)
        label, rest = name.split(".", 1)
        if len(label) == 1:
            continue
        yield rng.choice(
            (
                f"{label}{rng.randrange(10)}.{rest}",
                f"{label[:-1]}.{rest}",
                f"x{name}",
                f"{label[:-1]}{rng.randrange(10)}.{rest}",
                f"unlisted.{name}",
                f"{name}.example",
            )
        )


def blocked_of(subject: Subject, asked: list[str]) -> list[bool]:
    """Ask all, WINDOW at a time on one socket, again where a datagram was lost; what each answer says."""
    verdicts: dict[int, bool] = {}
    waiting: dict[int, float] = {}
    position = 0
    with subject.udp() as sock:
        deadline = time.monotonic() + 300
        while len(verdicts) < len(asked):
            assert time.monotonic() < deadline, f"{len(asked) - len(verdicts)} of {len(asked)} not answered"
            for number in [number for number, sent in waiting.items() if time.monotonic() > sent + 1]:
                sock.send(wire.query(asked[number], qid=number))
                waiting[number] = time.monotonic()
            while len(waiting) < WINDOW and position < len(asked):
                sock.send(wire.query(asked[position], qid=position))
                waiting[position] = time.monotonic()
                position += 1
            while select.select(
                [sock], [], [], 0.05 if len(waiting) == WINDOW or position == len(asked) else 0
            )[0]:
                reply = wire.read(sock.recv(4096))
                if waiting.pop(reply.qid, None) is not None:
                    assert reply.question == wire.question(asked[reply.qid])
                    verdicts[reply.qid] = is_sinkholed(reply)
                if not waiting:
                    break
    return [verdicts[number] for number in range(len(asked))]


def test_a_million_names_load_and_each_is_found_and_no_other(
    subject: Subject, unbound: Unbound, tmp_path: Path
):
    """Fault of others: a deployed builder silently loses 0.147 % of its names."""
    listed = names(COUNT)
    zone = {"name": "national", "list": "national.txt", "match": "exact", "answer": "sinkhole"}
    ready = subject.start(
        zones=[zone], lists={"national.txt": listed}, upstreams=[unbound.address], within=300
    )
    assert ready["entries"] == COUNT
    rng = random.Random(1)
    sample = rng.sample(listed, SAMPLE)
    lost = [name for name, found in zip(sample, blocked_of(subject, sample), strict=True) if not found]
    assert lost == []
    everything = set(listed)
    others: dict[str, None] = {}
    for name in neighbours(listed, rng):
        if name not in everything:
            others[name] = None
        if len(others) == SAMPLE:
            break
    found = [
        name for name, is_found in zip(others, blocked_of(subject, list(others)), strict=True) if is_found
    ]
    assert found == []


def test_a_big_list_is_swapped_in_without_losing_a_query(subject: Subject, unbound: Unbound):
    """A reload of a big list answers with the old one until the new one is there, and then with that."""
    first, second = names(100_000, seed=1), names(100_000, seed=2)
    zone = {"name": "national", "list": "national.txt", "match": "exact", "answer": "sinkhole"}
    zone["source"] = UNWATCHED | {"guards": ANY_CHANGE}
    subject.start(zones=[zone], lists={"national.txt": first}, upstreams=[unbound.address])
    subject.put_list("national.txt", second)
    assert subject.reload()["entries"] == len(second)
    gone = sorted(set(first) - set(second))[:2000]
    assert all(blocked_of(subject, second[:2000]))
    assert not any(blocked_of(subject, gone))
