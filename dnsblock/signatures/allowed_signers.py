"""The file of an issuer's public keys: ALLOWED SIGNERS in ssh-keygen(1).

A line that ssh-keygen would skip counts for nothing here either, and is a problem with its line and advice.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dnsblock.document import read_bytes
from dnsblock.errors import Problem, Refused, capped
from dnsblock.signatures.patterns import is_match
from dnsblock.signatures.public_key import PublicKey
from dnsblock.signatures.wire import Malformed, Unsupported

MAX_FILE_BYTES = 1024 * 1024
MAX_PROBLEMS = 100

Obstacle = Literal["UNKNOWN_KEY", "WRONG_NAMESPACE", "NOT_YET_VALID_KEY", "EXPIRED_KEY"]


@dataclass(frozen=True, slots=True)
class SignerLine:
    """One key of the file: whose it is, for what, and when."""

    text: str  # as written
    principals: str  # a pattern list
    key: PublicKey
    namespaces: str | None = None  # a pattern list; None: all
    valid_after: datetime | None = None
    valid_before: datetime | None = None  # inclusive

    @property
    def names(self) -> tuple[str, ...]:
        """The principals one by one, without the negated ones and those that they exclude."""
        positive = [name for name in self.principals.split(",") if name and not name.startswith("!")]
        return tuple(name for name in positive if _is_pattern(name) or is_match(name, self.principals))

    def obstacle(self, namespace: str, at: datetime) -> Obstacle | None:
        """Why a signature with this key does not count; None if it does."""
        if self.namespaces is not None and not is_match(namespace, self.namespaces):
            return "WRONG_NAMESPACE"
        at = at.replace(microsecond=0)  # OpenSSH compares whole seconds
        if self.valid_after is not None and at < self.valid_after:
            return "NOT_YET_VALID_KEY"
        if self.valid_before is not None and at > self.valid_before:
            return "EXPIRED_KEY"
        return None


@dataclass(frozen=True, slots=True)
class AllowedSigners:
    """The keys whose signatures count for one issuer."""

    file: str
    lines: tuple[SignerLine, ...]
    problems: tuple[Problem, ...] = ()  # lines that count for nothing
    is_rotated: bool = False  # a rotate order has changed them, so the file alone is not what counts
    _by_key: Mapping[PublicKey, tuple[SignerLine, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_key: dict[PublicKey, tuple[SignerLine, ...]] = {}
        for line in self.lines:
            by_key[line.key] = (*by_key.get(line.key, ()), line)
        object.__setattr__(self, "_by_key", by_key)

    @classmethod
    def load(cls, path: Path) -> "AllowedSigners":
        """Reads a file. Raises `Refused` if it cannot be read; see `problems` for its lines."""
        return cls.parse(str(path), read_bytes(path, max_bytes=MAX_FILE_BYTES))

    @classmethod
    def parse(cls, file: str, data: bytes) -> "AllowedSigners":
        """Parses the content of a file. Lines that are invalid are in `problems`, the others count."""
        lines, problems = [], []
        for number, written in enumerate(data.split(b"\n"), start=1):
            # Comments may be in any encoding, so only the parts that are used must be UTF-8.
            text = written.decode("utf-8", "surrogateescape").strip(" \t\r\n")
            if not text or text.startswith("#"):
                continue
            try:
                lines.append(parse_line(text))
            except LineRefused as err:
                problems.append(Problem(file, number, err.value, str(err)))
        return cls(file, tuple(lines), tuple(capped(problems, MAX_PROBLEMS)))

    def find(
        self, key: PublicKey, namespace: str, at: datetime, *, principal: str | None = None
    ) -> SignerLine | Obstacle:
        """The first line by which a signature with this key counts at a time, or why none does.

        With a `principal`, only lines whose patterns match it, as `ssh-keygen -Y verify -I PRINCIPAL`.
        """
        obstacles: list[Obstacle] = []
        for line in self._by_key.get(key, ()):
            if principal is not None and not is_match(principal, line.principals):
                continue
            if (obstacle := line.obstacle(namespace, at)) is None:
                return line
            obstacles.append(obstacle)
        # A line for another namespace is the least helpful reason.
        return min(obstacles, key=lambda one: one == "WRONG_NAMESPACE", default="UNKNOWN_KEY")

    def with_changes(
        self, add_lines: Sequence[str], remove_fingerprints: Sequence[str], *, file: str = "keys"
    ) -> "AllowedSigners":
        """The signers after a rotation of keys. Raises `Refused`, about `file`, if any part is invalid."""
        problems: list[Problem] = []
        known = {key.fingerprint: key for key in self._by_key}
        for fingerprint in remove_fingerprints:
            if fingerprint not in known:
                reason = f"the issuer has no such key; it has {_listed(known)}"
                problems.append(Problem(file, None, fingerprint, reason))
        removed = {known[one] for one in remove_fingerprints if one in known}
        kept = [line for line in self.lines if line.key not in removed]
        for text in add_lines:
            try:
                line = parse_line(text)
            except LineRefused as err:
                problems.append(Problem(file, None, err.value or text, str(err)))
                continue
            if any(other.key == line.key for other in kept):
                reason = (
                    "the issuer has this key already: to change its line, remove the key in the same order"
                )
                problems.append(Problem(file, None, line.key.fingerprint, reason))
            kept.append(line)
        if not kept:
            problems.append(Problem(file, None, "", "no key would remain: add the new key in the same order"))
        if problems:
            raise Refused(problems)
        return replace(self, lines=tuple(kept))

    def rotated(self, add_lines: Sequence[str], remove_fingerprints: Sequence[str]) -> "AllowedSigners":
        """The signers after a rotation that was accepted, even if the file was changed since.

        A removed key counts no more, whatever the file says. Nobody may be left. A line of a key that the
        file has, too, is not added.
        """
        kept = [line for line in self.lines if line.key.fingerprint not in remove_fingerprints]
        for text in add_lines:
            with contextlib.suppress(LineRefused):
                line = parse_line(text)
                kept += [] if any(other.key == line.key for other in kept) else [line]
        return replace(self, lines=tuple(kept), is_rotated=True)

    def as_bytes(self) -> bytes:
        """The lines that count, as a file for `ssh-keygen -Y verify -f`."""
        return "".join(f"{line.text}\n" for line in self.lines).encode("utf-8", "surrogateescape")


def _listed(fingerprints: Iterable[str]) -> str:
    return ", ".join(fingerprints) or "none"


# ------- One line -------

FORM = "write PRINCIPAL [OPTIONS] ssh-ed25519 AAAA…, as in ssh-keygen(1), ALLOWED SIGNERS"
OPTIONS = "namespaces, valid-after and valid-before are accepted"
BLANK = " \t\r\n"
KEY_TYPE = re.compile("(ssh|ecdsa|sk|webauthn)-")  # no option begins like this


class LineRefused(ValueError):  # noqa: N818  # house style: named for what happened
    """A line that names no key. The message says why and what to do, `value` is the invalid part."""

    def __init__(self, value: str, reason: str) -> None:
        self.value = value
        super().__init__(reason)


def parse_line(text: str) -> SignerLine:
    """Parses one line as OpenSSH does. Raises `LineRefused`."""
    if any(ord(character) < 0x20 and character != "\t" for character in text):
        raise LineRefused(text, "control characters are not allowed in a line")
    principals, rest = _principals(text)
    written = ""
    if not KEY_TYPE.match(rest):
        written, rest = _options_word(rest)
    algorithm, _, blob = rest.replace("\t", " ").partition(" ")
    if not blob:
        raise LineRefused(rest or written or principals, f"the key is missing: {FORM}")
    try:
        key = PublicKey.from_words(algorithm, blob.lstrip(" ").split(" ")[0])
    except Malformed as err:
        raise LineRefused(blob, f"invalid key: {err}: copy it again from the .pub file") from err
    except Unsupported as err:
        raise LineRefused(algorithm, str(err)) from err
    line = SignerLine(text, principals, key, **_options(written))
    if not line.names:
        raise LineRefused(principals, "nobody can be this principal: add one without `!`")
    return line


def _principals(text: str) -> tuple[str, str]:
    """The first word, which may be quoted in whole or in part, and the rest of the line."""
    end = next((at for at, character in enumerate(text) if character in BLANK + '"'), len(text))
    if text[end : end + 1] == '"':
        close = text.find('"', end + 1)
        if close < 0:
            raise LineRefused(text, 'a quotation mark is not closed: add the second "')
        principals, rest = text[:end] + text[end + 1 : close], text[close + 1 :]
    else:
        principals, rest = text[:end], text[end:]
    if not principals.isprintable():
        reason = (
            "the principal has invisible characters: type it again, and save the file as UTF-8 without BOM"
        )
        raise LineRefused(principals, reason)
    return principals, rest.lstrip(BLANK)


def _options_word(rest: str) -> tuple[str, str]:
    """The options, which end at a space outside quotation marks, and the rest of the line."""
    is_quoted, at = False, 0
    while at < len(rest) and (is_quoted or rest[at] not in " \t"):
        if rest.startswith('\\"', at):
            at += 1
        elif rest[at] == '"':
            is_quoted = not is_quoted
        at += 1
    if is_quoted:
        raise LineRefused(rest, 'a quotation mark is not closed: add the second "')
    return rest[:at], rest[at:].lstrip(" \t")


OPTION = re.compile(r'(?P<name>[A-Za-z-]*)(?:=(?P<value>"(?:\\"|\\(?!")|[^"\\])*"))?')


def _options(written: str) -> dict[str, Any]:
    """The fields of a line that its options set."""
    found: dict[str, Any] = {}
    rest = written
    while rest:
        option = OPTION.match(rest)
        name, value = (option["name"].lower(), option["value"]) if option else ("", None)
        rest = rest[option.end() :] if option else rest
        if rest and not rest.startswith(","):
            raise LineRefused(rest, f"not an option: {OPTIONS}, with their value in quotation marks")
        if name == "cert-authority" and value is None:
            raise LineRefused(name, "certificates are not supported: write a line for each person's own key")
        if (name, value) != ("", None):
            _add_option(found, name, value)
        if rest == ",":
            raise LineRefused(written, "the options end with a comma: remove it")
        rest = rest[1:]
    after, before = found.get("valid_after"), found.get("valid_before")
    if after is not None and before is not None and before <= after:
        raise LineRefused(written, "valid-before is not later than valid-after: the key would never count")
    return found


def _add_option(found: dict[str, Any], name: str, value: str | None) -> None:
    field_name = name.replace("-", "_")
    if field_name not in ("namespaces", "valid_after", "valid_before"):
        raise LineRefused(name, f"unknown option: {OPTIONS}")
    if value is None:
        raise LineRefused(name, f'{name} needs a value in quotation marks: {name}="…"')
    if field_name in found:
        raise LineRefused(name, f"{name} is given twice: remove one")
    text = value[1:-1].replace('\\"', '"')
    found[field_name] = text if name == "namespaces" else _time(name, text)


TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z|UTC)?", re.ASCII | re.IGNORECASE)


def _time(name: str, text: str) -> datetime:
    """A time of an option. Without `Z` it is in the time zone of this machine, as in ssh-keygen."""
    reason = f"{name}: not a time after 1970: write YYYYMMDDZ or YYYYMMDDHHMMSSZ, where Z means UTC"
    if (parts := TIME.fullmatch(text)) is None:
        raise LineRefused(text, reason)
    try:
        year, month, day, hour, minute, second = (int(part or 0) for part in parts.groups()[:6])
        time = datetime(year, month, day, hour, minute, second)
        time = time.replace(tzinfo=UTC) if parts[7] else time.astimezone(UTC)
    except (ValueError, OverflowError, OSError) as err:
        raise LineRefused(text, reason) from err
    if time <= datetime(1970, 1, 1, tzinfo=UTC):
        raise LineRefused(text, reason)
    return time


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name
