"""The receiver of docs/webhooks.md, run as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

from unit.https_server import Authority

from .harness import ISSUER, Subject
from .orders import as_yaml, block
from .receivers import new_secret, write_secrets
from .tools import wait_for

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


def test_the_receiver_of_the_page_prints_what_the_page_shows(subject: Subject, authority: Authority):
    """It needs only Python, and prints each event."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (program,) = (text for kind, text in blocks if kind == "python")
    (shown,) = (text for kind, text in blocks if kind == "text")
    (subject.folder / "receiver.py").write_text(program)
    certificate, key = authority.issue("receiver")
    secret = new_secret()
    write_secrets(subject, "kominfo", secret)
    command = [sys.executable, "receiver.py", str(certificate), str(key), "0"]
    output = subject.folder / "output"
    environment = os.environ | {"WEBHOOK_SECRET": secret}
    with output.open("w") as file:
        receiver = subprocess.Popen(command, cwd=subject.folder, stdout=file, env=environment)
    try:
        # With PYTHONUNBUFFERED, print() writes each word for itself: only a line that has ended is complete.
        listening = re.compile(r"listening on port (\d+)\n")
        port = wait_for(lambda: listening.match(output.read_text()), "the receiver listens")[1]
        hook = {"name": "kominfo", "issuer": ISSUER, "url": f"https://127.0.0.1:{port}/dnsblock"}
        hook |= {"secret_file": "kominfo.secret", "ca": str(authority.pem)}
        subject.start(webhooks=[hook])
        document = as_yaml(block("001/BLOCK/2026", ["slot.example"]))
        subject.submit("order.yaml", document.encode())
        lines = 1 + shown.count("\n")
        wait_for(lambda: output.read_text().count("\n") >= lines, "the last event")
        assert output.read_text().split("\n", 1)[1] == shown
        wait_for(lambda: subject.control.webhooks()["webhooks"][0]["delivered"] == 3, "each is delivered")
        assert subject.control.webhooks()["webhooks"][0]["failures"] == {}
    finally:
        receiver.kill()
        receiver.wait()
