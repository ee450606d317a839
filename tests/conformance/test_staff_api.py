"""The provider's own staff on the HTTPS API: the effect of `watch` and `operate`, and the records."""

import json

from .harness import ISSUER, is_sinkholed
from .issuing import COURT, IssuersApi, problem
from .orders import block


def test_staff_see_the_orders_of_all_issuers(api: IssuersApi):
    """`watch` reads everything, and changes nothing."""
    api.start()
    api.submit(block("B-1", ["one.example"]))
    api.submit(block("C-1", ["two.example"], issuer=COURT), token="court")
    for token in ("noc", "chief"):
        listed = api.get("/v1/orders", token).json()
        assert [one["issuer"] for one in listed["orders"]] == [ISSUER, COURT]
        assert api.get(f"/v1/orders/{COURT}/C-1", token).status_code == 200
        zones = api.get("/v1/snapshot", token).json()["zones"]
        assert [zone["issuer"] for zone in zones] == [ISSUER, COURT]
    problem(api.submit(block("B-2", ["three.example"]), token="noc"), 403, "FORBIDDEN")
    assert len(api.subject.status()["orders"]) == 2


def test_the_ledger_names_the_operator_who_acts_over_https(api: IssuersApi):
    """With a kind of its own; the ledger still verifies, also after a restart."""
    api.start()
    response = api.submit(block("B-1", ["one.example"]), token="chief")
    assert response.status_code == 201, response.text
    assert is_sinkholed(api.subject.query("one.example"))
    ledger = (api.subject.folder / "state" / "ledger.jsonl").read_text()
    records = [json.loads(line) for line in ledger.splitlines()]
    by = [record["by"] for record in records if record["kind"] in ("received", "accepted")]
    assert by == [{"kind": "operator", "client": "chief"}] * 2
    api.subject.restart()
    assert is_sinkholed(api.subject.query("one.example"))
    assert api.subject.cli("log verify", as_json=False).code == 0
    shown = api.subject.cli("log show", "--order", "B-1", as_json=False).stdout.splitlines()
    assert {line.split()[5] for line in shown if "received" in line} == {"chief"}


def test_issuers_never_learn_who_of_the_staff_has_acted(api: IssuersApi):
    """Neither local users nor clients of staff; the staff themselves see them."""
    api.start()
    api.submit(block("B-1", ["one.example"]), token="chief")
    api.subject.cli("order annul", "B-1", "--reason", "a mistake", as_json=False)
    shown = {token: api.get(f"/v1/orders/{ISSUER}/B-1", token).json() for token in ("ministry", "noc")}
    assert shown["ministry"]["annulled"]["by"] == "the operator"
    assert "(uid " in shown["noc"]["annulled"]["by"]
    with api.client("ministry") as client, client.stream("GET", "/v1/events?after=0") as stream:
        events = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        seen = []
        for event in events:
            seen.append(event["by"])
            if event["kind"] == "annulled":
                break
    assert {"kind": "operator"} in seen
    assert not any({"client", "uid", "user"} & by.keys() for by in seen)
