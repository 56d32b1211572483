"""From rates to demand: scale, hours, noise, whole units or turnover.

In: `Rates` of a family, mean demand a day, whether demand is whole. Out: demand, series by buckets.
Must not know: families, plans. Rule: demand is finite and never negative, and 0 wherever the rate is 0.

Counts are negative binomial, a Poisson count whose mean is gamma distributed: ``variance = mean + dispersion mean^2``.
Turnover is a count of baskets times what a basket is worth. Orders are a renewal process run on the clock of the rate,
with sizes of their own: clumps where gaps vary more than those of a Poisson process, near regular where less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.corpus_spells import I64, Mask, chosen, log_uniform
from models.forecast import F32

F64 = npt.NDArray[np.float64]
COUNTS, GAMMA, EXACT = 0, 1, 2
MOST_UNITS = 1e8
MOST_TIMES = 300.0
"""A day's rate is at most so many times the mean: shapes multiply, and no shop sells a decade in a day."""

LEAST_EXACT_UNITS = 5.0
"""Whole demand without noise needs some size, or rounding makes it all 0."""

PACKS = (1, 1, 1, 1, 6, 10, 12, 24)


@dataclass(frozen=True, slots=True)
class Orders:
    """How orders of N series come.

    Attributes
    ----------
    per_day
        Mean number, float32 (N,).
    regularity
        Shape of the gamma distributed gaps: 1 a Poisson process, below 1 clumps, above 1 a rhythm; float32 (N,).
    tail
        0 sizes are exponential, 1 lognormal, 2 Pareto; int64 (N,).
    spread
        Standard deviation of the logarithm of sizes (lognormal), float32 (N,); Pareto's exponent is 1 + 1/spread.
    """

    per_day: F32
    regularity: F32
    tail: I64
    spread: F32


@dataclass(frozen=True, slots=True)
class Rates:
    """What a family says of N series over D days.

    Attributes
    ----------
    rate
        Relative rate of demand, float32 (N, D), at least 0; only its shape counts.
    dispersion
        Of the noise, float32 (N, D) or (N, 1).
    noise
        `COUNTS`, `GAMMA` or `EXACT`, int64 (N,).
    sold_out
        Demand was there and nothing was sold, bool (N, D).
    orders
        Where demand comes as single orders, else None.
    """

    rate: F32
    dispersion: F32
    noise: I64
    sold_out: Mask
    orders: Orders | None = None


def plain(rate: F32, dispersion: F32, noise: I64 | None = None) -> Rates:
    """Rates without stock-outs, counts unless said otherwise."""
    kind = np.zeros(len(rate), np.int64) if noise is None else noise
    return Rates(rate, dispersion, kind, np.zeros(rate.shape, bool))


def scaled(rates: Rates, scale: F32, begun: I64) -> Rates:
    """The same rates with a mean of `scale` units a day over the days since a series began."""
    rate = rates.rate.astype(np.float64)
    alive = np.arange(rate.shape[1]) >= begun[:, None]
    count = np.maximum((alive & (rate > 0)).sum(axis=1, keepdims=True), 1)
    mean = np.where(alive, rate, 0).sum(axis=1, keepdims=True) / count
    share = np.minimum(rate / np.maximum(mean, 1e-30), MOST_TIMES)
    return replace(rates, rate=(share * scale[:, None]).astype(np.float32))


def observe(rng: np.random.Generator, rates: Rates, scale: F32, whole: Mask, hours: F32 | None = None) -> F32:
    """Draw demand.

    Parameters
    ----------
    rates
        In units a day, as from `scaled`.
    scale
        Mean units a day, float32 (N,).
    whole
        Whether demand is in whole units, bool (N,).
    hours
        Share of each hour of a day, float32 (N, 24); buckets are days without it.

    Returns
    -------
    float32
        Demand (N, D), or (N, 24 D).

    Examples
    --------
    >>> rates = plain(np.array([[3, 0, 5]], np.float32), np.zeros((1, 1), np.float32))
    >>> observe(np.random.default_rng(1), rates, np.array([4], np.float32), np.array([True]))
    array([[2., 0., 6.]], dtype=float32)
    """
    rate, dispersion, sold_out = _buckets(rates, hours)
    demand = (
        _orders(rng, rate, rates.orders, scale, whole)
        if rates.orders is not None
        else _amounts(rng, rate, dispersion, rates.noise, scale, whole)
    )
    demand[sold_out] = 0
    return np.minimum(demand, MOST_UNITS).astype(np.float32)


def _buckets(rates: Rates, hours: F32 | None) -> tuple[F64, F32, Mask]:
    if hours is None:
        return rates.rate.astype(np.float64), rates.dispersion, rates.sold_out
    rate = (rates.rate[:, :, None] * hours[:, None, :]).reshape(len(rates.rate), -1)
    wide = rates.dispersion.shape[1] > 1
    dispersion = np.repeat(rates.dispersion, 24, axis=1) if wide else rates.dispersion
    return rate.astype(np.float64), dispersion, np.repeat(rates.sold_out, 24, axis=1)


def _amounts(rng: np.random.Generator, rate: F64, dispersion: F32, noise: I64, scale: F32, whole: Mask) -> F64:
    """Counts, or turnover, with the noise of each series."""
    series = len(rate)
    worth = np.minimum(log_uniform(rng, 0.3, 60, series), scale * 5)
    worth = np.where(whole, 1, worth)[:, None]
    shape = 1 / np.maximum(dispersion, 1e-6)
    factor = rng.standard_gamma(np.broadcast_to(shape, rate.shape), dtype=np.float64) / shape
    noise = np.where((noise == EXACT) & whole & (scale < LEAST_EXACT_UNITS), COUNTS, noise)
    noise = np.where((noise == GAMMA) & whole & (scale < LEAST_EXACT_UNITS), COUNTS, noise)[:, None]
    demand = rate * np.where(noise == EXACT, 1, factor)
    counted = np.flatnonzero(noise == COUNTS)
    count = rng.poisson(np.minimum(demand[counted] / worth[counted], 1e12)).astype(np.float64)
    basket = rng.standard_normal(count.shape, dtype=np.float32) * 0.5 / np.sqrt(np.maximum(count, 1))
    demand[counted] = count * np.where(whole[counted, None], 1, worth[counted] * np.exp(basket))
    cents = ~whole & (scale > 1) & chosen(rng, 0.6, series)
    demand[whole] = np.rint(demand[whole])
    demand[cents] = np.round(demand[cents], 2)
    return demand


def _orders(rng: np.random.Generator, rate: F64, orders: Orders, scale: F32, whole: Mask) -> F64:
    """Orders and their sizes; a bucket with several has that many times one size."""
    mean_size = np.maximum(scale / orders.per_day, 1e-6).astype(np.float64)
    count = _arrivals(rng, rate / mean_size[:, None], orders.regularity)
    row, column = np.nonzero(count)
    size = _sizes(rng, orders.tail[row], orders.spread[row]) * mean_size[row]
    pack = np.minimum(rng.choice(PACKS, len(rate)), np.maximum(mean_size / 2, 1)).astype(np.int64)[row]
    size = np.where(whole[row], pack * np.maximum(np.rint(size / pack), 1), size)
    demand = np.zeros(rate.shape)
    demand[row, column] = size * count[row, column]
    return demand


def _arrivals(rng: np.random.Generator, rate: F64, regularity: F32) -> I64:
    """Number of orders in each bucket: a renewal process with gaps of mean 1 on the clock of the summed rate."""
    clock = np.cumsum(rate, axis=1)
    end = clock[:, -1]
    draws = int(np.max(end + 6 * np.sqrt(end / regularity) + 10))
    gaps = rng.standard_gamma(np.broadcast_to(regularity[:, None], (len(rate), draws))) / regularity[:, None]
    gaps[:, 0] *= rng.random(len(rate))  # the process had begun before the panel
    arrival = np.cumsum(gaps, axis=1)
    stride = float(max(end.max(), arrival[:, -1].max())) + 1
    row = np.arange(len(rate))[:, None] * stride
    until = np.searchsorted((arrival + row).ravel(), (clock + row).ravel(), side="right").reshape(rate.shape)
    until -= np.arange(len(rate))[:, None] * draws
    return np.diff(until, axis=1, prepend=0)


def _sizes(rng: np.random.Generator, tail: I64, spread: F32) -> F64:
    """Sizes of mean 1, roughly; no Pareto size is above 300."""
    exponential = rng.standard_exponential(len(tail))
    lognormal = np.exp(spread * rng.standard_normal(len(tail)) - spread**2 / 2)
    exponent = 1 + 1 / np.maximum(spread, 0.1)
    pareto = (exponent - 1) / exponent * np.minimum((1 - rng.random(len(tail))) ** (-1 / exponent), 1000)
    return np.select([tail == 0, tail == 1], [exponential, lognormal], np.minimum(pareto, MOST_TIMES))
