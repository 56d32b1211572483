"""Forecasts from panes: builds the model's batches, asks the forecaster, keeps what decisions need of the answer.

In: slots of one zone whose forecasts are due. Out: a `Request` with the model's batch.
Must not know: events, topics, decisions. Rule: a row's forecast depends on its own state and the pool alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import F32, Bools, Forecast, ForecastBatch, Forecaster, buckets_per_day
from streams.buckets import Buckets, ZoneState
from streams.calendar import Holidays
from streams.catalog import Catalog, ListedPrices
from streams.covariates import PAST, Covariates
from streams.due import Request
from streams.lending import MOST_DONORS, Lending, young_rows
from streams.panes import PROMO, Panes, flags_of, stock_of
from streams.series import SeriesMap
from streams.state import Record, Table

Slots = npt.NDArray[np.integer[Any]]

TILE_ROWS = 2048
"""Rows per call of the forecaster: large enough to hide Python, small enough that a tile's quantiles stay near 6 MB."""

CHANNELS = ("units", "cancelled", "orders", "revenue", "views", "carts", "sessions", "price", "promo", "in_stock")
"""What `batch` can give as channels: names as `models.forecast.ForecastBatch` lists them."""


class Refresh:
    """Asks the forecaster for series whose forecast is due.

    Parameters
    ----------
    forecaster
        Answers batches.
    horizon
        Steps asked for.
    channels
        Names of `CHANNELS` that the forecaster reads beyond demand; empty for the baseline.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        horizon: int,
        series: SeriesMap,
        buckets: Buckets,
        catalog: Catalog,
        listed: ListedPrices,
        holidays: Holidays,
        shard: int = 0,
        channels: tuple[str, ...] = (),
    ) -> None:
        self.forecaster = forecaster
        self.horizon = horizon
        self.channels = channels
        self._shard = shard
        self._series, self._buckets = series, buckets
        self._covariates = Covariates(series, buckets, catalog, listed, holidays)
        self._panes: Panes = buckets.panes
        self.table = Table("rates", series.max_series, {"group": (np.int32, ()), "per_day": (np.float32, ())})
        self._lending = Lending()

    def adopt(self, forecaster: Forecaster) -> None:
        """Let another model answer from now on."""
        self.forecaster, self.channels = forecaster, forecaster.channels

    def assign(self, slot: int, group: int) -> None:
        """Note the category of a series, -1 for none."""
        self.table["group"][slot] = group + 1
        self.table.touch(slot)
        self._covariates.forget(slot)

    def per_day(self, slot: int) -> float | None:
        """Demand per day that the last forecast expects, None before the first."""
        rate = float(self.table["per_day"][slot])
        return rate - 1 if rate else None

    def expect_pool(self) -> None:
        """Note that a bucket closed: who lends is drawn anew when a series without history asks."""
        self._lending.expect()

    def _learn(self, zone: ZoneState, index: int) -> None:
        """Draw donors among the series of a zone that are old enough, evenly spread."""
        live = self._buckets.in_zone(self._series.live(), index)
        slots = live[self._buckets.begun(live, zone.open - self._buckets.width.season)]
        count = min(len(slots), MOST_DONORS)
        drawn = slots[np.arange(count) * len(slots) // max(1, count)]
        self._lending.learn(self._histories(drawn, zone, self._before(drawn, zone.open)))

    def request(self, slots: Slots, zone: int, as_of_ms: int, *, at_close: bool) -> Request:
        """Gather what the forecaster needs for some slots of one zone."""
        state = self._buckets.zones[zone]
        batch = self.batch(slots, state, as_of_ms)
        if young_rows(batch).any():
            if self._lending.due:
                self._learn(state, zone)
            batch = replace(batch, borrowed=self._lending.borrowed(batch))
        return Request(
            batch=batch,
            slots=slots,
            keys=[self._series.key(slot) for slot in slots.tolist()],
            zone=zone,
            opened=state.open,
            steps=state.zone.starts_ms(state.open, self.horizon),
            as_of_ms=as_of_ms,
            at_close=at_close,
            day=state.zone.day_of(state.open),
            hour=state.zone.hour_of(state.open),
            freq=self._buckets.width.value,
            time_zone=state.zone.name,
            shard=self._shard,
        )

    def keep(self, slots: Slots, forecast: Forecast) -> None:
        """Keep what decisions need of forecasts."""
        scale = buckets_per_day(self._buckets.width.season)
        per_day = forecast.cumulative_mean[:, min(7 * scale, self.horizon) - 1] / min(7, self.horizon / scale)
        self.table["per_day"][slots] = per_day + np.float32(1)  # shifted by one: zero means never forecast
        self.table.touch(slots)

    def batch(self, slots: Slots, zone: ZoneState, as_of_ms: int) -> ForecastBatch:
        """Gather history and the known future of slots, as the forecaster reads them."""
        opened = zone.open
        begin, end = zone.zone.start_ms(opened), zone.zone.start_ms(opened + 1)
        elapsed = max(0.0, min(1 - 1e-6, (as_of_ms - begin) / max(1, end - begin)))
        before = self._before(slots, opened)
        batch = replace(
            self._histories(slots, zone, before),
            future_open=self._covariates.is_open(slots, zone, range(opened, opened + self.horizon)),
            observed=self._panes.observed(slots, opened),
            elapsed=np.full(len(slots), elapsed, np.float32),
        )
        if not self.channels:
            return batch
        past = {name: self._channel(name, slots, opened, before) for name in {*self.channels, *PAST}}
        return replace(
            batch,
            channels={name: past[name] for name in self.channels},
            known=self._covariates.known(slots, zone, self.horizon, past),
            weeks=self._buckets.weeks(slots, zone),
            attributes=self._covariates.attributes(slots, batch.group),
        )

    def _histories(self, slots: Slots, zone: ZoneState, before: Bools | None) -> ForecastBatch:
        """What slots sold, and nothing else."""
        opened, context, rows = zone.open, self._panes.config.buckets, len(slots)
        demand = self._panes.demand(slots, opened)
        if before is not None:
            demand[before] = np.nan
        return ForecastBatch(
            demand=demand,
            is_open=self._covariates.is_open(slots, zone, range(opened - context, opened)),
            future_open=np.ones((rows, 0), np.bool_),
            observed=np.zeros(rows, np.float32),
            elapsed=np.zeros(rows, np.float32),
            day=np.full(rows, zone.zone.day_of(opened), np.int64),
            hour=np.full(rows, zone.zone.hour_of(opened), np.int64),
            season=self._buckets.width.season,
            group=self.table["group"][slots] - np.int32(1),
        )

    def _before(self, slots: Slots, opened: int) -> Bools | None:
        """Closed buckets before each series began, bool (B, T); None where all began before them."""
        age = opened - self._buckets.series["first"][slots].astype(np.int64)
        if not len(age) or int(age.min()) >= self._panes.config.buckets:
            return None
        before: Bools = np.arange(self._panes.config.buckets - 1, -1, -1)[None, :] >= age[:, None]
        return before

    def _channel(self, name: str, slots: Slots, opened: int, before: Bools | None) -> F32:
        values: F32
        if name == "promo":
            values = (flags_of(self._panes.channel("shelf", slots, opened)) & PROMO).astype(np.float32)
        elif name == "in_stock":
            values = stock_of(self._panes.channel("shelf", slots, opened))
        else:
            values = self._panes.channel(name, slots, opened).astype(np.float32)
        if name == "price":
            values[values == 0] = np.nan
        if before is not None:
            values[before] = np.nan
        return values

    def clear(self, slot: int) -> None:
        """Zero a slot's row."""
        self.table.clear(slot)
        self._covariates.forget(slot)

    def changes(self) -> Iterator[Record]:
        """Yield what changed since the last call."""
        yield from self.table.changes()
        yield from self._lending.changes()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        if key.startswith("pool/"):
            self._lending.restore(key, value)
        else:
            self.table.restore(key, value)
