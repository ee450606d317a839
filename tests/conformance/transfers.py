"""Helpers of the transfer tests: a zone with primaries, its state, and NOTIFY messages."""

from collections.abc import Iterable
from pathlib import Path

import dns.flags
import dns.message
import dns.opcode
import dns.rrset

from .harness import PROFILES, Subject
from .lists import ANY_CHANGE, is_logged, refresh, source
from .primaries import ZONE, Key
from .tools import wait_for
from .upstreams import StubUpstream

KEY = Key()
LAX = {"guards": ANY_CHANGE}  # as `source` of zones whose content changes altogether


def blocks(*names: str) -> list[str]:
    """The records that block these names."""
    return [f"{name} CNAME ." for name in names]


def block_range(count: int, first: int = 0) -> list[str]:
    return blocks(*(f"n{number}.example" for number in range(first, first + count)))


def zone_from(
    *primaries: str,
    name: str = ZONE,
    key: Key | None = None,
    tls: tuple[Path, str] | None = None,
    source: dict | None = None,
    mode: str = "enforce",
    **options: object,
) -> dict:
    """A zone by transfer. `tls`: the file of the CA, and the primary's name; `options` are those of `rpz`."""
    rpz: dict[str, object] = {"primaries": list(primaries), **options}
    if key is not None:
        rpz["key"] = {"name": key.name, "algorithm": key.algorithm, "secret_file": secret_file(key)}
    if tls is not None:
        rpz["tls"] = {"ca": str(tls[0]), "name": tls[1]}
    zone = {"name": name, "answer": "given", "mode": mode, "rpz": rpz}
    return zone | ({"source": source} if source else {})


def secret_file(key: Key) -> str:
    return f"{key.name}.key"


def put_secret(subject: Subject, key: Key, *, mode: int = 0o600) -> Path:
    """The file of a key, which only the daemon may read."""
    path = subject.folder / secret_file(key)
    path.write_text(f"{key.secret}\n", encoding="ascii")
    path.chmod(mode)
    return path


def start(
    subject: Subject,
    upstream: StubUpstream,
    *zones: dict,
    port: int | None = None,
    keys: Iterable[Key] = (),
    **config: object,
) -> None:
    """`port`: that of the daemon, if a primary must know it before."""
    for key in keys:
        put_secret(subject, key)
    if port is not None:
        config["listen"] = [f"127.0.0.1:{port}", f"[::1]:{port}"]
    options = {"answers": PROFILES, "inbox": None, "upstreams": [upstream.address], **config}
    subject.start(zones=zones, **options)


# ------- Its state ------------------------------------------------------------------------


def blocked(subject: Subject, *names: str) -> list[bool]:
    """Whether each name is answered by NXDOMAIN, as its record says."""
    return [subject.query(name).rcode == "NXDOMAIN" for name in names]


def wait_blocked(subject: Subject, *names: str) -> None:
    wait_for(lambda: all(blocked(subject, *names)), f"{names} are blocked")


def wait_open(subject: Subject, *names: str) -> None:
    wait_for(lambda: not any(blocked(subject, *names)), f"{names} are not blocked")


def serial_in_force(subject: Subject, zone: str = ZONE) -> int:
    return int(subject.metrics().total("dnsblock_zone_serial", zone=zone))


def wait_serial(subject: Subject, serial: int, zone: str = ZONE) -> None:
    wait_for(lambda: serial_in_force(subject, zone) == serial, f"{zone} has serial {serial}")


def transfers(subject: Subject, kind: str, zone: str = ZONE) -> int:
    return int(subject.metrics().total("dnsblock_transfers_total", zone=zone, kind=kind))


def failures(subject: Subject, code: str, zone: str = ZONE) -> int:
    return int(subject.metrics().total("dnsblock_source_fetches_total", zone=zone, result=code.lower()))


def assert_fails(subject: Subject, code: str, zone: str = ZONE) -> None:
    """A refresh fails with this code: in the command, in `source list`, in the log and in the metrics."""
    before = failures(subject, code, zone)
    said = refresh(subject, zone)
    assert (said.code, code in str(said.problems)) == (4, True), said
    error = source(subject, zone)["fetch_error"] or ""
    assert f": {code}: " in error, error
    assert is_logged(subject, f"list {zone} was not fetched: {error}", levels=["error"])
    assert failures(subject, code, zone) > before


def assert_refreshes(subject: Subject, zone: str = ZONE) -> None:
    """A refresh succeeds, and no earlier error is left."""
    said = refresh(subject, zone)
    assert said.code == 0, said
    assert source(subject, zone)["fetch_error"] is None


# ------- NOTIFY ---------------------------------------------------------------------------


def notify(
    zone: str = ZONE, *, key: Key | None = None, serial: int | None = None, qtype: str = "SOA"
) -> dns.message.Message:
    """A NOTIFY message (RFC 1996 section 3.7), to be sent by `send_notify`."""
    message = dns.message.make_query(zone, qtype, flags=dns.flags.AA)
    message.set_opcode(dns.opcode.NOTIFY)
    if serial is not None:
        data = f"localhost. nobody.invalid. {serial} 3600 900 604800 60"
        message.answer.append(dns.rrset.from_text(f"{zone}.", 300, "IN", "SOA", data))
    if key is not None:
        message.use_tsig(key.tsig(), algorithm=key.algorithm)
    return message


def send_notify(
    subject: Subject,
    message: dns.message.Message,
    *,
    transport: str = "udp",
    source: str = "127.0.0.1",
    verify: bool = True,
) -> dns.message.Message:
    """The response. With the key of the message, dnspython verifies its signature, unless not to."""
    data = message.to_wire()
    if transport == "tcp":
        with subject.tcp(source=source) as stream:
            stream.send(data)
            raw = stream.receive()
    else:
        with subject.udp(source=source) as sock:
            sock.send(data)
            raw = sock.recv(65535)
    assert raw is not None, "no response to NOTIFY"
    keyring = message.keyring if verify and message.had_tsig else False
    response = dns.message.from_wire(raw, keyring=keyring, request_mac=message.mac or b"")
    assert (response.id, response.opcode()) == (message.id, dns.opcode.NOTIFY)
    assert response.flags & dns.flags.QR
    assert response.question == message.question
    return response


def notifies(subject: Subject, result: str) -> int:
    return int(subject.metrics().total("dnsblock_notifies_total", result=result))
