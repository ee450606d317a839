"""Ports for servers that a test starts."""

import itertools
import os
import random
import socket
from collections.abc import Iterator

# These are below the kernel's ephemeral ports (net.ipv4.ip_local_port_range: 32768 to 60999). So no client
# socket on this machine takes a port between the check that it is free and its use.
_FIRST, _LAST = 10_000, 32_000
_PLACES = [
    (family, kind, address)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
]


def _candidates() -> Iterator[int]:
    """Ports that no other pytest worker tries: each worker has a sixteenth of them."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
    ports = range(_FIRST + worker, _LAST, 16)
    start = random.SystemRandom().randrange(len(ports))
    return itertools.cycle([*ports[start:], *ports[:start]])


_candidate = _candidates()


def free_port() -> int:
    """A port that is free for UDP and TCP on both loopback addresses, and that this process gives once.

    Raises `RuntimeError` if a thousand ports in a row are taken.
    """
    for port in itertools.islice(_candidate, 1000):
        if all(_can_bind(*place, port) for place in _PLACES):
            return port
    raise RuntimeError(f"no free port from {_FIRST} to {_LAST} on the loopback addresses")


def _can_bind(family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int) -> bool:
    with socket.socket(family, kind) as sock:
        if kind == socket.SOCK_STREAM:
            # As servers do: a port is free although closed connections of it are remembered for a while.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError:
            return False
        return True
