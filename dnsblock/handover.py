"""Hands the sockets of clients from one process to the next, with the queries that queue up in them.

Two ways, one protocol (sd_listen_fds(3)): systemd keeps descriptors for a service (FDSTORE in sd_notify(3)),
or the process replaces itself (execve(2)). Either way the sockets are never closed, and the kernel queues.
"""

import fcntl
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import NoReturn

from dnsblock.notify import notify
from dnsblock.values import Endpoint

FIRST = 3  # SD_LISTEN_FDS_START
MOST = 4096  # descriptors that are taken over
A_MESSAGE = 200  # descriptors in one message; the kernel takes 253 (SCM_MAX_FD)
PREFIX = "dns-"

Sockets = Iterable[tuple[tuple[str, int], Sequence[int]]]  # the descriptors of each address


class Inherited:
    """What the previous process has left open for this one."""

    def __init__(self) -> None:
        """Takes it, once: nothing about it stays in the environment."""
        pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
        names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
        is_ours = pid == str(os.getpid()) and re.fullmatch(r"[0-9]{1,4}", count) is not None
        claimed = range(FIRST, FIRST + min(int(count), MOST)) if is_ours else ()
        # Whoever counted may have been wrong, and then these are files of our own.
        self.descriptors = [descriptor for descriptor in claimed if _is_socket(descriptor)]
        self.names = {name for name in names if name.startswith(PREFIX)} if is_ours else set()
        for descriptor in self.descriptors:
            os.set_inheritable(descriptor, False)

    def close(self) -> None:
        """Closes them; the engine has duplicated what it uses."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class Store:
    """What systemd keeps for the next process: the sockets of each listen address, under its name."""

    def __init__(self, inherited: Inherited) -> None:
        self._names = inherited.names

    def keep(self, sockets: Sockets) -> None:
        """Gives it these sockets, and takes away all others. It keeps no socket twice.

        One that stayed there would go on receiving queries that nobody reads.
        """
        kept = {_name(address): descriptors for address, descriptors in sockets}
        for name, descriptors in kept.items():
            for start in range(0, len(descriptors), A_MESSAGE):
                # Not FDPOLL: an error on a socket is no reason to forget it.
                some = descriptors[start : start + A_MESSAGE]
                notify(some, FDSTORE=1, FDNAME=name, FDPOLL=0)
        for name in self._names - kept.keys():
            notify(FDSTOREREMOVE=1, FDNAME=name)
        self._names = set(kept)


def _name(address: tuple[str, int]) -> str:
    """A name for descriptors, in which no colon may be."""
    return PREFIX + str(Endpoint.of(address)).replace(":", "_")


class Successor:
    """The thread that begins the program again in this process.

    It is started before this process gives way to worker threads and unblocks its signals, since a program
    inherits that from the thread that executes it: a signal waits until the next process is ready.
    """

    def __init__(self) -> None:
        self._is_asked = threading.Event()
        self._left: list[tuple[str, int]] = []
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="successor", daemon=True)
        self._thread.start()

    def leave(self, sockets: Sockets) -> None:
        """Keeps these sockets open for the next process, when the engine closes its own."""
        for address, descriptors in sockets:
            self._left += [(_name(address), os.dup(descriptor)) for descriptor in descriptors]

    def begin(self) -> NoReturn:
        """Begins the next process; nothing of this one is left. Raises `OSError` where it cannot."""
        self._is_asked.set()
        self._thread.join()
        raise self._error or OSError("the thread that begins the next process has ended")

    def _run(self) -> None:
        self._is_asked.wait()
        try:
            self._begin()
        except OSError as err:
            self._error = err

    def _begin(self) -> None:
        end = FIRST + len(self._left)
        # Out of the way first: one of them may have a number that another one is to get.
        moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, end) for _, descriptor in self._left]
        for number, descriptor in enumerate(moved, start=FIRST):
            os.dup2(descriptor, number, inheritable=True)
        names = ":".join(name for name, _ in self._left)
        os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(moved)), "LISTEN_FDNAMES": names}
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # ourselves
