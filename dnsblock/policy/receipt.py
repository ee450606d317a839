"""Receipts: what became of an order on this instance, signed by its key, with the proof from its ledger.

A third party verifies the signature with `ssh-keygen -Y verify`, and the proof as docs/ledger.md describes.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dnsblock.config import Config
from dnsblock.orders.facts import Receipt
from dnsblock.orders.life import Life
from dnsblock.orders.proof import Signer
from dnsblock.orders.state import State
from dnsblock.policy.lifting import OPENS, Lifting, lifting_of
from dnsblock.policy.order_facts import whole_order
from dnsblock.policy.snapshot import Policy
from dnsblock.principal import Principal
from dnsblock.times import utc

SCHEMA = "dnsblock.receipt/1"
NAMESPACE = "dnsblock-receipt@v1"  # of the signature


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A receipt, and its detached signature as for `ssh-keygen -Y verify`."""

    text: str  # JSON
    signature: str  # armoured
    fact: Receipt  # for the ledger

    def as_json(self) -> dict[str, Any]:
        """The same as one JSON object."""
        return {"receipt": self.text, "signature": self.signature}


def receipt_of(
    life: Life,
    state: State,
    policy: Policy,
    config: Config,
    signer: Signer,
    *,
    now: datetime,
    sees: frozenset[str] | None = None,
) -> SignedReceipt:
    """Writes and signs the receipt of an order. Raises `OSError` if the checkpoint cannot be stored.

    `sees`: the issuers whose orders the caller may see; None: all, and the lists.
    """
    order, instance = life.order, signer.instance
    named = Principal.public if sees is not None else str
    facts = whole_order(life, state, config, now, most=None, named=named)
    content = {
        "schema": SCHEMA,
        "instance": instance.origin,
        "key": instance.openssh,
        "issued_at": utc(now),
        "serial": policy.snapshot.serial,
        "snapshot": policy.snapshot.digest,
        "order": facts,
        "lifting": _lifting(life, state, policy, config, sees),
        "proof": signer.proof(order.issuer, order.order_id),
    }
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=False) + "\n"
    data = text.encode()
    signature = instance.key.sign_ssh(data, NAMESPACE).decode("ascii")
    fact = Receipt(order.issuer, order.order_id, hashlib.sha256(data).hexdigest())
    return SignedReceipt(text, signature, fact)


def _lifting(
    life: Life, state: State, policy: Policy, config: Config, sees: frozenset[str] | None
) -> Lifting | None:
    """The names that stay blocked after an order that opens names."""
    if life.order.action not in OPENS:
        return None
    own = state.by_issuer[life.order.issuer].orders
    return lifting_of(life.order, own, policy, config, policy.at, sees=sees)
