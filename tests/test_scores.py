"""Sums of scores: their figures by hand, adding in parts, merging, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest

from online.scores import SCORE_LEVELS, Scores, losses_of, picked

QUANTILES = np.array([[0, 1, 2, 3, 4], [5, 5, 5, 5, 5]], np.float32)
ACTUAL = np.array([3, 0], np.float32)


def scored(*parts: slice, horizons: tuple[int, ...] = (1, 7)) -> Scores:
    scores = Scores(horizons)
    for part in parts:
        scores.add(0, losses_of(QUANTILES[part], ACTUAL[part]))
    return scores


def test_figures_are_those_worked_out_by_hand() -> None:
    found = scored(slice(None)).summary()["overall"]
    # First row: levels below 3 lose level x gap, those above (1 - level) x gap; second row all 5 too high.
    losses = [
        2 * (0.1 * 3 + 0.9 * 5),
        2 * (0.3 * 2 + 0.7 * 5),
        2 * (0.5 * 1 + 0.5 * 5),
        2 * (0.3 * 5),
        2 * (0.1 * 1 + 0.1 * 5),
    ]
    assert found == {
        "outcomes": 2,
        "wql": pytest.approx(sum(losses) / 5 / 3, abs=1e-6),
        "wape": pytest.approx((1 + 5) / 3, abs=1e-6),
        "bias": pytest.approx((-1 + 5) / 3, abs=1e-6),
        "coverage80": 0.5,
    }


def test_parts_and_merged_shards_give_the_sums_of_the_whole() -> None:
    whole = scored(slice(None)).summary()
    assert scored(slice(0, 1), slice(1, 2)).summary() == whole
    one = scored(slice(0, 1))
    one.merge(scored(slice(1, 2)))
    assert one.summary() == whole


def test_a_restored_score_goes_on() -> None:
    one, other = scored(slice(0, 1)), Scores((1, 7))
    other.restore(one.snapshot())
    other.add(0, losses_of(QUANTILES[1:], ACTUAL[1:]))
    assert other.summary() == scored(slice(None)).summary()


def test_horizons_are_kept_apart() -> None:
    found = scored(slice(None)).summary()["by_horizon"]
    assert [found[h]["outcomes"] for h in ("1", "7")] == [2, 0]


def test_without_demand_the_ratios_are_unknown_and_coverage_is_not() -> None:
    scores = Scores((1,))
    assert scores.summary()["overall"] == {"outcomes": 0, "wql": None, "wape": None, "bias": None, "coverage80": None}
    scores.add(0, losses_of(np.zeros((4, len(SCORE_LEVELS)), np.float32), np.zeros(4, np.float32)))
    found = scores.summary()["overall"]
    assert (found["wql"], found["coverage80"]) == (None, 1.0)


def test_each_to_its_place_gives_what_adding_one_by_one_gives() -> None:
    one, each = Scores((1, 7, 14)), Scores((1, 7, 14))
    for place, row in ((2, 0), (0, 1)):
        one.add(place, losses_of(QUANTILES[row : row + 1], ACTUAL[row : row + 1]))
    each.add_each(np.array([2, 0]), losses_of(QUANTILES, ACTUAL))
    assert one.summary() == each.summary()


def test_totals_are_what_the_figures_are_made_of() -> None:
    scores = scored(slice(None))
    totals, figures = scores.totals(), scores.summary()["overall"]
    assert (totals["outcomes"], totals["demand"]) == (2, 3)
    assert totals["loss"] / totals["demand"] == pytest.approx(figures["wql"], abs=1e-6)
    assert totals["inside"] / totals["outcomes"] == figures["coverage80"]


@pytest.mark.parametrize("which", [[1, 0], [1, 1]])
def test_what_is_picked_row_by_row_lost_what_it_would_have_lost_alone(which: list[int]) -> None:
    sets = np.stack([QUANTILES, 2 * QUANTILES + 1])
    found = picked([losses_of(one, ACTUAL) for one in sets], np.array(which))
    expected = losses_of(sets[which, np.arange(2)], ACTUAL)
    for name in ("quantiles", "actual", "loss", "inside"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
