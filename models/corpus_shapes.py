"""Shapes that several families share: weekday profiles, years, slow wandering, the answer to a plan.

In: a generator, a `Plan` or its days. Out: logarithms of factors, series by days.
Must not know: scales, noise, which family asks. Rule: every shape is 0 on average or where nothing happens.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.corpus_holidays import effects
from models.corpus_plan import Plan
from models.corpus_spells import I64, Mask, chosen, days_since, log_uniform
from models.forecast import F32

YEAR_DAYS = 365.2425
YEAR_HARMONICS = 3
DIP_DAYS = 30


def weekday_profile(rng: np.random.Generator, series: int) -> F32:
    """Logarithm of what each weekday sells over the mean of the week, float32 (N, 7).

    Half tell weekdays apart strongly, a third a little, the rest hardly at all.
    """
    kind = rng.random(series)
    strength = np.select(
        [kind < 0.5, kind < 0.8],
        [log_uniform(rng, 0.2, 0.9, series), log_uniform(rng, 0.1, 0.35, series)],
        log_uniform(rng, 0.01, 0.12, series),
    )[:, None]
    free = rng.normal(0, 1, (series, 7))
    weekend = np.array([-0.4, -0.5, -0.4, -0.1, 0.5, 1.1, 0.6]) * rng.choice([-1.0, 1.0], series, p=[0.3, 0.7])[:, None]
    share = rng.random(series)[:, None]
    profile = strength * (share * free + (1 - share) * 1.5 * weekend)
    even: F32 = (profile - np.log(np.exp(profile).mean(axis=1, keepdims=True))).astype(np.float32)
    return even


def yearly(rng: np.random.Generator, day: I64, series: int, share: float = 0.8) -> F32:
    """A year that repeats: a few harmonics, and for many a climb towards Christmas; float32 (N, D).

    Parameters
    ----------
    share
        Of the series that have one.
    """
    turn = 2 * np.pi * (day % YEAR_DAYS) / YEAR_DAYS
    waves = np.concatenate([trig(turn * n) for n in range(1, YEAR_HARMONICS + 1) for trig in (np.sin, np.cos)])
    waves = waves.reshape(2 * YEAR_HARMONICS, len(day))
    fall = 1 / np.repeat(np.arange(1, YEAR_HARMONICS + 1), 2) ** 1.5
    has = chosen(rng, share, series)[:, None]
    weight = rng.normal(0, 1, (series, 2 * YEAR_HARMONICS)) * fall * np.abs(rng.normal(0, 0.4, (series, 1))) * has
    left = YEAR_DAYS - 7 - (day % YEAR_DAYS)  # days to Christmas, roughly; after it the climb is over
    climb = np.where(left >= 0, np.exp(-np.maximum(left, 0) / log_uniform(rng, 8, 40, series)[:, None]), 0)
    height = np.abs(rng.normal(0, 0.6, (series, 1))) * chosen(rng, 0.4, series)[:, None] * has
    shape: F32 = (weight @ waves + height * climb).astype(np.float32)
    return shape


def wander(rng: np.random.Generator, days: int, spread: F32, memory: F32) -> F32:
    """Autoregressive wandering around 0, float32 (N, D).

    Parameters
    ----------
    spread, memory
        Standard deviation, and days after which 1/e of a deviation is left, float32 (N,).
    """
    keep = np.exp(-1 / memory)
    push = rng.standard_normal((days, len(spread)), dtype=np.float32) * np.sqrt(1 - keep**2)
    state = rng.standard_normal(len(spread), dtype=np.float32)
    path = np.empty_like(push)
    for number in range(days):
        state = keep * state + push[number]
        path[number] = state
    found: F32 = np.ascontiguousarray((path * spread).T, np.float32)
    return found


def response(rng: np.random.Generator, plan: Plan, matters: Mask) -> F32:
    """What a plan does to demand, float32 (N, D): promotions, prices and holidays.

    Parameters
    ----------
    matters
        Series that answer to their plan at all, bool (N,); 0 for the others.
    """
    total = _promotion(rng, plan) + _price(rng, plan) + _holiday(rng, plan)
    return np.where(matters[:, None], total, np.float32(0))


def _promotion(rng: np.random.Generator, plan: Plan) -> F32:
    """Lift that fades while a promotion runs, then a dip where customers had bought ahead."""
    series = len(plan)
    lift = (rng.gamma(2, 0.3, series) * chosen(rng, 0.85, series))[:, None].astype(np.float32)
    runs = days_since(~plan.promo)  # 1 on the first day of a promotion
    fade = (np.abs(rng.normal(0, 0.04, series)) * chosen(rng, 0.5, series))[:, None].astype(np.float32)
    each = 1 + 0.2 * wander(rng, len(plan.day), np.ones(series, np.float32), np.full(series, 20, np.float32))
    during = lift * np.exp(-fade * np.minimum(runs, 60).astype(np.float32)) * np.maximum(each, 0)
    since = days_since(plan.promo)
    pulled = (rng.uniform(0.05, 0.6, series) * chosen(rng, 0.4, series))[:, None].astype(np.float32)
    late = np.exp(-since.astype(np.float32) / log_uniform(rng, 2, 8, series)[:, None])
    dip = np.where((since > 0) & (since <= DIP_DAYS), -pulled * lift * late, 0)
    found: F32 = np.where(plan.promo, during, dip).astype(np.float32)
    return found


def _price(rng: np.random.Generator, plan: Plan) -> F32:
    """Constant elasticity."""
    elasticity = (rng.gamma(2, 0.7, len(plan)) * chosen(rng, 0.8, len(plan)))[:, None]
    found: F32 = (-elasticity * np.log(plan.price / plan.base[:, None])).astype(np.float32)
    return found


def _holiday(rng: np.random.Generator, plan: Plan) -> F32:
    """Each series feels the holidays of its shop in its own way."""
    weight = effects(rng, plan.shop, plan.shops)
    weight *= np.abs(rng.normal(0, 1, (len(plan), 1))).astype(np.float32)
    felt = np.empty((len(plan), len(plan.day)), np.float32)
    for shop in range(plan.shops):
        own = plan.shop == shop
        felt[own] = weight[own] @ plan.holidays.near[shop]
    return np.clip(felt, -3, 3)


def normal(rng: np.random.Generator, spread: float, series: int) -> npt.NDArray[np.float64]:
    """Normal numbers, one per series, as a column (N, 1)."""
    return rng.normal(0, spread, (series, 1))
