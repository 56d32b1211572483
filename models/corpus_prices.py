"""Made-up price lines: what shops do with prices, day by day, to learn from.

In: a seed, how many lines and days. Out: `PriceCorpus`: prices in force and promotion flags.
Must not know: real shops. Rule: everything comes from the generator, so that a seed gives the same lines.

Seven kinds of line: prices that hardly move, weekly offers on few levels, offers on a fixed rhythm, costs that drift,
prices that a rule moves every few days, clearances, and lines whose feed reports the mean of a week.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.forecast import F32

F64 = npt.NDArray[np.float64]
Rng = np.random.Generator

_FLAGS_TOLD = 0.5
"""Share of the lines whose shop says which prices are promotions."""


@dataclass(frozen=True, slots=True)
class PriceCorpus:
    """Prices of N lines over D days.

    Attributes
    ----------
    price
        In force on each day, float32 (N, D).
    promo
        1 on an announced promotion, 0 not, NaN where the shop does not say, float32 (N, D).
    """

    price: F32
    promo: F32


def price_corpus(lines: int, days: int, seed: int) -> PriceCorpus:
    """Draw price lines.

    Examples
    --------
    >>> corpus = price_corpus(20, 200, seed=1)
    >>> corpus.price.shape, bool((corpus.price > 0).all())
    ((20, 200), True)
    """
    rng = np.random.default_rng([seed, lines, days])
    price, promo = np.empty((lines, days), np.float32), np.empty((lines, days), np.float32)
    kinds, shares = list(_KINDS), np.array(list(_KINDS.values()))
    for line, kind in enumerate(rng.choice(len(kinds), lines, p=shares / shares.sum())):
        base = float(np.exp(rng.uniform(np.log(0.5), np.log(500))))
        price[line], offers = kinds[kind](rng, base, days)
        promo[line] = offers if rng.random() < _FLAGS_TOLD else np.nan
    return PriceCorpus(price, promo)


def _ended(rng: Rng) -> Callable[[float], float]:
    """One shop's way to end a price: .99, .95, .9, .49 or .99, whole, or to the cent."""
    ending = rng.choice([0.99, 0.95, 0.9, 0.5, 1.0, 0.01], p=[0.35, 0.1, 0.1, 0.1, 0.1, 0.25])

    def end(price: float) -> float:
        if ending == 0.01 or price < 2:
            return max(0.01, round(price, 2))
        unit = 0.5 if ending == 0.5 else 1.0
        below = 0.01 if ending == 0.5 else 1 - ending
        return max(0.01, round(max(round(price / unit), 1) * unit - below, 2))

    return end


def _levels(rng: Rng, base: float, days: int, mean_gap: float, spread: float, drift: float = 0.0) -> F64:
    """Prices that step now and then, in per cents of themselves; some steps are taken back."""
    end = _ended(rng)
    level = np.empty(days)
    at, price, before = 0, base, base
    whole_weeks = rng.random() < 0.5
    back = rng.uniform(0, 0.4)
    while at < days:
        gap = max(1, round(rng.exponential(mean_gap)))
        gap = -(-gap // 7) * 7 if whole_weeks else gap
        level[at : at + gap] = end(price)
        at += gap
        step = price * float(np.exp(drift + spread * rng.standard_t(4) * 0.7))
        price, before = (before if rng.random() < back else step), price
        price = float(np.clip(price, base * 0.2, base * 5))
    return level


def _edlp(rng: Rng, base: float, days: int) -> tuple[F64, F64]:
    """A price for every day that moves once in months."""
    return _levels(rng, base, days, float(rng.uniform(40, 500)), float(rng.uniform(0.02, 0.12))), np.zeros(days)


def _drift(rng: Rng, base: float, days: int) -> tuple[F64, F64]:
    """Costs that rise or fall, passed on in small steps."""
    drift = float(rng.choice([-1, 1]) * rng.uniform(0.002, 0.03))
    return _levels(rng, base, days, float(rng.uniform(5, 60)), float(rng.uniform(0.003, 0.03)), drift), np.zeros(days)


def _moving(rng: Rng, base: float, days: int) -> tuple[F64, F64]:
    """A rule that reprices every few days around a level it comes back to."""
    pull, step, gap = rng.uniform(0.05, 0.5), rng.uniform(0.005, 0.08), rng.uniform(1, 8)
    end, off, price = _ended(rng), 0.0, np.empty(days)
    moves = rng.random(days) < 1 / gap
    for day in range(days):
        if moves[day]:
            off = float(off * (1 - pull) + step * rng.normal())
        price[day] = end(base * float(np.exp(off)))
    return price, np.zeros(days)


def _offers(rng: Rng, base: float, days: int) -> tuple[F64, F64]:
    """Weekly offers at one to four levels on a regular price that steps now and then."""
    regular = _levels(rng, base, days, float(rng.uniform(60, 400)), float(rng.uniform(0.02, 0.15)))
    end, depths = _ended(rng), rng.choice([0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5], rng.integers(1, 5))
    share, often = rng.uniform(0.05, 0.65), rng.dirichlet(np.ones(len(depths)))
    usual, first = int(rng.choice([7, 7, 7, 14, 3, 10])), int(rng.integers(0, 7))
    sure, in_a_row = rng.random() < 0.7, rng.uniform(0, 1)
    price, promo = regular.copy(), np.zeros(days)
    at, on = first, False
    while at < days:
        length = usual if sure else int(rng.choice([4, 7, 7, 14, 21]))
        chance = share * in_a_row if on else share
        on = bool(rng.random() < chance)
        if on:
            depth = float(rng.choice(depths, p=often))
            price[at : at + length] = end(float(regular[at]) * (1 - depth))
            promo[at : at + length] = 1
        at += length if on or length >= 7 else 7
    return price, promo


def _rhythm(rng: Rng, base: float, days: int) -> tuple[F64, F64]:
    """The same offer every few weeks."""
    regular = _levels(rng, base, days, float(rng.uniform(90, 500)), float(rng.uniform(0.02, 0.1)))
    end, depth = _ended(rng), float(rng.choice([0.1, 0.2, 0.25, 0.33, 0.5]))
    period, length = int(rng.choice([14, 21, 28, 35, 42])), int(rng.choice([3, 4, 7, 7, 10]))
    day = np.arange(days) + rng.integers(0, period)
    on = (day % period < length) & (rng.random(days)[day // period] < 0.9)
    return np.where(on, [end(value * (1 - depth)) for value in regular.tolist()], regular), on.astype(float)


def _clearance(rng: Rng, base: float, days: int) -> tuple[F64, F64]:
    """A season's price, marked down step by step, then the next season's."""
    end, price, promo = _ended(rng), np.empty(days), np.zeros(days)
    at = -int(rng.integers(0, 120))
    while at < days:
        full, step = int(rng.integers(40, 160)), int(rng.choice([7, 14, 21]))
        level = base * float(np.exp(0.2 * rng.normal()))
        price[max(0, at) : max(0, at + full)] = end(level)
        at += full
        for cut in np.cumsum(rng.choice([0.1, 0.2, 0.25], rng.integers(1, 4))).tolist():
            price[max(0, at) : max(0, at + step)] = end(level * (1 - min(cut, 0.75)))
            promo[max(0, at) : max(0, at + step)] = 1
            at += step
    return price, promo


def _averaged(rng: Rng, base: float, days: int) -> tuple[F64, F64]:
    """Offers as a panel sees them: one price a week, in some weeks a mean of two."""
    price, promo = _offers(rng, base, days)
    weeks = -(-days // 7)
    ahead = np.concatenate([price, np.full(weeks * 7 - days + 7, price[-1])])
    week = ahead[: weeks * 7 : 7].copy()
    mixed = rng.random(weeks) < rng.uniform(0, 0.4)
    part = rng.random(weeks)
    following = ahead[7 : weeks * 7 + 7 : 7]
    week[mixed] = np.round(week * part + following * (1 - part), 2)[mixed]
    return np.repeat(np.maximum(week, 0.01), 7)[:days], promo


_KINDS: dict[Callable[[Rng, float, int], tuple[F64, F64]], float] = {
    _edlp: 0.2, _offers: 0.26, _rhythm: 0.1, _drift: 0.1, _moving: 0.1, _clearance: 0.06, _averaged: 0.18,
}  # fmt: skip
"""Kinds of line, and how often each is drawn."""
