"""The transparency report, made by the command: the example of docs/transparency.md, and a running daemon."""

import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from .clocks import FakeClock
from .harness import Subject
from .orders import SHIPPED, as_yaml, block
from .tools import wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "transparency.md").read_text()
ZONE = {"name": "kominfo", "issuer": "kominfo.go.id", "unsigned": "accept", "answer": "sinkhole"}


def test_the_example_of_the_page_prints_what_the_page_shows(subject: Subject, clock: FakeClock):
    """The Telegram orders of 2017, received and enforced at their true times."""
    block_file, lift_file = (SHIPPED / name for name in sorted(os.listdir(SHIPPED)))
    clock.step_to(datetime.fromisoformat("2017-07-14T11:30:20+07:00").timestamp() - time.time())
    subject.start(zones=[ZONE])
    subject.submit(block_file.name, block_file.read_bytes())
    clock.step_to(datetime.fromisoformat("2017-08-10T10:46:20+07:00").timestamp() - time.time())
    subject.submit(lift_file.name, lift_file.read_bytes())
    wait_for(lambda: b'"lifted"' in ledger(subject), "the lifting is recorded")
    assert subject.stop() == 0
    section = PAGE.split("## Example: Telegram in 2017\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    script = "set -eu\n" + "\n".join(text for kind, text in blocks if kind == "sh")
    environment = {
        **os.environ,
        "DNSBLOCK_CONFIG": str(subject.config_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["sh", "-c", script], cwd=subject.folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(text for kind, text in blocks if kind == "text")


def ledger(subject: Subject) -> bytes:
    return (subject.folder / "state" / "ledger.jsonl").read_bytes()


def test_a_report_can_be_made_while_the_daemon_runs(subject: Subject):
    """It reads the ledger and writes nothing but the report."""
    subject.start()
    subject.submit("one.yaml", as_yaml(block("one", ["one.example"])).encode())
    wait_for(lambda: b'"activated"' in ledger(subject), "the order is enforced")
    said = subject.cli("report transparency", "--names", "all")
    assert said.code == 0
    assert said.json["totals"]["orders_in_force"] == 1
    assert said.json["orders"]["in_force"][0]["listed_names"] == {"subtree": ["one.example"]}
    assert said.json["times"]["enforce"]["count"] == 1
    page = subject.folder / "report.html"
    said = subject.cli("report transparency", "-o", str(page))
    assert said.json == {"file": str(page), "format": "page", **said.json}
    assert "<!doctype html>" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o644
    subject.submit("two.yaml", as_yaml(block("two", ["two.example"])).encode())


def test_a_wrong_period_and_a_file_that_cannot_be_written_are_refused(subject: Subject):
    """The message says which option is wrong."""
    subject.configure()
    for option, value in (("--from", "soon"), ("--to", "2999-01-01"), ("--from", "2998-01-01")):
        said = subject.cli("report transparency", option, value, as_json=False)
        assert said.code == 2
        assert option in said.stderr
        assert ("write it as 2026-07-01" in said.stderr) is (value == "soon")
    said = subject.cli(
        "report transparency", "-o", str(subject.folder / "none" / "report.html"), as_json=False
    )
    assert said.code == 4
    assert "cannot be written" in said.stderr
    assert subject.cli("report transparency", "--format", "csv").code == 2
