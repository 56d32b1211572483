"""What must hold of an event beyond what its struct can say: identifiers, decimals, codes, times of facts.

In: one decoded event, or strings of one.
Out: a `Fault` (reason and path of the field), or None.
Must not know: chunks, topics, columns. Rule: a check reads one event and nothing else, and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, get_args

from streams.events import (
    Acknowledge,
    CompetitorPriceSet,
    Event,
    ItemDescribed,
    PriceSet,
    Promote,
    Snooze,
    StockCounted,
)
from streams.fields import epoch_ms

DECIMAL_TOLERANCE = 1e-4
"""Thousandths of a unit by which a quantity may miss its third decimal: sums of floats miss by less, a real fourth
decimal by at least 0.1."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode category Cc, whole
_CURRENCY = re.compile("[A-Z]{3}")
_IDENTIFIERS = (
    "event_id",
    "sku",
    "location",
    "channel",
    "order_id",
    "session_id",
    "competitor",
    "supplier_id",
    "replaces",
    "model",
    "fingerprint",
    "idempotency_key",
)


class Fault(NamedTuple):
    """Why a record is no event."""

    stage: str
    reason: str
    field: str


def invalid(reason: str, field: str) -> Fault:
    """A `Fault` of stage ``validate``.

    Examples
    --------
    >>> invalid("is late", "$.due")
    Fault(stage='validate', reason='is late', field='$.due')
    """
    return Fault("validate", reason, field)


def has_control(text: str) -> bool:
    """True if a string holds a control character (Cc: C0, DEL, C1).

    Examples
    --------
    >>> has_control("tea\\x85"), has_control("tea")
    (True, False)
    """
    return _CONTROL.search(text) is not None


def is_currency(code: str) -> bool:
    """True if a string has the form of an ISO 4217 code: three capital letters.

    Examples
    --------
    >>> is_currency("GBP"), is_currency("gbp"), is_currency("ＧＢＰ")
    (True, False, False)
    """
    return _CURRENCY.fullmatch(code) is not None


def is_exact(quantity: float) -> bool:
    """True if a quantity has at most three decimals, float noise aside.

    Examples
    --------
    >>> is_exact(0.1 + 0.2), is_exact(0.0005)
    (True, False)
    """
    thousandths = quantity * 1000
    return abs(thousandths - round(thousandths)) <= DECIMAL_TOLERANCE


def identifier_fault(event: Event) -> Fault | None:
    """Find a control character in an identifier, or the key separator ``|`` in a location.

    Examples
    --------
    >>> from streams.events import ItemRetired
    >>> identifier_fault(ItemRetired(event_id="e", event_time=0, sku="TEA", location="a|b"))
    Fault(stage='validate', reason="holds '|', which separates the parts of keys", field='$.location')
    """
    texts = _READ[type(event)](event)
    if has_control("".join(filter(None, texts))):
        for name, text in zip(_NAMES[type(event)], texts, strict=True):
            if text and has_control(text):
                return invalid("holds a control character", f"$.{name}")
    if event.location and "|" in event.location:
        return invalid(_SEPARATOR, "$.location")
    return _supply_fault(event) if isinstance(event, ItemDescribed) else None


def fact_fault(event: Event) -> Fault | None:
    """Find what is wrong with the own fields of a fact or command.

    Examples
    --------
    >>> from streams.events import Rollback
    >>> fact_fault(Rollback(event_id="c", event_time=0))
    >>> fact_fault(Promote(event_id="c", event_time=0))
    Fault(stage='validate', reason='promote names no model', field='$.model')
    """
    rule = _RULES.get(type(event))
    return rule(event) if rule else None


def _supply_fault(event: ItemDescribed) -> Fault | None:
    for location, placement in event.locations.items():
        for field, text in (
            ("$.locations", location),
            ("$.locations[...].source_location", placement.source_location),
        ):
            if text and has_control(text):
                return invalid("holds a control character", field)
            if text and "|" in text:
                return invalid(_SEPARATOR, field)
    return None


def _price_fault(event: PriceSet | CompetitorPriceSet) -> Fault | None:
    if not is_currency(event.currency):
        return invalid(NO_CURRENCY, "$.currency")
    return None


def _stock_fault(event: StockCounted) -> Fault | None:
    for name in ("on_hand", "on_order", "reserved"):
        if not is_exact(getattr(event, name)):
            return invalid(TOO_FINE, f"$.{name}")
    for i, arrival in enumerate(event.arrivals):
        if not is_exact(arrival.quantity):
            return invalid(TOO_FINE, f"$.arrivals[{i}].quantity")
        try:
            epoch_ms(arrival.due)
        except ValueError:
            return invalid("is neither epoch ms, RFC 3339 with an offset nor an ISO date", f"$.arrivals[{i}].due")
    return None


def _item_fault(event: ItemDescribed) -> Fault | None:
    if event.cost_currency is not None and not is_currency(event.cost_currency):
        return invalid(NO_CURRENCY, "$.cost_currency")
    for placement in event.locations.values():
        for name in ("moq", "pack_size", "max_stock"):
            quantity = getattr(placement, name)
            if quantity is not None and not is_exact(quantity):
                return invalid(TOO_FINE, f"$.locations[...].{name}")
    return None


def _promote_fault(event: Promote) -> Fault | None:
    return None if event.model else invalid("promote names no model", "$.model")


def _quiet_fault(event: Snooze | Acknowledge) -> Fault | None:
    if event.fingerprint or event.idempotency_key or event.sku:
        return None
    return invalid("names no alert, trigger or item", "$.fingerprint")


_SEPARATOR = "holds '|', which separates the parts of keys"
_NAMES: dict[type, tuple[str, ...]] = {
    struct: tuple(name for name in _IDENTIFIERS if hasattr(struct, name)) for struct in get_args(Event)
}
_READ: dict[type, Callable[[Event], tuple[str | None, ...]]] = {
    struct: attrgetter(*names) for struct, names in _NAMES.items()
}
TOO_FINE = "has more than 3 decimals"
NO_CURRENCY = "is no ISO 4217 code of three capital letters"
_RULES: dict[type, Callable[[Any], Fault | None]] = {
    PriceSet: _price_fault,
    CompetitorPriceSet: _price_fault,
    StockCounted: _stock_fault,
    ItemDescribed: _item_fault,
    Promote: _promote_fault,
    Snooze: _quiet_fault,
    Acknowledge: _quiet_fault,
}
