"""Draws docs/images/terminal.svg: what `dnsblock status` and `dnsblock why` print, from a real run.

    .venv/bin/python tests/terminal.py

It starts two upstreams, and a daemon with the order of the walk-through and a list. It sends queries for
some seconds, runs the two commands in a terminal, and draws their output.
"""

import os
import pty
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from dnslib import QTYPE, RR, A, DNSRecord
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/terminal.svg"
PROGRAM = Path(sys.executable).parent / "dnsblock"
ORDER = ROOT / "blocklists/orders/2017-07-14-telegram-block.yaml"
COLUMNS, LINES = 114, 60
LISTEN, UPSTREAMS = ("127.0.0.1", 5300), (("127.0.0.2", 5300), ("127.0.0.3", 5300))
SECONDS, PER_SECOND = 12.0, 250
CONFIG = f"""
listen: ["{LISTEN[0]}:{LISTEN[1]}"]
metrics: null
upstream: {{servers: [{", ".join(f'"{host}:{port}"' for host, port in UPSTREAMS)}], %s: hashed}}
answers: {{sinkhole: {{action: sinkhole, ipv4: [192.0.2.53]}}}}
orders: orders
zones:
  - {{name: kominfo, issuer: kominfo.go.id, unsigned: accept, answer: sinkhole}}
  - {{name: malware, list: malware.txt, answer: nxdomain}}
"""


def selection() -> str:
    """The name of the option in the reference, so that this script follows a rename."""
    return re.search(r"^  (selection|choice): first$", (ROOT / "config/dnsblock.yaml").read_text(), re.M)[1]


def respond(address: tuple[str, int]) -> None:
    """An upstream: an address for every name, after a millisecond."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        while True:
            message, client = sock.recvfrom(4096)
            query = DNSRecord.parse(message)
            reply = query.reply()
            if query.q.qtype == QTYPE.A:
                reply.add_answer(RR(query.q.qname, rdata=A("198.51.100.7"), ttl=60))
            time.sleep(0.001)
            sock.sendto(reply.pack(), client)


def ask() -> None:
    """A client: for some seconds, names that are blocked, listed, cached and new."""
    names = ["web.telegram.org", "t.me", "m17.malware.example"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(LISTEN)
        sock.setblocking(False)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            number = random.randrange(4000)
            name = names[number % 3] if number < 300 else f"www{number % 900}.example"
            sock.send(DNSRecord.question(name).pack())
            time.sleep(1 / PER_SECOND)


def run_in_terminal(folder: Path, *command: str) -> str:
    """The output of a command on a terminal of COLUMNS columns, with colours."""
    main, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    subprocess.run(
        [PROGRAM, *command, "-c", "dnsblock.yaml"], cwd=folder, env=environment, stdout=terminal, timeout=60
    )
    os.close(terminal)
    printed = b""
    try:
        while chunk := os.read(main, 65536):
            printed += chunk
    except OSError:  # how Linux tells that nobody has the terminal open
        pass
    os.close(main)
    return printed.decode().replace("\r\n", "\n").rstrip("\n")


def outputs(folder: Path) -> list[tuple[str, str]]:
    """Each command, as typed, with what it printed."""
    (folder / "orders").mkdir()
    (folder / "orders" / ORDER.name).write_bytes(ORDER.read_bytes())
    (folder / "malware.txt").write_text("".join(f"m{n}.malware.example\n" for n in range(1240)))
    (folder / "dnsblock.yaml").write_text(CONFIG % selection())
    for address in UPSTREAMS:
        threading.Thread(target=respond, args=[address], daemon=True).start()
    command = [PROGRAM, "serve", "-c", "dnsblock.yaml"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as daemon:
        try:
            if not daemon.stdout or not daemon.stdout.readline():
                sys.exit(f"the daemon did not start: is {LISTEN[0]}:{LISTEN[1]} taken?")
            ask()
            return [
                (" ".join(["dnsblock", *words]), run_in_terminal(folder, *words))
                for words in (["status"], ["why", "www.telegram.org"], ["why", "example.com"])
            ]
        finally:
            daemon.terminate()


def draw(shown: list[tuple[str, str]]) -> str:
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for command, printed in shown:
        console.print(Text.assemble(("$ ", "green"), (command, "bold")))
        console.print(Text.from_ansi(printed))
        console.print()
    picture = console.export_svg(title="dnsblock", unique_id="terminal")
    # Pages show pictures without what these load from elsewhere.
    picture = re.sub(r"\s*@font-face \{.*?\}\n", "", picture, flags=re.DOTALL)
    picture = picture.replace("Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas").replace(
        "<svg ", '<svg role="img" aria-label="Output of dnsblock status and dnsblock why" ', 1
    )
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        PICTURE.write_text(draw(outputs(Path(folder))))


if __name__ == "__main__":
    main()
