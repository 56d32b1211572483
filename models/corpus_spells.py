"""Spells in time: stretches of days on which something lasts, and how far away it is.

In: a generator, how often and how long. Out: matrices, series by days.
Must not know: what lasts. Rule: everything comes from the generator, so that a seed gives the same spells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import F32

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
NEVER = 1 << 20
"""Days to something that does not occur."""


@dataclass(frozen=True, slots=True)
class Spells:
    """Stretches of days, N series by D days.

    Attributes
    ----------
    on
        Whether one lasts, bool (N, D).
    begun
        Column on which the newest one began, int64 (N, D), 0 where none has.
    """

    on: Mask
    begun: I64

    def each(self, values: F32) -> F32:
        """Give every spell one value: that of the column on which it began; 0 outside spells."""
        found: F32 = np.where(self.on, np.take_along_axis(values, self.begun, axis=1), np.float32(0))
        return found


def spells(rng: np.random.Generator, gap: F32, length: F32, days: int, may_begin: Mask | None = None) -> Spells:
    """Draw stretches that begin at random.

    Parameters
    ----------
    gap, length
        Mean days from one beginning to the next, and mean length in days (at least 1), float32 (N,).
        Lengths are geometric.
    may_begin
        Days on which one may begin, bool (N, D); the mean gap stays as it was asked for.

    Examples
    --------
    >>> found = spells(np.random.default_rng(1), np.full(1, 5, np.float32), np.full(1, 2, np.float32), 12)
    >>> found.on.astype(int)
    array([[0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]])
    """
    shape = (len(gap), days)
    chance = np.broadcast_to(1 / np.maximum(gap, 1)[:, None], shape)
    if may_begin is not None:
        chance = np.where(may_begin, chance / np.maximum(may_begin.mean(axis=1, keepdims=True), 1 / days), 0)
    begins = rng.random(shape, dtype=np.float32) < chance
    place = np.arange(days)
    begun = np.maximum.accumulate(np.where(begins, place, -1), axis=1)
    stay = 1 - 1 / np.maximum(length, 1.001)
    lengths = 1 + np.floor(np.log1p(-rng.random(shape, dtype=np.float32)) / np.log(stay)[:, None])
    lasts = np.take_along_axis(lengths, np.maximum(begun, 0), axis=1)
    return Spells((begun >= 0) & (place - begun < lasts), np.maximum(begun, 0))


def days_since(on: npt.NDArray[Any]) -> I64:
    """Days since the last true value along the last axis: 0 on such a day, `NEVER` before the first.

    Examples
    --------
    >>> days_since(np.array([False, True, False, False])) % NEVER
    array([0, 0, 1, 2])
    """
    place = np.arange(on.shape[-1])
    last = np.maximum.accumulate(np.where(on, place, -NEVER), axis=-1)
    since: I64 = np.where(last >= 0, place - last, NEVER)
    return since


def days_until(on: npt.NDArray[Any]) -> I64:
    """Days until the next true value along the last axis: 0 on such a day, `NEVER` after the last.

    Examples
    --------
    >>> days_until(np.array([False, False, True]))
    array([2, 1, 0])
    """
    return days_since(on[..., ::-1])[..., ::-1]


def log_uniform(rng: np.random.Generator, low: float, high: float, count: int) -> F32:
    """Numbers whose logarithm is uniform, float32 (count,)."""
    drawn: F32 = np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(np.float32)
    return drawn


def chosen(rng: np.random.Generator, share: float, count: int) -> Mask:
    """A share of the series at random, bool (count,)."""
    drawn: Mask = rng.random(count) < share
    return drawn
