"""A history of three versions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dnsblock.lists.history.history import History

from .helpers import THREE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder whose history has three versions."""
    with History.open(tmp_path / "state") as history:
        for version in THREE:
            history.accept([version])
    return tmp_path / "state"


@pytest.fixture
def history(folder: Path) -> Iterator[History]:
    with History.open(folder) as opened:
        yield opened
