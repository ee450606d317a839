"""Decides which order documents are accepted into the ledger. Used by publish, `check` and `order submit`.

It only reads: nothing is written or moved. A refused document does not delay any other document. It is not
recorded, and the next reload reads it again.
"""

import contextlib
import hashlib
import os
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from pathlib import Path

from dnsblock import document
from dnsblock._engine import file_digests
from dnsblock.config import Config
from dnsblock.errors import Problem, Refused, capped, printable
from dnsblock.log import fault
from dnsblock.orders.authority import Authority, authority_of, current_keys
from dnsblock.orders.conflicts import Together
from dnsblock.orders.context import Context
from dnsblock.orders.facts import MAX_RANGES, count_ranges, unreadable_in
from dnsblock.orders.guarding import verdicts_on
from dnsblock.orders.guards import PROTECTED, released_by_acks
from dnsblock.orders.order import ENDS, MAX_DOCUMENT_BYTES, Order, load_entries_file, parse
from dnsblock.orders.orders import Orders
from dnsblock.orders.places import Places
from dnsblock.orders.remarks import remarks
from dnsblock.orders.schema import DOCUMENT_SUFFIXES, Action
from dnsblock.orders.verdict import EntryVerdict

MAX_FILES = 10_000
MAX_SIGNATURES_BYTES = 64 << 10
MAX_NOTES = 20  # on entries of one order
MAX_REFUSED_SHOWN = 1000  # entries of one order that cannot be read


@dataclass(frozen=True, slots=True)
class RefusedDocument:
    """A refused document, or the inbox itself if it cannot be read."""

    file: str
    problems: tuple[Problem, ...]
    issuer: str | None = None  # None: unknown, since the document cannot be read
    order_id: str | None = None
    sha256: str | None = None  # of the document's bytes; None: it cannot be read


@dataclass(frozen=True, slots=True)
class Intake:
    """The content of the inbox."""

    new: tuple[Order, ...]  # in the order in which they enter the ledger
    refused: tuple[RefusedDocument, ...]  # by the name of the file
    # Orders that are in the ledger, with another judgement: somebody else has signed them, too.
    signed: tuple[Order, ...] = ()
    notes: tuple[str, ...] = ()  # remarks on accepted documents, such as a held order

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every problem of every refused document."""
        return tuple(problem for one in self.refused for problem in one.problems)


NOTHING = Intake((), ())


def examine(folder: Path, context: Context) -> Intake:
    """Reads and judges every document in `folder` that is not in the ledger yet."""
    found: list[Order] = []
    refused: list[RefusedDocument] = []
    seen: set[str] = set()
    try:
        paths = documents_in(folder)
    except Refused as err:
        return Intake((), (RefusedDocument(str(folder), err.problems),))
    for file, digest in zip(paths, file_digests(paths, MAX_DOCUMENT_BYTES), strict=True):
        if digest is not None and _was_judged(digest, seen, context):
            continue
        path = Path(file)
        with costs_only_itself(str(path)) as problems:
            found += _read(path, folder, seen, context)
        if problems:
            refused.append(RefusedDocument(str(path), tuple(problems), sha256=_digest_of(path)))
    return judge_all(found, refused, context)


@contextlib.contextmanager
def costs_only_itself(file: str) -> Iterator[list[Problem]]:
    """Collects the problems of one document. Nothing that happens with it delays the others."""
    problems: list[Problem] = []
    try:
        yield problems
    except Refused as err:
        problems.extend(err.problems)
    except Exception as err:  # a defect of dnsblock
        fault(f"internal error with the document {printable(file)}")
        reason = (
            f"INTERNAL: {type(err).__name__}: please report it with the traceback in the log of the daemon"
        )
        problems.append(Problem(file, None, "", reason))


def judge_all(found: Iterable[Order], refused: Iterable[RefusedDocument], context: Context) -> Intake:
    """Judges documents that were `found` and read. Those already `refused` stay refused.

    The result does not depend on the sequence of the documents.
    """
    own = _in_turn(found)
    rejected = list(refused)
    eligible: list[Order] = []
    is_over = any(order.expires_at is not None and order.expires_at <= context.now for order in own)
    needed = _needed(own, context.known) if is_over else set()
    for order in own:
        problems = [*_judge_issuer(order, context.config), *_judge_end(order, needed, context.now)]
        if problems and order.sha256 in context.known.by_digest:
            continue  # it is in the ledger: a later configuration and its end do not judge it again
        if problems and context.is_trial:
            problems += _further_problems(order, context)
        if problems:
            rejected.append(_refuse(order, problems))
        else:
            eligible.append(order)
    new: list[Order] = []
    signed: list[Order] = []
    notes: list[str] = []
    together = Together(context.known)
    for _, group in groupby(eligible, key=lambda order: (order.issuer, order.seq)):
        # Of several with the same number, the one that follows the previous order comes first.
        for order in sorted(group, key=lambda order: not together.follows(order)):
            with costs_only_itself(order.file) as problems:
                known = context.known.by_digest.get(order.sha256)
                if known is not None:
                    signed += _signed_again(order, known, together, context)
                    continue
                accepted = _accept(order, together, context)
                notes += [f"{printable(order.file)}: {note}" for note in together.notes(accepted)]
                together.accept(accepted)
                new.append(accepted)
            if problems:
                rejected.append(_refuse(order, problems))
    rejected.sort(key=lambda one: one.file)
    notes += _notes(context.known, new, context.now)
    return Intake(tuple(new), tuple(rejected), tuple(signed), tuple(notes))


def _accept(order: Order, together: Together, context: Context) -> Order:
    """The order with its judgement. Raises `Refused`."""
    if context.is_trial:
        return _try(order, together, context)
    if problems := tuple(together.problems(order)):
        raise Refused(problems)
    authority = _authority(order, together, context)
    if order.keys is not None:
        _check_keys(order, together, context)
    order, problems_of_targets = together.aimed(together.with_entries(order))
    if problems_of_targets:
        raise Refused(problems_of_targets)
    return _judged(order, authority, context)


def _try(order: Order, together: Together, context: Context) -> Order:
    """As `_accept`, but raises `Refused` with the problems of all checks. Signatures may be missing."""
    problems = list(together.problems(order))
    authority = Authority((), 1)
    with contextlib.suppress(Refused):  # `policy/trial.py` reports on signatures
        authority = _authority(order, together, context)
    try:
        if order.keys is not None:
            _check_keys(order, together, context)
    except Refused as err:
        problems.extend(err.problems)
    order, problems_of_targets = together.aimed(together.with_entries(order))
    problems.extend(problems_of_targets)
    try:
        order = _judged(order, authority, context)
    except Refused as err:
        problems.extend(err.problems)
    if problems:
        problems += capped(list(map(Places(order).refused, order.refused)), MAX_REFUSED_SHOWN)
        problems += _problems_of(order, order.judgement.refused)
        raise Refused(dict.fromkeys(problems))
    return order


def _authority(order: Order, together: Together, context: Context) -> Authority:
    """The signers of a document. Raises `Refused` if that is not enough to accept it."""
    facts = (context.config, context.references.keys, together.rotations(order.issuer), context.now)
    return authority_of(order, *facts, targets=together.aims(order))


def _further_problems(order: Order, context: Context) -> tuple[Problem, ...]:
    """The problems of all later checks of an order that is refused anyway."""
    try:
        _try(order, Together(context.known), context)
    except Refused as err:
        return err.problems
    return ()


def _judged(
    order: Order, authority: Authority, context: Context, among: Collection[int] | None = None
) -> Order:
    """The order with the verdicts of the guards. Raises `Refused` if all entries are refused.

    `among`: the indexes of the entries to judge; None: all.
    """
    found = [one for one in verdicts_on(order, authority, context) if among is None or one.index in among]
    verdicts = released_by_acks(found, order.acks, authority.ack_signers, authority.required)
    refused = {one.index for one in verdicts if one.verdict == "refused"}
    if order.entries and len(refused) == len(order.entries):
        raise Refused(capped(list(_problems_of(order, verdicts)), 100))
    if count_ranges(verdicts) + len(unreadable_in(order)) > MAX_RANGES:
        reason = f"more than {MAX_RANGES:,} separate entries are held or refused: send several orders"
        raise Refused([order.problem((), order.order_id, reason)])
    judgement = replace(order.judgement, signers=authority.signers, is_proposed=authority.is_proposed)
    return replace(order, judgement=judgement.with_verdicts(verdicts))


def _problems_of(order: Order, verdicts: Iterable[EntryVerdict]) -> Iterator[Problem]:
    places = Places(order)
    for one in verdicts:
        yield places.problem(one.index, order.entries[one.index].name, f"{one.code}: {one.reason}")


def _check_keys(order: Order, together: Together, context: Context) -> None:
    """Refuses a rotation that cannot be carried out. Raises `Refused`."""
    issuer = context.config.issuer(order.issuer)
    if issuer is None or order.keys is None:
        reason = "no keys are configured for this issuer, so there are none to change"
        raise Refused([order.problem(("keys",), order.issuer, reason)])
    rotations = together.rotations(order.issuer)
    signers = current_keys(issuer, context.references.keys, rotations, context.now)
    try:
        signers.with_changes(order.keys.add, order.keys.remove)
    except Refused as err:
        raise Refused(order.problem(("keys",), one.value, one.reason) for one in err.problems) from err


def _signed_again(order: Order, known: Order, together: Together, context: Context) -> Iterator[Order]:
    """The known order with a better judgement, if more have signed it. Raises `Refused`."""
    if order.source is None or order.source.signatures is None or known.annulled is not None:
        return
    if order.sha256 != known.sha256:
        return  # JSON with another line end: these signatures are not of the document in the ledger
    authority = _authority(order, together, context)
    before = known.judgement
    if {one.fingerprint for one in before.signers} >= {one.fingerprint for one in authority.signers}:
        return
    if authority.is_proposed and not before.is_proposed:
        return  # a flagger takes back nothing that officers have ordered
    # An accepted or released entry stays so, whatever the guards say by now: a second signature lifts no
    # block. But nothing of a proposed order was enforced yet.
    kept = () if before.is_proposed else [one for one in before.verdicts if one.index not in before.idle]
    among = None if before.is_proposed else before.idle
    judged = _judged(replace(known, source=order.source), authority, context, among)
    judgement = replace(judged.judgement, ignored=before.ignored, unknown=before.unknown)
    yield replace(judged, judgement=judgement.with_verdicts([*kept, *judgement.verdicts]))


def _refuse(order: Order, problems: Iterable[Problem]) -> RefusedDocument:
    return RefusedDocument(order.file, tuple(problems), order.issuer, order.order_id, order.sha256)


def _notes(known: Orders, new: Sequence[Order], now: datetime) -> Iterator[str]:
    if not new:
        return
    after = known.plus(new)
    for order in new:
        _, notes = after.of(order.issuer).lives[order.sha256].state(now)
        for note in notes:
            yield f"{printable(order.file)}: {note}"
        yield from map(str, map(Places(order).refused, order.refused[:MAX_REFUSED_SHOWN]))
        if (rest := len(order.refused) - MAX_REFUSED_SHOWN) > 0:
            yield f"{printable(order.file)}: {rest:,} more entries are refused"
        yield from map(str, _problems_of(order, order.judgement.verdicts[:MAX_NOTES]))
        yield from remarks(order, now)
    yield from _exemptions_without_effect(known, new)


def _exemptions_without_effect(known: Orders, new: Sequence[Order]) -> Iterator[str]:
    """At equal length, `exact` beats `subtree`: a less specific exemption has no effect there."""
    if not any(order.action == "exempt" for order in new):
        return
    exact = {
        (order.issuer, entry.name): order.order_id
        for order in (*known, *new)
        if order.action == "block"
        for entry in order.entries
        if entry.match == "exact"
    }
    for order in new:
        for entry in order.entries if order.action == "exempt" else ():
            if entry.match == "subtree" and (order.issuer, entry.name) in exact:
                block = exact[order.issuer, entry.name]
                why = f"order {block} blocks {entry.name} with `match: exact`, which goes before `subtree`"
                yield f"{printable(order.file)}: NO_EFFECT: {why}"


# ------- Reading -------


def _read(path: Path, folder: Path, seen: set[str], context: Context) -> Iterator[Order]:
    """The order in a file; nothing if its bytes were seen before. Raises `Refused`."""
    data = document.read_bytes(path, max_bytes=MAX_DOCUMENT_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if _was_judged(digest, seen, context):
        return
    seen.add(digest)
    order = load_entries_file(parse(str(path), data), folder)
    seen.update(order.digests)
    yield with_signatures(order, _signatures_of(path))


def _was_judged(digest: str, seen: Collection[str], context: Context) -> bool:
    """Whether a document was seen before, or was judged when it was accepted."""
    known = context.known.by_digest.get(digest)
    return digest in seen or (known is not None and not may_need_signatures(known))


def _digest_of(path: Path) -> str | None:
    """The digest of a refused document; None if it cannot be read."""
    try:
        return hashlib.sha256(document.read_bytes(path, max_bytes=MAX_DOCUMENT_BYTES)).hexdigest()
    except Refused:
        return None


def may_need_signatures(order: Order) -> bool:
    """Whether more signatures would change what is enforced."""
    judgement = order.judgement
    is_protected = any(one.code == PROTECTED for one in judgement.refused)  # a signer may override it
    return order.annulled is None and bool(judgement.is_proposed or judgement.held or is_protected)


def with_signatures(order: Order, signatures: bytes | None) -> Order:
    """The order with its detached signatures."""
    if order.source is None or signatures is None:
        return order
    return replace(order, source=replace(order.source, signatures=signatures))


def _signatures_of(path: Path) -> bytes | None:
    """The content of the file with the signatures; None if there is none. Raises `Refused`."""
    beside = path.with_name(f"{path.name}.sig")
    return document.read_bytes(beside, max_bytes=MAX_SIGNATURES_BYTES) if beside.exists() else None


def documents_in(folder: Path) -> list[str]:
    """The paths of the documents in the folder, sorted by name.

    Symbolic links to files are followed: operators and Kubernetes mounts use them, and their targets are
    judged like any other file. Folders are ignored. A FIFO or a device is refused when it is read.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted(item.name for item in found if _is_document(item.name) and not _is_folder(item))
    except OSError as err:
        reason = f"{err.strerror}: create the folder and let dnsblock read it, or set `orders: null`"
        raise Refused([Problem(str(folder), None, "", reason)]) from err
    if len(names) > MAX_FILES:
        reason = (
            f"more than {MAX_FILES:,} documents: remove those that are in the ledger (see `dnsblock status`)"
        )
        raise Refused([Problem(str(folder), None, "", reason)])
    return [os.path.join(folder, name) for name in names]  # a tenth of the time of Path


def _is_folder(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a dangling link: it alone is refused when it is read
        return False


def _is_document(name: str) -> bool:
    """Editors and copy tools use names with a leading dot for unfinished files."""
    return name.lower().endswith(DOCUMENT_SUFFIXES) and not name.startswith(".")


_Turn = tuple[str, bool, int, int, int, datetime, str, str]
_RANKS: Mapping[Action, int] = {"notice": 0, "supersede": 2, "unblock": 3, "revoke": 3, "rotate": 4}


def _in_turn(orders: Iterable[Order]) -> list[Order]:
    """Sorts by the issuer's number. Without one, an order comes after those that it may refer to.

    A rotation comes after the orders that were issued before it: they are signed with the former keys. An
    unblock without a number, among orders with one, comes last.
    """
    own = list(orders)
    numbered = {order.issuer for order in own if order.seq is not None}
    rotations: dict[str, list[datetime]] = {}
    for order in sorted(own, key=lambda order: order.issued_at):
        if order.keys is not None:
            rotations.setdefault(order.issuer, []).append(order.issued_at)

    def turn(order: Order) -> _Turn:
        is_last = order.seq is None and order.action in ENDS and order.issuer in numbered
        era = bisect_left(rotations.get(order.issuer, ()), order.issued_at)
        rank = _RANKS.get(order.action, 1)
        names = (order.issued_at, order.order_id, order.sha256)
        return (order.issuer, is_last, order.seq or 0, era, rank, *names)

    return sorted(own, key=turn)


# ------- Judging -------


def _judge_issuer(order: Order, config: Config) -> Iterator[Problem]:
    if not any(zone.issuer == order.issuer for zone in config.zones):
        reason = "UNKNOWN_ISSUER: no zone in the configuration is for this issuer"
        yield order.problem(("issuer",), order.issuer, reason)


def _judge_end(order: Order, needed: set[str], now: datetime) -> Iterator[Problem]:
    """Refuses an expired block or exemption: it has no effect, and usually its year is wrong.

    It is accepted if another document refers to it: then old orders are read again, such as all orders of
    an issuer on a new server.
    """
    if order.expires_at is None or order.expires_at > now or needed.intersection(_names_of(order)):
        return
    reason = (
        f"EXPIRED: expires_at has passed, so this order to {order.action} would have no effect: is the year "
        "right?"
    )
    yield order.problem(("expires_at",), order.written("expires_at"), reason)


def _needed(own: Sequence[Order], known: Orders) -> set[str]:
    """The references from orders to others: each `prev`, and each lifted order."""
    needed: set[str] = set()
    for order in (*own, *known) if own else ():
        needed |= {f"{order.issuer} {target.order_id}" for target in order.targets}
        needed |= set() if order.prev is None else {order.prev}
    return needed


def _names_of(order: Order) -> tuple[str, ...]:
    return (*order.digests, f"{order.issuer} {order.order_id}")
