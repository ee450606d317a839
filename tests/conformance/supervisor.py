"""A service manager as systemd is one: it keeps the descriptors of its service over restarts.

Its half of sd_notify(3) (READY, FDSTORE, FDSTOREREMOVE) and of sd_listen_fds(3).
"""

import array
import os
import select
import socket
import sys
import threading
import time

from .harness import Subject
from .tools import wait_for

# Puts descriptors where the service looks for them. Only the process itself knows its own number.
LAUNCH = """
import fcntl, os, sys
count = int(sys.argv[1])
kept = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 3 + count) for number in sys.argv[2 : 2 + count]]
for place, number in enumerate(kept, start=3):
    os.dup2(number, place)
    os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


class Supervisor:
    """Runs `subject` with a descriptor store."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.store: list[tuple[str, int]] = []
        self.is_ready = threading.Event()
        self._ended = threading.Event()
        path = subject.folder / "notify"
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(path))
        subject.environment["NOTIFY_SOCKET"] = str(path)
        self._thread = threading.Thread(target=self._listen, name="supervisor")
        self._thread.start()

    def start(self, within: float = 60) -> None:
        """Start the service with what is in the store."""
        self.is_ready.clear()
        names, descriptors = [name for name, _ in self.store], [number for _, number in self.store]
        if descriptors:
            self.subject.environment |= {"LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
        numbers = [str(number) for number in descriptors]
        self.subject.under = [sys.executable, "-I", "-S", "-c", LAUNCH, str(len(numbers)), *numbers]
        self.subject.pass_fds = descriptors
        self.subject.launch(within=within)
        self.subject.under = []
        # Descriptors come before READY, and this process may be slower than the service.
        assert self.is_ready.wait(within), "READY=1"

    def restart(self) -> float:
        """As `systemctl restart`; returns the longest time without a response."""
        begun = time.monotonic()
        assert self.subject.stop(within=60) == 0
        self.start()
        return time.monotonic() - begun

    def names(self) -> set[str]:
        return {name for name, _ in self.store}

    def wait_for_names(self, count: int) -> None:
        wait_for(lambda: len(self.names()) == count, f"sockets of {count} addresses are in the store")

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._notifications.close()
        for _, number in self.store:
            os.close(number)

    def _listen(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._notifications], [], [], 0.05)[0]:
                continue
            data, descriptors, _, _ = socket.recv_fds(self._notifications, 4096, 253)
            said = dict(line.split("=", 1) for line in data.decode().splitlines())
            if said.get("FDSTORE") == "1":
                self._keep(said["FDNAME"], descriptors)
            elif said.get("FDSTOREREMOVE") == "1":
                for name, number in self.store:
                    if name == said["FDNAME"]:
                        os.close(number)
                self.store = [(name, number) for name, number in self.store if name != said["FDNAME"]]
            if said.get("READY") == "1":
                self.is_ready.set()

    def _keep(self, name: str, descriptors: array.array) -> None:
        """systemd keeps no descriptor twice."""
        known = {os.fstat(number).st_ino for _, number in self.store}
        for number in descriptors:
            if os.fstat(number).st_ino in known:
                os.close(number)
            else:
                self.store = [*self.store, (name, number)]
