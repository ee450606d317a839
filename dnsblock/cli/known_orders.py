"""The issuer's earlier orders, as `order new` knows them: from --after, from --orders, or from the daemon."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dnsblock.cli.common import client_of
from dnsblock.errors import DaemonUnreachable, Problem, Refused
from dnsblock.texts import Texts

if TYPE_CHECKING:
    from dnsblock.orders.authoring import Previous
    from dnsblock.orders.issuer import IssuerOrders
    from dnsblock.orders.writing import NewOrder


class KnownOrders:
    """The earlier orders of one issuer. Raises `Refused` if a file of the form cannot be used."""

    def __init__(self, form: Mapping[str, Any], issuer: str, config_path: Path, texts: Texts) -> None:
        from dnsblock.orders.authoring import own_orders, previous_in

        self._form, self._issuer, self._texts = form, issuer, texts
        self._config_path = config_path
        self._own: IssuerOrders | None = None
        self._after: Previous | None = None
        if form.get("orders"):
            self._own = own_orders(Path(form["orders"]), issuer)
        if form.get("after"):
            self._after = previous_in(Path(form["after"]), issuer)

    def number(self, order: "NewOrder") -> tuple["NewOrder", str | None]:
        """The order with the next `seq` and its `prev`, or a note why it has none. Raises `Refused`."""
        from dnsblock.orders.authoring import Previous, previous_of

        say, previous, is_known = self._texts.say, self._after, self._own is not None
        if self._form.get("no_seq"):
            return order, None
        if previous is None and self._own is not None:
            if not self._own.lives:
                return replace(order, seq=1), say("seq 1: the folder has no earlier order of this issuer")
            previous = previous_of(self._own)
        if previous is None and self._own is None and (answer := self._asked("last_order")) is not None:
            self._refuse_gap(answer["gap"])
            if answer["orders"] == 0:
                return replace(order, seq=1), None
            last, is_known = answer["last"], True
            previous = None if last is None else Previous(last["order_id"], last["seq"], last["sha256"])
        if previous is not None:
            return replace(order, seq=previous.seq + 1, prev=previous.sha256), None
        if is_known:
            return order, say("without seq: the issuer does not number its orders")
        text = "without seq: no previous order is known (--after FILE), and no daemon can be reached"
        return order, say(text)

    def statement(self, order: "NewOrder", zone: tzinfo) -> tuple["NewOrder", str | None]:
        """The order with a statement of everything in force, and a note. Raises `Refused`."""
        from dnsblock.orders.form import as_query, local_time, with_statement
        from dnsblock.orders.statement import content_of

        written = self._form.get("valid_until")
        until = local_time(written, zone) if written else None
        if self._own is not None:
            if not self._own.lives:
                text = self._texts.say("the folder has no earlier order of this issuer")
                raise Refused([Problem("--orders", None, str(self._form["orders"]), text)])
            content = content_of(self._own, order.issued_at)
            return with_statement(order, content.seq, content.entries, content.digest, until), None
        stated = self._asked("statement", as_query(order.issued_at))
        if stated is None:
            text = "the issuer's orders are unknown: give them with --orders FOLDER, or a daemon with -c"
            raise Refused([Problem("--orders", None, "", self._texts.say(text))])
        self._refuse_gap(stated["gap"])
        text = "the statement is of this server: it does not reveal an order that is missing here (--orders)"
        stated_order = with_statement(order, stated["seq"], stated["entries"], stated["digest"], until)
        return stated_order, self._texts.say(text)

    def _asked(self, method: str, *more: str) -> dict[str, Any] | None:
        """The response of the daemon about the issuer; None if it cannot be reached."""
        try:
            answer: dict[str, Any] = getattr(client_of(self._config_path), method)(self._issuer, *more)
        except (Refused, DaemonUnreachable):
            return None
        return answer

    def _refuse_gap(self, gap: int | None) -> None:
        if gap is not None:
            text = (
                "the order with seq {} is missing on the server, so the last one is unknown: use --after FILE"
            )
            raise Refused([Problem("--after", None, "", self._texts.say(text, gap))])
