"""How good the published forecasts were: sums that give WQL, WAPE, coverage and bias.

In: quantiles as published and the demand that came true, in arrays.
Out: running sums, and the figures made of them.
Must not know: which shop, item or bucket. Rule: sums only grow, in the order outcomes mature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import LEVELS

F32 = npt.NDArray[np.float32]

SCORE_LEVELS: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Levels kept of each published forecast: the ends give the 80 % interval, the middle the median."""

PICK = [LEVELS.index(level) for level in SCORE_LEVELS]
"""Their indices among the levels of forecasts."""

_LOW, _MID, _HIGH = 0, 2, 4


class Scores:
    """Sums per sampled horizon.

    Parameters
    ----------
    horizons
        The sampled horizons, in buckets.

    Examples
    --------
    >>> scores = Scores((1,))
    >>> scores.add(0, np.array([[0, 1, 2, 3, 4]], np.float32), np.array([2], np.float32))
    >>> scores.summary()["overall"]["coverage80"], scores.summary()["overall"]["wape"]
    (1.0, 0.0)
    """

    def __init__(self, horizons: tuple[int, ...]) -> None:
        self.horizons = horizons
        self._loss = np.zeros((len(horizons), len(SCORE_LEVELS)), np.float64)
        self._sums = np.zeros(
            (len(horizons), 5), np.float64
        )  # count, |actual|, |median - actual|, median - actual, inside

    def add(self, index: int, quantiles: F32, actual: F32) -> None:
        """Add matured forecasts of one horizon: quantiles (N, levels), actual (N,)."""
        truth = actual.astype(np.float64)
        gap = truth[:, None] - quantiles.astype(np.float64)
        self._loss[index] += pinball(quantiles, actual).sum(axis=0)
        inside = (truth >= quantiles[:, _LOW]) & (truth <= quantiles[:, _HIGH])
        self._sums[index] += (
            len(truth),
            np.abs(truth).sum(),
            np.abs(gap[:, _MID]).sum(),
            -gap[:, _MID].sum(),
            inside.sum(),
        )

    def add_each(self, indices: npt.NDArray[np.int64], quantiles: F32, actual: F32) -> None:
        """Add matured forecasts, each to a place of its own, (N,)."""
        truth, size = actual.astype(np.float64), len(self.horizons)
        middle = truth - quantiles[:, _MID]
        inside = (truth >= quantiles[:, _LOW]) & (truth <= quantiles[:, _HIGH])
        columns = (np.ones(len(truth)), np.abs(truth), np.abs(middle), -middle, inside)
        for place, sums in enumerate((*pinball(quantiles, actual).T, *columns)):
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


def pinball(quantiles: F32, actual: F32) -> npt.NDArray[np.float64]:
    """Twice the pinball loss at each of `SCORE_LEVELS`, float64 (N, levels).

    Examples
    --------
    >>> pinball(np.zeros((1, 5), np.float32), np.ones(1, np.float32)).round(1).tolist()
    [[0.2, 0.6, 1.0, 1.4, 1.8]]
    """
    gap = actual.astype(np.float64)[:, None] - quantiles.astype(np.float64)
    levels = np.array(SCORE_LEVELS)
    loss: npt.NDArray[np.float64] = 2 * np.maximum(levels * gap, (levels - 1) * gap)
    return loss


def _figures(loss: npt.NDArray[np.float64], sums: npt.NDArray[np.float64]) -> dict[str, float | int | None]:
    count, volume, error, bias, inside = sums.tolist()
    return {
        "outcomes": int(count),
        "wql": round(float(loss.mean()) / volume, 6) if volume else None,
        "wape": round(error / volume, 6) if volume else None,
        "bias": round(bias / volume, 6) if volume else None,
        "coverage80": round(inside / count, 6) if count else None,
    }
