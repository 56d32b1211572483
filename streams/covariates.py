"""What is known of series beside their demand: closures and named days, promotions, prices, what kind of item each is.

In: slots of one zone, buckets. Out: the arrays that `models.forecast.ForecastBatch` calls is_open, known, attributes.
Must not know: demand, forecasters. Rule: a past bucket says what its pane says, a future one what is announced by now.

Names are those that tasks and the shipped encoder use: ``promo`` and ``holiday`` are 0 or 1, ``price`` an amount.
``holiday_kind`` and ``holiday_name`` are codes of words, 0 on other days, for encoders that learn a shop's own days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from models.forecast import F32, Bools, attribute_code
from streams.buckets import Buckets, ZoneState
from streams.calendar import Holidays
from streams.catalog import Catalog, ListedPrices, Slots
from streams.series import SeriesMap

I64 = npt.NDArray[np.int64]

PAST = ("promo", "price")
"""Covariates whose past is what panes say."""

WORD_CODES = 1 << 24
"""Codes of words among covariates are below this: covariates are float32, which holds no larger number exactly."""


def word_code(word: str) -> int:
    """A number for the name or kind of a day, the same on every machine, exact as float32; 0 for none.

    Examples
    --------
    >>> word_code("Christmas"), word_code("")
    (14582063, 0)
    """
    return attribute_code(word) % (WORD_CODES - 1) + 1 if word else 0


def day_columns(holidays: Holidays, days: Sequence[int], location: str) -> dict[str, list[int]]:
    """What encoders read of named days of a location: whether, and codes of kind and name, each (len(days),).

    Examples
    --------
    >>> days = Holidays()
    >>> days.describe(15000, "", "Christmas", "holiday", is_open=False, time_ms=1)
    >>> day_columns(days, [14999, 15000], "york")
    {'holiday': [0, 1], 'holiday_kind': [0, 10138385], 'holiday_name': [0, 14582063]}
    """
    kinds = [holidays.kind(day, location) for day in days]
    names = [holidays.name(day, location) for day in days]
    return {
        "holiday": [int(bool(kind)) for kind in kinds],
        "holiday_kind": [word_code(kind) for kind in kinds],
        "holiday_name": [word_code(name) for name in names],
    }


class Covariates:
    """Reads announced days, listed prices and the catalog for batches; the parts are the engine's."""

    def __init__(
        self, series: SeriesMap, buckets: Buckets, catalog: Catalog, listed: ListedPrices, holidays: Holidays
    ) -> None:
        self._series, self._buckets, self._panes = series, buckets, buckets.panes
        self._catalog, self._listed, self._holidays = catalog, listed, holidays
        # Not part of the state: worked out of the catalog again after a restart.
        self._categories = np.full(1, -1, np.int64)  # code of each group, and of none
        self._brands = np.zeros(series.max_series, np.int64)  # 0: not looked up yet

    def forget(self, slot: int) -> None:
        """Look a series up again: its item was described, or its slot was freed."""
        self._brands[slot] = 0

    # -- days

    def is_open(self, slots: Slots, zone: ZoneState, buckets: range) -> Bools:
        """Which buckets are announced as open for business, bool (B, len(buckets))."""
        out = np.ones((len(slots), len(buckets)), np.bool_)
        if self._holidays.any:
            days = [zone.zone.day_of(bucket) for bucket in buckets]
            for rows, location in self._calendars(slots):
                out[rows] = [self._holidays.is_open(day, location) for day in days]
        return out

    def _calendars(self, slots: Slots) -> list[tuple[Slots | slice, str]]:
        """Whose days count for which rows: the shop's for all, then those of locations that have some of their own."""
        own = self._holidays.own_locations
        locations = [self._series.key(slot)[1] for slot in slots.tolist()] if own else []
        theirs = [
            (np.flatnonzero([one == location for one in locations]), location)
            for location in sorted(own.intersection(locations))
        ]
        return [(slice(None), ""), *theirs]

    def _days(self, slots: Slots, days: Sequence[int]) -> dict[str, F32]:
        """Named days: whether, and codes of kind and name, float32 (B, len(days))."""
        out = {name: np.zeros((1, len(days)), np.float32) for name in ("holiday", "holiday_kind", "holiday_name")}
        if self._holidays.any:
            calendars = self._calendars(slots)
            if len(calendars) > 1:
                out = {name: np.zeros((len(slots), len(days)), np.float32) for name in out}
            for rows, location in calendars:
                for name, values in day_columns(self._holidays, days, location).items():
                    out[name][rows] = values
        return {name: np.broadcast_to(one, (len(slots), len(days))) for name, one in out.items()}

    # -- prices and promotions

    def known(self, slots: Slots, zone: ZoneState, horizon: int, past: Mapping[str, F32]) -> dict[str, F32]:
        """Covariates of the past and of the steps ahead, by name.

        Parameters
        ----------
        horizon
            Steps ahead, the open bucket first.
        past
            What closed buckets say of each name of `PAST`, (B, T).

        Returns
        -------
        Float32 (B, T + H); NaN where unknown. Those of days may share their rows: nobody may write to them.
        """
        opened, context = zone.open, self._panes.config.buckets
        ends_ms = np.array(zone.zone.starts_ms(opened + 1, horizon), np.int64)
        price, promo = self._listed.ahead(slots, ends_ms - 1)  # as a close reads them: what holds when a bucket ends
        days = [zone.zone.day_of(bucket) for bucket in range(opened - context, opened + horizon)]
        return {
            "promo": np.concatenate([past["promo"], promo], axis=1, dtype=np.float32),
            "price": np.concatenate([past["price"], price], axis=1),
            **self._days(slots, days),
        }

    # -- kinds

    def attributes(self, slots: Slots, group: npt.NDArray[np.int32]) -> dict[str, I64]:
        """Codes of category and brand of each series, -1 where unknown, int64 (B,)."""
        if len(self._categories) != len(self._catalog.groups) + 1:
            codes = [attribute_code(name) for name in self._catalog.groups]
            self._categories = np.array([*codes, -1], np.int64)
        for slot in slots[self._brands[slots] == 0].tolist():
            item = self._catalog.items.get(self._series.key(slot)[0])
            self._brands[slot] = attribute_code(item.brand) if item is not None and item.brand else -1
        return {"category": self._categories[group], "brand": self._brands[slots]}
