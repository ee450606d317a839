"""What to query for an order, and the expected response for each name: `checks_of`, a pure function.

Each name is queried for A, AAAA and HTTPS, and a random name below it for A.
"""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dnsblock.errors import Problem, Refused
from dnsblock.probe.expectation import MAX_NAME, Answer, Blocked, Expectation, NotBlockedBy, Open
from dnsblock.probe.messages import QType, Question

TYPES: tuple[QType, ...] = ("A", "AAAA", "HTTPS")
SAMPLE = 1000  # names of an order that are probed
BLOCKING, LIFTING = ("block", "supersede"), ("unblock", "revoke")  # actions
WITHOUT_EFFECT = ("held", "scheduled", "proposed", "notice")  # states of an order

Match = Literal["exact", "subtree", "below"]
Effect = Literal["in force", "ended", "none"]  # none: held or refused, so it never was in force


@dataclass(frozen=True, slots=True)
class OrderedEntry:
    """An entry of an order, or an entry of another order that it ends."""

    name: str
    match: Match
    answers: tuple[Answer, ...]  # of a block; empty for an exemption
    effect: Effect = "in force"

    def covers(self, name: str) -> bool:
        """Whether the entry matches a canonical name."""
        is_below = name.endswith(f".{self.name}")
        return (
            is_below if self.match == "below" else name == self.name or (is_below and self.match == "subtree")
        )


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order, as far as a probe needs it."""

    issuer: str
    order_id: str
    action: str
    state: str
    entries: tuple[OrderedEntry, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """A question, and the expected response."""

    entry: str  # the name in the order, or the name that must be open
    question: Question
    expectation: Expectation


@dataclass(frozen=True, slots=True)
class Plan:
    """The checks of a probe."""

    checks: tuple[Check, ...]
    names: int  # of the order
    probed: int  # of these names
    open: int = 0  # names that must not be blocked, besides the order


def expected_of(said: Mapping[str, Any]) -> Ordered:
    """The order in the JSON of the control API: `GET /v1/orders/ISSUER/NUMBER`."""
    return Ordered(
        said["issuer"],
        said["order_id"],
        said["action"],
        said.get("state", "active"),
        tuple(
            OrderedEntry(
                one["name"],
                one["match"],
                () if one.get("answer") is None else (Answer.of(one["answer"]),),
                _effect(one),
            )
            for one in said["names"]
        ),
    )


def _effect(said: Mapping[str, Any]) -> Effect:
    if said["in_force"]:
        return "in force"
    return "none" if said.get("verdict") in ("held", "refused") else "ended"


def check_effect(order: Ordered) -> None:
    """Raises `Refused` if the order has no effect that a probe could prove."""
    reason = None
    if order.action not in (*BLOCKING, *LIFTING, "exempt"):
        reason = f"the action {order.action} neither blocks nor lifts anything: there is nothing to probe"
    elif order.state in WITHOUT_EFFECT:
        reason = f"the order is {order.state}: it has no effect yet, so there is nothing to probe"
    elif order.state == "annulled" and order.action not in BLOCKING:
        reason = "the order is annulled: it has no effect any more, so there is nothing to probe"
    if reason is not None:
        raise Refused([Problem(f"order {order.order_id} of {order.issuer}", None, "", reason)])


def checks_of(
    order: Ordered | None,
    opened: Sequence[str] = (),
    *,
    most: int = SAMPLE,
    is_popular: Callable[[str], bool] = lambda _: False,
    also: Collection[str] = (),
    answers: tuple[Answer, ...] = (),
) -> Plan:
    """The checks of an order, and of names that must not be blocked.

    If the order has more than `most` names, that many are chosen at random, and the popular ones are added,
    at most as many again. Names in `also` are always chosen.

    `answers`: the answers of blocks, besides those of the order.
    """
    checks: list[Check] = []
    names: list[str] = []
    chosen: list[str] = []
    if order is not None:
        names = list(dict.fromkeys(entry.name for entry in order.entries))
        chosen = _sample(names, most, is_popular, also)
        by_name = _by_name(order.entries)
        own = tuple(dict.fromkeys(answer for entry in order.entries for answer in entry.answers))
        answers = (*own, *answers)
        for name in chosen:
            checks.extend(_checks(order, name, by_name, own))
    for name in dict.fromkeys(opened):
        expectation = Open(answers, may_be_own=True)
        checks.extend(Check(name, question, expectation) for question in _questions(name))
    return Plan(tuple(checks), len(names), len(chosen), len(set(opened)))


def _sample(
    names: list[str], most: int, is_popular: Callable[[str], bool], also: Collection[str]
) -> list[str]:
    if len(names) <= most:
        return names
    chosen = {*random.SystemRandom().sample(names, most), *also}
    popular = [name for name in names if name not in chosen and is_popular(name)]
    chosen.update(popular[:most])
    return [name for name in names if name in chosen]


def _checks(
    order: Ordered, name: str, by_name: Mapping[str, list[OrderedEntry]], answers: tuple[Answer, ...]
) -> Iterator[Check]:
    for question in _questions(name):
        expectation = _expectation(order, question.name, by_name, answers)
        if expectation is not None:
            yield Check(name, question, expectation)


def _questions(name: str) -> Iterator[Question]:
    yield from (Question(name, qtype) for qtype in TYPES)
    below = f"probe-{random.SystemRandom().getrandbits(40):010x}.{name}"
    if len(below) <= MAX_NAME:
        yield Question(below, "A")


def _expectation(
    order: Ordered, name: str, by_name: Mapping[str, list[OrderedEntry]], answers: tuple[Answer, ...]
) -> Expectation | None:
    """The expectation for a queried name. None: the order says nothing about it."""
    covering = list(_covering(name, by_name))
    if order.action in LIFTING:  # a name whose exemption ends may be blocked or not
        return Open(answers) if any(entry.answers for entry in covering) else None
    if order.action == "exempt":
        return Open(answers) if any(entry.effect == "in force" for entry in covering) else None
    decides = next((entry for entry in covering if entry.effect == "in force"), None)
    if decides is None:
        has_ended = any(entry.effect == "ended" for entry in covering)
        return Open(answers) if has_ended else NotBlockedBy(order.order_id, answers)
    if any(answer.action == "passthru" for answer in decides.answers):
        return Open(answers, may_be_own=True)
    return Blocked(decides.answers)


def _by_name(entries: Iterable[OrderedEntry]) -> dict[str, list[OrderedEntry]]:
    found: dict[str, list[OrderedEntry]] = {}
    for entry in entries:
        found.setdefault(entry.name, []).append(entry)
    return found


def _covering(name: str, by_name: Mapping[str, list[OrderedEntry]]) -> Iterator[OrderedEntry]:
    """The entries that cover a name, the deciding one first: the longest match, and `exact` before others."""
    owner = name
    while owner:
        for entry in sorted(by_name.get(owner, ()), key=lambda entry: entry.match != "exact"):
            if entry.covers(name):
                yield entry
        owner = owner.partition(".")[2]
