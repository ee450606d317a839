"""Held entries that the operator refuses: `order refuse`, the API and the console."""

import json

from .clients import Said
from .consoles import browser
from .harness import ISSUER, Subject, is_forwarded, is_sinkholed
from .issuing import IssuersApi, problem
from .orders import block, order
from .test_console import address, start
from .test_order_guards import Officers, approve, officers, signed, submit  # noqa: F401  # fixtures
from .upstreams import StubUpstream

REASON = "the letter means another name"


def refuse(subject: Subject, order_id: str, *entries: str) -> Said:
    named = [word for entry in entries for word in ("--entry", entry)]
    return subject.cli("order refuse", order_id, *named, "--reason", REASON)


def records(subject: Subject) -> list[dict]:
    return [json.loads(line) for line in (subject.folder / "state" / "ledger.jsonl").read_text().splitlines()]


def test_a_refused_entry_never_takes_effect_and_the_others_stay_in_force(
    subject: Subject, upstream: StubUpstream
):
    """Neither by an approval nor over a restart; the ledger and the order say who refused it, and why."""
    subject.start(upstreams=[upstream.address])
    submit(subject, block("84/2017", ["t.me", "telegram.org", "fraud.example"]))
    serial = subject.status()["serial"]
    assert refuse(subject, "84/2017", "t.me").json["refused"] == 1
    said = approve(subject, "84/2017", "t.me")
    assert said.code == 4
    assert "no held entry has this name" in said.stderr
    assert approve(subject, "84/2017").json["released"] == 1
    for _ in range(2):
        assert is_forwarded(subject.query("t.me"))
        assert is_sinkholed(subject.query("telegram.org"))
        assert is_sinkholed(subject.query("fraud.example"))
        shown = subject.cli("order show", "84/2017").json
        assert (shown["state"], shown["in_force"], shown["held"], shown["refused"]) == ("active", 2, 0, 1)
        (verdict,) = (one for one in shown["verdicts"] if one["verdict"] == "refused")
        assert (verdict["name"], verdict["code"]) == ("t.me", "OPERATOR")
        assert verdict["reason"] == f"refused by the operator: {REASON}"
        (refusal,) = shown["refusals"]
        assert (refusal["entries"], refusal["reason"]) == (["t.me"], REASON)
        assert "(uid " in refusal["by"]
        subject.restart()
    assert f"t.me by {refusal['by']}: {REASON}" in subject.cli("order show", "84/2017", as_json=False).stdout
    (record,) = (one for one in records(subject) if one["kind"] == "entries_refused")
    assert (record["runs"], record["reason"], record["by"]["kind"]) == ([[0, 0]], REASON, "local")
    assert subject.cli("log verify", as_json=False).code == 0
    assert subject.status()["serial"] == serial + 1  # that of the approval


def test_an_order_whose_entries_are_all_refused_has_ended(subject: Subject, upstream: StubUpstream):
    """Its state says it, its deadline no longer runs, and no alert remains."""
    subject.start(upstreams=[upstream.address])
    submit(subject, block("84/2017", ["t.me", "telegram.org"], urgency="immediate"))
    assert subject.metrics().total("dnsblock_orders_held_entries") == 2
    said = subject.cli("order refuse", "84/2017", "--reason", REASON, as_json=False)
    assert (said.code, said.stdout) == (0, "refused: 2 entries of order 84/2017\n")
    for _ in range(2):
        shown = subject.cli("order show", "84/2017").json
        assert (shown["state"], shown["held"], shown["refused"]) == ("refused", 0, 2)
        assert shown["seconds_left"] is None
        metrics = subject.metrics()
        assert metrics.total("dnsblock_orders_held_entries") == 0
        assert metrics.total("dnsblock_orders", state="refused") == 1
        subject.restart()
    assert refuse(subject, "84/2017").code == 4
    assert approve(subject, "84/2017").code == 4
    assert subject.cli("report transparency").json["counted_only"]["orders_refused"] == 1


def test_nothing_but_held_entries_can_be_refused(subject: Subject, upstream: StubUpstream):
    """An entry in force is ended by its issuer, or with the whole order by an annulment."""
    subject.start(upstreams=[upstream.address])
    submit(subject, block("84/2017", ["fraud.example", "t.me"]))
    subject.wait_recorded()
    before = len(records(subject))
    for entries, why in (
        (["fraud.example"], "no held entry has this name"),
        (["t.me", "other.example"], "no held entry has this name"),
        (["not a name!"], "--entry"),
    ):
        said = refuse(subject, "84/2017", *entries)
        assert said.code == 4
        assert why in said.stderr
    assert refuse(subject, "85/2017").code == 1
    assert len(records(subject)) == before
    assert subject.cli("order show", "84/2017").json["held"] == 1


def test_a_second_signature_with_acks_does_not_bring_a_refused_entry_back(
    signed: Subject,  # noqa: F811
    officers: Officers,  # noqa: F811
):
    """The issuer's way to release held entries does not overrule the operator; another order can."""
    document = block("84/2017", ["t.me", "telegram.org"], acks=["POPULAR"])
    submit(signed, document, officers.sign(document, "one"))
    assert refuse(signed, "84/2017", "t.me").code == 0
    submit(signed, document, officers.sign(document, "one", "two"))
    for _ in range(2):
        assert is_forwarded(signed.query("t.me"))
        assert is_sinkholed(signed.query("telegram.org"))
        signed.restart()
    another = block("85/2017", ["t.me"], acks=["POPULAR"])
    submit(signed, another, officers.sign(another, "one", "two"))
    assert is_sinkholed(signed.query("t.me"))


def test_a_supersede_whose_entries_are_refused_still_ends_its_targets(
    subject: Subject, upstream: StubUpstream
):
    """The verdict says that it ends them, although nothing of its own is in force."""
    subject.start(upstreams=[upstream.address])
    submit(subject, block("83/2017", ["fraud.example"]))
    targets = [{"order_id": "83/2017", "entries": "all"}]
    said = submit(subject, order("84/2017", "supersede", targets=targets, entries=["t.me"]))
    (verdict,) = said.json["documents"]
    assert (verdict["state"], verdict["changes"]) == ("held", ["ends 1 entry of 83/2017"])
    assert refuse(subject, "84/2017").code == 0
    for _ in range(2):
        assert subject.cli("order show", "84/2017").json["state"] == "refused"
        assert is_forwarded(subject.query("fraud.example"))
        subject.restart()
    assert subject.cli("order annul", "84/2017", "--reason", REASON).code == 0
    assert is_sinkholed(subject.query("fraud.example"))


def test_the_release_of_a_held_order_leaves_its_refused_entries_out(subject: Subject, upstream: StubUpstream):
    """Also in the number of released entries. The order before it is missing, so all of it was held."""
    subject.start(upstreams=[upstream.address])
    submit(subject, block("84/2017", ["fraud.example", "t.me"], seq=2, prev="0" * 64))
    assert refuse(subject, "84/2017").json["refused"] == 1
    assert subject.cli("order show", "84/2017").json["state"] == "held"
    assert is_forwarded(subject.query("fraud.example"))
    assert approve(subject, "84/2017").json["released"] == 1
    for _ in range(2):
        assert is_sinkholed(subject.query("fraud.example"))
        assert is_forwarded(subject.query("t.me"))
        subject.restart()


def test_staff_refuse_over_https_and_the_issuer_sees_why(api: IssuersApi):
    """Only operators may; the issuer sees the reason and not who."""
    api.start()
    assert api.submit(block("B-1", ["t.me", "one.example"])).status_code == 201
    query = {"issuer": ISSUER, "order_id": "B-1", "reason": REASON}
    for token, status in (("ministry", 403), ("noc", 403), ("chief", 200)):
        with api.client(token) as client:
            response = client.post("/v1/orders/refuse", params=query, content=b"t.me\n")
        assert response.status_code == status, response.text
    assert response.json()["refused"] == 1
    shown = api.get(f"/v1/orders/{ISSUER}/B-1", "ministry").json()
    assert shown["refusals"] == [
        {"at": shown["refusals"][0]["at"], "by": "the operator", "reason": REASON, "entries": ["t.me"]}
    ]
    with api.client("ministry") as client, client.stream("GET", "/v1/events?after=0") as stream:
        events = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        event = next(one for one in events if one["kind"] == "entries_refused")
    assert (event["order_id"], event["entries"], event["reason"]) == ("B-1", 1, REASON)
    assert event["by"] == {"kind": "operator"}
    with api.client("chief") as client:
        problem(client.post("/v1/orders/refuse", params=query), 409, "REFUSED")


def test_an_operator_refuses_held_entries_in_the_console(api: IssuersApi):
    """Only the chosen ones, with a reason that the officer sees."""
    start(api)
    page = address("/orders/{issuer}/{number}")
    with browser(api, "chief") as operator:
        assert operator.post(f"{page}/refuse", {"reason": REASON}).status_code == 422
        assert operator.post(f"{page}/refuse", {"entry": "t.me"}).status_code == 422
        response = operator.post(f"{page}/refuse", {"entry": "t.me", "reason": REASON})
        assert response.headers["location"] == f"/console{page}?done=entries-refused"
        shown = operator.get(f"{page}?done=entries-refused").text
        assert "The held entries are refused." in shown
        assert "/approve" not in shown
    with browser(api, "ministry") as officer:
        shown = officer.get(page).text
        assert REASON in shown
        assert "chief" not in shown
    assert not is_sinkholed(api.subject.query("t.me"))
