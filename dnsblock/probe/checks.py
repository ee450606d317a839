"""The queries for an order, and the expected response for each: `checks_of`, a pure function.

Each name is queried for A, AAAA and HTTPS, and a random name below it for A.
"""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
    entries: tuple[OrderedEntry, ...]  # those that cover a probed name


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
    names: int = 0  # of the order
    probed: int = 0  # of these names
    open: int = 0  # names that must not be blocked, besides the order


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


def choose(
    names: Callable[[], Iterable[str]], most: int, popular: Collection[str], also: Collection[str] = ()
) -> tuple[list[str], int]:
    """The names to probe, and the number of all. `names` may yield millions, and is called several times.

    Of more than `most` names, that many are chosen at random, and popular ones are added, at most as many
    again. Names in `also` are always chosen.
    """
    total = sum(1 for _ in names())
    if total <= most:
        every = list(dict.fromkeys(names()))
        return every, len(every)
    places = set(random.SystemRandom().sample(range(total), most))
    chosen = {name for place, name in enumerate(names()) if place in places or name in also}
    chosen.update(list(islice((name for name in names() if name in popular and name not in chosen), most)))
    return list(dict.fromkeys(name for name in names() if name in chosen)), total


def checks_of(order: Ordered, chosen: Sequence[str], answers: tuple[Answer, ...] = ()) -> tuple[Check, ...]:
    """The checks of the chosen names of an order. `answers`: those of blocks that it may have lifted."""
    by_name = _by_name(order.entries)
    own = tuple(dict.fromkeys(answer for entry in order.entries for answer in entry.answers))
    known = tuple(dict.fromkeys((*own, *answers)))
    return tuple(check for name in chosen for check in _checks(order, name, by_name, own, known))


def open_checks(names: Iterable[str], answers: tuple[Answer, ...] = ()) -> tuple[Check, ...]:
    """The checks of names that must not be blocked. `answers`: the answers of blocks."""
    expectation = Open(answers, may_be_own=True)
    return tuple(
        Check(name, question, expectation) for name in dict.fromkeys(names) for question in _questions(name)
    )


def _checks(
    order: Ordered,
    name: str,
    by_name: Mapping[str, list[OrderedEntry]],
    own: tuple[Answer, ...],
    known: tuple[Answer, ...],
) -> Iterator[Check]:
    for question in _questions(name):
        expectation = _expectation(order, question.name, by_name, own, known)
        if expectation is not None:
            yield Check(name, question, expectation)


def _questions(name: str) -> Iterator[Question]:
    yield from (Question(name, qtype) for qtype in TYPES)
    below = f"probe-{random.SystemRandom().getrandbits(40):010x}.{name}"
    if len(below) <= MAX_NAME:
        yield Question(below, "A")


def _expectation(
    order: Ordered,
    name: str,
    by_name: Mapping[str, list[OrderedEntry]],
    own: tuple[Answer, ...],
    known: tuple[Answer, ...],
) -> Expectation | None:
    """The expectation for a queried name. None: the order says nothing about it.

    `own`: the answers of the order; `known`: also those of other blocks.
    """
    covering = list(_covering(name, by_name))
    if order.action in LIFTING:  # a name whose exemption ends may be blocked or not
        return Open(known) if any(entry.answers for entry in covering) else None
    if order.action == "exempt":
        return Open(known) if any(entry.effect == "in force" for entry in covering) else None
    decides = next((entry for entry in covering if entry.effect == "in force"), None)
    if decides is None:
        has_ended = any(entry.effect == "ended" for entry in covering)
        return Open(known) if has_ended else NotBlockedBy(order.order_id, own)
    if any(answer.action == "passthru" for answer in decides.answers):
        return Open(known)
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


# ------- The checks as JSON, for the control API -------


def as_json(order: Ordered, plan: Plan) -> dict[str, Any]:
    """The checks of an order."""
    answers: dict[Answer, int] = {}
    for check in plan.checks:
        for answer in _answers(check.expectation):
            answers.setdefault(answer, len(answers))
    return {
        "issuer": order.issuer,
        "order_id": order.order_id,
        "action": order.action,
        "state": order.state,
        "names": plan.names,
        "probed": plan.probed,
        "answers": [answer.as_json() for answer in answers],
        "checks": [
            {
                "entry": check.entry,
                "name": check.question.name,
                "type": check.question.qtype,
                "expects": _KINDS[type(check.expectation)],
                "answers": [answers[answer] for answer in _answers(check.expectation)],
            }
            for check in plan.checks
        ],
    }


def from_json(said: Mapping[str, Any]) -> tuple[Ordered, Plan, tuple[Answer, ...]]:
    """The order, its checks, and the answers in them."""
    order = Ordered(said["issuer"], said["order_id"], said["action"], said["state"], ())
    answers = [Answer.of(one) for one in said["answers"]]
    checks = tuple(
        Check(
            one["entry"],
            Question(one["name"], one["type"]),
            _expected(one["expects"], order.order_id, tuple(answers[index] for index in one["answers"])),
        )
        for one in said["checks"]
    )
    return order, Plan(checks, said["names"], said["probed"]), tuple(answers)


_KINDS: dict[type[Expectation], str] = {Blocked: "blocked", NotBlockedBy: "not by this order", Open: "open"}


def _answers(expectation: Expectation) -> tuple[Answer, ...]:
    return expectation.answers


def _expected(kind: str, order_id: str, answers: tuple[Answer, ...]) -> Expectation:
    match kind:
        case "blocked":
            return Blocked(answers)
        case "open":
            return Open(answers)
        case _:
            return NotBlockedBy(order_id, answers)
