"""A daemon with something of everything to read over the API: orders, a list with versions, a rejection."""

import json
from collections.abc import Iterable
from pathlib import Path

from .guarding import BASE, STRICT
from .issuing import COURT, ZONES, IssuersApi
from .lists import DAY, list_zone
from .orders import block, unblock

LISTED = list_zone(guards=STRICT, every_s=DAY)
DESCRIPTION = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text())
# Each role that a request needs, and the tokens of CLIENTS that have it.
TOKENS_OF = {
    "submit": {"ministry", "court", "chief"},
    "read": {"ministry", "reader", "court", "noc", "chief"},
    "watch": {"noc", "chief"},
    "operate": {"chief"},
}


def furnish(api: IssuersApi, clients: Iterable[dict] | None = None, **config: object) -> None:
    """Starts the daemon, and makes two versions of its list and orders of two issuers."""
    more = {} if clients is None else {"clients": clients}
    api.start(zones=[*ZONES, LISTED], lists={"list.txt": BASE}, **more, **config)
    api.subject.put_list("list.txt", [*BASE, "new.example"])
    api.subject.reload()
    assert api.submit(block("B-1", ["one.example", "two.example"])).status_code == 201
    assert api.submit(block("C-1", ["three.example"], issuer=COURT), token="court").status_code == 201
    assert api.submit(unblock("U-1", "B-1", entries=["two.example"])).status_code == 201
    api.subject.wait_recorded()


def operations() -> list[tuple[str, str, str | None]]:
    """Each method and path of the API, and its role; None: no credentials are needed."""
    found: list[tuple[str, str, str | None]] = []
    for path, methods in DESCRIPTION["paths"].items():
        for method, one in methods.items():
            roles = {role for requirement in one["security"] for (role,) in requirement.values()}
            assert len(roles) <= 1, one
            found.append((method.upper(), path, next(iter(roles), None)))
    return found


def path_of(template: str, issuer: str = "ministry.example", number: str = "B-1") -> str:
    """A path of the API, about things that exist."""
    return template.format(issuer=issuer, number=number, name="listed")
