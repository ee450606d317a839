"""Webhooks whose servers are down, slow, broken or hostile: tried again, and nothing else waits for them."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from ports import free_port
from unit.https_server import Authority

from .clocks import FakeClock
from .harness import Subject, is_sinkholed
from .orders import as_yaml, block
from .receivers import Held, Receiver, answer, dripping, events_in_ledger, listed, raw, webhook
from .tools import wait_for


def submit(subject: Subject, order_id: str, name: str = "one.example") -> None:
    subject.submit(f"{order_id}.yaml", as_yaml(block(order_id, [name])).encode())


def test_an_event_is_tried_again_with_the_same_id_and_a_new_signature(subject: Subject, authority: Authority):
    """Standard Webhooks: the id is the same for each try, the timestamp is that of the try."""
    with Receiver(authority.certificate()) as receiver:
        receiver.answers.extend([500, 404, 401, answer(502, b"x" * 200_000), answer(429, retry_after="1")])
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        receiver.wait_for_kind("activated")
        assert [one.id for one in receiver.tries[:6]] == [receiver.accepted[0].id] * 6
        times = [one.timestamp for one in receiver.tries[:6]]
        assert times == sorted(times)
        assert times[-1] > times[0]
        assert receiver.invalid == []
        assert [(one.n, one.kind) for one in receiver.accepted] == events_in_ledger(subject)
        assert listed(subject)["failures"] == {"status": 5}
        wait_for(lambda: listed(subject)["state"] == "ok", "the success is counted")
        assert "events are delivered again" in subject.stderr()


def test_retry_after_lengthens_the_wait(subject: Subject, authority: Authority):
    """RFC 9110, section 10.2.3. The first delay is at most a second without it."""
    with Receiver(authority.certificate()) as receiver:
        receiver.answers.append(answer(503, retry_after="4"))
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        receiver.wait_for_kind("activated")
        assert receiver.tries[1].timestamp - receiver.tries[0].timestamp >= 3


UNUSABLE = {
    "a redirect": (answer(307, location="https://127.0.0.1:1/elsewhere"), "redirect"),
    "a redirect without a target": (answer(302), "redirect"),
    "garbage": (raw(b"\x00\xff" * 500 + b"\r\n\r\n"), "protocol"),
    "half a status line": (raw(b"HTTP/1.1 2"), "protocol"),
    "nothing": (raw(b""), "protocol"),
    "endless headers": (raw(b"HTTP/1.1 200 OK\r\n" + b"x-header: y\r\n" * 100_000), "protocol"),
    "a refusal of this event": (answer(422), "rejected"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_response_is_a_failure_and_is_counted_by_reason(
    subject: Subject, authority: Authority, case: str
):
    """The event is sent again, and later events wait for it."""
    behaviour, reason = UNUSABLE[case]
    with Receiver(authority.certificate()) as receiver:
        receiver.answers.append(behaviour)
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        receiver.wait_for_kind("activated")
        metrics = subject.metrics()
        assert metrics.total("dnsblock_webhook_failures_total", webhook="ministry", reason=reason) == 1
        assert metrics.total("dnsblock_webhook_failures_total", webhook="ministry") == 1
        assert [(one.n, one.kind) for one in receiver.accepted] == events_in_ledger(subject)
        assert set(receiver.paths) == {"/events"}


HARMLESS = {
    "a huge body": answer(200, b"x" * 50_000_000),
    "a body that is no JSON": answer(200, b"<h1>thank you</h1>", content_type="text/html"),
    "a gzip that is none": answer(202, b"not gzip", content_encoding="gzip"),
    "a body that never ends": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegun"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_the_body_of_a_response_does_not_matter(subject: Subject, authority: Authority, case: str):
    """A status of 2xx accepts the event; the body is neither parsed nor kept."""
    with Receiver(authority.certificate()) as receiver:
        receiver.answers.append(HARMLESS[case])
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        receiver.wait_for_kind("activated")
        assert len({one.id for one in receiver.tries}) == len(receiver.tries)
        assert listed(subject)["failures"] == {}


def test_a_server_with_another_certificate_gets_nothing(
    subject: Subject, authority: Authority, tmp_path: Path
):
    """Another authority, another name, and an expired certificate: TLS is always verified."""
    other = Authority(tmp_path / "other")
    wrong = [other.certificate(), authority.certificate("DNS:other.example"), authority.certificate(days=0)]
    for number, certificate in enumerate(wrong):
        with Receiver(certificate) as receiver:
            if number:
                subject.begin_again()
            subject.start(webhooks=[webhook(subject, receiver, authority)])
            submit(subject, "block-1")
            wait_for(lambda: listed(subject)["failures"].get("tls"), "a failed handshake")
            assert receiver.paths == []
            assert "certificate" in listed(subject)["error"]


def test_a_server_that_is_down_gets_its_events_when_it_is_back(subject: Subject, authority: Authority):
    """In their sequence, each once."""
    port = free_port()  # not an ephemeral one: a client must not take it while the server is down
    with Receiver(authority.certificate(), port=port) as receiver:
        hook, secret = webhook(subject, receiver, authority), receiver.secret
    subject.start(webhooks=[hook])
    for number in range(3):
        submit(subject, f"block-{number}", f"n{number}.example")
    wait_for(lambda: listed(subject)["failures"].get("unreachable", 0) >= 2, "failed tries")
    wait_for(lambda: listed(subject)["queue"] == len(events_in_ledger(subject)), "all events wait")
    found = listed(subject)
    assert found["state"] == "failing"
    assert found["oldest_at"] is not None
    assert subject.cli("webhook list").code == 1
    assert "failing since" in subject.cli("webhook list", as_json=False).stdout
    with Receiver(authority.certificate(), secret, port) as receiver:
        wait_for(lambda: len(receiver.accepted) == found["queue"], "every event")
        assert [(one.n, one.kind) for one in receiver.accepted] == events_in_ledger(subject)
    logged = [line for line in subject.stderr().splitlines() if "was not delivered" in line]
    assert len(logged) == 1


def test_a_webhook_that_hangs_delays_no_other_and_no_order_and_not_the_end(
    subject: Subject, authority: Authority
):
    """Each webhook has a task of its own, which ends with the process."""
    with Receiver(authority.certificate()) as hanging, Receiver(authority.certificate()) as working:
        held = Held(answer(204))
        hanging.always = held
        hooks = [webhook(subject, hanging, authority), webhook(subject, working, authority, name="second")]
        subject.start(webhooks=hooks)
        for number in range(5):
            submit(subject, f"block-{number}", f"n{number}.example")
            assert is_sinkholed(subject.query(f"n{number}.example"))
        assert held.arrived.wait(120)
        working.wait_for_kind("activated", "block-4")
        assert len({one.id for one in hanging.tries}) == 1
        # A request that takes 30 seconds is a failure, and is logged. The end does not wait for it.
        logged = subject.stderr().count("was not delivered")
        assert subject.stop() == 0
        assert subject.stderr().count("was not delivered") == logged
        held.release()


def test_a_response_that_does_not_end_is_a_timeout(subject: Subject, authority: Authority):
    """30 seconds for the whole exchange, however often something arrives. The event is sent again."""
    endless = {
        "slow": dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x", 1),
        "interim": dripping(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01),
    }
    with ExitStack() as stack:
        receivers = {name: stack.enter_context(Receiver(authority.certificate())) for name in endless}
        for name, behaviour in endless.items():
            receivers[name].answers.append(behaviour)
        hooks = [webhook(subject, one, authority, name=name) for name, one in receivers.items()]
        subject.start(webhooks=hooks)
        submit(subject, "block-1")
        assert is_sinkholed(subject.query("one.example"))
        for name, receiver in receivers.items():
            receiver.wait_for_kind("activated")
            failures = "dnsblock_webhook_failures_total"
            assert subject.metrics().total(failures, webhook=name, reason="timeout") == 1
            assert subject.metrics().total(failures, webhook=name) == 1


def test_after_410_nothing_more_is_sent_until_an_operator_wants_it(subject: Subject, authority: Authority):
    """Standard Webhooks: the server does not want events any more."""
    with Receiver(authority.certificate()) as receiver:
        receiver.answers.append(410)
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        wait_for(lambda: listed(subject)["state"] == "disabled", "the webhook is disabled")
        submit(subject, "block-2", "two.example")
        subject.restart()
        assert listed(subject)["state"] == "disabled"
        assert subject.metrics().total("dnsblock_webhook_disabled", webhook="ministry") == 1
        wait_for(lambda: listed(subject)["queue"] == len(events_in_ledger(subject)), "all events wait")
        assert len(receiver.tries) == 1
        assert "HTTP 410" in subject.stderr()
        assert subject.cli("webhook resend", "--all").code == 0
        wait_for(lambda: len(receiver.accepted) == len(events_in_ledger(subject)), "every event")
        assert [(one.n, one.kind) for one in receiver.accepted] == events_in_ledger(subject)
        wait_for(lambda: listed(subject)["state"] == "ok", "the success is counted")


def test_after_three_days_events_are_dead_letters_which_can_be_sent_again(
    subject: Subject, clock: FakeClock, tmp_path: Path
):
    """They are kept over a restart, and sent in their sequence when an operator wants it."""
    authority = Authority(tmp_path / "long", days=30)
    with Receiver(authority.certificate(days=30)) as receiver:
        receiver.always, receiver.judges_time = 500, False
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, "block-1")
        wait_for(lambda: listed(subject)["state"] == "failing", "a failed try")
        clock.step_to(2 * 86_400)
        submit(subject, "block-2", "two.example")
        wait_for(lambda: listed(subject)["queue"] == len(events_in_ledger(subject)), "both orders wait")
        clock.step_to(3 * 86_400 + 600)
        wait_for(lambda: listed(subject)["dead_letters"], "dead letters")
        found = listed(subject)
        first = {dead_letter["order_id"] for dead_letter in found["dead_letters"]}
        assert first == {"block-1"}
        assert all(dead_letter["reason"] == "HTTP 500" for dead_letter in found["dead_letters"])
        assert found["queue"] == 3  # of the second order: it is a day old
        subject.restart()
        assert listed(subject)["dead_letters"] == found["dead_letters"]
        assert subject.cli("webhook list").code == 1
        shown = subject.cli("webhook list", as_json=False)
        assert found["dead_letters"][0]["id"] in shown.stdout
        receiver.always = 204
        assert subject.cli("webhook resend", "--all").json["events"] == len(found["dead_letters"])
        wait_for(lambda: len(receiver.accepted) == len(events_in_ledger(subject)), "every event")
        delivered = [(one.n, one.kind) for one in receiver.accepted]
        assert sorted(delivered) == events_in_ledger(subject)
        # The second order may have been delivered before the command; each has its own sequence.
        for order_id in ("block-1", "block-2"):
            of_order = [one.n for one in receiver.accepted if one.order_id == order_id]
            assert of_order == sorted(of_order)
        wait_for(lambda: not listed(subject)["dead_letters"], "the last success is counted")
        assert subject.cli("webhook list").code == 0
