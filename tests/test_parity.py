"""Features live and from a panel: the same events through panes, and counted by polars, give the same columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from models.features import features
from models.forecast import ForecastBatch
from streams.calendar import Width
from streams.engine import EngineConfig
from streams.refresh import CHANNELS, Refresh
from tests.small_shop import DAY, HOUR, MONDAY, Event, Till, cancel, day, event, order, price, stock, view

F32 = npt.NDArray[np.float32]
START = MONDAY - 84 * DAY
ITEMS = [f"S{n}" for n in range(6)]
CLOSED = {START // DAY + 40: "2010-12-18", MONDAY // DAY + 3: "2011-02-03"}


def shop_events(seed: int, days: int) -> list[Event]:
    """A shop of six items, some of which begin later; every kind of flow, prices, promotions and counts, in order."""
    rng, made = np.random.default_rng(seed), list[Event]()
    begins = {sku: int(rng.integers(0, days // 2)) for sku in ITEMS}
    for n in range(days):
        midnight = START + n * DAY
        for sku in (sku for sku in ITEMS if n >= begins[sku]):
            if n == begins[sku]:
                made.append(order(midnight, 1, sku, 4.0))
            for _ in range(rng.poisson(2.0)):
                made.append(order(midnight + int(rng.integers(DAY)), float(rng.integers(1, 9)) / 2, sku, 4.0))
            made += [view(midnight + int(rng.integers(DAY)), f"p{rng.integers(5)}", sku) for _ in range(rng.poisson(3))]
            for kind in ("cart_added", "cart_added", "cart_removed"):
                if rng.random() < 0.4:
                    made.append(event(kind, midnight + int(rng.integers(DAY)), sku, session_id=f"c{rng.integers(5)}"))
            if rng.random() < 0.2:
                made.append(cancel(midnight + int(rng.integers(DAY)), float(rng.integers(1, 4)), sku))
            if rng.random() < 0.2:
                made.append(stock(midnight + int(rng.integers(DAY)), int(rng.integers(0, 2) * 9), sku))
            if rng.random() < 0.1:
                more: dict[str, Any] = (
                    {"promo": True, "effective_until": midnight + 2 * DAY} if rng.random() < 0.5 else {}
                )
                made.append(price(midnight + 11 * HOUR, float(rng.integers(3, 7)), sku, **more))
    made.sort(key=lambda one: one["event_time"])
    made[:0] = [day(START, date) for date in CLOSED.values()]
    return made


# -- the panel: a table per channel by group-by, no pane in sight


class Panel:
    """Columns per item and bucket of the closed buckets before ``opened``, oldest first."""

    def __init__(self, events: list[Event], opened: int, buckets: int, width_ms: int) -> None:
        rows = [{**one, "at": one["event_time"] // width_ms} for one in events if "sku" in one]
        keep = ("sku", "at", "event_time", "type", "quantity", "unit_price", "session_id", "on_hand", "price", "promo",
                "effective_until")  # fmt: skip
        self.table = pl.DataFrame([{name: row.get(name) for name in keep} for row in rows], infer_schema_length=None)
        self.opened, self.buckets, self.width_ms = opened, buckets, width_ms
        self.first = dict(self.table.group_by("sku").agg(pl.col("at").min()).iter_rows())

    def spread(self, grouped: pl.DataFrame, empty: float = 0.0) -> F32:
        """(items, buckets) of a frame with sku, at and value; NaN before an item began."""
        out = np.full((len(ITEMS), self.buckets), empty, np.float32)
        for sku, at, value in grouped.select("sku", "at", "value").iter_rows():
            if 0 <= (column := at - self.opened + self.buckets) < self.buckets:
                out[ITEMS.index(sku), column] = value
        return self.begun(out)

    def begun(self, out: F32) -> F32:
        for row, sku in enumerate(ITEMS):
            out[row, : max(0, self.first[sku] - self.opened + self.buckets)] = np.nan
        return out

    def sums(self, value: pl.Expr, *kinds: str) -> F32:
        own = self.table.filter(pl.col("type").is_in(kinds))
        return self.spread(own.group_by("sku", "at").agg(value.alias("value")))

    def price_and_promo(self) -> tuple[F32, F32]:
        """The newest price before the end of each bucket, and whether it was a promotion at that end."""
        shape = (len(ITEMS), self.buckets)
        prices, promo = np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32)
        for row, sku in enumerate(ITEMS):
            own = self.table.filter((pl.col("type") == "price_set") & (pl.col("sku") == sku)).sort("event_time")
            known = list(own.select("event_time", "price", "promo", "effective_until").iter_rows())
            for column in range(self.buckets):
                end_ms = (self.opened - self.buckets + column + 1) * self.width_ms
                if before := [one for one in known if one[0] < end_ms]:
                    prices[row, column] = before[-1][1]
                    promo[row, column] = bool(before[-1][2] and before[-1][3] >= end_ms)
        return self.begun(prices), self.begun(promo)

    def ahead(self, horizon: int) -> tuple[F32, F32]:
        """Price and promotion at the end of each step: the newest price, after its end the one before it."""
        prices, promo = np.full((len(ITEMS), horizon), np.nan, np.float32), np.zeros((len(ITEMS), horizon), np.float32)
        for row, sku in enumerate(ITEMS):
            own = self.table.filter((pl.col("type") == "price_set") & (pl.col("sku") == sku)).sort("event_time")
            known = list(own.select("price", "promo", "effective_until").iter_rows())
            for step in range(horizon) if known else ():
                (amount, promoted, until_ms), end_ms = known[-1], (self.opened + step + 1) * self.width_ms
                if until_ms is None or until_ms >= end_ms:
                    prices[row, step], promo[row, step] = amount, bool(promoted)
                elif len(known) > 1 and not known[-2][1]:
                    prices[row, step] = known[-2][0]
        return prices, promo

    def in_stock(self) -> F32:
        own = self.table.filter(pl.col("type") == "stock_counted").with_columns((pl.col("on_hand") <= 0).alias("out"))
        share = own.group_by("sku", "at").agg((1 - pl.col("out").mean()).alias("value"))
        out = self.spread(share, np.nan)
        earlier = share.filter(pl.col("at") < self.opened - self.buckets).sort("at")
        for row, sku in enumerate(ITEMS):  # a count holds until the next one
            began = max(0, self.first[sku] - self.opened + self.buckets)
            last = next(iter(earlier.filter(pl.col("sku") == sku)["value"].to_list()[-1:]), np.nan)
            for column in range(began, self.buckets):
                last = out[row, column] if np.isfinite(out[row, column]) else last
                out[row, column] = last
        return out

    def batch(self, horizon: int, elapsed: float, season: int) -> ForecastBatch:
        rows, shape = len(ITEMS), (len(ITEMS), self.buckets)
        placed, quantity = "order_placed", pl.col("quantity").sum()
        units, cancelled = self.sums(quantity, placed), self.sums(quantity, "order_cancelled")
        carts = self.sums(
            pl.when(pl.col("type") == "cart_added").then(1).otherwise(-1).sum(), "cart_added", "cart_removed"
        )
        prices, promo = self.price_and_promo()
        prices_ahead, promo_ahead = self.ahead(horizon)
        clicks = ("item_viewed", "cart_added", "cart_removed")
        channels = {
            "units": units,
            "cancelled": cancelled,
            "orders": self.sums(pl.len(), placed),
            "revenue": self.sums((pl.col("quantity") * pl.col("unit_price")).sum(), placed),
            "views": self.sums(pl.len(), "item_viewed"),
            "carts": np.maximum(carts, np.float32(0)),
            "sessions": self.sums(pl.col("session_id").n_unique(), *clicks),
            "price": prices,
            "promo": promo,
            "in_stock": self.in_stock(),
        }
        per_day = DAY // self.width_ms
        days = [(self.opened - self.buckets + n) // per_day for n in range(self.buckets + horizon)]
        open_days = np.array([one not in CLOSED for one in days])
        today = self.table.filter(pl.col("at") == self.opened)
        seen = [
            float(today.filter((pl.col("sku") == sku) & (pl.col("type") == placed))["quantity"].sum())
            - float(today.filter((pl.col("sku") == sku) & (pl.col("type") == "order_cancelled"))["quantity"].sum())
            for sku in ITEMS
        ]
        return ForecastBatch(
            demand=np.maximum(units - cancelled, np.float32(0)),
            is_open=np.broadcast_to(open_days[: self.buckets], shape),
            future_open=np.broadcast_to(open_days[self.buckets :], (rows, horizon)),
            observed=np.maximum(np.array(seen, np.float32), 0),
            elapsed=np.full(rows, elapsed, np.float32),
            day=np.full(rows, self.opened // per_day, np.int64),
            hour=np.full(rows, self.opened % per_day, np.int64),
            season=season,
            group=np.full(rows, -1, np.int32),
            channels=channels,
            known={
                "holiday": np.broadcast_to((~open_days).astype(np.float32), (rows, self.buckets + horizon)),
                "promo": np.concatenate([promo, promo_ahead], axis=1),
                "price": np.concatenate([prices, prices_ahead], axis=1),
            },
        )


def live(till: Till, as_of_ms: int) -> ForecastBatch:
    """What a forecaster that reads every channel is given of the items, in their order."""
    engine = till.engine
    refresh = Refresh(
        engine.refresh.forecaster,
        28,
        engine.series,
        engine.buckets,
        engine.catalog,
        engine.listed,
        engine.holidays,
        channels=CHANNELS,
    )
    slots = np.array([till.slot(sku) for sku in ITEMS])
    refresh.table["group"][:] = engine.refresh.table["group"]
    return refresh.batch(slots, engine.buckets.zones[0], as_of_ms)


def assert_alike(one: ForecastBatch, other: ForecastBatch) -> None:
    """Both batches, and every feature made of them, are the same where they are defined, and defined alike."""
    for name in ("demand", "is_open", "future_open", "observed", "elapsed", "day", "hour", "group"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-6, err_msg=name)
    for name in CHANNELS:  # a share of counts is kept in a byte
        np.testing.assert_allclose(
            one.channels[name], other.channels[name], rtol=1e-6, atol=9e-3 if name == "in_stock" else 0, err_msg=name
        )
    for name in other.known:
        np.testing.assert_allclose(one.known[name], other.known[name], rtol=1e-6, err_msg=f"known {name}")
    found, expected = features(one), features(other)
    for name in (*found.series_names, *found.step_names):
        np.testing.assert_allclose(found.column(name), expected.column(name), rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(("seed", "days"), [(1, 30), (2, 84 + 21)])
def test_features_of_panes_are_those_of_a_panel_of_the_same_events(seed: int, days: int) -> None:
    till, events = Till(EngineConfig(max_series=8)), shop_events(seed, days)
    till.take(*events, together=True).tick(START + days * DAY + HOUR)
    opened = till.engine.buckets.zones[0].open
    assert opened == START // DAY + days
    panel = Panel(events, opened, 84, DAY)
    assert_alike(live(till, START + days * DAY), panel.batch(28, 0.0, 7))


def test_features_within_a_day_know_the_open_bucket() -> None:
    till, events = Till(EngineConfig(max_series=8)), shop_events(4, 40)
    noon = START + 40 * DAY + 12 * HOUR
    events += [order(noon - n * HOUR, 3.5, sku) for n in range(5, 0, -1) for sku in ITEMS[:4]]
    till.take(*events, together=True)
    panel = Panel(events, START // DAY + 40, 84, DAY)
    assert_alike(live(till, noon), panel.batch(28, 0.5, 7))


def test_features_of_hours_are_those_of_a_panel() -> None:
    till, events = Till(EngineConfig(max_series=8, width=Width.HOUR)), shop_events(5, 14)
    end = START + 14 * DAY + 5 * HOUR
    till.take(*events, together=True).tick(end + 15 * 60_000)
    panel = Panel(events, end // HOUR, 336, HOUR)
    assert till.engine.buckets.zones[0].open == end // HOUR
    assert_alike(live(till, end), panel.batch(28, 0.0, 24))


def test_weeks_are_whole_weeks_oldest_first() -> None:
    till = Till(EngineConfig(max_series=2))
    till.take(*(order(MONDAY + n * DAY, 1 + n // 7) for n in range(24)), together=True).tick(MONDAY + 24 * DAY + HOUR)
    engine = till.engine
    refresh = Refresh(engine.refresh.forecaster, 28, engine.series, engine.buckets, engine.catalog, engine.listed,
                      engine.holidays, channels=CHANNELS)  # fmt: skip
    weeks = refresh.batch(np.array([0]), engine.buckets.zones[0], MONDAY + 24 * DAY).weeks
    assert weeks is not None
    assert weeks.shape == (1, 103)  # the running week has the last of 104 columns
    assert weeks[0, -3:].tolist() == [7, 14, 21]
    assert np.isnan(weeks[0, :-3]).all()


def test_a_week_that_is_over_but_not_final_is_unknown() -> None:
    till = Till(EngineConfig(max_series=2))
    till.take(*(order(MONDAY + n * DAY, 1 + n // 7) for n in range(28)), together=True)
    engine, told = till.engine, list[list[float]]()
    refresh = Refresh(engine.refresh.forecaster, 28, engine.series, engine.buckets, engine.catalog, engine.listed,
                      engine.holidays, channels=CHANNELS)  # fmt: skip
    for now in (MONDAY + 28 * DAY + HOUR, MONDAY + 28 * DAY + 3 * HOUR):
        till.tick(now)
        weeks = refresh.batch(np.array([0]), engine.buckets.zones[0], now).weeks
        assert weeks is not None
        told.append(weeks[0, -3:].tolist())
    assert told[0][:2] == told[1][:2] == [14, 21]
    assert np.isnan(told[0][2])
    assert told[1][2] == 28
