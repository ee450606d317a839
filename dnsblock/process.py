"""Signals, priority and descriptor limit of the daemon's process."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator

from dnsblock.log import event

RESTART_SIGNAL = signal.SIGUSR2  # another process replaces this one and gets its sockets
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, RESTART_SIGNAL)
CONTROL_NICENESS = 10  # worker threads then get about ten times as much of a busy CPU


@contextlib.contextmanager
def signals_into(
    hangups: asyncio.Queue[signal.Signals], stops: asyncio.Queue[signal.Signals]
) -> Iterator[None]:
    """Puts signals into queues, starting at the end of this block; inside it they are blocked.

    With a queue, two SIGHUPs cause two publishes one after the other.
    """
    queues = {signal.SIGHUP: hangups, **dict.fromkeys(STOP_SIGNALS, stops)}
    signal.pthread_sigmask(signal.SIG_BLOCK, queues)
    loop = asyncio.get_running_loop()
    for number, queue in queues.items():
        loop.add_signal_handler(number, queue.put_nowait, number)
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, queues)


def give_way() -> None:
    """Lowers the priority of this thread and of threads that it starts later, below that of worker threads.

    Compiling ten million names is less urgent than answering queries. The worker threads are running already.
    """
    this = threading.get_native_id()
    niceness = os.getpriority(os.PRIO_PROCESS, this)
    try:
        os.setpriority(os.PRIO_PROCESS, this, niceness + CONTROL_NICENESS)
    except OSError as err:  # a filter of system calls; answers are only slower during a publish
        event(logging.WARNING, f"the priority of the control plane could not be lowered: {err.strerror}")


@contextlib.contextmanager
def many_objects() -> Iterator[None]:
    """For a block that makes many objects that stay, such as modules and the orders in the ledger.

    The garbage collector would look at all of them again and again: a quarter of the time of a startup with a
    million entries. Afterwards it leaves them alone.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def raise_descriptor_limit() -> None:
    """Raises the limit of open files to the hard limit.

    Upstream sockets and TCP clients need more than the usual 1,024.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
