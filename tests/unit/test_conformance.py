"""docs/conformance.md is made from the tests, and each of its sections has some."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text()
TABLE = ROOT / "tests" / "conformance" / "table.py"


def test_docs_conformance_is_up_to_date():
    """`make conformance` writes it."""
    written = subprocess.run([sys.executable, TABLE, "-"], capture_output=True, text=True, check=True).stdout
    assert written == CONFORMANCE, "run make conformance"


@pytest.mark.parametrize("topic", range(19))
def test_every_topic_of_conformance_has_a_test(topic: int):
    """A section without rows would promise nothing."""
    rows = re.search(rf"^## {topic} .*?(?=^## )", CONFORMANCE, re.MULTILINE | re.DOTALL)[0]
    assert re.search(r"^\| .* \| `[\w/]+\.py` `test_\w+` \|", rows, re.MULTILINE)
