"""Commands for the signatures of order documents. They need no configuration and no daemon."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock.cli.common import EXIT_CODES, common
from dnsblock.document import read, read_bytes
from dnsblock.errors import Exit, Problem, Refused, printable, shown
from dnsblock.times import moment, utc

if TYPE_CHECKING:
    from dnsblock.config_issuers import Issuer
    from dnsblock.signatures.allowed_signers import AllowedSigners
    from dnsblock.signatures.verify import SignatureProblem, Signer

MAX_DOCUMENT_BYTES = 1 << 20
MAX_SIGNERS = 16
COLUMNS = 80

document_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command(epilog=EXIT_CODES)
@document_file
@click.option(
    "--key",
    "key_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A private key file of OpenSSH, or the .pub file of a key in ssh-agent.",
)
@common
def sign(config_path: Path, as_json: bool, *, file: Path, key_path: Path) -> None:
    """Sign an order document: add your signature to FILE.sig.

    Needs no configuration and no daemon. Each key signs a document once. Do not change the document after it
    is signed: then its signatures are not valid any more.

    KEY may have a passphrase, or be on a hardware token (ed25519-sk, ecdsa-sk). For these, ssh-keygen asks
    for the passphrase, the PIN and the touch.

    Exit code 4 if the document cannot be signed, or is signed by this key already.
    """
    from dnsblock.signatures.officer_key import Signing, read_key
    from dnsblock.signatures.signing import add_signature, signature_file

    data = read_bytes(file, max_bytes=MAX_DOCUMENT_BYTES)
    order = _summary(file, data)
    key = read_key(key_path)

    def announce() -> None:
        click.echo(f"signing {_described(order)}", err=True)
        if key.public_key.is_token:
            click.echo("touch your token when it blinks", err=True)
        elif key.signing is Signing.AGENT:
            click.echo("waiting for ssh-agent, which may ask you to confirm", err=True)

    keys = add_signature(file, data, key, announce)
    if as_json:
        result = {
            **order,
            "signatures": _name(signature_file(file)),
            "signer": {"fingerprint": key.public_key.fingerprint, "algorithm": key.public_key.algorithm},
            "signed_by": [{"fingerprint": one.fingerprint, "algorithm": one.algorithm} for one in keys],
        }
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    click.echo(f"signed by {key.public_key.fingerprint} ({key.public_key.algorithm})")
    count = "1 signature" if len(keys) == 1 else f"{len(keys)} signatures"
    click.echo(f"{_name(signature_file(file))} now has {count}")


@click.command(epilog=EXIT_CODES)
@document_file
@click.option(
    "--keys",
    "keys_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The issuer's keys, an allowed_signers file of OpenSSH. [default: as configured in `issuers`]",
)
@click.option(
    "--signatures",
    "needed",
    type=click.IntRange(1, MAX_SIGNERS),
    help="How many different signers are required. [default: as configured; with --keys, 1]",
)
@click.option(
    "--at", metavar="TIME", help="Use the keys that were valid at this time (RFC 3339). [default: now]"
)
@common
def verify(
    config_path: Path,
    as_json: bool,
    *,
    file: Path,
    keys_path: Path | None,
    needed: int | None,
    at: str | None,
) -> None:
    """Verify the signatures of an order document: FILE and FILE.sig.

    Prints who has signed, and why other signatures do not count. Two keys of one person count once. Needs no
    daemon, so keys that the issuer has changed by an order since are not known. The roles of the signers are
    those of the configuration; with --keys, everyone may sign.

    Exit code 0 if enough signers of the issuer have signed, 1 if not.
    """
    from dnsblock.signatures.signing import read_signatures
    from dnsblock.signatures.verify import verify as verify_signatures

    time = _time(at)
    data = read_bytes(file, max_bytes=MAX_DOCUMENT_BYTES)
    order = _summary(file, data)
    allowed, issuer = _keys_of(order["issuer"], keys_path, config_path)
    required = needed or (1 if issuer is None else issuer.signatures)
    signers, problems = verify_signatures(data, read_signatures(file), allowed, time)
    if issuer is not None:
        signers, others = _by_role(file, data, signers, issuer)
        problems += others
    count = len({signer.principal for signer in signers})
    is_verified = count >= required
    if as_json:
        result = {
            **order,
            "verified": is_verified,
            "at": utc(time),
            "count": count,
            "required": required,
            "signers": [signer.as_json() for signer in signers],
            "problems": [problem.as_json() for problem in problems],
            "key_problems": [problem.as_json() for problem in allowed.problems],
        }
        click.echo(json.dumps(result, ensure_ascii=False))
        sys.exit(Exit.DONE if is_verified else Exit.NO)
    for signer in signers:
        click.echo(f"signed by {printable(signer.principal)}")
        click.echo(f"  key {signer.fingerprint} ({signer.algorithm})")
    for problem in problems:
        _print_wrapped(str(problem))
    for line in allowed.problems:
        _print_wrapped(f"ignored: {line}")
    verdict = "verified" if is_verified else "NOT verified"
    click.echo(f"{verdict}: {_described(order)}")
    click.echo(f"  signers: {count} valid, {required} required")
    sys.exit(Exit.DONE if is_verified else Exit.NO)


def _by_role(
    file: Path, data: bytes, signers: list["Signer"], issuer: "Issuer"
) -> tuple[list["Signer"], list["SignatureProblem"]]:
    """The signers who may order this, and why others do not count. Raises `Refused` if it is no order."""
    from dnsblock.orders.authority import without_role
    from dnsblock.orders.order import parse
    from dnsblock.signatures.verify import SignatureProblem

    order = parse(_name(file), data)
    wrong = without_role(signers, order.action, order.category, issuer)
    problems = [
        SignatureProblem(
            "WRONG_ROLE",
            f"{one.principal} may not order {order.action}: see the option `issuers`",
            fingerprint=one.fingerprint,
        )
        for one in wrong
    ]
    return [one for one in signers if one not in wrong], problems


def _keys_of(
    issuer: str, keys_path: Path | None, config_path: Path
) -> tuple["AllowedSigners", "Issuer | None"]:
    """The keys of an issuer, and the issuer as it is configured, if it is needed. Raises `Refused`."""
    from dnsblock.signatures.allowed_signers import AllowedSigners

    if keys_path is not None:
        return AllowedSigners.load(keys_path), None
    if not config_path.exists():
        raise click.UsageError(
            f"there is no {config_path}: give the issuer's keys with --keys ALLOWED_SIGNERS"
        )
    from dnsblock.config_file import load

    configured = load(config_path).issuer(issuer)
    if configured is None:
        reason = "no keys are configured for this issuer: add it to `issuers`, or give --keys"
        raise Refused([Problem(_name(config_path), None, issuer, reason)])
    return AllowedSigners.load(configured.keys), configured


def _time(at: str | None) -> datetime:
    try:
        return datetime.now(UTC) if at is None else moment(at)
    except ValueError as err:
        reason = f"'{shown(at or '')}' is not a time: write it as 2017-08-10T10:46:00+07:00"
        raise click.BadParameter(reason, param_hint="--at") from err


def _summary(file: Path, data: bytes) -> dict[str, Any]:
    """The facts that show a person which document it is. Raises `Refused` if it is no order at all."""
    document = read(_name(file), data, max_bytes=MAX_DOCUMENT_BYTES)
    value = document.value
    order_id, issuer, action = (
        value.get(key) if isinstance(value, dict) else None for key in ("order_id", "issuer", "action")
    )
    if not isinstance(order_id, str) or not isinstance(issuer, str) or not isinstance(action, str):
        reason = "not an order: order_id, issuer or action is missing. See `dnsblock order check`"
        raise Refused([Problem(_name(file), None, "", reason)])
    return {"file": _name(file), "issuer": issuer, "order_id": order_id, "action": action}


def _described(order: dict[str, Any]) -> str:
    return (
        f"order {printable(order['order_id'])} of {printable(order['issuer'])}, {printable(order['action'])}"
    )


def _name(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _print_wrapped(text: str) -> None:
    click.echo(click.wrap_text(text, COLUMNS, subsequent_indent="  "), err=True)
