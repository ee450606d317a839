"""All routes of the HTTPS API with all roles: who may do what, and that a refused request changes nothing."""

import httpx
import pytest

from .furnished import DESCRIPTION, TOKENS_OF, furnish, operations, path_of
from .harness import ISSUER
from .issuing import COURT, IssuersApi, form, problem
from .orders import block

CREDENTIALS = (None, "ministry", "reader", "court", "noc", "chief")
OPEN = {"/livez", "/readyz"}


def status_of(client: httpx.Client, method: str, path: str) -> httpx.Response:
    """A response without the rest of an endless body."""
    with client.stream(method, path) as response:
        if response.headers["content-type"].startswith("text/event-stream"):
            return response
        response.read()
        return response


def state_of(api: IssuersApi) -> tuple[bytes, int, str]:
    ledger = (api.subject.folder / "state" / "ledger.jsonl").read_bytes()
    status = api.subject.status()
    return ledger, status["serial"], status["digest"]


def test_every_route_has_a_role_and_only_health_checks_need_none():
    """A new route is described with its role; tests/unit/test_openapi.py finds it there."""
    assert {path for _, path, role in operations() if role is None} == OPEN
    assert len(operations()) > 25


def test_no_route_answers_without_its_role(api: IssuersApi):
    """401 without credentials and 403 without the role, whatever the parameters are. Nothing changes."""
    furnish(api)
    before, refused = state_of(api), {"UNAUTHENTICATED": 0, "FORBIDDEN": 0}
    for token in CREDENTIALS:
        with api.client(token) as client:
            for method, template, role in operations():
                if role is None or token in TOKENS_OF[role]:
                    continue
                status, code = (401, "UNAUTHENTICATED") if token is None else (403, "FORBIDDEN")
                refused[code] += 1
                response = status_of(client, method, path_of(template))
                details = problem(response, status, code)
                assert "ledger" not in details["detail"], (token, method, template)
    assert state_of(api) == before
    for code, count in refused.items():
        assert api.refused(code) == count, code


def test_every_route_answers_who_has_its_role(api: IssuersApi):
    """A role is enough for each of its routes: only missing parameters are refused, or a missing body."""
    furnish(api)
    for token in CREDENTIALS:
        with api.client(token) as client:
            for method, template, role in operations():
                if role is None:
                    assert status_of(client, method, template).status_code == 200, template
                elif token in TOKENS_OF[role]:
                    issuer, number = (COURT, "C-1") if token == "court" else (ISSUER, "B-1")
                    response = status_of(client, method, path_of(template, issuer, number))
                    assert response.status_code in (200, 409, 415, 422), (token, method, template, response)


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/orders/{COURT}/C-1",
        f"/v1/orders/{COURT}/C-1/receipt",
        f"/v1/orders/last?issuer={COURT}",
        f"/v1/orders/statement?issuer={COURT}&at=2026-01-01T00:00:00Z",
    ],
)
def test_data_of_another_issuer_does_not_exist(api: IssuersApi, path: str):
    """404, as for an issuer that is not configured."""
    furnish(api)
    there = problem(api.get(path), 404, "NOT_FOUND")
    nowhere = problem(api.get(path.replace(COURT, "nobody.example")), 404, "NOT_FOUND")
    assert there["detail"].replace(COURT, "nobody.example") == nowhere["detail"]
    assert api.get(path, "court").status_code == 200
    assert api.get(path, "noc").status_code == 200


def test_a_check_of_documents_shows_nothing_of_others_and_no_folder(api: IssuersApi):
    """As a submission: `FORBIDDEN` for an order of another issuer, and no path of this server."""
    furnish(api)
    before = state_of(api)
    with api.client("ministry") as client:
        documents = form(
            block("B-9", ["one.example"]), block("C-9", ["x.example"], issuer=COURT), b"- nothing"
        )
        response = client.post("/v1/orders/check", files=documents)
    assert response.status_code == 200, response.text
    verdicts = [one["document"]["verdict"] for one in response.json()["trials"]]
    assert verdicts == ["accepted", "refused", "refused"]
    assert str(api.subject.folder) not in response.text
    assert state_of(api) == before


def test_issuers_see_no_path_of_this_server(api: IssuersApi):
    """Staff may see them; issuers never."""
    furnish(api)
    folder = str(api.subject.folder)
    assert folder in api.get("/v1/status", "noc").text
    for method, template, role in operations():
        if method == "GET" and role == "read":
            with api.client("ministry") as client:
                assert folder not in status_of_text(client, path_of(template)), template


def status_of_text(client: httpx.Client, path: str) -> str:
    with client.stream("GET", path) as response:
        if response.headers["content-type"].startswith("text/event-stream"):
            return str(response.headers)
        response.read()
        return f"{response.headers} {response.text}"


HOSTILE = {
    "an unknown parameter": "?no-such-parameter=1",
    "a repeated parameter": "?name=a&name=b",
    "a long parameter": "?name=" + "x" * 5000 + "&name=y",
    "control characters": "?%00=%1b%5b31m&%00=x",
    "not UTF-8": "?%ff=%fe&%ff=x",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_parameters_are_refused_on_every_route(api: IssuersApi, case: str):
    """By name, and without effect; the routes without parameters ignore them, as RFC 9110 allows."""
    furnish(api)
    ledger = (api.subject.folder / "state" / "ledger.jsonl").read_bytes()
    with api.client("chief") as client:
        for method, template, role in operations():
            if role is None or not has_parameters(method, template):
                continue
            response = status_of(client, method, path_of(template) + HOSTILE[case])
            details = problem(response, 422, "INVALID")
            assert len(details["detail"]) < 1000, details
    assert (api.subject.folder / "state" / "ledger.jsonl").read_bytes() == ledger
    assert api.refused("INVALID") > 10


def has_parameters(method: str, template: str) -> bool:
    return any(
        one["in"] == "query" for one in DESCRIPTION["paths"][template][method.lower()].get("parameters", [])
    )


def test_every_route_refuses_other_methods_and_names_its_own(api: IssuersApi):
    """405 with `Allow` (RFC 9110, section 15.5.6)."""
    furnish(api)
    with api.client("chief") as client:
        for template in dict.fromkeys(template for _, template, _ in operations()):
            own = {method for method, path, _ in operations() if path == template}
            response = client.put(path_of(template), content=b"x")
            problem(response, 405, "METHOD_NOT_ALLOWED")
            assert own <= set(response.headers["allow"].split(", ")), template


def test_a_change_over_https_is_recorded_with_the_operator(api: IssuersApi):
    """In the ledger, in the history of lists and in the log."""
    furnish(api)
    with api.client("chief") as client:
        annulled = client.post(
            "/v1/orders/annul", params={"issuer": ISSUER, "order_id": "B-1", "reason": "a mistake"}
        )
        assert annulled.status_code == 200, annulled.text
        back = client.post("/v1/rollback", params={"serial": 1, "reason": "the new one is wrong"})
        assert back.status_code == 200, back.text
        assert client.post("/v1/cache/purge").json() == {"purged": 0}
    assert '"by":{"client":"chief","kind":"operator"}' in (
        api.subject.folder / "state" / "ledger.jsonl"
    ).read_text().replace(" ", "")
    notes = [one["note"] for one in api.get("/v1/versions?zone=listed", "noc").json()["versions"]]
    assert any("by operator chief: the new one is wrong" in note for note in notes)
    assert '"by": "operator chief"' in api.subject.stderr()


def test_a_replayed_change_has_no_second_effect(api: IssuersApi):
    """An annulment again is refused; a rollback to the same lists publishes nothing new."""
    furnish(api)
    params = {"issuer": ISSUER, "order_id": "B-1", "reason": "a mistake"}
    with api.client("chief") as client:
        assert client.post("/v1/orders/annul", params=params).json()["ended"] == 1
        serial = api.subject.status()["serial"]
        problem(client.post("/v1/orders/annul", params=params), 409, "REFUSED")
        assert api.subject.status()["serial"] == serial
        assert client.post("/v1/reload").json()["changed"] is False
    assert api.refused("REFUSED") == 1


@pytest.mark.parametrize("path", ["/v1/orders/approve", "/v1/impact"])
def test_a_body_that_is_too_large_is_refused_on_every_route_with_one(api: IssuersApi, path: str):
    """413, while it comes; the forms of documents have their own tests."""
    furnish(api)
    params = {
        "/v1/orders/approve": {"issuer": ISSUER, "order_id": "B-1", "reason": "x"},
        "/v1/impact": {"file": "list.txt", "seconds": 1, "top": 0},
    }[path]
    with api.client("chief") as client:
        piece = b"name.example\n" * 8192
        response = client.post(path, params=params, content=(piece for _ in range(1000)))
        problem(response, 413, "TOO_LARGE")
    assert api.refused("TOO_LARGE") == 1


def undescribed(found: object, schema: dict, place: str) -> list[str]:
    """The fields of a response that its schema does not have."""
    if "$ref" in schema:
        schema = DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for option in schema.get("anyOf", ()):
        if option != {"type": "null"} and found is not None:
            return undescribed(found, option, place)
    if isinstance(found, list) and isinstance(schema.get("items"), dict):
        return [one for item in found for one in undescribed(item, schema["items"], f"{place}[]")]
    if not isinstance(found, dict) or "properties" not in schema:
        return []
    own = schema["properties"]
    missing = [f"{place}.{key}" for key in found if key not in own]
    return missing + [
        one
        for key in found.keys() & own.keys()
        for one in undescribed(found[key], own[key], f"{place}.{key}")
    ]


QUERIES = {
    "/v1/why": ("?name=one.example", "?name=one.example&at=2026-11-30T00:00:00Z", "?name=192.0.2.1"),
    "/v1/history": ("?name=one.example",),
    "/v1/versions": ("", "?zone=listed"),
    "/v1/diff": ("?a=1&b=3",),
    "/v1/orders/last": (f"?issuer={ISSUER}",),
    "/v1/orders/statement": (f"?issuer={ISSUER}&at=2026-11-30T00:00:00Z",),
}


def test_no_response_has_a_field_that_is_not_described(api: IssuersApi):
    """Staff get every field of the facts, so a new one must be put into the models (`http/models_*.py`)."""
    furnish(api)
    with api.client("chief") as client:
        for method, template, _ in operations():
            if method != "GET" or template in ("/v1/events", "/v1/export"):
                continue
            answer = DESCRIPTION["paths"][template]["get"]["responses"]["200"]["content"]
            (schema,) = (one["schema"] for one in answer.values())
            for query in QUERIES.get(template, ("",)):
                response = client.get(path_of(template) + query)
                assert response.status_code == 200, response.text
                assert undescribed(response.json(), schema, template) == []
