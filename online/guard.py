"""Whether what was learned would have paid: running losses of candidates, and which of them may act.

In: losses of all candidates on the same outcomes. Out: the candidate that acts, per sampled horizon.
Must not know: what the candidates are. Rule: the first candidate is to change nothing; another acts only while it has
lost clearly less of late, and what it would have lost is counted whether it acts or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import buckets_per_day

F64 = npt.NDArray[np.float64]

HALF_LIVES = (28.0, 1.5)
"""Days after which a loss counts half: a candidate must have lost less over weeks, and not more these days, so that
what paid in a peak ends with it."""

LEAST_DAYS = 14.0
"""Days of losses before anything may act: two of each weekday."""


class Guard:
    """Faded sums of the losses of some candidates.

    Parameters
    ----------
    horizons
        Number of sampled horizons.
    candidates
        Number of candidates, the first of which changes nothing.
    begin, end
        A candidate begins to act where its loss is at most so many times that of the first, and ends above the other.
    season
        Buckets per season: 7 for days, 24 for hours.

    Examples
    --------
    >>> guard = Guard(1, 2, begin=0.995, end=1.0, season=7)
    >>> for _ in range(20):
    ...     guard.add(0, np.array([10.0, 9.0]))
    >>> guard.acts
    [1]
    >>> for _ in range(20):
    ...     guard.add(0, np.array([10.0, 13.0]))
    >>> guard.acts
    [0]
    """

    def __init__(self, horizons: int, candidates: int, *, begin: float, end: float, season: int) -> None:
        per_day = buckets_per_day(season)
        self._fade = 0.5 ** (1 / (np.array(HALF_LIVES) * per_day))
        slow = float(self._fade[0])
        self._least = (1 - slow ** (LEAST_DAYS * per_day - 0.5)) / (1 - slow)
        self._begin, self._end = begin, end
        self._losses = np.zeros((horizons, candidates))
        self._quick = np.zeros((horizons, candidates))
        self._counts = np.zeros(horizons)
        self.acts = [0] * horizons

    def add(self, index: int, losses: F64) -> None:
        """Take in what each candidate lost in a bucket at one horizon, (candidates,)."""
        slow, quick = self._fade
        self._losses[index] = self._losses[index] * slow + losses
        self._quick[index] = self._quick[index] * quick + losses
        self._counts[index] = self._counts[index] * slow + 1
        late = self._quick[index] > self._end * self._quick[index, 0]  # of each: whether it has lost more these days
        none, acts = self._losses[index, 0], self.acts[index]
        best = int(self._losses[index].argmin())
        if self._counts[index] < self._least or self._losses[index, acts] > none * self._end or late[acts]:
            self.acts[index] = 0
        elif self._losses[index, best] <= self._begin * min(none, self._losses[index, acts]) and not late[best]:
            self.acts[index] = best

    def snapshot(self) -> dict[str, Any]:
        """The sums, as plain values."""
        return {
            "losses": self._losses.tobytes(),
            "quick": self._quick.tobytes(),
            "counts": self._counts.tobytes(),
            "acts": self.acts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave."""
        self._losses[:] = np.frombuffer(state["losses"], np.float64).reshape(self._losses.shape)
        self._quick[:] = np.frombuffer(state["quick"], np.float64).reshape(self._quick.shape)
        self._counts[:] = np.frombuffer(state["counts"], np.float64).reshape(self._counts.shape)
        self.acts = list(state["acts"])
