"""The user behind a control call, if the user database does not answer."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from dnsblock import principal
from dnsblock.http import answers
from dnsblock.principal import Principal

UID = 12_345


def test_a_user_database_that_hangs_delays_no_other_work(monkeypatch: pytest.MonkeyPatch):
    """An LDAP server that is down must not keep a block beyond its end: the clock uses the loop's threads."""
    answer = threading.Event()

    def hanging(uid: int) -> SimpleNamespace:
        answer.wait()
        return SimpleNamespace(pw_name="officer")

    async def calls() -> tuple[list[Principal], int, str]:
        request = SimpleNamespace(state=SimpleNamespace(peer_uid=UID))
        found = await asyncio.gather(*(answers.principal_of(request) for _ in range(50)))
        threads = sum(thread.name == "user" for thread in threading.enumerate())
        other = await asyncio.to_thread(lambda: "other work")
        answer.set()
        monkeypatch.setattr(answers, "LOOKUP_SECONDS", 60.0)
        return [*found, await answers.principal_of(request)], threads, other

    monkeypatch.setattr(principal.pwd, "getpwuid", hanging)
    monkeypatch.setattr(answers, "LOOKUP_SECONDS", 0.1)
    found, threads, other = asyncio.run(calls())
    assert found == [Principal("local", UID)] * 50 + [Principal("local", UID, "officer")]
    assert (threads, other) == (1, "other work")
