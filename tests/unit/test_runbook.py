"""docs/runbook.md has an entry for each alert of config/alerts.yaml, and each alert points to its entry."""

import re
import subprocess
from pathlib import Path

import pytest

from dnsblock import document

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = document.read("alerts.yaml", (ROOT / "config" / "alerts.yaml").read_bytes(), max_bytes=1 << 20).value
RULES = {rule["alert"]: rule for group in ALERTS["groups"] for rule in group["rules"] if "alert" in rule}
PARTS = ["Meaning.", "First look", "Likely causes", "What to do", "Mistakes to avoid"]
# Debian has them, or the packages that dnsblock needs anyway.
PROGRAMS = {
    *("dnsblock", "systemctl", "journalctl", "dig", "df", "ls", "ip", "ss", "dmesg", "timedatectl"),
    *("head", "tail", "grep", "sed"),
}


def entries() -> dict[str, str]:
    """The text of each entry, by its heading."""
    found = re.split(r"^### (.+)\n", RUNBOOK, flags=re.MULTILINE)[1:]
    texts = (re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0] for text in found[1::2])
    return dict(zip(found[::2], texts, strict=True))


def test_every_alert_has_an_entry_and_every_entry_an_alert():
    """The heading is the name of the alert."""
    assert sorted(entries()) == sorted(RULES)


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_points_to_its_entry(alert: str):
    """In the message that wakes somebody up: the anchor is the one that GitHub gives to the heading."""
    assert RULES[alert]["annotations"]["runbook"] == f"docs/runbook.md#{alert.lower()}"


@pytest.mark.parametrize("alert", RULES)
def test_an_entry_has_all_parts_in_the_same_sequence(alert: str):
    """An engineer who is woken up knows where to look."""
    assert re.findall(r"^\*\*([^*]+)\*\*", entries()[alert], re.MULTILINE) == PARTS


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL)


def test_every_entry_has_commands():
    """And the introduction has one."""
    assert len(blocks()) == len(RULES) + 1


def test_commands_can_be_pasted():
    """A shell reads them, they need no value to be filled in, and they change nothing."""
    for block in blocks():
        read = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert (read.returncode, read.stderr) == (0, ""), block
        for line in block.splitlines():
            assert not re.search(r"\b[A-Z]{2,}\b", line), f"{line}: what is to be filled in?"
            outside = re.sub(r"'[^']*'", "", line)
            assert {part.split()[0] for part in outside.split("|")} <= PROGRAMS, line
            changing = r"\b(accept|annul|approve|rollback|reload|refresh|submit|purge|restart|stop|rm)\b"
            assert not re.search(changing, outside), f"{line}: a first look changes nothing"
