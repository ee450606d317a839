"""Fixtures of the portable tests: the resolver that the run is aimed at, and the upstream behind it."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from .. import policy
from ..asking import Asking
from ..harness import Subject
from ..peers import BindPeer, Elsewhere, UnboundPeer
from ..upstreams import StubUpstream, decent


def scope(fixture_name: str, config: pytest.Config) -> str:
    """For each file: dnsblock remembers for minutes how an upstream treats EDNS, and files run in any order.

    Another resolver is started, or told by its hook, once.
    """
    return "module" if config.getoption("aim") == "dnsblock" else "session"


@pytest.fixture(scope=scope)
def portable_upstream() -> Iterator[StubUpstream]:
    with closing(StubUpstream(decent)) as stub:
        yield stub


@pytest.fixture(scope=scope)
def resolver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, portable_upstream: StubUpstream
) -> Iterator[Asking]:
    """The resolver that is tested, with the policy in force and the scripted upstream behind it."""
    aim = request.config.getoption("aim")
    folder = tmp_path_factory.mktemp("portable")
    if aim == "dnsblock":
        with closing(Subject(folder)) as subject:
            subject.start(**policy.configuration(portable_upstream.address))
            yield subject
        return
    peers = {"unbound": UnboundPeer, "bind": BindPeer}
    hook = request.config.getoption("policy_hook")
    with closing(peers[aim](folder) if aim in peers else Elsewhere(aim, hook, folder)) as peer:
        peer.start(portable_upstream.address)
        yield peer


@pytest.fixture(autouse=True)
def seen(portable_upstream: StubUpstream) -> StubUpstream:
    """The upstream behind the resolver, decent again, with the queries of this test only."""
    portable_upstream.script = decent
    portable_upstream.forget()
    return portable_upstream
