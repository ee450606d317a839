"""A response that cannot be parsed is not passed on."""

from collections.abc import Callable

from .. import wire
from ..asking import Asking
from ..policy import SINKHOLED, free
from ..upstreams import Asked, StubUpstream
from .chains import UNREADABLE, pointer

CNAME = 5


@UNREADABLE
def test_a_response_with_an_unreadable_name_is_not_passed_on(
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


def test_a_forward_pointer_does_not_bypass_a_block(resolver: Asking, seen: StubUpstream):
    """Trap 12, RFC 1035 section 4.1.4: pointers point backwards, but glibc's dn_expand follows these too."""
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
