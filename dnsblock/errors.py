"""What can go wrong, in the operator's words, and the exit codes it ends in. Any file may import this one."""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal


class Exit(IntEnum):
    """The exit codes of every command, as documented in its help."""

    DONE = 0
    NO = 1  # the answer is no: `check` found problems, a name is not blocked, `status` shows a failure
    USAGE = 2  # click's own code for a wrong command line
    UNREACHABLE = 3  # no daemon answers on the control socket
    REFUSED = 4  # the daemon refused to start, or to publish


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with something a person or a feed has sent, and where it is."""

    file: str
    line: int | None  # from 1; None: the problem is not in one line
    value: str  # what was found there; empty: nothing to show
    reason: str  # why it is refused, and what to do about it where that is not obvious

    def __str__(self) -> str:
        file = printable(self.file)  # in the orders folder, a file's name is as hostile as its content
        where = file if self.line is None else f"{file}:{self.line}"
        reason = printable(self.reason)
        return f"{where}: '{shown(self.value)}': {reason}" if self.value else f"{where}: {reason}"

    def as_json(self) -> dict[str, str | int | None]:
        """The same as one JSON object, as safe to print as the text."""
        return {
            "file": printable(self.file),
            "line": self.line,
            "value": shown(self.value),
            "reason": printable(self.reason),
        }


class Refused(Exception):  # noqa: N818  # house style: named for what happened
    """Input that is not taken: nothing of it is used. Carries every problem found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def first(self, limit: int, command: str) -> str:
        """The most important problems, one a line, and by which command all are shown.

        What is wrong with a whole file comes first: it says more than its lines, and what to do about them.
        """
        ordered = sorted(self.problems, key=lambda problem: problem.line is not None)
        lines = [str(problem) for problem in ordered[:limit]]
        if len(ordered) > limit:
            lines.append(f"and {len(ordered) - limit:,} more: {command}")
        return "\n".join(lines)

    def as_json(self) -> list[dict[str, str | int | None]]:
        """The problems as a JSON array."""
        return [problem.as_json() for problem in self.problems]


class PartlyRefused(Refused):
    """Something is refused, and all else is published: `served` says what.

    `of_configuration`: options keep their former values; otherwise order documents or lists are refused.
    """

    def __init__(
        self, problems: Iterable[Problem], served: dict[str, Any], *, of_configuration: bool = False
    ) -> None:
        super().__init__(problems)
        self.served = served
        self.of_configuration = of_configuration


def as_refused(err: Exception) -> Refused:
    """What went wrong, in one form for callers, log and status."""
    if isinstance(err, Refused):
        return err
    if isinstance(err, OSError):
        return Refused([Problem(str(err.filename or "dnsblock"), None, "", err.strerror or str(err))])
    return Refused([Problem("dnsblock", None, "", str(err) or type(err).__name__)])


def binding_advice(err: OSError, option: str) -> str:
    """What to do about an address that cannot be listened on; `option` is where it was configured."""
    match err.errno:
        case errno.EADDRINUSE:
            return f"in use: stop what listens there (`ss -lnptu` shows it), or change `{option}`"
        case errno.EADDRNOTAVAIL:
            return f"this machine does not have this address: add it, or change `{option}`"
        case errno.EACCES | errno.EPERM:
            return "not allowed: ports below 1024 need CAP_NET_BIND_SERVICE, as the systemd unit gives it"
        case _:
            return f"{err.strerror or err}: change `{option}`"


class DaemonUnreachable(Exception):  # noqa: N818
    """No daemon answers on the control socket; the message says which socket and what to do."""


class LedgerUnwritable(Exception):  # noqa: N818
    """The ledger could not be written: no order of the batch is acknowledged, what is enforced goes on."""


class HistoryUnwritable(Exception):  # noqa: N818
    """The history of lists could not be written: it is what it was, and so is what is enforced."""


# How a download of a feed can fail; docs say for each what to do.
FetchCode = Literal[
    "UNREACHABLE",  # no connection: the name, the network, a proxy
    "TLS",  # a connection, and not to whom it should be
    "PROTOCOL",  # what answers does not speak HTTP properly
    "REDIRECT",  # too far, or to where nobody should be sent
    "STATUS",  # neither the list nor "not modified"
    "HTML",  # a page for people in the place of the list
    "EMPTY",  # nothing, or nothing but blanks
    "NO_LENGTH",  # a cut could not be told from the end
    "TRUNCATED",  # it broke off
    "TOO_LARGE",
    "TOO_SLOW",
    "ENCODING",  # compressed in a way that was not asked for, or damaged
    "UNREADABLE",  # a file of ours that the feed needs
    "UNWRITABLE",  # the place where the list should go
    "INTERNAL",  # a fault of ours
]


class FetchFailed(Exception):  # noqa: N818
    """A feed could not be downloaded: nothing of it was kept, and the list of before is as it was."""

    def __init__(self, place: str, code: FetchCode, reason: str, retry_after: float | None = None) -> None:
        self.code = code
        self.retry_after = retry_after  # the seconds for which the server wants to be left alone
        super().__init__(f"{printable(place)}: {code}: {printable(reason)}")


SHOWN_CHARACTERS = 80


def shown(value: str) -> str:
    """A hostile value, safe to print: at most 80 characters, and nothing that a terminal would obey."""
    escaped = printable(value[: SHOWN_CHARACTERS + 1])
    return escaped if len(escaped) <= SHOWN_CHARACTERS else escaped[: SHOWN_CHARACTERS - 1] + "…"


def printable(text: str) -> str:
    """The text with everything escaped that a terminal or a log reader would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def capped(problems: list[Problem], limit: int) -> list[Problem]:
    """At most `limit` problems and a count of the rest: a rubbish file of a million lines stays readable."""
    if len(problems) <= limit:
        return problems
    rest = Problem(problems[limit].file, None, "", f"and {len(problems) - limit:,} more problems")
    return [*problems[:limit], rest]
