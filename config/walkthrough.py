"""Starts dnsblock for the README's walk-through; `make run` calls it.

The folder `.run` is emptied only after it is certain that no other instance uses it. Ports that are taken are
replaced by the next free ones, and the command says so.
"""

import fcntl
import os
import re
import shutil
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".run"
LOCK = ROOT / ".run.lock"
ORDER = ROOT / "blocklists" / "orders" / "2017-07-14-telegram-block.yaml"
DNS_PORT, METRICS_PORT = 5300, 9353
PORTS_TRIED = 100


def main() -> None:
    """Prepares `.run` and becomes the daemon."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(
            "dnsblock already runs from this folder, with its state in .run: stop it first "
            "(Ctrl-C in its terminal).\n"
            "Its address and state: .venv/bin/dnsblock status -c .run/dnsblock.yaml"
        )
    os.set_inheritable(lock, True)  # the daemon holds the lock as long as it runs
    hosts = [host for host in ("127.0.0.1", "::1") if _is_here(host)]
    port = _free_port(DNS_PORT, hosts, (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    metrics_port = _free_port(METRICS_PORT, ["127.0.0.1"], (socket.SOCK_STREAM,))
    listen = ", ".join(f'"[{host}]:{port}"' if ":" in host else f'"{host}:{port}"' for host in hosts)
    config = (ROOT / "config" / "walkthrough.yaml").read_text()
    config = re.sub(r"^listen: .*$", f"listen: [{listen}]", config, flags=re.MULTILINE)
    config = re.sub(r"^metrics: .*$", f"metrics: 127.0.0.1:{metrics_port}", config, flags=re.MULTILINE)
    if port != DNS_PORT:
        sys.stdout.write(f"Port {DNS_PORT} is taken. In the README's commands write {port} instead.\n")
        sys.stdout.flush()
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "orders").mkdir(parents=True)
    (FOLDER / "dnsblock.yaml").write_text(config)
    shutil.copy(ORDER, FOLDER / "orders")
    program = Path(sys.executable).parent / "dnsblock"
    # In the README's words, not as an absolute path: the daemon prints it in the commands to try.
    os.chdir(ROOT)
    shown = str(program.relative_to(ROOT)) if program.is_relative_to(ROOT) else str(program)
    os.execv(program, [shown, "serve", "-c", ".run/dnsblock.yaml"])  # noqa: S606  # no shell is wanted


def _free_port(first: int, hosts: list[str], kinds: tuple[socket.SocketKind, ...]) -> int:
    """The first port from `first` on that is free on all addresses, for all kinds of socket."""
    for port in range(first, first + PORTS_TRIED):
        if all(_is_free(host, port, kind) for host in hosts for kind in kinds):
            return port
    sys.exit(f"no port from {first} to {first + PORTS_TRIED - 1} is free on {' and '.join(hosts)}")


def _is_free(host: str, port: int, kind: socket.SocketKind) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as sock:
        if kind == socket.SOCK_STREAM:
            # Connections of an instance that was just stopped do not make the port a taken one.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
        except OSError:
            return False
    return True


def _is_here(host: str) -> bool:
    """Whether this machine has the address; some have no IPv6."""
    return host == "127.0.0.1" or _is_free(host, 0, socket.SOCK_DGRAM)


if __name__ == "__main__":
    main()
