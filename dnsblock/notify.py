"""Notifies systemd of the service state (sd_notify(3)). Does nothing without `NOTIFY_SOCKET`."""

import array
import os
import socket
import time
from collections.abc import Sequence


def notify(descriptors: Sequence[int] = (), **state: object) -> None:
    """Sends a state such as `READY=1`, with descriptors. Errors are ignored."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    message = "\n".join(f"{key}={value}" for key, value in state.items()).encode()
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            sock.sendmsg([message], passed)
    except OSError:  # for example, no free descriptor
        return


def reloading() -> None:
    """Notifies that a reload has begun; `READY=1` ends it. systemd requires the time (Type=notify-reload)."""
    notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
