"""Items whose world changes: levels that jump, variance and weekday profiles that change, items that die and revive.

In: a generator, a `Plan`, scales. Out: `Rates`.
Must not know: how demand is drawn. Rule: within a regime nothing drifts, so that a change can be told from a trend.
"""

from __future__ import annotations

import numpy as np

from models.corpus_observe import Rates, plain
from models.corpus_plan import Plan
from models.corpus_retail import dispersion_of
from models.corpus_shapes import normal, response, weekday_profile, yearly
from models.corpus_spells import I64, chosen, log_uniform, spells
from models.forecast import F32

REGIMES = 8
ANSWERS = 0.4


def regimes(rng: np.random.Generator, plan: Plan, scale: F32) -> Rates:
    """Draw items with up to `REGIMES` regimes."""
    series, days = len(plan), len(plan.day)
    rows = np.arange(series)[:, None]
    level_at, noise_at, week_at = (regime_of(rng, series, days) for _ in range(3))
    together = chosen(rng, 0.5, series)[:, None]  # half change in everything at once
    noise_at, week_at = np.where(together, level_at, noise_at), np.where(together, level_at, week_at)
    jump = np.abs(normal(rng, 0.9, series)) * rng.standard_normal((series, REGIMES))
    profiles = np.stack([weekday_profile(rng, series) for _ in range(REGIMES)], axis=1)
    keeps = chosen(rng, 0.5, series)
    profiles[keeps] = profiles[keeps, :1]
    total = jump[rows, level_at] + profiles[rows, week_at, plan.weekday] + yearly(rng, plan.day, series, 0.4)
    total += response(rng, plan, chosen(rng, ANSWERS, series))
    for_a_while = spells(rng, np.full(series, 300, np.float32), log_uniform(rng, 5, 90, series), days)
    size = for_a_while.each(rng.normal(0, 0.7, (series, days)).astype(np.float32))
    total += size * chosen(rng, 0.4, series)[:, None]
    dead = spells(rng, log_uniform(rng, 150, 900, series), log_uniform(rng, 20, 200, series), days).on
    alive = ~(dead & chosen(rng, 0.4, series)[:, None]) & ~plan.shut
    spread = np.exp(rng.normal(0, 1, (series, REGIMES)) * chosen(rng, 0.6, series)[:, None])
    dispersion = np.minimum(dispersion_of(rng, scale) * spread[rows, noise_at], 6).astype(np.float32)
    return plain(np.where(alive, np.exp(np.clip(total, -10, 10)), 0).astype(np.float32), dispersion)


def regime_of(rng: np.random.Generator, series: int, days: int) -> I64:
    """Number of the regime of each day, from 0, int64 (N, D)."""
    changes = rng.random((series, days)) < 1 / log_uniform(rng, 60, 1500, series)[:, None]
    changes[:, 0] = False
    number: I64 = np.minimum(np.cumsum(changes, axis=1), REGIMES - 1)
    return number
