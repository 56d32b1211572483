"""Items that sell now and then: single orders, clumps, heavy tails, wholesale.

In: a generator, a `Plan`, scales. Out: `Rates` with `Orders`.
Must not know: how demand is drawn. Rule: how often and how much are drawn apart, as in Croston, "Forecasting and Stock
Control for Intermittent Demands", Operational Research Quarterly 23 (1972); what becomes obsolete sells ever more
rarely, as in Teunter, Syntetos and Babai, "Intermittent demand: Linking forecasting to inventory obsolescence", EJOR
214 (2011).
"""

from __future__ import annotations

import numpy as np

from models.corpus_observe import Orders, Rates, plain
from models.corpus_plan import Plan
from models.corpus_retail import life
from models.corpus_shapes import response, wander, weekday_profile, yearly
from models.corpus_spells import chosen, log_uniform, spells
from models.forecast import F32

ANSWERS = 0.4
FEWEST_ORDERS, MOST_ORDERS = 0.015, 2.0
"""A day, on average: from one in two months to some on most days."""


def sparse(rng: np.random.Generator, plan: Plan, scale: F32) -> Rates:
    """Draw items with orders on few days."""
    series, days = len(plan), len(plan.day)
    total = weekday_profile(rng, series)[:, plan.weekday] + yearly(rng, plan.day, series, 0.4)
    total += wander(rng, days, log_uniform(rng, 0.05, 1.0, series), log_uniform(rng, 10, 300, series))
    total += response(rng, plan, chosen(rng, ANSWERS, series))
    rate = np.exp(np.clip(total, -8, 8)) * life(rng, series, days)
    busy = spells(rng, log_uniform(rng, 40, 300, series), log_uniform(rng, 3, 30, series), days)
    quiet = rng.uniform(0.0, 0.3, (series, 1))
    rate *= np.where(chosen(rng, 0.3, series)[:, None], np.where(busy.on, 1, quiet), 1)
    office = chosen(rng, 0.35, series)[:, None] & (plan.weekday >= 5)  # trade buys from Monday to Friday
    rates = plain(np.where(plan.shut | office, 0, rate).astype(np.float32), np.zeros((series, 1), np.float32))
    orders = Orders(
        per_day=np.minimum(log_uniform(rng, FEWEST_ORDERS, MOST_ORDERS, series), scale),  # no order is below one unit
        regularity=log_uniform(rng, 0.2, 6, series),
        tail=rng.choice(3, series, p=[0.35, 0.4, 0.25]),
        spread=rng.uniform(0.2, 1.3, series).astype(np.float32),
    )
    return Rates(rates.rate, rates.dispersion, rates.noise, rates.sold_out, orders)
