"""A zone in shadow between zones that are enforced, for the tests of shadow mode and of `impact`."""

from .harness import Subject
from .upstreams import StubUpstream

SHADOW = {"name": "planned", "list": "planned.txt", "answer": "nxdomain", "mode": "shadow"}
PASSED = {"name": "own", "list": "own.txt", "answer": "passthru"}
LATER = {"name": "later", "list": "later.txt", "answer": "nxdomain"}
FORWARDED4 = "198.51.100.7"  # what the stand-in gives
TYPES = ("A", "AAAA", "TXT", "HTTPS", "MX", "ANY")


def counted(subject: Subject, zone: str = "planned", **labels: str) -> float:
    return subject.metrics().total("dnsblock_shadow_blocked_total", zone=zone, **labels)


def start(
    subject: Subject,
    upstream: StubUpstream,
    names: list[str],
    *,
    before: tuple = (),
    after: tuple = (),
    **more,
) -> None:
    """A zone in shadow that lists these names, between zones that are enforced."""
    lists = {"planned.txt": names, **more.pop("lists", {})}
    zones = [*before, {**SHADOW, **more.pop("shadow", {})}, *after]
    subject.start(zones=zones, lists=lists, upstreams=[upstream.address], **more)
