"""Stock of the shop in a box: goods arrive, are sold until there are none, and are ordered again.

In: what customers want per day, what was cancelled; a generator of random numbers.
Out: what could be sold, the morning's count, the goods on their way.
Must not know: events, prices. Rule: on hand never turns negative; what it cannot serve is lost and said so.
"""

from __future__ import annotations

import numpy as np

from streams.shop_items import Bools, Floats, Ints, Items

SAFETY = 1.8
"""Standard deviations on top of mean demand: a shop that runs out on about 3 % of item-days, losing 6 % of units."""

MEMORY = 0.06
"""Weight of a new day in the shop's own averages: about a month."""

_LATE_DAYS = np.array([0, 0, 0, 0, 0, 1, 1, 2, 3])
_LOST_SHIPMENT = 0.02  # such an order comes two weeks later: the cause of most long stock-outs


class Stock:
    """On hand and on order per item and location.

    Parameters
    ----------
    items
        The catalogue.
    shares
        Part of the demand that each location has, summing to 1.

    Examples
    --------
    >>> from streams.shop_items import draw_items
    >>> rng = np.random.default_rng(1)
    >>> stock = Stock(draw_items(20, rng, days=30), np.ones(1), rng)
    >>> stock.open(0, np.ones(20, bool))
    >>> bool((stock.on_hand > 0).all()), int(stock.on_order.sum())
    (True, 0)
    """

    def __init__(self, items: Items, shares: Floats, rng: np.random.Generator) -> None:
        self._items, self._rng = items, rng
        units = (items.lines_per_day * items.line_units)[:, None] * shares[None, :]  # (items, locations)
        self._mean: Floats = units
        self._square: Floats = 2 * units**2 + units
        self._lead: Ints = items.lead_days[:, None] + np.zeros_like(units, np.int64)
        self.on_hand: Ints = np.zeros(units.shape, np.int64)
        self.on_order: Ints = np.zeros(units.shape, np.int64)
        self.arrivals: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """Open orders per (item, location): (quantity, day due), the earliest first."""
        self._due: dict[int, list[tuple[int, int, int]]] = {}
        self._stocked: Bools = np.zeros(len(items), np.bool_)

    def lead_time(self, item: int) -> tuple[float, float]:
        """Mean and 90 % point of the days from order to shelf."""
        base = float(self._items.lead_days[item])
        return round(base + float(_LATE_DAYS.mean()), 2), round(base + float(np.quantile(_LATE_DAYS, 0.9)), 2)

    def open(self, day: int, on_sale: Bools) -> None:
        """Start a day: goods come in, new items are stocked for the first time, orders are placed."""
        for item, place, quantity in self._due.pop(day, []):
            self.on_hand[item, place] += quantity
            self.on_order[item, place] -= quantity
            left = [order for order in self.arrivals.pop((item, place), []) if order[1] > day]
            if left:
                self.arrivals[item, place] = left
        fresh = np.flatnonzero(on_sale & ~self._stocked)
        self._stocked[fresh] = True
        cover = self._lead[fresh] + 7
        start = self._mean[fresh] * cover + 2 * np.sqrt(self._square[fresh] * cover)
        pack = self._items.pack[fresh, None]
        self.on_hand[fresh] = np.maximum(1, np.ceil(start / pack)).astype(np.int64) * pack
        self._order(day, on_sale)

    def _order(self, day: int, on_sale: Bools) -> None:
        """Order what the level to order up to lacks, on weekdays, in whole packs."""
        if day % 7 >= 5:
            return
        cover = self._lead + 1.0
        spread = np.sqrt(np.maximum(self._square - self._mean**2, 0) * cover)
        point = self._mean * cover + SAFETY * spread
        position = self.on_hand + self.on_order
        rows, places = np.nonzero((position <= point) & on_sale[:, None] & (self._mean > 0.01))
        wanted = point[rows, places] + 7 * self._mean[rows, places] - position[rows, places]
        pack = self._items.pack[rows]
        quantity = (np.ceil(np.maximum(wanted, self._items.moq[rows]) / pack) * pack).astype(np.int64)
        lead = self._items.lead_days[rows] + self._rng.choice(_LATE_DAYS, len(rows))
        lead += 14 * (self._rng.random(len(rows)) < _LOST_SHIPMENT)
        for item, place, units, due in zip(
            rows.tolist(), places.tolist(), quantity.tolist(), (day + lead).tolist(), strict=True
        ):
            self._due.setdefault(due, []).append((item, place, units))
            orders = self.arrivals.setdefault((item, place), [])
            orders.append((units, due))
            orders.sort(key=lambda order: order[1])
        np.add.at(self.on_order, (rows, places), quantity)

    def sell(self, item: Ints, place: Ints, wanted: Ints) -> Ints:
        """Serve order lines in the order given; the last one before the shelf is empty takes what is left.

        Parameters
        ----------
        item, place, wanted
            Series and units of each order line, in the order of time, shape (lines,).

        Returns
        -------
        Units served, zero where nothing was left, shape (lines,).
        """
        series = item * self.on_hand.shape[1] + place
        order = np.argsort(series, kind="stable")
        units = wanted[order]
        before = np.cumsum(units) - units
        first = np.concatenate([[True], np.diff(series[order]) != 0]) if len(order) else np.zeros(0, np.bool_)
        before -= np.maximum.accumulate(np.where(first, before, 0)) if len(order) else before
        there = self.on_hand.reshape(-1)[series[order]]
        served = np.empty(len(order), np.int64)
        served[order] = np.clip(there - before, 0, units)
        np.subtract.at(self.on_hand.reshape(-1), series, served)
        return served

    def close(self, sold: Ints, empty: Bools, on_sale: Bools) -> None:
        """End a day: learn from what was sold where the shelf was not empty.

        Parameters
        ----------
        sold
            Units per item and location, shape (items, locations).
        empty
            Where demand was lost, same shape.
        """
        weight = MEMORY * (on_sale[:, None] & ~empty)
        self._mean += weight * (sold - self._mean)
        self._square += weight * (sold.astype(np.float64) ** 2 - self._square)
