"""Webhooks over restarts, kills and restored ledgers: every event arrives, at least once."""

import random
import shutil
from functools import partial

from unit.https_server import Authority

from .harness import Subject
from .orders import as_yaml, block
from .receivers import Held, Receiver, answer, events_in_ledger, listed, webhook
from .tools import wait_for

KILLS = 6


def submit(subject: Subject, order_id: str) -> None:
    subject.submit(f"{order_id}.yaml", as_yaml(block(order_id, [f"{order_id}.example"])).encode())


def numbers(receiver: Receiver) -> list[int]:
    return [one.n for one in receiver.accepted]


def has_all(subject: Subject, receiver: Receiver) -> bool:
    return {n for n, _ in events_in_ledger(subject)} <= set(numbers(receiver))


def has_some(subject: Subject, receiver: Receiver, some: int) -> bool:
    return len(receiver.accepted) >= some or has_all(subject, receiver)


def test_after_a_restart_delivery_goes_on_where_it_was(subject: Subject, authority: Authority):
    """No event is missing, and none comes twice after a regular stop."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        receiver.wait_for_kind("activated", "block-1")
        receiver.always = 500
        submit(subject, "block-2")
        wait_for(lambda: listed(subject)["state"] == "failing", "a failed try")
        assert subject.stop() == 0
        receiver.always = 204
        subject.launch()
        submit(subject, "block-3")
        receiver.wait_for_kind("activated", "block-3")
        assert [(one.n, one.kind) for one in receiver.accepted] == events_in_ledger(subject)


def test_a_kill_between_delivery_and_record_repeats_the_event(subject: Subject, authority: Authority):
    """At least once: the id tells the receiver that it has it already."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        held = Held(answer(204))
        receiver.answers.append(held)
        submit(subject, "block-1")
        assert held.arrived.wait(120)
        subject.kill()  # the receiver has the event; the daemon does not know it
        held.release()
        subject.launch()
        receiver.wait_for_kind("activated", "block-1")
        assert [one.id for one in receiver.tries[:2]] == [receiver.accepted[0].id] * 2
        assert sorted(set(numbers(receiver))) == [n for n, _ in events_in_ledger(subject)]


def test_kills_at_any_time_lose_no_event(subject: Subject, authority: Authority):
    """Orders come in while the daemon is killed; the receiver has every event of the ledger in the end."""
    chance = random.Random(1)
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        for number in range(KILLS):
            for part in range(4):
                submit(subject, f"block-{number}-{part}")
            seen = len(receiver.accepted) + chance.randrange(10)
            wait_for(partial(has_some, subject, receiver, seen), "some events")
            subject.kill()
            subject.launch()
        wait_for(lambda: has_all(subject, receiver), "every event")
        wanted = [n for n, _ in events_in_ledger(subject)]
        # In sequence, but for what a kill has repeated.
        first = list(dict.fromkeys(numbers(receiver)))
        assert first == wanted
        assert receiver.invalid == []


def test_a_restart_in_place_loses_no_event(subject: Subject, authority: Authority):
    """SIGUSR2, with events in the queue."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        receiver.answers.append(500)
        submit(subject, "block-1")
        subject.restart_in_place()
        receiver.wait_for_kind("activated", "block-1")
        assert list(dict.fromkeys(numbers(receiver))) == [n for n, _ in events_in_ledger(subject)]


def test_a_corrupt_state_is_reported_and_recent_events_are_sent_again(subject: Subject, authority: Authority):
    """One broken file stops neither the daemon nor the webhook."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        receiver.wait_for_kind("activated", "block-1")
        assert subject.stop() == 0
        path = subject.folder / "state" / "webhooks" / "ministry.json"
        path.write_bytes(path.read_bytes()[:-20])
        receiver.accepted.clear()
        subject.launch()
        receiver.wait_for_kind("activated", "block-1")
        assert numbers(receiver) == [n for n, _ in events_in_ledger(subject)]
        assert "its state cannot be read" in subject.stderr()


def test_the_state_of_a_webhook_that_is_not_configured_any_more_is_removed(
    subject: Subject, authority: Authority
):
    """Also if it was removed while no daemon ran."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        assert subject.stop() == 0
        folder = subject.folder / "state" / "webhooks"
        assert [path.name for path in folder.iterdir()] == ["ministry.json"]
        subject.configure()
        subject.launch()
        assert list(folder.iterdir()) == []


def test_events_after_an_accepted_restore_are_delivered(subject: Subject, authority: Authority):
    """A restored ledger uses numbers again; the ids differ, and nothing new is left out."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        receiver.wait_for_kind("activated", "block-1")
        assert subject.stop() == 0
        ledger = subject.folder / "state" / "ledger.jsonl"
        shutil.copy(ledger, subject.folder / "backup")
        subject.launch()
        submit(subject, "block-2")
        lost = receiver.wait_for_kind("activated", "block-2")
        assert subject.stop() == 0
        shutil.copy(subject.folder / "backup", ledger)
        subject.launch()
        assert subject.cli("log accept-restore", "--reason", "a backup").code == 0
        submit(subject, "block-3")
        receiver.wait_for_kind("activated", "block-3")
        delivered = {one.id for one in receiver.accepted}
        after = [one for one in receiver.accepted if one.order_id == "block-3"]
        assert [one.kind for one in after] == ["received", "accepted", "activated"]
        assert lost.id in delivered
        assert not {one.id for one in after} & {one.id for one in receiver.accepted if one not in after}
