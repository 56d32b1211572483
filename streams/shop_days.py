"""Days of the shop in a box: what the calendar does to demand, and which days are announced as special.

In: the first day, a time zone, a seed.
Out: a factor per category and day, the hours at which people buy, the special days.
Must not know: items, events. Rule: day n is the same whatever days were asked before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from streams.calendar import Width, Zone
from streams.shop_items import CATEGORIES, Floats, Ints

START = date(2024, 1, 1)
"""First day of a simulated shop unless another is set: a Monday, and long enough ago that no event lies ahead."""

WEEKDAYS = np.array([0.86, 0.82, 0.88, 0.98, 1.14, 1.40, 0.92])
"""Demand by weekday from Monday: a town shop with a web shop, busiest on Saturday; the mean is 1."""

HOURS = np.array([2, 1, 1, 1, 1, 2, 4, 8, 13, 18, 22, 25, 28, 26, 24, 22, 21, 22, 25, 30, 32, 26, 15, 6], np.float64)
"""Demand by local hour, unscaled: a plateau around noon and an evening peak."""

ANNOUNCED_DAYS = 14
"""A special day is described this many days ahead."""

_FIXED = {
    (1, 1): ("New Year's Day", "closure", False, 0.0),
    (12, 25): ("Christmas Day", "closure", False, 0.0),
    (12, 26): ("Boxing Day", "closure", False, 0.0),
    (12, 24): ("Christmas Eve", "holiday", True, 0.6),
}
_STOCKTAKING_EVERY_DAYS, _FAIR_EVERY_DAYS = 61, 43


@dataclass(frozen=True)
class SpecialDay:
    """A named day: closed, quiet (factor below 1) or a campaign (above 1)."""

    name: str
    kind: str
    open: bool
    factor: float


class Days:
    """The calendar of one simulated shop.

    Parameters
    ----------
    start
        Date of day 0.
    time_zone
        IANA name; days begin at local midnight and may have 23 or 25 hours.
    seed
        Places the stocktakings and local fairs.

    Examples
    --------
    >>> days = Days(START, "Europe/London", seed=1)
    >>> days.special(359).name, days.special(1)
    ('Christmas Day', None)
    >>> (days.start_ms(91) - days.start_ms(90)) // 3_600_000  # 31 March 2024
    23
    """

    def __init__(self, start: date, time_zone: str, seed: int) -> None:
        self.start = start
        self._zone = Zone(time_zone, Width.DAY)
        self._first = self._zone.number_of(start)
        self._seed = seed
        self._peaks = np.array([shelf.peak_day for shelf in CATEGORIES], np.float64)
        self._swings = np.array([shelf.swing for shelf in CATEGORIES])
        self._cumulative = np.concatenate([[0.0], np.cumsum(HOURS / HOURS.sum())])

    def date(self, day: int) -> date:
        """Local date of a day."""
        return self.start + timedelta(days=day)

    def start_ms(self, day: int) -> int:
        """Local midnight at which a day begins, epoch ms."""
        return self._zone.start_ms(self._first + day)

    def bucket_ends_ms(self, times_ms: Ints) -> Ints:
        """End of the local day that holds each instant."""
        buckets = self._zone.bucket(times_ms)
        found, inverse = np.unique(buckets, return_inverse=True)
        ends = np.array([self._zone.start_ms(bucket + 1) for bucket in found.tolist()], np.int64)
        return ends[inverse]

    def special(self, day: int) -> SpecialDay | None:
        """What is special about a day, if anything."""
        when = self.date(day)
        if (when.month, when.day) in _FIXED:
            return SpecialDay(*_FIXED[when.month, when.day])
        earliest = date(when.year, 11, 23)  # the day after the fourth Thursday
        if 0 <= (when - earliest).days - (4 - earliest.weekday()) % 7 < 4:
            return SpecialDay("Black Friday", "campaign", True, 1.9)
        if when.month in (5, 8) and when.weekday() == 0 and (when + timedelta(days=7)).month != when.month:
            return SpecialDay("Bank Holiday", "holiday", True, 0.65)
        if when.month == 4 and 12 <= when.day <= 14:
            return SpecialDay("Spring Sale", "campaign", True, 1.5)
        return self._local(day)

    def _local(self, day: int) -> SpecialDay | None:
        for every, named in (
            (_STOCKTAKING_EVERY_DAYS, SpecialDay("Stocktaking", "closure", False, 0.0)),
            (_FAIR_EVERY_DAYS, SpecialDay("Town Fair", "holiday", True, 0.45)),
        ):
            period, offset = divmod(day, every)
            if offset == int(np.random.default_rng([self._seed, every, period]).integers(12, every)):
                return named
        return None

    def factors(self, day: int) -> Floats:
        """Demand of each category relative to its mean, shape (categories,)."""
        when = self.date(day)
        angle = 2 * np.pi * (when.timetuple().tm_yday - self._peaks) / 365.25
        # exp(a cos) / mean: peaked for a large swing, nearly a cosine for a small one, never negative
        sharp = np.log1p(self._swings) * 1.4
        yearly = np.exp(sharp * np.cos(angle)) / np.i0(sharp)
        special = self.special(day)
        return np.asarray(yearly * WEEKDAYS[when.weekday()] * (special.factor if special else 1.0))

    def times_ms(self, day: int, uniform: Floats) -> Ints:
        """Turn uniform numbers in [0, 1) into instants of a day at which people buy, epoch ms."""
        begin, end = self.start_ms(day), self.start_ms(day + 1)
        share = np.interp(uniform, self._cumulative, np.linspace(0, 1, len(self._cumulative)))
        return begin + np.minimum((share * (end - begin)).astype(np.int64), end - begin - 1)
