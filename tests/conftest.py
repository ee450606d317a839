"""Options of the whole suite, known before any test is collected, and the order of its tests."""

import pytest
from hypothesis import HealthCheck, settings

# A busy machine may take any time for an example: a test fails only for a fault of the code. The examples are
# the same in each run. `pytest --hypothesis-profile=random` looks for others.
options = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("random", **options)
settings.register_profile("dnsblock", **options, derandomize=True)
settings.load_profile("dnsblock")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "the resolver that the portable conformance tests are aimed at")
    group.addoption(
        "--aim",
        default="dnsblock",
        metavar="RESOLVER",
        help="dnsblock (the default), unbound, bind, or ADDRESS:PORT; with any other than "
        "the default only the portable tests are run",
    )
    group.addoption(
        "--policy-hook",
        default=None,
        metavar="COMMAND",
        help="with ADDRESS:PORT: called with the RPZ zone file and the upstream's ADDRESS:PORT, "
        "and returns 0 when both are in effect",
    )


# Folders whose files have one or a few tests that take a minute.
LONG = ("bench", "packaging", "year")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: at the end, one processor would wait for them alone."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)
