"""Single events of a small shop, and an engine that takes them one by one: what a test shows is what matters to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

import numpy as np
import orjson

from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.outputs import ForecastSet, Outputs

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MONDAY = 15_005 * DAY  # 2011-01-31 00:00 UTC
NOON = MONDAY + 12 * HOUR
CLOCK = MONDAY + 4000 * DAY
"""The machine's clock of a replay: years after the events."""

_ids = count()

Event = dict[str, Any]


def event(kind: str, at_ms: int, sku: str = "TEA", /, **fields: Any) -> Event:
    """An event with an id of its own; fields of None are left out."""
    made = {"type": kind, "event_id": f"e{next(_ids)}", "event_time": at_ms, "sku": sku} | fields
    return {name: value for name, value in made.items() if value is not None}


def order(at_ms: int, quantity: float = 1.0, sku: str = "TEA", price: float = 2.0, **more: Any) -> Event:
    """Units ordered."""
    fields = {"order_id": "o", "quantity": quantity, "unit_price": price, "currency": "EUR"}
    return event("order_placed", at_ms, sku, **fields | more)


def cancel(at_ms: int, quantity: float = 1.0, sku: str = "TEA", original: int | None = None, **more: Any) -> Event:
    """Units cancelled, of an order at a time where one is named."""
    return event("order_cancelled", at_ms, sku, order_id="o", quantity=quantity, original_time=original, **more)


def view(at_ms: int, session: str = "s", sku: str = "TEA", **more: Any) -> Event:
    """An item looked at."""
    return event("item_viewed", at_ms, sku, session_id=session, **more)


def price(at_ms: int, amount: float, sku: str = "TEA", **more: Any) -> Event:
    """A listed price."""
    return event("price_set", at_ms, sku, **{"price": amount, "currency": "EUR", "channel": "web"} | more)


def stock(at_ms: int, on_hand: float, sku: str = "TEA", **more: Any) -> Event:
    """A stock count."""
    return event("stock_counted", at_ms, sku, on_hand=on_hand, **more)


def described(at_ms: int, sku: str = "TEA", **more: Any) -> Event:
    """A catalog entry."""
    return event("item_described", at_ms, sku, **{"title": "a thing"} | more)


def retired(at_ms: int, sku: str = "TEA") -> Event:
    """The end of an item."""
    return event("item_retired", at_ms, sku)


def day(at_ms: int, date: str, *, is_open: bool = False, location: str | None = None) -> Event:
    """An announced day, closed unless said otherwise."""
    made = event("day_described", at_ms, name="a day", kind="closure", date=date, open=is_open, location=location)
    del made["sku"]
    return made


def ack(at_ms: int, key: str, status: str = "accepted") -> Event:
    """What the inventory system says of a trigger."""
    made = event("ack", at_ms, idempotency_key=key, status=status)
    del made["sku"]
    return made


def lines(events: Iterable[Event]) -> list[bytes]:
    """Events as records."""
    return [orjson.dumps(one) for one in events]


@dataclass
class Till:
    """An engine whose clock is event time, with everything it ever put out."""

    config: EngineConfig = field(default_factory=lambda: EngineConfig(max_series=32))
    clock_ms: int = 0

    def __post_init__(self) -> None:
        self.engine = Engine(self.config)
        self.sets: list[ForecastSet] = []
        self.triggers: list[dict[str, Any]] = []
        self.candidates: list[Any] = []
        self.letters: list[tuple[str, bytes]] = []  # stage, raw bytes

    def take(self, *events: Event, together: bool = False) -> Self:
        """Play events one by one, or all in one batch."""
        chunks: Sequence[Sequence[Event]] = [events] if together else [[one] for one in events]
        for chunk in chunks:
            batch, letters = decode(lines(chunk), clock_ms=CLOCK)
            assert not letters, letters
            batch.tick_ms[:] = np.maximum.accumulate(np.maximum(batch.time_ms, self.clock_ms))
            self.clock_ms = int(batch.tick_ms[-1])
            self._keep(self.engine.process(batch))
        return self

    def tick(self, now_ms: int) -> Self:
        """Let the clock pass."""
        self.clock_ms = max(self.clock_ms, now_ms)
        self._keep(self.engine.tick(now_ms))
        return self

    def _keep(self, out: Outputs) -> None:
        self.sets += [forecasts for _, forecasts in out.forecasts]
        self.triggers += [orjson.loads(trigger.value or b"") for _, trigger in out.triggers]
        self.candidates += [candidate for _, candidate in out.candidates]
        self.letters += [
            (dict(letter.headers)["x-stage"].decode(), letter.value or b"") for _, letter in out.dead_letters
        ]

    def forecasts(self, sku: str = "TEA", location: str = "default") -> list[dict[str, Any]]:
        """All forecasts of a series so far, as they are published."""
        made = []
        for one in self.sets:
            rows = [row for row, key in enumerate(one.keys) if key == (sku, location)]
            made += [orjson.loads(output.value or b"") for output in one.encode(rows)]
        return made

    def slot(self, sku: str = "TEA", location: str = "default") -> int:
        """Slot of a series."""
        return self.engine.series.slot(sku, location)

    def ring(self, channel: str, bucket: int, sku: str = "TEA", location: str = "default") -> float:
        """What the ring holds of a closed bucket."""
        panes = self.engine.panes
        return float(panes.ring[channel][self.slot(sku, location), bucket % panes.config.buckets])
