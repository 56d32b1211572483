"""Sound answers pass, and each broken promise is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.baseline import SeasonalWindow
from models.promises import fault_of
from tests.batches import shop
from tests.unruly_model import DEEDS, right_answer, rows_of

FAULTS = {
    "fewer rows": "quantiles is float32 (8, 28, 13), not float32 (9, 28, 13)",
    "nothing": "quantiles is a NoneType, not an array",
    "a list": "mean is a list, not an array",
    "doubles": "mean is float64 (9, 28), not float32 (9, 28)",
    "nan": "quantiles cross, are negative or are not finite",
    "nan mean": "the mean is negative or not finite",
    "infinite": "cumulative quantiles cross, are negative or are not finite",
    "negative": "the cumulative mean falls, is negative or is not finite",
    "crossing": "quantiles cross, are negative or are not finite",
    "falling": "cumulative quantiles fall along the horizon",
    "unseen": "quantiles of step 1 are below what was observed",
    "no basis": "the basis is none of those there are",
}


@pytest.mark.parametrize("season", [7, 24])
def test_sound_answers_pass(season: int) -> None:
    batch = shop(300, 96, season=season, seed=season)
    assert fault_of(batch, SeasonalWindow().forecast(batch)) is None
    assert fault_of(batch, right_answer(batch)) is None


def test_no_rows_are_a_sound_answer_to_no_rows() -> None:
    nobody = rows_of(shop(3), 0, 0)
    assert fault_of(nobody, right_answer(nobody)) is None


@pytest.mark.parametrize("deed", FAULTS)
def test_each_broken_promise_is_named(deed: str) -> None:
    batch = shop(9, gaps=False)
    batch = replace(batch, observed=batch.observed + 1)
    assert fault_of(batch, right_answer(batch)) is None
    said = fault_of(batch, DEEDS[deed](right_answer(batch)))
    assert said == FAULTS[deed]


def test_one_bad_value_among_many_is_found_wherever_it_is() -> None:
    batch = shop(40, gaps=False)
    size = right_answer(batch).quantiles.size
    for at in [*range(0, size, 997), size - 1]:
        forecast = right_answer(batch)
        forecast.quantiles.reshape(-1)[at] = np.nan
        assert fault_of(batch, forecast) == FAULTS["nan"], at
        forecast = right_answer(batch)
        forecast.cumulative.reshape(-1)[at] = -1
        assert fault_of(batch, forecast) is not None, at


def test_strided_answers_are_read_like_contiguous_ones() -> None:
    batch = shop(30)
    right = right_answer(batch)
    strided = replace(right, quantiles=np.asfortranarray(right.quantiles), mean=np.asfortranarray(right.mean))
    assert fault_of(batch, strided) is None
    strided.quantiles[7, 3, 12] = 0
    assert fault_of(batch, strided) == (FAULTS["nan"] if right.quantiles[7, 3, 11] > 0 else None)
