"""Figures of a benchmark: percentiles, a trend with its confidence, what histograms say, goals and verdicts.

In: what was measured. Out: plain values for JSON, lines for people.
Must not know: how it was measured. Rule: a goal that could not be measured is not reached.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_BUCKET = re.compile(r'\{(?:.*,)?le="([^"]+)"\} (\S+)$')


def percentiles(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Number, median, upper percentiles and the greatest of what was measured; empty where nothing was.

    Examples
    --------
    >>> percentiles([1.0, 2.0, 9.0])
    {'n': 3, 'min': 1.0, 'p50': 2.0, 'p90': 7.6, 'p99': 8.9, 'max': 9.0}
    """
    if not len(values):
        return {}
    at = dict(zip(("min", "p50", "p90", "p99", "max"), np.percentile(values, [0, 50, 90, 99, 100]), strict=True))
    return {"n": len(values), **{name: round(float(value), digits) for name, value in at.items()}}


def trend(at_s: Sequence[float], values: Sequence[float]) -> dict[str, float] | None:
    """Slope per second of a line through values, and half the width of its 95 % interval; None for too few.

    Neighbours in time are alike, so that ordinary errors would be too small: they are those of Newey and West (1987)
    with 4 (n / 100)^(2/9) lags, rounded down.

    Examples
    --------
    >>> trend([0, 1, 2, 3, 4, 5], [1, 3, 5, 7, 9, 11])
    {'per_s': 2.0, 'within': 0.0}
    """
    x, y = np.asarray(at_s, np.float64), np.asarray(values, np.float64)
    n = len(x)
    if n < 5:
        return None
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    moments = x * (y - y.mean() - slope * x)
    lags = int(4 * (n / 100) ** (2 / 9))
    total = float(moments @ moments)
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * float(moments[lag:] @ moments[:-lag])
    within = 1.96 * math.sqrt(max(0.0, total) * n / (n - 2)) / float(x @ x)
    return {"per_s": round(slope, 6), "within": round(within, 6)}


def histogram(metrics: str, name: str) -> dict[float, float]:
    """Cumulative counts of a histogram, all labels together, from the text that Prometheus reads.

    Examples
    --------
    >>> histogram('a_bucket{le="0.1"} 2.0\\na_bucket{le="+Inf"} 3.0', "a")
    {0.1: 2.0, inf: 3.0}
    """
    out: dict[float, float] = {}
    for line in metrics.splitlines():
        if line.startswith(f"{name}_bucket") and (found := _BUCKET.search(line)):
            out[float(found[1])] = out.get(float(found[1]), 0.0) + float(found[2])
    return out


def quantile(counts: Mapping[float, float], level: float) -> float | None:
    """Where a quantile lies by cumulative counts, in the middle of its bucket's share; None where nothing was counted.

    Examples
    --------
    >>> quantile({1.0: 0.0, 2.0: 10.0, float("inf"): 10.0}, 0.5)
    1.5
    """
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return None
    wanted, below, before = level * counts[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= wanted:
            if math.isinf(bound):
                return below
            return below + (bound - below) * (wanted - before) / max(1e-12, counts[bound] - before)
        below, before = bound, counts[bound]
    return below


def since(earlier: Mapping[float, float], later: Mapping[float, float]) -> dict[float, float]:
    """What a histogram has counted between two looks."""
    return {bound: count - earlier.get(bound, 0.0) for bound, count in later.items()}


@dataclass(frozen=True)
class Goal:
    """One thing that was promised.

    Attributes
    ----------
    what
        In words.
    value
        As measured, None where it could not be.
    most
        The greatest value that keeps the promise.
    unit
        Of both.
    """

    what: str
    value: float | None
    most: float
    unit: str

    @property
    def reached(self) -> bool:
        """Whether it is kept."""
        return self.value is not None and self.value <= self.most

    @property
    def line(self) -> str:
        """For people.

        Examples
        --------
        >>> Goal("event to forecast, p99", 180.4, 250, "ms").line
        'event to forecast, p99: 180 ms, goal <= 250 ms: reached'
        """
        value = "not measured" if self.value is None else f"{_plain(self.value)} {self.unit}"
        return f"{self.what}: {value}, goal <= {self.most:g} {self.unit}: {'' if self.reached else 'not '}reached"


def _plain(value: float) -> str:
    """Three digits, or as many as lie before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def goals_json(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """Goals as JSON has them."""
    return [{**asdict(goal), "reached": goal.reached} for goal in goals]
