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

from models.baseline import pool_of
from models.forecast import F32, Forecast, ForecastBatch, Forecaster, Pool
from streams.buckets import Buckets, ZoneState
from streams.calendar import Holidays
from streams.catalog import Catalog, ListedPrices
from streams.due import Request
from streams.panes import PROMO, Panes, flags_of, stock_of
from streams.series import SeriesMap
from streams.state import Record, Table, pack, unpack

Slots = npt.NDArray[np.integer[Any]]

TILE_ROWS = 2048
"""Rows per call of the forecaster: large enough to hide Python, small enough that a tile's quantiles stay near 6 MB."""

POOL_ROWS = 4096
"""Rows that a pool is averaged from at most, evenly spread: more would not move its means."""

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
        self._series, self._buckets, self._catalog = series, buckets, catalog
        self._listed, self._holidays = listed, holidays
        self._panes: Panes = buckets.panes
        self.table = Table("rates", series.max_series, {"group": (np.int32, ()), "per_day": (np.float32, ())})
        self._pool: Pool | None = None
        self._pool_changed = self._pool_due = self._pool_due_written = False

    def assign(self, slot: int, group: int) -> None:
        """Note the category of a series, -1 for none."""
        self.table["group"][slot] = group + 1
        self.table.touch(slot)

    def per_day(self, slot: int) -> float | None:
        """Demand per day that the last forecast expects, None before the first."""
        rate = float(self.table["per_day"][slot])
        return rate - 1 if rate else None

    def expect_pool(self) -> None:
        """Note that a bucket closed: what mature series sell is averaged anew when a series without history asks."""
        self._pool_due = True

    def _learn_pool(self, zone: ZoneState, index: int) -> None:
        live = self._buckets.in_zone(self._series.live(), index)
        slots = live[self._buckets.begun(live, zone.open - 1)]
        self._pool_due = False
        if not len(slots):
            return
        step = -(-len(slots) // POOL_ROWS)
        batch = self.batch(slots[::step], zone, zone.zone.start_ms(zone.open))
        self._pool_changed = True
        self._pool = pool_of(batch, len(self._catalog.groups))

    def request(self, slots: Slots, zone: int, as_of_ms: int, *, at_close: bool) -> Request:
        """Gather what the forecaster needs for some slots of one zone."""
        state = self._buckets.zones[zone]
        batch = self.batch(slots, state, as_of_ms)
        if self._pool_due and _some_cold(batch):
            self._learn_pool(state, zone)
            batch = replace(batch, pool=self._pool)
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
        scale = 1 if self._buckets.width.season == 7 else 24
        per_day = forecast.cumulative_mean[:, min(7 * scale, self.horizon) - 1] / min(7, self.horizon / scale)
        self.table["per_day"][slots] = per_day + np.float32(1)  # shifted by one: zero means never forecast
        self.table.touch(slots)

    def batch(self, slots: Slots, zone: ZoneState, as_of_ms: int) -> ForecastBatch:
        """Gather history and the known future of slots, as the forecaster reads them."""
        opened, context, rows = zone.open, self._panes.config.buckets, len(slots)
        demand = self._panes.demand(slots, opened)
        age = opened - self._buckets.series["first"][slots].astype(np.int64)
        if rows and int(age.min()) < context:
            demand[np.arange(context - 1, -1, -1)[None, :] >= age[:, None]] = np.nan
        begin, end = zone.zone.start_ms(opened), zone.zone.start_ms(opened + 1)
        past = self._open_buckets(slots, zone, range(opened - context, opened))
        return ForecastBatch(
            demand=demand,
            is_open=past,
            future_open=self._open_buckets(slots, zone, range(opened, opened + self.horizon)),
            observed=self._panes.observed(slots, opened),
            elapsed=np.full(rows, max(0.0, min(1 - 1e-6, (as_of_ms - begin) / max(1, end - begin))), np.float32),
            day=np.full(rows, zone.zone.day_of(opened), np.int64),
            hour=np.full(rows, zone.zone.hour_of(opened), np.int64),
            season=self._buckets.width.season,
            group=self.table["group"][slots] - np.int32(1),
            pool=self._pool,
            channels={name: self._channel(name, slots, opened, age) for name in self.channels},
            known=self._known(slots, zone) if self.channels else {},
            weeks=self._buckets.weeks(slots, zone) if self.channels else None,
        )

    def _channel(self, name: str, slots: Slots, opened: int, age: npt.NDArray[np.int64]) -> F32:
        values: F32
        if name == "promo":
            values = (flags_of(self._panes.channel("shelf", slots, opened)) & PROMO).astype(np.float32)
        elif name == "in_stock":
            values = stock_of(self._panes.channel("shelf", slots, opened))
        else:
            values = self._panes.channel(name, slots, opened).astype(np.float32)
        if name == "price":
            values[values == 0] = np.nan
        values[np.arange(values.shape[1] - 1, -1, -1)[None, :] >= age[:, None]] = np.nan
        return values

    def _open_buckets(self, slots: Slots, zone: ZoneState, buckets: range) -> npt.NDArray[np.bool_]:
        """Which buckets are announced as open for business, bool (B, len(buckets))."""
        days = [zone.zone.day_of(bucket) for bucket in buckets] if self._holidays.any else []
        out = np.ones((len(slots), len(buckets)), np.bool_)
        if days:
            out[:] = [self._holidays.is_open(day, "") for day in days]
            for row, location in self._own_calendars(slots):
                out[row] = [self._holidays.is_open(day, location) for day in days]
        return out

    def _own_calendars(self, slots: Slots) -> Iterator[tuple[int, str]]:
        """Rows whose location has days of its own."""
        own = self._holidays.own_locations
        if own:
            for row, slot in enumerate(slots.tolist()):
                location = self._series.key(slot)[1]
                if location in own:
                    yield row, location

    def _known(self, slots: Slots, zone: ZoneState) -> dict[str, F32]:
        """Covariates of past and horizon: named days (1 where a holiday or campaign is announced)."""
        opened, context = zone.open, self._panes.config.buckets
        days = [zone.zone.day_of(b) for b in range(opened - context, opened + self.horizon)]
        named = np.array([bool(self._holidays.kind(day, "")) for day in days], np.float32)
        return {"holiday": np.tile(named, (len(slots), 1))}

    def clear(self, slot: int) -> None:
        """Zero a slot's row."""
        self.table.clear(slot)

    def changes(self) -> Iterator[Record]:
        """Yield what changed since the last call."""
        yield from self.table.changes()
        if self._pool is not None and self._pool_changed:
            self._pool_changed = False
            yield "pool/all", pack({"shape": self._pool.quantiles.shape, "quantiles": self._pool.quantiles.tobytes()})
        if self._pool_due != self._pool_due_written:
            self._pool_due_written = self._pool_due
            yield "pool/due", pack(self._pool_due)

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        if not key.startswith("pool/"):
            self.table.restore(key, value)
        elif key == "pool/due":
            self._pool_due = self._pool_due_written = value is not None and bool(unpack(key, value))
        elif value is not None:
            state = unpack(key, value)
            self._pool = Pool(np.frombuffer(state["quantiles"], np.float32).reshape(state["shape"]).copy())


def _some_cold(batch: ForecastBatch) -> bool:
    """Tell whether a row has less than a season of history, and so would borrow from the pool."""
    return bool(((np.isfinite(batch.demand) & batch.is_open).sum(axis=1) < batch.season).any())
