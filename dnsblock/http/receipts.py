"""The handler for receipts of orders, of the control API and of the issuers' API alike."""

import asyncio
import math
import time
from collections import deque

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dnsblock.errors import Refused
from dnsblock.http.answers import ApiError
from dnsblock.http.callers import Caller, Identify, unavailable
from dnsblock.http.control import Control
from dnsblock.http.orders import life_of
from dnsblock.http.paths import order_in
from dnsblock.policy.receipt import SignedReceipt, receipt_of

RECEIPTS = 300  # that a client gets in
RECEIPTS_SECONDS = 3600.0


class Receipts:
    """Counts the receipts of each client: each is a record, and a client must not fill the ledger's disk."""

    def __init__(self) -> None:
        self._given: dict[str, deque[float]] = {}  # when, by the name of the client

    def give(self, client: str, now: float) -> float:
        """Counts one more receipt. If there were too many, the seconds until the next one is possible."""
        given = self._given.setdefault(client, deque(maxlen=RECEIPTS))
        if len(given) == RECEIPTS and (left := given[0] + RECEIPTS_SECONDS - now) > 0:
            return left
        given.append(now)
        return 0.0


def receipt_routes(control: Control, identify: Identify) -> list[Route]:
    """`/v1/orders/ISSUER/NUMBER/receipt`."""

    receipts = Receipts()

    async def get_receipt(request: Request) -> Response:
        """Signs a receipt of the present state, and a checkpoint of the ledger; records that."""
        caller = await identify(request, "read")
        receipt = await signed_receipt(control, caller, *order_in(request), receipts)
        return JSONResponse(receipt.as_json())

    return [Route("/v1/orders/{issuer}/{number}/receipt", get_receipt)]


async def signed_receipt(
    control: Control, caller: Caller, issuer: str, number: str, receipts: Receipts
) -> SignedReceipt:
    """Signs and records a receipt of the present state of an order. Raises `ApiError`."""
    view = control.view(caller.principal)
    publisher, state = view.publisher, view.state
    life = life_of(state, caller, issuer, number)
    if caller.is_remote:
        _limit(receipts, str(caller.principal))
    recorder = publisher.recorder

    def sign() -> SignedReceipt:
        recorder.check()
        facts = (publisher.policy, view.config, recorder.signer)
        return receipt_of(life, state, *facts, now=recorder.now(), sees=caller.issuers)

    try:
        receipt = await asyncio.to_thread(sign)
    except (OSError, Refused) as err:  # a ledger that is not used proves nothing
        raise unavailable(caller, "no receipt can be signed now", err) from err
    if not await publisher.note([receipt.fact], caller.principal):
        raise ApiError(503, "UNAVAILABLE", "the ledger cannot be written, so no receipt is given")
    return receipt


def _limit(receipts: Receipts, client: str) -> None:
    left = receipts.give(client, time.monotonic())
    if left:
        reason = f"a client gets at most {RECEIPTS:,} receipts an hour"
        raise ApiError(503, "BUSY", reason, headers={"retry-after": str(math.ceil(left))})
