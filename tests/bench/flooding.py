"""A flood of one HTTP listener, in a process of its own, which `interfaces` starts."""

import asyncio
import itertools
import json
import re
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from typing import Any

STATUS = re.compile(rb"HTTP/1\.1 (\d)\d\d ")
SPLIT = 13  # bytes of a status line that may be in two pieces
HOLD_SECONDS = 1.0  # between two bytes of a slow client


@dataclass(frozen=True, slots=True)
class Target:
    """A listener, and a request that it answers."""

    port: int
    request: str  # of its valid requests; {} is replaced by a number
    authority: str = ""  # the file of its authority; empty: no TLS
    batch: int = 1  # requests that are sent without waiting

    @property
    def is_tls(self) -> bool:
        return bool(self.authority)


class Flood:
    """Clients of one kind, which send without a pause. `counts` has the results."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._numbers = itertools.count()
        self._tls = ssl.create_default_context(cafile=target.authority) if target.is_tls else None
        self.counts: Counter[str] = Counter()
        self._connected = asyncio.Event()

    async def _connect(self, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self._tls if tls else None
        opened = await asyncio.open_connection("127.0.0.1", self._target.port, ssl=context)
        self.counts["connections"] += 1
        self._connected.set()
        return opened

    async def _read(self, reader: asyncio.StreamReader, most: int | None = None) -> int:
        """Counts the responses by class of their status, until there are so many or the connection ends."""
        found, tail = 0, b""
        while (most is None or found < most) and (data := await reader.read(1 << 18)):
            statuses = STATUS.findall(tail + data)
            self.counts.update(f"{one.decode()}xx" for one in statuses)
            found += len(statuses)
            end = max((match.end() for match in STATUS.finditer(tail + data)), default=0)
            tail = (tail + data)[max(end, len(tail + data) - SPLIT) :]
        return found

    def _requests(self) -> Iterator[bytes]:
        while True:
            whole = (self._target.request.format(next(self._numbers)) for _ in range(self._target.batch))
            yield "".join(whole).encode()

    # ------- The kinds: one connection of each

    async def valid(self) -> None:
        """Requests as fast as they are answered."""
        reader, writer = await self._connect()
        try:
            for data in self._requests():
                writer.write(data)
                self.counts["sent"] += self._target.batch
                if await self._read(reader, self._target.batch) < self._target.batch:
                    break
        finally:
            writer.transport.abort()

    async def bad(self) -> None:
        """A malformed request on a connection of its own."""
        reader, writer = await self._connect()
        try:
            writer.write(b"GARBAGE\x00 / HTTP/9\r\n\r\n")
            self.counts["sent"] += 1
            await self._read(reader)
        finally:
            writer.transport.abort()

    async def handshakes(self) -> None:
        """TLS handshakes, or connections where there is no TLS."""
        _, writer = await self._connect()
        writer.transport.abort()

    async def idle(self) -> None:
        """A connection that says nothing until the server closes it."""
        reader, writer = await self._connect(tls=False)
        try:
            await self._read(reader)
            self.counts["closed"] += 1
        finally:
            writer.transport.abort()

    async def slow(self) -> None:
        """A request whose head comes at one byte a second."""
        reader, writer = await self._connect()
        reading = asyncio.create_task(self._read(reader))
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
            while not reading.done():
                writer.write(b"x")
                await asyncio.wait([reading], timeout=HOLD_SECONDS)
            self.counts["closed"] += 1
        finally:
            reading.cancel()
            writer.transport.abort()

    # ------- All of them

    async def run(self, kind: str, seconds: float) -> None:
        """Many clients of this kind for so long, and on a slow machine until one has connected."""
        one = getattr(self, kind)
        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(self._again_and_again(one)) for _ in range(CLIENTS[kind])]
            await asyncio.sleep(seconds)
            await self._connected.wait()
            for client in clients:
                client.cancel()

    async def _again_and_again(self, one: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await one()
            except OSError:  # also ssl.SSLError: the server has closed the connection
                self.counts["closed"] += 1
                await asyncio.sleep(0)


CLIENTS = {"valid": 32, "bad": 32, "handshakes": 32, "idle": 1000, "slow": 200}


def facts(target: Target, kind: str, seconds: float) -> str:
    """The argument of this program."""
    return json.dumps({"target": asdict(target), "kind": kind, "seconds": seconds})


def main() -> None:
    given = json.loads(sys.argv[1])
    flood = Flood(Target(**given["target"]))
    asyncio.run(flood.run(given["kind"], given["seconds"]))
    print(json.dumps(flood.counts))


if __name__ == "__main__":
    main()
