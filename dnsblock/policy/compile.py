"""Compiles a policy zone: what is in force of an issuer's orders, or the text of a list."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from dnsblock._engine import Answer, ListRefused, PolicyZone, Rule
from dnsblock.config import Config, Zone
from dnsblock.errors import Problem, Refused, capped
from dnsblock.names import NameRefused, canonical
from dnsblock.orders.guards import public_suffixes
from dnsblock.orders.state import InForce


def compile_orders(zone: Zone, config: Config, in_force: Sequence[InForce]) -> PolicyZone:
    """The zone of an issuer. Where orders overlap, a name is answered with the number of the first."""
    rules: dict[tuple[str | None, str], int] = {}
    compiled: list[Rule] = []
    lines: list[str] = []
    for item in sorted(in_force, key=_precedence):
        # An exemption is a hole, never a passthru: it ends this issuer's block and no other's.
        answer = None if item.kind == "exempt" else _answer_of(item, zone, config)
        key = (answer, "" if answer is None else item.order_id)
        if key not in rules:
            rules[key] = len(compiled)
            compiled.append(_rule(zone, config, answer, key[1]))
        lines.append(f"{item.entry.match} {rules[key]} {item.entry.name}\n")
    return PolicyZone.from_entries(zone.name, compiled, "".join(lines).encode())


def _rule(zone: Zone, config: Config, answer: str | None, order_id: str) -> Rule:
    if answer is None:
        return Rule(None)
    why = f"order {order_id} of {zone.issuer}"
    return Rule(engine_answer(zone, config, answer), order_id, structured_text(config, why))


def _answer_of(item: InForce, zone: Zone, config: Config) -> str:
    """The entry's own answer, or the zone's.

    A configuration that lacks a profile which an order names is refused when it is read; should one be
    missing all the same, a block with another answer is better than orders that can no longer end.
    """
    return item.entry.answer if item.entry.answer in config.answer_names else zone.answer


def _precedence(item: InForce) -> tuple[datetime, str]:
    return (item.effective_at.astimezone(UTC), item.order_id)


def compile_list(zone: Zone, config: Config, file: str, data: bytes) -> PolicyZone:
    """The zone of a plain list. Raises `Refused` with the lines that cannot be meant; nothing is guessed."""
    problems: list[Problem] = []
    if not data.isascii():
        data, problems = _in_a_labels(file, data)
    compiled: PolicyZone | None = None
    try:
        compiled = PolicyZone.from_list(zone.name, data, zone.match, _list_rule(zone, config))
    except ListRefused as err:
        problems.extend(_refused(file, err).problems)
    if zone.answer != "passthru":
        problems.extend(_public_suffix_lines(compiled, zone, file, data))
    if problems or compiled is None:
        # One kind of mistake does not hide another: who mends a list mends it once.
        raise Refused(sorted(problems, key=lambda problem: (problem.line is None, problem.line)))
    if compiled.entries == 0:
        raise Refused(
            [Problem(file, None, "", "the list holds no name; leave the zone out if that is meant")]
        )
    return compiled


def compile_addresses(zone: Zone, config: Config, file: str, data: bytes) -> PolicyZone:
    """The zone of a list of addresses and prefixes. Raises `Refused` with the lines that are none."""
    try:
        compiled = PolicyZone.from_addresses(zone.name, data, _list_rule(zone, config))
    except ListRefused as err:
        raise _refused(file, err) from err
    if compiled.entries == 0:
        raise Refused(
            [Problem(file, None, "", "the list holds no address; leave the zone out if that is meant")]
        )
    return compiled


def _list_rule(zone: Zone, config: Config) -> Rule:
    answer = engine_answer(zone, config, zone.answer)
    return Rule(answer, structured=structured_text(config, f"list {zone.name}"))


def _refused(file: str, err: ListRefused) -> Refused:
    problems, total = err.args
    told = [Problem(file, line, value, reason) for line, value, reason in problems]
    if total > len(told):
        told.append(Problem(file, None, "", f"and {total - len(told):,} more lines"))
    return Refused(told)


def structured_text(config: Config, why: str) -> tuple[str, str] | None:
    """What a client is told that reads structured errors: whole, and as little as it may be.

    Minified I-JSON (draft-ietf-dnsop-structured-dns-error): contacts, justification, organization, language.
    No sub-error: none may go with Censored (16), and of a list of our own none says more than the code does.
    """
    told = config.signals.structured_errors
    if told is None:
        return None
    brief = {"c": list(told.contacts)}
    whole = {**brief, "j": why, "o": told.organization, "l": told.language}
    return _minified(whole), _minified(brief)


def _minified(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _public_suffix_lines(
    compiled: PolicyZone | None, zone: Zone, file: str, data: bytes
) -> Sequence[Problem]:
    """A half line that has become `co.id` would take a country down; a list never means that."""
    suffixes, wildcards = public_suffixes()
    wide = {name.encode() for name in suffixes}
    if compiled is not None:
        # What `below` covers is below the entry, so a name below is asked for.
        asked = [f"x.{name}" for name in suffixes] if zone.match == "below" else suffixes
        covered = compiled.lookup("\n".join(asked).encode())
        wide = {name.encode() for name, is_covered in zip(suffixes, covered, strict=True) if is_covered}
    parents = "|".join(re.escape(name) for name in wildcards).encode()
    wide.update(
        re.findall(rb"(?im)^[ \t]*([a-z0-9_-]+\.(?:" + parents + rb"))\.?[ \t\r]*(?:#.*)?$", data.lower())
    )
    if not wide:
        return ()
    problems: list[Problem] = []
    for number, line in enumerate(data.lower().split(b"\n"), start=1):
        name = line.partition(b"#")[0].strip().removesuffix(b".")
        if name in wide:
            reason = "PUBLIC_SUFFIX: names are sold below it; a list names single domains"
            problems.append(Problem(file, number, name.decode(), reason))
    return capped(problems, _PROBLEMS_TOLD)


def _in_a_labels(file: str, data: bytes) -> tuple[bytes, list[Problem]]:
    """The same lines, with names of other scripts than ASCII as A-labels, and those left out that are none.

    Only lines of other scripts are touched.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    problems: list[Problem] = []
    for index, line in enumerate(lines):
        name, _, _comment = line.partition(b"#")
        if line.isascii():
            continue
        if name.isascii():
            lines[index] = name
            continue
        try:
            lines[index] = canonical(name.decode().strip()).encode()
        except (UnicodeDecodeError, NameRefused) as err:
            lines[index] = b""
            reason = str(err) if isinstance(err, NameRefused) else "not UTF-8 text"
            problems.append(Problem(file, index + 1, name.decode("utf-8", "replace"), reason))
    return b"\n".join(lines), list(capped(problems, _PROBLEMS_TOLD))


_PROBLEMS_TOLD = 100


def engine_answer(zone: Zone, config: Config, name: str) -> Answer:
    """An answer profile as the engine takes it; `auto` is decided by who stands behind the zone.

    RFC 8914 section 4.17: Censored (16) for what is imposed from outside; 4.16: Blocked (15) for the
    operator's own policy.
    """
    profile = config.answer(name)
    match profile.extended_error:
        case "auto":
            code: int | None = 16 if zone.kind == "orders" else 15
        case "none":
            code = None
        case written:
            code = int(written)
    return Answer(
        profile.action,
        ttl=profile.ttl,
        extended_error=code,
        addresses=[*profile.ipv4, *profile.ipv6],
        target=profile.target,
    )
