"""The walk-through of docs/api.md, run as it is written."""

import os
import re
import subprocess
from pathlib import Path

from .harness import is_sinkholed
from .issuing import TOKENS, IssuersApi
from .orders import as_yaml, block
from .tools import tool

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_the_walk_through_with_curl_prints_what_the_page_shows(api: IssuersApi, tmp_path: Path):
    """Each block of commands, with the output in the block after it."""
    api.start()
    tool("curl")
    folder = tmp_path / "clerk"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(api.servers.pem.read_bytes())
    (folder / "order.yaml").write_text(as_yaml(block("001/BLOCK/2026", ["slot.example"])))
    section = PAGE.split("## Walk-through with curl\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    script = "set -eu\n" + "\n".join(text for kind, text in blocks if kind == "sh")
    environment = {**os.environ, "API": api.url, "TOKEN": TOKENS["ministry"], "NO_PROXY": "*"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    shown = "".join(text for kind, text in blocks if not kind)
    assert done.stdout == shown
    assert is_sinkholed(api.subject.query("slot.example"))
    receipt = (folder / "receipt.json").read_text()
    assert "001/BLOCK/2026" in receipt
    assert (folder / "receipt.json.sig").read_text().startswith("-----BEGIN SSH SIGNATURE-----")
