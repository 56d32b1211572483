"""What made-up shops know ahead: promotions, prices, holidays, closures.

In: a generator, day numbers, how many series. Out: a `Plan`.
Must not know: demand, or whether anybody answers to the plan. Rule: a plan says what is so (`shut`) and what is told
(`open`), for a shop that closes on Sundays does not always say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.corpus_holidays import Holidays, holidays
from models.corpus_spells import I64, Mask, chosen, log_uniform, spells
from models.forecast import F32

SERIES_OF_A_SHOP = 16
OWN_PROMOTIONS, SHOP_PROMOTIONS = 0.45, 0.3
"""Shares of the series with promotions of their own and with those of their shop; the rest have none."""

SUNDAY = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """Covariates of N series over D days.

    Attributes
    ----------
    day
        Day numbers since 1970-01-01, int64 (D,).
    shop
        Of each series, int64 (N,), ascending.
    promo
        Whether a promotion runs, bool (N, D).
    price, base
        Planned price, float32 (N, D), and the price that a series began with (N,).
    holidays
        Of the shops.
    shut, open
        Whether the shop is closed, bool (N, D), and what is told of it: 0 closed, 1 open, float32 (N, D).
    """

    day: I64
    shop: I64
    promo: Mask
    price: F32
    base: F32
    holidays: Holidays
    shut: Mask
    open: F32

    def __len__(self) -> int:
        return len(self.shop)

    @property
    def shops(self) -> int:
        """How many."""
        return len(self.holidays.told)

    @property
    def weekday(self) -> I64:
        """Of each day, Monday 0, int64 (D,)."""
        found: I64 = (self.day + 3) % 7  # 1970-01-01 was a Thursday
        return found


def plan_of(rng: np.random.Generator, day: I64, series: int) -> Plan:
    """Draw a plan for so many series.

    Examples
    --------
    >>> plan = plan_of(np.random.default_rng(1), np.arange(19_000, 19_400), 3)
    >>> plan.promo.shape, bool((plan.open[plan.shut == 0] == 1).all()), bool((plan.price > 0).all())
    ((3, 400), True, True)
    """
    shops = max(1, series // SERIES_OF_A_SHOP)
    shop = np.arange(series) * shops // series
    kept = holidays(rng, day, shops)
    promo, cut = _promotions(rng, day, shop, shops)
    price, base = _prices(rng, cut)
    shut = _closures(rng, day, kept)[shop]
    tells = chosen(rng, 0.75, shops)[shop]
    told: F32 = np.where(tells[:, None] & shut, 0, 1).astype(np.float32)
    return Plan(day, shop, promo, price, base, kept, shut, told)


def _promotions(rng: np.random.Generator, day: I64, shop: I64, shops: int) -> tuple[Mask, F32]:
    """When promotions run, and by which share the price is lower."""
    series, days = len(shop), len(day)
    weekday = (day + 3) % 7
    on_a_weekday = weekday == rng.integers(0, 7, series)[:, None]
    may_begin = np.where(chosen(rng, 0.7, series)[:, None], on_a_weekday, True)
    own = spells(rng, log_uniform(rng, 14, 150, series), log_uniform(rng, 2, 14, series), days, may_begin)
    weeks = (day + 3) // 7 + rng.integers(0, 6, shops)[:, None]
    regular = (weeks % rng.integers(2, 5, shops)[:, None] == 0) & (weekday < rng.choice([5, 6, 7], shops)[:, None])
    monday = np.broadcast_to(weekday == 0, (shops, days))
    at_times = spells(rng, log_uniform(rng, 20, 120, shops), log_uniform(rng, 5, 14, shops), days, monday)
    of_shop = np.where(chosen(rng, 0.5, shops)[:, None], regular, at_times.on)[shop]
    kind = rng.random(series)[:, None]
    promo = np.where(kind < OWN_PROMOTIONS, own.on, (kind < OWN_PROMOTIONS + SHOP_PROMOTIONS) & of_shop)
    usual = rng.choice([0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5], series)[:, None].astype(np.float32)
    each = own.each(rng.choice([0.6, 0.8, 1, 1, 1.2], (series, days)).astype(np.float32))
    depth = usual * np.where(own.on & (kind < OWN_PROMOTIONS), each, 1)
    cut = np.where(promo & chosen(rng, 0.6, series)[:, None], depth, 0)
    quiet = spells(rng, log_uniform(rng, 60, 400, series), log_uniform(rng, 5, 40, series), days)
    cut = np.maximum(cut, np.where(quiet.on & chosen(rng, 0.2, series)[:, None], usual, 0))
    return promo, cut.astype(np.float32)


def _prices(rng: np.random.Generator, cut: F32) -> tuple[F32, F32]:
    """Prices that change now and then, less the cuts, to the cent."""
    series = len(cut)
    base = log_uniform(rng, 0.5, 200, series)
    changes = rng.random(cut.shape, dtype=np.float32) < 1 / log_uniform(rng, 40, 1000, series)[:, None]
    steps = np.where(changes, rng.normal(0.01, 0.07, cut.shape), 0)
    steps[:, 0] = 0
    level = np.clip(np.cumsum(steps, axis=1), -1, 1)
    price = base[:, None] * np.exp(level) * (1 - cut)
    return np.maximum(np.round(price, 2), 0.01).astype(np.float32), base


def _closures(rng: np.random.Generator, day: I64, kept: Holidays) -> Mask:
    """Weekdays on which a shop never opens, its holidays, and now and then some weeks of works, bool (S, D)."""
    shops, weekday = len(kept.told), (day + 3) % 7
    style = rng.random(shops)[:, None]
    other = rng.integers(0, SUNDAY, shops)[:, None]
    weekly = (style < 0.4) & (weekday == SUNDAY) | (style < 0.08) & (weekday == SUNDAY - 1)
    weekly |= (style > 0.92) & (weekday == other)
    works = spells(rng, np.full(shops, 700, np.float32), log_uniform(rng, 2, 30, shops), len(day)).on
    shut: Mask = weekly | kept.shut | works & chosen(rng, 0.3, shops)[:, None]
    return shut
