"""Forecasts of price lines: laws that hold for every forecaster, and what the plain hurdle is to say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from load_tests.price_forecasts import CUTOFFS, WEEKS, cutoffs, made_up
from models.corpus_prices import price_corpus
from models.forecast import F32, Basis, ForecastError, HorizonError
from models.model_folder import ModelLoadError
from models.price import HORIZON, RUNS, LastPrice, PriceBatch, PriceForecast, PriceForecaster, Trend, runs_of
from models.price import take_prices as take
from models.price_hurdle import PriceHurdle
from models.price_net import SHIPPED, PriceWeights, shipped
from models.price_train import PriceRecipe, fit_prices

FORECASTERS = [LastPrice(), PriceHurdle(), shipped()]
LEARNED = FORECASTERS[1:]
each = pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda one: one.name[:16])
each_learned = pytest.mark.parametrize("forecaster", LEARNED, ids=lambda one: one.name[:16])


def corpus_batch(lines: int = 60, days: int = 200) -> PriceBatch:
    """Made-up lines of all kinds."""
    corpus = price_corpus(lines, days, seed=5)
    price, began, promo = runs_of(corpus.price, corpus.promo)
    return PriceBatch(price, began, np.full(lines, 19_000, np.int64), HORIZON, promo)


def one_line(price: list[float], began: list[float], planned: list[float] | None = None) -> PriceBatch:
    """One line from its runs, newest first."""
    return PriceBatch(
        np.array([price], np.float32),
        np.array([began], np.float32),
        np.array([19_000]),
        HORIZON if planned is None else len(planned),
        planned=None if planned is None else np.array([planned], np.float32),
    )


def sound(found: PriceForecast) -> bool:
    """Tell whether figures are finite, above zero and ordered, and odds are odds."""
    odds = (found.p_change >= 0) & (found.p_change <= 1)
    good = np.isfinite(found.quantiles).all() and (found.quantiles > 0).all() and (np.diff(found.quantiles) >= 0).all()
    return bool(good and odds.all() and (found.mean > 0).all() and (found.p_trend <= 1).all())


@each
def test_quantiles_are_finite_above_zero_and_never_cross(forecaster: PriceForecaster) -> None:
    found = forecaster.forecast(corpus_batch())
    assert sound(found)
    assert found.quantiles.shape == (60, HORIZON, 13)


@each
def test_other_rows_do_not_change_a_row(forecaster: PriceForecaster) -> None:
    batch = corpus_batch()
    together = forecaster.forecast(batch)
    for row in (0, 17, 59):
        alone = forecaster.forecast(take(batch, slice(row, row + 1)))
        np.testing.assert_allclose(alone.p_change[0], together.p_change[row], atol=1e-5)
        np.testing.assert_allclose(alone.mean[0], together.mean[row], rtol=1e-5)


def test_the_plain_hurdle_gives_a_row_the_same_bits_in_any_company() -> None:
    batch, hurdle = corpus_batch(), PriceHurdle()
    together, alone = hurdle.forecast(batch), hurdle.forecast(take(batch, slice(20, 27)))
    assert together.quantiles[20:27].tobytes() == alone.quantiles.tobytes()
    assert together.p_change[20:27].tobytes() == alone.p_change.tobytes()


@each
def test_inputs_are_left_as_they_were(forecaster: PriceForecaster) -> None:
    batch = corpus_batch(8)
    batch = replace(batch, planned=np.full((8, HORIZON), 5, np.float32))
    before = [values.copy() for values in (batch.price, batch.began)]
    forecaster.forecast(batch)
    np.testing.assert_array_equal(batch.price, before[0])
    np.testing.assert_array_equal(batch.began, before[1])


@each
def test_what_lies_after_the_cutoff_changes_nothing(forecaster: PriceForecaster) -> None:
    prices = price_corpus(12, 60 * 7, seed=9).price[:, ::7].copy()
    before = [forecaster.forecast(part.batch).quantiles.tobytes() for part in cutoffs(prices)]
    for index in range(CUTOFFS):
        cut = prices.shape[1] - CUTOFFS * WEEKS + index * WEEKS
        scrambled = prices.copy()
        scrambled[:, cut:] = np.random.default_rng(1).permuted(scrambled[:, cut:] * 3)
        assert forecaster.forecast(cutoffs(scrambled)[index].batch).quantiles.tobytes() == before[index]


@each_learned
def test_announced_prices_are_certain(forecaster: PriceForecaster) -> None:
    nan = float("nan")
    planned = [nan, nan, 8.0, 8.0, 10.0, nan, nan]
    found = forecaster.forecast(one_line([10.0, 9.0, 10.0], [3, 10, 40], planned))
    assert (found.quantiles[0, 2:4] == 8).all()
    assert (found.quantiles[0, 4] == 10).all()
    assert found.mean[0, 2:5].tolist() == [8, 8, 10]
    assert found.p_change[0, 2:5].tolist() == [1, 1, 0]
    assert 0 < found.p_change[0, 0] < 1
    assert found.p_change[0, 5] < 0.5  # after the plan the line stands at 10 again
    assert sound(found)


@each_learned
def test_a_plan_up_to_the_last_day_decides_the_trend(forecaster: PriceForecaster) -> None:
    found = forecaster.forecast(one_line([10.0], [30], [10.0, 12.0, 12.0]))
    assert (found.trend[0], found.p_trend[0]) == (Trend.UP, 1)
    assert found.p_change[0].tolist() == [0, 1, 1]


@each_learned
def test_days_after_a_plan_go_on_from_where_it_ends(forecaster: PriceForecaster) -> None:
    planned = [20.0] * 5 + [float("nan")] * 2
    found = forecaster.forecast(one_line([10.0], [300], planned))
    assert found.quantiles[0, 5, 6] == 20
    assert found.p_change[0, 5] > 0.5


@each
def test_a_line_of_one_price_is_forecast_around_it(forecaster: PriceForecaster) -> None:
    found = forecaster.forecast(one_line([9.99], [0]))
    assert sound(found)
    assert (found.quantiles[0, :, 6] == np.float32(9.99)).all()
    assert found.trend[0] == Trend.FLAT


@each
@pytest.mark.parametrize("wrong", [0.0, -3.0, np.nan, np.inf, 2e9])
def test_what_is_no_price_is_passed_over(forecaster: PriceForecaster, wrong: float) -> None:
    found = forecaster.forecast(one_line([wrong, 9.0, wrong, 8.0], [0, 4, 9, 20]))
    same = forecaster.forecast(one_line([9.0, 8.0], [4, 20]))
    np.testing.assert_allclose(found.mean, same.mean, rtol=1e-5)
    assert sound(found)
    with pytest.raises(ForecastError, match="row 0 has no price"):
        forecaster.forecast(one_line([wrong], [0]))


@each
def test_huge_and_tiny_prices_are_forecast_like_others(forecaster: PriceForecaster) -> None:
    usual = forecaster.forecast(one_line([10.0, 8.0], [4, 20]))
    for scale in (1e-4, 9e7):
        found = forecaster.forecast(one_line([10 * scale, 8 * scale], [4, 20]))
        assert sound(found)
        np.testing.assert_allclose(found.mean / scale, usual.mean, rtol=1e-4)


@each
def test_a_horizon_of_zero_or_too_many_days_is_refused(forecaster: PriceForecaster) -> None:
    for horizon in (0, 91):
        with pytest.raises(HorizonError, match=str(horizon)):
            forecaster.forecast(replace(one_line([9.0], [0]), horizon=horizon))


@each
def test_no_rows_are_an_answer_too(forecaster: PriceForecaster) -> None:
    assert len(forecaster.forecast(take(corpus_batch(3), slice(0, 0)))) == 0


def test_plans_of_another_shape_are_refused() -> None:
    batch = replace(one_line([9.0], [0]), planned=np.zeros((1, 3), np.float32))
    with pytest.raises(ForecastError, match="planned has shape"):
        PriceHurdle().forecast(batch)


@each_learned
def test_weekly_offers_change_on_their_weekday(forecaster: PriceForecaster) -> None:
    weeks = [7.0 * n + 3 for n in range(RUNS)]
    found = forecaster.forecast(one_line([9.0, 7.0] * (RUNS // 2), weeks))
    p = found.p_change[0]
    assert p[3] - p[2] > 0.2  # today is the fourth day of its week
    assert p[2] < 0.35


def brute_runs(daily: F32) -> list[tuple[float, int]]:
    """Runs of one line by hand, newest first."""
    runs: list[tuple[float, int]] = []
    for day, price in enumerate(daily.tolist()):
        if not np.isnan(price) and (not runs or runs[0][0] != price):
            runs.insert(0, (price, len(daily) - 1 - day))
    return runs[:RUNS]


def test_runs_are_those_found_by_hand() -> None:
    rng = np.random.default_rng(3)
    daily = rng.choice(np.array([np.nan, 1, 2, 3], np.float32), (40, 50))
    price, began, _ = runs_of(daily)
    for row in range(40):
        found = [(p, int(b)) for p, b in zip(price[row].tolist(), began[row].tolist(), strict=True) if not np.isnan(p)]
        assert found == brute_runs(daily[row])


def test_the_shipped_net_is_ahead_of_the_hurdle_and_the_last_price_on_made_up_lines() -> None:
    rows = made_up(600)
    last, plain, net = rows.values()
    assert net["wql"] < 0.95 * plain["wql"] < 0.95 * last["wql"]
    assert net["brier"] < plain["brier"] < last["brier"]


def test_the_basis_tells_the_net_from_the_hurdle() -> None:
    batch = one_line([9.0], [0])
    assert (PriceHurdle().forecast(batch).basis[0], shipped().forecast(batch).basis[0]) == (
        Basis.BASELINE,
        Basis.MODEL,
    )


def test_weights_come_back_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    weights = PriceWeights.load(SHIPPED)
    weights.save(tmp_path)
    again = PriceWeights.load(tmp_path)
    assert all((again.arrays[name] == value).all() for name, value in weights.arrays.items())
    foreign = dict(weights.arrays)
    foreign["line.weight"] = foreign["line.weight"][:, 1:]
    PriceWeights(foreign).save(tmp_path)
    with pytest.raises(ModelLoadError, match="another version"):
        PriceWeights.load(tmp_path)
    with pytest.raises(ModelLoadError, match="cannot be read"):
        PriceWeights.load(tmp_path / "nowhere")
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 1_000_000


def test_fitting_twice_gives_the_same_weights() -> None:
    recipe = PriceRecipe(steps=3, rows=16)
    done: list[int] = []
    first, second = fit_prices(recipe, done.append, lines=60), fit_prices(recipe, lines=60)
    assert all((second.arrays[name] == value).all() for name, value in first.arrays.items())
    assert done == [1, 2, 3]
