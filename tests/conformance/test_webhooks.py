"""Webhooks: each issuer gets the events of its own orders, signed and in sequence."""

import json
from pathlib import Path

import pytest
from unit.https_server import Authority

from .harness import ISSUER, Subject
from .issuing import COURT, ZONES, IssuersApi
from .orders import as_yaml, block, unblock
from .receivers import (
    Receiver,
    all_text,
    answer,
    events_in_ledger,
    free_of,
    listed,
    new_secret,
    webhook,
    write_secrets,
)
from .tools import wait_for


def submit(subject: Subject, order: dict) -> None:
    verdict = subject.submit(f"{order['order_id']}.yaml", as_yaml(order).encode())
    assert verdict["documents"][0]["verdict"] in ("accepted", "held", "proposed"), verdict


def test_an_issuer_gets_each_event_of_its_orders_signed_and_in_sequence(
    subject: Subject, authority: Authority
):
    """Standard Webhooks 1.0.0; each request is verified by its reference implementation."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, block("block-1", ["one.example", "two.example"]))
        submit(subject, unblock("lift-1", "block-1"))
        wait_for(lambda: len(receiver.accepted) >= len(events_in_ledger(subject)), "every event")
        assert [(one.n, one.kind) for one in receiver.accepted] == events_in_ledger(subject)
        kinds = receiver.kinds
        assert kinds.count("received") == kinds.count("accepted") == 2
        assert {"activated", "lifted"} <= set(kinds)
        assert receiver.invalid == []
        first = receiver.accepted[0]
        assert first.body["type"] == "order.received"
        assert first.body["timestamp"] == first.body["data"]["at"]
        assert first.headers["content-type"] == "application/json"
        assert len({one.id for one in receiver.accepted}) == len(receiver.accepted)
        assert receiver.paths == ["/events"] * len(receiver.accepted)


def test_the_data_of_an_event_is_that_of_the_issuers_api(api: IssuersApi, authority: Authority):
    """One source of events, one sequence of ids."""
    with Receiver(authority.certificate()) as receiver:
        every = ["received", "accepted", "activated", "receipt"]
        api.start(webhooks=[webhook(api.subject, receiver, authority, events=every)])
        assert api.submit(block("block-1", ["one.example"])).status_code == 201
        assert api.get("/v1/orders/ministry.example/block-1/receipt").status_code == 200
        receiver.wait_for_kind("receipt")
        wanted = {one.n: one.body["data"] for one in receiver.accepted}
        streamed = {}
        with api.client("ministry") as client, client.stream("GET", "/v1/events?after=0") as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    streamed[data["n"]] = data
                if wanted.keys() <= streamed.keys():
                    break
        assert {n: streamed[n] for n in wanted} == wanted
        assert [wanted[n]["kind"] for n in sorted(wanted)] == every
        assert wanted[min(wanted)]["by"] == {"kind": "issuer", "client": "ministry"}


def test_each_issuer_gets_only_its_own_events(subject: Subject, authority: Authority):
    """The orders of others do not exist for it."""
    with Receiver(authority.certificate()) as ministry, Receiver(authority.certificate()) as court:
        hooks = [
            webhook(subject, ministry, authority),
            webhook(subject, court, authority, name="court", issuer=COURT),
        ]
        subject.start(zones=ZONES, webhooks=hooks)
        submit(subject, block("of-ministry", ["one.example"]))
        submit(subject, block("of-court", ["two.example"], issuer=COURT))
        ministry.wait_for_kind("activated", "of-ministry")
        court.wait_for_kind("activated", "of-court")
        assert {one.body["data"]["issuer"] for one in ministry.tries} == {ISSUER}
        assert {one.body["data"]["issuer"] for one in court.tries} == {COURT}


def test_users_of_the_provider_are_not_named_in_events(subject: Subject, authority: Authority):
    """An event says that a local user caused it, and not which one."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, block("block-1", ["one.example"]))
        receiver.wait_for_kind("activated")
        assert receiver.accepted[0].body["data"]["by"] == {"kind": "local"}
        assert not any("uid" in json.dumps(one.body) for one in receiver.tries)


def test_events_may_be_chosen(subject: Subject, authority: Authority):
    """The option `events`."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority, events=["activated", "lifted"])])
        submit(subject, block("block-1", ["one.example"]))
        submit(subject, unblock("lift-1", "block-1"))
        receiver.wait_for_kind("activated", "lift-1")
        wait_for(lambda: "lifted" in receiver.kinds, "the end of the block")
        assert set(receiver.kinds) == {"activated", "lifted"}


def test_both_secrets_sign_during_a_rotation_and_no_reload_is_needed(subject: Subject, authority: Authority):
    """The receiver may change its secret at any time between the two changes here."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, block("block-1", ["one.example"]))
        receiver.wait_for_kind("activated", "block-1")
        assert receiver.accepted[-1].headers["webhook-signature"].count("v1,") == 1
        old, new = receiver.secret, new_secret()
        write_secrets(subject, "ministry", new, old)
        submit(subject, block("block-2", ["two.example"]))
        receiver.wait_for_kind("activated", "block-2")
        assert receiver.accepted[-1].headers["webhook-signature"].count("v1,") == 2
        receiver.secret = new
        submit(subject, block("block-3", ["three.example"]))
        receiver.wait_for_kind("activated", "block-3")
        write_secrets(subject, "ministry", new)
        submit(subject, block("block-4", ["four.example"]))
        receiver.wait_for_kind("activated", "block-4")
        assert receiver.invalid == []


def test_no_secret_is_in_a_log_in_the_state_or_in_an_output(subject: Subject, authority: Authority):
    """Neither the shared secret nor the query of a URL, which may be one."""
    with Receiver(authority.certificate()) as receiver:
        receiver.answers.append(500)
        token = "not-to-be-shown"
        hook = webhook(subject, receiver, authority, path=f"/events?token={token}")
        subject.start(webhooks=[hook], log={"level": "debug", "format": "json"})
        submit(subject, block("block-1", ["one.example"]))
        receiver.wait_for_kind("activated")
        assert set(receiver.paths) == {f"/events?token={token}"}
        shown = subject.cli("webhook list", as_json=False).stdout + json.dumps(subject.control.webhooks())
        metrics = str(subject.metrics().text)
        for text in (subject.stderr(), shown, metrics):
            assert free_of(text, receiver.secret)
            assert token not in text
        assert free_of(all_text(subject.folder / "state"), receiver.secret)
        assert "/events" in shown


def test_a_reload_adds_changes_and_removes_webhooks(subject: Subject, authority: Authority):
    """No restart is needed. A new webhook begins with the next event."""
    with Receiver(authority.certificate()) as first, Receiver(authority.certificate()) as second:
        subject.start()
        fixed = {"listen": subject.ready["listening"], "metrics": subject.ready["metrics"]}
        submit(subject, block("block-1", ["one.example"]))
        assert subject.control.webhooks()["webhooks"] == []

        subject.configure(webhooks=[webhook(subject, first, authority)], **fixed)
        subject.reload()
        wait_for(lambda: subject.control.webhooks()["webhooks"], "the webhook is known")
        submit(subject, block("block-2", ["two.example"]))
        first.wait_for_kind("activated", "block-2")
        assert {one.order_id for one in first.tries} == {"block-2"}

        subject.configure(webhooks=[webhook(subject, second, authority)], **fixed)
        subject.reload()
        wait_for(lambda: listed(subject)["url"] == second.url(), "the webhook has the new URL")
        submit(subject, block("block-3", ["three.example"]))
        second.wait_for_kind("activated", "block-3")
        assert {one.order_id for one in second.tries} == {"block-3"}

        subject.configure(**fixed)
        subject.reload()
        wait_for(lambda: not subject.control.webhooks()["webhooks"], "the webhook is gone")
        submit(subject, block("block-4", ["four.example"]))
        assert not list((subject.folder / "state" / "webhooks").iterdir())
        assert {one.order_id for one in (*first.tries, *second.tries)} == {"block-2", "block-3"}


def test_a_webhook_of_another_issuer_gets_nothing_of_the_former_one(subject: Subject, authority: Authority):
    """Events that waited for the former issuer are forgotten, even under the same name."""
    with Receiver(authority.certificate()) as receiver:
        receiver.always = 500
        hook = webhook(subject, receiver, authority)
        subject.start(zones=ZONES, webhooks=[hook])
        submit(subject, block("of-ministry", ["one.example"]))
        wait_for(lambda: listed(subject)["state"] == "failing", "a failed try")
        fixed = {"listen": subject.ready["listening"], "metrics": subject.ready["metrics"]}
        subject.configure(zones=ZONES, webhooks=[hook | {"issuer": COURT}], **fixed)
        subject.reload()
        known = subject.control.webhooks
        wait_for(lambda: [one["issuer"] for one in known()["webhooks"]] == [COURT], "the new issuer")
        receiver.tries.clear()
        receiver.always = 204
        submit(subject, block("of-court", ["two.example"], issuer=COURT))
        receiver.wait_for_kind("activated", "of-court")
        assert {one.body["data"]["issuer"] for one in receiver.tries} == {COURT}


WRONG = {
    "http": ({"url": "http://127.0.0.1:1/"}, "must be an https:// URL"),
    "password": ({"url": "https://me:secret@127.0.0.1/"}, "without a password"),
    "fragment": ({"url": "https://127.0.0.1/#x"}, "fragment"),
    "port": ({"url": "https://127.0.0.1:0/"}, "port"),
    "issuer": ({"issuer": "nobody.example"}, "has this issuer"),
    "event": ({"events": ["everything"]}, "events"),
    "none": ({"events": []}, "must not be empty"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_refused_with_its_reason(subject: Subject, case: str):
    """`dnsblock check` names the line and the value."""
    changed, reason = WRONG[case]
    write_secrets(subject, "ministry", new_secret())
    hook = {
        "name": "ministry",
        "issuer": ISSUER,
        "url": "https://127.0.0.1/",
        "secret_file": "ministry.secret",
    }
    subject.configure(webhooks=[hook | changed])
    said = subject.cli("check")
    assert said.code == 1
    assert any(reason in problem["reason"] for problem in said.json["problems"]), said.json


BROKEN_SECRETS = {
    "short": "whsec_" + "QUJD\n",
    "no prefix": new_secret().removeprefix("whsec_") + "\n",
    "not base64": "whsec_!!!!\n",
    "empty": "# nothing\n",
    "three": "".join(f"{new_secret()}\n" for _ in range(3)),
}


@pytest.mark.parametrize("case", BROKEN_SECRETS)
def test_a_broken_secret_is_reported_and_delays_only_its_webhook(
    subject: Subject, authority: Authority, case: str
):
    """`check` reports it, the daemon starts, and events are sent when the file is fixed."""
    with Receiver(authority.certificate()) as receiver:
        hook = webhook(subject, receiver, authority)
        path = Path(subject.folder) / "ministry.secret"
        path.write_text(BROKEN_SECRETS[case])
        subject.configure(webhooks=[hook])
        assert subject.cli("check --startup").code == 0
        said = subject.cli("check")
        assert said.code == 1
        assert all(problem["file"] == str(path) for problem in said.json["problems"])
        assert "whsec_" not in said.stdout.replace("whsec_ and", "").replace("whsec_$(", "")
        subject.start(webhooks=[hook])
        submit(subject, block("block-1", ["one.example"]))
        wait_for(lambda: listed(subject)["failures"].get("unreadable"), "a failed try")
        write_secrets(subject, "ministry", receiver.secret)
        receiver.wait_for_kind("activated")


def test_a_secret_that_others_may_read_is_refused(subject: Subject, authority: Authority):
    """Everybody with an account could forge events."""
    with Receiver(authority.certificate()) as receiver:
        hook = webhook(subject, receiver, authority)
        (subject.folder / "ministry.secret").chmod(0o644)
        subject.configure(webhooks=[hook])
        assert "others may read it" in subject.cli("check").json["problems"][0]["reason"]


def test_the_command_shows_webhooks_and_sends_an_event_again(subject: Subject, authority: Authority):
    """`webhook list`, and `webhook resend` with the id of any event of the issuer."""
    with Receiver(authority.certificate()) as receiver:
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        assert subject.cli("webhook list").code == 0
        submit(subject, block("block-1", ["one.example"]))
        delivered = receiver.wait_for_kind("activated")
        said = subject.cli("webhook resend", delivered.id)
        assert said.code == 0
        assert said.json == {"events": 1, "webhooks": ["ministry"]}
        wait_for(lambda: [one.id for one in receiver.accepted].count(delivered.id) == 2, "it comes again")
        for wrong in ("nothing", "1-0000000000000000", "99999-abcdef", "²-abc"):
            refused = subject.cli("webhook resend", wrong)
            assert refused.code == 4
            assert "has this id" in refused.stderr
        assert subject.cli("webhook resend", as_json=False).code == 2
        assert subject.cli("webhook resend", "--all", "--webhook", "other").code == 4
        text = subject.cli("webhook list", as_json=False).stdout
        assert "ministry" in text
        assert "ok" in text


def test_metrics_count_deliveries_and_failures(subject: Subject, authority: Authority):
    """For dashboards and alerts."""
    with Receiver(authority.certificate()) as receiver:
        receiver.answers.extend([500, answer(503, retry_after="0")])
        subject.start(webhooks=[webhook(subject, receiver, authority)])
        submit(subject, block("block-1", ["one.example"]))
        receiver.wait_for_kind("activated")
        name = "dnsblock_webhook_delivered_total"
        subject.wait_for_metric(name, len(receiver.accepted), webhook="ministry")
        metrics = subject.metrics()
        assert metrics.total("dnsblock_webhook_failures_total", webhook="ministry", reason="status") == 2
        for gauge in ("queue", "dead_letters", "disabled", "oldest_event_age_seconds"):
            assert metrics.total(f"dnsblock_webhook_{gauge}", webhook="ministry") == 0
