"""Events of the ledger as server-sent events (WHATWG HTML, section 9.2), for the clients of the issuers' API.

An event is a record of the ledger. A stream is a position in the ledger, so a slow reader takes no memory: it
is disconnected, and resumes with the id of the last event that it received.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dnsblock.http.answers import ApiError, asked
from dnsblock.http.callers import Caller, Identify
from dnsblock.http.control import Control, View
from dnsblock.http.models_queries import EventsQuery
from dnsblock.orders.events import facts_of, issuer_of
from dnsblock.orders.records import Record

MAX_STREAMS = 64
MAX_STREAMS_PER_CLIENT = 8
HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 1.0  # for records that no publish has caused
STREAM_SECONDS = 3600.0  # then the client has to present its credentials again
BATCH = 1000  # records that are looked at without a pause
RETRY_MS = 2000  # for the client, before it connects again
MAX_DIGITS = 15  # of an event id


def events_routes(control: Control, identify: Identify, streams: "Streams") -> list[Route]:
    """`/v1/events`."""

    async def get_events(request: Request) -> Response:
        """Streams the events after the header Last-Event-ID, or after the parameter `after`, or new ones."""
        caller, query = await identify(request, "read"), asked(request, EventsQuery)
        view = control.view(caller.principal)
        end = len(view.publisher.recorder.ledger.records)
        after = _last_event_id(request)
        if after is None:
            after = query.after
        if after is not None and after > end:
            reason = f"there is no event {after}: the last one is {end}. Start again with after=0"
            raise ApiError(409, "UNKNOWN_EVENT", reason)
        return streams.response(view, caller, end if after is None else after)

    return [Route("/v1/events", get_events)]


def _last_event_id(request: Request) -> int | None:
    text = request.headers.get("last-event-id")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise ApiError(400, "MALFORMED", "Last-Event-ID: must be the id of an event")
    return int(text)


class Streams:
    """The open streams of events."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()  # by client
        self._wakeups: set[asyncio.Event] = set()
        self._generation = 0

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open.total()

    def wake(self) -> None:
        """The ledger may have new records."""
        for wakeup in self._wakeups:
            wakeup.set()

    def end(self) -> None:
        """Ends all streams. The clients connect again, with the credentials that are valid then."""
        self._generation += 1
        self.wake()

    def response(self, view: View, caller: Caller, after: int) -> Response:
        """A stream of the events after a record. Raises `ApiError` if there are too many streams."""
        client = str(caller.principal)
        if self._open[client] >= MAX_STREAMS_PER_CLIENT or self.count >= MAX_STREAMS:
            reason = f"at most {MAX_STREAMS_PER_CLIENT} streams of a client, and {MAX_STREAMS} in all"
            raise ApiError(503, "BUSY", reason, headers={"retry-after": "10"})
        return _Stream(self, client, view, caller, after)

    @contextlib.contextmanager
    def opened(self, client: str) -> Iterator[asyncio.Event]:
        """Counts a stream while the block runs. The event is set when there may be something to send."""
        wakeup = asyncio.Event()
        self._open[client] += 1
        self._wakeups.add(wakeup)
        try:
            yield wakeup
        finally:
            self._wakeups.discard(wakeup)
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]

    async def events(
        self, view: View, caller: Caller, after: int, wakeup: asyncio.Event
    ) -> AsyncGenerator[bytes, None]:
        """The events after a record that the caller may see, and heartbeats, until the stream ends."""
        now, generation = asyncio.get_running_loop().time, self._generation
        until, beat = now() + STREAM_SECONDS, now()
        yield b"retry: %d\n\n" % RETRY_MS
        while generation == self._generation and now() < until:
            wakeup.clear()
            records = view.publisher.recorder.ledger.records
            if after > len(records):  # another ledger, which an operator has accepted
                return
            for record in records[after : after + BATCH]:
                after = record.n
                if caller.sees(issuer_of(record)):
                    yield event_of(record, caller)
                    beat = now()
            if now() - beat >= HEARTBEAT_SECONDS:
                yield b": heartbeat\n\n"
                beat = now()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if after < len(records) else POLL_SECONDS):
                    await wakeup.wait()


class _Stream(StreamingResponse):
    """The response with the events."""

    def __init__(self, streams: Streams, client: str, view: View, caller: Caller, after: int) -> None:
        super().__init__((), headers={"cache-control": "no-store"}, media_type="text/event-stream")
        self._streams, self._client = streams, client
        self._facts = (view, caller, after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.opened(self._client) as wakeup:
            async with aclosing(self._streams.events(*self._facts, wakeup)) as events:
                self.body_iterator = events
                await super().__call__(scope, receive, send)


def event_of(record: Record, caller: Caller) -> bytes:
    """A record as an event. Its data is one line of JSON."""
    facts = facts_of(record)
    if caller.is_staff:
        facts["by"] = record.by.as_json()
    data = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    return f"id: {record.n}\nevent: {record.kind}\ndata: {data}\n\n".encode()
