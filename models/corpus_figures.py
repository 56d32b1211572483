"""What a task's series look like, in figures: how a made-up shop is held beside a real one.

In: a `Task`. Out: quantiles over its series of a few figures.
Must not know: where the task comes from, forecasters. Rule: days that are told to be closed do not count.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from models.panel import known_name
from models.task import Task

F64 = npt.NDArray[np.float64]
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
LEAST_DAYS = 5
"""Days that each side of a comparison must have."""

YEAR_LAG_DAYS = 364


def describe(task: Task) -> dict[str, tuple[float, ...]]:
    """Describe a task; the same lags and phases for days and hours.

    Returns
    -------
    dict
        Name of a figure -> its quantiles over series at `QUANTILES`, NaN where no series has it:

        * ``mean``: units a bucket; ``zeros``: share of buckets without demand; ``peak``: greatest demand over mean;
        * ``dispersion``: ``(variance - mean) / mean^2`` around the mean of the four same phases before, 0 for a
          Poisson count (less than 0 for what varies less);
        * ``phase``: share of the variance that lies between phases of the season (weekdays, hours);
        * ``lag_1``, ``lag_season``, ``lag_year``: autocorrelation at 1 bucket, 1 season and 364 days;
        * ``promo_share``, ``promo_lift``: share of buckets with a promotion, mean demand on them over that on others;
        * ``price_changes``: share of buckets whose price is not that of the bucket before;
        * ``whole``: whether all demand is whole.

        Phases and lags are those of ``log(1 + demand / mean)``, so that a single large order does not make them.

    Examples
    --------
    >>> from models.corpus import corpus
    >>> figures = describe(corpus(50, 400, seed=1))
    >>> 0 < figures["zeros"][2] < 1, figures["whole"]
    (True, (0.0, 0.0, 1.0, 1.0, 1.0))
    """
    demand = _open_demand(task)
    season, per_day = task.file.season, 1 if task.file.freq == "D" else 24
    mean = _mean(demand)
    steady = np.log1p(demand / np.maximum(mean, 1e-9)[:, None])
    known = {known_name(name): values for name, values in task.known.items()}
    absent = np.full(demand.shape, np.nan, np.float32)
    promo, price = known.get("promo", absent), known.get("price", absent)
    figures = {
        "mean": mean,
        "zeros": _mean(np.where(np.isfinite(demand), demand == 0, np.nan)),
        "peak": np.nan_to_num(demand).max(axis=1) / np.maximum(mean, 1e-9),
        "dispersion": _dispersion(demand, mean, season),
        "phase": _phase_share(steady, season),
        "lag_1": _lag(steady, 1),
        "lag_season": _lag(steady, season),
        "lag_year": _lag(steady, YEAR_LAG_DAYS * per_day),
        "promo_share": _mean(promo),
        "promo_lift": _lift(demand, promo),
        "price_changes": _mean(np.where(np.isfinite(np.diff(price)), np.diff(price) != 0, np.nan)),
        "whole": np.where(np.isfinite(demand), demand == np.rint(demand), True).all(axis=1).astype(np.float64),
    }
    return {name: _quantiles(values) for name, values in figures.items()}


def table(columns: Mapping[str, Mapping[str, tuple[float, ...]]]) -> str:
    """Lay out what `describe` says of several tasks, one line per figure and task.

    Examples
    --------
    >>> print(table({"a": {"zeros": (0.0, 0.1, 0.25, 0.5, 0.75)}}))
    figure         task                p10       p25       p50       p75       p90
    zeros          a                     0       0.1      0.25       0.5      0.75
    """
    heads = "".join(f"{f'p{100 * level:.0f}':>10s}" for level in QUANTILES)
    lines = [f"{'figure':14s} {'task':13s}{heads}"]
    for figure in next(iter(columns.values())):
        for name, figures in columns.items():
            lines.append(f"{figure:14s} {name:13s}" + "".join(f"{value:10.3g}" for value in figures[figure]))
    return "\n".join(lines)


def _open_demand(task: Task) -> F64:
    demand = task.demand.astype(np.float64)
    if task.file.open is not None:
        demand[task.known[task.file.open] == 0] = np.nan
    return demand


def _mean(values: npt.NDArray[np.floating]) -> F64:
    """Mean of what is known in each row, NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _variance(values: F64) -> F64:
    return _mean((values - _mean(values)[:, None]) ** 2)


def _dispersion(demand: F64, mean: F64, season: int) -> F64:
    span = demand.shape[1] - 4 * season
    if span < 1:
        return np.full(len(demand), np.nan)
    before = sum(demand[:, n * season : n * season + span] for n in range(4)) / 4
    spread = _mean((demand[:, 4 * season :] - before) ** 2) / 1.25  # the mean of four has a quarter of the variance
    return np.where(mean > 0, (spread - mean) / np.maximum(mean, 1e-9) ** 2, np.nan)


def _phase_share(values: F64, season: int) -> F64:
    centred = values - _mean(values)[:, None]
    total, between = _variance(values), np.zeros(len(values))
    count = np.maximum(np.isfinite(values).sum(axis=1), 1)
    for phase in range(season):
        own = centred[:, phase::season]
        between += np.isfinite(own).sum(axis=1) * np.nan_to_num(_mean(own)) ** 2
    return np.where(total > 0, between / count / np.where(total > 0, total, 1), np.nan)


def _lag(values: F64, lag: int) -> F64:
    """Correlation with the same row some buckets before, NaN where fewer than `LEAST_DAYS` pairs are known."""
    if values.shape[1] <= lag:
        return np.full(len(values), np.nan)
    centred = values - _mean(values)[:, None]
    now, then = centred[:, lag:], centred[:, :-lag]
    both = np.isfinite(now) & np.isfinite(then)
    now, then = np.where(both, now, 0), np.where(both, then, 0)
    size = np.sqrt((now**2).sum(axis=1) * (then**2).sum(axis=1))
    enough = (both.sum(axis=1) >= LEAST_DAYS) & (size > 0)
    return np.where(enough, (now * then).sum(axis=1) / np.where(size > 0, size, 1), np.nan)


def _lift(demand: F64, promo: npt.NDArray[np.floating]) -> F64:
    on, off = (np.where(promo == value, demand, np.nan) for value in (1, 0))
    known = np.minimum(np.isfinite(on).sum(axis=1), np.isfinite(off).sum(axis=1))
    usual = _mean(off)
    return np.where((known >= LEAST_DAYS) & (usual > 0), _mean(on) / np.where(usual > 0, usual, 1), np.nan)


def _quantiles(values: F64) -> tuple[float, ...]:
    known = values[np.isfinite(values)]
    if not len(known):
        return (float("nan"),) * len(QUANTILES)
    return tuple(float(value) for value in np.quantile(known, QUANTILES))
