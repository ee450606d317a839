"""Fixtures of the conformance tests: the daemon, a real resolver behind it, and a scripted one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from unit.https_server import Authority, Server

from . import differences
from .clocks import FakeClock
from .harness import Subject
from .issuing import IssuersApi
from .stalls import StallWatch
from .upstreams import MakeUpstream, Script, StubUpstream, Unbound, decent

PORTABLE = Path(__file__).parent / "portable"
RUNS = 3  # of one test, if each run before failed and had a stall; on a busy machine, two may have one

stalls = StallWatch()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a failed test again if the machine gave it no processor meanwhile; the report lists the stalls."""
    if not item.path.is_relative_to(Path(__file__).parent):
        return None
    if not stalls.is_alive():
        stalls.start()
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    evidence: list[str] = []
    for _ in range(RUNS):
        began = time.monotonic()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        found = stalls.since(began) if any(report.failed for report in reports) else []
        if not found:
            break
        evidence += [f"run again: {what}" for what in found]
        item.user_properties.clear()
        # A daemon that tests share has seen the queries of this one, and must not see them again.
        item.session._setupstate.teardown_exact(None)
    for report in reports:
        if evidence and report is reports[-1]:
            report.sections.append(("stalls", "\n".join(evidence)))
            report.user_properties += [("stall", what) for what in evidence]
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Aimed at another resolver: the portable tests alone, with what it is known to do differently.

    Strictly: a difference that is recorded and gone fails the run, like one that is not recorded.
    """
    aim = config.getoption("aim")
    if aim == "dnsblock":
        return
    others = [item for item in items if PORTABLE not in item.path.parents]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if PORTABLE in item.path.parents]
    for difference in differences.read()[1]:
        if difference.peer == aim:
            _expect(difference, items)


def _expect(difference: differences.Difference, items: list[pytest.Item]) -> None:
    mark = (
        pytest.mark.xfail(reason=difference.sentence, strict=True)
        if difference.is_expressible
        else pytest.mark.skip(reason=difference.sentence)
    )
    tests = [item for item in items if item.originalname == difference.test]
    concerned = [
        item for item in tests if difference.is_about(item.callspec.id if hasattr(item, "callspec") else "")
    ]
    if tests and not concerned:
        raise pytest.UsageError(f"{differences.SOURCE.name}: {difference.test} has no {difference.when}")
    for item in concerned:
        item.add_marker(mark)


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    """The daemon, not yet started; killed at the end, and no packet may have caused a panic."""
    with closing(Subject(tmp_path)) as daemon:
        yield daemon


@pytest.fixture
def clock(subject: Subject) -> FakeClock:
    """The daemon's wall clock."""
    return FakeClock(subject)


@pytest.fixture
def make_upstream() -> Iterator[MakeUpstream]:
    """Makes scripted upstreams."""
    with ExitStack() as stack:

        def make(script: Script = decent, **options: str) -> StubUpstream:
            return stack.enter_context(closing(StubUpstream(script, **options)))

        yield make


@pytest.fixture
def upstream(make_upstream: MakeUpstream) -> StubUpstream:
    """A scripted upstream; by default it answers every name."""
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
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whose certificates the feeds of the tests have."""
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def web(authority: Authority) -> Iterator[Server]:
    """An HTTPS server on loopback for feeds, scripted by the test."""
    with Server(authority.certificate()) as server:
        yield server


@pytest.fixture
def api(subject: Subject, authority: Authority, client_authority: Authority) -> IssuersApi:
    """The daemon with an issuers' API, not yet started."""
    return IssuersApi(subject, authority, client_authority)


@pytest.fixture(scope="session")
def client_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whose certificates the clients of the issuers' API have."""
    return Authority(tmp_path_factory.mktemp("client-authority") / "ca")


@pytest.fixture(scope="session")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    """A real Unbound with local data; nothing it is asked leaves the machine."""
    with closing(Unbound(tmp_path_factory.mktemp("unbound"))) as resolver:
        resolver.start()
        yield resolver
