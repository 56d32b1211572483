"""What a forecaster is: arrays of history in, quantiles out.

In: a `ForecastBatch`: history, what is known of the future, the open bucket.
Out: a `Forecast`: quantiles per step, their mean, cumulative quantiles, and what it rests on.
Must not know: shops, Kafka, clocks. Rule: row i of the result answers row i of the batch, and no other row changes it.

Shapes: B series, T context, H horizon, Q levels.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

LEVELS: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Quantile levels of every published forecast: the contract of ``forecast.demand.v1``."""


class ForecastError(Exception):
    """A forecaster cannot answer.

    ForecastError
    ├── HorizonError     the horizon is zero or beyond the model's limit
    └── ModelLoadError   the weights cannot be read
    """


class HorizonError(ForecastError):
    """The horizon is zero or beyond what the model can do."""


class Basis(IntEnum):
    """What a forecast rests on; the name in lower case is published as ``basis``."""

    MODEL = 0
    BASELINE = 1
    COLD_START = 2


@dataclass(frozen=True, slots=True)
class Pool:
    """Demand that a series of one group may show, for series that have no history of their own.

    Attributes
    ----------
    quantiles
        Per group the quantiles of the mixture of its series for each phase of the season, float32, shape (G, S, Q);
        phase 0 is the phase of step 1. The last group is "all".
    """

    quantiles: F32  # (G, S, Q)


@dataclass(frozen=True, slots=True)
class ForecastBatch:
    """The rows that are forecast together. Column T-1 of the history is the last closed bucket, step 1 the open one.

    Attributes
    ----------
    demand
        Demand per closed bucket, oldest first, NaN before the series began, float32 (B, T).
    is_open
        False where a bucket was closed for business (its demand says nothing), bool (B, T).
    future_open
        False where a step is known to be closed: its forecast is zero, bool (B, H).
    observed
        Demand already seen in step 1, float32 (B,).
    elapsed
        Share of step 1 that is over, 0 to below 1, float32 (B,).
    day
        Local day number of step 1 (days since 1970-01-01), int64 (B,).
    hour
        Local hour of step 1 (0 for daily buckets), int64 (B,).
    season
        Buckets per season: 7 for days, 24 for hours.
    group
        Index into the pool's groups, -1 where none is known, int32 (B,).
    pool
        What to borrow from, or None.
    channels
        Further history per name (units, cancelled, orders, revenue, views, carts, sessions, price, promo, in_stock),
        float32 (B, T), NaN where unknown.
    known
        Covariates known for the past and the horizon, per name, float32 (B, T + H), NaN where unknown.
    weeks
        Demand per whole calendar week before that of step 1, oldest first, float32 (B, W), or None; NaN before the
        series began, and where a week is not final yet.
    attributes
        What kind of item a row is, per name (category, kind of store): `attribute_code` of the word, -1 where it is
        unknown, int64 (B,).
    borrowed
        Quantiles per phase of the season that a row with less than a season of history is forecast as, float32
        (B, S, Q) or None; phase 0 is that of step 1. NaN where there is nothing to borrow; a row that is older does
        not look at its own.
    """

    demand: F32
    is_open: Bools
    future_open: Bools
    observed: F32
    elapsed: F32
    day: npt.NDArray[np.int64]
    hour: npt.NDArray[np.int64]
    season: int
    group: npt.NDArray[np.int32]
    pool: Pool | None = None
    channels: Mapping[str, F32] = field(default_factory=dict)
    known: Mapping[str, F32] = field(default_factory=dict)
    weeks: F32 | None = None
    attributes: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    borrowed: F32 | None = None

    def __len__(self) -> int:
        return len(self.demand)

    @property
    def horizon(self) -> int:
        """Number of steps asked for."""
        return int(self.future_open.shape[1])


@dataclass(frozen=True, slots=True)
class Forecast:
    """Quantiles per series, step and level; finite, at least zero, never crossing along Q.

    Attributes
    ----------
    quantiles
        Whole total of each step's bucket, float32 (B, H, Q); step 1 is never below what was observed.
    mean
        Mean of the same, float32 (B, H).
    cumulative
        Demand still to come up to the end of step h, float32 (B, H, Q); never falls along H. Step 1 counts less the
        observed part.
    cumulative_mean
        Mean of the same, float32 (B, H).
    basis
        `Basis` per row, uint8 (B,).
    """

    quantiles: F32
    mean: F32
    cumulative: F32
    cumulative_mean: F32
    basis: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.quantiles)


class Forecaster(Protocol):
    """Anything that answers a batch. ``name`` is published as ``model``; it must change with the weights."""

    @property
    def name(self) -> str:
        """Name and digest, for example ``retail-1@sha256:…`` or ``baseline-1``."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of history that it reads beyond demand; with any, it is given weeks and known covariates too."""
        ...

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Forecast every row of the batch.

        Raises
        ------
        HorizonError
            If the horizon is zero or above the model's limit.
        """
        ...


def buckets_per_day(season: int) -> int:
    """Buckets of a day, by the buckets of a season: 24 of hours, 1 of days.

    Examples
    --------
    >>> buckets_per_day(24), buckets_per_day(7)
    (24, 1)
    """
    return 24 if season == 24 else 1


def attribute_code(word: str) -> int:
    """A number for a word, the same on every machine: CRC-32, so that batches hold no text.

    Examples
    --------
    >>> attribute_code("kitchen")
    3936603700
    """
    return zlib.crc32(word.encode())


def take(batch: ForecastBatch, rows: npt.NDArray[Any] | slice) -> ForecastBatch:
    """Select rows of a batch, in the order given; the pool is shared."""
    return ForecastBatch(
        demand=batch.demand[rows],
        is_open=batch.is_open[rows],
        future_open=batch.future_open[rows],
        observed=batch.observed[rows],
        elapsed=batch.elapsed[rows],
        day=batch.day[rows],
        hour=batch.hour[rows],
        season=batch.season,
        group=batch.group[rows],
        pool=batch.pool,
        channels={name: values[rows] for name, values in batch.channels.items()},
        known={name: values[rows] for name, values in batch.known.items()},
        weeks=None if batch.weeks is None else batch.weeks[rows],
        attributes={name: values[rows] for name, values in batch.attributes.items()},
        borrowed=None if batch.borrowed is None else batch.borrowed[rows],
    )


def borrowing(batch: ForecastBatch) -> Bools:
    """Rows that are forecast as what they borrow: less than a season of history, and something to borrow, (B,)."""
    if batch.borrowed is None:
        return np.zeros(len(batch), bool)
    young = (np.isfinite(batch.demand) & batch.is_open).sum(axis=1) < batch.season
    return np.asarray(young & np.isfinite(batch.borrowed).all(axis=(1, 2)))


def take_forecast(forecast: Forecast, rows: npt.NDArray[Any] | slice) -> Forecast:
    """Select rows of a forecast, in the order given."""
    return Forecast(
        quantiles=forecast.quantiles[rows],
        mean=forecast.mean[rows],
        cumulative=forecast.cumulative[rows],
        cumulative_mean=forecast.cumulative_mean[rows],
        basis=forecast.basis[rows],
    )
