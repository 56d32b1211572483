"""An invented inventory behind real orders: who supplies an item how, and its stock on every morning.

In: units that left per day and item, the day each item was first seen, a seed.
Out: `Supply` (lead times, packs) and a frame of ``stock_counted`` events.
Must not know: which data set the orders come from. Rule: orders are placed from past demand alone, and no sale is
held back, so the stock of an item that sold more than it had is negative until goods arrive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.calendar import DAY_MS

COUNTED_AT_MS = 4 * 3_600_000 + 30 * 60_000
"""Stock is counted at 04:30 UTC, before prices are published and the shop opens."""

REVIEW_DAYS = 7
"""Each item is reviewed once a week, on its own weekday."""

MEMORY_DAYS = 56
"""Past days that set the level to order up to: eight weeks, as a small shop's planner looks back."""

FIRST_DAYS = 10
"""A new item starts with what ten days like its first would take: on UCI 6 % of the counts are then below zero, about
what SAFETY lets one expect, most of them in an item's first weeks."""

SAFETY = 1.64
"""Standard deviations of demand over lead time and review on top: about 95 % of cycles without a shortage."""

LEAD_LATER = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 4])
"""Days by which goods come later than the item's usual lead time, drawn evenly."""


@dataclass(frozen=True)
class Supply:
    """How items are supplied, an entry per SKU: usual lead time in days, units per pack, least units per order."""

    skus: list[str]
    lead_days: npt.NDArray[np.int64]
    pack: npt.NDArray[np.int64]
    moq: npt.NDArray[np.int64]


def simulate_stock(
    skus: list[str], units: npt.NDArray[np.int64], born: npt.NDArray[np.int64], *, day0_ms: int, seed: int
) -> tuple[Supply, pl.DataFrame]:
    """Simulate a weekly order-up-to inventory and count it every morning after an item's first day.

    Parameters
    ----------
    skus
        The items.
    units
        Units that left the shop, net of cancellations, shape (days, items).
    born
        Day on which each item was first seen, shape (items,).
    day0_ms
        Midnight UTC of day 0, epoch ms.

    Examples
    --------
    >>> supply, counted = simulate_stock(["TEA"], np.full((30, 1), 4), np.array([0]), day0_ms=0, seed=1)
    >>> len(counted), counted.columns[2:6]
    (29, ['sku', 'on_hand', 'on_order', 'arrivals'])
    """
    rng = np.random.default_rng(seed)
    n = len(skus)
    pack = rng.choice([1, 6, 12, 24], n, p=[0.35, 0.25, 0.25, 0.15])
    supply = Supply(skus, rng.integers(3, 22, n), pack, pack * rng.choice([1, 2, 4], n, p=[0.6, 0.3, 0.1]))
    on_hand, on_order, orders = _run(supply, units, born, rng)
    day, item = np.nonzero(np.arange(len(units))[:, None] > born[None, :])
    arrivals = _open_orders(orders, day0_ms)
    frame = pl.DataFrame({"day": day, "item": item, "on_hand": on_hand[day, item], "on_order": on_order[day, item]})
    frame = frame.join(arrivals, on=["day", "item"], how="left", maintain_order="left")
    code = pl.Series("code", skus).gather(frame["item"])
    return supply, frame.select(
        event_id=pl.format("s-{}-{}", code, "day").str.tail(64),
        event_time=day0_ms + pl.col("day") * DAY_MS + COUNTED_AT_MS,
        sku=code,
        on_hand="on_hand",
        on_order="on_order",
        arrivals=pl.col("arrivals").fill_null([]),
        _order=pl.int_range(pl.len()).cast(pl.Int64),
    )


def _run(
    supply: Supply, units: npt.NDArray[np.int64], born: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[npt.NDArray[np.int64]]]:
    """Play the days in order: goods arrive, orders are placed, stock is counted, then units leave."""
    days, n = units.shape
    demand = np.maximum(units, 0)
    on_hand, on_order = np.zeros((days, n), np.int64), np.zeros((days, n), np.int64)
    due = np.zeros((days + int(supply.lead_days.max(initial=0)) + int(LEAD_LATER.max()) + 1, n), np.int64)
    # A new item starts with about ten times what its first day took, and at least two packs.
    first = demand[np.minimum(born, days - 1), np.arange(n)]
    stock = supply.pack * np.maximum(2, -(-FIRST_DAYS * first // supply.pack))
    coming = np.zeros(n, np.int64)
    orders: list[npt.NDArray[np.int64]] = []
    for day in range(days):
        arrived = due[day]
        stock, coming = stock + arrived, coming - arrived
        review = np.flatnonzero((np.arange(n) % REVIEW_DAYS == day % REVIEW_DAYS) & (born < day))
        quantity = _order(supply, review, demand[max(0, day - MEMORY_DAYS) : day], day - born, stock + coming)
        ordered, quantity = review[quantity > 0], quantity[quantity > 0]
        arrival = day + supply.lead_days[ordered] + rng.choice(LEAD_LATER, len(ordered))
        np.add.at(due, (arrival, ordered), quantity)
        coming[ordered] += quantity
        orders.append(np.stack([np.full_like(ordered, day), ordered, arrival, quantity]))
        on_hand[day], on_order[day] = stock, coming
        stock = stock - units[day]
    return on_hand, on_order, orders


def _order(
    supply: Supply,
    review: npt.NDArray[np.int64],
    past: npt.NDArray[np.int64],
    age: npt.NDArray[np.int64],
    position: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Units to order of the items under review, whole packs, zero where the position suffices."""
    seen = np.clip(age[review], REVIEW_DAYS, MEMORY_DAYS)  # days the item was on sale within the memory
    total = past[:, review]
    mean = total.sum(0) / seen
    spread = np.sqrt(np.maximum((total.astype(np.float64) ** 2).sum(0) / seen - mean**2, 0))
    cover = supply.lead_days[review] + REVIEW_DAYS
    level = mean * cover + SAFETY * spread * np.sqrt(cover)
    missing = level - position[review]
    pack = supply.pack[review]
    packs = np.ceil(np.maximum(missing, supply.moq[review]) / pack)
    return np.where(missing > 0, packs * pack, 0).astype(np.int64)


def _open_orders(orders: list[npt.NDArray[np.int64]], day0_ms: int) -> pl.DataFrame:
    """Goods on their way per day and item: one row with a list of quantity and due time."""
    placed, item, arrival, quantity = np.concatenate(orders, axis=1) if orders else np.zeros((4, 0), np.int64)
    frame = pl.DataFrame({"placed": placed, "item": item, "arrival": arrival, "quantity": quantity})
    open_days = frame.with_columns(day=pl.int_ranges("placed", "arrival")).explode("day").drop_nulls("day")
    due = day0_ms + pl.col("arrival") * DAY_MS
    return (
        open_days.sort("day", "item", "arrival", "placed")
        .group_by("day", "item", maintain_order=True)
        .agg(arrivals=pl.struct(quantity="quantity", due=due))
    )
