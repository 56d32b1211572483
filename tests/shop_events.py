"""Random small shops as records: the input of the laws. Everything comes from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

HOUR = 3_600_000
DAY = 24 * HOUR
START = 15_000 * DAY + 9 * HOUR  # 2011-01-26 09:00 UTC


@dataclass(frozen=True)
class Spec:
    """What a random shop does."""

    seed: int
    events: int = 300
    items: int = 4
    days: float = 6.0
    disorder_ms: int = 4 * 60_000
    duplicates: float = 0.05
    late: float = 0.02
    facts: float = 0.15
    windows: float = 0.0


def records(spec: Spec) -> list[bytes]:
    """Events of a shop in order of arrival, as JSON."""
    rng = np.random.default_rng(spec.seed)
    times = np.sort(rng.integers(0, int(spec.days * DAY), spec.events)) + START
    arrival = times + rng.integers(0, spec.disorder_ms + 1, spec.events)
    made: list[tuple[int, bytes]] = []
    for n in range(spec.events):
        event = _event(rng, spec, n, int(times[n]))
        if rng.random() < spec.late and n > 20:
            event["event_time"] -= int(rng.integers(3 * HOUR, 30 * HOUR))
        record = orjson.dumps(event)
        made.append((int(arrival[n]), record))
        if rng.random() < spec.duplicates:
            made.append((int(arrival[n]) + int(rng.integers(0, HOUR)), record))
    order = sorted(range(len(made)), key=lambda i: (made[i][0], i))
    return [made[i][1] for i in order]


def _event(rng: np.random.Generator, spec: Spec, n: int, time_ms: int) -> dict[str, Any]:
    sku = f"sku-{rng.integers(spec.items)}"
    event: dict[str, Any] = {"event_id": f"e{spec.seed}-{n}", "event_time": time_ms, "sku": sku}
    if rng.random() < 0.2:
        event["location"] = "north"
    if rng.random() < spec.facts:
        return event | _fact(rng, spec, time_ms)
    kind = rng.choice(
        ["order_placed", "order_cancelled", "order_returned", "item_viewed", "cart_added"],
        p=[0.5, 0.1, 0.05, 0.25, 0.1],
    )
    event["type"] = str(kind)
    if kind in ("item_viewed", "cart_added"):
        return event | {"session_id": f"s{rng.integers(20)}"}
    event |= {"order_id": f"o{n}", "quantity": float(rng.integers(1, 9)) / (1 if rng.random() < 0.8 else 4)}
    if kind == "order_placed":
        event |= {"unit_price": round(float(rng.uniform(1, 9)), 2), "currency": "EUR"}
    elif kind == "order_cancelled" and rng.random() < 0.6:
        event["original_time"] = time_ms - int(rng.integers(0, 5 * DAY))
    return event


def _fact(rng: np.random.Generator, spec: Spec, time_ms: int) -> dict[str, Any]:
    which = int(rng.integers(5))
    if which == 0:
        return {"type": "stock_counted", "on_hand": int(rng.integers(-2, 40)), "on_order": int(rng.integers(0, 9))}
    if which == 1:
        placement = {"lead_time_days": {"mean": 2, "p90": 3}, "moq": 6, "pack_size": 3}
        return {
            "type": "item_described", "title": "a thing", "category": f"c{rng.integers(2)}", "unit_cost": 1.5,
            "cost_currency": "EUR", "locations": {"default": placement},
        }  # fmt: skip
    if which == 2 and rng.random() < 0.3:
        return {"type": "item_retired"}
    price = float(rng.choice([5.0, 5.0, 5.0, 5.5, 50.0, 0.0]))
    made = {"type": "price_set", "price": price, "currency": "EUR", "channel": "web", "promo": bool(rng.random() < 0.1)}
    if spec.windows and rng.random() < spec.windows:  # announced: for a time, for later, or both
        begin_ms = time_ms + int(rng.integers(-DAY, 3 * DAY))
        made["price"] = float(rng.choice([4.0, 4.5, 5.0]))
        made |= {"effective_from": begin_ms} if rng.random() < 0.7 else {}
        made |= (
            {"effective_until": max(begin_ms, time_ms) + int(rng.integers(1, 3 * DAY))} if rng.random() < 0.7 else {}
        )
    return made
