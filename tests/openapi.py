"""Writes docs/openapi.json and the table in docs/api.md (`make openapi`), or prints the JSON with `-`.

The models are those of the handlers, so the schemas cannot differ from the responses.
"""

import json
import sys
from pathlib import Path
from typing import Any

from openapi_pydantic import OpenAPI
from openapi_pydantic.util import PydanticSchema, construct_open_api_with_schema_class
from operations import OPERATIONS, ROLES, Operation

from dnsblock import __version__
from dnsblock.http import models
from dnsblock.http.answers import TITLES
from dnsblock.http.models_queries import MAX_EVENT, Query

DOCS = Path(__file__).parents[1] / "docs"
PAGE, REFERENCE = DOCS / "openapi.json", DOCS / "api.md"
BEGIN, END = "<!-- `make openapi` writes this table -->\n", "<!-- end of the table -->\n"

ALWAYS = {
    400: "The request is malformed.",
    401: "No valid token and no known client certificate.",
    403: "The client lacks the role, or the orders are of other issuers.",
}
PLACES = {
    "issuer": "The issuer.",
    "number": "The `order_id`, percent-encoded: `84%2F2017`.",
    "name": "The zone of the list.",
}


def described(
    text: str, kind: str, model: type[models.Model] | None, example: str | None = None
) -> dict[str, Any]:
    """A response."""
    schema: Any = {"type": "string"} if model is None else PydanticSchema(schema_class=model)
    return {
        "description": text,
        "content": {kind: {"schema": schema} | ({} if example is None else {"example": example})},
    }


def responses(one: Operation) -> dict[str, Any]:
    """All responses of an operation, by status."""
    found = {
        str(status): described(text, one.kind, model, one.example)
        for status, (text, model) in one.answers.items()
    }
    problems = one.problems if one.role is None else ALWAYS | one.problems
    for status, text in sorted(problems.items()):
        found[str(status)] = described(text, "application/problem+json", models.ProblemDetails)
    return found


def parameters(one: Operation) -> list[dict[str, Any]]:
    """The parameters in the path, the query and the headers."""
    found = [
        {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in PLACES.items()
        if f"{{{name}}}" in one.path
    ]
    found += [] if one.query is None else query_parameters(one.query)
    if one.id == "followEvents":
        number = {"type": "integer", "minimum": 0, "maximum": MAX_EVENT - 1}
        text = "The last event that was received."
        found.append({"name": "Last-Event-ID", "in": "header", "description": text, "schema": number})
    return found


def query_parameters(model: type[Query]) -> list[dict[str, Any]]:
    """The parameters of a query, from the schema of its model."""
    whole = model.model_json_schema()
    found = []
    for name, schema in whole["properties"].items():
        options = [option for option in schema.get("anyOf", [schema]) if option != {"type": "null"}]
        (own,) = options
        own = {key: value for key, value in own.items() if key not in ("title", "description")}
        if own.get("format") == "ipvanyaddress":
            own = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
        if schema.get("default") is not None:
            own["default"] = schema["default"]
        text = schema.get("description") or options[0].get("description") or ""
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in whole.get("required", ()),
                **({"description": text} if text else {}),
                "schema": own,
            }
        )
    return found


def operation(one: Operation) -> dict[str, Any]:
    """An operation. Its role is that of the security requirement (OpenAPI 3.1, section 4.8.30)."""
    needed = "No credentials are needed." if one.role is None else f"The role `{one.role}` is needed."
    security = [] if one.role is None else [{"token": [one.role]}, {"certificate": [one.role]}]
    found: dict[str, Any] = {
        "operationId": one.id,
        "tags": [one.tag],
        "summary": one.summary[0].upper() + one.summary[1:],
        "description": f"{needed} {one.description}".strip(),
        "parameters": parameters(one),
        "responses": responses(one),
        "security": security,
    }
    if one.body is not None:
        found["requestBody"] = {"required": one.is_body_required, "content": one.body}
    return found


def description() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = operation(one)
    api = OpenAPI.model_validate(
        {
            "info": {
                "title": "dnsblock: the API",
                "version": __version__,
                "description": "Authorities push signed orders and read their state. The provider's staff "
                "read and change everything else. HTTPS with TLS 1.3 only. See docs/api.md. "
                f"A client has one or more of these roles: {', '.join(ROLES)}. "
                f"Errors are problem details (RFC 9457); their codes are: {', '.join(TITLES)}.",
            },
            "servers": [
                {"url": "https://dnsblock.example:8443", "description": "The instance of a provider."}
            ],
            "paths": paths,
            "components": {
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer"},
                    "certificate": {"type": "mutualTLS"},
                }
            },
        }
    )
    whole = construct_open_api_with_schema_class(api)
    found: dict[str, Any] = json.loads(whole.model_dump_json(by_alias=True, exclude_none=True))
    return found


def text() -> str:
    return json.dumps(description(), indent=1, ensure_ascii=False) + "\n"


def table() -> str:
    """The table of requests."""
    rows = ["| request | role | response |", "|---|---|---|"]
    for one in OPERATIONS:
        path = one.path.replace("{issuer}", "ISSUER").replace("{number}", "NUMBER").replace("{name}", "ZONE")
        given = [] if one.query is None else [f"`{name}`" for name in one.query.model_fields]
        shown = f": {', '.join(given)}" if given else ""
        role = "none" if one.role is None else f"`{one.role}`"
        rows.append(f"| `{one.method.upper()} {path}` | {role} | {one.summary}{shown} |")
    return "\n".join(rows) + "\n"


def page(current: str) -> str:
    """The text of docs/api.md with the current table."""
    before, rest = current.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    if "-" in sys.argv[1:]:
        sys.stdout.write(text())
    else:
        PAGE.write_text(text())
        REFERENCE.write_text(page(REFERENCE.read_text()))
