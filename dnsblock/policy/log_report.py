"""The commands `dnsblock log key`, `show`, `verify` and `prove`: they read the state folder."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dnsblock.config import Config
from dnsblock.errors import Problem, Refused, only_issuer
from dnsblock.lists.store import Store
from dnsblock.orders.checkpoint import CheckpointFile
from dnsblock.orders.claims import Claim
from dnsblock.orders.ledger import Ledger
from dnsblock.orders.proof import covering, issuers_of, lines_of, proof_of, records_of
from dnsblock.orders.transparency.folder import NAME, CheckpointFolder
from dnsblock.orders.transparency.instance import Instance
from dnsblock.orders.verification import Keys, Verification, verify
from dnsblock.signatures.notes import VerifierKey


@dataclass(frozen=True, slots=True)
class Shown:
    """A record: the fields in the file."""

    n: int
    fields: dict[str, Any]


def instance_of(config: Config) -> Instance:
    """The key of the instance. Raises `Refused` if there is none."""
    with readable(config):
        instance = Instance.load(config.state, config.ledger.origin)
    if instance is None:
        reason = "there is no instance.key yet: the daemon makes it at its first startup"
        raise Refused([Problem(str(config.state), None, "", reason)])
    return instance


def records(config: Config, order_id: str | None, issuer: str | None) -> Iterator[Shown]:
    """The records, or those of one order. Raises `Refused` and `OrderNotFound`."""
    with readable(config):
        ledger = Ledger.open(config.state, read_only=True)
        wanted: Sequence[int] = range(1, len(ledger.records) + 1)
        if order_id is not None:
            of_order = records_of(ledger.records, _issuer(ledger, order_id, issuer), order_id)
            wanted = [record.n for record in of_order]
        lines = lines_of(ledger.path, wanted)
    for n in wanted:
        yield Shown(n, json.loads(lines[n]))
    if ledger.damage is not None:
        raise Refused([ledger.damage])


def verify_all(
    config: Config, others: Sequence[VerifierKey], progress: Callable[[int], None]
) -> Verification:
    """Verifies the whole ledger. `others`: keys that this instance had before. Raises `Refused`."""
    with readable(config):
        instance = Instance.load(config.state, config.ledger.origin)
        own = [] if instance is None else [instance.public]
        keys = Keys([*own, *(key.public for key in others)], [one.key for one in config.ledger.witnesses])
        claims = list(_claims(config))
        return verify(config.state, config.ledger.checkpoints.folder, claims, keys, progress)


def _claims(config: Config) -> Iterator[Claim]:
    """The end of the ledger, as the checkpoint file and the history of lists know it."""
    content = CheckpointFile(config.state).content
    if content is not None and content.ledger is not None:
        yield Claim.of_position(CheckpointFile.FILE, content.ledger, content.root)
    store = Store(config.state, read_only=True)
    try:
        with store.history() as history:
            position = history.last_position()
    finally:
        store.close()
    if position is not None:
        yield Claim.of_position("the history of lists", position)


def prove(config: Config, order_id: str, issuer: str | None) -> dict[str, Any]:
    """The proof that the ledger has the records of an order. Raises `Refused` and `OrderNotFound`."""
    with readable(config):
        instance = instance_of(config)
        ledger = Ledger.open(config.state, read_only=True)
        issuer = _issuer(ledger, order_id, issuer)
        first = next(records_of(ledger.records, issuer, order_id))
        folders = [CheckpointFolder(config.state / NAME)]
        if config.ledger.checkpoints.folder is not None:
            folders.append(CheckpointFolder(config.ledger.checkpoints.folder))
        note = covering(folders, ledger.tree, first.n, instance.public)
        return proof_of(ledger, issuer, order_id, note, str(instance.verifier))


def _issuer(ledger: Ledger, order_id: str, issuer: str | None) -> str:
    """The issuer of an order. Raises `OrderNotFound` if the number is unknown, or that of several issuers."""
    return only_issuer(issuers_of(ledger.records, order_id), order_id, issuer)


@contextlib.contextmanager
def readable(config: Config) -> Iterator[None]:
    """Turns errors of files in the state folder into `Refused`."""
    try:
        yield
    except OSError as err:
        reason = f"{err.strerror}: run this as root or as the user of dnsblock"
        raise Refused([Problem(str(err.filename or config.state), None, "", reason)]) from err
