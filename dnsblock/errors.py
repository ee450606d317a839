"""Exceptions, problems and exit codes. Any module may import this one."""

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal


class Exit(IntEnum):
    """The exit codes of every command, as documented in its help."""

    DONE = 0
    NO = 1  # a negative result: `check` found problems, a name is not blocked, `status` shows a failure
    USAGE = 2  # click's own code for a wrong command line
    UNREACHABLE = 3  # no daemon responds on the control socket
    REFUSED = 4  # the daemon refused to start, or to publish


_CODE = re.compile(r"([A-Z][A-Z_]+): ")
INVALID = "INVALID"  # of a problem without a code of its own: the input does not have the documented form


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of an input from a person or a feed, and its place."""

    file: str
    line: int | None  # from 1; None: the problem is not in one line
    value: str  # the invalid value; empty: nothing to show
    reason: str  # why it is refused, and what to do if that is not obvious

    def __str__(self) -> str:
        file = printable(self.file)  # a file name in the orders folder is hostile input, too
        where = file if self.line is None else f"{file}:{self.line}"
        reason = printable(self.reason)
        return f"{where}: '{shown(self.value)}': {reason}" if self.value else f"{where}: {reason}"

    @property
    def code(self) -> str:
        """For programs: the code at the beginning of the reason."""
        found = _CODE.match(self.reason)
        return INVALID if found is None else found[1]

    def as_json(self) -> dict[str, str | int | None]:
        """The same as one JSON object, as safe to print as the text."""
        return {
            "file": printable(self.file),
            "line": self.line,
            "value": shown(self.value),
            "code": self.code,
            "reason": printable(self.reason),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Problem":
        """The problem of `as_json`. The code is part of the reason."""
        return cls(value["file"], value["line"], value["value"], value["reason"])


class Refused(Exception):  # noqa: N818  # house style: named for what happened
    """Refused input, of which nothing is used. Contains all problems, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def first(self, limit: int, command: str) -> str:
        """The most important problems, one per line, and the command that shows all of them.

        Problems of whole files come first: they explain those of single lines, and say what to do.
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
    """Some input is refused, and everything else is published (`served`).

    `of_configuration`: options keep their previous values. Otherwise order documents or lists are refused.
    """

    def __init__(
        self, problems: Iterable[Problem], served: dict[str, Any], *, of_configuration: bool = False
    ) -> None:
        super().__init__(problems)
        self.served = served
        self.of_configuration = of_configuration


def as_refused(err: Exception) -> Refused:
    """Converts any exception, for callers, log and status."""
    if isinstance(err, Refused):
        return err
    if isinstance(err, OSError):
        return Refused([Problem(str(err.filename or "dnsblock"), None, "", err.strerror or str(err))])
    return Refused([Problem("dnsblock", None, "", str(err) or type(err).__name__)])


def binding_advice(err: OSError, option: str) -> str:
    """Advice for an address that cannot be bound; `option` configures it."""
    match err.errno:
        case errno.EADDRINUSE:
            return f"in use: stop the process that listens there (see `ss -lnptu`), or change `{option}`"
        case errno.EADDRNOTAVAIL:
            return f"this machine does not have this address: add it, or change `{option}`"
        case errno.EACCES | errno.EPERM:
            return "not allowed: ports below 1024 need CAP_NET_BIND_SERVICE, as the systemd unit gives it"
        case _:
            return f"{err.strerror or err}: change `{option}`"


class DaemonUnreachable(Exception):  # noqa: N818
    """No daemon responds on the control socket; the message names the socket and what to do."""


class OrderNotFound(Exception):  # noqa: N818
    """No order has a number, or the orders of several issuers have it (`issuers`)."""

    def __init__(self, number: str, issuers: Iterable[str] = (), *, issuer: str | None = None) -> None:
        """`issuer`: that was asked for, if one was."""
        self.issuers = tuple(issuers)
        shown_number = printable(number)
        if self.issuers:
            names = ", ".join(self.issuers)
            reason = f"several issuers have an order {shown_number}: add --issuer, one of {names}"
        else:
            whose = "" if issuer is None else f" of {printable(issuer)}"
            reason = f"there is no order {shown_number}{whose}: see `dnsblock order list`"
        super().__init__(reason)

    @property
    def code(self) -> Exit:
        """The exit code of a command."""
        return Exit.USAGE if self.issuers else Exit.NO

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        error = "ambiguous" if self.issuers else "unknown"
        return {"error": error, "reason": str(self), "issuers": list(self.issuers)}


def only_issuer(found: Sequence[str], number: str, issuer: str | None) -> str:
    """The issuer of a number among those `found`; `issuer`: the wanted one. Raises `OrderNotFound`."""
    if issuer is not None and issuer in found:
        return issuer
    if issuer is not None or not found:
        raise OrderNotFound(number, issuer=issuer)
    if len(found) > 1:
        raise OrderNotFound(number, found)
    return found[0]


class LedgerUnwritable(Exception):  # noqa: N818
    """The ledger could not be written: no order of the batch is accepted, and enforcement is unchanged."""


class HistoryUnwritable(Exception):  # noqa: N818
    """The history of lists could not be written: history and enforcement are unchanged."""


# Why a download of a feed, or a zone transfer, failed. docs/lists.md and docs/policy-zones.md say what to do.
FetchCode = Literal[
    "UNREACHABLE",  # no connection: name resolution, network or proxy
    "TLS",  # the certificate is invalid, or the handshake failed
    "PROTOCOL",  # the response is not valid HTTP, or no valid zone transfer
    "REDIRECT",  # too many redirects, or to a place that is not allowed
    "STATUS",  # a status other than 200 and 304
    "HTML",  # a web page instead of the list
    "EMPTY",  # no content, or only white space
    "NO_LENGTH",  # a truncated download could not be detected
    "TRUNCATED",  # the download was interrupted
    "TOO_LARGE",
    "TOO_SLOW",
    "ENCODING",  # an encoding that was not requested, or corrupt content
    "RCODE",  # of zone transfer: the primary answers with an error
    "TSIG",  # of zone transfer: a signature is missing or wrong
    "OUT_OF_ZONE",  # of zone transfer: records of another zone
    "SERIAL",  # of zone transfer: the primary's serial is older than that of the copy
    "UNREADABLE",  # a local file that the feed needs
    "UNWRITABLE",  # the state folder
    "INTERNAL",  # a defect of dnsblock
]


class FetchFailed(Exception):  # noqa: N818
    """A feed could not be downloaded: the previous list stays in force."""

    def __init__(self, place: str, code: FetchCode, reason: str, retry_after: float | None = None) -> None:
        self.place, self.code, self.reason = place, code, reason
        self.retry_after = retry_after  # seconds that the server asks us to wait
        super().__init__(f"{printable(place)}: {code}: {printable(reason)}")


SHOWN_CHARACTERS = 80


def shown(value: str) -> str:
    """A hostile value, safe to print: at most 80 characters, without terminal control sequences."""
    escaped = printable(value[: SHOWN_CHARACTERS + 1])
    return escaped if len(escaped) <= SHOWN_CHARACTERS else escaped[: SHOWN_CHARACTERS - 1] + "…"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, for people: "1 entry", "2 entries"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def printable(text: str) -> str:
    """The text with control characters and control sequences escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


_FOLDERS = re.compile(r"(?<![^\s'\"(=])/(?:[^/\s'\":;,]+/)*(?=[^/\s])")


def without_folders(text: str) -> str:
    """The text with only the names of files, for people who must not learn the folders of this server."""
    return _FOLDERS.sub("", text)


def capped(problems: list[Problem], limit: int) -> list[Problem]:
    """At most `limit` problems and a count of the rest, for garbage files of a million lines."""
    if len(problems) <= limit:
        return problems
    rest = Problem(problems[limit].file, None, "", f"and {len(problems) - limit:,} more problems")
    return [*problems[:limit], rest]
