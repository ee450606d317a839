"""Scripts of an upstream whose answers have targets: by CNAME, DNAME, HTTPS and SVCB."""

import struct
from collections.abc import Callable, Iterable

import pytest

from .. import wire
from ..upstreams import Asked, decent

Script = Callable[[Asked], bytes]
DNAME = 39


def cname(owner: str, target: str) -> bytes:
    return wire.record(owner, "CNAME", wire.name_to_wire(target))


def leads(*names: str) -> Script:
    """From each of the names to the next, and from the last to an address; whichever of them is asked for."""

    def script(asked: Asked) -> bytes:
        at = next((i for i, name in enumerate(names) if name.lower() == asked.name.lower()), None)
        if at is None or asked.qtype not in (1, 28):
            return decent(asked)
        address = "198.51.100.7" if asked.qtype == 1 else "2001:db8:7::7"
        links = [cname(owner, target) for owner, target in zip(names[at:], names[at + 1 :], strict=False)]
        return asked.response([*links, wire.address_record(names[-1], address)])

    return script


def loops(*names: str) -> Script:
    """From each of the names to the next, and from the last to the first again."""
    links = [cname(owner, target) for owner, target in zip(names, [*names[1:], names[0]], strict=True)]

    def script(asked: Asked) -> bytes:
        return asked.response(links) if asked.name.lower() in names else decent(asked)

    return script


def dname(tree: str, target: str) -> Script:
    """RFC 6672: what is below the tree is below the target."""

    def script(asked: Asked) -> bytes:
        if not asked.name.lower().endswith(f".{tree}"):
            return decent(asked)
        made = f"{asked.name[: -len(tree) - 1]}.{target}"
        records = [wire.record(tree, DNAME, wire.name_to_wire(target)), cname(asked.name, made)]
        return asked.response([*records, wire.address_record(made, "198.51.100.7")])

    return script


def service(priority: int, target: str, parameters: Iterable[tuple[int, bytes]] = ()) -> Script:
    """One HTTPS or SVCB record, of the type that is asked for (RFC 9460 section 2.2)."""
    rdata = struct.pack("!H", priority) + wire.name_to_wire(target)
    rdata += b"".join(wire.option(key, value) for key, value in parameters)

    def script(asked: Asked) -> bytes:
        if asked.qtype not in (wire.QTYPES["HTTPS"], wire.QTYPES["SVCB"]):
            return decent(asked)
        return asked.response([wire.record(asked.name, asked.qtype, rdata)])

    return script


def pointer(offset: int) -> bytes:
    return (0xC000 | offset).to_bytes(2)


# Names that nobody can read, by where they stand in the message.
UNREADABLE = pytest.mark.parametrize(
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
