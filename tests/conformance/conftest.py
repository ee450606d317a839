"""Fixtures of the conformance tests: the daemon, a real resolver behind it, and a scripted one."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from .harness import Subject
from .upstreams import MakeUpstream, Script, StubUpstream, Unbound, decent


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    """The daemon, not yet started; killed at the end, and no packet may have caused a panic."""
    with closing(Subject(tmp_path)) as daemon:
        yield daemon


@pytest.fixture
def make_upstream() -> Iterator[MakeUpstream]:
    """Makes scripted upstreams."""
    with ExitStack() as stack:

        def make(script: Script = decent, **options: str) -> StubUpstream:
            return stack.enter_context(closing(StubUpstream(script, **options)))

        yield make


@pytest.fixture
def upstream(make_upstream: MakeUpstream) -> StubUpstream:
    """A scripted upstream; until told otherwise it answers every name decently."""
    return make_upstream()


@pytest.fixture(scope="module")
def shared_subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """A daemon for all tests of a file that only ask."""
    with closing(Subject(tmp_path_factory.mktemp("shared"))) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[StubUpstream]:
    """The upstream of the shared daemon."""
    with closing(StubUpstream(decent)) as stub:
        yield stub


@pytest.fixture
def seen(shared_upstream: StubUpstream) -> StubUpstream:
    """The upstream of the shared daemon, decent again, with the queries of this test only."""
    shared_upstream.script = decent
    shared_upstream.forget()
    return shared_upstream


@pytest.fixture(scope="session")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    """A real Unbound with local data; nothing it is asked leaves the machine."""
    with closing(Unbound(tmp_path_factory.mktemp("unbound"))) as resolver:
        resolver.start()
        yield resolver
