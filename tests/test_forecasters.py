"""What every forecaster promises, whichever it is. A new class that answers batches must be listed here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import fields, replace

import numpy as np
import pytest

import models
from models.baseline import SeasonalWindow, pool_of
from models.forecast import LEVELS, Basis, Forecast, ForecastBatch, Forecaster, HorizonError, take, take_forecast
from models.model_folder import read_model
from models.named import PRETRAINED, SHIPPED, forecaster_named
from models.refit import Refitted
from models.serving import EncoderForecaster
from models.worth import Blanked
from tests.batches import batch_of, shop

FORECASTERS: list[Forecaster] = [
    SeasonalWindow(),
    forecaster_named(PRETRAINED, SHIPPED),
    EncoderForecaster(read_model(SHIPPED).encoders(), "encoder"),
    Refitted({19_000: SeasonalWindow(), 19_000 * 24: SeasonalWindow()}, "refitted"),  # days and hours of `batch_of`
    Blanked(SeasonalWindow(), lambda batch: replace(batch, weeks=None)),
]

every = pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda one: str(one.name))


def test_every_class_that_forecasts_is_listed() -> None:
    listed = {type(one) for one in FORECASTERS}
    for module in pkgutil.iter_modules(models.__path__, "models."):
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            method = getattr(found, "forecast", None)
            told = inspect.get_annotations(method) if callable(method) else {}
            if told.get("batch") == "ForecastBatch" and found is not Forecaster:
                assert found in listed, f"{found.__name__} answers batches but is not checked here"


def assert_alike(forecaster: Forecaster, left: Forecast, right: Forecast) -> None:
    """The same bits from the baseline; from a net the same to a thousandth, for how it sums depends on the rows."""
    for one in fields(Forecast):
        some, others = getattr(left, one.name), getattr(right, one.name)
        if isinstance(forecaster, SeasonalWindow):
            assert np.array_equal(some, others), one.name
        else:
            np.testing.assert_allclose(some, others, rtol=1e-3, atol=1e-3, err_msg=one.name)


def with_parts(batch: ForecastBatch) -> ForecastBatch:
    """Demand in parts of units: that of whole units is rounded, and a hair's difference would be a unit."""
    return replace(batch, demand=batch.demand + np.float32(0.25))


def same(left: Forecast, right: Forecast) -> bool:
    return all(np.array_equal(getattr(left, one.name), getattr(right, one.name)) for one in fields(Forecast))


def check_promises(batch: ForecastBatch, forecast: Forecast) -> None:
    """Shapes, types, order and limits of contracts.md §2."""
    rows, horizon, levels = len(batch), batch.horizon, len(LEVELS)
    assert forecast.quantiles.shape == forecast.cumulative.shape == (rows, horizon, levels)
    assert forecast.mean.shape == forecast.cumulative_mean.shape == (rows, horizon)
    assert forecast.basis.shape == (rows,)
    assert forecast.basis.dtype == np.uint8
    assert set(forecast.basis.tolist()) <= {int(one) for one in Basis}
    for values in (forecast.quantiles, forecast.mean, forecast.cumulative, forecast.cumulative_mean):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all(), "quantiles cross"
    assert (np.diff(forecast.cumulative, axis=2) >= 0).all(), "cumulative quantiles cross"
    assert (np.diff(forecast.cumulative, axis=1) >= 0).all(), "cumulative quantiles fall along the horizon"
    assert (np.diff(forecast.cumulative_mean, axis=1) >= 0).all(), "the cumulative mean falls along the horizon"
    assert (forecast.quantiles[:, 0] >= batch.observed[:, None]).all(), "step 1 is below what was observed"
    shut = ~batch.future_open
    shut[:, 0] &= batch.observed == 0
    assert (forecast.quantiles[shut] == 0).all(), "a closed step has demand"


@every
@pytest.mark.parametrize("horizon", [1, 6, 7, 14, 28, 30])
@pytest.mark.parametrize(("season", "buckets"), [(7, 84), (7, 90), (7, 168), (7, 5), (7, 0), (24, 84), (24, 288)])
def test_answers_keep_their_promises(forecaster: Forecaster, horizon: int, season: int, buckets: int) -> None:
    batch = shop(40, buckets, horizon=horizon, season=season, seed=horizon)
    check_promises(batch, forecaster.forecast(batch))
    lent = replace(batch, pool=pool_of(batch, groups=3))
    check_promises(lent, forecaster.forecast(lent))


@every
def test_a_row_is_answered_alike_alone_and_among_others(forecaster: Forecaster) -> None:
    batch = with_parts(shop(1100, 91, seed=3))
    batch = replace(batch, pool=pool_of(batch, groups=3))
    together = forecaster.forecast(batch)
    for row in [*range(0, 1100, 37), 511, 512, 1099]:
        alone = forecaster.forecast(take(batch, np.array([row])))
        assert_alike(forecaster, alone, take_forecast(together, slice(row, row + 1)))


@every
def test_order_and_neighbours_change_nothing(forecaster: Forecaster) -> None:
    batch = with_parts(shop(700, 84, seed=4))
    order = np.random.default_rng(1).permutation(700)[:333]
    whole, some = forecaster.forecast(batch), forecaster.forecast(take(batch, order))
    assert_alike(forecaster, take_forecast(whole, order), some)


@every
def test_strided_input_is_answered_like_contiguous_input(forecaster: Forecaster) -> None:
    batch = shop(30, 84, seed=5)
    strided = replace(batch, demand=np.asfortranarray(batch.demand), is_open=np.repeat(batch.is_open, 2, axis=0)[::2])
    assert same(forecaster.forecast(batch), forecaster.forecast(strided))


@every
def test_inputs_stay_untouched_and_answers_repeat(forecaster: Forecaster) -> None:
    batch = shop(50, 84, seed=6)
    batch = replace(batch, pool=pool_of(batch, groups=3))
    arrays = {one.name: getattr(batch, one.name) for one in fields(batch)}
    before = {name: value.copy() for name, value in arrays.items() if isinstance(value, np.ndarray)}
    for value in before:
        arrays[value].flags.writeable = False
    first, second = forecaster.forecast(batch), forecaster.forecast(batch)
    assert same(first, second)
    assert all(np.array_equal(arrays[name], old, equal_nan=old.dtype == np.float32) for name, old in before.items())


@every
def test_constant_zero_single_and_missing_histories(forecaster: Forecaster) -> None:
    single = np.full(84, np.nan)
    single[-1] = 5
    forecast = forecaster.forecast(batch_of([np.full(84, 3.0), np.zeros(84), single, np.full(84, np.nan)]))
    if isinstance(forecaster, SeasonalWindow):
        assert (forecast.quantiles[0] == 3).all()
        assert forecast.cumulative[0, :, 6].tolist() == [3.0 * step for step in range(1, 15)]
        assert (forecast.quantiles[1] == 0).all()
    assert np.abs(forecast.quantiles[0, :, 6] - 3).max() <= 1
    assert forecast.quantiles[1, :, 6].max() == 0
    assert np.isfinite(forecast.quantiles[2:]).all()
    assert forecast.basis[2:].tolist() == [Basis.COLD_START, Basis.COLD_START]


@every
def test_no_rows_and_no_horizon(forecaster: Forecaster) -> None:
    assert len(forecaster.forecast(take(shop(3), np.array([], np.int64)))) == 0
    with pytest.raises(HorizonError, match="horizon"):
        forecaster.forecast(shop(3, horizon=0))


@every
def test_the_open_bucket_counts_what_was_observed_and_what_remains(forecaster: Forecaster) -> None:
    history = with_parts(shop(20, 84, seed=7, gaps=False))
    closed = forecaster.forecast(replace(history, observed=np.zeros(20, np.float32), elapsed=np.zeros(20, np.float32)))
    late = replace(history, observed=np.full(20, 6, np.float32), elapsed=np.full(20, 0.999, np.float32))
    forecast = forecaster.forecast(late)
    np.testing.assert_allclose(forecast.quantiles[:, 0], 6 + closed.quantiles[:, 0] * 0.001, rtol=1e-4)
    np.testing.assert_allclose(forecast.cumulative[:, 0], forecast.quantiles[:, 0] - 6, atol=1e-4)
    np.testing.assert_allclose(forecast.cumulative_mean[:, 0], forecast.mean[:, 0] - 6, atol=1e-4)
    assert np.array_equal(forecast.quantiles[:, 1:], closed.quantiles[:, 1:])


@every
def test_the_name_is_a_word_for_a_published_field(forecaster: Forecaster) -> None:
    assert forecaster.name
    assert forecaster.name == forecaster.name.strip()
