"""A challenger that is no better is hardly ever promoted, however often one looks; one that is better is, in weeks."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from online.trial import COVERAGE_MARGIN, ERROR, Trial

DAYS, RUNS = 365, 1000


def promoted_after(
    random: np.random.Generator, better: float, covered: tuple[float, float] = (0.8, 0.8), days: int = DAYS
) -> int | None:
    """Days until a challenger is promoted that loses less by a share; shops have good and bad days, both share them."""
    trial = Trial()
    shared = np.exp(random.normal(0, 0.4, days))
    apart = random.standard_t(4, (days, 2)) * 0.02
    for day in range(days):
        champion, challenger = shared[day] * (1 + apart[day, 0]), shared[day] * (1 - better) * (1 + apart[day, 1])
        trial.add(float(champion), float(challenger), covered)
        if trial.is_better:
            return day
    return None


def test_of_a_thousand_that_are_no_better_no_more_are_promoted_than_is_said() -> None:
    """Looked at every day of a year; the bound holds for each, so that of the share lies three deviations above."""
    random = np.random.default_rng(1)
    promoted = sum(promoted_after(random, 0.0) is not None for _ in range(RUNS))
    assert promoted <= RUNS * ERROR + 3 * np.sqrt(RUNS * ERROR * (1 - ERROR))


@pytest.mark.parametrize("worse", [-0.005, -0.02])
def test_of_those_that_are_worse_hardly_any_is(worse: float) -> None:
    random = np.random.default_rng(2)
    assert sum(promoted_after(random, worse) is not None for _ in range(200)) <= 200 * ERROR


@pytest.mark.parametrize(("better", "within"), [(0.03, 45), (0.01, 150)])
def test_one_that_is_better_is_promoted(better: float, within: int) -> None:
    random = np.random.default_rng(3)
    days = [promoted_after(random, better) for _ in range(60)]
    assert np.median([DAYS if day is None else day for day in days]) <= within


def test_one_whose_interval_is_worse_is_not() -> None:
    random = np.random.default_rng(4)
    assert promoted_after(random, 0.05, covered=(0.8, 0.8 - COVERAGE_MARGIN - 0.01)) is None
    assert promoted_after(random, 0.05, covered=(0.7, 0.72)) is not None


def test_days_without_loss_say_nothing_and_a_restart_changes_nothing() -> None:
    random, whole, halves = np.random.default_rng(5), Trial(), Trial()
    for day in range(60):
        losses = (0.0, 0.0) if day % 7 == 6 else tuple(random.gamma(9, 1, 2).tolist())
        for trial in (whole, halves):
            trial.add(losses[0], losses[1], (0.8, 0.8))
        if day == 30:
            written = msgspec.msgpack.encode(halves.snapshot())
            halves = Trial()
            halves.restore(msgspec.msgpack.decode(written))
    assert whole.snapshot() == halves.snapshot()
