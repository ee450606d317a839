"""Passes the client sockets to the next process, including the queries in their queues.

There are two ways with one protocol (sd_listen_fds(3)). systemd stores the descriptors (FDSTORE in
sd_notify(3)), or the process replaces itself (execve(2)). In both cases the sockets stay open, and the kernel
queues queries.
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
MOST = 4096  # inherited descriptors
PER_MESSAGE = 200  # descriptors in one message; the kernel allows 253 (SCM_MAX_FD)
PREFIX = "dns-"

Sockets = Iterable[tuple[tuple[str, int], Sequence[int]]]  # the descriptors of each address


class Inherited:
    """The sockets that the previous process left open."""

    def __init__(self) -> None:
        """Takes them over, and removes their variables from the environment."""
        pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
        names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
        is_ours = pid == str(os.getpid()) and re.fullmatch(r"[0-9]{1,4}", count) is not None
        claimed = range(FIRST, FIRST + min(int(count), MOST)) if is_ours else ()
        # If the count is wrong, some of these are other files of this process.
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
    """The file descriptor store of systemd: the sockets of each listen address, for the next process."""

    def __init__(self, inherited: Inherited) -> None:
        self._names = inherited.names

    def keep(self, sockets: Sockets) -> None:
        """Stores these sockets, and removes all others. systemd ignores duplicates.

        A closed listener that stayed in the store would receive queries that nobody reads.
        """
        sockets_of = {_name(address): descriptors for address, descriptors in sockets}
        for name, descriptors in sockets_of.items():
            for start in range(0, len(descriptors), PER_MESSAGE):
                # Without FDPOLL: systemd would remove a socket with an error.
                some = descriptors[start : start + PER_MESSAGE]
                notify(some, FDSTORE=1, FDNAME=name, FDPOLL=0)
        for name in self._names - sockets_of.keys():
            notify(FDSTOREREMOVE=1, FDNAME=name)
        self._names = set(sockets_of)


def _name(address: tuple[str, int]) -> str:
    """The name of descriptors, which must not contain a colon."""
    return PREFIX + str(Endpoint.of(address)).replace(":", "_")


class Successor:
    """A thread that executes the program again in this process.

    A program inherits priority and blocked signals from the thread that executes it. So this thread starts
    before the daemon lowers its priority and unblocks signals. Signals stay pending until the next process is
    ready.
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
        """Executes the next process, which replaces this one. Raises `OSError` if that fails."""
        self._is_asked.set()
        self._thread.join()
        raise self._error or OSError("the thread that executes the next process has ended")

    def _run(self) -> None:
        self._is_asked.wait()
        try:
            self._begin()
        except OSError as err:
            self._error = err

    def _begin(self) -> None:
        end = FIRST + len(self._left)
        # Move all of them away first: one may have a number that another one needs.
        moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, end) for _, descriptor in self._left]
        for number, descriptor in enumerate(moved, start=FIRST):
            os.dup2(descriptor, number, inheritable=True)
        names = ":".join(name for name, _ in self._left)
        os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(moved)), "LISTEN_FDNAMES": names}
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # ourselves
