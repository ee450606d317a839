"""Where the program `dnsblock` begins: before anything else is imported, a daemon blocks SIGHUP and SIGUSR2.

Their default action ends a process, and a daemon takes half a second until it can reload or restart. A signal
that comes earlier waits, and is honoured when the daemon is ready.
"""

import signal
import sys

if sys.argv[1:2] == ["serve"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGUSR2])


def main() -> None:
    """Runs the command of the command line."""
    from dnsblock.cli import main as command

    command()
