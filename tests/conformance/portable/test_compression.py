"""Names in what the upstream sends: compressed as RFC 1035 allows, or as it does not."""

from collections.abc import Callable

from .. import wire
from ..asking import SINKHOLE4, Asking, is_sinkholed
from ..policy import SINKHOLED, free
from ..upstreams import Asked, StubUpstream
from .chains import UNREADABLE, pointer

CNAME = 5


def test_a_compressed_target_is_checked(resolver: Asking, seen: StubUpstream):
    """Traps 12 and 14, RFC 1035 section 4.1.4: a compressed target is as blocked as one written out."""
    alias = free()

    def script(asked: Asked) -> bytes:
        if asked.name != alias:
            return asked.address()
        first = wire.record(b"\xc0\x0c", CNAME, wire.name_to_wire(f"x.{SINKHOLED}"))
        at = 12 + len(asked.message.question) + 12 + 2  # behind the label x of the first target
        second = wire.record(pointer(at - 2), CNAME, b"\x03www" + pointer(at))
        last = wire.address_record(b"\x03www" + pointer(at), "198.51.100.7")
        return asked.response([first, second, last])

    seen.script = script
    reply = resolver.query(alias)
    assert reply.addresses in ([SINKHOLE4], [])


@UNREADABLE
def test_an_unreadable_name_disturbs_no_other_client(
    resolver: Asking, seen: StubUpstream, target: Callable[[int], bytes]
):
    """Trap 14, RFC 1035 section 4.1.4: pointers point backwards, and following them ends."""
    name = free()

    def script(asked: Asked) -> bytes:
        if asked.name != name:
            return asked.address()
        at = 12 + len(asked.message.question) + 12
        return asked.response([wire.record(b"\xc0\x0c", CNAME, target(at))])

    seen.script = script
    resolver.exchange(wire.query(name))
    assert is_sinkholed(resolver.query(SINKHOLED))
