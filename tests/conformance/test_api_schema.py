"""schemathesis against a real daemon: each response is as docs/openapi.json says, whatever the request is.

All operations take part, also those that change something: the daemon is made for this.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from unit.https_server import Authority

from .asking import TIMEOUT
from .furnished import DESCRIPTION, furnish
from .harness import Subject
from .issuing import TOKENS, IssuersApi

EXAMPLES = 10  # of each operation, beside those at the boundaries of each parameter
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.allow_header_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
CONFIG = {
    "seed": 1,
    # A form with too many documents is too large.
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 404, 405, 409, 413, 415, 422]}},
}
SCHEMA = schemathesis.openapi.from_dict(DESCRIPTION, config=SchemathesisConfig.from_dict(CONFIG))
UNKNOWN_HEADER = "x-schemathesis-unknown-property"


class Session(requests.Session):
    """Reads the beginning of a stream of events, which has no end."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = super().send(request, **{**options, "stream": True})
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            response._content = next(response.iter_content(1 << 10))
            response._content_consumed = True
            response.close()
        return response


@pytest.fixture(scope="module")
def session(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, client_authority: Authority
) -> Iterator[tuple[str, Session]]:
    """The address of a daemon, and a client that may do everything."""
    with closing(Subject(tmp_path_factory.mktemp("schema"))) as subject, Session() as session:
        api = IssuersApi(subject, authority, client_authority)
        furnish(api)
        session.trust_env = False
        session.verify = str(api.servers.pem)
        session.headers["Authorization"] = f"Bearer {TOKENS['chief']}"
        yield api.url, session
        assert subject.is_running()


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a shorter example is not worth the time
    suppress_health_check=list(HealthCheck),
)
def test_no_request_gets_a_response_that_is_not_described(
    case: schemathesis.Case, session: tuple[str, Session]
):
    """No status, content type or field that the description lacks; invalid parameters are refused."""
    url, client = session
    if case.operation.label == "POST /v1/impact" and str(case.query.get("seconds", "")).isdigit():
        case.query["seconds"] = 1  # it is the time that the response takes
    response = case.call(base_url=url, session=client, verify=client.verify, timeout=TIMEOUT)
    # A server ignores headers that it does not know (RFC 9110, section 5.1).
    is_extended = any(name.lower() == UNKNOWN_HEADER for name in case.headers or ())
    excluded = [checks.negative_data_rejection] if is_extended else []
    case.validate_response(response, checks=CHECKS, excluded_checks=excluded)
