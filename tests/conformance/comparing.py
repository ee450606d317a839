"""Asks resolvers the same queries, and compares what a client sees of the responses."""

from collections.abc import Iterable
from contextlib import suppress

import pytest

from . import wire
from .asking import Asking

TOGETHER = 40  # queries that are outstanding at once
TRIES = 20  # a busy machine loses packets
Question = tuple[str, str]  # name and type
Record = tuple[str, int, bytes]  # owner, type and data: TTLs do not count
Answer = tuple[str, bool, tuple[Record, ...]]  # RCODE, TC, and the answer section, sorted


def questions(names: Iterable[str], *qtypes: str) -> list[Question]:
    return [(name, qtype) for name in names for qtype in qtypes]


def answers(resolver: Asking, asked: Iterable[Question]) -> dict[Question, Answer]:
    """The answer to each query. A query without a response is sent again."""
    asked = list(asked)
    found: dict[Question, Answer] = {}
    with resolver.udp() as sock:
        sock.settimeout(2)
        for at in range(0, len(asked), TOGETHER):
            missing = dict(enumerate(asked[at : at + TOGETHER]))
            for _ in range(TRIES):
                for number, (name, qtype) in missing.items():
                    sock.send(wire.query(name, qtype, qid=number))
                with suppress(TimeoutError):
                    while missing:
                        _take(sock.recv(65535), missing, found)
                    break
            if missing:
                pytest.fail(f"no response in {TRIES} tries: {list(missing.values())}")
    return found


def _take(raw: bytes, missing: dict[int, Question], found: dict[Question, Answer]) -> None:
    """Reads one response. It may be a late one to a query that was sent twice."""
    reply = wire.read(raw)
    question = missing.get(reply.qid)
    if question is not None and reply.question == wire.question(*question):
        del missing[reply.qid]
        records = sorted((one.owner.lower(), one.rtype, one.rdata) for one in reply.answer)
        found[question] = (reply.rcode, reply.truncated, tuple(records))


def assert_same(asked: Iterable[Question], *resolvers: Asking) -> dict[Question, Answer]:
    """Every resolver answers every query as the first one does. Returns these answers."""
    first, *others = (answers(one, asked) for one in resolvers)
    different = [
        f"{name} {qtype}: {[one[name, qtype] for one in (first, *others)]}"
        for name, qtype in first
        if any(other[name, qtype] != first[name, qtype] for other in others)
    ]
    assert not different, "\n".join([f"{len(different)} of {len(first)} differ", *different[:40]])
    return first
