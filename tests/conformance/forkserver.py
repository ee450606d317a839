"""Starts `dnsblock` by forking a process that has imported it already.

Importing takes most of the processor time of a start, and the tests start thousands of programs. After
the fork, the same program runs, from `dnsblock.start` on. Tests of the start itself execute the script.
"""

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
from functools import cache

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
LARGEST = 1 << 17  # bytes of a request: arguments and environment


# ------- In the tests ---------------------------------------------------------------


PRELOAD = "FORK_SERVER_PRELOAD"  # in the environment of a program: a library for its fork server


@cache
def _start(library: str | None) -> tuple[socket.socket, subprocess.Popen]:
    """Starts a fork server of this process, whose programs become children of this process.

    The cache keeps the process, too: one that runs and that nobody refers to is a ResourceWarning.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", __file__, str(theirs.fileno())]
    environment = os.environ if library is None else os.environ | {"LD_PRELOAD": library}
    given = {"stdin": subprocess.DEVNULL, "pass_fds": [theirs.fileno()], "env": environment}
    process = subprocess.Popen(command, **given)
    theirs.close()
    return ours, process


class ForkedProgram(subprocess.Popen):
    """`dnsblock` with these arguments, used as any other program."""

    def _execute_child(self, arguments: list[str], *rest: object) -> None:
        """Asks the fork server, instead of fork(2) and execve(2) in this process."""
        (_executable, _preexec, _close, _pass, _cwd, environment, _startup, _flags, _shell, *pipes) = rest
        stdin, _, _, stdout, _, stderr = pipes[:6]
        descriptors = [given if given != -1 else own for own, given in enumerate((stdin, stdout, stderr))]
        environment = dict(os.environ if environment is None else environment)
        request = {
            "arguments": [str(argument) for argument in arguments],
            "environment": environment,
            "folder": os.getcwd(),
        }
        server, _ = _start(environment.get(PRELOAD))
        try:
            socket.send_fds(server, [json.dumps(request).encode()], descriptors)
            self.pid = int(server.recv(64))
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes[:6])


# ------- In the fork server ---------------------------------------------------------


def import_all() -> None:
    """All that the daemon and the commands import, except `dnsblock.start`, which is the start itself."""
    package = importlib.import_module("dnsblock")
    for module in pkgutil.walk_packages(package.__path__, "dnsblock."):
        if module.name != "dnsblock.start":
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def next_program(requests: socket.socket) -> None:
    """Returns in a new process for each request, which then is what was requested."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 3)
        if not data:
            os._exit(0)
        reading, writing = os.pipe()
        if between := os.fork():
            os.close(writing)
            for descriptor in descriptors:
                os.close(descriptor)
            os.waitpid(between, 0)  # now the program is a child of the tests
            requests.send(os.read(reading, 64))
            os.close(reading)
        elif program := os.fork():
            os.write(writing, str(program).encode())
            os._exit(0)
        else:
            become(json.loads(data), descriptors)
            return


def become(request: dict, descriptors: list[int]) -> None:
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
    os.closerange(3, 4096)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.orig_argv = [sys.executable, *sys.argv]


if __name__ == "__main__":
    import_all()
    control = socket.socket(fileno=int(sys.argv[1]))
    next_program(control)
    control.detach()
    importlib.import_module("dnsblock.start").main()
