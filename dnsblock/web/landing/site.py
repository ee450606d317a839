"""Decides which page a visit gets. Only names and numbers of orders stay here, for a minute at most."""

import asyncio
from typing import Any

from dnsblock.web.landing.pages import CACHE_SECONDS, Pages, Response
from dnsblock.web.landing.questions import Answer, Questions
from dnsblock.web.landing.requests import Visit, order_in


class Site:
    """The pages of one landing page."""

    def __init__(self, settings: dict[str, Any], questions: Questions) -> None:
        self.pages = Pages(settings)
        self._name: str = settings["name"]
        self._questions = questions
        self._loop = asyncio.get_running_loop()
        self._fixed: dict[tuple[str, str], Response] = {}  # pages that depend on the language only

    def at_once(self, visit: Visit) -> tuple[Response, int] | None:
        """The response and how many seconds it is valid; None if the daemon has to be asked first."""
        if visit.name is not None and visit.name != self._name:
            answer = self._questions.known((visit.name,))
            if answer is None:
                return None
            if answer.found is not None:
                return self._of(answer, visit)
        order = order_in(visit.path)
        if order is None:
            return self._elsewhere(visit), CACHE_SECONDS
        answer = self._questions.known(order)
        return None if answer is None else self._of(answer, visit)

    async def later(self, visit: Visit) -> tuple[Response, int]:
        """The same, after asking the daemon."""
        if visit.name is not None and visit.name != self._name:
            answer = self._questions.known((visit.name,)) or await self._questions.ask((visit.name,))
            if answer is None:
                return self.pages.busy(visit.language), 0
            if answer.found is not None:
                return self._of(answer, visit)
        order = order_in(visit.path)
        if order is None:
            return self._elsewhere(visit), CACHE_SECONDS
        answer = self._questions.known(order) or await self._questions.ask(order)
        return (self.pages.busy(visit.language), 0) if answer is None else self._of(answer, visit)

    def _of(self, answer: Answer, visit: Visit) -> tuple[Response, int]:
        page: Response | None = answer.pages.get(visit.language)
        if page is None:
            found = answer.found
            if found is None:
                page = self._always("order", visit)
            elif "zone" in found:
                page = self.pages.blocked(found, visit.language)
            else:
                page = self.pages.order(found, visit.language)
            answer.pages[visit.language] = page
        return page, max(0, min(CACHE_SECONDS, int(answer.until - self._loop.time())))

    def _elsewhere(self, visit: Visit) -> Response:
        """A page that is about no blocked name and no order."""
        if visit.name is not None and visit.name != self._name:
            return self._always("other_name", visit)
        return self._always("first" if visit.path == "/" else "site", visit)

    def _always(self, kind: str, visit: Visit) -> Response:
        key = (kind, visit.language)
        if key not in self._fixed:
            match kind:
                case "other_name":
                    page = self.pages.other_name(visit.language)
                case "first":
                    page = self.pages.site(visit.language)
                case _:
                    page = self.pages.not_found(visit.language, kind)
            self._fixed[key] = page
        return self._fixed[key]
