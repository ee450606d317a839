"""Whether a document is authentic: who signed it, and what the signers may order.

The keys are those of the issuer's allowed_signers file, with the changes that its rotate orders made.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dnsblock.config import Config
from dnsblock.config_issuers import Issuer, Role
from dnsblock.errors import Problem, Refused
from dnsblock.orders.order import ENDS, Order
from dnsblock.orders.references import Keys
from dnsblock.orders.schema import Action
from dnsblock.orders.verdict import Signed
from dnsblock.signatures.allowed_signers import AllowedSigners, LineRefused, parse_line
from dnsblock.signatures.verify import SignatureProblem, Signer, verify

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
# A flagger's statement or new keys are of no use to the officers, who make their own.
_NEVER_PROPOSED: frozenset[Action] = frozenset({"snapshot", "rotate"})


@dataclass(frozen=True, slots=True)
class Authority:
    """The signers of a document, as far as they count."""

    signers: tuple[Signed, ...]
    required: int  # signatures for an order of this issuer; 0: unsigned orders are accepted
    people: int = 0  # different people among the signers
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
        return self.people if self.required else 2


def current_keys(issuer: Issuer, keys: Keys, rotations: Iterable[Order], now: datetime) -> AllowedSigners:
    """The keys of an issuer after its rotate orders in effect. Raises `Refused` for an unusable file."""
    signers = keys.get(issuer.id, ())
    if not isinstance(signers, AllowedSigners):
        raise Refused(signers)
    for order in rotations:
        if order.keys is not None and order.effective_at <= now:
            signers = signers.rotated(order.keys.add, order.keys.remove)
    return signers


def authority_of(
    order: Order,
    config: Config,
    keys: Keys,
    rotations: Iterable[Order],
    now: datetime,
    *,
    targets: Sequence[Order | None],
) -> Authority:
    """The signers of a document. Raises `Refused` if that is not enough to accept it.

    `targets`: the orders that it ends; None for one that has not come yet.
    """
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
    signers_now = current_keys(issuer, keys, rotations, now)
    found, problems = verify(order.source.data, order.source.signatures, signers_now, now)
    return _judged(order, targets, issuer, found, problems)


def _judged(
    order: Order,
    targets: Sequence[Order | None],
    issuer: Issuer,
    found: list[Signer],
    problems: list[SignatureProblem],
) -> Authority:
    needed, categories = _needed(order, targets), _categories(order, targets)
    roles = {one.fingerprint: issuer.roles_of(one.principals, categories) for one in found}
    permitted = [one for one in found if needed <= roles[one.fingerprint]]
    if order.keys is not None:
        # A signer for some categories only must not make keys that count for all.
        permitted = [one for one in permitted if not _is_limited(issuer, one)]
        permitted = [one for one in permitted if _grants(order, issuer) <= roles[one.fingerprint]]
    people = _count_people(permitted)
    if people >= issuer.signatures:
        overrides = any("override" in roles[one.fingerprint] for one in permitted)
        return Authority(_signed(permitted), issuer.signatures, people, may_override=overrides)
    flaggers = [one for one in found if "propose" in roles[one.fingerprint]]
    if flaggers and order.action not in _NEVER_PROPOSED:
        signers = _signed(dict.fromkeys((*permitted, *flaggers)))
        return Authority(signers, issuer.signatures, is_proposed=True)
    raise Refused(_why_refused(order, issuer, found, permitted, problems))


def without_role(
    signers: Iterable[Signer], action: Action, category: str | None, issuer: Issuer
) -> list[Signer]:
    """The signers who may not order this, as far as the document alone says. The daemon knows targets."""
    categories = () if action in ENDS or action == "rotate" else (category,)
    return [one for one in signers if not _NEEDED[action] <= issuer.roles_of(one.principals, categories)]


def _signed(signers: Iterable[Signer]) -> tuple[Signed, ...]:
    return tuple(Signed(one.principal, one.fingerprint, one.algorithm) for one in signers)


def _needed(order: Order, targets: Iterable[Order | None]) -> frozenset[Role]:
    """The roles for an order. To end an exemption blocks names again, so it needs that role, too."""
    ends_exemption = any(one is not None and one.action == "exempt" for one in targets)
    return _NEEDED[order.action] | (frozenset({"exempt"}) if ends_exemption else frozenset())


def _categories(order: Order, targets: Iterable[Order | None]) -> set[str | None]:
    """The categories that a signer must be allowed: of the order, and of the orders that it ends."""
    if order.keys is not None:
        return set()  # keys have none
    if order.action not in ENDS:
        return {order.category}
    found: set[str | None] = {None if one is None else one.category for one in targets}
    return found if order.category is None and order.action != "supersede" else {*found, order.category}


def _is_limited(issuer: Issuer, signer: Signer) -> bool:
    return any(one.categories is not None for one in issuer.signers_of(signer.principals))


def _grants(order: Order, issuer: Issuer) -> frozenset[Role]:
    """The roles of the keys that a rotation adds. Nobody can give a role that he does not have."""
    found: set[Role] = set()
    for text in order.keys.add if order.keys is not None else ():
        try:
            found |= issuer.roles_of(parse_line(text).names, ())
        except LineRefused:
            continue  # such a rotation is refused for that reason
    return frozenset(found - {"propose"})


def _count_people(signers: Sequence[Signer]) -> int:
    """Different people: keys with a common principal are those of one person."""
    people: list[set[str]] = []
    for one in signers:
        own = set(one.principals)
        for same in [other for other in people if other & own]:
            own |= same
            people.remove(same)
        people.append(own)
    return len(people)


def _why_refused(
    order: Order,
    issuer: Issuer,
    signers: Iterable[Signer],
    permitted: Sequence[Signer],
    problems: Iterable[SignatureProblem],
) -> Iterator[Problem]:
    count = f"{issuer.signatures} signature{'' if issuer.signatures == 1 else 's'}"
    reason = (
        f"NOT_ENOUGH_SIGNATURES: {count} of different signers needed, {_count_people(permitted)} valid: "
        "add one with `dnsblock order sign`"
    )
    yield order.problem((), order.order_id, reason)
    for problem in problems:
        yield order.problem((), problem.fingerprint or "", f"{problem.code}: {problem.reason}")
    for signer in signers:
        if signer not in permitted:
            category = f" in the category {order.category}" if order.category else ""
            reason = (
                f"WRONG_ROLE: this signer may not order {order.action}{category}: see the option `issuers`"
            )
            yield order.problem((), signer.principal, reason)
