"""Policy zones in RPZ format for the tests of one daemon, and the answers of its upstream."""

import itertools
from collections.abc import Iterable

from . import wire
from .harness import PROFILES, Subject
from .upstreams import StubUpstream

HEAD = "$TTL 300\n@ SOA localhost. nobody.invalid. {serial} 3600 900 604800 60\n@ NS localhost.\n"


def zone_text(*records: str, serial: int = 7) -> str:
    return HEAD.format(serial=serial) + "".join(f"{record}\n" for record in records)


def rpz(name: str = "rpz", answer: str = "given", **more: object) -> dict:
    options = {"file": f"{name}.zone"} | more.pop("rpz", {})
    return {"name": name, "rpz": options, "answer": answer, **more}


def start(
    subject: Subject,
    upstream: StubUpstream,
    *zones: dict,
    files: dict[str, str | list[str]],
    **config: object,
) -> None:
    """`files`: the text of each, or the records of a zone."""
    texts = {name: text if isinstance(text, str) else zone_text(*text) for name, text in files.items()}
    options = {"answers": PROFILES, "inbox": None, "upstreams": [upstream.address], **config}
    subject.start(zones=zones, lists=texts, **options)


def chain(*names: str, addresses: Iterable[str] = ("198.51.100.7",)) -> list[bytes]:
    """The records of an answer with CNAMEs from each name to the next, and the addresses of the last."""
    links = itertools.pairwise(names)
    found = [wire.record(owner, "CNAME", wire.name_to_wire(target)) for owner, target in links]
    return found + [wire.address_record(names[-1], address) for address in addresses]


def owners(reply: wire.Reply) -> list[tuple[str, int]]:
    return [(record.owner.rstrip("."), record.rtype) for record in reply.answer]
