"""What the daemon asks of the kernel for its own process: signals, descriptors, its place in the line."""

import asyncio
import contextlib
import os
import resource
import signal
import threading
from collections.abc import Iterator

RESTART_SIGNAL = signal.SIGUSR2  # another process takes the place of this one, with its sockets
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, RESTART_SIGNAL)
CONTROL_NICENESS = 10  # a tenth of a processor that worker threads would use up


@contextlib.contextmanager
def signals_into(
    hangups: asyncio.Queue[signal.Signals], stops: asyncio.Queue[signal.Signals]
) -> Iterator[None]:
    """Puts signals into queues from the end of this block on; inside it they are blocked.

    A handler only puts a word into the queue, so that two SIGHUPs are two publishes in a row, not a race.
    """
    queues = {signal.SIGHUP: hangups, **dict.fromkeys(STOP_SIGNALS, stops)}
    signal.pthread_sigmask(signal.SIG_BLOCK, queues)
    loop = asyncio.get_running_loop()
    for number, queue in queues.items():
        loop.add_signal_handler(number, queue.put_nowait, number)
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, queues)


def give_way() -> None:
    """Lets worker threads go first where processors are few: compiling ten million names is no hurry.

    Of this thread, and of those that it starts from now on; the worker threads run already.
    """
    this = threading.get_native_id()
    niceness = os.getpriority(os.PRIO_PROCESS, this)
    os.setpriority(os.PRIO_PROCESS, this, niceness + CONTROL_NICENESS)


def raise_descriptor_limit() -> None:
    """Takes as many descriptors as this process may have: sockets towards upstreams, and TCP clients.

    A shell's usual 1,024 are few for that, and the kernel lets every process raise them to its hard limit.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
