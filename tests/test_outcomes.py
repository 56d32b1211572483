"""Forecasts meet their actuals when a bucket is final, never earlier, each exactly once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import LEVELS
from online.outcomes import Outcomes
from online.pending import HORIZONS
from online.scores import SCORE_LEVELS
from streams.engine import EngineConfig
from streams.panes import UNIT
from tests.small_shop import DAY, HOUR, MINUTE, MONDAY, NOON, Till, cancel, order, retired
from tests.test_buckets import at

F32 = npt.NDArray[np.float32]
PICK = [LEVELS.index(level) for level in SCORE_LEVELS]
TODAY = MONDAY // DAY


def forecast(value: float, rows: int = 1, horizon: int = 28) -> F32:
    """Quantiles of any step: value times one plus the level."""
    return np.broadcast_to(np.float32(value) * (1 + np.array(LEVELS, np.float32)), (rows, horizon, len(LEVELS))).astype(
        np.float32
    )


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_each_published_horizon_comes_back_once_at_its_target(data: st.DataObject) -> None:
    lag = data.draw(st.sampled_from([1, 2, 10]), "closed buckets that are not final yet")
    outcomes, slots = Outcomes(3, lag + 2), np.array([0, 2])
    made: dict[tuple[int, int], F32] = {}
    for bucket in range(1000, 1000 + data.draw(st.integers(1, 80))):
        values = forecast(float(data.draw(st.integers(0, 10**6))), rows=2)
        outcomes.publish(slots, bucket, values)  # the bucket before closed
        for index, h in enumerate(HORIZONS):
            made[index, bucket + h - 1] = values[:, h - 1, PICK]
        final = bucket - lag
        for found in outcomes.mature(slots, final, np.array([3, 4], np.float32)):
            expected = made.pop((found.index, final))
            np.testing.assert_allclose(found.quantiles, expected, rtol=2e-3)
            assert (found.actual.tolist(), found.slots.tolist()) == ([3, 4], [0, 2])
    assert min((target for _, target in made), default=10**9) > bucket - lag


def test_a_forecast_of_zero_is_an_outcome_too() -> None:
    outcomes, one = Outcomes(1), np.array([0])
    outcomes.publish(one, 5, forecast(0))
    [found] = outcomes.mature(one, 5, np.zeros(1, np.float32))
    assert found.quantiles.tolist() == [[0] * 5]


def test_horizons_beyond_the_forecast_are_not_kept() -> None:
    outcomes, one = Outcomes(1), np.array([0])
    outcomes.publish(one, 5, forecast(1, horizon=2))
    assert [m.index for bucket in range(5, 40) for m in outcomes.mature(one, bucket, np.ones(1, np.float32))] == [0, 1]


def test_whole_quantiles_come_back_whole() -> None:
    outcomes, many = Outcomes(3000), np.arange(3000)
    outcomes.publish(many, 5, np.broadcast_to(many[:, None, None], (3000, 1, len(LEVELS))).astype(np.float32))
    [found] = outcomes.mature(many, 5, np.ones(3000, np.float32))
    small = found.quantiles[:500, 0]
    np.testing.assert_array_equal(small, many[:500])
    assert (found.quantiles == np.rint(found.quantiles)).all()


def test_a_cleared_slot_has_nothing_to_come() -> None:
    outcomes, both = Outcomes(2), np.array([0, 1])
    outcomes.publish(both, 5, forecast(1, rows=2))
    outcomes.clear(0)
    assert [m.slots.tolist() for m in outcomes.mature(both, 5, np.ones(2, np.float32))] == [[1]]


def test_the_largest_demand_survives_half_precision() -> None:
    outcomes, one = Outcomes(1), np.array([0])
    outcomes.publish(one, 5, forecast(1e9))
    [found] = outcomes.mature(one, 5, np.ones(1, np.float32))
    np.testing.assert_allclose(found.quantiles, forecast(1e9)[:, 0, PICK], rtol=2e-3)


# -- in the engine


def test_nothing_matures_before_its_bucket_is_final() -> None:
    till = Till().take(order(NOON - DAY, 3), order(NOON, 4))

    def outcomes() -> int:
        return int(till.engine.scores.summary()["overall"]["outcomes"])

    assert outcomes() == 0  # of the first day nothing had been forecast
    at(till, MONDAY + DAY + HOUR)
    assert outcomes() == 0
    at(till, MONDAY + DAY + 2 * HOUR - 1)
    assert outcomes() == 0
    at(till, MONDAY + DAY + 2 * HOUR)
    assert outcomes() == 1


def test_an_order_between_close_and_final_is_part_of_the_actual() -> None:
    early, late = Till(), Till()
    for till, quantity in ((early, 0.0), (late, 50.0)):
        till.take(order(NOON - DAY, 3), order(NOON, 4))
        at(till, MONDAY + DAY + HOUR)
        if quantity:
            till.take(order(MONDAY + DAY - MINUTE, quantity))
        at(till, MONDAY + DAY + 3 * HOUR)
    scores = [till.engine.scores.summary()["by_horizon"]["1"] for till in (early, late)]
    assert [score["outcomes"] for score in scores] == [1, 1]
    assert scores[1]["wape"] == pytest.approx((54 - 3) / 54, abs=1e-3)


def test_a_correction_after_final_does_not_change_what_was_scored() -> None:
    till = at(Till().take(order(NOON - DAY, 3), order(NOON, 4)), MONDAY + DAY + 3 * HOUR)
    before = till.engine.scores.summary()
    till.take(cancel(MONDAY + DAY + 4 * HOUR, 4, original=NOON))
    assert till.engine.scores.summary() == before


def test_a_retired_item_leaves_no_outcome_to_the_next_in_its_slot() -> None:
    till = Till(EngineConfig(max_series=1)).take(order(NOON - DAY, 3), order(NOON, 4), retired(NOON))
    till.take(order(NOON, 9, "MUG")).tick(NOON + DAY)
    assert till.engine.scores.summary()["overall"]["outcomes"] == 0


# -- a random run against brute force


@dataclass
class Truth:
    """Forecasts as published at closes and demand as ordered, in plain dictionaries."""

    units: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    cancelled: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    published: dict[tuple[str, int, int], F32] = field(default_factory=dict)  # sku, target, horizon

    def pairs(self, until: int) -> list[tuple[int, F32, float]]:
        """Horizon, quantiles and actual of every target before a bucket."""
        return [
            (h, quantiles, max(self.units[sku, target] - self.cancelled[sku, target], 0) / UNIT)
            for (sku, target, h), quantiles in self.published.items()
            if target < until
        ]


def random_run(seed: int, days: int = 40) -> tuple[Till, Truth]:
    rng, till, truth = np.random.default_rng(seed), Till(), Truth()
    for n in range(days * 6):
        now = MONDAY + n * 4 * HOUR
        sku, quantity = f"S{rng.integers(3)}", float(rng.integers(1, 9))
        when = now - int(rng.integers(0, 2 * HOUR))
        till.take(order(when, quantity, sku))
        truth.units[sku, when // DAY] += round(quantity * UNIT)
        if n % 5 == 4:
            till.take(cancel(now, 1.0, sku))
            truth.cancelled[sku, now // DAY] += UNIT
    for one in till.sets:
        for row, (sku, _) in enumerate(one.keys if one.at_close else []):
            for h in HORIZONS:
                truth.published[sku, one.steps[0] // DAY + h - 1, h] = one.forecast.quantiles[row, h - 1, PICK]
    return till, truth


@pytest.mark.parametrize("seed", [1, 2])
def test_the_summary_is_the_brute_force_score_of_all_forecasts_with_a_final_target(seed: int) -> None:
    till, truth = random_run(seed)
    pairs = truth.pairs(till.engine.buckets.zones[0].final)
    summary = till.engine.scores.summary()
    assert {h for h, _, _ in pairs} == set(HORIZONS)
    for h in (None, *HORIZONS):
        own = [(quantiles, actual) for horizon, quantiles, actual in pairs if h in (None, horizon)]
        found = summary["overall"] if h is None else summary["by_horizon"][str(h)]
        volume = sum(actual for _, actual in own)
        losses = []
        for index, level in enumerate(SCORE_LEVELS):
            gaps = [actual - float(quantiles[index]) for quantiles, actual in own]
            losses.append(sum(2 * (level * gap if gap > 0 else (level - 1) * gap) for gap in gaps) / volume)
        assert found["outcomes"] == len(own)
        assert found["wql"] == pytest.approx(sum(losses) / len(losses), rel=3e-3)
        inside = sum(1 for quantiles, actual in own if quantiles[0] <= actual <= quantiles[-1])
        assert found["coverage80"] == pytest.approx(inside / len(own), abs=0.01)
        bias = sum(float(quantiles[2]) - actual for quantiles, actual in own) / volume
        assert found["bias"] == pytest.approx(bias, abs=3e-3)


def test_records_are_those_of_the_blocks_that_changed() -> None:
    outcomes, slots = Outcomes(2000, horizons=(1, 7)), np.array([3, 1500])
    outcomes.publish(slots, 5, forecast(1, rows=2))
    assert [key for key, _ in outcomes.changes(2000)] == [
        "outcomes/0/1/0",
        "outcomes/0/1/2",
        "outcomes/1/3/0",
        "outcomes/1/3/2",
    ]
    outcomes.clear(1500)
    assert [key for key, _ in outcomes.changes(2000)] == ["outcomes/0/1/2", "outcomes/1/3/2"]
    assert len(list(outcomes.mature(slots, 5, np.ones(2, np.float32)))) == 1
    assert [key for key, _ in outcomes.changes(2000)] == ["outcomes/0/1/0"]
