"""A server with a certificate of its own, and a list that a fetch replaces."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..https_server import (
    Authority,
    Server,
)
from .helpers import BEFORE, PROXIES, Getter


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("feeds") / "authority")


@pytest.fixture(scope="module")
def module_server(authority: Authority) -> Iterator[Server]:
    with Server(authority.certificate()) as server:
        yield server


@pytest.fixture
def server(module_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    module_server.requests.clear()
    return module_server


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where the list goes, which holds the previous one."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "list.txt").write_bytes(BEFORE)
    return folder / "list.txt"


@pytest.fixture
def get(authority: Authority, into: Path) -> Getter:
    return Getter(authority, into)
