"""The synthetic corpus: made-up shops that an encoder is pre-trained on before it sees a real one.

In: how many series and buckets, a seed. Out: a `Task`.
Must not know: public or private data, cutoffs, training. Rule: the same arguments give the same bytes.

Five families in equal shares: items of a shop (`corpus_retail`), curves of random kernels and drifting states
(`corpus_curves`), orders now and then (`corpus_sparse`), regimes that change (`corpus_regimes`). Sizes are log-uniform
from `SMALLEST` to `LARGEST` units a day. Promotions, prices and holidays matter to some series and are noise to others;
some shops do not tell them. What a task folder would not hold is NaN: demand and covariates before a series begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from models.corpus_curves import curves, states
from models.corpus_observe import Rates, observe, scaled
from models.corpus_plan import Plan, plan_of
from models.corpus_regimes import regimes
from models.corpus_retail import retail
from models.corpus_sparse import sparse
from models.corpus_spells import I64, Mask, chosen, log_uniform, spells
from models.forecast import F32, LEVELS
from models.task import Task, TaskFile

Family = Callable[[np.random.Generator, Plan, F32], Rates]
FAMILIES: dict[str, Family] = {
    "curves": curves,
    "regimes": regimes,
    "retail": retail,
    "sparse": sparse,
    "states": states,
}
"""By the name that begins their series' ids, in the order of ids."""

KNOWN = ("promo", "holiday", "price", "open")
SMALLEST, LARGEST = 0.02, 1e5
TURNOVER = 0.2
LATE, GAPS, UNTOLD = 0.3, 0.08, 0.25
"""Shares of the series that begin late, that have missing stretches, and of the shops that do not tell a covariate."""

HORIZON = {"D": 56, "h": 48}
SEASON = {"D": 7, "h": 24}
BLOCK = 256
FIRST_DAYS = (12_800, 19_700)
"""First days lie in 2005 to 2023, so that weekdays and Easter fall anywhere."""

Matrices = dict[str, F32]


def corpus(series: int, buckets: int, seed: int, *, freq: Literal["D", "h"] = "D", untold: float = UNTOLD) -> Task:
    """Make a task without cutoffs out of made-up shops.

    Parameters
    ----------
    series, buckets
        Rows and columns.
    untold
        Share of the series to which a covariate is not told: promo, holiday or price are NaN throughout. ``open`` is
        always told, though shops may be closed on days that are told to be open.

    Examples
    --------
    >>> task = corpus(10, 100, seed=1)
    >>> task.demand.shape, sorted(task.known), task.ids[0]
    ((10, 100), ['holiday', 'open', 'price', 'promo'], 'curves-000000')
    """
    per_day = 1 if freq == "D" else 24
    first = int(np.random.default_rng([seed, len(FAMILIES)]).integers(*FIRST_DAYS))
    day = first + np.arange(-(-buckets // per_day))
    matrices = {name: np.empty((series, buckets), np.float32) for name in ("demand", *KNOWN)}
    ids: list[str] = []
    for number, (name, family) in enumerate(FAMILIES.items()):
        count = series // len(FAMILIES) + (number < series % len(FAMILIES))
        for block, start in enumerate(range(0, count, BLOCK)):
            rng = np.random.default_rng([seed, number, block])
            made = _block(rng, family, day, min(BLOCK, count - start), per_day == 24, untold)
            rows = slice(len(ids) + start, len(ids) + min(start + BLOCK, count))
            for column, values in made.items():
                matrices[column][rows] = values[:, :buckets]
        ids += [f"{name}-{row:06d}" for row in range(count)]
    none = np.empty(0, np.int64)
    file = TaskFile(
        freq=freq, horizon=HORIZON[freq], season=SEASON[freq], cutoffs=[], levels=list(LEVELS),
        known_future=list(KNOWN), open="open", name="corpus",
    )  # fmt: skip
    demand = matrices.pop("demand")
    return Task(file, ids, first * per_day, demand, matrices, {}, none, none)


def _block(
    rng: np.random.Generator, family: Family, day: I64, series: int, hourly: bool, untold: float
) -> dict[str, F32]:
    """Some shops of one family: demand and covariates, series by buckets."""
    plan = plan_of(rng, day, series)
    scale = log_uniform(rng, SMALLEST, LARGEST, series)
    whole = ~chosen(rng, TURNOVER, series)
    begun = np.where(chosen(rng, LATE, series), rng.uniform(0, 0.85 * len(day), series), 0).astype(np.int64)
    rates = scaled(family(rng, plan, scale), scale, begun)
    hours, hour_open = _hours(rng, series) if hourly else (None, None)
    demand = observe(rng, rates, scale, whole, hours)
    promo, holiday = plan.promo.astype(np.float32), plan.holidays.told[plan.shop].astype(np.float32)
    known = {"promo": promo, "holiday": holiday, "price": plan.price, "open": plan.open}
    if hour_open is not None:
        known = {name: np.repeat(values, 24, axis=1) for name, values in known.items()}
        known["open"] = known["open"] * np.tile(hour_open, len(day))
        begun = begun * 24
    per_day = demand.shape[1] // len(day)
    _large_orders(rng, demand, whole, per_day)
    demand = _begun(rng, demand, begun, per_day)
    missing = ~np.logical_or.accumulate(np.isfinite(demand), axis=1)
    nobody_tells = chosen(rng, untold / 2, series)
    for name in ("promo", "holiday", "price"):
        silent = nobody_tells | chosen(rng, untold / 2, series)
        known[name] = np.where(silent[:, None] | missing, np.float32(np.nan), known[name])
    return {"demand": demand, **known}


def _large_orders(rng: np.random.Generator, demand: F32, whole: Mask, per_day: int) -> None:
    """Now and then somebody buys many times as much, where anything was sold at all."""
    chance = log_uniform(rng, 5e-4, 0.01, len(demand)) / per_day
    rare = rng.random(demand.shape, dtype=np.float32) < chance[:, None]
    row, column = np.nonzero(rare & (demand > 0) & chosen(rng, 0.15, len(demand))[:, None])
    more = demand[row, column] * np.exp(np.abs(rng.normal(0, 1.2, len(row))))
    demand[row, column] = np.where(whole[row], np.rint(more), more).astype(np.float32)


def _begun(rng: np.random.Generator, demand: F32, begun: I64, per_day: int) -> F32:
    """Demand, NaN before a series begins (most begin with their first sale) and where rows are missing."""
    series, buckets = demand.shape
    place = np.arange(buckets)
    sold = (demand > 0) & (place >= begun[:, None])
    first_sale = np.where(sold.any(axis=1), sold.argmax(axis=1), begun)
    begun = np.where(chosen(rng, 0.8, series), np.maximum(begun, first_sale), begun)
    gap, length = np.full(series, 250, np.float32) * per_day, log_uniform(rng, 3, 60, series) * per_day
    lost = spells(rng, gap, length, buckets).on
    lost &= chosen(rng, GAPS, series)[:, None]
    found: F32 = np.where(lost | (place < begun[:, None]), np.float32(np.nan), demand)
    return found


def _hours(rng: np.random.Generator, series: int) -> tuple[F32, F32]:
    """Share of each hour in a day's demand, and whether the hour is told to be open; float32 (N, 24)."""
    hour = np.arange(24)
    profile = np.full((series, 24), 0.02)
    for _ in range(2):
        peak, width = rng.uniform(8, 22, (series, 1)), rng.uniform(0.3, 4, (series, 1))
        profile += rng.random((series, 1)) * np.exp(width * (np.cos((hour - peak) * 2 * np.pi / 24) - 1))
    opens, length = rng.integers(5, 13, (series, 1)), rng.integers(6, 19, (series, 1))
    shut = ((hour - opens) % 24 >= length) & chosen(rng, 0.6, series)[:, None]
    profile = np.where(shut, 0, profile)
    told = chosen(rng, 0.7, series)[:, None]
    share = (profile / profile.sum(axis=1, keepdims=True)).astype(np.float32)
    return share, np.where(shut & told, 0, 1).astype(np.float32)
