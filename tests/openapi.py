"""Writes docs/openapi.json, the description of the issuers' API (`make openapi`), or prints it with `-`.

The models are those of the handlers, so the schemas cannot differ from the responses.
"""

import json
import sys
from pathlib import Path
from typing import Any, get_args

from openapi_pydantic import OpenAPI
from openapi_pydantic.util import PydanticSchema, construct_open_api_with_schema_class

from dnsblock import __version__
from dnsblock.http import models
from dnsblock.http.answers import TITLES
from dnsblock.http.issuers import MAX_BODY_BYTES, MAX_DOCUMENTS
from dnsblock.http.orders import DEFAULT_PAGE, MAX_PAGE
from dnsblock.orders.life import StateName

PAGE = Path(__file__).parents[1] / "docs" / "openapi.json"
ORDER_PATH = "/v1/orders/{issuer}/{number}"


def answer(
    text: str, model: type[models.Model] | None = None, kind: str = "application/json"
) -> dict[str, Any]:
    """A response."""
    if model is None:
        return {"description": text}
    return {"description": text, "content": {kind: {"schema": PydanticSchema(schema_class=model)}}}


def problems(*statuses: int) -> dict[str, Any]:
    """The errors of an operation."""
    texts = {
        400: "The request is malformed.",
        401: "No valid token and no known client certificate.",
        403: "The client lacks the role, or the orders are of other issuers.",
        404: "There is no such order, or it is of another issuer.",
        408: "The body did not arrive in time.",
        409: "There is no such event.",
        413: "The body, the signatures or the number of documents is too large.",
        415: "The body is not a form.",
        422: "A value is invalid; or every document is refused, each with its problems.",
        503: "Nothing can be accepted now, or too many requests at once. Try again.",
    }
    kind = "application/problem+json"
    return {str(one): answer(texts[one], models.ProblemDetails, kind) for one in statuses}


def parameter(name: str, text: str, schema: dict[str, Any], place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "description": text, "required": place == "path", "schema": schema}


ORDER_PARAMETERS = [
    parameter("issuer", "The issuer.", {"type": "string"}, "path"),
    parameter("number", "The `order_id`, percent-encoded: `84%2F2017`.", {"type": "string"}, "path"),
]
EVENT = """id: 17
event: accepted
data: {"n":17,"at":"2026-11-29T23:00:00+00:00","kind":"accepted","issuer":"a.example","order_id":"84/2017"}

"""
FORM = {
    "type": "object",
    "required": ["document"],
    "properties": {
        "document": {
            "type": "array",
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
            "minItems": 1,
            "maxItems": MAX_DOCUMENTS,
            "description": "An order document, sent as a file. Its name appears in the verdict.",
        },
        "signatures": {
            "type": "array",
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
            "description": "The signatures (SSHSIG) of the document before this part.",
        },
        "entries": {
            "type": "array",
            "items": {"type": "string", "contentMediaType": "application/octet-stream"},
            "description": "The entries file of the document before this part.",
        },
    },
}


def submit() -> dict[str, Any]:
    return {
        "operationId": "submitOrders",
        "summary": "Submits order documents.",
        "description": "Responds when the accepted ones are durable and in force. "
        f"To submit a document again is safe. The body has at most {MAX_BODY_BYTES:,} bytes.",
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}},
        "responses": {
            "200": answer("Every document was known; nothing has changed.", models.Submission),
            "201": answer("At least one document is new. Others may be refused.", models.Submission),
            **problems(400, 401, 403, 408, 413, 415, 422, 503),
        },
    }


def list_orders() -> dict[str, Any]:
    return {
        "operationId": "listOrders",
        "summary": "Lists the orders of the client's issuers.",
        "parameters": [
            parameter("issuer", "Only of this issuer.", {"type": "string", "maxLength": 63}),
            parameter("number", "Only with this `order_id`.", {"type": "string", "maxLength": 200}),
            parameter("state", "Only in this state.", {"type": "string", "enum": list(get_args(StateName))}),
            parameter(
                "limit",
                "Orders in the response.",
                {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
            ),
            parameter(
                "offset",
                "Counts from the first order. Without it: the last ones.",
                {"type": "integer", "minimum": 0},
            ),
        ],
        "responses": {
            "200": answer("In the sequence of the ledger.", models.OrderPage),
            **problems(401, 403, 422),
        },
    }


def show_order() -> dict[str, Any]:
    schema = {"type": "string", "enum": ["first", "all"], "default": "first"}
    entries = parameter("entries", "The first 1,000 entries, or up to 100,000.", schema)
    return {
        "operationId": "showOrder",
        "summary": "Shows one order.",
        "parameters": [*ORDER_PARAMETERS, entries],
        "responses": {
            "200": answer("Everything about the order.", models.Order),
            **problems(400, 401, 403, 404, 422),
        },
    }


def receipt() -> dict[str, Any]:
    return {
        "operationId": "signReceipt",
        "summary": "Signs a receipt of the present state of an order.",
        "description": "The receipt is recorded in the ledger. `ssh-keygen -Y verify` checks it.",
        "parameters": ORDER_PARAMETERS,
        "responses": {
            "200": answer("The receipt.", models.SignedReceipt),
            **problems(400, 401, 403, 404, 503),
        },
    }


def events() -> dict[str, Any]:
    last = parameter("Last-Event-ID", "The last event that was received.", {"type": "integer"}, "header")
    after = parameter("after", "Only events after this one; 0: all.", {"type": "integer", "minimum": 0})
    stream = {
        "description": "Server-sent events. The data of each is one line of JSON.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EVENT}},
    }
    return {
        "operationId": "followEvents",
        "summary": "Follows the records of the ledger about the client's issuers.",
        "description": "Without Last-Event-ID and `after`: new events only.",
        "parameters": [last, after],
        "responses": {"200": stream, **problems(400, 401, 403, 409, 422, 503)},
    }


def snapshot() -> dict[str, Any]:
    return {
        "operationId": "getSnapshot",
        "summary": "The content that this instance enforces, and since when",
        "description": "`dnsblock fleet status` compares it between instances. The role `read` is needed.",
        "responses": {"200": answer("The instance.", models.Instance), **problems(400, 401, 403, 503)},
    }


def description() -> dict[str, Any]:
    """The whole document."""
    codes = ", ".join(TITLES)
    api = OpenAPI.model_validate(
        {
            "info": {
                "title": "dnsblock: the issuers' API",
                "version": __version__,
                "description": "Authorities push signed orders and read their state. "
                "HTTPS with TLS 1.3 only. See docs/api.md. "
                f"Errors are problem details (RFC 9457); their codes are: {codes}.",
            },
            "servers": [
                {"url": "https://dnsblock.example:8443", "description": "The instance of a provider."}
            ],
            "security": [{"token": []}, {"certificate": []}],
            "paths": {
                "/v1/orders": {"post": submit(), "get": list_orders()},
                ORDER_PATH: {"get": show_order()},
                f"{ORDER_PATH}/receipt": {"get": receipt()},
                "/v1/events": {"get": events()},
                "/v1/snapshot": {"get": snapshot()},
            },
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


if __name__ == "__main__":
    sys.stdout.write(text()) if "-" in sys.argv[1:] else PAGE.write_text(text())
