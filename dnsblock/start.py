"""Where the program `dnsblock` begins: before anything else is imported, a daemon blocks SIGHUP.

The default action of SIGHUP ends a process, and a daemon takes half a second until it can reload. A SIGHUP
that comes earlier waits, and is honoured when the daemon is ready.
"""

import signal
import sys

if sys.argv[1:2] == ["serve"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])


def main() -> None:
    """Runs the command of the command line."""
    from dnsblock.cli import main as command

    command()
