"""A list with guards, and a reload that rejects it."""

from .harness import Subject
from .lists import (
    DAY,
    list_zone,
    names,
)

HTML = "<!DOCTYPE html>\n<html><head><title>Login</title></head>\n<body>502 Bad Gateway</body></html>\n"
BASE = names(200)
STRICT = {
    "shrank_percent": 10,
    "shrank_names": 50,
    "grew_percent": 10,
    "grew_names": 50,
    "truncated": "reject",
    "replayed": "reject",
}


def start(subject: Subject, *, guards: dict | None = None, lines: list[str] = BASE, **config: object) -> None:
    zone = list_zone(guards=guards, every_s=DAY) if guards else list_zone(every_s=DAY)
    subject.start(zones=[zone], lists={"list.txt": lines}, inbox=None, **config)


def reload_refused(subject: Subject) -> str:
    """`reload` with a rejected list: exit code 4; returns all messages about the whole list."""
    said = subject.cli("reload")
    assert said.code == 4, said
    assert any("list.txt" in problem["file"] for problem in said.problems)
    assert "list.txt" in said.stderr
    return "\n".join(problem["reason"] for problem in said.problems)
