"""Renders the pages and their header fields. Everything in a page is escaped by Jinja2."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dnsblock.web.landing.requests import Language
from dnsblock.web.landing.texts import moment, say

CACHE_SECONDS = 30  # in browsers; a block may end at any time
OTHER: Mapping[Language, Language] = {"id": "en", "en": "id"}
_BUSY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Response:
    """A response, but for the fields Date, Cache-Control and Connection."""

    counted: tuple[str, str]  # the kind and the class of the status
    head: bytes
    body: bytes
    etag: bytes = b""
    is_cacheable: bool = True


class Pages:
    """Makes the pages of a landing site."""

    def __init__(self, site: dict[str, Any]) -> None:
        """`site`: the options of `landing`, and `name` and `time_zone`."""
        self._site = site
        self._zone = ZoneInfo(site["time_zone"])
        loader = PackageLoader("dnsblock.web.landing")
        style, *_ = loader.get_source(Environment(), "style.css")  # noqa: S701  # it renders nothing
        self._style = style.strip()
        digest = b64encode(hashlib.sha256(self._style.encode()).digest()).decode()
        # RFC 9110 and CSP Level 3: nothing is loaded, executed or sent from a page.
        self._policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        environment = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, auto_reload=False
        )
        environment.filters["shown"] = _shown
        self._template = environment.get_template("page.html")

    def blocked(self, block: dict[str, Any], language: Language) -> Response:
        """The page instead of a blocked name: 451 (RFC 7725), or 403 if no law demands the block."""
        order, organization = block["order"], self._site["organization"]
        by_order = "Your Internet provider, {}, blocks this name because an authority has ordered it."
        by_list = "Your Internet provider, {}, blocks this name because it is on a blocklist."
        lead = say(language, by_list if block["is_list"] else by_order, organization)
        links: list[str] = []
        if block["is_legal"]:
            # RFC 7725 section 4: the link identifies the entity that implements the block, not the one that
            # demands it. The page of the order describes the response instead.
            links.append(f'<{self._site["url"]}/>; rel="blocked-by"')
        if order is not None:
            links.append(f'<{self.order_url(order)}>; rel="describedby"')
        return self._page(
            451 if block["is_legal"] else 403,
            "list_block" if block["is_list"] else "order_block",
            language,
            "This site is blocked",
            heading=block["name"],
            lead=[lead],
            block=block,
            order=order,
            order_url="" if order is None else self.order_url(order),
            fields={"Link": ", ".join(links)} if links else {},
        )

    def order(self, order: dict[str, Any], language: Language) -> Response:
        """The page of an order, which may have ended."""
        is_lifting = order["action"] in ("unblock", "revoke")
        lead = "This order is in force."
        if order["state"] == "partially lifted":
            lead = "Some names of this order are no longer blocked."
        elif not (order["is_in_force"] or is_lifting):
            lead = "This order is no longer in force."
        number = order["order_id"]
        return self._page(
            200, "order", language, "Order", heading=number, lead=[say(language, lead)], order=order
        )

    def site(self, language: Language) -> Response:
        """The first page of the landing site."""
        text = (
            "{} shows this page instead of sites that are blocked by order of an authority or by a list. "
            "Each order has a page here, which states its issuer, its legal basis and its reason."
        )
        lead = [say(language, text, self._site["organization"])]
        return self._page(200, "site", language, "Blocked names and their orders", lead=lead)

    def other_name(self, language: Language) -> Response:
        """For a name that is not blocked: 421, since it is not ours (RFC 9110 section 15.5.20)."""
        why = (
            "No order or list currently blocks the name that you visited. The block may have ended a moment "
            "ago, or the name may lead to another one that is blocked."
        )
        advice = "Close the page, wait a minute and visit the name again. If you still see this page, ask {}."
        lead = [say(language, why), say(language, advice, self._site["organization"])]
        return self._page(
            421, "other_name", language, "No information about this name", lead=lead, is_cacheable=False
        )

    def not_found(self, language: Language, kind: str) -> Response:
        """`kind`: `site` or `order`."""
        lead = [say(language, "There is no such page here, or this order was never in force.")]
        return self._page(404, kind, language, "Page not found", lead=lead)

    def busy(self, language: Language) -> Response:
        """The daemon did not answer in time."""
        lead = [say(language, "The server is busy. Reload this page in a few seconds.")]
        return self._page(
            *(503, "busy", language, "Please try again in a moment"),
            lead=lead,
            asks=False,
            fields={"Retry-After": str(_BUSY_SECONDS)},
            is_cacheable=False,
        )

    def malformed(self, status: int) -> Response:
        """For a request that is not understood, or not allowed."""
        lead = [say("en", "This server did not understand the request.")]
        return self._page(
            *(status, "malformed", "en", "Invalid request"),
            lead=lead,
            asks=False,
            fields={"Allow": "GET, HEAD"} if status == 405 else {},
            is_cacheable=False,
        )

    def fault(self) -> Response:
        """After an internal error."""
        lead = [say("en", "The server is busy. Reload this page in a few seconds.")]
        return self._page(
            *(500, "fault", "en", "Please try again in a moment"), lead=lead, asks=False, is_cacheable=False
        )

    def order_url(self, order: Mapping[str, Any]) -> str:
        """The address of the page of an order."""
        return f"{self._site['url']}/order/{quote(order['issuer'], '')}/{quote(order['order_id'], '')}"

    def _page(
        self,
        status: int,
        kind: str,
        language: Language,
        title: str,
        *,
        fields: Mapping[str, str] | None = None,
        is_cacheable: bool = True,
        **facts: Any,
    ) -> Response:
        everything: dict[str, Any] = {
            "heading": None,
            "block": None,
            "order": None,
            "order_url": "",
            "asks": True,
            **facts,
        }
        appeal = self._site["appeal"]
        text = self._template.render(
            everything,
            title=title,
            language=language,
            other=OTHER[language],
            site=self._site,
            appeal={key: appeal[key] for key in ("id", "en") if appeal[key]},
            style=Markup(self._style),  # noqa: S704  # a file of this package
            say=partial(say, language),
            moment=lambda time: moment(language, time, self._zone),
        )
        body = text.encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"' if status == 200 else ""
        head = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Language": language,
            "Vary": "Accept-Language",
            "Content-Security-Policy": self._policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            **({"ETag": etag} if etag else {}),
            **(fields or {}),
        }
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{key}: {value}" for key, value in head.items()),
        ]
        encoded = "\r\n".join(lines).encode("latin-1") + b"\r\n"
        return Response((kind, f"{status // 100}xx"), encoded, body, etag.encode(), is_cacheable)


def _shown(uri: str) -> str:
    """A URI for people: an address without its scheme."""
    return uri.partition(":")[2] if uri.startswith(("mailto:", "tel:")) else uri
