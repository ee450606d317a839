"""Whether a document is authentic: who signed it, and what the signers may order.

The keys are those of the issuer's allowed_signers file, with the changes that its rotate orders made.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dnsblock.config import Config, Issuer, Role
from dnsblock.errors import Problem, Refused
from dnsblock.orders.issuer import IssuerOrders
from dnsblock.orders.order import Order
from dnsblock.orders.references import Keys
from dnsblock.orders.schema import Action
from dnsblock.orders.verdict import Signed
from dnsblock.signatures.allowed_signers import AllowedSigners
from dnsblock.signatures.verify import SignatureProblem, verify

_NEEDED: Mapping[Action, frozenset[Role]] = {
    "block": frozenset({"block"}),
    "notice": frozenset({"block"}),
    "supersede": frozenset({"block", "lift"}),
    "unblock": frozenset({"lift"}),
    "revoke": frozenset({"lift"}),
    "exempt": frozenset({"exempt"}),
    "snapshot": frozenset({"lift"}),
    "rotate": frozenset({"block", "lift", "exempt"}),
}


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signed a document, as far as it counts."""

    signers: tuple[Signed, ...]
    required: int  # signatures for an order of this issuer; 0: unsigned orders are accepted
    is_proposed: bool = False  # only flaggers have signed
    may_override: bool = False  # a signer may block protected names

    @property
    def ack_signers(self) -> int:
        """The signers that stand behind the `acks`. Two keys of one person count once.

        Where unsigned orders are accepted, there is no signature to ask for. Flaggers release nothing: the
        officers who sign later decide about the acks, too.
        """
        if self.is_proposed:
            return 0
        return len({one.principal for one in self.signers}) if self.required else 2


def current_keys(issuer: Issuer, keys: Keys, rotations: Iterable[Order]) -> AllowedSigners:
    """The keys of an issuer after its rotate orders. Raises `Refused` if its file cannot be used."""
    signers = keys.get(issuer.id, ())
    if not isinstance(signers, AllowedSigners):
        raise Refused(signers)
    for order in rotations:
        if order.keys is None:
            continue
        # The operator may have changed the file since in the same way. So one by one, and added keys first.
        for line in order.keys.add:
            with contextlib.suppress(Refused):
                signers = signers.with_changes((line,), ())
        for fingerprint in order.keys.remove:
            with contextlib.suppress(Refused):
                signers = signers.with_changes((), (fingerprint,))
    return signers


def rotations_of(orders: IssuerOrders) -> list[Order]:
    """The rotate orders that apply."""
    lives = orders.lives.values()
    return [
        one.order for one in lives if one.order.keys and one.standing is None and one.order.annulled is None
    ]


def authority_of(
    order: Order, config: Config, keys: Keys, rotations: Iterable[Order], now: datetime
) -> Authority:
    """Who signed a document. Raises `Refused` if that is not enough to accept it."""
    issuer = config.issuer(order.issuer)
    zone = next((zone for zone in config.zones if zone.issuer == order.issuer), None)
    if zone is not None and zone.accepts_unsigned:
        return Authority((), 0)
    if issuer is None:
        reason = (
            "UNSIGNED: no keys are configured for this issuer: add it to `issuers` with its file of keys, "
            "or set `unsigned: accept` in its zone"
        )
        raise Refused([order.problem(("issuer",), order.issuer, reason)])
    if order.source is None or order.source.signatures is None:
        reason = (
            f"UNSIGNED: the file {Path(order.file).name}.sig is missing: sign the order with "
            "`dnsblock order sign FILE --key KEY`"
        )
        raise Refused([order.problem((), order.order_id, reason)])
    signers_now = current_keys(issuer, keys, rotations)
    found, problems = verify(order.source.data, order.source.signatures, signers_now, now)
    signers = tuple(Signed(one.principal, one.fingerprint, one.algorithm) for one in found)
    return _judged(order, issuer, signers, problems)


def _judged(
    order: Order, issuer: Issuer, signers: tuple[Signed, ...], problems: list[SignatureProblem]
) -> Authority:
    needed = _NEEDED[order.action]
    roles = {one.principal: issuer.roles_of(one.principal, order.category) for one in signers}
    permitted = {principal for principal, may in roles.items() if needed <= may}
    counted = tuple(one for one in signers if one.principal in permitted)
    if len(permitted) >= issuer.signatures:
        overrides = any("override" in roles[principal] for principal in permitted)
        return Authority(counted, issuer.signatures, may_override=overrides)
    flaggers = tuple(one for one in signers if "propose" in roles[one.principal])
    if flaggers and order.action in ("block", "exempt", "supersede", "notice"):
        return Authority((*counted, *flaggers), issuer.signatures, is_proposed=True)
    raise Refused(_why_refused(order, issuer, signers, permitted, problems))


def _why_refused(
    order: Order,
    issuer: Issuer,
    signers: tuple[Signed, ...],
    permitted: set[str],
    problems: list[SignatureProblem],
) -> list[Problem]:
    found = [order.problem((), one.fingerprint or "", f"{one.code}: {one.reason}") for one in problems]
    for one in signers:
        if one.principal not in permitted:
            category = f" in the category {order.category}" if order.category else ""
            reason = (
                f"WRONG_ROLE: this signer may not order {order.action}{category}: see the option `issuers`"
            )
            found.append(order.problem((), one.principal, reason))
    count = f"{issuer.signatures} signature{'' if issuer.signatures == 1 else 's'}"
    reason = (
        f"NOT_ENOUGH_SIGNATURES: {count} of different signers needed, {len(permitted)} valid: "
        "add one with `dnsblock order sign`"
    )
    return [order.problem((), order.order_id, reason), *found]
