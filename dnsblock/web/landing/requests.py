"""The parts of an HTTP request that matter, checked once. No other part is looked at."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import unquote

from dnsblock.names import NameRefused, canonical

Language = Literal["id", "en"]
DEFAULT: Language = "id"
MAX_LANGUAGES = 20  # of an Accept-Language; more are ignored
_LANGUAGES: dict[str, Language] = {"id": "id", "in": "id", "en": "en"}  # ISO 639 had `in` until 1989
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[^\[\]:@/?#\\]*)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(r"(?i:https?)://(?P<host>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_CHOICE = re.compile(r"(?:^|&)lang=(id|en)(?:&|$)")


class MalformedRequest(Exception):  # noqa: N818  # house style: named for what happened
    """The request is not valid HTTP/1.1: status 400 (RFC 9112 sections 3 and 3.2)."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A valid request."""

    name: str | None  # the canonical name in it; None: an address, or none
    path: str  # as it was sent
    language: Language


def visit(target: bytes, hosts: list[bytes], accepted: bytes, *, needs_host: bool) -> Visit:
    """Reads the request target, the Host fields and Accept-Language. Raises `MalformedRequest`."""
    if len(hosts) > 1 or (needs_host and not hosts):
        raise MalformedRequest
    host = _text(hosts[0]) if hosts else ""
    text = _text(target)
    if (absolute := _ABSOLUTE.fullmatch(text)) is not None:
        # RFC 9112 section 3.2.2: the Host field is ignored then.
        host, text = absolute["host"], absolute["rest"]
        if not host:
            raise MalformedRequest
        text = text if text.startswith("/") else f"/{text}"
    name = name_in(host)
    if not text.startswith("/"):
        raise MalformedRequest
    path, _, query = text.partition("?")
    return Visit(name, path, language_of(query, accepted))


def name_in(host: str) -> str | None:
    """The canonical name in a Host field; None for an address or none. Raises `MalformedRequest`."""
    found = _HOST.fullmatch(host.strip(" \t"))
    if found is None:
        raise MalformedRequest
    text = found["host"]
    if not text or is_address(text):
        return None
    try:
        return canonical(text)
    except NameRefused as err:
        raise MalformedRequest from err


def is_address(host: str) -> bool:
    """Whether a host is an IP literal, `[::1]` or `192.0.2.1` (RFC 3986 section 3.2.2)."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        if host.startswith("["):
            raise MalformedRequest from None
        return False
    return True


def language_of(query: str, accepted: bytes) -> Language:
    """The language that the page's own link chose, otherwise the best one of Accept-Language."""
    if (chosen := _CHOICE.search(query)) is not None:
        return _LANGUAGES[chosen[1]]
    best, weight = DEFAULT, 0.0
    for item in accepted.decode("latin-1").split(",")[:MAX_LANGUAGES]:
        tag, _, parameter = item.strip().partition(";")
        found = _LANGUAGES.get(tag.strip().lower().partition("-")[0])
        quality = _quality(parameter)
        if found is not None and quality > weight:
            best, weight = found, quality
    return best


def _quality(parameter: str) -> float:
    """RFC 9110 section 12.4.2. A parameter that is no weight counts as 0."""
    if not parameter:
        return 1.0
    found = re.fullmatch(r"\s*q=([01](?:\.[0-9]{0,3})?)\s*", parameter)
    return 0.0 if found is None else float(found[1])


def order_in(path: str) -> tuple[str, str] | None:
    """The issuer and the number in the path of an order's page; None for any other path."""
    parts = path.split("/")
    if len(parts) != 4 or parts[:2] != ["", "order"]:
        return None
    try:
        issuer, number = (unquote(part, errors="strict") for part in parts[2:])
    except UnicodeDecodeError:
        return None
    is_possible = re.fullmatch(r"[a-z0-9_.-]{1,63}", issuer) and 0 < len(number.encode()) <= 200
    return (issuer, number) if is_possible else None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as err:
        raise MalformedRequest from err
