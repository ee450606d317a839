"""What the upstream sends and nobody can read is not handed on."""

from collections.abc import Callable

import pytest

from .. import wire
from ..asking import Asking
from ..policy import SINKHOLED, free
from ..upstreams import Asked, StubUpstream

CNAME = 5


def pointer(offset: int) -> bytes:
    return (0xC000 | offset).to_bytes(2)


@pytest.mark.parametrize(
    "target",
    [
        pointer,
        lambda at: b"\x01a" + pointer(at),
        lambda at: pointer(at + 2) + pointer(at),
        lambda _: pointer(0x3FFF),
        lambda _: b"\x40" + b"x" * 64 + b"\0",
        lambda _: b"\x3fcut",
        lambda _: wire.labels_to_wire([b"x" * 63] * 5),
    ],
    ids=["itself", "loop", "two", "past the end", "label type 01", "cut", "too long"],
)
def test_an_answer_with_a_name_that_cannot_be_read_is_not_handed_on(
    resolver: Asking, seen: StubUpstream, target: Callable[[int], bytes]
):
    """Traps 12 and 14, RFC 1035 section 4.1.4: what we cannot judge, a lenient client may follow."""
    name = free()

    def script(asked: Asked) -> bytes:
        if asked.name != name:
            return asked.address()
        at = 12 + len(asked.message.question) + 12
        return asked.response([wire.record(b"\xc0\x0c", CNAME, target(at))])

    seen.script = script
    reply = resolver.query(name)
    assert (reply.rcode, reply.answer) == ("SERVFAIL", ())


def test_a_pointer_forwards_is_no_way_around_a_block(resolver: Asking, seen: StubUpstream):
    """Trap 12, RFC 1035 section 4.1.4: it may lead backwards only, but glibc's dn_expand follows it."""
    name = free()

    def script(asked: Asked) -> bytes:
        if asked.name != name:
            return asked.address()
        behind = 12 + len(asked.message.question) + 12 + 2
        records = [wire.record(b"\xc0\x0c", CNAME, pointer(behind))]
        return asked.response([*records, wire.address_record(SINKHOLED, "198.51.100.7")])

    seen.script = script
    raw = resolver.exchange(wire.query(name))
    assert raw is None or b"\xc6\x33\x64\x07" not in raw
