"""The reference of the issuers' API, from docs/openapi.json: every operation and every field."""

from collections.abc import Iterator, Mapping
from typing import Any

from .text import definition, escaped

Json = Mapping[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")


def reference(description: Json) -> str:
    """A section for each operation, then one for each object, in Markdown."""
    operations = [
        _operation(path, method, item[method])
        for path, item in description["paths"].items()
        for method in METHODS
        if method in item
    ]
    schemas = [_schema(name, schema) for name, schema in description["components"]["schemas"].items()]
    return "\n".join(["## Operations\n", *operations, "## Objects\n", *schemas])


def _operation(path: str, method: str, operation: Json) -> str:
    return "\n".join(
        [
            f"### {method.upper()} {escaped(path)}\n",
            escaped(operation["summary"].rstrip(".") + ".") + "\n",
            escaped(operation.get("description", "")) + "\n",
            *_part("Parameters", map(_parameter, operation.get("parameters", []))),
            *_part("Body", _body(operation.get("requestBody", {}))),
            *_part("Responses", _responses(operation["responses"])),
        ]
    )


def _part(title: str, items: Iterator[str]) -> Iterator[str]:
    if shown := list(items):
        yield from (f"**{title}**\n", *shown)


def _parameter(parameter: Json) -> str:
    needed = ", required" if parameter.get("required") else ""
    kind = f"({parameter['in']}, {_type(parameter['schema'])}{needed})"
    return definition(f"`{parameter['name']}` {kind}", escaped(parameter.get("description", "")))


def _body(body: Json) -> Iterator[str]:
    for media, content in body.get("content", {}).items():
        schema = content["schema"]
        yield definition(f"`{media}`", _type(schema), *map(str, _fields(schema)))


def _responses(responses: Json) -> Iterator[str]:
    for status, response in responses.items():
        kinds = [
            f"`{media}`: {_type(content['schema'])}" if "schema" in content else f"`{media}`"
            for media, content in response.get("content", {}).items()
        ]
        yield definition(f"`{status}`", escaped(response["description"]), ", ".join(kinds))


def _schema(name: str, schema: Json) -> str:
    described = escaped(schema.get("description", "")) + "\n"
    return "\n".join([f"### {name}\n", described, *_fields(schema)])


def _fields(schema: Json) -> Iterator[str]:
    required = schema.get("required", [])
    for name, one in schema.get("properties", {}).items():
        needed = "" if name in required else ", optional"
        yield definition(f"`{name}` ({_type(one)}{needed})", escaped(one.get("description", "")))


def _type(schema: Json) -> str:
    """The type of a value in words, with a link if it is an object of its own."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if kinds := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(map(_type, kinds))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any value")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
