"""The counters of the landing page: memory that its process writes, and that the metrics read.

They survive a process that dies. No message is needed to read them.
"""

import mmap
import os
from collections.abc import Iterator

# The kinds of responses, with the class of the status.
REQUESTS = (
    ("order_block", "4xx"),  # a name that an order blocks
    ("list_block", "4xx"),
    ("order", "2xx"),  # the page of an order
    ("order", "3xx"),  # unchanged (RFC 9110 section 15.4.5)
    ("order", "4xx"),  # there is no such order, or it was never in force
    ("site", "2xx"),  # the landing site itself
    ("site", "3xx"),
    ("site", "4xx"),
    ("other_name", "4xx"),  # a name that is neither blocked nor ours
    ("malformed", "4xx"),  # no valid request, or not GET or HEAD
    ("busy", "5xx"),  # the daemon did not answer in time
    ("fault", "5xx"),  # a defect of dnsblock
)
CLOSED = ("idle", "head", "write", "full", "pipelined")  # why a connection was closed early
ANSWERED, REFUSED, OPEN = ("questions", "answered"), ("questions", "refused"), ("connections", "open")
_ALL = (*REQUESTS, *(("closed", reason) for reason in CLOSED), ANSWERED, REFUSED, OPEN)
_PLACES = {key: place for place, key in enumerate(_ALL)}
_BYTES = 8 * len(_ALL)


class Counts:
    """One counter for each key. There is one writer, so that nothing has to be locked."""

    def __init__(self, descriptor: int) -> None:
        """Maps the memory of `create`; the descriptor stays open."""
        self._memory = mmap.mmap(descriptor, _BYTES)
        self._values = memoryview(self._memory).cast("Q")

    def add(self, key: tuple[str, str], number: int = 1) -> None:
        """Adds to a counter."""
        self._values[_PLACES[key]] += number

    def set(self, key: tuple[str, str], number: int) -> None:
        """Sets a gauge."""
        self._values[_PLACES[key]] = number

    def __getitem__(self, key: tuple[str, str]) -> int:
        return self._values[_PLACES[key]]

    def requests(self) -> Iterator[tuple[str, str, int]]:
        """Kind, class of the status and number of responses."""
        return ((*key, self[key]) for key in REQUESTS)

    def closed(self) -> Iterator[tuple[str, int]]:
        """Reason and number of connections that were closed early."""
        return ((reason, self["closed", reason]) for reason in CLOSED)


def create() -> int:
    """Memory for the counters, which start at 0. Returns its descriptor."""
    descriptor = os.memfd_create("landing", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _BYTES)
    return descriptor
