"""Measures of forecasts: against plain loops, in pieces, with holes, and as the evaluation prints them."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.backtest import write_backtest
from models.baseline import SeasonalWindow
from models.forecast import LEVELS
from models.judge import actual, fan, judged, ranked
from models.measures import SCORED, Figures, Tally, measure, pinball, seasonal_scale
from models.task import Task, read_task
from tests.test_backtest import SHARED, evaluation_tasks, panel_of, write_task

NAMES = ("wql", "wape", "mase", "coverage", "strict", "bias")


def drawn(seed: int, rows: int = 5, steps: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small counts with holes, ordered quantiles at all published levels, and scales of which some are 0."""
    random = np.random.default_rng(seed)
    truth = random.poisson(3, (rows, steps)).astype(float)
    truth[random.random((rows, steps)) < 0.2] = np.nan
    said = np.sort(random.poisson(3, (rows, steps, len(LEVELS))), axis=2).astype(float)
    return truth, said, random.choice([0.0, 0.5, 2.0, np.nan], rows)


def tallied(truth: np.ndarray, said: np.ndarray, scale: np.ndarray, *cuts: int) -> Tally:
    tally = Tally(len(truth), truth.shape[1], LEVELS)
    edges = [0, *cuts, len(truth)]
    for first, last in pairwise(edges):
        tally.add(slice(first, last), truth[first:last], said[first:last], scale[first:last])
    return tally


def by_hand(truth: np.ndarray, said: np.ndarray, scale: np.ndarray) -> dict[str, float]:
    """The definitions, one step at a time."""
    at = {level: LEVELS.index(level) for level in SCORED}
    losses = dict.fromkeys(SCORED, 0.0)
    size = error = excess = demand = inside = strictly = known = 0.0
    scaled = []
    for row, step in np.ndindex(truth.shape):
        y, q = float(truth[row, step]), said[row, step].tolist()
        if np.isnan(y):
            continue
        known += 1
        for level in SCORED:
            losses[level] += 2 * (level * (y - q[at[level]]) if y > q[at[level]] else (1 - level) * (q[at[level]] - y))
        median = q[at[0.5]]
        size, demand = size + abs(y), demand + y
        error, excess = error + abs(median - y), excess + median - y
        inside += q[at[0.1]] <= y <= q[at[0.9]]
        strictly += q[at[0.1]] < y < q[at[0.9]]
        if scale[row] > 0:
            scaled.append(abs(median - y) / scale[row])
    return {
        "wql": float(np.mean([loss / size for loss in losses.values()])),
        "wape": error / size,
        "mase": float(np.mean(scaled)),
        "coverage": inside / known,
        "strict": strictly / known,
        "bias": excess / demand,
    }


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_their_definitions(seed: int) -> None:
    truth, said, scale = drawn(seed)
    scale[0], truth[0, 0] = 1.0, 2.0
    found = tallied(truth, said, scale).in_all()
    for name, value in by_hand(truth, said, scale).items():
        assert float(getattr(found, name)) == pytest.approx(value), name
    assert float(found.known) == np.isfinite(truth).sum()


@given(seed=st.integers(0, 1000), cut=st.integers(0, 5))
def test_pieces_make_the_same_whole(seed: int, cut: int) -> None:
    whole, pieces = tallied(*drawn(seed)), tallied(*drawn(seed), cut)
    for name in NAMES:
        for one, other in ((whole.in_all(), pieces.in_all()), (whole.by_step(), pieces.by_step())):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)
    np.testing.assert_array_equal(whole.shares(), pieces.shares())


def test_parts_are_what_the_same_rows_and_steps_alone_would_give() -> None:
    truth, said, scale = drawn(3)
    whole, group = tallied(truth, said, scale), np.array([1, 0, 1, 0, 0])
    for part in (0, 1):
        rows = np.flatnonzero(group == part)
        alone = tallied(truth[rows], said[rows], scale[rows]).in_all()
        assert_alike(whole.by(group), part, alone)
    for step in range(truth.shape[1]):
        alone = tallied(truth[:, [step]], said[:, [step]], scale).in_all()
        assert_alike(whole.by_step(), step, alone)
    assert whole.demand(group).sum() == np.nansum(truth)
    assert whole.loss(group).sum() / np.nansum(truth) == pytest.approx(float(whole.in_all().wql))


def assert_alike(parts: Figures, part: int, alone: Figures) -> None:
    for name in NAMES:
        np.testing.assert_allclose(getattr(parts, name)[part], float(getattr(alone, name)), rtol=1e-12)


def test_calibration_counts_what_falls_on_a_quantile_apart() -> None:
    said = np.tile(np.arange(len(LEVELS), dtype=float), (1, 4, 1))
    tally = tallied(np.array([[0.0, 1.0, 1.0, np.nan]]), said, np.ones(1))
    below, at_most = tally.shares()
    np.testing.assert_allclose(below[:3], [0, 1 / 3, 1])
    np.testing.assert_allclose(at_most[:3], [1 / 3, 1, 1])


def test_nothing_known_gives_no_figures() -> None:
    tally = tallied(np.full((2, 3), np.nan), np.zeros((2, 3, len(LEVELS))), np.ones(2))
    assert tally.known == 0
    assert all(np.isnan(getattr(tally.in_all(), name)) for name in NAMES)
    assert np.isnan(tally.shares()).all()


def test_no_demand_leaves_coverage_alone() -> None:
    found = measure(np.zeros((1, 2)), np.zeros((1, 2, 9)), np.zeros(1))
    assert [bool(np.isnan(getattr(found, name))) for name in NAMES] == [True, True, True, False, False, True]
    assert (float(found.coverage), float(found.strict)) == (1.0, 0.0)


@pytest.mark.parametrize("rate", [2, 5, 20])
def test_an_interval_that_is_right_has_its_share_between_the_two_coverages(rate: int) -> None:
    random = np.random.default_rng(rate)
    for draws in (random.poisson(rate, (2, 200_000)).astype(float), random.gamma(rate, 1, (2, 200_000))):
        quantiles = np.quantile(draws[0], SCORED, method="inverted_cdf")
        truth = draws[1].reshape(-1, 100)
        found = measure(truth, np.broadcast_to(quantiles, (*truth.shape, 9)), np.ones(len(truth)))
        whole = bool((draws == np.rint(draws)).all())
        low, high = quantiles[0], quantiles[-1]
        inside, strictly = ((truth >= low) & (truth <= high)).mean(), ((truth > low) & (truth < high)).mean()
        assert (float(found.coverage), float(found.strict)) == pytest.approx((inside, strictly))
        if whole:
            assert float(found.strict) < 0.79 < 0.81 < float(found.coverage)
        else:
            assert float(found.strict) == pytest.approx(float(found.coverage)) == pytest.approx(0.8, abs=0.01)


def test_the_greatest_numbers_of_a_panel_do_not_overflow() -> None:
    most = float(np.finfo(np.float32).max)
    found = measure(np.full((3, 50), most), np.zeros((3, 50, 9)), np.full(3, 1e-30))
    assert float(found.wql) == pytest.approx(1.0)
    assert np.isfinite(found.mase)


def test_quantiles_that_hit_lose_nothing() -> None:
    assert pinball(np.array([2.0]), np.array([[2.0]]), np.array([0.3])).tolist() == [[0.0]]


def test_scales_see_no_further_than_their_row_and_need_more_than_a_season() -> None:
    past = np.array([[np.nan, np.nan, 3.0, 5.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 4.0]])
    np.testing.assert_array_equal(seasonal_scale(past, 2), [np.nan, 0.0, 2.5])
    np.testing.assert_array_equal(seasonal_scale(past, 4), [np.nan] * 3)


# ------------------------------------------------------------------------------------------------ of a task
@pytest.fixture
def task(tmp_path: Path) -> Task:
    random = np.random.default_rng(5)
    series = [(f"s{row}", row, list(random.poisson(1 + row, 60 - row).astype(float))) for row in range(6)]
    return read_task(write_task(tmp_path, panel_of(*series, ("still", 0, [0.0] * 60)), cutoffs=["2024-02-10"]))


def test_a_judge_holds_answers_against_what_came_after_each_cutoff(task: Task) -> None:
    judge = judged(task, SeasonalWindow())
    assert judge.tally.known == 7 * 3
    column = int(task.cutoff[0])
    np.testing.assert_array_equal(
        actual(task, task.series, task.cutoff), task.demand[task.series, column + 1 : column + 4]
    )
    cutoffs, figures = judge.by_cutoff()
    assert [str(cutoff)[:10] for cutoff in cutoffs] == ["2024-02-10"]
    assert float(figures.wql[0]) == pytest.approx(float(judge.tally.in_all().wql))


def test_the_last_days_of_a_panel_have_no_outcome(tmp_path: Path) -> None:
    panel = panel_of(("a", 0, [float(day % 7) for day in range(40)]))
    task = read_task(write_task(tmp_path, panel, cutoffs=["2024-02-07", "2024-02-09"]))
    judge = judged(task, SeasonalWindow())
    assert judge.by_cutoff()[1].known.tolist() == [2, 0]
    assert np.isnan(judge.by_cutoff()[1].wql[1])


def volume_task(folder: Path, after: float = 1.0) -> Task:
    """Twenty series that sell on most days and five that sell on every third; demand changes after the cutoff."""
    random = np.random.default_rng(8)
    sells = [random.poisson(2 + row, 60).astype(float) for row in range(20)]
    rare = [np.where(np.arange(60) % 3 == row % 3, 50.0, 0.0) for row in range(5)]
    demand = [np.where(np.arange(60) < 41, one, np.rint(after * one)) for one in [*sells, *rare]]
    panel = panel_of(*((f"s{row:02d}", row % 7, list(one[row % 7 :])) for row, one in enumerate(demand)))
    return read_task(write_task(folder, panel, cutoffs=["2024-02-08", "2024-02-10"]))


def test_coverage_by_volume_is_that_of_tenths_of_the_series_that_are_not_mostly_zero(tmp_path: Path) -> None:
    judge = judged(volume_task(tmp_path), SeasonalWindow())
    found, alone = judge.by_volume(), judge.by_series()
    assert found.tenth.tolist() == list(range(1, 11))
    assert found.series.tolist() == [2] * 10
    assert found.left_out == 5, "they sell most, and on every third day alone"
    past = [judge.task.demand[row, row % 7 : 40].mean() for row in range(20)]
    order = np.argsort(past, kind="stable").reshape(10, 2)
    np.testing.assert_allclose(found.demand, np.array(past)[order].mean(axis=1), rtol=0.02)
    assert (np.diff(found.demand) > 0).all()
    for name in ("coverage", "strict"):  # all series have as many outcomes, so that means of means are theirs
        np.testing.assert_allclose(getattr(found.figures, name), getattr(alone, name)[order].mean(axis=1))
    assert (found.figures.strict <= found.figures.coverage).all()


def test_what_comes_after_a_cutoff_moves_no_series_to_another_tenth(tmp_path: Path) -> None:
    one, other = (judged(volume_task(tmp_path / name, after), SeasonalWindow()).by_volume()
                  for name, after in (("same", 1.0), ("none", 0.0)))  # fmt: skip
    np.testing.assert_array_equal(one.demand, other.demand)
    assert one.left_out == other.left_out
    assert not np.array_equal(one.figures.strict, other.figures.strict)


def test_few_series_fill_few_tenths_and_none_fills_none(tmp_path: Path) -> None:
    panel = panel_of(("a", 0, [3.0] * 60), ("b", 0, [9.0] * 60), ("still", 0, [0.0] * 60))
    found = judged(read_task(write_task(tmp_path / "few", panel, cutoffs=["2024-02-10"])), SeasonalWindow()).by_volume()
    assert (found.tenth.tolist(), found.demand.tolist(), found.left_out) == ([1, 6], [3.0, 9.0], 1)
    still = read_task(write_task(tmp_path / "none", panel_of(("still", 0, [0.0] * 60)), cutoffs=["2024-02-10"]))
    assert judged(still, SeasonalWindow()).by_volume().tenth.tolist() == []


def test_series_are_ranked_by_their_loss_and_those_without_demand_are_left_out(task: Task) -> None:
    judge = judged(task, SeasonalWindow())
    names = [task.ids[series] for series in ranked(judge)]
    assert "still" not in names
    losses = judge.by_series().wql[ranked(judge)]
    assert (np.diff(losses) >= 0).all()


def test_a_fan_shows_the_last_cutoff_as_it_was_forecast(task: Task) -> None:
    judge = judged(task, SeasonalWindow())
    shown = fan(judge, SeasonalWindow(), 4)
    assert (shown.unique_id, str(shown.cutoff)[:10], len(shown.past)) == ("s4", "2024-02-10", 41)
    assert str(shown.past_times[-1])[:10] == "2024-02-10"
    assert str(shown.times[0])[:10] == "2024-02-11"
    assert shown.quantiles.shape == (3, len(LEVELS))
    alone = measure(shown.actual[None].astype(float), shown.quantiles[None, :, 2:11].astype(float), np.ones(1))
    assert shown.wql == pytest.approx(float(alone.wql))


@pytest.mark.data
@pytest.mark.parametrize("name", ["takeaway_r1", "rossmann"])
def test_figures_are_what_the_evaluation_prints(tmp_path: Path, name: str) -> None:
    evaluation = evaluation_tasks()
    task = read_task(evaluation.export(evaluation.load(name), tmp_path))
    write_backtest(task, SeasonalWindow(), tmp_path / "f.parquet")
    command = [sys.executable, str(SHARED / "eval" / "score.py"), "--task", name, "--forecasts"]
    options = [str(tmp_path / "f.parquet"), "--json", str(tmp_path / "score.json")]
    subprocess.run([*command, *options], capture_output=True, check=True, timeout=120)
    told = json.loads((tmp_path / "score.json").read_text())
    found = judged(task, SeasonalWindow()).tally.in_all()
    ours = [name for name in NAMES if name != "strict"]
    for name, theirs in zip(ours, ("WQL", "WAPE", "MASE", "cov80", "bias"), strict=True):
        assert float(getattr(found, name)) == pytest.approx(told[theirs], abs=5e-5), name
