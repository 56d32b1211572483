"""Whether a challenger may take the champion's place: a test that may be looked at every day and keeps its word.

In: what both lost on the outcomes of a bucket, how often their intervals held. Out: whether the challenger is better.
Must not know: models, forecasts. Rule: if the challenger is no better, the chance that it is ever promoted, whenever
one looks and however long one waits, is at most `ERROR`.

A test by betting (Shafer 2021, "Testing by betting"; Waudby-Smith and Ramdas 2024, "Estimating means of bounded random
variables by betting"): a stake is put on the challenger every day, and what it grows to is a martingale as long as the
challenger's advantage is nought on average. By Ville's inequality it reaches 1 / `ERROR` with a chance of at most
`ERROR`. The advantage of a day is the difference of the losses over their sum, held to four of its own deviations as
known the day before. Several stakes are bet side by side, and their mean counts, so that none has to be chosen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ERROR = 0.05
"""Chance at most that a challenger that is no better is ever promoted."""

STAKES = (0.1, 0.2, 0.4, 0.8)
"""Shares of what there is that are bet each day, side by side."""

WARM_BUCKETS = 5
"""Outcomes from which the first deviation is known; nothing is bet on them."""

DEVIATIONS = 4.0
"""An advantage is held to so many of them: one strange day decides nothing."""

COVERAGE_MARGIN = 0.02
"""How much farther from what it promises the challenger's interval may be."""


class Trial:
    """A challenger's case.

    Parameters
    ----------
    promised
        Share of outcomes that the intervals promise to hold.

    Examples
    --------
    >>> random, trial = np.random.default_rng(1), Trial()
    >>> for day in range(60):
    ...     trial.add(100 + random.normal(), 98 + random.normal(), (0.8, 0.8))
    ...     if trial.is_better:
    ...         break
    >>> day in range(8, 30)
    True
    """

    def __init__(self, promised: float = 0.8) -> None:
        self._promised = promised
        self._logs = np.zeros(len(STAKES))
        self._squares = 0.0
        self._buckets = 0
        self._gaps = np.zeros(2)  # faded coverage of both, less what is promised
        self.greatest = 0.0

    def add(self, champion: float, challenger: float, covered: tuple[float, float]) -> None:
        """Take in a bucket.

        Parameters
        ----------
        champion, challenger
            Losses of both on the same outcomes.
        covered
            Shares of the outcomes within the intervals of both.
        """
        both = champion + challenger
        if not both > 0:
            return
        advantage = (champion - challenger) / both
        if self._buckets >= WARM_BUCKETS:
            reach = DEVIATIONS * math.sqrt(max(self._squares / self._buckets, 1e-12))
            held = max(-1.0, min(1.0, advantage / reach))
            self._logs += np.log1p(np.array(STAKES) * held)
        self._squares += advantage * advantage
        self._buckets += 1
        self._gaps += (np.array(covered) - self._promised - self._gaps) / min(self._buckets, 28)
        self.greatest = max(self.greatest, self.evidence)

    @property
    def evidence(self) -> float:
        """What a stake of one has become."""
        return float(np.exp(self._logs).mean())

    @property
    def is_better(self) -> bool:
        """Whether the challenger is better, and its interval no worse."""
        own, other = np.abs(self._gaps)[::-1]
        return self.greatest >= 1 / ERROR and self.evidence >= 1 and bool(own <= other + COVERAGE_MARGIN)

    def snapshot(self) -> dict[str, Any]:
        """What was seen, as plain values."""
        return {
            "logs": self._logs.tolist(), "squares": self._squares, "buckets": self._buckets,
            "gaps": self._gaps.tolist(), "greatest": self.greatest,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave."""
        self._logs, self._gaps = np.array(state["logs"]), np.array(state["gaps"])
        self._squares, self._buckets = float(state["squares"]), int(state["buckets"])
        self.greatest = float(state["greatest"])
