"""Fine-tuning: it learns what is there to learn, reads nothing later, and does the same twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # has no types
    EventAccumulator,
)

from models.encoder import Encoder, EncoderConfig
from models.panel import Panel
from models.recipe import Keeping, Recipe
from models.serving import EncoderForecaster
from models.task import Task, TaskFile
from models.train import Batches, fit, held_back, origins

DAYS, LAST = 300, 270
RECIPE = Recipe(steps=120, windows=64, horizons=4)


def promoted(seed: int = 0) -> Task:
    """Twelve series that sell three times as much on promotion; promotions have no pattern."""
    rng = np.random.default_rng(seed)
    promo = (rng.random((12, DAYS)) < 0.25).astype(np.float32)
    rate = rng.uniform(5, 50, (12, 1)) * (1 + 2 * promo)
    demand = rng.poisson(rate).astype(np.float32)
    file = TaskFile(freq="D", horizon=7, season=7, cutoffs=[], levels=[0.5], known_future=["promo"])
    return Task(file, [f"s{n:02d}" for n in range(12)], 19_000, demand, {"promo": promo}, {}, np.arange(12),
                np.full(12, LAST))  # fmt: skip


def error(task: Task, forecaster: EncoderForecaster) -> float:
    batch = Panel(task).batch(task.series, task.cutoff)
    actual = Panel(task).actual(task.series, task.cutoff, DAYS)
    return float(np.abs(forecaster.forecast(batch).quantiles[:, :, 6] - actual).sum() / actual.sum())


def test_it_learns_what_a_promotion_does() -> None:
    task = promoted()
    panel, config = Panel(task), EncoderConfig(("promo",))
    fitted = EncoderForecaster([fit(panel, LAST, config, RECIPE)], "x")
    blind = EncoderForecaster([fit(panel, LAST, EncoderConfig(()), RECIPE)], "x")
    assert error(task, fitted) < 0.2 < error(task, blind)


def test_it_reads_nothing_after_the_last_day_and_does_the_same_twice() -> None:
    task = promoted()
    later = task.demand.copy()
    later[:, LAST + 1 :] = 1e6
    other = Task(task.file, task.ids, task.first_bucket, later, task.known, {}, task.series, task.cutoff)
    config, recipe = EncoderConfig(("promo",)), Recipe(steps=5, windows=32, horizons=4)
    one, two = (fit(Panel(which), LAST, config, recipe).state_dict() for which in (task, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_seed_is_another_encoder() -> None:
    panel, config = Panel(promoted()), EncoderConfig(("promo",))
    one, two = (fit(panel, LAST, config, Recipe(steps=2, windows=8, seed=seed)) for seed in (1, 2))
    assert not torch.equal(one.from_series.weight, two.from_series.weight)


def test_windows_to_learn_from_have_a_season_behind_and_a_step_ahead() -> None:
    task = promoted()
    task.demand[3, :100] = np.nan
    task.demand[4] = np.nan
    found = origins(Panel(task), LAST)
    of_three = found.cutoff[found.series == 3]
    assert (of_three.min(), of_three.max()) == (106, LAST - 1)
    assert not (found.series == 4).any()


def test_the_default_recipe_augments_nothing_and_draws_nothing_more() -> None:
    panel, model = Panel(promoted()), Encoder(EncoderConfig(("promo",)))
    windows = origins(panel, LAST)
    plain, actual, weight = Batches(panel, windows, RECIPE, model).sample(3, 16)
    rng = np.random.default_rng([RECIPE.seed, 3])
    picked = rng.integers(0, len(windows), 16)
    steps = (rng.random((16, RECIPE.horizons)) * 7).astype(np.int64)
    at = windows.cutoff[picked]
    demand = panel.actual(windows.series[picked], at, LAST)
    near = at <= LAST - 7
    found = (actual * plain.scale[:, None]).numpy()
    np.testing.assert_allclose(found[near], np.take_along_axis(demand, steps, 1)[near], rtol=1e-5)
    assert torch.equal(weight[0], plain.scale[0].sqrt().expand(RECIPE.horizons))


@pytest.mark.parametrize("option", ["scaling", "masking", "promo_dropout", "sample_power", "sample_sold_power",
                                    "sold_power"])  # fmt: skip
def test_every_option_changes_what_is_learnt_and_stays_a_function_of_seed_and_number(option: str) -> None:
    task = promoted()
    task.demand[:6] = np.random.default_rng(2).poisson(0.3, (6, DAYS))
    panel, model = Panel(task), Encoder(EncoderConfig(("promo",)))
    recipe = replace(RECIPE, **{option: 0.5})  # type: ignore[arg-type]  # the option is a parameter of the test
    one, two = (Batches(panel, origins(panel, LAST), recipe, model)[5] for _ in range(2))
    other = Batches(panel, origins(panel, LAST), RECIPE, model)[5]
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.isfinite(values).all() for values in one.values())
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_early_stopping_learns_from_what_lies_before_the_span_that_it_watches() -> None:
    task = promoted()
    span = slice(held_back(Panel(task), LAST) + 1, LAST + 1)
    task.demand[:, span] = np.where(task.known["promo"][:, span] > 0, 1, 90)  # what was learned before is wrong there
    other = Task(task.file, task.ids, task.first_bucket, task.demand.copy(), task.known, {}, task.series, task.cutoff)
    other.demand[:, LAST + 1 :] = 1e6
    recipe = Recipe(steps=600, windows=8, horizons=2, rate=0.02, early_stopping=True)
    steps = list[int]()
    one = fit(Panel(task), LAST, EncoderConfig(("promo",)), recipe, steps.append).state_dict()
    two = fit(Panel(other), LAST, EncoderConfig(("promo",)), recipe).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert steps[-1] < 600


def test_tensorboard_is_told_loss_rate_and_gradient_norm(tmp_path: Path) -> None:
    keeping, config = Keeping(log_dir=tmp_path / "log"), EncoderConfig(("promo",))
    logged = fit(Panel(promoted()), LAST, config, Recipe(steps=20, windows=8), keeping=keeping)
    plain = fit(Panel(promoted()), LAST, config, Recipe(steps=20, windows=8))
    assert torch.equal(logged.gate.weight, plain.gate.weight)
    found = EventAccumulator(str(tmp_path / "log"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"train/loss", "train/rate", "train/gradient_norm"}
    assert [one.step for one in found.Scalars("train/loss")] == [10, 20]
    assert all(np.isfinite(one.value) for one in found.Scalars("train/gradient_norm"))
