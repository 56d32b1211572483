"""Items of a shop: weeks and years, promotions, prices, holidays, stock-outs, life cycles.

In: a generator, a `Plan`, scales. Out: `Rates`.
Must not know: how demand is drawn. Rule: stock-outs hide demand, they do not change it.
"""

from __future__ import annotations

import numpy as np

from models.corpus_observe import Rates, plain
from models.corpus_plan import Plan
from models.corpus_shapes import normal, response, wander, weekday_profile, yearly
from models.corpus_spells import Mask, chosen, log_uniform, spells
from models.forecast import F32

ANSWERS = 0.8
"""Share of the items that answer to their plan; to the others it is noise."""

SOLD_OUT, LIFE_CYCLES = 0.35, 0.4


def retail(rng: np.random.Generator, plan: Plan, scale: F32) -> Rates:
    """Draw items that sell some units on most days, or few on few."""
    series, days = len(plan), len(plan.day)
    total = weekday_profile(rng, series)[:, plan.weekday] + yearly(rng, plan.day, series)
    total += (normal(rng, 0.3, series) * np.linspace(-0.5, 0.5, days) * days / 365).astype(np.float32)
    total += wander(rng, days, log_uniform(rng, 0.02, 0.4, series), log_uniform(rng, 2, 200, series))
    total += response(rng, plan, chosen(rng, ANSWERS, series))
    rate = np.exp(np.clip(total, -12, 12)) * life(rng, series, days)
    rates = plain(np.where(plan.shut, np.float32(0), rate), dispersion_of(rng, scale))
    rates.sold_out[:] = stock_outs(rng, series, days)
    return rates


def dispersion_of(rng: np.random.Generator, scale: F32) -> F32:
    """Dispersion of counts, (N, 1): large sellers are smoother, at every size some are calm and some wild."""
    usual = np.log(0.35) - 0.45 * np.log1p(scale)
    spread: F32 = np.exp(np.clip(usual + rng.normal(0, 1, len(scale)), -8, 1.5)).astype(np.float32)
    return spread[:, None]


def life(rng: np.random.Generator, series: int, days: int) -> F32:
    """Launch, growth, decline and end of an item, float32 (N, D), 1 for those that are just there."""
    place = np.arange(days, dtype=np.float32)
    launch = rng.uniform(0, 0.6 * days, (series, 1)).astype(np.float32)
    rises = log_uniform(rng, 3, 90, series)[:, None]
    grown = 1 / (1 + np.exp(np.clip(-(place - launch - 2 * rises) / rises, -30, 30)))
    hype = 1 + np.abs(normal(rng, 1, series)) * np.exp(-np.maximum(place - launch, 0) / (2 * rises))
    young = np.where(place >= launch, grown * np.where(chosen(rng, 0.3, series)[:, None], hype, 1), 0)
    fades = rng.uniform(0.3 * days, 1.5 * days, (series, 1)).astype(np.float32)
    old = np.exp(-np.maximum(place - fades, 0) / log_uniform(rng, 20, 300, series)[:, None])
    ends = place >= fades + log_uniform(rng, 1, 200, series)[:, None]
    old = np.where(ends & chosen(rng, 0.6, series)[:, None], 0, old)
    cycle = np.where(chosen(rng, 0.5, series)[:, None], young, 1)
    cycle = cycle * np.where(chosen(rng, 0.5, series)[:, None], old, 1)
    found: F32 = np.where(chosen(rng, LIFE_CYCLES, series)[:, None], cycle, 1).astype(np.float32)
    return found


def stock_outs(rng: np.random.Generator, series: int, days: int) -> Mask:
    """Days on which an item is sold out, bool (N, D)."""
    lasts = spells(rng, log_uniform(rng, 30, 400, series), log_uniform(rng, 1.5, 20, series), days)
    empty: Mask = lasts.on & chosen(rng, SOLD_OUT, series)[:, None]
    return empty
