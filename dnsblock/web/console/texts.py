"""The languages of the console. The English texts are in templates and code: the keys of the others."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from dnsblock.texts import Language
from dnsblock.texts import Texts as OrderTexts
from dnsblock.web.console.indonesian import TEXTS, WORDS

# After a change, the address of the next page has such a code.
DONE: Mapping[str, str] = {
    "signed-out": "You are signed out.",
    "approved": "The held entries are released and in force.",
    "entries-refused": "The held entries are refused.",
    "annulled": "The order is annulled.",
    "refreshed": "The list was fetched and read again.",
    "accepted": "The rejected content is accepted and in force.",
    "rolled-back": "The lists of the earlier serial are in force again.",
    "reloaded": "Configuration, orders and lists were read again.",
    "purged": "The cache is purged.",
    "allowed": "The exception is in force.",
    "allowance-ended": "The exception has ended.",
    "restored": "The ledger is accepted as it is.",
}
LANGUAGES: Mapping[str, str] = {"id": "Bahasa Indonesia", "en": "English"}
LANGUAGE_COOKIE = "__Host-dnsblock-language"


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one language."""

    language: Language

    def say(self, text: str, *values: object) -> str:
        """A text of the console, with values instead of `{}`."""
        return (TEXTS.get(text, text) if self.language == "id" else text).format(*values)

    def word(self, word: str) -> str:
        """A word of the API, such as the state of an order. One without a translation stays as it is."""
        return WORDS.get(word, word) if self.language == "id" else word

    def done(self, code: str) -> str | None:
        """The text after a change, by its code; None for an unknown code."""
        text = DONE.get(code)
        return None if text is None else self.say(text)

    def reason(self, text: str) -> str:
        """A finished reason of another module, translated if it is known."""
        own = TEXTS.get(text) if self.language == "id" else None
        return own or OrderTexts(self.language).reason(text)


def texts_for(request: Request) -> Texts:
    """The texts in the chosen language, or else in the one that the browser prefers."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    if chosen in LANGUAGES:
        return Texts("id" if chosen == "id" else "en")
    wanted = _weights(request.headers.get("accept-language", ""))
    return Texts("id" if wanted.get("id", 0.0) > wanted.get("en", wanted.get("*", 0.0)) else "en")


def _weights(header: str) -> dict[str, float]:
    """The languages of the header `Accept-Language`, with their weights (RFC 9110, section 12.5.4)."""
    found: dict[str, float] = {}
    for part in header[:1000].split(","):
        language, _, parameter = part.strip().lower().partition(";")
        try:
            weight = float(parameter.strip().removeprefix("q=") or "1")
        except ValueError:
            continue
        name = language.strip().split("-")[0]
        found[name] = max(found.get(name, 0.0), weight)
    return found
