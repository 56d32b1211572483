"""The empirical same-phase window against `numpy.quantile`, and its rules for gaps, young rows and paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baseline import PATH_SEED, WINDOW, SeasonalWindow, paths, pool_of
from models.forecast import F32, LEVELS, Basis, ForecastBatch, ForecastError, Pool, take
from tests.batches import batch_of, shop

BASELINE = SeasonalWindow()
MEDIAN = LEVELS.index(0.5)


def samples_of(batch: ForecastBatch, row: int, phase: int) -> list[float]:
    """The newest twelve open and observed buckets of a phase, found by walking back bucket by bucket."""
    found: list[float] = []
    first = batch.demand.shape[1] - batch.season + phase
    for bucket in range(first, -1, -batch.season):
        if batch.is_open[row, bucket] and not np.isnan(batch.demand[row, bucket]) and len(found) < WINDOW:
            found.append(float(batch.demand[row, bucket]))
    return found


def expected(batch: ForecastBatch, row: int, step: int) -> tuple[F32, float]:
    """Quantiles and mean of one step of a row that is not cold and borrows nothing."""
    phases = [samples_of(batch, row, phase) for phase in range(batch.season)]
    samples = phases[step % batch.season]
    if len(samples) < 4:
        samples = [value for phase in phases for value in phase]
    if not samples or not batch.future_open[row, step]:
        return np.zeros(len(LEVELS), np.float32), 0.0
    return np.quantile(np.array(samples), LEVELS).astype(np.float32), float(np.mean(samples))


@pytest.mark.parametrize(("season", "buckets"), [(7, 84), (7, 90), (7, 168), (7, 20), (24, 84), (24, 300)])
def test_quantiles_are_those_of_the_last_twelve_open_buckets_of_the_phase(season: int, buckets: int) -> None:
    batch = replace(shop(60, buckets, season=season, seed=1), observed=np.zeros(60, np.float32))
    batch = replace(batch, elapsed=np.zeros(60, np.float32))
    forecast = BASELINE.forecast(batch)
    checked = 0
    for row in np.flatnonzero(forecast.basis == Basis.BASELINE):
        for step in range(batch.horizon):
            quantiles, mean = expected(batch, int(row), step)
            np.testing.assert_allclose(forecast.quantiles[row, step], quantiles, rtol=2e-6, atol=1e-6)
            np.testing.assert_allclose(forecast.mean[row, step], mean, rtol=2e-6, atol=1e-6)
            checked += 1
    assert checked > 500


def test_rows_without_a_gap_take_the_short_way_to_the_same_bits() -> None:
    batch = shop(50, 84, gaps=False)
    longer = replace(
        batch,
        demand=np.concatenate([np.full((50, 84), 7, np.float32), batch.demand], axis=1),
        is_open=np.ones((50, 168), bool),
    )
    one_missing = replace(longer, demand=longer.demand.copy())
    one_missing.demand[0, -1] = np.nan  # row 0 leaves the short way and takes the others along in no respect
    short, long, mixed = (BASELINE.forecast(one) for one in (batch, longer, one_missing))
    assert np.array_equal(short.cumulative, long.cumulative)
    assert np.array_equal(short.quantiles[1:], mixed.quantiles[1:])
    assert np.array_equal(short.cumulative[1:], mixed.cumulative[1:])


def test_a_missing_newest_bucket_reaches_one_season_further_back() -> None:
    values = np.concatenate([np.full(7, 100.0), np.arange(84.0)])
    closed = np.ones(91, bool)
    closed[-7] = False  # the newest bucket of phase 0
    forecast = BASELINE.forecast(batch_of(values, is_open=closed))
    of_phase = [100.0, *np.arange(84.0)[::7][:-1]]
    np.testing.assert_allclose(forecast.quantiles[0, 0], np.quantile(of_phase, LEVELS), rtol=1e-6)
    assert forecast.cumulative_mean[0, 0] == pytest.approx(np.mean(of_phase))


def test_closed_days_of_the_past_are_no_zeros_in_the_sums() -> None:
    """A shop closed on one weekday sells 6 × 10 a week, and an exceptional opening that day sells like the others."""
    demand, opened = np.full(84, 10.0), np.ones(84, bool)
    demand[6::7], opened[6::7] = 0.0, False
    future = np.ones(14, bool)
    future[6] = False
    forecast = BASELINE.forecast(batch_of(demand, is_open=opened, future_open=future))
    assert (forecast.cumulative[0, 5:7] == 60).all()
    assert (forecast.cumulative[0, 13] == 130).all()


def test_cumulative_quantiles_come_from_whole_seasons_not_from_adding_quantiles() -> None:
    """Each week sells 84 on one weekday and nothing else: every sum of a week is 84, though every median is 0."""
    demand = np.zeros((12, 7))
    demand[np.arange(12), np.arange(12) % 7] = 84
    forecast = BASELINE.forecast(batch_of(demand.ravel(), horizon=28))
    assert (forecast.quantiles[0, :, MEDIAN] == 0).all()
    for week in (1, 2, 3, 4):
        np.testing.assert_allclose(forecast.cumulative[0, 7 * week - 1], 84 * week, rtol=1e-6)


def test_cumulative_quantiles_of_one_season_are_those_of_the_twelve_weeks() -> None:
    batch = shop(30, 84, gaps=False)
    batch = replace(batch, elapsed=np.zeros(30, np.float32))
    forecast = BASELINE.forecast(batch)
    weeks = batch.demand.reshape(30, 12, 7).sum(axis=2)
    for index, level in enumerate(LEVELS):  # each week occurs five times among the 60 paths
        np.testing.assert_allclose(
            forecast.cumulative[:, 6, index], np.quantile(np.repeat(weeks, 5, axis=1), level, axis=1), rtol=1e-5
        )


def test_the_mean_of_sums_is_the_sum_of_means() -> None:
    batch = shop(30, 84, gaps=False)
    forecast = BASELINE.forecast(batch)
    to_come = forecast.mean.copy()
    to_come[:, 0] -= batch.observed
    np.testing.assert_allclose(forecast.cumulative_mean, np.cumsum(to_come, axis=1), rtol=1e-4, atol=1e-3)


def test_paths_hold_every_contiguous_stretch_and_use_every_week_alike() -> None:
    table = paths(4)
    assert table.shape == (4, 60)
    for week in range(WINDOW):
        assert table[:, week].tolist() == [(week - block) % WINDOW for block in range(4)]
    for block in table:
        assert np.bincount(block).tolist() == [5] * WINDOW
    assert np.array_equal(paths(2), table[:2])
    assert len(np.unique(table, axis=1).T) > 55


def test_the_table_of_paths_is_the_published_one() -> None:
    assert PATH_SEED == 20100412
    assert paths(2)[:, 12:18].tolist() == [[8, 9, 10, 2, 6, 11], [10, 3, 7, 2, 11, 9]]


def test_a_row_is_cold_below_one_season_of_samples() -> None:
    demand = np.full((3, 84), np.nan)
    demand[0, -7:] = 1
    demand[1, -6:] = 1
    opened = np.ones((3, 84), bool)
    demand[2, -9:] = 1
    opened[2, -4:] = False
    forecast = BASELINE.forecast(batch_of(demand, is_open=opened))
    assert forecast.basis.tolist() == [Basis.BASELINE, Basis.COLD_START, Basis.COLD_START]


def pool_rows() -> tuple[ForecastBatch, Pool]:
    """Group 0 sells 10 a day, group 1 sells 40, group 2 has no mature row; two of three in "all" sell 10."""
    demand = np.full((5, 84), 10.0)
    demand[2] = 40
    demand[3] = np.nan
    demand[4, :-3] = np.nan
    batch = batch_of(demand, group=[0, 0, 1, 1, 2])
    pool = pool_of(batch, groups=3)
    assert pool is not None
    return batch, pool


def test_pools_mix_the_mature_rows_of_each_group_and_of_all() -> None:
    """Not their mean: an item is like one of them, and nobody knows which."""
    _, pool = pool_rows()
    assert pool.quantiles.shape == (4, 7, 13)
    assert [set(group.ravel().tolist()) for group in pool.quantiles] == [{10}, {40}, {10, 40}, {10, 40}]
    assert pool.quantiles[3, 0].tolist() == [10] * 8 + [40] * 5


def test_nothing_to_pool_is_none() -> None:
    assert pool_of(batch_of(np.full((2, 84), np.nan)), groups=1) is None
    assert pool_of(batch_of(np.zeros((0, 84))), groups=1) is None


def test_new_rows_sell_like_their_group_else_like_all_else_nothing() -> None:
    _, pool = pool_rows()
    nothing = np.full((4, 84), np.nan)
    forecast = BASELINE.forecast(batch_of(nothing, group=[0, 1, -1, 9], pool=pool))
    assert [row.tolist() for row in np.unique(forecast.quantiles, axis=1)[:, 0, [0, 12]]] == [
        [10, 10], [40, 40], [10, 40], [10, 40]
    ]  # fmt: skip
    np.testing.assert_allclose(forecast.cumulative[1, 13], 14 * 40, rtol=1e-6)
    assert (forecast.basis == Basis.COLD_START).all()
    assert (BASELINE.forecast(batch_of(nothing)).quantiles == 0).all()


def test_young_rows_weigh_their_own_days_by_their_number() -> None:
    _, pool = pool_rows()
    demand = np.full((1, 84), np.nan)
    demand[0, -3:] = 100
    forecast = BASELINE.forecast(batch_of(demand, group=1, pool=pool))
    blend = 100 * 3 / 10 + 40 * 7 / 10
    np.testing.assert_allclose(forecast.quantiles, blend, rtol=1e-6)
    np.testing.assert_allclose(forecast.cumulative[0, :, 0], blend * np.arange(1, 15), rtol=1e-5)
    alone = BASELINE.forecast(batch_of(demand))
    assert (alone.quantiles == 100).all(), "with nothing to borrow its own days stand alone"


def test_mature_rows_borrow_nothing() -> None:
    batch, pool = pool_rows()
    rows = take(batch, np.array([0, 1, 2]))
    assert np.array_equal(BASELINE.forecast(rows).quantiles, BASELINE.forecast(replace(rows, pool=pool)).quantiles)


def test_a_pool_of_another_season_is_refused() -> None:
    with pytest.raises(ForecastError, match="pool"):
        BASELINE.forecast(batch_of(np.zeros(84), pool=Pool(np.zeros((1, 24, 13), np.float32))))


def test_a_closed_open_bucket_is_what_was_observed() -> None:
    future = np.ones(14, bool)
    future[0] = False
    forecast = BASELINE.forecast(batch_of(np.full(84, 8.0), future_open=future, observed=2, elapsed=0.25))
    assert (forecast.quantiles[0, 0] == 2).all()
    assert (forecast.cumulative[0, 0] == 0).all()
    assert (forecast.cumulative[0, 1] == 8).all()


def test_the_open_bucket_shrinks_in_the_later_sums_too() -> None:
    forecast = BASELINE.forecast(batch_of(np.full(84, 8.0), observed=5, elapsed=0.75))
    assert (forecast.quantiles[0, 0] == 7).all()
    assert (forecast.cumulative[0, :3] == np.array([[2.0], [10.0], [18.0]])).all()


def test_values_that_are_no_demand_are_not_sampled() -> None:
    demand = np.full(84, 4.0)
    demand[[3, 10]] = np.inf, -np.inf
    demand[17] = -3
    forecast = BASELINE.forecast(batch_of(demand))
    assert np.isfinite(forecast.quantiles).all()
    assert forecast.quantiles[0, 3, 0] < 4
    assert forecast.quantiles[0, 3, -1] == 4


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), buckets=st.integers(0, 120), season=st.sampled_from([1, 7, 24]))
def test_no_history_breaks_a_promise(seed: int, buckets: int, season: int) -> None:
    batch = shop(9, buckets, season=season, seed=seed, horizon=1 + seed % 30)
    forecast = BASELINE.forecast(batch)
    assert np.isfinite(forecast.quantiles).all()
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()
    assert (np.diff(forecast.cumulative, axis=1) >= 0).all()
    assert (np.diff(forecast.cumulative, axis=2) >= 0).all()
    highest = np.nan_to_num(batch.demand).max(axis=1, initial=0)
    rest = forecast.quantiles[:, :, -1].copy()
    rest[:, 0] -= batch.observed
    assert (rest <= highest[:, None] * 1.00001 + 1e-4).all(), "a window never says more than it has seen"
