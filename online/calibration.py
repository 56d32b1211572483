"""Quantiles that come true as often as they say: which level of the model's answer is published as which level.

In: quantiles as corrected, met by their actuals. Out: where to read the model's quantiles for what is published.
Must not know: the shop, the model, clocks. Rule: what was learned depends on the outcomes and their order alone.

Where demand stayed below the level .9 on 95 % of the occasions, the model's .85 is published as .9. What moves is the
level that is read, not the quantile: a small seller and a large one can then learn from each other. A level is tracked
as in adaptive conformal inference (Gibbs and Candès 2021, "Adaptive conformal inference under distribution shift"):
after each bucket it moves by a step times the difference between the share that was promised and the share that came.
Demand is mostly whole, so a quantile is often met exactly; the share then lies between those strictly below and those
at most there, and a level that is promised in between stays (the randomised form of the same, without the dice).

Each sampled horizon learns for itself: for all series together, and for tiers of expected demand as far as they differ
from all. The part that all tiers have in common leaks from them into the common one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import LEVELS, buckets_per_day
from online.scores import SCORE_LEVELS

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

TIERS = 16
"""Tiers of expected demand per bucket, each twice the one before: up to 1/8, …, above 2,048."""

STEP, HURRIED_STEP = 0.02, 0.08
"""Moves of a level per day and unit of difference, usually and in the weeks after a change of the shop: half of a
lasting difference is gone after five weeks or nine days. Faster costs: days that are good or bad for all series
together then move levels that were right (.05 instead of .02, on four public tasks before their first cutoffs: up to
.4 % of WQL)."""

HURRY_DAYS = 21
"""Days after a change in which levels move fast."""

NEAR_DAYS = 6
"""Levels of farther horizons never do."""

HELD_DAYS = 56
"""Days after a change in which nearer horizons hold where the middle of farther ones lies."""

SHRINK = 0.02
"""Share of a tier's difference from all that is forgotten per day."""

EVIDENCE = 8.0
"""Outcomes of a tier in one bucket that count for half: the share of three outcomes is mostly chance."""

MOST_LAG = 0.35
"""A horizon's step times its days at most: the outcomes that a move brings are seen only after so many."""

MOST_OWN = 0.3
"""How far a tier may lie from all."""

_TIER_OF_ONE = 4  # expected demand from 1 to 2
_TRACKED = np.array(SCORE_LEVELS)
_LEVELS = np.array(LEVELS)
_MIDDLE = int(np.argmin(np.abs(_TRACKED - 0.5)))


@dataclass(frozen=True, slots=True)
class Reading:
    """Between which of the model's levels each published one is read, by tier.

    Attributes
    ----------
    lower
        Index of the level below, (TIERS, levels).
    share
        Share of the way to the one above, float32 (TIERS, levels).
    """

    lower: npt.NDArray[np.intp]
    share: F32

    def of(self, quantiles: F32, tiers: I64) -> F32:
        """Quantiles as they are published, float32 (N, levels), of the model's and the tiers of rows."""
        lower = self.lower[tiers]
        below, above = (np.take_along_axis(quantiles, lower + more, axis=1) for more in (0, 1))
        return between(below, above, self.share[tiers])


def between(below: F32, above: F32, share: F32) -> F32:
    """Part of the way from one number to another, never beyond it for rounding's sake."""
    out: F32 = np.minimum(below + (above - below) * share, above)
    return out


class Calibration:
    """Learned levels of each sampled horizon and tier.

    Parameters
    ----------
    horizons
        The sampled horizons, in buckets.
    season
        Buckets per season: 7 for days, 24 for hours.

    Examples
    --------
    A model that takes for uniform between 0 and 1 what lies between .25 and .75:

    >>> from online.scores import PICK
    >>> random, calibration = np.random.default_rng(1), Calibration((1,), 7)
    >>> said = np.tile(np.float32(LEVELS), (200, 1))
    >>> for _ in range(200):
    ...     published = calibration.reading(0).of(said, np.full(200, 2))
    ...     calibration.learn(0, np.full(200, 2), published[:, PICK], random.uniform(0.25, 0.75, 200))
    >>> published[0, PICK].astype(float).round(1).tolist()
    [0.3, 0.4, 0.5, 0.6, 0.7]
    """

    def __init__(self, horizons: tuple[int, ...], season: int) -> None:
        per_day = buckets_per_day(season)
        # A forecast is met only h buckets later: a step that is too large for the delay would overshoot and swing.
        self._steps, self._hurried = (
            np.array([min(step, MOST_LAG / h * per_day) for h in horizons]) / per_day for step in (STEP, HURRIED_STEP)
        )
        self._near = sum(h <= NEAR_DAYS * per_day for h in horizons) or len(horizons)
        self._holds, self._held = 0, HELD_DAYS * per_day  # buckets for which far middles are held, and after a change
        self._hurry = [0] * len(horizons)
        self._hurries = [HURRY_DAYS * per_day if h <= NEAR_DAYS * per_day else 0 for h in horizons]
        self._shrink = SHRINK / per_day
        self._all = np.zeros((len(horizons), len(_TRACKED)))
        self._tiers = np.zeros((len(horizons), TIERS, len(_TRACKED)))
        self._readings: list[Reading | None] = [_reading(self.levels(index)) for index in range(len(horizons))]

    def levels(self, index: int) -> F64:
        """Levels of the model that are published as `SCORE_LEVELS`, by tier, (TIERS, levels)."""
        moved = _TRACKED + self._moves(index)
        levels: F64 = np.maximum.accumulate(np.clip(moved, _LEVELS[0], _LEVELS[-1]), axis=1)
        return levels

    def _moves(self, index: int) -> F64:
        """How far each level was moved, by tier, (TIERS, levels).

        Where the middle lies far ahead is learned from forecasts that old, and would stay so for weeks after the model
        has caught up with a change: after one it is held between nothing and what nearer horizons show. The width is
        its own.
        """
        own: F64 = self._all[index] + self._tiers[index]
        if index < self._near or not self._holds:
            return own
        near = (self._all[: self._near, None] + self._tiers[: self._near])[:, :, _MIDDLE]
        least, most = np.minimum(near.min(axis=0), 0), np.maximum(near.max(axis=0), 0)
        middle = own[:, _MIDDLE]
        moves: F64 = own + (np.clip(middle, least, most) - middle)[:, None]
        return moves

    def reading(self, index: int) -> Reading:
        """Where one horizon reads the model's quantiles."""
        if (found := self._readings[index]) is None:
            found = self._readings[index] = _reading(self.levels(index))
        return found

    def learn(self, index: int, tiers: I64, quantiles: F32, actual: F32) -> None:
        """Take in the outcomes of a bucket at one horizon.

        Parameters
        ----------
        index
            Index into the horizons.
        tiers
            Of each row, as `tiers_of` gives them, (N,).
        quantiles
            As `reading` gave them, at `SCORE_LEVELS`, float32 (N, levels).
        actual
            Demand, float32 (N,).
        """
        if not len(tiers):
            return
        counts = np.bincount(tiers, minlength=TIERS).astype(np.float64)
        below = np.stack([np.bincount(tiers, row, TIERS) for row in (actual[:, None] < quantiles).T], axis=1)
        upto = np.stack([np.bincount(tiers, row, TIERS) for row in (actual[:, None] <= quantiles).T], axis=1)
        step = self._hurried[index] if self._hurry[index] else self._steps[index]
        self._hurry[index] = max(0, self._hurry[index] - 1)
        self._holds = max(0, self._holds - (index == 0))
        self._all[index] += step * _missing(below.sum(axis=0) / len(tiers), upto.sum(axis=0) / len(tiers))
        some = counts[:, None]
        own = _missing(below / np.maximum(some, 1), upto / np.maximum(some, 1)) * some / (some + EVIDENCE)
        self._tiers[index] += np.where(some > 0, step * own - self._shrink * self._tiers[index], 0)
        # Else a start far off would leave an offset far beyond all levels, and the way back would take as long.
        self._all[index] = np.clip(self._all[index], _LEVELS[0] - _TRACKED, _LEVELS[-1] - _TRACKED)
        self._tiers[index] = np.clip(self._tiers[index], -MOST_OWN, MOST_OWN)
        self._readings = [None] * len(self._readings)  # of far horizons too, which are held by it

    def hurry(self) -> None:
        """Let levels of near horizons move fast for a while, and hold the middle of far ones: the shop has changed."""
        self._holds = self._held
        self._readings = [None] * len(self._readings)
        self._hurry = list(self._hurries)

    def snapshot(self) -> dict[str, Any]:
        """What was learned, as plain values."""
        return {"all": self._all.tobytes(), "tiers": self._tiers.tobytes(), "hurry": self._hurry, "holds": self._holds}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave."""
        self._all = np.frombuffer(state["all"], np.float64).reshape(self._all.shape).copy()
        self._tiers = np.frombuffer(state["tiers"], np.float64).reshape(self._tiers.shape).copy()
        self._hurry, self._holds = list(state["hurry"]), state.get("holds", 0)
        self._readings = [None for _ in self._readings]


def tiers_of(expected: F32) -> I64:
    """Tier of each row by its expected demand per bucket, (N,).

    Examples
    --------
    >>> tiers_of(np.float32([0, 1, 100, 1e9])).tolist()
    [0, 4, 10, 15]
    """
    exponent = np.floor(np.log2(np.maximum(expected, np.float32(1e-9))))
    tiers: I64 = np.clip(exponent + _TIER_OF_ONE, 0, TIERS - 1).astype(np.int64)
    return tiers


def _missing(below: F64, upto: F64) -> F64:
    """What is missing from the promised shares, where even those met exactly do not fill it; negative: too many."""
    missing: F64 = np.where(upto < _TRACKED, _TRACKED - upto, np.where(below > _TRACKED, _TRACKED - below, 0))
    return missing


def _reading(levels: F64) -> Reading:
    """Where the model's quantile function is read for what is published as each level, by tier, of tracked levels."""
    ends, places = np.concatenate([[0], _TRACKED, [1]]), np.empty((TIERS, len(_LEVELS)))
    for tier, own in enumerate(levels):
        places[tier] = np.interp(_LEVELS, ends, np.concatenate([[0], own, [1]]))
    places = np.clip(places, _LEVELS[0], _LEVELS[-1])
    lower = np.clip(np.searchsorted(_LEVELS, places, side="right") - 1, 0, len(_LEVELS) - 2)
    share = (places - _LEVELS[lower]) / (_LEVELS[lower + 1] - _LEVELS[lower])
    return Reading(lower.astype(np.intp), share.astype(np.float32))
