"""One channel's history of many rows, and statistics over its newest buckets.

In: values per row, oldest first, NaN where unknown. Out: one float32 value per row, NaN where undefined.
Must not know: what the channel means. Rule: sums go bucket by bucket from the newest to the oldest, in float64, row
beside row, so that a row's result does not depend on how many rows there are.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from models.forecast import F32
from models.quantiles import I64, quantiles_of

F64 = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)


class History:
    """The newest buckets of a channel.

    Parameters
    ----------
    values
        Oldest first, float32 (R, T); NaN and infinite values are unknown. Shorter rows are unknown further back.
    span
        Buckets to look back at most; T must not be above it.

    Examples
    --------
    >>> history = History(np.array([[4, np.nan, 1, 3]], np.float32), span=6)
    >>> history.mean(2).tolist(), history.mean(6, newer=2).tolist(), history.count(6).tolist()
    ([2.0], [4.0], [3])
    """

    def __init__(self, values: F32, span: int) -> None:
        rows, buckets = values.shape
        self.span = span
        self.values = np.full((span, rows), np.nan, np.float32)  # newest first, rows side by side
        self.values[:buckets] = values[:, ::-1].T
        self.known = np.isfinite(self.values)
        self.values[~self.known] = np.nan

    def __len__(self) -> int:
        return self.values.shape[1]

    def with_known(self, other: History) -> tuple[History, History]:
        """Both histories, known where both are."""
        both = self.known & other.known
        return self._masked(both), other._masked(both)

    def _masked(self, known: npt.NDArray[np.bool_]) -> History:
        return History(np.where(known, self.values, np.float32(np.nan))[::-1].T, self.span)

    @cached_property
    def _filled(self) -> F32:
        return np.where(self.known, self.values, np.float32(0))

    @cached_property
    def _counts(self) -> I64:
        """Known values among the newest n, (span + 1, R)."""
        return _running(self.known, np.int64)

    @cached_property
    def _sums(self) -> F64:
        """Sum of the newest n, (span + 1, R)."""
        return _running(self._filled, np.float64)

    @cached_property
    def _zeros(self) -> I64:
        return _running(self.values == 0, np.int64)

    @cached_property
    def _positives(self) -> I64:
        return _running(self.values > 0, np.int64)

    def count(self, buckets: int) -> I64:
        """Known values among the newest buckets."""
        count: I64 = self._counts[buckets]
        return count

    def sum(self, buckets: int) -> F64:
        """Sum of the newest buckets; 0 where nothing is known."""
        total: F64 = self._sums[buckets]
        return total

    def mean(self, buckets: int, *, newer: int = 0) -> F32:
        """Mean of the newest buckets, without the `newer` newest."""
        return ratio(self._sums[buckets] - self._sums[newer], self._counts[buckets] - self._counts[newer])

    def zero_share(self, buckets: int) -> F32:
        """Share of zeros."""
        return ratio(self._zeros[buckets], self._counts[buckets])

    def positive_share(self, buckets: int) -> F32:
        """Share of values above zero."""
        return ratio(self._positives[buckets], self._counts[buckets])

    def deviation(self, buckets: int) -> F32:
        """Standard deviation of a population, around the mean."""
        mean, total = self.mean(buckets).astype(np.float64), np.zeros(len(self))
        for bucket in range(buckets):
            total += np.where(self.known[bucket], np.square(self._filled[bucket] - mean), 0)
        return np.sqrt(ratio(total, self._counts[buckets]))

    def slope(self, buckets: int) -> F32:
        """Least-squares slope over time; NaN with fewer than two known values."""
        count = self._counts[buckets].astype(np.float64)
        x_sum, x_square, product = np.zeros((3, len(self)))
        for bucket in range(buckets):  # x is the age of a bucket
            x_sum += self.known[bucket] * float(bucket)
            x_square += self.known[bucket] * float(bucket) ** 2
            product += self._filled[bucket] * float(bucket)
        spread = count * x_square - x_sum**2
        return -ratio(count * product - x_sum * self._sums[buckets], spread)  # age runs against time

    def quantiles(self, buckets: int, levels: tuple[float, ...]) -> F32:
        """Quantiles of the newest buckets, (R, Q)."""
        ordered = np.sort(self.values[:buckets].T, axis=1)
        return quantiles_of(ordered, self._counts[buckets], levels)

    def newest(self) -> F32:
        """The newest known value."""
        at = self.known.argmax(axis=0)
        value: F32 = self.values[at, np.arange(len(self))]
        return value

    def since_positive(self) -> F32:
        """Buckets since the newest value above zero."""
        above = self.values > 0
        return np.where(above.any(axis=0), above.argmax(axis=0), np.nan).astype(np.float32)


def mean_of(samples: F32) -> F32:
    """Mean of the last axis in its own order, without NaN.

    Examples
    --------
    >>> mean_of(np.array([[1, np.nan, 3], [np.nan, np.nan, np.nan]], np.float32)).tolist()
    [2.0, nan]
    """
    total, count = np.zeros(samples.shape[:-1]), np.zeros(samples.shape[:-1], np.int64)
    for index in range(samples.shape[-1]):
        known = ~np.isnan(samples[..., index])
        total += np.where(known, samples[..., index], 0)
        count += known
    return ratio(total, count)


def ratio(above: npt.NDArray[np.generic], below: npt.NDArray[np.generic]) -> F32:
    """Divide where the divisor is above zero; NaN elsewhere.

    Examples
    --------
    >>> ratio(np.array([3.0, 3.0, 0.0]), np.array([2.0, 0.0, np.nan])).tolist()
    [1.5, nan, nan]
    """
    top, bottom = np.broadcast_arrays(above.astype(np.float64), below.astype(np.float64))
    result = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result.astype(np.float32)


def _running(values: npt.NDArray[Any], kind: type[Scalar]) -> npt.NDArray[Scalar]:
    """Running sums along the first axis, which starts with 0."""
    total: npt.NDArray[Any] = np.zeros((len(values) + 1, values.shape[1]), kind)
    for index in range(len(values)):
        np.add(total[index], values[index], out=total[index + 1])
    return total
