"""The synthetic corpus: the same for a seed, never impossible, and each family what it promises."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from models.columns import step_inputs
from models.corpus import FAMILIES, HORIZON, KNOWN, LARGEST, SMALLEST, TURNOVER, corpus
from models.corpus_figures import QUANTILES, describe
from models.corpus_holidays import CHRISTMAS, KINDS, easter, holidays
from models.corpus_observe import COUNTS, Orders, Rates, observe, plain, scaled
from models.corpus_plan import Plan, plan_of
from models.corpus_regimes import REGIMES, regime_of, regimes
from models.corpus_retail import dispersion_of, retail
from models.corpus_shapes import response, wander, weekday_profile
from models.corpus_spells import Mask, days_since, days_until, spells
from models.forecast import F32
from models.panel import Panel
from models.task import Task
from models.windows import windows_of

DAY = np.arange(17_000, 17_800)
SERIES = 400


@cache
def made(freq: str = "D") -> Task:
    """A corpus that several tests look at."""
    return corpus(SERIES, 800, 7) if freq == "D" else corpus(50, 24 * 40 + 5, 7, freq="h")


def rows_of(task: Task, family: str) -> Mask:
    return np.array([name.startswith(family) for name in task.ids])


def plan(series: int = 128, seed: int = 1) -> Plan:
    return plan_of(np.random.default_rng(seed), DAY, series)


def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    one, same, other = corpus(60, 200, 3), corpus(60, 200, 3), corpus(60, 200, 4)
    assert one.demand.tobytes() == same.demand.tobytes()
    assert [one.known[name].tobytes() for name in KNOWN] == [same.known[name].tobytes() for name in KNOWN]
    assert one.demand.tobytes() != other.demand.tobytes()


@pytest.mark.parametrize("freq", ["D", "h"])
def test_shapes_are_those_of_a_task_without_cutoffs(freq: str) -> None:
    task = made(freq)
    shape = (SERIES, 800) if freq == "D" else (50, 24 * 40 + 5)
    assert [task.demand.shape, *(task.known[name].shape for name in KNOWN)] == [shape] * 5
    assert {values.dtype for values in (task.demand, *task.known.values())} == {np.dtype(np.float32)}
    assert task.ids == sorted(task.ids)
    assert (len(task.series), len(task.cutoff), task.past) == (0, 0, {})
    assert (task.file.open, task.file.horizon) == ("open", HORIZON[freq])


@pytest.mark.parametrize("series", [1, 4, 5, 1301])
def test_families_have_equal_shares(series: int) -> None:
    task = corpus(series, 40, 1)
    counts = [int(rows_of(task, name).sum()) for name in FAMILIES]
    assert sum(counts) == len(task.demand) == series
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("freq", ["D", "h"])
def test_nothing_is_infinite_or_negative_and_covariates_are_what_they_are_called(freq: str) -> None:
    task = made(freq)
    assert not np.isinf(task.demand).any()
    assert np.nanmin(task.demand) >= 0
    for name in ("promo", "holiday"):
        assert set(np.unique(task.known[name][np.isfinite(task.known[name])])) == {0.0, 1.0}
    assert set(np.unique(task.known["open"])) == {0.0, 1.0}
    assert np.nanmin(task.known["price"]) > 0


@pytest.mark.parametrize("freq", ["D", "h"])
def test_closed_buckets_sell_nothing(freq: str) -> None:
    task = made(freq)
    closed = np.logical_and(task.known["open"] == 0, np.isfinite(task.demand))
    assert closed.mean() > 0.02
    assert (task.demand[closed] == 0).all()


def test_demand_is_unknown_before_a_series_begins_and_what_is_told_with_it() -> None:
    task = made()
    known = np.isfinite(task.demand)
    begun = np.where(known.any(axis=1), known.argmax(axis=1), 800)
    assert 0.2 < (begun > 30).mean() < 0.7
    inside = np.arange(800) > begun[:, None]
    assert 0.001 < 1 - known[inside].mean() < 0.05  # missing stretches
    for name in ("promo", "holiday", "price"):
        assert np.isnan(task.known[name][np.arange(800) < begun[:, None]]).all()
    price = task.known["price"]
    told = np.flatnonzero(np.isfinite(price).any(axis=1))
    assert np.isfinite(price[told][inside[told]]).all()


def test_most_series_are_whole_and_a_fifth_is_turnover() -> None:
    demand = corpus(1500, 300, 2).demand
    whole = np.where(np.isfinite(demand), demand == np.rint(demand), True).all(axis=1)
    assert TURNOVER - 0.06 < 1 - whole.mean() < TURNOVER + 0.04


def test_sizes_are_log_uniform() -> None:
    """Evenly over 6.7 decades; a quarter of the series within each quarter of them, roughly."""
    task = corpus(1500, 500, 2)
    mean = np.nanmean(np.where(np.isfinite(task.demand), task.demand, 0), axis=1)
    place = np.log(np.maximum(mean, 1e-4) / SMALLEST) / np.log(LARGEST / SMALLEST)
    shares = np.histogram(np.clip(place, 0, 0.999), 4, (0, 1))[0] / len(place)
    assert shares.min() > 0.17
    assert shares.max() < 0.36


def test_shares_of_series_are_not_told_a_covariate_unless_all_are_told() -> None:
    untold = np.isnan(made().known["promo"]).all(axis=1).mean()
    assert 0.12 < untold < 0.4
    task = corpus(100, 200, 1, untold=0.0)
    begun = np.isfinite(task.demand).any(axis=1)
    assert np.isfinite(task.known["promo"][begun]).any(axis=1).all()


def test_promotions_lift_where_a_series_answers_and_do_nothing_where_it_does_not() -> None:
    shop = plan()
    answers = response(np.random.default_rng(2), shop, np.less(np.arange(128), 64))
    assert not answers[64:].any()
    promoted = shop.promo[:64].any(axis=1)
    lift = [answers[row, shop.promo[row]].mean() - answers[row, ~shop.promo[row]].mean()
            for row in np.flatnonzero(promoted)]  # fmt: skip
    assert np.median(lift) > 0.3
    figures = describe(made())
    assert figures["promo_lift"][QUANTILES.index(0.75)] > 1.2


def test_customers_who_bought_ahead_are_missed_after_a_promotion() -> None:
    shop = plan(256)
    answers = response(np.random.default_rng(2), shop, np.ones(256, bool))
    since = days_since(shop.promo)
    just_after, long_after = (since == 1), (since > 20) & (since < 60)
    assert answers[just_after].mean() < answers[long_after].mean() - 0.03


def test_dear_days_sell_less() -> None:
    shop = plan(256)
    answers = response(np.random.default_rng(2), shop, np.ones(256, bool))
    ratio = np.log(shop.price / shop.base[:, None])
    quiet = ~shop.promo & (days_since(shop.promo) > 30)
    assert answers[quiet & (ratio > 0.15)].mean() < answers[quiet & (ratio < -0.15)].mean() - 0.2


def test_easter_moves_and_christmas_is_felt_before_its_day() -> None:
    found = easter(np.arange(2010, 2020)).astype("datetime64[D]").astype(str).tolist()
    assert found[:3] == ["2010-04-04", "2011-04-24", "2012-04-08"]
    assert found[-1] == "2019-04-21"
    near = holidays(np.random.default_rng(1), DAY, 40).near[:, CHRISTMAS]
    date = DAY.astype("datetime64[D]").astype(str)
    eve = np.array([one.endswith("12-24") for one in date])
    kept = near[:, eve].max(axis=1) > 0
    assert 0.3 < kept.mean() < 0.95
    assert (near[kept][:, eve] == 1).all()
    assert holidays(np.random.default_rng(1), DAY, 3).near.shape == (3, 3 * KINDS, 800)


def test_stock_outs_hide_demand_that_is_there() -> None:
    shop, scale = plan(), np.full(128, 200, np.float32)
    rates = scaled(retail(np.random.default_rng(3), shop, scale), scale, np.zeros(128, np.int64))
    seen = observe(np.random.default_rng(4), rates, scale, np.ones(128, bool))
    open_rates = Rates(rates.rate, rates.dispersion, rates.noise, np.zeros(rates.rate.shape, bool))
    wanted = observe(np.random.default_rng(4), open_rates, scale, np.ones(128, bool))
    empty = rates.sold_out
    assert 0.005 < empty.mean() < 0.2
    assert not seen[empty].any()
    assert wanted[empty].mean() > 50
    assert (seen[~empty] == wanted[~empty]).all()


def observed(rate: float, dispersion: float, whole: bool = True, orders: Orders | None = None) -> F32:
    """Many days of one rate."""
    one = np.ones((4, 50_000), np.float32)
    rates = plain(one, np.full((4, 1), dispersion, np.float32))
    scale = np.full(4, rate, np.float32)
    rates = scaled(Rates(rates.rate, rates.dispersion, np.full(4, COUNTS), rates.sold_out, orders), scale,
                   np.zeros(4, np.int64))  # fmt: skip
    return observe(np.random.default_rng(5), rates, scale, np.full(4, whole))


@pytest.mark.parametrize(("rate", "dispersion"), [(0.2, 2.0), (5.0, 0.3), (400.0, 0.02)])
def test_counts_have_the_mean_and_the_variance_of_their_dispersion(rate: float, dispersion: float) -> None:
    demand = observed(rate, dispersion)
    assert demand.mean() == pytest.approx(rate, rel=0.03)
    assert demand.var() == pytest.approx(rate + dispersion * rate**2, rel=0.1)


def test_turnover_has_its_mean_and_days_without_any() -> None:
    demand = observed(3.0, 0.5, whole=False)
    assert demand.mean() == pytest.approx(3.0, rel=0.25)  # a basket's worth varies
    assert (demand == 0).any()
    assert (demand != np.rint(demand)).any()


def orders(per_day: float, regularity: float, tail: int = 1) -> Orders:
    ones = np.ones(4, np.float32)
    return Orders(per_day * ones, regularity * ones, np.full(4, tail), 0.5 * ones)


def test_orders_come_in_clumps_or_in_a_rhythm_and_as_often_as_asked_for() -> None:
    spread = {}
    for regularity in (0.2, 1.0, 5.0):
        demand = observed(10.0, 0.0, whole=False, orders=orders(0.1, regularity))
        gaps = [np.diff(np.flatnonzero(row)) for row in demand]
        spread[regularity] = float(np.mean([gap.std() / gap.mean() for gap in gaps]))
        assert demand.mean() == pytest.approx(10.0, rel=0.1)
    assert spread[0.2] > 1.3 * spread[1.0]
    assert spread[5.0] < 0.7 * spread[1.0]
    assert (observed(10.0, 0.0, orders=orders(0.1, 1.0)) > 0).mean() == pytest.approx(0.1, rel=0.1)


def test_sparse_items_have_many_zeros_and_heavy_tails() -> None:
    task = made()
    own, rest = (describe(part(task, rows)) for rows in (rows_of(task, "sparse"), ~rows_of(task, "sparse")))
    middle = QUANTILES.index(0.5)
    assert own["zeros"][middle] > 0.8
    assert own["peak"][middle] > 3 * rest["peak"][middle]


def part(task: Task, rows: Mask) -> Task:
    ids = [name for name, chosen in zip(task.ids, rows, strict=True) if chosen]
    known = {name: values[rows] for name, values in task.known.items()}
    return Task(task.file, ids, task.first_bucket, task.demand[rows], known, {}, task.series, task.cutoff)


def test_regimes_change_levels_and_some_items_die_and_revive() -> None:
    number = regime_of(np.random.default_rng(1), 300, 800)
    assert (np.diff(number) >= 0).all()
    assert 1 < number[:, -1].mean() < REGIMES
    shop = plan(256)
    rate = regimes(np.random.default_rng(1), shop, np.full(256, 50, np.float32)).rate
    dead = (rate == 0) & ~shop.shut
    revived = dead & (np.maximum.accumulate((rate > 0)[:, ::-1], axis=1)[:, ::-1])
    assert 0.05 < revived.any(axis=1).mean() < 0.6


def test_weekday_profiles_are_relative_to_their_week_and_of_many_strengths() -> None:
    profile = weekday_profile(np.random.default_rng(1), 500)
    np.testing.assert_allclose(np.exp(profile).mean(axis=1), 1, rtol=1e-5)
    low, high = np.quantile(np.exp(profile).max(axis=1), [0.1, 0.9])
    assert low < 1.15
    assert high > 1.8


def test_wandering_has_its_spread_and_memory() -> None:
    path = wander(np.random.default_rng(1), 20_000, np.array([0.5], np.float32), np.array([10], np.float32))[0]
    assert path.std() == pytest.approx(0.5, rel=0.1)
    assert np.corrcoef(path[10:], path[:-10])[0, 1] == pytest.approx(np.exp(-1), abs=0.06)


def test_spells_come_as_often_and_last_as_long_as_asked_for() -> None:
    found = spells(np.random.default_rng(1), np.full(50, 100, np.float32), np.full(50, 5, np.float32), 5000)
    assert found.on.mean() == pytest.approx(0.05, rel=0.15)
    monday = np.broadcast_to(np.arange(5000) % 7 == 0, (50, 5000))
    rare = spells(
        np.random.default_rng(1), np.full(50, 100, np.float32), np.full(50, 5, np.float32), 5000, monday
    )  # fmt: skip
    assert (rare.begun[rare.on] % 7 == 0).all()
    assert rare.on.mean() == pytest.approx(0.05, rel=0.15)
    values = np.arange(5000, dtype=np.float32)[None].repeat(50, axis=0)
    assert (rare.each(values)[rare.on] == rare.begun[rare.on]).all()
    assert days_until(np.array([[False, True, False]]))[0, :2].tolist() == [1, 0]


def test_large_sellers_are_smoother() -> None:
    scale = np.repeat(np.array([1, 1000], np.float32), 500)
    spread = np.log(dispersion_of(np.random.default_rng(1), scale))[:, 0]
    assert spread[500:].mean() < spread[:500].mean() - 1.5
    assert spread[:500].std() > 0.7


@pytest.mark.parametrize("freq", ["D", "h"])
def test_windows_of_it_are_finite_wherever_they_are_cut(freq: str) -> None:
    task = made(freq)
    rng = np.random.default_rng(1)
    panel = Panel(task)
    assert set(panel.covariates) == {"promo", "holiday", "price"}
    series, cutoff = rng.integers(0, len(task.demand), 300), rng.integers(0, task.demand.shape[1] - 1, 300)
    inputs = step_inputs(windows_of(panel.batch(series, cutoff), panel.covariates), dates=True)
    for name in ("series", "steps", "anchors", "scale"):
        assert torch.isfinite(getattr(inputs, name)).all(), name


def test_figures_are_those_of_series_whose_figures_are_known() -> None:
    days = 800
    rng = np.random.default_rng(1)
    weekday = np.tile(np.where(np.arange(7) < 5, 10.0, 40.0), days // 7 + 1)[:days]
    promo = (rng.random((40, days)) < 0.2).astype(np.float32)
    demand = rng.poisson(weekday * (1 + promo)).astype(np.float32)
    task = made()
    figures = describe(Task(task.file, [], 0, demand, {"promo": promo, "open": np.ones_like(promo)}, {}, task.series,
                            task.cutoff))  # fmt: skip
    middle = {name: values[QUANTILES.index(0.5)] for name, values in figures.items()}
    assert middle["promo_lift"] == pytest.approx(2, rel=0.1)
    assert middle["promo_share"] == pytest.approx(0.2, abs=0.03)
    assert middle["phase"] > 0.6
    assert middle["lag_season"] > 0.6 > 0.4 > middle["lag_1"]
    assert middle["lag_year"] == pytest.approx(middle["lag_season"], abs=0.1)
    assert (middle["whole"], middle["zeros"]) == (1.0, 0.0)
    assert np.isnan(middle["price_changes"])
