"""Commands for the ledger: log show, verify, prove, key and accept-restore."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnsblock.cli.common import EXIT_CODES, Commands, client_of, common, print_table, reason_of
from dnsblock.cli.completion import issuer_names, order_numbers
from dnsblock.errors import Exit, Problem, Refused, counted, printable

if TYPE_CHECKING:
    from dnsblock.config import Config
    from dnsblock.orders.verification import Verification, VerifiedFolder
    from dnsblock.signatures.notes import VerifierKey

ISSUER = click.option(
    "--issuer",
    metavar="ISSUER",
    shell_complete=issuer_names,
    help="The issuer, if several have used the number.",
)


@click.group(cls=Commands)
def log() -> None:
    """Show, verify and prove the ledger; accept one that lacks records, or a clock that is behind."""


def _config(path: Path) -> "Config":
    from dnsblock.config_file import load

    return load(path)


# ------- show -------


@log.command(epilog=EXIT_CODES)
@click.option(
    *("--order", "order_id"),
    metavar="NUMBER",
    shell_complete=order_numbers,
    help="Only the records of one order.",
)
@ISSUER
@common
def show(config_path: Path, as_json: bool, order_id: str | None, issuer: str | None) -> None:
    """Show the records of the ledger, the oldest first. No daemon is needed."""
    from dnsblock.policy.log_report import records
    from dnsblock.times import local_text

    config = _config(config_path)
    found = records(config, order_id, issuer)
    if as_json:
        click.echo(json.dumps({"records": [record.fields for record in found]}, ensure_ascii=False))
        return
    rows = [
        [
            str(record.n),
            local_text(record.fields["at"], config.time_zone.key),
            record.fields["kind"],
            _by(record.fields["by"]),
            f"{record.fields.get('issuer') or ''} {record.fields.get('order_id') or ''}".strip(),
            _details(record.fields),
        ]
        for record in found
    ]
    print_table(["n", "time", "kind", "by", "order", "details"], rows, free={"details"})


def _by(value: dict[str, Any]) -> str:
    named = value.get("user") or value.get("client") or value.get("name")
    return str(named) if named else str(value.get("kind", ""))


def _details(fields: dict[str, Any]) -> str:
    """The rest of a record in one line: its plain values, and lists of texts."""
    envelope = {"version", "n", "kind", "at", "by", "issuer", "order_id", "prev_record", "digest"}
    long = {"document", "signatures", "entries_file"}
    shown = ((key, value) for key, value in fields.items() if key not in envelope | long)
    texts = ((key, _text(value)) for key, value in shown)
    return " ".join(f"{key}={text}" for key, text in texts if text)


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


# ------- verify -------


@log.command(epilog=EXIT_CODES)
@click.option(
    "--key", "keys", multiple=True, metavar="KEY", help="Another key (NAME+ID+KEY) of this instance."
)
@common
def verify(config_path: Path, as_json: bool, keys: tuple[str, ...]) -> None:
    """Verify the whole ledger. No daemon is needed.

    Verifies the digest of each record, the chain and the entries files. Compares the ledger with the
    checkpoint, the history of lists and the acknowledged copy. Compares it with every signed checkpoint in
    the state folder and in the second folder.

    Exit code 1 if anything is missing or differs.
    """
    from dnsblock.policy.log_report import verify_all

    others = [_key(text) for text in keys]
    result = verify_all(_config(config_path), others, lambda _: None)
    if as_json:
        click.echo(json.dumps(result.as_json(), ensure_ascii=False))
    else:
        _print_verification(result)
    sys.exit(Exit.NO if result.problems else Exit.DONE)


def _key(text: str) -> "VerifierKey":
    from dnsblock.signatures.notes import NotANote, VerifierKey

    try:
        return VerifierKey.from_text(text)
    except NotANote as err:
        raise click.BadParameter(str(err), param_hint="--key") from err


def _print_verification(result: "Verification") -> None:
    for note in result.notes:
        click.echo(f"note: {printable(note)}")
    click.echo(f"{printable(str(result.path))}: {counted(result.records, 'record')}")
    for folder in result.folders:
        click.echo(_folder_line(folder))
    if not result.problems:
        click.echo("verified: nothing is missing, and nothing was changed")
        return
    for problem in result.problems:
        click.echo(str(problem))
    for missing in result.as_json()["missing"][:20]:
        order = f" order {missing['order_id']} of {missing['issuer']}" if missing["order_id"] else ""
        click.echo(f"missing: record {missing['n']}: {missing['kind']}{printable(order)}")


def _folder_line(folder: "VerifiedFolder") -> str:
    parts = [f"{folder.extended:,} of {folder.checkpoints:,} signed checkpoints are extended by the ledger"]
    if folder.accepted:
        parts.append(f"{folder.accepted:,} were accepted as lost")
    if folder.extended:
        parts.append(f"the last one covers {counted(folder.most_records, 'record')}")
    parts += [f"{name} has cosigned {size:,}" for name, size in folder.cosigned.items()]
    return f"{printable(folder.path)}: {', '.join(parts)}"


# ------- prove -------


@log.command(epilog=EXIT_CODES)
@click.argument("order_id", metavar="NUMBER", shell_complete=order_numbers)
@ISSUER
@click.option(
    *("-o", "--output"), type=click.Path(dir_okay=False, path_type=Path), help="Write the proof to this file."
)
@common
def prove(config_path: Path, as_json: bool, order_id: str, issuer: str | None, output: Path | None) -> None:
    """Prove that the ledger has the records of an order. No daemon is needed.

    Prints the records, their inclusion proofs and a signed checkpoint as JSON. docs/ledger.md describes how
    others verify it with the public key of this instance, without dnsblock.
    """
    from dnsblock.policy.log_report import prove as proof_of

    found = proof_of(_config(config_path), order_id, issuer)
    if found["later_records"]:
        numbers = ", ".join(map(str, found["later_records"]))
        click.echo(f"not proved, since no signed checkpoint covers them yet: records {numbers}", err=True)
    proof = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    if output is None:
        click.echo(proof, nl=False)
        return
    try:
        output.write_text(proof, encoding="utf-8")
    except OSError as err:
        raise Refused([Problem(str(output), None, "", f"cannot be written: {err.strerror}")]) from err
    if as_json:
        click.echo(json.dumps({"file": str(output), "records": len(found["records"])}))
    else:
        records = counted(len(found["records"]), "record")
        click.echo(f"{printable(str(output))}: {records} of order {printable(order_id)}")


# ------- key -------


@log.command(epilog=EXIT_CODES)
@common
def key(config_path: Path, as_json: bool) -> None:
    """Print the public key of this instance. No daemon is needed.

    Others verify receipts with the first line, which is one of an allowed_signers file of OpenSSH, and
    checkpoints with the second one (witnesses, and tools for signed notes).
    """
    from dnsblock.policy.log_report import instance_of

    instance = instance_of(_config(config_path))
    openssh, note = instance.openssh, str(instance.verifier)
    if as_json:
        fingerprint = instance.key.public_key.fingerprint
        click.echo(
            json.dumps(
                {"origin": instance.origin, "openssh": openssh, "note": note, "fingerprint": fingerprint}
            )
        )
    else:
        click.echo(instance.signers_line)
        click.echo(note)


# ------- accept-restore -------


@log.command("accept-restore", epilog=EXIT_CODES)
@click.option(
    "--reason",
    required=True,
    callback=reason_of,
    metavar="TEXT",
    help="Why you accept it; recorded in the ledger.",
)
@common
def accept_restore(config_path: Path, as_json: bool, reason: str) -> None:
    """Accept a ledger that lacks records, or a clock that is behind.

    `dnsblock status` shows the missing records. The acceptance is recorded in the ledger, and publishing
    resumes. If no record is missing, this accepts a clock that is behind the last record.
    """
    answer = client_of(config_path).accept_restore(reason)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        click.echo(
            f"accepted; now serving serial {answer['serial']}, {counted(answer['entries'], 'name')} enforced"
        )
