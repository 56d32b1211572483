"""What a replenishment trigger says: its terms, its identity, and the message of each revision.

In: the terms a decision was made on. Out: the JSON of ``replenishment.trigger.v1`` and the state record of an open one.
Must not know: how decisions are made, what stock there is now, clocks. Rule: a message is a function of its terms,
status and reasons alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from streams.outputs import figure
from streams.positions import Position
from streams.state import SnapshotError, pack, unpack


@dataclass(frozen=True, slots=True)
class Trigger:
    """One revision of a trigger, ready to be published.

    Attributes
    ----------
    slot, sku, location
        The series.
    trigger_id
        Identity of the revision, also the CloudEvents id.
    status
        ``open``, ``updated``, ``cancelled``, ``acknowledged`` or ``expired``.
    time_ms
        Event time of the decision.
    value
        JSON of contracts.md §2.
    """

    slot: int
    sku: str
    location: str
    trigger_id: str
    status: str
    time_ms: int
    value: bytes


class Terms(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one revision of a trigger rests on. Stock quantities are thousandths, policy figures units.

    An array in its record: about 300 bytes an open trigger.
    """

    key: str
    revision: int
    expires_ms: int
    kind: str
    quantity: int
    unrounded: float
    pack: int
    moq: int
    rounding: str
    reorder_point: float
    order_up_to: float
    level: float
    lead_mean: float
    lead_p90: float
    review_days: float
    horizon_days: float
    position: Position
    as_of_ms: int
    forecast_id: str
    lead_demand: tuple[float, float, float]
    stockout_ms: int | None
    need_by: str
    order_by: str
    urgency: str
    source: str
    cost: tuple[int, str] | None  # cents, ISO code

    @property
    def available(self) -> int:
        """Thousandths that can still be sold."""
        stock = self.position
        return stock.on_hand + stock.on_order - stock.reserved - stock.ordered_since

    def record(self) -> bytes:
        """Value of the state record of the open trigger."""
        return pack(self)


def read_terms(key: str, record: bytes) -> Terms:
    """Read the state record of an open trigger.

    Raises
    ------
    SnapshotError
        If it is damaged or of another version.
    """
    try:
        return msgspec.convert(unpack(key, record), Terms)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"state record {key!r} is no open trigger: {error}") from error


def idempotency_key(series: str, number: int) -> str:
    """Key under which a receiver takes a trigger once: a hash of the series and how many were opened for it before.

    Examples
    --------
    >>> idempotency_key("A1|default", 0) == idempotency_key("A1|default", 0) != idempotency_key("A1|default", 1)
    True
    """
    return "rt_" + blake2b(f"{series}|{number}".encode(), digest_size=16).hexdigest()


def units(quantity: int) -> int | float:
    """Thousandths as units: a whole number where it is one, and never float noise.

    Examples
    --------
    >>> units(84000), units(300), units(-1500)
    (84, 0.3, -1.5)
    """
    return quantity // 1000 if quantity % 1000 == 0 else quantity / 1000


def message(
    terms: Terms, *, sku: str, location: str, mode: str, status: str, issued_ms: int, reasons: Sequence[str]
) -> bytes:
    """JSON of one revision; a closing revision repeats the quantity that it closes.

    `position.on_order` contains accepted quantities that no count shows yet. Beyond the contract it carries
    `position.ordered_since` (net units ordered since the count), `position.counted_at` and `source_location`.
    """
    key = terms.key
    p10, p50, p90 = (figure(value) for value in terms.lead_demand)
    cost = None if terms.cost is None else {"amount": terms.cost[0] / 100, "currency": terms.cost[1]}
    return orjson.dumps(
        {
            "idempotency_key": key,
            "trigger_id": trigger_id(key, terms.revision),
            "revision": terms.revision,
            "supersedes": trigger_id(key, terms.revision - 1) if terms.revision > 1 else None,
            "status": status,
            "kind": terms.kind,
            "mode": mode,
            "sku": sku,
            "location": location,
            "source_location": terms.source or None,
            "quantity": {
                "order_qty": units(terms.quantity),
                "unrounded_qty": figure(terms.unrounded),
                "pack_size": units(terms.pack),
                "moq": units(terms.moq),
                "rounding": terms.rounding,
            },
            "policy": _policy(terms),
            "position": _position(terms),
            "forecast": {
                "forecast_id": terms.forecast_id,
                "lead_time_demand": {"p10": p10, "p50": p50, "p90": p90},
                "projected_stockout_at": terms.stockout_ms,
            },
            "need_by": terms.need_by,
            "order_by": terms.order_by,
            "urgency": terms.urgency,
            "reasons": list(reasons),
            "estimated_cost": cost,
            "issued_at": issued_ms,
            "expires_at": terms.expires_ms,
        }
    )


def trigger_id(key: str, revision: int) -> str:
    """Identity of one revision of a trigger.

    Examples
    --------
    >>> trigger_id("rt_ab", 2)
    'rt_ab-2'
    """
    return f"{key}-{revision}"


def _policy(terms: Terms) -> dict[str, Any]:
    return {
        "type": "s,S",
        "reorder_point": figure(terms.reorder_point),
        "order_up_to": figure(terms.order_up_to),
        "service_level": figure(terms.level),
        "review_period_days": figure(terms.review_days),
        "lead_time_days": {"mean": figure(terms.lead_mean), "p90": figure(terms.lead_p90)},
    }


def _position(terms: Terms) -> dict[str, Any]:
    stock = terms.position
    return {
        "on_hand": units(stock.on_hand),
        "on_order": units(stock.on_order),
        "reserved": units(stock.reserved),
        "ordered_since": units(stock.ordered_since),
        "available": units(terms.available),
        "counted_at": stock.counted_ms,
        "as_of": terms.as_of_ms,
    }
