"""Augmentation: a training window changed so that a net cannot learn it by heart.

In: a `ForecastBatch`, a random generator. Out: another batch, and what its demand was multiplied by.
Must not know: nets, panels, what is scored. Rule: all of it is off by default, and nothing is drawn for what is off,
so that a run without it stays the same to the bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.forecast import F32, ForecastBatch
from models.panel import Panel

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

IN_UNITS = ("units", "cancelled", "orders", "revenue", "views", "carts", "sessions")
"""Channels that grow with a shop as its demand does."""

MOST_MASKED_SEASONS = 4
"""Of history that is blanked in one piece: a month of days, as a supplier's strike or a lost file leaves it."""


def augmented(
    batch: ForecastBatch, rng: np.random.Generator, *, scaling: float, masking: float, promo_dropout: float
) -> tuple[ForecastBatch, F32]:
    """Change windows at random.

    Parameters
    ----------
    scaling
        Standard deviation of the logarithm of the factor that a window's demand is multiplied by.
    masking
        Chance that a span of a window's history is blank; the same again for its weeks, and for each channel.
    promo_dropout
        Chance that a window's known covariates are all unknown.

    Returns
    -------
    The batch, and the factor of each window, float32 (B,).
    """
    factor = np.ones(len(batch), np.float32)
    if scaling:
        factor = np.exp(scaling * rng.standard_normal(len(batch))).astype(np.float32)
        batch = _scaled(batch, factor)
    if masking:
        batch = _masked(batch, rng, masking)
    if promo_dropout:
        silent = _drawn(rng, len(batch), promo_dropout)
        batch = replace(batch, known={name: _blank(values, silent) for name, values in batch.known.items()})
    return batch, factor


def _scaled(batch: ForecastBatch, factor: F32) -> ForecastBatch:
    wide = factor[:, None]
    channels = {name: values * wide if name in IN_UNITS else values for name, values in batch.channels.items()}
    weeks = None if batch.weeks is None else batch.weeks * wide
    return replace(batch, demand=batch.demand * wide, observed=batch.observed * factor, channels=channels, weeks=weeks)


def _masked(batch: ForecastBatch, rng: np.random.Generator, chance: float) -> ForecastBatch:
    """Blank a span of history, all weeks, or a whole channel; a season of demand is always left."""
    rows, buckets = len(batch), int(batch.demand.shape[1])
    length = rng.integers(1, MOST_MASKED_SEASONS * batch.season + 1, rows)
    begin = rng.integers(0, buckets, rows)
    place = np.arange(buckets)[None]
    span = (place >= begin[:, None]) & (place < (begin + length)[:, None])
    span &= _drawn(rng, rows, chance)[:, None]
    left: Bools = np.asarray((np.isfinite(batch.demand) & batch.is_open & ~span).sum(axis=1) >= batch.season)
    span &= left[:, None]
    demand = np.where(span, np.float32(np.nan), batch.demand)
    weeks = None if batch.weeks is None else _blank(batch.weeks, _drawn(rng, rows, chance))
    channels = {name: _blank(batch.channels[name], _drawn(rng, rows, chance)) for name in sorted(batch.channels)}
    return replace(batch, demand=demand, weeks=weeks, channels=channels)


def _drawn(rng: np.random.Generator, rows: int, chance: float) -> Bools:
    return np.asarray(rng.random(rows) < chance)


def _blank(values: F32, rows: Bools) -> F32:
    out: F32 = np.where(rows[:, None], np.float32(np.nan), values)
    return out


def sold_share(demand: F32) -> npt.NDArray[np.float64]:
    """Share of known buckets in which something was sold, (rows,), at least 1 / (buckets + 1)."""
    known = np.isfinite(demand)
    sold = (np.where(known, demand, 0) > 0).sum(axis=1)
    share: npt.NDArray[np.float64] = (sold + 1) / (known.sum(axis=1) + 1)
    return share


def chances(panel: Panel, series: I64, last: int, *, scale_power: float, sold_power: float) -> npt.NDArray[np.float64]:
    """Cumulative chances of windows to be drawn, (windows,), ending with 1.

    Parameters
    ----------
    series
        Row of each window, (windows,).
    last
        Column of the panel after which nothing is read.
    scale_power
        A window's chance grows with its series' mean demand to this power; below zero, small sellers are drawn more.
    sold_power
        And with the share of days on which it sold.
    """
    demand = panel.task.demand[:, : last + 1]
    known = np.isfinite(demand)
    total = np.where(known, np.maximum(demand, 0), 0).sum(axis=1, dtype=np.float64)
    mean = np.maximum(total / np.maximum(known.sum(axis=1), 1), 0.02)
    weight = (mean**scale_power * sold_share(demand) ** sold_power)[series]
    running = np.cumsum(weight / weight.sum())
    return np.asarray(running / running[-1])
