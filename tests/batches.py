"""Forecast batches for tests: defaults for everything, so that a test shows only what matters to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from models.forecast import F32, ForecastBatch, Pool

Scalar = TypeVar("Scalar", bound=np.generic)


def batch_of(
    demand: npt.ArrayLike,
    *,
    horizon: int = 14,
    season: int = 7,
    is_open: npt.ArrayLike | None = None,
    future_open: npt.ArrayLike | None = None,
    observed: npt.ArrayLike = 0.0,
    elapsed: npt.ArrayLike = 0.0,
    day: int = 19_000,
    group: npt.ArrayLike = -1,
    pool: Pool | None = None,
    channels: Mapping[str, F32] | None = None,
    known: Mapping[str, F32] | None = None,
) -> ForecastBatch:
    """A batch of rows that are open, with nothing observed and nothing borrowed unless said otherwise."""
    values = np.atleast_2d(np.asarray(demand, np.float32))
    rows, buckets = values.shape
    return ForecastBatch(
        demand=values,
        is_open=_filled(True if is_open is None else is_open, (rows, buckets), np.bool_),
        future_open=_filled(True if future_open is None else future_open, (rows, horizon), np.bool_),
        observed=_filled(observed, (rows,), np.float32),
        elapsed=_filled(elapsed, (rows,), np.float32),
        day=np.full(rows, day, np.int64),
        hour=np.zeros(rows, np.int64),
        season=season,
        group=_filled(group, (rows,), np.int32),
        pool=pool,
        channels=channels or {},
        known=known or {},
    )


def _filled(values: npt.ArrayLike, shape: tuple[int, ...], kind: type[Scalar]) -> npt.NDArray[Scalar]:
    return np.array(np.broadcast_to(np.asarray(values, kind), shape))


def shop(
    rows: int, buckets: int = 84, *, seed: int = 0, gaps: bool = True, horizon: int = 28, season: int = 7
) -> ForecastBatch:
    """Rows as a shop has them: busy and slow, young and empty ones, closed and unobserved buckets, an open bucket."""
    random = np.random.default_rng([seed, rows, buckets])
    level = random.gamma(0.5, 8, (rows, 1)) + 0.05
    weekly = 1 + 0.5 * np.sin(np.arange(buckets) * 2 * np.pi / season)
    demand = random.poisson(level * weekly * random.gamma(2, 0.5, (rows, buckets))).astype(np.float32)
    is_open = np.ones((rows, buckets), bool)
    future_open = np.ones((rows, horizon), bool)
    if gaps:
        age = np.where(random.random(rows) < 0.5, buckets, random.integers(0, buckets + 1, rows))
        demand[np.arange(buckets) < (buckets - age)[:, None]] = np.nan
        some = random.random(rows) < 0.5
        is_open[some] = random.random((int(some.sum()), buckets)) > 0.1
        future_open[some] = random.random((int(some.sum()), horizon)) > 0.1
    return batch_of(
        demand,
        horizon=horizon,
        season=season,
        is_open=is_open,
        future_open=future_open,
        observed=random.poisson(level[:, 0] / 3),
        elapsed=random.random(rows) * 0.99,
        group=random.integers(-1, 3, rows),
    )
