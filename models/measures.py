"""How good forecasts were: quantiles held against what came true, in all and by any part.

In: actual demand, quantiles and the scale of each row's past. Out: `Figures` in all, by step, by groups of rows.
Must not know: where forecasts come from, files, pictures. Rule: whatever is told is made of sums over known steps, so
that rows may come in pieces of any size; a figure without anything behind it is NaN, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from models.forecast import F32

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SCORED: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of which losses are made, as they are mostly reported."""

INTERVAL = (0.1, 0.9)
"""Ends of the interval whose coverage is told: 80 % of days should fall inside."""


class _Sum(IntEnum):
    """What is summed over steps, each a column."""

    KNOWN = 0
    LOSS = 1
    ERROR = 2
    SIZE = 3
    EXCESS = 4
    DEMAND = 5
    INSIDE = 6
    SCALED = 7
    SCALABLE = 8
    STRICTLY = 9


@dataclass(frozen=True, slots=True)
class Figures:
    """What is mostly told of forecasts, each an array with one value per part, 0-dimensional for the whole.

    Attributes
    ----------
    wql
        Weighted quantile loss: mean over `SCORED` of sum(2 x pinball loss) / sum |y|.
    wape
        sum |median - y| / sum |y|.
    mase
        Mean of |median - y| / scale, where the scale of a row is that of `seasonal_scale`; rows whose scale is 0 or
        unknown are left out.
    coverage
        Share of steps with q0.1 <= y <= q0.9. Counts whose q0.1 is 0 lie above .8 by construction.
    strict
        Share of steps with q0.1 < y < q0.9. Whole demand often falls on a quantile, and then an interval that is right
        has its 80 % between this share and that of `coverage`; where demand is not whole the two are alike.
    bias
        sum (median - y) / sum y. The median of rare counts lies below their mean, and so does this.
    known
        Steps of which the outcome is known: what the others rest on.

    References
    ----------
    wql: Park et al. (2022), "Learning quantile functions without quantile crossing for distribution-free time series
    forecasting"; ``mean_wQuantileLoss`` of GluonTS. mase: Hyndman and Koehler (2006), "Another look at
    measures of forecast accuracy", section 3, with the seasonal naive forecast of the M4 competition.
    """

    wql: F64
    wape: F64
    mase: F64
    coverage: F64
    strict: F64
    bias: F64
    known: F64


class Tally:
    """Sums of rows (a series at a cutoff) by steps, which come in pieces.

    Parameters
    ----------
    rows, steps
        How many there will be.
    levels
        Of the quantiles; `SCORED` must be among them.

    Examples
    --------
    Two rows of one step; the first is forecast exactly, the second is not known:

    >>> tally = Tally(2, 1, SCORED)
    >>> tally.add(slice(0, 2), np.array([[4.0], [np.nan]]), np.full((2, 1, 9), 4.0), np.array([2.0, 2.0]))
    >>> float(tally.in_all().wql), float(tally.in_all().known), tally.by(np.array([0, 1])).wape.tolist()
    (0.0, 1.0, [0.0, nan])
    """

    def __init__(self, rows: int, steps: int, levels: Sequence[float]) -> None:
        self.levels = np.array(levels)
        self._rows = np.zeros((rows, len(_Sum)))
        self._steps = np.zeros((steps, len(_Sum)))
        self._below, self._at_most = np.zeros(len(levels)), np.zeros(len(levels))

    @property
    def known(self) -> int:
        """Steps of which the outcome is known."""
        return int(self._steps[:, _Sum.KNOWN].sum())

    def add(self, rows: slice, actual: F32 | F64, quantiles: F32 | F64, scale: F64) -> None:
        """Hold a piece against what came true.

        Parameters
        ----------
        rows
            Which of the rows these are.
        actual, quantiles
            (R, H), NaN where unknown; (R, H, Q).
        scale
            `seasonal_scale` of each row, (R,).
        """
        known = np.isfinite(actual)
        truth = np.where(known, actual, 0).astype(np.float64)
        said = quantiles.astype(np.float64)
        cells = _cells(truth, said, self.levels, scale)  # (R, H, sums)
        cells[~known] = 0
        self._rows[rows] = cells.sum(axis=1)
        self._steps += cells.sum(axis=0)
        self._below += (truth[:, :, None] < said)[known].sum(axis=0)
        self._at_most += (truth[:, :, None] <= said)[known].sum(axis=0)

    def in_all(self) -> Figures:
        """Over everything."""
        return _figures(self._steps.sum(axis=0))

    def by_step(self) -> Figures:
        """Of each step, over all rows."""
        return _figures(self._steps)

    def by(self, group: I64) -> Figures:
        """Of each group of rows 0 … G-1, given the group of each row."""
        return _figures(self._by(group))

    def demand(self, group: I64) -> F64:
        """Sum |y| of each group of rows."""
        return self._by(group)[:, _Sum.SIZE]

    def loss(self, group: I64) -> F64:
        """Twice the pinball loss of each group of rows, mean over `SCORED`, summed over steps."""
        return self._by(group)[:, _Sum.LOSS]

    def shares(self) -> tuple[F64, F64]:
        """Share of outcomes below each level's quantile, and of those at or below it.

        A forecast is calibrated where the level lies between the two: they differ by what falls on the quantile itself,
        which is much where demand is a small count.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._below / np.float64(self.known), self._at_most / np.float64(self.known)

    def _by(self, group: I64) -> F64:
        sums = np.zeros((int(group.max(initial=-1)) + 1, len(_Sum)))
        np.add.at(sums, group, self._rows)
        return sums


def measure(actual: F64, quantiles: F64, scale: F64) -> Figures:
    """Figures of one table of forecasts with the levels `SCORED`: actual (R, H), quantiles (R, H, 9), scale (R,).

    Examples
    --------
    Every quantile says 3 where 4 came true, in a series that moves by 2 from one week to the next:

    >>> found = measure(np.array([[4.0]]), np.full((1, 1, 9), 3.0), np.array([2.0]))
    >>> float(found.wql), float(found.wape), float(found.mase), float(found.coverage), float(found.bias)
    (0.25, 0.25, 0.5, 0.0, -0.25)
    """
    tally = Tally(len(actual), actual.shape[1], SCORED)
    tally.add(slice(None), actual, quantiles, scale)
    return tally.in_all()


def pinball(actual: F64, quantiles: F64, levels: F64) -> F64:
    """Loss of quantiles: level x gap where the outcome lies above, (1 - level) x gap where it lies below.

    References
    ----------
    Koenker and Bassett (1978), "Regression quantiles", section 3.

    Examples
    --------
    >>> pinball(np.array([4.0]), np.array([[1.0, 5.0]]), np.array([0.1, 0.9])).round(6).tolist()
    [[0.3, 0.1]]
    """
    gap = actual[..., None] - quantiles
    loss: F64 = np.maximum(levels * gap, (levels - 1) * gap)
    return loss


def seasonal_scale(past: F32 | F64, season: int) -> F64:
    """Mean change from one season to the next, per row: what a seasonal naive forecast misses by in sample.

    Parameters
    ----------
    past
        What lies at or before the cutoff, oldest first, NaN before a series began, (R, T).

    References
    ----------
    Hyndman and Koehler (2006), section 3, at lag `season`.

    Examples
    --------
    >>> seasonal_scale(np.array([[np.nan, 1.0, 2.0, 5.0, 2.0]]), 2).tolist()
    [2.0]
    """
    if past.shape[1] <= season:
        return np.full(len(past), np.nan)
    change = np.abs(past[:, season:].astype(np.float64) - past[:, :-season])
    known = np.isfinite(change)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: F64 = np.where(known, change, 0).sum(axis=1) / known.sum(axis=1)
    return mean


def _cells(truth: F64, said: F64, levels: F64, scale: F64) -> F64:
    """What each step adds to the sums, (R, H, sums)."""
    at = {round(float(level), 6): index for index, level in enumerate(levels)}
    scored = [at[level] for level in SCORED]
    low, high = said[:, :, at[INTERVAL[0]]], said[:, :, at[INTERVAL[1]]]
    excess = said[:, :, at[0.5]] - truth
    scalable = np.broadcast_to((scale > 0) & np.isfinite(scale), truth.T.shape).T
    scaled = np.abs(excess) / np.where(scalable, scale[:, None], 1)
    columns = {
        _Sum.KNOWN: np.ones_like(truth),
        _Sum.LOSS: 2 * pinball(truth, said[:, :, scored], levels[scored]).mean(axis=2),
        _Sum.ERROR: np.abs(excess),
        _Sum.SIZE: np.abs(truth),
        _Sum.EXCESS: excess,
        _Sum.DEMAND: truth,
        _Sum.INSIDE: (low <= truth) & (truth <= high),
        _Sum.SCALED: np.where(scalable, scaled, 0),
        _Sum.SCALABLE: scalable,
        _Sum.STRICTLY: (low < truth) & (truth < high),
    }
    return np.stack([columns[name].astype(np.float64) for name in _Sum], axis=2)


def _figures(sums: F64) -> Figures:
    """Figures of sums (…, sums)."""

    def ratio(over: _Sum, under: _Sum) -> F64:
        base = sums[..., under]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(base != 0, sums[..., over] / base, np.nan))

    return Figures(
        wql=ratio(_Sum.LOSS, _Sum.SIZE),
        wape=ratio(_Sum.ERROR, _Sum.SIZE),
        mase=ratio(_Sum.SCALED, _Sum.SCALABLE),
        coverage=ratio(_Sum.INSIDE, _Sum.KNOWN),
        strict=ratio(_Sum.STRICTLY, _Sum.KNOWN),
        bias=ratio(_Sum.EXCESS, _Sum.DEMAND),
        known=np.asarray(sums[..., _Sum.KNOWN]),
    )
