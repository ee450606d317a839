"""Signatures, state and dead letters of webhooks; tests/conformance has what servers see."""

import asyncio
import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Reference
from witness import Service

from dnsblock import standard_webhooks
from dnsblock.config_webhooks import Webhook
from dnsblock.errors import Refused
from dnsblock.orders.facts import Held
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.records import Position
from dnsblock.principal import DAEMON
from dnsblock.webhooks import receiver as receivers
from dnsblock.webhooks.receiver import Receiver
from dnsblock.webhooks.state import MAX_DEAD_LETTERS, DeadLetter, NotAState, State, StateFile

from .https_server import Authority

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


# ------- Signatures -------


@given(st.binary(min_size=24, max_size=64), st.text(max_size=200), st.integers(0, 4_102_444_800))
def test_a_signature_is_that_of_the_reference_implementation(secret: bytes, body: str, timestamp: int):
    """Standard Webhooks 1.0.0, "Signature scheme"."""
    data = body.encode("utf-8", "surrogatepass") if body.isascii() else body.encode("utf-8", "ignore")
    found = standard_webhooks.headers("17-abc", timestamp, data, [secret])
    expected = Reference(secret).sign("17-abc", datetime.fromtimestamp(timestamp, UTC), data.decode())
    assert found == {
        "webhook-id": "17-abc",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": expected,
    }


def test_the_signature_is_that_of_a_known_example():
    """Computed with `openssl dgst -sha256 -mac HMAC`, so that both implementations cannot be wrong alike."""
    found = standard_webhooks.headers("msg_1", 1674087231, b'{"a":1}', [bytes(range(32))])
    assert found["webhook-signature"] == "v1,fnNKWKn9YJSx7T/Ahsk/W5BQTp6PJzQosUoaMQK6sCQ="


def test_secrets_are_read_with_comments_and_one_for_each_line(tmp_path: Path):
    """The new one first; both sign."""
    path = tmp_path / "secret"
    other = "whsec_" + base64.b64encode(b"o" * 24).decode()
    path.write_text(f"# made in November\n{SECRET}  # new\n\n{other}\n")
    path.chmod(0o600)
    assert standard_webhooks.read_secrets(path) == [bytes(range(32)), b"o" * 24]
    path.chmod(0o604)
    with pytest.raises(Refused, match="others may read it"):
        standard_webhooks.read_secrets(path)


@pytest.mark.parametrize("size", [23, 65])
def test_a_secret_of_another_length_is_refused_and_not_shown(tmp_path: Path, size: int):
    """Standard Webhooks: 24 to 64 bytes."""
    path = tmp_path / "secret"
    secret = base64.b64encode(b"s" * size).decode()
    path.write_text(f"whsec_{secret}\n")
    path.chmod(0o600)
    with pytest.raises(Refused) as refusal:
        standard_webhooks.read_secrets(path)
    assert secret not in str(refusal.value)
    assert "24 to 64 bytes" in str(refusal.value)


# ------- The state on the disk -------


def dead_letter(n: int) -> DeadLetter:
    return DeadLetter(n, f"{n:064x}", "activated", "1/2026", NOW, "HTTP 500", NOW)


def test_a_state_is_read_as_it_was_stored(tmp_path: Path):
    """All of its fields."""
    state = State("a.example", "https://a.example/", Position(7, "ab" * 32), [dead_letter(3)], dropped=2)
    state.delivered_at, state.delivered_n, state.failing_since, state.error = NOW, 6, NOW, "HTTP 500"
    state.dead[0].resent_at = NOW
    StateFile(tmp_path / "webhooks" / "a.json", "a").store(1, state.encoded())
    assert State.load(tmp_path / "webhooks" / "a.json") == state
    assert State.load(tmp_path / "webhooks" / "b.json") is None


@given(st.binary(max_size=300))
def test_no_content_of_the_file_is_a_state_by_accident(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    """It is covered by a digest."""
    path = tmp_path_factory.mktemp("state") / "a.json"
    path.write_bytes(data)
    with pytest.raises(NotAState):
        State.load(path)


def test_dead_letters_are_bounded_and_the_oldest_are_dropped(tmp_path: Path):
    """With the longest texts, the file stays readable."""
    state = State("a.example", "https://a.example/", Position(0, None))
    for n in range(1, MAX_DEAD_LETTERS + 6):
        state.add(DeadLetter(n, f"{n:064x}", "signature_verified", "\U0001f512" * 200, NOW, "é" * 90, NOW))
    assert len(state.dead) == MAX_DEAD_LETTERS
    assert (state.dead[0].n, state.dropped) == (6, 5)
    StateFile(tmp_path / "a.json", "a").store(1, state.encoded())
    assert State.load(tmp_path / "a.json") == state


# ------- Giving up -------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
def service(authority: Authority) -> Iterator[Service]:
    with Service(authority.certificate()) as service:
        yield service


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "state") as ledger:
        yield ledger


def record(ledger: Ledger, *order_ids: str, at: datetime | None = None) -> None:
    facts = [Held("a.example", order_id, 1, ("POPULAR",)) for order_id in order_ids]
    ledger.append(facts, DAEMON, at or datetime.now(UTC))


@pytest.fixture
def receiver(service: Service, authority: Authority, ledger: Ledger, tmp_path: Path) -> Receiver:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    options = Webhook.model_validate(
        {
            "name": "hook",
            "issuer": "a.example",
            "url": service.url,
            "secret_file": str(secret),
            "ca": str(authority.pem),
        },
        context={"file": tmp_path / "dnsblock.yaml"},
    )
    return Receiver(
        options, tmp_path / "state" / "webhooks" / "hook.json", ledger, lambda: "isp.example/ledger"
    )


def run_until(receiver: Receiver, ledger: Ledger, condition: Callable[[], bool]) -> None:
    """Runs a webhook until a condition holds."""

    async def run() -> None:
        await receiver.look(ledger)
        running = asyncio.create_task(receiver.run())
        async with asyncio.timeout(120):
            while not condition():  # noqa: ASYNC110  # any condition
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(run())
    receiver.close()


def ids(service: Service) -> list[str]:
    return [headers["webhook-id"] for _, _, headers, _ in service.requests]


def test_an_event_that_the_server_rejects_is_given_up_sooner_and_the_next_one_follows(
    receiver: Receiver, service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """One event must not block the others for days."""
    monkeypatch.setattr(receivers, "REJECTED_AFTER", timedelta(0))
    record(ledger, "one", "two", "three")
    service.answers = [(204, "", b""), (422, "", b""), (422, "", b""), (204, "", b"")]
    run_until(receiver, ledger, lambda: receiver.delivered == 2)
    first, second, again, third = ids(service)
    assert second == again
    assert len({first, second, third}) == 3
    assert [one.order_id for one in receiver.state.dead] == ["two"]
    assert receiver.state.failing_since is None


def test_events_are_given_up_only_if_they_and_the_failure_are_old(
    receiver: Receiver, service: Service, ledger: Ledger
):
    """After a stop of a week, one failed try gives nothing up."""
    record(ledger, "old", at=datetime.now(UTC) - timedelta(days=8))
    record(ledger, "new")
    service.answers = [(500, "", b"")]
    run_until(receiver, ledger, lambda: receiver.failures["status"] == 1)
    assert receiver.state.dead == []
    service.answers = [(500, "", b"")]
    receiver.state.failing_since = datetime.now(UTC) - timedelta(days=4)
    receiver.next_try = 0.0
    run_until(receiver, ledger, lambda: bool(receiver.state.dead))
    assert [one.order_id for one in receiver.state.dead] == ["old"]
    assert len(receiver.queue) == 1


def test_the_state_is_durable_before_the_next_event_is_given_up(
    receiver: Receiver, service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """Dead letters and position are one file, so neither is lost without the other."""
    monkeypatch.setattr(receivers, "REJECTED_AFTER", timedelta(0))
    record(ledger, "one", "two")
    service.answers = [(400, "", b""), (400, "", b""), (204, "", b"")]
    run_until(receiver, ledger, lambda: receiver.delivered == 1)
    stored = State.load(receiver.file.path)
    assert stored is not None
    assert stored.position == Position(2, ledger.hashes[1])
    assert [one.n for one in stored.dead] == [1]


def test_an_event_under_way_when_the_operator_accepts_another_ledger_moves_nothing(
    receiver: Receiver, ledger: Ledger, tmp_path: Path
):
    """Its number means another record now."""
    record(ledger, "one", "two")
    asyncio.run(receiver.look(ledger))
    under_way = receiver.head()
    assert under_way is not None
    with Ledger.open(tmp_path / "other") as other:
        record(other, "three")
        asyncio.run(receiver.look(other))
        receiver._done(under_way)
        assert list(receiver.queue) == [1]
        assert receiver.state.position.records == 0
