"""Order documents as the authority writes them (dnsblock.order/1), and the moments in them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

ISSUER = "ministry.example"
LONG_AGO = "2017-07-14T11:30:00+07:00"
SHIPPED = Path(__file__).resolve().parents[2] / "blocklists" / "orders"


def order(order_id: str, action: str, *, issuer: str = ISSUER, **fields: object) -> dict[str, object]:
    return {
        "schema": "dnsblock.order/1",
        "issuer": issuer,
        "order_id": order_id,
        "action": action,
        "issued_at": LONG_AGO,
        **fields,
    }


def block(order_id: str, entries: Iterable[object], **fields: object) -> dict[str, object]:
    return order(order_id, "block", entries=list(entries), **fields)


def exempt(order_id: str, entries: Iterable[object], **fields: object) -> dict[str, object]:
    return order(order_id, "exempt", entries=list(entries), **fields)


def unblock(order_id: str, target: str, entries: object = "all", **fields: object) -> dict[str, object]:
    return order(order_id, "unblock", targets=[{"order_id": target, "entries": entries}], **fields)


class _Plain(yaml.SafeDumper):
    """YAML without anchors, which orders and configuration refuse."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def as_yaml(document: object) -> str:
    """A document in YAML; an order ends with the key that proves that it is complete."""
    if isinstance(document, dict) and "order_id" in document:
        end = document.get("end", document["order_id"])
        document = {key: value for key, value in document.items() if key != "end"} | {"end": end}
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True)


def shipped(action: str) -> tuple[Path, dict[str, object]]:
    """The shipped Telegram order with this action: its file and what it says."""
    for path in sorted(SHIPPED.rglob("*.yaml")):
        # BaseLoader: every scalar is text, as in an order.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        if document["action"] == action:
            return path, document
    raise AssertionError(f"no {action} order in {SHIPPED}")


def in_seconds(seconds: float) -> datetime:
    """A whole second, at least `seconds` from now."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return (moment + timedelta(seconds=1)).replace(microsecond=0) if moment.microsecond else moment


def stamp(moment: datetime) -> str:
    """RFC 3339 as a person in Jakarta writes it."""
    return (moment + timedelta(hours=7)).strftime("%Y-%m-%dT%H:%M:%S+07:00")
