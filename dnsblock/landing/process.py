"""The process of the landing page: starts it, answers its questions, and starts it again when it ends.

The page faces the Internet, so its process gets nothing but listening sockets, memory for counters, and one
end of a pair of sockets. Through that it asks two questions: why a name is blocked, and the public facts
about an order. `dnsblock/web/landing` is the program.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from dnsblock.config import Config
from dnsblock.landing.counts import Counts, create
from dnsblock.landing.places import place_of
from dnsblock.log import event
from dnsblock.names import NameRefused, canonical
from dnsblock.policy.public_facts import block_of, public_order
from dnsblock.publishing import Publisher

PROGRAM = "dnsblock.web.landing"
MAX_QUESTION = 4096  # bytes
SEND_BUFFER = 1 << 20  # bytes: an answer is one message
SHARE = 0.1  # of the time of the control plane that its questions may take
MAX_PAUSE = 1.0  # seconds between two of them
FRESH_SECONDS = 60.0  # how long an answer is valid, if nothing is published
FIRST_DELAY, MAX_DELAY = 1.0, 60.0  # seconds until it starts again, doubled each time
STEADY_SECONDS = 60.0  # it has run well after this
END_SECONDS = 2.0  # for its end; then it is killed
_FAULT = re.compile(r"[A-Za-z0-9_.:() ]{1,200}")


class Landing:
    """The landing page of a daemon, while `landing` is configured."""

    def __init__(self, publisher: Publisher) -> None:
        self.restarts = 0
        self._publisher = publisher
        self._sockets = publisher.landing
        self._memory = create()
        self.counts = Counts(self._memory)
        self._link: socket.socket | None = None  # our end, while the process runs
        self._options_changed = asyncio.Event()
        self._publishes = 0

    @property
    def is_configured(self) -> bool:
        """Whether there is a landing page."""
        return self._publisher.config.landing is not None

    def __enter__(self) -> "Landing":
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the listening sockets, at the end of the daemon."""
        self._sockets.close()
        os.close(self._memory)

    @property
    def endpoints(self) -> list[str]:
        """The addresses that it listens on."""
        return self._sockets.endpoints

    def follow(self, before: Config) -> None:
        """After a publish: what the process knows is outdated. It starts again if its settings changed."""
        self._publishes += 1
        config, former, sockets = self._publisher.config, self._sockets, self._publisher.landing
        if sockets is not former:
            self._sockets = sockets
            former.close(keep=sockets)
        if sockets is not former or _settings(config) != _settings(before):
            self._options_changed.set()
        elif self._link is not None:
            with contextlib.suppress(OSError):  # it has ended, or reads nothing: its answers expire
                self._link.send(b'{"changed": true}')

    async def run(self) -> None:
        """Keeps the process running until this is cancelled."""
        while True:
            self._options_changed.clear()
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(self._keep())
                await self._options_changed.wait()
                keeping.cancel()

    async def _keep(self) -> None:
        delay = 0.0
        while self.is_configured:
            began = time.monotonic()
            how = await self._run_once()
            ran_well = time.monotonic() - began > STEADY_SECONDS
            delay = FIRST_DELAY if ran_well or not delay else min(2 * delay, MAX_DELAY)
            self.restarts += 1
            text = f"the process of the landing page ended ({how}): it starts again in {delay:g} seconds"
            event(logging.ERROR, text)
            await asyncio.sleep(delay)

    async def _run_once(self) -> str:
        """Runs the process until it ends; how it did."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            with its:
                try:
                    process = self._start(its)
                except OSError as err:
                    return f"it cannot be started: {err.strerror}"
            try:
                await asyncio.get_running_loop().sock_sendall(ours, _settings(self._publisher.config))
                self._link = ours
                await self._answer_all(ours)
            except OSError as err:  # it has ended
                event(logging.DEBUG, f"the landing page cannot be reached: {err.strerror}")
            finally:
                self._link = None
                ours.close()  # it ends now, if it has not
                code = await _end(process)
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def _start(self, its: socket.socket) -> subprocess.Popen[bytes]:
        passed = [its.fileno(), self._memory, *self._sockets.descriptors]
        command = [sys.executable, "-P", "-m", PROGRAM, *map(str, passed)]
        # No variable of ours: some may be secret. Nothing that it writes is kept.
        return subprocess.Popen(  # noqa: S603  # our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=passed,
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    # ------- Its questions

    async def _answer_all(self, ours: socket.socket) -> None:
        """Answers one question after the other, until the process ends."""
        loop = asyncio.get_running_loop()
        while message := await loop.sock_recv(ours, MAX_QUESTION):
            began = time.monotonic()
            try:
                question = _read(message)
            except ValueError:
                # Only a process that somebody has taken over sends such a message.
                event(logging.ERROR, "the landing page asked a malformed question: its process is ended")
                return
            if "fault" in question:
                event(logging.ERROR, f"internal error of the landing page: {question['fault']}")
            elif (answer := await self._answer(question)) is not None:
                await loop.sock_sendall(ours, json.dumps(answer).encode())
            took = time.monotonic() - began
            await asyncio.sleep(min(took * (1 / SHARE - 1), MAX_PAUSE))

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None after an internal error, and the visitor is asked to come again."""
        publisher, publishes = self._publisher, self._publishes
        policy, config = publisher.policy, publisher.config
        state = publisher.recorder.state(policy)
        try:
            if "name" in question:
                found: Any = await asyncio.to_thread(block_of, question["name"], policy, config, state)
            else:
                found = await asyncio.to_thread(public_order, state, config, *question["order"])
        except Exception as err:
            # Without the message and the traceback: they may contain the name that somebody visited.
            event(logging.ERROR, f"internal error while answering the landing page: {place_of(err)}")
            return None
        seconds = FRESH_SECONDS
        if (change := policy.state.next_change_at) is not None:
            seconds = min(seconds, (change - publisher.recorder.now()).total_seconds())
        if publishes != self._publishes:
            seconds = 0  # it may be outdated already
        return {"id": question["id"], "found": found, "seconds": max(0, seconds)}


def _read(message: bytes) -> dict[str, Any]:
    """Checks a message of the process. Raises `ValueError`."""
    try:
        match json.loads(message):
            case {"id": int(number), "name": str(name), **rest} if not rest:
                return {"id": number, "name": canonical(name)}
            case {"id": int(number), "order": [str(issuer), str(order_id)], **rest} if not rest:
                return {"id": number, "order": [issuer, order_id]}
            case {"fault": str(text)} if _FAULT.fullmatch(text):
                return {"fault": text}
    except (NameRefused, RecursionError) as err:
        raise ValueError("no name") from err
    raise ValueError("no such question")


def _settings(config: Config) -> bytes:
    """The settings of the process; empty if there is no landing page."""
    if config.landing is None:
        return b""
    facts = config.landing.model_dump(mode="json", exclude={"listen"})
    return json.dumps({**facts, "name": config.landing.name, "time_zone": config.time_zone.key}).encode()


async def _end(process: subprocess.Popen[bytes]) -> int:
    """Waits for the end of the process, which nothing prevents: not even a cancelled task."""
    try:
        return await asyncio.to_thread(process.wait, END_SECONDS)
    except (asyncio.CancelledError, subprocess.TimeoutExpired) as err:
        process.kill()
        code = process.wait()
        if isinstance(err, asyncio.CancelledError):
            raise
        return code
