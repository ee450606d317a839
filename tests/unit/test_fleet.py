"""The states of instances in `fleet status`, where a test of the daemon would have to wait a minute."""

from typing import Any

import pytest

from dnsblock.cli.fleet import _row, _usual
from dnsblock.instances import Fetched


def answer(digest: str, queries: int = 100, seconds: float = 65.0, at: str = "2026-01-01T00:00:00Z") -> dict:
    """The facts that an instance answers."""
    facts: dict[str, Any] = {"version": "1", "serial": 1, "digest": digest, "published_at": at}
    return facts | {"queries": queries, "seconds": seconds, "zones": []}


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (answer("a"), "same"),
        (answer("a", queries=1), "same"),
        (answer("a", queries=0), "idle"),
        (answer("a", queries=0, seconds=12.5), "same"),  # it has just started
        (answer("b", queries=0), "differs"),
    ],
)
def test_an_instance_without_queries_for_a_minute_is_idle(one: dict, state: str):
    """Clients do not use it any more: a route or a load balancer fails, and the engineer must see it."""
    assert _row(Fetched("https://a", one), answer("a"))["state"] == state


@pytest.mark.parametrize(
    ("answers", "digest"),
    [
        ([answer("a"), answer("b"), answer("a")], "a"),
        ([answer("b", at="2026-01-01T00:00:01Z"), answer("a")], "b"),  # as many: the later one
        ([], None),
    ],
)
def test_most_instances_decide_what_is_usual(answers: list[dict], digest: str | None):
    """The ones to look at are the others; with two instances, the one that is behind."""
    seen = [Fetched("https://gone"), *(Fetched("https://x", one) for one in answers)]
    found = _usual(seen)
    assert (found and found["digest"]) == digest


def test_an_instance_cannot_say_its_own_state():
    """Fields that it adds to its answer do not replace what is found about it."""
    lies = answer("b") | {"state": "same", "url": "https://other", "error": "x"}
    row = _row(Fetched("https://a", lies), answer("a"))
    assert (row["state"], row["url"], row["error"]) == ("differs", "https://a", None)
