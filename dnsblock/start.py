"""The entry point of the program `dnsblock`. A daemon blocks SIGHUP and SIGUSR2 before any other import.

Their default action ends the process, and the daemon needs half a second until it can handle them. Earlier
signals stay pending until it is ready.
"""

import signal
import sys

if sys.argv[1:2] == ["serve"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGUSR2])


def main() -> None:
    """Runs the command in `sys.argv`."""
    from dnsblock.cli import main as command

    command()
