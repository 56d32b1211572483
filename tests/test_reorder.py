"""The (s,S) rule on arrays: hand-computed examples and the laws of its parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import LEVELS
from streams.reorder import (
    LEVEL_ARRAY,
    MASSES,
    UNLIMITED,
    DemandAhead,
    critical_level,
    lot_size,
    reorder_point,
    round_order,
    stockout_step,
)


def ahead_of(per_step: float = 2.0, *, steps: int = 28, elapsed: float = 0.0, days: float = 1.0) -> DemandAhead:
    """Demand of which the quantile at level p is 2 p times the median, the same in every step."""
    totals = per_step * (np.arange(1, steps + 1) - elapsed)
    cumulative = (totals[:, None] * 2 * LEVEL_ARRAY[None, :]).astype(np.float32)
    return DemandAhead(cumulative[None], np.array([elapsed]), days, np.arange(1))


def one(value: float) -> np.ndarray:
    return np.array([value])


@pytest.mark.parametrize(
    ("days", "level", "expected"),
    [
        (1, 0.5, 2.0),
        (10, 0.5, 20.0),
        (0.25, 0.5, 0.5),  # part of the first step
        (2.5, 0.5, 5.0),  # between two steps
        (10, 0.95, 38.0),
        (10, 0.55, 22.0),  # between two levels
        (28, 0.5, 56.0),
        (42, 0.5, 84.0),  # beyond the horizon, in proportion
        (0, 0.5, 0.0),
    ],
)
def test_demand_is_read_between_steps_and_levels(days: float, level: float, expected: float) -> None:
    assert ahead_of().quantile(one(days), one(level))[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("days", [0.2, 0.5, 1.0, 5.25, 27.5, 40.0])
def test_a_day_that_is_half_over_counts_half(days: float) -> None:
    assert ahead_of(elapsed=0.5).quantile(one(days), one(0.5))[0] == pytest.approx(2 * days, rel=1e-6)


def test_steps_may_be_hours() -> None:
    hours = ahead_of(0.5, steps=48, days=1 / 24)
    assert hours.quantile(one(1.0), one(0.5))[0] == pytest.approx(12.0)
    assert hours.rate()[0] == pytest.approx(12.0, rel=0.02)


def test_the_mean_of_quantiles_weighs_every_level_by_its_share() -> None:
    assert MASSES.sum() == pytest.approx(1.0)
    assert ahead_of().rate()[0] == pytest.approx(2.0, rel=0.02)


def test_a_selection_reads_its_own_rows() -> None:
    cumulative = np.concatenate([ahead_of(rate).cumulative for rate in (1.0, 2.0, 3.0)])
    ahead = DemandAhead(cumulative, np.zeros(3), 1.0, np.arange(3)).take(np.array([2, 0])).take(np.array([0]))
    assert ahead.quantile(one(10), one(0.5))[0] == pytest.approx(30)
    assert ahead.median()[0, 9] == pytest.approx(30)


def test_the_reorder_point_lies_halfway_between_usual_and_slow_lead_time() -> None:
    """9 days and 1 of review: 10 x 2 x 1.9 = 38; 13 and 1: 14 x 2 x 1.9 = 53.2; halfway 45.6."""
    assert reorder_point(ahead_of(), one(9), one(13), 1.0, one(0.95))[0] == pytest.approx(45.6, rel=1e-6)


def test_the_lot_is_the_most_of_review_demand_minimum_order_and_economic_quantity() -> None:
    assert lot_size(one(2), 7.0, one(0), 0.0, 0.0)[0] == 14
    assert lot_size(one(2), 7.0, one(24), 0.0, 0.0)[0] == 24
    assert lot_size(one(2), 7.0, one(24), 10.0, 0.001)[0] == 200  # sqrt(2 x 10 x 2 / 0.001)


def test_the_service_level_weighs_holding_against_shortage() -> None:
    """A lot of 40 lasts 20 days: holding a unit costs 0.1 per cycle; short of it 1. So 1 / 1.1."""
    assert critical_level(one(2), one(40), one(0.005), one(1.0))[0] == pytest.approx(1 / 1.1)
    assert critical_level(one(2), one(40), one(0.005), one(1e9))[0] == LEVELS[-1]
    assert critical_level(one(0), one(40), one(0.005), one(1.0))[0] == LEVELS[0]


@pytest.mark.parametrize(
    ("wanted", "moq", "pack", "room", "quantity", "down"),
    [
        (79.3, 24, 12, None, 84, False),
        (72.0, 24, 12, None, 72, False),
        (72.0004, 24, 12, None, 72, False),  # less than a thousandth of a unit is noise
        (3.0, 24, 12, None, 24, False),
        (3.0, 25, 12, None, 36, False),  # the minimum order in whole packs
        (79.3, 24, 12, 80, 72, True),
        (79.3, 24, 12, 24, 24, True),
        (79.3, 24, 12, 23, 0, True),
        (79.3, 24, 12, -5, 0, True),
        (0.25, 0.1, 0.1, None, 0.3, False),
        (-3.0, 24, 12, None, 24, False),
    ],
)
def test_orders_are_whole_packs_within_minimum_and_room(
    wanted: float, moq: float, pack: float, room: float | None, quantity: float, down: bool
) -> None:
    space = UNLIMITED if room is None else np.int64(room * 1000)
    units = np.array([round(moq * 1000)]), np.array([round(pack * 1000)])
    rounded, was_down = round_order(one(wanted), *units, np.array([space]))
    assert (rounded[0] / 1000, bool(was_down[0])) == (quantity, down)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-1e4, 1e6),
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    st.one_of(st.just(int(UNLIMITED)), st.integers(-(10**6), 10**9)),
)
def test_every_order_is_nothing_or_possible(wanted: float, moq: int, pack: int, room: int) -> None:
    quantity = int(round_order(one(wanted), np.array([moq]), np.array([pack]), np.array([room]))[0][0])
    assert quantity % pack == 0
    assert quantity == 0 or (moq <= quantity <= room)


@pytest.mark.parametrize(("available", "step"), [(0.0, 0), (2.0, 0), (2.1, 1), (56.0, 27), (56.1, -1), (-4.0, 0)])
def test_stock_runs_out_in_the_step_whose_median_reaches_it(available: float, step: int) -> None:
    assert stockout_step(ahead_of().median(), one(available))[0] == step


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0, 60), st.floats(0, 60), st.floats(0, 0.99))
def test_more_days_and_higher_levels_never_need_less(p: float, q: float, days: float, more: float, part: float) -> None:
    ahead = ahead_of(elapsed=part)
    low, high = sorted((p, q))
    few, many = sorted((days, more))
    assert ahead.quantile(one(few), one(low))[0] <= ahead.quantile(one(many), one(high))[0] + 1e-6
