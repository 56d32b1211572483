"""How good the published forecasts were: sums that give WQL, WAPE, coverage and bias.

In: quantiles and the demand that came true, in arrays.
Out: `Losses`, row by row; running sums of them, and the figures made of these.
Must not know: which shop, item or bucket. Rule: sums only grow, in the order outcomes mature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import LEVELS

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SCORE_LEVELS: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Levels kept of each published forecast: the ends give the 80 % interval, the middle the median."""

PICK = [LEVELS.index(level) for level in SCORE_LEVELS]
"""Their indices among the levels of forecasts."""

_LOW, _MID, _HIGH = 0, 2, 4


@dataclass(frozen=True, slots=True)
class Losses:
    """What some quantiles lost on the demand that met them, row by row: made once, for all who need it.

    Attributes
    ----------
    quantiles
        At `SCORE_LEVELS`, float32 (N, levels).
    actual
        Demand, float32 (N,).
    loss
        Twice the pinball loss of each level, float64 (N, levels).
    inside
        Whether demand lay within the 80 % interval, (N,).
    """

    quantiles: F32
    actual: F32
    loss: F64
    inside: Bools


class Scores:
    """Sums per sampled horizon.

    Parameters
    ----------
    horizons
        The sampled horizons, in buckets.

    Examples
    --------
    >>> scores = Scores((1,))
    >>> scores.add(0, losses_of(np.array([[0, 1, 2, 3, 4]], np.float32), np.array([2], np.float32)))
    >>> scores.summary()["overall"]["coverage80"], scores.summary()["overall"]["wape"]
    (1.0, 0.0)
    """

    def __init__(self, horizons: tuple[int, ...]) -> None:
        self.horizons = horizons
        self._loss = np.zeros((len(horizons), len(SCORE_LEVELS)), np.float64)
        self._sums = np.zeros(
            (len(horizons), 5), np.float64
        )  # count, |actual|, |median - actual|, median - actual, inside

    def add(self, index: int, losses: Losses) -> None:
        """Add matured forecasts of one horizon."""
        truth = losses.actual.astype(np.float64)
        middle = truth - losses.quantiles[:, _MID]
        self._loss[index] += losses.loss.sum(axis=0)
        self._sums[index] += (
            len(truth),
            np.abs(truth).sum(),
            np.abs(middle).sum(),
            -middle.sum(),
            losses.inside.sum(),
        )

    def add_each(self, indices: I64, losses: Losses) -> None:
        """Add matured forecasts, each to a place of its own, (N,)."""
        truth, size = losses.actual.astype(np.float64), len(self.horizons)
        middle = truth - losses.quantiles[:, _MID]
        columns = (np.ones(len(truth)), np.abs(truth), np.abs(middle), -middle, losses.inside)
        for place, sums in enumerate((*losses.loss.T, *columns)):
            target = self._loss[:, place] if place < len(SCORE_LEVELS) else self._sums[:, place - len(SCORE_LEVELS)]
            target += np.bincount(indices, sums, size)

    def summary(self) -> dict[str, Any]:
        """Figures overall and per horizon; a figure without any demand behind it is None.

        ``wql`` is the mean over the levels of sum(2 x pinball loss) / sum |actual|, as the evaluation scores it.
        """
        return {
            "levels": list(SCORE_LEVELS),
            "overall": _figures(self._loss.sum(axis=0), self._sums.sum(axis=0)),
            "by_horizon": {str(h): _figures(self._loss[i], self._sums[i]) for i, h in enumerate(self.horizons)},
        }

    def totals(self) -> dict[str, float]:
        """Sums over all horizons: outcomes, demand, twice the pinball loss (mean of levels), inside the interval."""
        count, demand, _, _, inside = self._sums.sum(axis=0).tolist()
        return {"outcomes": count, "demand": demand, "loss": float(self._loss.sum(axis=0).mean()), "inside": inside}

    def merge(self, other: Scores) -> None:
        """Add the sums of another shard."""
        self._loss += other._loss
        self._sums += other._sums

    def snapshot(self) -> dict[str, Any]:
        """The sums as plain values."""
        return {"loss": self._loss.tobytes(), "sums": self._sums.tobytes()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave."""
        self._loss = np.frombuffer(state["loss"], np.float64).reshape(self._loss.shape).copy()
        self._sums = np.frombuffer(state["sums"], np.float64).reshape(self._sums.shape).copy()


def losses_of(quantiles: F32, actual: F32) -> Losses:
    """Losses of quantiles at `SCORE_LEVELS`, float32 (N, levels), on the demand that met them, float32 (N,).

    Examples
    --------
    >>> losses = losses_of(np.array([[0, 1, 2, 3, 4]] * 2, np.float32), np.array([2, 5], np.float32))
    >>> losses.loss.mean(axis=1).round(2).tolist(), losses.inside.tolist()
    ([0.4, 2.2], [True, False])
    """
    inside = (actual >= quantiles[:, _LOW]) & (actual <= quantiles[:, _HIGH])
    return Losses(quantiles, actual, pinball(quantiles, actual), inside)


def picked(some: Sequence[Losses], which: I64) -> Losses:
    """Of each row what one of some lost on the same demand, by its place among them, (N,).

    Examples
    --------
    >>> low, high = (losses_of(np.full((2, 5), level, np.float32), np.zeros(2, np.float32)) for level in (1, 9))
    >>> picked([low, high], np.array([1, 0])).quantiles[:, 0].tolist()
    [9.0, 1.0]
    """
    if (which == which[0]).all():  # mostly: what acts, acts on all
        return some[int(which[0])]
    rows = np.arange(len(which))
    quantiles, loss, inside = (
        np.stack([getattr(one, name) for one in some])[which, rows] for name in ("quantiles", "loss", "inside")
    )
    return Losses(quantiles, some[0].actual, loss, inside)


def pinball(quantiles: F32, actual: F32) -> F64:
    """Twice the pinball loss at each of `SCORE_LEVELS`, float64 (N, levels).

    Examples
    --------
    >>> pinball(np.zeros((1, 5), np.float32), np.ones(1, np.float32)).round(1).tolist()
    [[0.2, 0.6, 1.0, 1.4, 1.8]]
    """
    gap = actual.astype(np.float64)[:, None] - quantiles.astype(np.float64)
    levels = np.array(SCORE_LEVELS)
    loss: F64 = 2 * np.maximum(levels * gap, (levels - 1) * gap)
    return loss


def _figures(loss: F64, sums: F64) -> dict[str, float | int | None]:
    count, volume, error, bias, inside = sums.tolist()
    return {
        "outcomes": int(count),
        "wql": round(float(loss.mean()) / volume, 6) if volume else None,
        "wape": round(error / volume, 6) if volume else None,
        "bias": round(bias / volume, 6) if volume else None,
        "coverage80": round(inside / count, 6) if count else None,
    }
