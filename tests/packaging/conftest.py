"""What several tests of the packaging need, and takes long to build."""

import os
from pathlib import Path

import pytest
from building import build_once


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The build context and the wheel, which the processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    shared.mkdir(exist_ok=True)
    return build_once(shared)


@pytest.fixture(scope="session")
def context(built: tuple[Path, Path]) -> Path:
    """The build context of the image."""
    return built[0]


@pytest.fixture(scope="session")
def wheel(built: tuple[Path, Path]) -> Path:
    """A wheel without optimisation."""
    return built[1]
