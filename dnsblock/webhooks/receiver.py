"""One webhook: its queue, tries with back-off, dead letters, and its state on the disk.

Events are delivered in the sequence of the ledger, at least once. Only this webhook waits for its server.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, get_args

from dnsblock.clock import utc_now
from dnsblock.config_webhooks import Webhook
from dnsblock.errors import Refused, counted
from dnsblock.https import Unreachable, connected
from dnsblock.log import event, fault
from dnsblock.orders.events import issuer_of
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.records import AcceptedRestore, Position, Record
from dnsblock.retries import BackOff
from dnsblock.standard_webhooks import read_secrets
from dnsblock.webhooks.sending import Failure, Reason, body_of, post
from dnsblock.webhooks.state import DeadLetter, NotAState, State, StateFile, event_id

FIRST_BACK_OFF_SECONDS, MAX_BACK_OFF_SECONDS = 1.0, 3600.0
GIVE_UP_AFTER = timedelta(days=3)
REJECTED_AFTER = timedelta(hours=1)  # of one event that the server rejects, while it may accept the next one
STORE_SECONDS = 1.0  # while many events are delivered; a kill repeats those since
BATCH = 1000  # records that are looked at without a pause
REASONS: tuple[Reason, ...] = get_args(Reason)


class Pending(NamedTuple):
    """An event to be sent."""

    record: Record
    digest: str  # SHA-256 of the record's line
    dead_letter: DeadLetter | None = None  # an operator wants it to be sent again


class Receiver:
    """Sends the events of one issuer to one server. All methods are called in the event loop."""

    def __init__(self, options: Webhook, path: Path, ledger: Ledger, origin: Callable[[], str]) -> None:
        """`path`: the file of its state. Without one, the webhook begins with the next event."""
        self.options, self.file = options, StateFile(path, options.name)
        self.delivered = 0
        self.failures: Counter[Reason] = Counter(dict.fromkeys(REASONS, 0))
        self.was_interrupted = False  # in the middle of a request
        self._ledger, self._origin = ledger, origin
        self.queue: deque[int] = deque()  # numbers of records
        self.next_try = 0.0  # monotonic
        self._back_off = BackOff(FIRST_BACK_OFF_SECONDS, MAX_BACK_OFF_SECONDS)
        self._rejected: tuple[str, datetime] | None = None  # an event, and when it was first rejected
        self._wakeup = asyncio.Event()
        self._logged: str | None = None
        self._stored_at = 0.0
        self.state = self._load()
        self._seen = self.state.position.records

    def _load(self) -> State:
        end, fresh = self._ledger.position, (self.options.issuer, self.options.url)
        try:
            state = State.load(self.file.path)
        except (NotAState, OSError) as err:
            text = (
                f"webhook {self.options.name}: its state cannot be read, so the events of three days are sent"
            )
            event(logging.ERROR, f"{text} again: {self.file.path}: {err}")
            state = State(*fresh, _days_ago(self._ledger))
        if state is None or state.issuer != self.options.issuer:
            state = State(*fresh, end)
        if state.url != self.options.url:
            state.url, state.is_gone = self.options.url, False
        state.position = _known(self._ledger, state.position)
        # At once: if the process is killed, the next one would begin with its next event.
        self.file.store(self.file.version, state.encoded())
        return state

    # ------- Its input -------

    def configure(self, options: Webhook) -> None:
        """Takes other options. A server at another URL is tried at once, even after 410."""
        if options == self.options:
            return
        if options.url != self.options.url:
            self.state.url, self.state.is_gone = options.url, False
        if options.events != self.options.events:
            self.queue.clear()
            self._seen = self.state.position.records
        self.options = options
        self._try_now()

    async def look(self, ledger: Ledger) -> None:
        """Adds new events to the queue."""
        if ledger is not self._ledger:  # an operator has accepted another one, or it is not used
            self._ledger = ledger
            self.state.position = _known(ledger, self.state.position)
            self._seen = self.state.position.records
            self.queue.clear()
            self.state.dead = [one for one in self.state.dead if self.event(one.id) is not None]
        had = len(self.queue)
        while self._seen < len(ledger.records):
            batch = ledger.records[self._seen : self._seen + BATCH]
            self.queue.extend(record.n for record in batch if self._is_wanted(record))
            self._seen += len(batch)
            await asyncio.sleep(0)
        if len(self.queue) > had:
            self._wakeup.set()
        elif not self.queue and self._seen:  # what follows is of no interest
            self.state.position = Position(self._seen, ledger.hashes[self._seen - 1])

    def _is_wanted(self, record: Record) -> bool:
        return issuer_of(record) == self.options.issuer and record.kind in self.options.events

    def resend(self, ids: Collection[str] | None) -> int:
        """Sends dead letters again, or other events with these ids; None: all dead letters. Returns how many.

        The server is tried at once, even after 410.
        """
        now, dead_letters = utc_now(), self.state.dead
        wanted = [one for one in dead_letters if ids is None or one.id in ids]
        for one in wanted:
            one.resent_at = now
        known = {one.id for one in dead_letters}
        others = [] if ids is None else [self.event(one) for one in ids if one not in known]
        for pending in others:
            if pending is not None:
                dead_letter = _dead_letter(pending, "sent again", now)
                dead_letter.resent_at = now
                self.state.add(dead_letter)
        self.state.is_gone, self.state.failing_since = False, None
        self._try_now()
        return len(wanted) + sum(one is not None for one in others)

    def event(self, wanted: str) -> Pending | None:
        """An event of the issuer by its id; None if there is none."""
        number = wanted.partition("-")[0]
        if not (number.isascii() and number.isdigit() and len(number) < 16):
            return None
        n = int(number)
        if not 1 <= n <= len(self._ledger.records):
            return None
        pending = self._pending(n)
        is_it = event_id(n, pending.digest) == wanted and issuer_of(pending.record) == self.options.issuer
        return pending if is_it else None

    def _try_now(self) -> None:
        self._back_off.after_success()
        self.next_try = 0.0
        self.file.version += 1
        self._wakeup.set()

    # ------- Delivery -------

    async def run(self) -> None:
        """Delivers events until it is cancelled."""
        while True:
            self._wakeup.clear()
            try:
                while self._is_due:
                    failure = await self._burst()
                    if failure is not None:
                        self._failed(failure)
                self._give_up()
                await self._store()
            except Exception:  # this webhook only
                fault(f"internal error with the webhook {self.options.name}")
                self._failed(Failure("internal", "internal error, see the log"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause):
                    await self._wakeup.wait()

    @property
    def _is_due(self) -> bool:
        return not self.state.is_gone and time.monotonic() >= self.next_try and self.head() is not None

    @property
    def _pause(self) -> float | None:
        if self.head() is None:
            return None
        wait = MAX_BACK_OFF_SECONDS if self.state.is_gone else self.next_try - time.monotonic()
        return max(0.0, min(wait, MAX_BACK_OFF_SECONDS))  # events become too old meanwhile

    def head(self) -> Pending | None:
        """The next event: what an operator wants to be sent again comes first."""
        for dead_letter in self.state.dead:
            if dead_letter.resent_at is not None and (pending := self.event(dead_letter.id)) is not None:
                return pending._replace(dead_letter=dead_letter)
        return self._pending(self.queue[0]) if self.queue else None

    def _pending(self, n: int) -> Pending:
        return Pending(self._ledger.records[n - 1], self._ledger.hashes[n - 1])

    async def _burst(self) -> Failure | None:
        """Sends events over one connection until none is due, or until a try fails."""
        options, sent = self.options, 0
        try:
            secrets = await asyncio.to_thread(read_secrets, options.secret_file)
            async with connected(options.ca) as client:
                while self._is_due and self.options is options and (head := self.head()) is not None:
                    body = body_of(head.record, self._origin())
                    event_number = event_id(head.record.n, head.digest)
                    failure = await post(client, options.url, event_number, body, secrets)
                    if failure is not None:
                        return failure
                    sent += 1
                    self._delivered(head)
                    if time.monotonic() - self._stored_at >= STORE_SECONDS:
                        await self._store()
        except Unreachable as err:
            # A server may close a connection that it has answered on. The next burst opens another one.
            is_closed = sent > 0 and err.kind in ("unreachable", "protocol")
            return None if is_closed else Failure(err.kind, str(err))
        except Refused as err:
            return Failure("unreadable", str(err.problems[0]))
        except asyncio.CancelledError:
            self.was_interrupted = True
            raise
        return None

    def _delivered(self, head: Pending) -> None:
        state, name = self.state, self.options.name
        self.delivered += 1
        state.delivered_at, state.delivered_n = utc_now(), head.record.n
        if state.failing_since is not None:
            event(logging.WARNING, f"webhook {name}: events are delivered again")
        self._logged = state.failing_since = state.error = self._rejected = None
        self._back_off.after_success()
        self._done(head)

    def _done(self, head: Pending) -> None:
        """The event is delivered, or given up."""
        if head.dead_letter is not None:
            self.state.dead = [one for one in self.state.dead if one is not head.dead_letter]
        # The ledger may have been replaced during the request.
        elif self.queue and self._pending(self.queue[0]).digest == head.digest:
            self.queue.popleft()
            self.state.position = Position(head.record.n, head.digest)
        self.file.version += 1

    def _failed(self, failure: Failure) -> None:
        """Counts a failed try, and waits for the next one. Logs a failure once, until it changes."""
        state, now = self.state, utc_now()
        self.failures[failure.reason] += 1
        state.failing_since = state.failing_since or now
        state.error = failure.text
        self.file.version += 1
        self.next_try = time.monotonic() + self._back_off.after_failure(failure.retry_after)
        if failure.text != self._logged:
            text = f"webhook {self.options.name}: an event was not delivered: {failure.text}"
            event(logging.WARNING, text, reason=failure.reason)
            self._logged = failure.text
        if failure.reason == "gone":
            state.is_gone = True
            text = (
                f"webhook {self.options.name}: the server wants no more events (HTTP 410): no more are sent"
            )
            event(logging.ERROR, f"{text} until `dnsblock webhook resend --all` or another URL")
        head = self.head()
        if failure.reason != "rejected" or head is None:
            self._rejected = None
            return
        current = event_id(head.record.n, head.digest)
        if self._rejected is None or self._rejected[0] != current:
            self._rejected = current, now
        elif now - self._rejected[1] >= REJECTED_AFTER:
            self._bury([head], failure.text)
            # The server works: the next event is tried at once.
            self._rejected = state.failing_since = None
            self._try_now()

    # ------- Dead letters -------

    def _give_up(self) -> None:
        """Makes dead letters of the events that are too old, if the server has failed for as long."""
        since, now = self.state.failing_since, utc_now()
        if since is None or now - since < GIVE_UP_AFTER:
            return
        old: list[Pending] = []
        for dead_letter in self.state.dead:
            is_old = dead_letter.resent_at is not None and now - dead_letter.resent_at >= GIVE_UP_AFTER
            if is_old and (pending := self.event(dead_letter.id)) is not None:
                old.append(pending._replace(dead_letter=dead_letter))
        for n in self.queue:
            pending = self._pending(n)
            if now - pending.record.at < GIVE_UP_AFTER:
                break
            old.append(pending)
        self._bury(old, self.state.error or "")

    def _bury(self, events: Collection[Pending], reason: str) -> None:
        """Makes dead letters of the first events."""
        for head in events:
            if head.dead_letter is None:
                self.state.add(_dead_letter(head, reason, utc_now()))
                self._done(head)
            else:
                head.dead_letter.resent_at = None
                head.dead_letter.reason, head.dead_letter.given_up_at = reason, utc_now()
                self.file.version += 1
        if events:
            what = counted(len(events), "event")
            text = f"webhook {self.options.name}: gave up {what}, see `dnsblock webhook list`: {reason}"
            event(logging.ERROR, text, dead_letters=len(self.state.dead), dropped=self.state.dropped)

    # ------- The state on the disk -------

    async def _store(self) -> None:
        """Stores the state if it has changed. A failure is logged once, and tried again later."""
        if not self.file.is_current:
            self._stored_at = time.monotonic()
            await asyncio.to_thread(self.file.store, self.file.version, self.state.encoded())

    def close(self) -> None:
        """Stores the state at the end of the process."""
        if not self.file.is_current:
            self.file.store(self.file.version, self.state.encoded())

    def remove(self) -> None:
        """Removes the state: the webhook is not configured any more."""
        if self.queue or self.state.dead:
            counts = f"{counted(len(self.queue), 'event')} and {counted(len(self.state.dead), 'dead letter')}"
            event(logging.WARNING, f"webhook {self.options.name} was removed, with {counts} undelivered")
        self.file.remove()


def _dead_letter(pending: Pending, reason: str, now: datetime) -> DeadLetter:
    record = pending.record
    order_id: str | None = getattr(record.fact, "order_id", None)
    return DeadLetter(record.n, pending.digest, record.kind, order_id, record.at, reason, now)


def _known(ledger: Ledger, position: Position) -> Position:
    """The position, or where to begin in a ledger that an operator has accepted instead of another one."""
    if ledger.extends(position):
        return position
    restores = (record.fact for record in reversed(ledger.records))
    for fact in restores:
        if isinstance(fact, AcceptedRestore) and ledger.extends(fact.found):
            return fact.found
    return _days_ago(ledger)


def _days_ago(ledger: Ledger) -> Position:
    """Before the events that are not too old yet."""
    since = utc_now() - GIVE_UP_AFTER
    n = len(ledger.records)
    while n > 0 and ledger.records[n - 1].at >= since:
        n -= 1
    return Position(n, ledger.hashes[n - 1] if n else None)
