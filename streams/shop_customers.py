"""Customers of the shop in a box: who looks, who buys, who cancels, sends back or writes a review.

In: the expected order lines per series of a day, a generator of random numbers.
Out: clicks and order lines with their times; what follows on later days waits in queues.
Must not know: stock, prices, encoding. Rule: wanted units are demand; whether they can be served is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from streams.shop_days import Days
from streams.shop_items import Bools, Floats, Ints, Items

VIEWS_PER_LINE = 6.0
"""Views without a purchase for each order line: a conversion of about 14 %, good for a small shop."""

ABANDONED_PER_LINE = 0.8
CANCELLED, RETURNED, REVIEWED = 0.03, 0.04, 0.025
LAGS = (0.74, 0.18, 0.08)
"""Part of the buyers who order on the day they put the item into the cart, the next day, and the day after."""

_JOINED = 0.35  # an order line belongs to the order before it with this probability
_MINUTE_MS = 60_000
_FIRST_MS = 1_000  # the first second of a day belongs to the facts of the night


class Columns:
    """Arrays of equal length, one entry per event."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))  # type: ignore[arg-type]  # every subclass is a dataclass

    def take(self, rows: Ints | Bools) -> Self:
        """Select rows."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))  # type: ignore[arg-type]  # as above

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Join parts one behind the other."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(parts[0])))  # type: ignore[arg-type]  # as above


@dataclass
class Clicks(Columns):
    """Views or cart events: item, place (location), time and session number."""

    item: Ints
    place: Ints
    time_ms: Ints
    session: Ints


@dataclass
class Lines(Columns):
    """Order lines in the order of time; ``order`` numbers the orders of a day."""

    item: Ints
    place: Ints
    units: Ints
    trade: Bools
    time_ms: Ints
    order: Ints


@dataclass
class Followups(Columns):
    """What comes of an order line later: a cancellation, a return or a review."""

    item: Ints
    place: Ints
    units: Ints
    time_ms: Ints
    order_day: Ints
    order: Ints
    original_ms: Ints


def _no_lines() -> Lines:
    empty = np.zeros(0, np.int64)
    return Lines(empty, empty, empty, np.zeros(0, np.bool_), empty, empty)


def _no_followups() -> Followups:
    return Followups(*[np.zeros(0, np.int64)] * 7)


class Customers:
    """Draws the flows of each day; call `visit`, then `settle` with what was served.

    Examples
    --------
    >>> from streams.shop_days import START
    >>> from streams.shop_items import draw_items
    >>> rng = np.random.default_rng(1)
    >>> customers = Customers(draw_items(50, rng, days=9), Days(START, "UTC", 1), rng)
    >>> views, carts, removed, lines = customers.visit(3, np.full((50, 1), 2.0))
    >>> len(views) > len(carts) > len(removed), bool((np.diff(lines.time_ms) >= 0).all())
    (True, True)
    """

    def __init__(self, items: Items, days: Days, rng: np.random.Generator) -> None:
        self._items, self._days, self._rng = items, days, rng
        self._waiting: dict[int, list[Lines]] = {}
        self._later: dict[str, dict[int, list[Followups]]] = {"cancelled": {}, "returned": {}, "reviewed": {}}

    def visit(self, day: int, expected: Floats) -> tuple[Clicks, Clicks, Clicks, Lines]:
        """Draw views, cart additions, cart removals and wanted order lines of a day.

        Parameters
        ----------
        expected
            Mean order lines per series, shape (items, locations); zero where nothing is on sale.
        """
        intents = self._intents(day, expected)
        lag = self._rng.choice(len(LAGS), len(intents), p=LAGS)
        for later in range(1, len(LAGS)):
            self._postpone(day + later, intents.take(lag == later))
        waited = Lines.joined([_no_lines(), *self._waiting.pop(day, [])])
        waited.time_ms = self._times(day, len(waited))
        carts = self._carted(day, intents, lag)
        looks_ms = np.maximum(carts.time_ms - self._minutes(5, len(carts)), self._first(day))
        looks = Clicks(carts.item, carts.place, looks_ms, carts.session)
        browsing = self._browse(day, expected, len(intents))
        left = self._shifted(browsing, ABANDONED_PER_LINE / VIEWS_PER_LINE, 4)
        removed = self._shifted(left, 0.3, 9)
        lines = self._ordered(Lines.joined([intents.take(lag == 0), waited]))
        return Clicks.joined([looks, browsing]), Clicks.joined([carts, left]), removed, lines

    def _shifted(self, clicks: Clicks, share: float, minutes: float) -> Clicks:
        """Pick a share of clicks that are followed by another some minutes later."""
        found = clicks.take(self._rng.random(len(clicks)) < share)
        found.time_ms = found.time_ms + self._minutes(minutes, len(found))
        return found

    def _first(self, day: int) -> int:
        return self._days.start_ms(day) + _FIRST_MS

    def _times(self, day: int, count: int) -> Ints:
        return np.maximum(self._days.times_ms(day, self._rng.random(count)), self._first(day))

    def _minutes(self, mean: float, count: int) -> Ints:
        return (self._rng.exponential(mean * _MINUTE_MS, count)).astype(np.int64) + 1000

    def _intents(self, day: int, expected: Floats) -> Lines:
        """Order lines that customers make up their minds about on this day."""
        rng, items = self._rng, self._items
        shape = np.where(items.lumpy, 0.4, 7.0)[:, None]
        counts = rng.poisson(expected * rng.gamma(shape, 1 / shape, expected.shape))
        series = np.repeat(np.arange(counts.size), counts.reshape(-1))
        item, place = np.divmod(series, expected.shape[1])
        mean, lumpy = items.line_units[item], items.lumpy[item]
        units = np.where(lumpy, mean * rng.geometric(0.75, len(item)), rng.geometric(1 / mean)).astype(np.int64)
        trade = items.has_trade[item] & (rng.random(len(item)) < 0.2)
        units = np.where(trade, 3 * units, units)
        return Lines(item, place, units, trade, self._times(day, len(item)), np.zeros(len(item), np.int64))

    def _carted(self, day: int, intents: Lines, lag: Ints) -> Clicks:
        """Each intent goes into the cart: minutes before the order, or at some time of the day before it."""
        before = intents.time_ms - self._minutes(7, len(intents))
        time_ms = np.where(lag == 0, np.maximum(before, self._first(day)), intents.time_ms)
        return Clicks(intents.item, intents.place, time_ms, np.arange(len(intents)))

    def _postpone(self, day: int, lines: Lines) -> None:
        """Keep lines for a day, or for the next one on which the shop is open."""
        while (special := self._days.special(day)) is not None and not special.open:
            day += 1
        self._waiting.setdefault(day, []).append(lines)

    def _browse(self, day: int, expected: Floats, first_session: int) -> Clicks:
        """Views of those who do not buy; a session looks at three items on average."""
        counts = self._rng.poisson(VIEWS_PER_LINE * expected)
        series = np.repeat(np.arange(counts.size), counts.reshape(-1))
        item, place = np.divmod(series, expected.shape[1])
        session = first_session + self._rng.integers(0, max(1, len(item) // 3), len(item))
        return Clicks(item, place, self._times(day, len(item)), session)

    def _ordered(self, lines: Lines) -> Lines:
        """Sort by time and let neighbours at one location share an order and its time."""
        lines = lines.take(np.argsort(lines.time_ms, kind="stable"))
        if not len(lines):
            return lines
        joins = self._rng.random(len(lines)) < _JOINED
        joins[1:] &= (lines.place[1:] == lines.place[:-1]) & (lines.trade[1:] == lines.trade[:-1])
        joins[0] = False
        head = np.maximum.accumulate(np.where(joins, 0, np.arange(len(lines))))
        lines.time_ms = lines.time_ms[head]
        lines.order = np.cumsum(~joins)
        return lines

    def settle(self, day: int, lines: Lines, served: Ints) -> None:
        """Draw what will come of the lines that were served."""
        rng = self._rng
        for name, share, first, last in (
            ("cancelled", CANCELLED, 0, 4), ("returned", RETURNED, 4, 20), ("reviewed", REVIEWED, 3, 14),
        ):  # fmt: skip
            rows = np.flatnonzero((rng.random(len(lines)) < share) & (served > 0))
            wait = rng.integers(first, last + 1, len(rows))
            found = Followups(
                lines.item[rows], lines.place[rows], served[rows], lines.time_ms[rows],
                np.full(len(rows), day, np.int64), lines.order[rows], lines.time_ms[rows],
            )  # fmt: skip
            for days in np.unique(wait).tolist():
                self._later[name].setdefault(day + days, []).append(found.take(wait == days))

    def followups(self, day: int, name: str) -> Followups:
        """Cancellations, returns or reviews that fall on a day, with their times."""
        parts = self._later[name].pop(day, [])
        found = Followups.joined(parts) if parts else _no_followups()
        same_day = found.order_day == day
        soon = np.minimum(found.original_ms + self._minutes(90, len(found)), self._days.start_ms(day + 1) - 1)
        found.time_ms = np.where(same_day, soon, self._times(day, len(found)))
        return found
