"""Hosts in network namespaces of their own, on one Ethernet segment. It takes root."""

import ctypes
import ipaddress
import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from .tools import run, tool

SEGMENT = ipaddress.ip_network("192.0.2.0/24")
CLONE_NEWNET = 0x40000000  # setns(2)


class Host:
    """A network namespace with the loopback addresses; it ends with the test process, whatever happens."""

    def __init__(self) -> None:
        # `cat` ends when its input does. The line says that the namespace exists.
        self._keeper = subprocess.Popen(
            [tool("unshare"), "--net", "sh", "-c", "echo ready && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout.readline() == b"ready\n"
        self.address = ""
        self.pid = self._keeper.pid
        self.under = [tool("nsenter"), f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *command: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """A command on this host."""
        return run([*self.under, *command], timeout=timeout)

    def ip(self, arguments: str) -> None:
        """ip(8), which must succeed."""
        done = self.run(tool("ip"), *arguments.split())
        assert done.returncode == 0, done

    def inside(self, work: Callable[[], None]) -> None:
        """Calls `work` in a thread on this host: its sockets and processes belong to this host, too."""
        failures: list[BaseException] = []

        def enter() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/proc/{self.pid}/ns/net") as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            work()

        def run() -> None:
            try:
                enter()
            except BaseException as err:
                failures.append(err)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    def close(self) -> None:
        self._keeper.communicate()


class Network:
    """A switch, and hosts with a cable to it. Their addresses are of `SEGMENT`, in sequence."""

    def __init__(self, *hosts: str) -> None:
        self._names = hosts
        self._running = ExitStack()
        self.hosts: dict[str, Host] = {}

    def __enter__(self) -> Self:
        with ExitStack() as begun:
            self._switch = self._host(begun)
            self._switch.ip("link add switch type bridge")
            self._switch.ip("link set switch up")
            for name, address in zip(self._names, SEGMENT.hosts(), strict=False):
                host = self._host(begun)
                self._switch.ip(f"link add {name} type veth peer name cable netns {host.pid}")
                self._switch.ip(f"link set {name} master switch up")
                host.ip(f"address add {address}/{SEGMENT.prefixlen} dev cable")
                host.ip("link set cable up")
                host.address = str(address)
                self.hosts[name] = host
            self._running = begun.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def unplug(self, name: str) -> None:
        """Pulls the cable of a host."""
        self._switch.ip(f"link set {name} down")

    def plug(self, name: str) -> None:
        """Puts it back."""
        self._switch.ip(f"link set {name} up")

    @staticmethod
    def _host(begun: ExitStack) -> Host:
        host = Host()
        begun.callback(host.close)
        host.ip("link set lo up")
        return host
