"""Fixtures that several tests of the packaging share, because they take long to build."""

import os
from pathlib import Path

import pytest
from building import build_once, build_wheel
from debian import make_deb


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def context(shared: Path) -> Path:
    """The build context of the image."""
    return build_once(shared / "built", build_wheel) / "context"


@pytest.fixture(scope="session")
def wheel(shared: Path) -> Path:
    """A wheel without optimisation."""
    (wheel,) = (build_once(shared / "built", build_wheel) / "wheels").glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def package(shared: Path, wheel: Path) -> Path:
    """The Debian package."""
    (package,) = build_once(shared / "deb", lambda folder: make_deb(folder, wheel)).glob("dnsblock_*.deb")
    return package
