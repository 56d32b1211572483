"""What items without history borrow: mixtures, not means; nothing from the future; the answer of every forecaster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.backtest import backtest
from models.baseline import SeasonalWindow, phase_quantiles
from models.cold_start import (
    MOST_DONORS,
    Choice,
    Likeness,
    borrow,
    choose,
    donors,
    judged,
    lean,
    likeness,
    weights,
)
from models.forecast import F32, LEVELS, Basis, ForecastBatch, Forecaster, borrowing, take
from models.lender import Lender
from models.mixture import MASSES, mixture
from models.named import PRETRAINED, SHIPPED, forecaster_named
from models.panel import Panel
from models.promises import fault_of
from models.task import read_task
from tests.batches import batch_of, shop

ROOT = Path(__file__).parents[1]
DAY_ONE = date(2024, 1, 1)
forecasters = pytest.mark.parametrize(
    "forecaster", [SeasonalWindow(), forecaster_named(PRETRAINED, SHIPPED)], ids=["baseline", "encoder"]
)


def mixed_one_by_one(atoms: F32, weight: np.ndarray) -> F32:
    """The mixture of each row and phase, by sorting what has weight: slow and plain."""
    out = np.empty((len(weight), *atoms.shape[1:]), np.float32)
    for row, phase in np.ndindex(len(weight), atoms.shape[1]):
        values, mass = atoms[:, phase].ravel(), np.outer(weight[row], MASSES).ravel()
        order = np.argsort(values, kind="stable")
        below = np.cumsum(mass[order]) / mass.sum()
        out[row, phase] = [values[order][np.argmax(below >= level - 1e-12)] for level in LEVELS]
    return out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), items=st.integers(1, 12), season=st.integers(1, 3))
def test_mixtures_are_those_of_sorted_atoms(seed: int, items: int, season: int) -> None:
    random = np.random.default_rng(seed)
    atoms = np.sort(random.gamma(1, 5, (items, season, len(LEVELS))), axis=2).astype(np.float32)
    weight = random.random((4, items)) + 1e-3
    np.testing.assert_array_equal(mixture(atoms, weight), mixed_one_by_one(atoms, weight))


def test_a_mixture_of_one_is_that_one() -> None:
    atoms = phase_quantiles(shop(9, gaps=False))
    np.testing.assert_array_equal(mixture(atoms, np.eye(9)), atoms)


def test_tiles_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = shop(30, gaps=False), young_rows(shop(20, seed=5, gaps=False))
    whole = borrow(old, new)
    for module in ("cold_start", "mixture"):
        monkeypatch.setattr(f"models.{module}.TILE_CELLS", 1)
    np.testing.assert_array_equal(borrow(old, new), whole)


def young_rows(batch: ForecastBatch) -> ForecastBatch:
    """Rows that have 0, 1, …, 6 days, in turn."""
    demand = batch.demand.copy()
    for row in range(len(batch)):
        demand[row, : demand.shape[1] - row % 7] = np.nan
    return replace(batch, demand=demand)


def test_a_row_borrows_alike_alone_and_among_others() -> None:
    old, new = shop(30, gaps=False), young_rows(shop(20, seed=5))
    whole = borrow(old, new)
    for row in range(len(new)):
        np.testing.assert_array_equal(borrow(old, take(new, slice(row, row + 1)))[0], whole[row])


@pytest.mark.parametrize("season", [7, 24])
def test_what_is_borrowed_is_ordered_finite_and_not_below_zero(season: int) -> None:
    old = shop(40, 24 * season, season=season)
    old = take(old, donors(old))
    found = borrow(old, young_rows(shop(28, 24 * season, seed=3, season=season)))
    assert found.shape == (28, season, len(LEVELS))
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found, axis=2) >= 0).all()


def test_hostile_amounts_break_no_promise() -> None:
    old = batch_of(np.where(np.arange(84) % 5, 1e30, 0.0).astype(np.float32)[None].repeat(3, axis=0))
    new = batch_of(np.full((3, 84), np.nan))
    new.demand[1, -1], new.demand[2, -6:] = 1e30, 1e-30
    found = borrow(old, new)
    assert np.isfinite(found).all()
    answer = SeasonalWindow().forecast(replace(new, borrowed=found))
    assert np.isfinite(answer.quantiles).all()


def test_days_that_were_seen_choose_who_lends() -> None:
    random = np.random.default_rng(1)
    old = batch_of(random.poisson(np.repeat([1.0, 20.0, 300.0], 30)[:, None], (90, 84)))
    new = batch_of([[np.nan] * 84, [np.nan] * 83 + [22.0], [np.nan] * 81 + [310.0, 280.0, 290.0]])
    none, one, three = borrow(old, new)[:, 0, LEVELS.index(0.5)]
    assert 15 < none < 25
    assert 15 < one < 25
    assert 280 < three < 320
    assert np.ptp(borrow(old, new)[1, 0]) < np.ptp(borrow(old, new)[0, 0]) / 4


def test_an_item_like_no_other_is_its_own_after_some_days() -> None:
    old = batch_of(np.random.default_rng(1).poisson(3.0, (50, 84)))
    new = batch_of([[np.nan] * 83 + [900.0], [np.nan] * 78 + [900.0, 950, 870, 910, 930, 890]])
    once, six = borrow(old, new)[:, 0, LEVELS.index(0.5)]
    assert once < 10  # a bulk order is no level
    assert 600 < six < 1200


def test_likeness_is_chosen_by_what_the_donors_sold() -> None:
    random = np.random.default_rng(4)
    kind = np.repeat(np.arange(4), 20)
    old = batch_of(random.poisson(np.array([1.0, 8.0, 60.0, 400.0])[kind][:, None], (80, 84)))
    vectors = np.eye(4, dtype=np.float32)[kind] * 0.9
    whole = phase_quantiles(old).mean(axis=1)
    at = judged(80)
    told = choose(whole, likeness((vectors[at], vectors)), at)
    by_kind = choose(whole, likeness(kinds=((kind[at], kind), (kind[at] % 1, kind * 0))), at)
    assert told.temperature <= 0.15
    assert by_kind.factors[0] >= 16
    assert by_kind.factors[1] == 1.0  # all have the second kind, which tells nothing
    new = take(batch_of(np.full((1, 84), np.nan)), slice(0, 1))
    found = borrow(old, new, likeness((vectors[-1:], vectors)), likeness((vectors[at], vectors)))
    assert 350 < found[0, 0, LEVELS.index(0.5)] < 450


def test_an_unknown_kind_is_like_no_other() -> None:
    assert not likeness(kinds=((np.array([-1]), np.array([-1, 2])),)).same[0].any()


def test_without_anybody_to_borrow_from_nothing_is_borrowed() -> None:
    new = batch_of(np.full((2, 84), np.nan))
    assert np.isnan(borrow(take(new, slice(0, 0)), new)).all()
    assert not borrowing(replace(new, borrowed=borrow(take(new, slice(0, 0)), new))).any()


def test_donors_that_never_sold_lend_nothing() -> None:
    old = batch_of(np.zeros((20, 84)))
    new = batch_of([[np.nan] * 84, [np.nan] * 78 + [50.0] * 6])
    assert np.isfinite(borrow(old, new)).all()
    assert not borrow(old, new)[0].any()


def test_donors_are_spread_evenly_and_no_more_than_told() -> None:
    many = batch_of(np.ones((2 * MOST_DONORS + 5, 14)))
    rows = donors(many)
    assert len(rows) <= MOST_DONORS
    assert rows[-1] > 2 * MOST_DONORS - 5
    assert len(np.unique(np.diff(rows))) == 1


def test_weights_without_days_are_those_of_likeness() -> None:
    atoms = phase_quantiles(shop(12, gaps=False))
    like = Likeness(np.random.default_rng(0).random((3, 12)))
    weight = weights(like, Choice(0.1), (3, 12))
    leant, alone = lean(weight, atoms, np.full((3, 7, 12), np.nan, np.float32))
    np.testing.assert_allclose(leant, weight, rtol=1e-12)
    assert not alone.any()


@forecasters
def test_a_forecaster_answers_young_rows_by_what_they_borrow(forecaster: Forecaster) -> None:
    batch = young_rows(shop(14, seed=2, gaps=False))
    batch = replace(batch, demand=batch.demand + np.float32(0.25), borrowed=borrow(shop(30, gaps=False), batch))
    found = forecaster.forecast(batch)
    assert batch.borrowed is not None
    steps = np.arange(batch.horizon) % 7
    later = np.where(batch.future_open[:, 1:, None], batch.borrowed[:, steps[1:]], 0)
    np.testing.assert_allclose(found.quantiles[:, 1:], later, rtol=1e-6)
    assert (found.basis == Basis.COLD_START).all()
    assert fault_of(batch, found) is None


@forecasters
def test_old_rows_do_not_look_at_what_they_could_borrow(forecaster: Forecaster) -> None:
    batch = shop(12, gaps=False)
    plain = forecaster.forecast(batch)
    lent = forecaster.forecast(replace(batch, borrowed=np.full((12, 7, len(LEVELS)), 9.0, np.float32)))
    np.testing.assert_array_equal(lent.quantiles, plain.quantiles)
    np.testing.assert_array_equal(lent.cumulative, plain.cumulative)


def test_the_days_of_a_borrowed_season_keep_their_rank() -> None:
    """The week of a seller that may be large or small is as uncertain as each of its days."""
    atoms = np.sort(np.random.default_rng(3).gamma(0.4, 20, len(LEVELS))).astype(np.float32)
    batch = replace(batch_of(np.full((1, 84), np.nan)), borrowed=np.tile(atoms, (1, 7, 1)))
    week = SeasonalWindow().forecast(batch).cumulative[0, 6]
    median, high = LEVELS.index(0.5), LEVELS.index(0.9)
    assert week[high] / week[median] > 0.8 * atoms[high] / atoms[median]


class Spelling:
    """Embeds titles by their first letter, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, titles: Sequence[str | None]) -> F32:
        self.asked += 1
        return np.array([np.eye(26, dtype=np.float32)[ord((title or "z")[0].lower()) - 97] for title in titles])


def write_shop(folder: Path, *, later: float | None = None, titles: bool = True) -> Path:
    """Mugs sell 2 a day, vases 50; one of each began on the day of the cutoff."""
    random = np.random.default_rng(11)
    rows, static = [], []
    for number in range(24):
        name, level = ("mug", 2.0) if number % 2 else ("vase", 50.0)
        begin = {22: 60, 23: 60}.get(number, 0)
        sold = random.poisson(level, 80).astype(float)
        if later is not None:
            sold[61:] = later
        rows += [(f"{number:02d}", DAY_ONE + timedelta(days=day), sold[day]) for day in range(begin, 80)]
        static.append((f"{number:02d}", f"{name} {number}" if titles else None))
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=["unique_id", "ds", "y"], orient="row").write_parquet(folder / "panel.parquet")
    table = pl.DataFrame(static, schema={"unique_id": pl.String, "title": pl.String}, orient="row")
    table.write_parquet(folder / "static.parquet")
    cutoff = str(DAY_ONE + timedelta(days=60))
    file = {"freq": "D", "horizon": 7, "season": 7, "cutoffs": [cutoff], "levels": [0.1, 0.5, 0.9], "name": "made"}
    (folder / "task.json").write_text(json.dumps(file))
    return folder


def test_the_series_of_a_panel_borrow_from_those_with_a_title_like_theirs(tmp_path: Path) -> None:
    task, spelling = read_task(write_shop(tmp_path)), Spelling()
    panel = Panel(task)
    task.demand[22:, 60] = np.nan  # nothing of them but their title
    lender = Lender(panel, spelling.embed)
    found = lender.borrowed(np.arange(24), 60, np.arange(24) >= 22)
    assert found is not None
    assert np.isnan(found[:22]).all()
    vase, mug = found[22:, 0, LEVELS.index(0.5)]
    assert vase > 40
    assert mug < 5
    lender.borrowed(np.arange(24), 59, np.arange(24) >= 22)
    assert spelling.asked == 1


def test_texts_are_read_only_where_there_are_some(tmp_path: Path) -> None:
    spelling = Spelling()
    lender = Lender(Panel(read_task(write_shop(tmp_path, titles=False))), spelling.embed)
    assert lender.borrowed(np.arange(24), 60, np.arange(24) >= 22) is not None
    assert not spelling.asked


@forecasters
def test_the_future_changes_no_byte_of_what_is_borrowed(tmp_path: Path, forecaster: Forecaster) -> None:
    usual = backtest(write_shop(tmp_path / "usual"), forecaster, cumulative=True)
    other = backtest(write_shop(tmp_path / "other", later=9e9), forecaster, cumulative=True)
    assert usual.equals(other)
    medians = usual.filter(pl.col("unique_id").is_in(["22", "23"]))["q0.5"].to_numpy().reshape(2, 7)
    assert (medians[0] > 30).all()
    assert (medians[1] < 6).all()


def test_the_evaluation_runs_small_and_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_shop(tmp_path / "made")
    command = [sys.executable, "-m", "load_tests.cold_start"]
    done = subprocess.run([*command, folder, "--seeds", "1", "--json"], capture_output=True, text=True, cwd=ROOT,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert told["unseen"]["text"]["wql"] < told["unseen"]["all alike"]["wql"]
    assert told["lacks"] == ["made has no kinds in static.parquet: what they are worth is not measured on it."]
    done = subprocess.run([*command, tmp_path / "none"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be read" in done.stderr
