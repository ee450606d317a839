"""The expected response for a name, and the judgement of a response. docs/probe.md describes both.

Nothing here sends queries: `run.py` passes the results.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

from dnsblock.probe.messages import QType, Question, Record, Reply
from dnsblock.probe.queries import Result, Transport

Action = Literal["sinkhole", "nxdomain", "nodata", "refused", "drop", "truncate", "cname", "passthru"]

FORGED = 4  # RFC 8914: Forged Answer
BLOCKING = (15, 16, 17)  # RFC 8914: Blocked, Censored, Filtered
PROHIBITED = 18  # RFC 8914: this client may not query the server
ADDRESSES: tuple[QType, ...] = ("A", "AAAA")
MAX_NAME = 253  # characters of a name without its last dot


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer profile: the response to a blocked name."""

    action: Action
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    target: str | None = None  # of a cname; `*.NAME`: the QNAME is prepended

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Answer":
        """The answer in the JSON of the control API."""
        ipv4, ipv6 = (tuple(str(ip_address(one)) for one in said.get(key) or ()) for key in ("ipv4", "ipv6"))
        return cls(said["action"], ipv4, ipv6, said.get("target"))

    def as_json(self) -> dict[str, Any]:
        """The same as JSON."""
        ipv4, ipv6 = list(self.ipv4), list(self.ipv6)
        return {"action": self.action, "ipv4": ipv4, "ipv6": ipv6, "target": self.target}

    def addresses(self, qtype: QType) -> tuple[str, ...]:
        """The addresses for a type; empty for a type without addresses."""
        return {"A": self.ipv4, "AAAA": self.ipv6}.get(qtype, ())

    def target_of(self, name: str) -> str | None:
        """The CNAME target for a queried name; None if that would be too long, or there is no target."""
        if self.target is None or not self.target.startswith("*."):
            return self.target
        target = f"{name}.{self.target[2:]}"
        return target if len(target) <= MAX_NAME else None

    def made(self, question: Question, record: Record) -> bool:
        """Whether a record is recognisable as one of this answer."""
        if record.rtype == "CNAME":
            return self.action == "cname" and record.data == self.target_of(question.name)
        return self.action == "sinkhole" and record.data in self.ipv4 + self.ipv6

    def expected(self, question: Question) -> str:
        """The expected response, as text."""
        match self.action:
            case "sinkhole" if addresses := self.addresses(question.qtype):
                return f"{question.qtype} {', '.join(addresses)}"
            case "sinkhole" | "nodata":
                return "NODATA"
            case "nxdomain":
                return "NXDOMAIN or NODATA"
            case "refused":
                return "REFUSED"
            case "drop":
                return "no response"
            case "truncate":
                return "TC=1"
            case "cname":
                target = self.target_of(question.name)
                return "YXDOMAIN" if target is None else f"CNAME {target}"
            case _:
                return "not blocked"

    def is_given(self, question: Question, reply: Reply) -> bool:
        """Whether a response is this answer."""
        is_empty = reply.rcode == "NOERROR" and not reply.answer and not reply.is_truncated
        match self.action:
            case "sinkhole" if addresses := self.addresses(question.qtype):
                wanted = {Record(question.name, question.qtype, address) for address in addresses}
                return reply.rcode == "NOERROR" and set(reply.answer) == wanted
            case "sinkhole" | "nodata":
                return is_empty
            case "nxdomain":
                # NODATA for a name whose subnames exist: an exact entry, or an exemption below it (RFC 8020).
                return is_empty or (reply.rcode == "NXDOMAIN" and not reply.answer)
            case "refused":
                return reply.rcode == "REFUSED"
            case "truncate":
                return reply.is_truncated and not reply.answer
            case "cname":
                target = self.target_of(question.name)
                if target is None:
                    return reply.rcode == "YXDOMAIN"  # RFC 6672 section 2.2
                return Record(question.name, "CNAME", target) in reply.answer
            case _:
                return False  # drop: a response is no silence


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of a query, and what is needed to judge it."""

    question: Question
    transport: Transport
    result: Result
    control: Reply | None  # the server's response to the control query
    reference: Reply | None = None  # the response of a reference resolver, if one is needed and responded


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement. `note`: a reason that the response itself does not show."""

    missed: bool
    note: str = ""
    is_final: bool = True  # False: another try may give another response, such as after SERVFAIL


GIVEN = Verdict(missed=False)


@dataclass(frozen=True, slots=True)
class Blocked:
    """The name is blocked, with one of these answers."""

    answers: tuple[Answer, ...]

    needs_reference = False

    def expected(self, question: Question) -> str:
        """The expected response, as text."""
        return " or ".join(dict.fromkeys(answer.expected(question) for answer in self.answers))

    @property
    def expects_silence(self) -> bool:
        """Whether no response is expected."""
        return all(answer.action == "drop" for answer in self.answers)

    @property
    def expects_truncation(self) -> bool:
        """Whether a truncated response is expected, which is then not followed by a query over TCP."""
        return any(answer.action == "truncate" for answer in self.answers)

    def applies(self, transport: Transport) -> bool:
        """Whether the expectation says anything about a transport. `truncate` blocks nothing over TCP."""
        return transport == "udp" or not self.expects_truncation

    def judge(self, seen: Seen) -> Verdict:
        """Judges the result of a query."""
        reply = seen.result.reply
        if reply is None:
            if not self.expects_silence:
                return Verdict(missed=True, is_final=False)
            if seen.control is None:
                return Verdict(missed=True, note="the server responds to no query at all")
            return GIVEN
        if not any(answer.is_given(seen.question, reply) for answer in self.answers):
            return Verdict(missed=True, is_final=reply.rcode != "SERVFAIL")
        if reply.rcode == "REFUSED":
            if any(error.code == PROHIBITED for error in reply.errors):
                return Verdict(missed=True, note="the access control list of the server refuses this client")
            if seen.control is not None and seen.control.rcode == "REFUSED":
                return Verdict(missed=True, note="the server refuses every query")
        return GIVEN


@dataclass(frozen=True, slots=True)
class NotBlockedBy:
    """The order does not cover the name: only its answer is a miss. Other orders and lists may block it."""

    order_id: str
    answers: tuple[Answer, ...]  # those of the order

    needs_reference = False
    expects_silence = False
    expects_truncation = False

    def expected(self, _question: Question) -> str:
        """The expected response, as text."""
        return "not blocked by this order"

    def applies(self, _transport: Transport) -> bool:
        """Whether the expectation says anything about a transport."""
        return True

    def judge(self, seen: Seen) -> Verdict:
        """Judges the result of a query. An extended error names the order; otherwise the records show it."""
        reply = seen.result.reply
        if reply is None:
            return Verdict(missed=True, is_final=False)
        texts = [error.text for error in reply.errors if error.code in BLOCKING]
        if texts:
            return Verdict(missed=self.order_id in texts)
        records = (answer.made(seen.question, record) for answer in self.answers for record in reply.answer)
        return Verdict(missed=any(records))


@dataclass(frozen=True, slots=True)
class Open:
    """The name gets the upstream's answer, whatever its records are: those of a CDN differ each time.

    * No extended error says that it is blocked, and no record is of a block's answer.
    * The RCODE is NOERROR, or that of the reference. If the reference has records of the type, it has some.

    `may_be_own`: a record of a block's answer is accepted if the reference has it too. So the landing page is
    open, although its address is that of the sinkhole.
    """

    answers: tuple[Answer, ...] = ()  # the answers of blocks
    may_be_own: bool = False

    needs_reference = True
    expects_silence = False
    expects_truncation = False

    def expected(self, _question: Question) -> str:
        """The expected response, as text."""
        return "not blocked"

    def applies(self, _transport: Transport) -> bool:
        """Whether the expectation says anything about a transport."""
        return True

    def judge(self, seen: Seen) -> Verdict:
        """Judges the result of a query."""
        reply, reference = seen.result.reply, seen.reference
        if reply is None:
            return Verdict(missed=True, is_final=False)
        if self._is_blocked(seen.question, reply, reference):
            by_upstream = reference is not None and self._is_blocked(seen.question, reference, None)
            return Verdict(missed=True, note="the reference resolver blocks it too" if by_upstream else "")
        if reference is None:
            return self._without_reference(seen.question, reply)
        if reply.rcode not in ("NOERROR", reference.rcode):
            return Verdict(missed=True, note=f"the reference has {reference.rcode}", is_final=False)
        qtype = seen.question.qtype
        if reference.has(qtype) and not reply.has(qtype):
            return Verdict(missed=True, note=f"the reference has {qtype} records", is_final=False)
        return GIVEN

    def _is_blocked(self, question: Question, reply: Reply, reference: Reply | None) -> bool:
        if any(error.code in BLOCKING for error in reply.errors):
            return True
        own = reference.answer if self.may_be_own and reference is not None else ()
        return any(
            answer.made(question, record)
            for answer in self.answers
            for record in reply.answer
            if record not in own
        )

    def _without_reference(self, question: Question, reply: Reply) -> Verdict:
        """Only the answer of a block proves that a name is blocked, if there is nothing to compare with."""
        if reply.rcode not in ("NOERROR", "NXDOMAIN"):
            return Verdict(missed=True, is_final=False)
        negative = reply.rcode == "NXDOMAIN" or (question.qtype == "A" and not reply.has("A"))
        actions = {answer.action for answer in self.answers}
        if negative and actions & {"nxdomain", "nodata"} and _is_like_block(reply, actions):
            return Verdict(
                missed=True, note="may be blocked: no reference resolver responded", is_final=False
            )
        return GIVEN


def _is_like_block(reply: Reply, actions: set[Action]) -> bool:
    return "nxdomain" in actions or reply.rcode == "NOERROR"


Expectation = Blocked | NotBlockedBy | Open


def found(result: Result) -> str:
    """The result of a query, as text. Forged Answer is left out: the records show it."""
    reply = result.reply
    if reply is None:
        return result.failure
    errors = [f"EDE {one.code} {one.text}".rstrip() for one in reply.errors if one.code != FORGED]
    if reply.answer:
        parts = [reply.rcode] if reply.rcode != "NOERROR" else []
        shown = [f"{one.rtype} {one.data}".rstrip() for one in reply.answer]
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        parts.append(", ".join(shown[:3]) + more)
    elif reply.is_truncated:
        parts = ["TC=1"]
    else:
        parts = ["NODATA" if reply.rcode == "NOERROR" else reply.rcode]
    return "; ".join([*parts, *errors])
