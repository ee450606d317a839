"""Signing in with a token, signing out, and the language."""

from starlette.responses import Response

from dnsblock.errors import printable
from dnsblock.http.answers import ApiError
from dnsblock.web.console.gate import COOKIE
from dnsblock.web.console.page import Page, Visit, own_page, place, see
from dnsblock.web.console.sessions import ABSOLUTE_SECONDS
from dnsblock.web.console.texts import LANGUAGE_COOKIE, LANGUAGES

YEAR_SECONDS = 365 * 86_400


async def _login(visit: Visit) -> Response:
    to = own_page(visit.request.query_params.get("to", ""))
    return visit.render("login.html", to=to, reason=None)


async def _sign_in(visit: Visit) -> Response:
    to = own_page(visit.sent.text("to"))
    try:
        identifier = visit.gate.sign_in(visit.sent.text("token"), visit.request.cookies.get(COOKIE))
    except ApiError as err:
        visit.gate.count_refused(err.code)
        return visit.render("login.html", status=err.status_code, to=to, reason=err.detail)
    response = see(to)
    _set(response, COOKIE, identifier, int(ABSOLUTE_SECONDS))
    return response


async def _sign_out(visit: Visit) -> Response:
    if visit.visitor is not None and visit.visitor.session is not None:
        visit.gate.sessions.end(visit.visitor.session)
    response = see(place("login", done="signed-out"))
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    response.headers["clear-site-data"] = '"cache"'
    return response


async def _language(visit: Visit) -> Response:
    language = visit.sent.text("language")
    if language not in LANGUAGES:
        raise ApiError(422, "INVALID", f"there is no language {printable(language[:40])}")
    response = see(own_page(visit.sent.text("back")))
    _set(response, LANGUAGE_COOKIE, language, YEAR_SECONDS)
    return response


def _set(response: Response, name: str, value: str, seconds: int) -> None:
    response.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="strict")


PAGES = (
    Page("/login", _login, None),
    Page("/login", _sign_in, None, "POST"),
    Page("/logout", _sign_out, None, "POST"),
    Page("/language", _language, None, "POST"),
)
