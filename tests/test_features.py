"""Features against a slow computation in pandas that reads the documented formulas word by word."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import SERIES, SERIES_NAMES, STEP_NAMES, STEPS, feature_docs, features
from models.forecast import ForecastBatch, take
from tests.batches import batch_of, shop

CHANNELS = ("units", "cancelled", "orders", "views", "carts", "price", "promo", "in_stock")
NAN = math.nan


def busy_shop(rows: int, buckets: int = 84, *, season: int = 7, seed: int = 0, horizon: int = 9) -> ForecastBatch:
    """A shop with every channel, each with unknown stretches, and announcements."""
    random = np.random.default_rng([seed, 7])
    batch = shop(rows, buckets, season=season, seed=seed, horizon=horizon)
    shape = (rows, buckets)
    channels = {name: random.poisson(random.gamma(1, 4, (rows, 1)), shape).astype(np.float32) for name in CHANNELS}
    channels["price"] = random.choice(np.array([0.0, 4.99, 9.99, 12.5], np.float32), shape, p=[0.02, 0.2, 0.5, 0.28])
    channels["promo"] = (random.random(shape) < 0.2).astype(np.float32)
    channels["in_stock"] = random.choice(np.array([0, 0.5, 1], np.float32), shape)
    for values in channels.values():
        values[random.random(shape) < 0.1] = np.nan
        values[random.random(rows) < 0.1] = np.nan
    known = {"promo": random.random((rows, buckets + horizon)), "holiday": random.random((rows, buckets + horizon))}
    known["price"] = random.choice(np.array([NAN, 5, 7]), (rows, buckets + horizon))
    return replace(
        batch,
        day=random.integers(10_000, 25_000, rows),
        hour=random.integers(0, 24, rows) if season == 24 else np.zeros(rows, np.int64),
        channels=channels,
        known={name: values.astype(np.float32) for name, values in known.items()},
    )


# -- the oracle: one row, one feature at a time


def over(above: float, below: float) -> float:
    return above / below if below > 0 else NAN


class Row:
    """One row of a batch as pandas series with NaN where a bucket is unknown; index -1 is the newest bucket."""

    def __init__(self, batch: ForecastBatch, row: int) -> None:
        self.batch, self.row, self.season = batch, row, batch.season
        span = 12 * batch.season
        demand = pd.Series(batch.demand[row].astype(float)).where(batch.is_open[row])
        self.demand = self.padded(demand, span)
        self.channels = {name: self.padded(pd.Series(v[row].astype(float)), span) for name, v in batch.channels.items()}

    @staticmethod
    def padded(values: pd.Series, span: int) -> pd.Series:
        tail = list(values)[-span:]
        return pd.Series([NAN] * (span - len(tail)) + tail, dtype=float)

    def last(self, values: pd.Series, seasons: int) -> pd.Series:
        return values.iloc[len(values) - seasons * self.season :]

    def phase(self, step: int, newest: int) -> list[float]:
        """Newest values of the phase of a step, 0 for the open bucket."""
        found = [
            float(self.demand.iloc[at])
            for at in range(step % self.season - self.season, -len(self.demand) - 1, -self.season)
        ]
        return [value for value in found if not math.isnan(value)][:newest]

    def series(self) -> dict[str, float]:
        return {
            **self.of_level(),
            **self.of_activity(),
            **self.of_price(),
            **self.of_interest(),
            **self.of_open_bucket(),
        }

    def of_level(self) -> dict[str, float]:
        result = {f"mean_{n}": self.last(self.demand, n).mean() for n in (1, 2, 4, 8, 12)}
        for n in (4, 8):
            for level in (0.1, 0.5, 0.9):
                result[f"q{round(level * 100)}_{n}"] = self.last(self.demand, n).quantile(level)
        result["deviation_8"] = self.last(self.demand, 8).std(ddof=0)
        result["trend"] = over(result["mean_4"], result["mean_12"])
        recent = self.last(self.demand, 4).dropna()
        result["slope_4"] = np.polyfit(recent.index, recent, 1)[0] if len(recent) > 1 else NAN
        return result

    def of_activity(self) -> dict[str, float]:
        sales = np.flatnonzero(self.demand > 0)
        both = pd.DataFrame({"units": self.channels["units"], "cancelled": self.channels["cancelled"]}).dropna()
        return {
            "seen_12": self.demand.notna().sum(),
            "zero_share_4": (self.last(self.demand, 4).dropna() == 0).mean(),
            "zero_share_12": (self.demand.dropna() == 0).mean(),
            "since_sale": len(self.demand) - 1 - sales[-1] if len(sales) else NAN,
            "cancelled_share_12": over(both["cancelled"].sum(), both["units"].sum()),
        }

    def of_price(self) -> dict[str, float]:
        price, promo = self.channels["price"].dropna(), self.channels["promo"]
        last = price.iloc[-1] if len(price) else NAN
        return {
            "price_last": last,
            "price_to_median": over(last, price.median()),
            "price_to_min": over(last, price.min()),
            "discount_depth": 1 - over(last, price.max()),
            "promo_share_4": (self.last(promo, 4).dropna() > 0).mean(),
            "promo_share_12": (promo.dropna() > 0).mean(),
        }

    def of_interest(self) -> dict[str, float]:
        result = {}
        for name, top, bottom in (
            ("orders_per_view_4", "orders", "views"),
            ("carts_per_view_4", "carts", "views"),
            ("orders_per_cart_4", "orders", "carts"),
        ):
            both = self.last(pd.DataFrame({"t": self.channels[top], "b": self.channels[bottom]}), 4).dropna()
            result[name] = over(both["t"].sum(), both["b"].sum())
        for name in ("views", "carts"):
            values = self.channels[name]
            before = values.iloc[len(values) - 5 * self.season : len(values) - self.season]
            result[f"{name}_lead"] = over(self.last(values, 1).mean(), before.mean())
        for n in (4, 12):
            result[f"stockout_share_{n}"] = 1 - self.last(self.channels["in_stock"], n).mean()
        return result

    def of_open_bucket(self) -> dict[str, float]:
        observed, elapsed = float(self.batch.observed[self.row]), float(self.batch.elapsed[self.row])
        phase = self.phase(0, 12)
        expected = elapsed * sum(phase) / len(phase) if phase else NAN
        return {"observed": observed, "elapsed": elapsed, "observed_to_expected": over(observed, expected)}

    def step(self, step: int) -> dict[str, float]:
        result = {}
        for n in (4, 8, 12):
            values = pd.Series(self.phase(step, n), dtype=float)
            for what in ("mean", "min", "median", "max"):
                result[f"phase_{what}_{n}"] = getattr(values, what)()
        start = pd.Timestamp("1970-01-01") + pd.Timedelta(days=int(self.batch.day[self.row]))
        width = pd.Timedelta(hours=1) if self.season == 24 else pd.Timedelta(days=1)
        time = start + pd.Timedelta(hours=int(self.batch.hour[self.row])) + step * width
        known = {
            name: float(values[self.row, self.batch.demand.shape[1] + step])
            for name, values in self.batch.known.items()
        }
        return result | {
            "step": step + 1,
            "hour": time.hour,
            "weekday": time.weekday(),
            "day_of_month": time.day,
            "month": time.month,
            "is_open": float(self.batch.future_open[self.row, step]),
            "promo_known": known["promo"],
            "holiday_known": known["holiday"],
            "price_known_to_median": over(known["price"], self.channels["price"].median()),
        }


def assert_like_pandas(batch: ForecastBatch) -> None:
    table = features(batch)
    assert table.series.dtype == table.steps.dtype == np.float32
    for row in range(len(batch)):
        oracle = Row(batch, row)
        expected: dict[str, Any] = oracle.series()
        assert tuple(expected) == table.series_names
        for index, name in enumerate(table.series_names):
            assert table.series[row, index] == pytest.approx(expected[name], rel=2e-5, abs=2e-5, nan_ok=True), (
                row,
                name,
            )
        for step in range(batch.horizon):
            expected = oracle.step(step)
            assert tuple(expected) == table.step_names
            for index, name in enumerate(table.step_names):
                value = table.steps[row, step, index]
                assert value == pytest.approx(expected[name], rel=2e-5, abs=2e-5, nan_ok=True), (row, step, name)


@pytest.mark.parametrize(("season", "buckets"), [(7, 84), (7, 90), (7, 168), (7, 17), (7, 1), (7, 0), (24, 300)])
def test_features_are_what_pandas_computes_from_the_formulas(season: int, buckets: int) -> None:
    assert_like_pandas(busy_shop(8, buckets, season=season, seed=buckets))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), buckets=st.integers(0, 100), horizon=st.integers(1, 9))
def test_features_of_random_shops_are_what_pandas_computes(seed: int, buckets: int, horizon: int) -> None:
    assert_like_pandas(busy_shop(2, buckets, seed=seed, horizon=horizon))


def test_more_than_twelve_seasons_of_context_change_nothing() -> None:
    long = busy_shop(30, 168, seed=2)
    short = replace(
        long,
        demand=long.demand[:, -84:],
        is_open=long.is_open[:, -84:],
        channels={name: values[:, -84:] for name, values in long.channels.items()},
        known={name: values[:, 84:] for name, values in long.known.items()},
    )
    left, right = features(long), features(short)
    assert np.array_equal(left.series, right.series, equal_nan=True)
    assert np.array_equal(left.steps, right.steps, equal_nan=True)


def test_neighbours_change_no_bit() -> None:
    batch = busy_shop(1100, seed=3)
    whole = features(batch)
    for rows in (np.array([0]), np.array([1099, 5]), np.arange(1000, 1100), np.arange(1, 1100, 2)):
        some = features(take(batch, rows))
        assert np.array_equal(some.series, whole.series[rows], equal_nan=True)
        assert np.array_equal(some.steps, whole.steps[rows], equal_nan=True)


def test_inputs_stay_untouched() -> None:
    batch = busy_shop(20, seed=4)
    arrays = [getattr(batch, one.name) for one in fields(batch)] + [*batch.channels.values(), *batch.known.values()]
    for values in arrays:
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
    features(batch)


def test_missing_channels_are_nan_and_nothing_else() -> None:
    table = features(batch_of(np.full(84, 2.0), horizon=3))
    missing = {name for name in SERIES_NAMES if np.isnan(table.column(name)).all()}
    assert missing == {
        "cancelled_share_12", "price_last", "price_to_median", "price_to_min", "discount_depth", "promo_share_4",
        "promo_share_12", "orders_per_view_4", "carts_per_view_4", "orders_per_cart_4", "views_lead", "carts_lead",
        "stockout_share_4", "stockout_share_12", "observed_to_expected",
    }  # fmt: skip
    missing = {name for name in STEP_NAMES if np.isnan(table.column(name)).all()}
    assert missing == {"promo_known", "holiday_known", "price_known_to_median"}


def test_the_past_of_an_announced_covariate_stands_in_for_its_channel() -> None:
    known = {"price": np.array([[10.0] * 83 + [8.0] + [5.0, 20.0, 10.0]], np.float32)}
    table = features(batch_of(np.ones(84), horizon=3, known=known))
    assert table.column("price_last").tolist() == [8.0]
    assert table.column("discount_depth").tolist() == [pytest.approx(0.2)]
    assert table.column("price_known_to_median").tolist() == [[0.5, 2.0, 1.0]]


def test_only_the_future_of_known_covariates_is_read() -> None:
    """Steps may see announcements; per-series columns may not."""
    batch = busy_shop(20, seed=5)
    later = {name: values.copy() for name, values in batch.known.items()}
    for values in later.values():
        values[:, -batch.horizon :] = 99
    other = features(replace(batch, known=later))
    assert np.array_equal(features(batch).series, other.series, equal_nan=True)


def test_impossible_values_are_unknown() -> None:
    demand = np.full(84, 3.0)
    demand[-1] = np.inf
    table = features(batch_of(demand))
    assert table.column("mean_1").tolist() == [3.0]
    assert table.column("seen_12").tolist() == [83.0]


def test_no_rows() -> None:
    table = features(take(busy_shop(3), np.array([], np.int64)))
    assert table.series.shape == (0, len(SERIES_NAMES))
    assert table.steps.shape == (0, 9, len(STEP_NAMES))


def test_an_unknown_column_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="mean_3"):
        features(batch_of(np.ones(84))).column("mean_3")


def test_every_feature_has_a_name_of_its_own_a_unit_and_a_formula() -> None:
    table = [one for features_, _ in (*SERIES, *STEPS) for one in features_]
    assert len({one.name for one in table}) == len(table) == len(SERIES_NAMES) + len(STEP_NAMES)
    assert all(one.unit and one.formula for one in table)


def test_the_page_on_features_is_what_the_code_says() -> None:
    """Write it anew with: uv run python -c "from models.features import *; print(feature_docs(), end='')"."""
    page = Path(__file__).parents[1] / "docs" / "features.md"
    assert page.read_text(encoding="utf-8") == feature_docs()
