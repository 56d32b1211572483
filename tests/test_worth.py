"""What an input is worth is what is lost without it, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.baseline import SeasonalWindow
from models.forecast import Forecast, ForecastBatch
from models.judge import Judge, judged
from models.task import Task, read_task
from models.worth import HISTORY, WEEKS, blanks, inputs_worth
from tests.test_backtest import panel_of, write_task

DAYS = 60


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Two series that sell eight pieces more on days with a promotion, and a price that says nothing."""
    random = np.random.default_rng(4)
    promo = (random.random(DAYS) < 0.3).astype(float)
    panel = panel_of(*((name, 0, list(random.poisson(3, DAYS) + 8 * promo)) for name in ("a", "b")))
    panel = panel.with_columns(promo=pl.Series([*promo, *promo]), price=pl.lit(2.5))
    return read_task(
        write_task(tmp_path, panel, cutoffs=["2024-02-05", "2024-02-15"], known_future=["promo", "price"], horizon=7)
    )


class Promoted:
    """The baseline of days without promotion, and eight pieces more where one is known to come."""

    name = "promoted-1"
    channels = ()

    def forecast(self, batch: ForecastBatch) -> Forecast:
        past, ahead = np.split(np.nan_to_num(batch.known["promo"]), [batch.demand.shape[1]], axis=1)
        said = SeasonalWindow().forecast(replace(batch, demand=batch.demand - 8 * past))
        return replace(said, quantiles=said.quantiles + 8 * ahead[:, :, None])


def worth(judge: Judge, forecaster: Promoted | SeasonalWindow) -> dict[str, float]:
    return {one.name: one.change for one in inputs_worth(judge, forecaster)}


def test_an_input_that_a_forecaster_leans_on_is_worth_what_is_lost_without_it(task: Task) -> None:
    found = worth(judged(task, Promoted()), Promoted())
    assert found["promo"] > 0.1
    assert found["price"] == found[WEEKS] == 0
    assert list(found) == [HISTORY, WEEKS, "promo", "price"]


def test_what_a_forecaster_does_not_read_is_worth_nothing_to_it(task: Task) -> None:
    found = worth(judged(task, SeasonalWindow()), SeasonalWindow())
    assert found["promo"] == found["price"] == 0
    assert found[HISTORY] != 0


def test_a_blank_input_is_unknown_in_the_past_and_ahead_and_all_else_is_as_it_was(task: Task) -> None:
    known = {name: np.ones((1, 100), np.float32) for name in ("promo", "price")}
    batch = ForecastBatch(
        demand=np.ones((1, 84), np.float32), is_open=np.ones((1, 84), bool), future_open=np.ones((1, 16), bool),
        observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32), day=np.zeros(1, int), hour=np.zeros(1, int),
        season=7, group=np.zeros(1, np.int32), known=known, channels={"price": np.ones((1, 84), np.float32)},
        weeks=np.ones((1, 104), np.float32),
    )  # fmt: skip
    without = blanks(task)["price"](batch)
    assert np.isnan(without.known["price"]).all()
    assert np.isnan(without.channels["price"]).all()
    assert without.known["promo"] is batch.known["promo"]
    assert without.demand is batch.demand
    assert blanks(task)[WEEKS](batch).weeks is None
    assert int(np.isnan(blanks(task)[HISTORY](batch).demand).sum()) == 84 - 28
    assert not np.isnan(batch.demand).any()
