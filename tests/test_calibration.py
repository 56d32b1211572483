"""Levels move until what is promised comes true, for counts as for amounts, and after the world has changed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import F32, LEVELS
from online.calibration import HELD_DAYS, TIERS, Calibration, tiers_of
from online.scores import PICK, SCORE_LEVELS

ROWS = 300
TIER = np.full(ROWS, 4)


def normal(spread: float) -> F32:
    """Quantiles of normal amounts around 100, of a sample that is the same every time."""
    draws = np.random.default_rng(0).normal(100, spread, 100_000)
    return np.tile(np.quantile(draws, LEVELS).astype(np.float32), (ROWS, 1))


def played(
    calibration: Calibration, said: F32, days: int, spread: float, seed: int, together: float = 0.0
) -> list[float]:
    """Shares of amounts within the published 80 % interval, day by day."""
    random, inside = np.random.default_rng(seed), []
    for _ in range(days):
        published = calibration.reading(0).of(said, TIER)[:, PICK]
        sold = random.normal(100 + random.normal(0, together), spread, ROWS).astype(np.float32)
        inside.append(float(((sold >= published[:, 0]) & (sold <= published[:, -1])).mean()))
        calibration.learn(0, TIER, published, sold)
    return inside


@pytest.mark.parametrize(("said", "true"), [(10.0, 10.0), (20.0, 10.0), (8.0, 10.0)])
def test_the_interval_covers_what_it_promises(said: float, true: float) -> None:
    calibration = Calibration((1,), 7)
    before = float(np.mean(played(Calibration((1,), 7), normal(said), 1, true, 1)))
    played(calibration, normal(said), 300, true, 1, together=2.0)
    after = np.mean(played(calibration, normal(said), 28, true, 2, together=2.0))
    assert 0.78 <= after <= 0.82, (before, after)


def test_in_the_four_weeks_after_a_shift_of_the_spread_it_is_within_five_points() -> None:
    calibration = Calibration((1,), 7)
    played(calibration, normal(10), 100, 10.0, 1)
    shifted = played(calibration, normal(10), 4, 12.5, 3)
    calibration.hurry()  # a change is seen after three or four days
    shifted += played(calibration, normal(10), 24, 12.5, 4)
    unlearned = [np.mean(played(Calibration((1,), 7), normal(10), 1, 12.5, 3))]
    assert unlearned[0] < 0.73
    assert 0.75 <= np.mean(shifted) <= 0.85


def test_counts_whose_promise_lies_within_a_tie_are_left_alone() -> None:
    """Of demand that is 0 or 1, half each, the quantiles are right as they are; nothing may drift."""
    random, calibration = np.random.default_rng(1), Calibration((1,), 7)
    said = np.tile(np.array(np.array(LEVELS) > 0.5, np.float32), (ROWS, 1))
    for _ in range(300):
        published = np.rint(calibration.reading(0).of(said, TIER)[:, PICK])
        calibration.learn(0, TIER, published, random.integers(0, 2, ROWS).astype(np.float32))
    moved = calibration.levels(0)[4] - np.array(LEVELS)[PICK]
    assert np.abs(moved[[0, 1, 3, 4]]).max() < 0.01


def test_tiers_learn_what_sets_them_apart() -> None:
    random, calibration = np.random.default_rng(2), Calibration((1,), 7)
    tiers, spread = np.repeat([4, 8], ROWS // 2), np.repeat([10.0, 20.0], ROWS // 2)
    said = normal(14)
    for _ in range(250):
        published = calibration.reading(0).of(said, tiers)[:, PICK]
        calibration.learn(0, tiers, published, random.normal(100, spread).astype(np.float32))
    narrow, wide = (calibration.levels(0)[tier] for tier in (4, 8))
    assert narrow[-1] < 0.88 < 0.93 < wide[-1]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_read_quantiles_never_cross_and_stay_within_the_models(seed: int) -> None:
    random, calibration = np.random.default_rng(seed), Calibration((1, 14), 7)
    said = np.sort(random.gamma(0.5, 10, (ROWS, len(LEVELS))).astype(np.float32), axis=1)
    tiers = random.integers(0, TIERS, ROWS)
    for _ in range(30):
        for index in (0, 1):
            read = calibration.reading(index).of(said, tiers)
            assert (np.diff(read, axis=1) >= 0).all()
            assert (read >= said[:, :1]).all()
            assert (read <= said[:, -1:]).all()
            calibration.learn(index, tiers, read[:, PICK], random.gamma(0.5, 30, ROWS).astype(np.float32))
    written = msgspec.msgpack.encode(calibration.snapshot())
    other = Calibration((1, 14), 7)
    other.restore(msgspec.msgpack.decode(written))
    np.testing.assert_array_equal(other.reading(1).of(said, tiers), calibration.reading(1).of(said, tiers))


def test_tiers_double() -> None:
    assert tiers_of(np.array([0.01, 0.99, 1, 2, 3.9, 4], np.float32)).tolist() == [0, 3, 4, 5, 5, 6]


def test_after_a_change_nearer_horizons_hold_where_the_middle_of_farther_ones_lies() -> None:
    tiers, random = np.full(200, 3), np.random.default_rng(4)
    calibration = Calibration((1, 20), 7)
    for _ in range(300):
        low = random.uniform(0, 0.6, 200).astype(np.float32)  # far ahead demand is lower than what was said
        even = random.uniform(0, 1, 200).astype(np.float32)
        for index, sold in enumerate((even, low)):
            published = calibration.reading(index).of(np.tile(np.array(LEVELS, np.float32), (200, 1)), tiers)
            calibration.learn(index, tiers, published[:, PICK], sold)
    middle = len(SCORE_LEVELS) // 2
    near, far = (float(calibration.levels(index)[3, middle]) for index in (0, 1))
    assert near == pytest.approx(0.5, abs=0.05)
    assert far < 0.4
    calibration.hurry()
    assert float(calibration.levels(1)[3, middle]) == pytest.approx(near, abs=0.06)
    again = Calibration((1, 20), 7)
    again.restore(calibration.snapshot())
    np.testing.assert_array_equal(again.levels(1), calibration.levels(1))
    for _ in range(HELD_DAYS):
        calibration.learn(
            0,
            tiers,
            np.tile(np.array(SCORE_LEVELS, np.float32), (200, 1)),
            random.uniform(0, 1, 200).astype(np.float32),
        )
    assert float(calibration.levels(1)[3, middle]) < 0.4
