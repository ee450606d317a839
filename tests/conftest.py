"""Options of the whole suite; they must be known before any test is collected."""

import pytest


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
