"""Runs a probe: sends the queries of a plan to all servers at once, and judges the responses."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dnsblock.clock import utc_now
from dnsblock.probe.checks import Check, Ordered, Plan
from dnsblock.probe.evidence import Evidence, Row
from dnsblock.probe.expectation import Seen, Verdict, found
from dnsblock.probe.messages import Question, Reply
from dnsblock.probe.queries import TRANSPORTS, Client, Limits, Result, Server, ServerQueries, Transport

TRIES = 2  # judgements of a response that may be different next time


@dataclass(slots=True)
class Progress:
    """How far a probe is. Another thread may read it."""

    done: int = 0
    total: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a probe sends its queries, and how many."""

    servers: Sequence[Server]
    references: Sequence[Server] = ()  # resolvers whose responses show what an unblocked name has
    limits: Limits = field(default_factory=Limits)


async def run(plan: Plan, order: Ordered | None, setup: Setup, progress: Progress | None = None) -> Evidence:
    """Queries all servers over UDP and TCP. Rows are in the order of servers, transports and checks."""
    progress = Progress() if progress is None else progress
    servers = list(dict.fromkeys(setup.servers))
    places = [(server, transport) for server in servers for transport in TRANSPORTS]
    progress.total = sum(
        check.expectation.applies(transport) for _, transport in places for check in plan.checks
    )
    started_at, began = utc_now(), time.monotonic()
    async with Client(setup.limits) as client:
        references = _References([client.server(server) for server in setup.references])
        rows: dict[tuple[Server, Transport], list[Row]] = {}
        async with asyncio.TaskGroup() as tasks:
            for server, transport in places:
                place = _Place(client.server(server), transport, references, progress)
                rows[server, transport] = place.rows
                tasks.create_task(place.run(plan.checks, setup.limits.outstanding))
        sent = sum(client.server(server).sent for server in servers)
    return Evidence(
        issuer=None if order is None else order.issuer,
        order_id=None if order is None else order.order_id,
        action=None if order is None else order.action,
        started_at=started_at,
        seconds=time.monotonic() - began,
        names=plan.names,
        probed=plan.probed,
        open=plan.open,
        queries=sent,
        rows=tuple(row for place in places for row in rows[place]),
    )


class _Place:
    """The checks at one server over one transport."""

    def __init__(
        self, server: ServerQueries, transport: Transport, references: "_References", progress: Progress
    ) -> None:
        self.rows: list[Row] = []
        self._server, self._transport = server, transport
        self._references, self._progress = references, progress
        self._control: Reply | None = None

    async def run(self, checks: Sequence[Check], workers: int) -> None:
        """Sends all queries, some of them at once."""
        own = [check for check in checks if check.expectation.applies(self._transport)]
        self._control = (await self._server.reach(self._transport)).reply
        judged: list[Row | None] = [None] * len(own)
        left = iter(enumerate(own))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(workers, len(own))):
                tasks.create_task(self._work(left, judged))
        self.rows.extend(row for row in judged if row is not None)

    async def _work(self, left: Iterator[tuple[int, Check]], judged: list[Row | None]) -> None:
        for index, check in left:
            row = judged[index] = await self._row(check)
            self._progress.done += 1
            self._progress.missed += row.missed

    async def _row(self, check: Check) -> Row:
        result, verdict = await self._judged(check)
        for _ in range(TRIES - 1):
            if not verdict.missed or verdict.is_final or self._transport in self._server.dead:
                break
            self._references.forget(check.question)
            result, verdict = await self._judged(check)
        return Row(
            resolver=str(self._server.server),
            transport=self._transport,
            name=check.question.name,
            qtype=check.question.qtype,
            entry=check.entry,
            expected=check.expectation.expected(check.question),
            found=found(result),
            milliseconds=result.milliseconds,
            missed=verdict.missed,
            note=verdict.note,
        )

    async def _judged(self, check: Check) -> tuple[Result, Verdict]:
        expectation, question = check.expectation, check.question
        result = await self._server.ask(
            question,
            self._transport,
            follows_truncation=not expectation.expects_truncation,
            expects_silence=expectation.expects_silence,
        )
        reference = await self._references.of(question) if expectation.needs_reference else None
        control = self._control if self._transport not in self._server.dead else None
        return result, expectation.judge(Seen(question, self._transport, result, control, reference))


class _References:
    """The responses of the first reference resolver that responds, for each question once."""

    def __init__(self, servers: Sequence[ServerQueries]) -> None:
        self._servers = servers
        self._known: dict[Question, asyncio.Future[Reply | None]] = {}

    async def of(self, question: Question) -> Reply | None:
        """The response, or None if no reference resolver responds."""
        known = self._known.get(question)
        if known is not None:
            return await known
        asked = self._known[question] = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await self._ask(question)
        finally:
            asked.set_result(reply)
        return reply

    def forget(self, question: Question) -> None:
        """Queries the reference again next time."""
        known = self._known.get(question)
        if known is not None and known.done():
            del self._known[question]

    async def _ask(self, question: Question) -> Reply | None:
        for server in self._servers:
            reply = (await server.ask(question, "udp")).reply
            if reply is not None and reply.rcode != "REFUSED":
                return reply
        return None
