"""Fine-tuning: it learns what is there to learn, reads nothing later, and does the same twice."""

from __future__ import annotations

import numpy as np
import torch

from models.encoder import EncoderConfig
from models.panel import Panel
from models.serving import EncoderForecaster
from models.task import Task, TaskFile
from models.train import Recipe, fit, origins

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
