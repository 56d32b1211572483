"""Quantiles of sorted samples, for many rows at once.

In: arrays whose last axis is sorted. Out: arrays whose last axis is quantile levels, never crossing.
Must not know: what the samples are. Rule: linear between order statistics, as `numpy.quantile`; equal neighbours give
exactly their value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from models.forecast import F32

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where quantile levels lie between the order statistics of n samples."""

    low: I64
    high: I64
    weight: F32  # of `high`


@lru_cache(maxsize=64)
def cuts_of(levels: tuple[float, ...], samples: int) -> Cuts:
    """Find the places of levels among sorted samples.

    Examples
    --------
    >>> cuts_of((0.5, 1.0), 4)
    Cuts(low=array([1, 3]), high=array([2, 3]), weight=array([0.5, 0. ], dtype=float32))
    """
    at = np.array(levels) * (samples - 1)
    low = np.floor(at).astype(np.int64)
    return Cuts(low, np.minimum(low + 1, samples - 1), (at - low).astype(np.float32))


def interpolate(ordered: F32, cuts: Cuts) -> F32:
    """Quantiles of samples that are sorted along the last axis.

    Examples
    --------
    >>> interpolate(np.array([[1, 2, 4, 8]], np.float32), cuts_of((0.25, 0.5), 4)).tolist()
    [[1.75, 3.0]]
    """
    low = np.take(ordered, cuts.low, axis=-1)
    high = np.take(ordered, cuts.high, axis=-1)
    high -= low
    high *= cuts.weight
    low += high
    return np.maximum.accumulate(low, axis=-1, out=low)


def quantiles_of(ordered: F32, count: npt.NDArray[np.integer], levels: tuple[float, ...]) -> F32:
    """Quantiles of the first `count` samples of each row; NaN where there is none.

    Parameters
    ----------
    ordered
        Samples, sorted along the last axis; those past the count are not looked at. Shape (…, N).
    count
        Samples per row, shape (…,).
    levels
        Q quantile levels.

    Returns
    -------
    Float32, shape (…, Q).

    Examples
    --------
    >>> ordered = np.sort(np.array([[2, np.nan, 4], [np.nan, np.nan, np.nan]], np.float32), axis=1)
    >>> quantiles_of(ordered, np.array([2, 0]), (0.5,)).tolist()
    [[3.0], [nan]]
    """
    last = np.maximum(count.astype(np.int64) - 1, 0)[..., None]
    at = last * np.array(levels)  # (…, Q)
    low = np.floor(at).astype(np.int64)
    weight = (at - low).astype(np.float32)
    below = np.take_along_axis(ordered, low, axis=-1)
    above = np.take_along_axis(ordered, np.minimum(low + 1, last), axis=-1)
    result = np.maximum.accumulate(below + (above - below) * weight, axis=-1)
    return np.where(count[..., None] > 0, result, np.float32(np.nan))
