"""When to order and how much: the (s,S) rule on cumulative demand quantiles, as pure functions over arrays.

In: cumulative quantiles of demand still to come, lead times, costs, minimum orders and packs.
Out: reorder points, order-up-to levels, rounded quantities. Shapes: B series, H steps, Q levels.
Must not know: stock records, triggers, keys, clocks. Rule: row i of a result depends on row i of the arguments alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.forecast import LEVELS

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVEL_ARRAY = np.array(LEVELS)

UNLIMITED = np.int64(2**62)
"""Room of a series without a maximum stock."""

MOST = 1e15
"""Largest quantity in thousandths that is computed with: far beyond any stock, and exact in float64."""


def _masses() -> F64:
    """Share of probability that each level stands for when a mean is taken from quantiles."""
    between = (LEVEL_ARRAY[1:] + LEVEL_ARRAY[:-1]) / 2
    return np.diff(np.concatenate([[0.0], between, [1.0]]))


MASSES = _masses()


@dataclass(frozen=True, slots=True)
class DemandAhead:
    """Demand still to come, read at any time ahead and any level.

    Attributes
    ----------
    cumulative
        Quantiles of the demand up to the end of each step, float32 (N, H, Q).
    elapsed
        Share of step 1 that is over, 0 to below 1, float64 (B,).
    bucket_days
        Width of a step in days.
    rows
        Row of `cumulative` per series, (B,): a selection copies nothing.

    Examples
    --------
    Two units a day at every level: 3.5 days ahead are seven units, also beyond the horizon of three days.

    >>> flat = np.repeat(np.array([[[2.0], [4.0], [6.0]]], np.float32), 13, axis=2)
    >>> ahead = DemandAhead(flat, np.zeros(1), 1.0, np.arange(1))
    >>> ahead.quantile(np.array([1.5]), np.array([0.9])).tolist(), ahead.quantile(np.array([3.5]), 0.5).tolist()
    ([3.0], [7.0])
    """

    cumulative: npt.NDArray[np.float32]  # (N, H, Q)
    elapsed: F64  # (B,)
    bucket_days: float
    rows: Ints  # (B,)

    @property
    def days(self) -> F64:
        """Days from now to the end of the last step, (B,)."""
        return np.asarray((self.cumulative.shape[1] - self.elapsed) * self.bucket_days)

    def quantile(self, days: F64, level: F64 | float) -> F64:
        """Quantile of the demand of the next `days`, (B,), linear between steps and between levels.

        Beyond the horizon demand goes on in proportion, which errs on the side of a little more stock: the spread of a
        sum grows more slowly than the sum.
        """
        horizon = self.cumulative.shape[1]
        ahead = np.minimum(days, self.days)
        at = np.minimum(self.elapsed + ahead / self.bucket_days, horizon)  # (B,) in steps, 1.0 = end of step 1
        before = np.minimum(at.astype(np.int64), horizon - 1)
        share = np.where(before > 0, at - before, (at - self.elapsed) / (1 - self.elapsed))
        low = np.where(before > 0, self._at_level(np.maximum(before - 1, 0), level), 0.0)
        high = self._at_level(before, level)
        return np.asarray((low + share * (high - low)) * np.maximum(days / self.days, 1.0))

    def rate(self) -> F64:
        """Mean demand per day over the horizon, (B,)."""
        return np.asarray((self.cumulative[self.rows, -1, :] * MASSES).sum(axis=1) / self.days)

    def median(self) -> npt.NDArray[np.float32]:
        """Median of the demand up to the end of each step, (B, H)."""
        return self.cumulative[self.rows, :, LEVELS.index(0.5)]

    def take(self, rows: Ints) -> DemandAhead:
        """The same for some of the series."""
        return DemandAhead(self.cumulative, self.elapsed[rows], self.bucket_days, self.rows[rows])

    def _at_level(self, step: Ints, level: F64 | float) -> F64:
        left = np.clip(np.searchsorted(LEVEL_ARRAY, level) - 1, 0, len(LEVELS) - 2)
        share = np.clip((level - LEVEL_ARRAY[left]) / (LEVEL_ARRAY[left + 1] - LEVEL_ARRAY[left]), 0.0, 1.0)
        low = self.cumulative[self.rows, step, left].astype(np.float64)
        return np.asarray(low + share * (self.cumulative[self.rows, step, left + 1] - low))


def reorder_point(ahead: DemandAhead, lead_mean: F64, lead_p90: F64, review_days: float, level: F64) -> F64:
    """Stock position at or below which to order, (B,), in units.

    An order placed now must last until the next one can arrive: lead time + review period. The quantile at the service
    level is taken for the mean lead time and for its 90th percentile, and the reorder point lies halfway: a lead time
    is late in one case of ten, so covering it in full would hold stock for the rare case in all others.

    Examples
    --------
    Two units a day for certain, 3 days lead time in the mean and 5 late, 1 day between reviews: between 8 and 12.

    >>> steps = 2 * np.arange(1, 11, dtype=np.float32)
    >>> ahead = DemandAhead(np.repeat(steps[None, :, None], 13, axis=2), np.zeros(1), 1.0, np.arange(1))
    >>> reorder_point(ahead, np.array([3.0]), np.array([5.0]), 1.0, np.array([0.95])).tolist()
    [10.0]
    """
    usual = ahead.quantile(lead_mean + review_days, level)
    return (usual + ahead.quantile(lead_p90 + review_days, level)) / 2


def lot_size(rate: F64, review_days: float, moq: F64, order_cost: F64 | float, holding_per_day: F64 | float) -> F64:
    """Units to order at least, so that ordering and holding cost little together, (B,).

    The demand of a review period, the minimum order, or the economic order quantity sqrt(2 K d / h), whichever is most.

    Parameters
    ----------
    order_cost, holding_per_day
        Cost of placing an order (K) and of holding a unit for a day (h); a holding cost of 0 means not known.

    Examples
    --------
    >>> lot_size(np.array([2.0]), 1.0, np.array([0.0]), order_cost=8.0, holding_per_day=0.02).tolist()
    [40.0]

    References
    ----------
    Harris (1913), How many parts to make at once.
    """
    known = np.asarray(holding_per_day, np.float64) > 0
    economic = np.where(known, np.sqrt(2 * order_cost * rate / np.where(known, holding_per_day, 1.0)), 0.0)
    return np.maximum(np.maximum(review_days * rate, economic), moq)


def critical_level(rate: F64, lot: F64, holding_per_day: F64, shortage: F64) -> F64:
    """Service level at which one more unit of stock costs as much as it saves, (B,), kept within the levels forecast.

    Per order cycle a unit more is held for lot / rate days and saves one lost sale with the probability of a shortage.

    Parameters
    ----------
    holding_per_day, shortage
        Cost of holding one unit for a day and of one unit not sold.

    Examples
    --------
    >>> one = np.ones(1)
    >>> critical_level(2 * one, 40 * one, 0.005 * one, one).round(4).tolist()
    [0.9091]

    References
    ----------
    Silver, Pyke and Thomas (2017), Inventory and Production Management in Supply Chains: cost per unit short.
    """
    ratio = holding_per_day * lot / np.maximum(shortage * rate, 1e-12)
    return np.clip(1 / (1 + ratio), LEVELS[0], LEVELS[-1])


def round_order(wanted: F64, moq: Ints, pack: Ints, room: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Quantities that can be ordered, in thousandths, and which of them were rounded down.

    Up to the minimum order and to whole packs; where that exceeds the room left below the maximum stock, down to the
    packs that fit, and nothing where those are less than the minimum order.

    Parameters
    ----------
    wanted
        Units, (B,).
    moq, pack, room
        Thousandths, (B,); a pack is at least 1.

    Examples
    --------
    >>> moq, pack = np.array([24000, 24000, 24000]), np.array([12000, 12000, 12000])
    >>> quantity, down = round_order(np.array([79.3, 5.0, 79.3]), moq, pack, np.array([UNLIMITED, UNLIMITED, 50000]))
    >>> quantity.tolist(), down.tolist()
    ([84000, 24000, 48000], [False, False, True])
    """
    need = np.maximum(np.rint(np.clip(wanted * 1000, 1.0, MOST)).astype(np.int64), np.maximum(moq, 1))
    up = -(-need // pack) * pack
    fitting = np.maximum(room, 0) // pack * pack
    down = up > fitting
    quantity = np.where(down, np.where((fitting >= moq) & (fitting > 0), fitting, 0), up)
    return quantity, down


def stockout_step(median: npt.NDArray[np.float32], available: F64) -> Ints:
    """First step (0-based) by whose end the median demand uses up what is available, or -1, (B,).

    Parameters
    ----------
    median
        Median of the cumulative demand, (B, H).

    Examples
    --------
    >>> stockout_step(np.array([[2.0, 4.0, 6.0]]), np.array([4.0])).tolist()
    [1]
    """
    reached = median >= available[:, None]
    return np.where(reached.any(axis=1), reached.argmax(axis=1), -1)
