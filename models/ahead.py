"""What was said ahead of known columns, where something else came true.

In: for windows by series and cutoff, steps and values. Out: known columns of batches as they were known at the cutoff.
Must not know: files, panels, shops. Rule: a window of which nothing is noted knew ahead what came true.

A promotion that nobody announced is a zero ahead, until it begins; a price that changes tomorrow is today's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.forecast import F32

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ahead:
    """Values of one column, ordered by window; make it with `ahead_of`.

    Attributes
    ----------
    window
        ``series * buckets + cutoff`` of each, ascending, int64 (M,).
    step, value
        Step from 0, and what was said of it, NaN for nothing, (M,).
    buckets
        Of a series.
    """

    window: I64
    step: I64
    value: F32
    buckets: int

    def put(self, known: F32, series: I64, cutoff: I64, context: int) -> None:
        """Write what was said into windows: `known` is (B, context + H), and changes."""
        asked = series * self.buckets + cutoff
        begin, end = (np.searchsorted(self.window, asked, side) for side in ("left", "right"))
        count = end - begin
        row = np.repeat(np.arange(len(asked)), count)
        at = np.arange(int(count.sum())) + np.repeat(begin - (np.cumsum(count) - count), count)
        near = self.step[at] < known.shape[1] - context
        known[row[near], context + self.step[at[near]]] = self.value[at[near]]


def ahead_of(series: I64, cutoff: I64, step: I64, value: F32, buckets: int) -> Ahead:
    """Order what was said, by window and step.

    Examples
    --------
    >>> said = ahead_of(np.array([1, 0]), np.array([5, 2]), np.array([0, 1]), np.array([9, 7], np.float32), 10)
    >>> known = np.zeros((2, 4), np.float32)
    >>> said.put(known, np.array([0, 1]), np.array([2, 4]), context=2)
    >>> known.tolist()
    [[0.0, 0.0, 0.0, 7.0], [0.0, 0.0, 0.0, 0.0]]
    """
    window = series * buckets + cutoff
    order = np.lexsort((step, window))
    return Ahead(window[order], step[order], value[order], buckets)
