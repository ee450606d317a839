"""Asks the daemon through the socket: why a name is blocked, or the public facts about an order.

Few questions are outstanding at a time, and the daemon answers them at its own rate. Beyond that, visitors
are asked to come again: they must never slow the daemon.
"""

import asyncio
import contextlib
import json
import socket
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dnsblock.landing.counts import ANSWERED, REFUSED, Counts

MAX_OUTSTANDING = 32
TIMEOUT = 3.0  # seconds
MAX_ANSWER = 1 << 20  # bytes
MAX_KNOWN = 2048  # answers in the cache, with their pages
MAX_FAULTS = 10  # that are reported to the daemon

Key = tuple[str, ...]  # a name, or an issuer and a number


@dataclass(slots=True)
class Answer:
    """An answer of the daemon, and the pages that were made of it, by language."""

    found: dict[str, Any] | None
    until: float  # of the clock of the event loop
    pages: dict[str, Any] = field(default_factory=dict)


class Questions:
    """The questions and the answers that are still valid."""

    def __init__(self, link: socket.socket, counts: Counts, ended: Callable[[], None]) -> None:
        """`ended` is called when the daemon has ended, or wants this process to end."""
        self._link, self._counts, self._ended = link, counts, ended
        self._known: OrderedDict[Key, Answer] = OrderedDict()
        self._waiting: dict[int, tuple[Key, asyncio.Future[Answer | None]]] = {}
        self._asked: dict[Key, asyncio.Future[Answer | None]] = {}
        self._last = 0
        self._faults = 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(link, self._receive)

    def known(self, key: Key) -> Answer | None:
        """The answer, if it is known and still valid."""
        answer = self._known.get(key)
        if answer is None or answer.until <= self._loop.time():
            return None
        self._known.move_to_end(key)
        return answer

    async def ask(self, key: Key) -> Answer | None:
        """The answer of the daemon; None if it does not come in time. Equal questions share one."""
        pending = self._asked.get(key) or self._send(key)
        answer = None if pending is None else await asyncio.shield(pending)
        if answer is None:
            self._counts.add(REFUSED)
        return answer

    def _send(self, key: Key) -> asyncio.Future[Answer | None] | None:
        if len(self._waiting) >= MAX_OUTSTANDING:
            return None
        self._last += 1
        number = self._last
        what: dict[str, Any] = {"name": key[0]} if len(key) == 1 else {"order": list(key)}
        try:
            self._link.send(json.dumps({"id": number, **what}).encode())
        except OSError:
            return None
        pending: asyncio.Future[Answer | None] = self._loop.create_future()
        self._waiting[number], self._asked[key] = (key, pending), pending
        self._loop.call_later(TIMEOUT, self._forget, number)
        return pending

    def _forget(self, number: int) -> None:
        if number in self._waiting:
            key, pending = self._waiting.pop(number)
            del self._asked[key]
            pending.set_result(None)

    def _receive(self) -> None:
        try:
            message = self._link.recv(MAX_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._ended()
            return
        answer = json.loads(message)
        if "changed" in answer:
            self._known.clear()
            return
        key, pending = self._waiting.pop(answer["id"], (None, None))
        if key is None or pending is None:
            return  # too late
        del self._asked[key]
        found = Answer(answer["found"], self._loop.time() + answer["seconds"])
        self._counts.add(ANSWERED)
        if answer["seconds"] > 0:
            self._known[key] = found
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        pending.set_result(found)

    def report(self, place: str) -> None:
        """Reports an internal error to the log of the daemon."""
        self._faults += 1
        if self._faults <= MAX_FAULTS:
            with contextlib.suppress(OSError):
                self._link.send(json.dumps({"fault": place[:200]}).encode())
