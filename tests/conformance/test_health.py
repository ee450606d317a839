"""`/livez` and `/readyz`: the health of a real daemon, as Kubernetes and keepalived see it."""

import time

import httpx

from .asking import TIMEOUT
from .furnished import furnish
from .harness import Subject
from .issuing import IssuersApi
from .lists import list_zone


def health(subject: Subject, path: str) -> httpx.Response:
    """A health check on the metrics listener."""
    return httpx.get(f"http://{subject.ready['metrics']}{path}", timeout=TIMEOUT, trust_env=False)


def test_a_daemon_that_answers_is_alive_and_ready_on_all_listeners(api: IssuersApi):
    """Without credentials; the metrics are beside them, as before."""
    furnish(api)
    for path in ("/livez", "/readyz"):
        with api.client() as client:
            for response in (health(api.subject, path), client.get(path)):
                assert (response.status_code, response.json()) == (200, {"status": "pass"}), response.text
                assert response.headers["content-type"] == "application/health+json"
                assert response.headers["cache-control"] == "no-store"
    assert "dnsblock_queries_total" in health(api.subject, "/metrics").text


def test_a_daemon_is_ready_without_an_upstream(subject: Subject):
    """Blocked names are answered: an anycast fleet must not vanish with its resolvers."""
    subject.start(
        upstreams=["127.0.0.1:1"], zones=[list_zone()], lists={"list.txt": ["one.example"]}, inbox=None
    )
    assert health(subject, "/readyz").status_code == 200


def test_a_daemon_that_enforces_nothing_is_alive_but_not_ready(subject: Subject):
    """`missing: start`: the list was rejected, and there is no previous version."""
    zone = list_zone(every_s=1, missing="start")
    subject.start(zones=[zone], lists={"list.txt": "<html>an error page</html>\n"}, inbox=None)

    response = health(subject, "/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "fail"), response.text
    assert "nothing is enforced" in response.json()["output"]
    assert health(subject, "/livez").status_code == 200


def test_a_crowd_of_health_checks_is_no_flood_of_queries(subject: Subject):
    """A result is valid for a second: the number of queries depends on the time, not on the crowd."""
    subject.start()
    with httpx.Client(
        base_url=f"http://{subject.ready['metrics']}", timeout=TIMEOUT, trust_env=False
    ) as client:
        before, began = subject.metrics().total("dnsblock_queries_total"), time.monotonic()
        assert {client.get("/readyz").status_code for _ in range(200)} == {200}
        asked = subject.metrics().total("dnsblock_queries_total") - before
    # Once a second, to each of two addresses, and each query may be tried twice.
    assert asked <= 4 * (1 + time.monotonic() - began)
