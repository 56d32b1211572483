"""What a shard finds about a price line: the records of `engine.candidates.v1`.

In: what `price_alerts` found. Out: `Candidate`, as it is written and read.
Must not know: how a price is judged, what becomes of a candidate. Rule: encoding and decoding one gives its equal.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.price_rules import Form, Kind

Action = Literal["fire", "update", "resolve"]
Resolution = Literal["corrected", "accepted", "announced", "expired"]


class Expected(msgspec.Struct, frozen=True):
    """The range in which the price was expected, from accepted prices."""

    p01: float
    p50: float
    p99: float
    method: str
    observations: int


class Candidate(msgspec.Struct, frozen=True, tag="price_candidate"):
    """What one shard found about one price line; the record of `engine.candidates.v1`.

    Attributes
    ----------
    action
        fire: a new alert; update: more of an open one; resolve: it is over.
    kind, form
        What is wrong, and what faults of one cause share.
    sku, location, channel
        The price line.
    ordinal
        How many alerts were opened for the line so far, this one included.
    price, currency, event_time, event_id
        The price that caused this candidate, as published.
    expected, p_value
        None while nothing was accepted. `p_value` is the share of known prices, this one included, at least as far off.
    units_at_risk, money_at_risk, money_currency
        Forecast units while someone reacts, times the gap; None where demand or a rate is unknown.
    evidence
        Last accepted prices, oldest first.
    count
        Faulty prices of this alert so far.
    resolution
        Of a resolve.
    tick_ms
        The shell's clock when the price arrived.

    Examples
    --------
    >>> one = Candidate("fire", "placeholder", "low", "a", "default", "web", 1, 0.01, "GBP", 5, "e", tick_ms=5)
    >>> msgspec.json.decode(msgspec.json.encode(one), type=Candidate) == one
    True
    """

    action: Action
    kind: Kind
    form: Form
    sku: str
    location: str
    channel: str
    ordinal: int
    price: float
    currency: str
    event_time: int
    event_id: str
    expected: Expected | None = None
    p_value: float | None = None
    units_at_risk: float | None = None
    money_at_risk: float | None = None
    money_currency: str = ""
    evidence: tuple[float, ...] = ()
    count: int = 1
    resolution: Resolution | None = None
    tick_ms: int = 0
