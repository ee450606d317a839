"""The files that orders are judged by (dnsblock/orders/references.py)."""

from pathlib import Path

import pytest

from dnsblock.config import Config
from dnsblock.orders.references import References, read_references

from .ssh_keys import make_key


@pytest.mark.parametrize("content", ["", "# nothing else\n", "<html>\n"])
def test_a_file_without_keys_keeps_the_former_keys(tmp_path: Path, content: str):
    """A file that was cut must not refuse the next unblock order, and nobody may overlook it."""
    file = tmp_path / "keys"
    config = Config.model_validate(
        {"upstream": {"servers": ["192.0.2.1"]}, "issuers": [{"id": "a", "keys": str(file)}]}
    )
    file.write_text(content)
    first, problems = read_references(config, References())
    assert isinstance(first.keys["a"], tuple)
    assert "has no valid line" in problems[-1].reason
    file.write_text(f"budi {make_key().public_line}\n")
    good, problems = read_references(config, first)
    assert problems == ()
    file.write_text(content)
    after, problems = read_references(config, good)
    assert after.keys["a"] == good.keys["a"]
    assert "has no valid line" in problems[-1].reason
