"""All webhooks of a daemon: follows the ledger and the configuration. Nothing waits for a webhook.

A server that is slow or broken delays neither a publish nor another webhook nor the end of the process.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any

from dnsblock.clock import utc_now
from dnsblock.config_webhooks import Webhook
from dnsblock.errors import Problem, Refused
from dnsblock.log import fault
from dnsblock.publishing import Publisher
from dnsblock.times import utc
from dnsblock.webhooks.receiver import Receiver
from dnsblock.webhooks.state import FOLDER

POLL_SECONDS = 1.0  # how often the ledger is looked at
NOT_SEEN = "no dead letter and no event has this id: see `dnsblock webhook list`"


class Webhooks:
    """Follows a publisher."""

    def __init__(self, publisher: Publisher) -> None:
        """Reads the state of each webhook. Events that are recorded from now on are sent."""
        self._publisher = publisher
        self._folder = publisher.config.state / FOLDER
        self._followed: tuple[Webhook, ...] = ()
        self._running: dict[str, asyncio.Task[None]] = {}
        self.receivers: dict[str, Receiver] = {}
        self._configure()
        self._remove_others()

    @property
    def was_interrupted(self) -> bool:
        """Whether a request was under way when the daemon stopped. Its thread may wait for a name server."""
        return any(receiver.was_interrupted for receiver in self.receivers.values())

    async def run(self) -> None:
        """Delivers events until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    await self._follow(tasks)
                except Exception:  # DNS and orders need no webhook
                    fault("internal error while following webhooks")
                await asyncio.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Stores the state of each webhook, at the end of the process."""
        for receiver in self.receivers.values():
            receiver.close()

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        while gone := self._configure():
            for name in gone:
                if (task := self._running.pop(name, None)) is not None:
                    task.cancel()
                    await asyncio.wait([task])
                self.receivers.pop(name).remove()
        for name, receiver in self.receivers.items():
            if name not in self._running:
                self._running[name] = tasks.create_task(receiver.run())
            await receiver.look(self._publisher.recorder.ledger)

    def _configure(self) -> list[str]:
        """Takes the webhooks of the configuration in force; returns the names of those that are gone.

        A webhook for another issuer is another one: it begins again, with the next event.
        """
        webhooks = self._publisher.config.webhooks
        if webhooks is self._followed:
            return []
        wanted = {one.name: one for one in webhooks}
        gone = [
            name
            for name, receiver in self.receivers.items()
            if name not in wanted or wanted[name].issuer != receiver.options.issuer
        ]
        for name, options in wanted.items():
            if name in self.receivers and name not in gone:
                self.receivers[name].configure(options)
            elif name not in gone:
                ledger = self._publisher.recorder.ledger
                self.receivers[name] = Receiver(options, self._folder / f"{name}.json", ledger, self._origin)
        if not gone:  # otherwise a webhook of the same name begins when the former one has ended
            self._followed = webhooks
        return gone

    def _origin(self) -> str:
        return self._publisher.recorder.signer.instance.origin

    def _remove_others(self) -> None:
        """Removes the state of webhooks that were removed from the configuration while no daemon ran."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.json"):
                if path.stem not in self.receivers:
                    path.unlink()

    # ------- For commands and metrics -------

    def resend(self, ids: Collection[str] | None, only: str | None) -> dict[str, Any]:
        """Sends dead letters, or other events, again; None: all dead letters. Raises `Refused`.

        `only`: one webhook.
        """
        receivers = self._named(only)
        if ids is None:
            counts = {name: receiver.resend(None) for name, receiver in receivers.items()}
            return {"events": sum(counts.values()), "webhooks": list(counts)}
        asked: dict[str, list[str]] = {}
        unknown: list[str] = []
        for one in dict.fromkeys(ids):
            dead = [
                name
                for name, found in receivers.items()
                if any(one == dead_letter.id for dead_letter in found.state.dead)
            ]
            names = dead or [name for name, found in receivers.items() if found.event(one) is not None]
            for name in names:
                asked.setdefault(name, []).append(one)
            if not names:
                unknown.append(one)
        if unknown:
            raise Refused([Problem("webhooks", None, one, NOT_SEEN) for one in unknown])
        return {
            "events": sum(receivers[name].resend(some) for name, some in asked.items()),
            "webhooks": list(asked),
        }

    def _named(self, only: str | None) -> dict[str, Receiver]:
        if only is None:
            return self.receivers
        if only not in self.receivers:
            raise Refused([Problem("webhooks", None, only, "no webhook has this name")])
        return {only: self.receivers[only]}

    def facts(self) -> Iterator[dict[str, Any]]:
        """Each webhook as JSON. Times are RFC 3339 in UTC."""
        for name, receiver in self.receivers.items():
            state, oldest = receiver.state, oldest_of(receiver)
            yield {
                "name": name,
                "issuer": receiver.options.issuer,
                "url": receiver.options.place,
                "state": state_of(receiver),
                "delivered_at": _time(state.delivered_at),
                "delivered_n": state.delivered_n,
                "failing_since": _time(state.failing_since),
                "error": state.error,
                "failures": {reason: count for reason, count in receiver.failures.items() if count},
                "delivered": receiver.delivered,
                "queue": len(receiver.queue),
                "oldest_at": _time(oldest),
                "dead_letters": [one.as_json() | {"id": one.id} for one in state.dead],
                "dropped": state.dropped,
            }


def state_of(receiver: Receiver) -> str:
    """`ok`, `failing`, or `disabled` after 410."""
    if receiver.state.is_gone:
        return "disabled"
    return "ok" if receiver.state.failing_since is None else "failing"


def oldest_of(receiver: Receiver) -> datetime | None:
    """The time of the oldest event that waits; None: none waits."""
    head = receiver.head()
    return (
        None if head is None else head.record.at if head.dead_letter is None else head.dead_letter.resent_at
    )


def oldest_age(receiver: Receiver) -> float:
    """Seconds since the oldest event that waits; 0 if none waits."""
    oldest = oldest_of(receiver)
    return 0.0 if oldest is None else max(0.0, (utc_now() - oldest).total_seconds())


def _time(time: datetime | None) -> str | None:
    return None if time is None else utc(time)
