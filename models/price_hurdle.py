"""The plain hurdle for price lines: does it change, by the line's own pace; to what, by the levels it has had.

In: a `PriceBatch`. Out: a `PriceForecast`.
Must not know: shops, trained weights. Rule: a row's answer has the same bits whatever rows stand beside it.

1. How often the line changes, and on which weekdays, says how likely its price is to have been left by day h; a price
that it keeps coming back to is likely to be back. 2. What it goes to: levels by the time spent on them, counted less
the longer ago, and by how often they came straight after today's; a share goes to steps to new levels. 3. Announced
prices are certain, and days after them are counted from the last of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from models.forecast import F32, Basis
from models.price import I64, PriceBatch, PriceForecast, checked, take_prices
from models.price_atoms import STEPS, Atoms, atoms_of, forecast_of

_TILE_ROWS = 1024
"""Rows at once: the weights of a tile stay near 4 MB."""


@dataclass(frozen=True, slots=True)
class HurdleConfig:
    """The few constants of the plain hurdle, chosen on made-up lines (`load_tests/price_forecasts.py --made-up`).

    Attributes
    ----------
    followed_days
        Days that a level's having come straight after today's price once is worth.
    new_days
        Days on a level that the chance of a new level is worth.
    new_scale
        Steps to new levels fade by this, in log of the price.
    home
        Days of prior on other levels when asking how much of its time a line spends on today's price.
    """

    followed_days: float = 2.0
    new_days: float = 1.0
    new_scale: float = 0.08
    home: float = 10.0


class PriceHurdle:
    """Forecasts prices from a line's own runs; nothing is trained.

    Examples
    --------
    >>> price, began = np.array([[9, 7, 9, 7, 9]], np.float32), np.array([[6, 13, 20, 27, 34]], np.float32)
    >>> batch = PriceBatch(price, began, np.zeros(1, np.int64), horizon=7)
    >>> found = PriceHurdle().forecast(batch)
    >>> bool(found.p_change[0, 0] > 0.25), found.quantiles[0, 0, 3].item()
    (True, 7.0)
    """

    def __init__(self, config: HurdleConfig | None = None) -> None:
        self._config = config or HurdleConfig()

    @property
    def name(self) -> str:
        """Published as ``model``; changes when a figure would."""
        return "price-hurdle-1"

    def forecast(self, batch: PriceBatch) -> PriceForecast:
        """Forecast every row of the batch."""
        return answer(batch, lambda atoms: weigh(atoms, self._config), Basis.BASELINE)


def weigh(atoms: Atoms, config: HurdleConfig) -> F32:
    """Weights of candidates by the plain hurdle, float32 (B, H, A)."""
    time, today = atoms.time[:, 1:], atoms.time[:, :1]
    others = time + np.float32(config.followed_days) * atoms.followed[:, 1:]
    fade = np.exp(-np.abs(np.array(STEPS)) / config.new_scale).astype(np.float32)
    others[:, -len(STEPS) :] = config.new_days * fade / fade.sum()
    others *= atoms.usable[:, 1:]
    total = _ordered_sum(others)[:, None]
    home = today / (today + np.maximum(total, np.float32(config.home)))  # share of time on today's price
    away = (1 - home) * -np.expm1(-atoms.hazard / np.maximum(1 - home, 0.05))  # of two states, in balance at 1 - home
    weight = np.empty((*away.shape, atoms.value.shape[1]), np.float32)
    weight[:, :, 0] = 1 - away
    weight[:, :, 1:] = away[:, :, None] * (others / total)[:, None]
    return weight


def answer(batch: PriceBatch, weigher: Callable[[Atoms], F32], basis: Basis) -> PriceForecast:
    """Forecast a batch with a way to weigh candidates; announced prices are put in their places.

    Raises
    ------
    HorizonError
        If the horizon is zero or above `models.price.LONGEST`.
    ForecastError
        If a row has no price at all, or shapes do not fit.
    """
    good = checked(batch)
    parts = []
    for first in range(0, max(1, len(good)), _TILE_ROWS):
        tile = take_prices(good, slice(first, first + _TILE_ROWS))
        atoms = atoms_of(tile)
        parts.append(_with_plans(tile, forecast_of(atoms, weigher(atoms), basis), weigher, basis))
    return parts[0] if len(parts) == 1 else _joined(parts)


def _with_plans(
    batch: PriceBatch, found: PriceForecast, weigher: Callable[[Atoms], F32], basis: Basis
) -> PriceForecast:
    """Put announced prices in: certain on their days, and where the line stands on the days after."""
    planned = batch.planned
    if planned is None or not np.isfinite(planned).any():
        return found
    certain = np.isfinite(planned)
    rows = np.flatnonzero(certain.any(axis=1))
    horizon, today = batch.horizon, batch.price[:, 0]
    last = horizon - 1 - certain[rows][:, ::-1].argmax(axis=1)  # (R,) last announced day
    later = forecast_of(atoms := atoms_of(_after(batch, rows, last)), weight := weigher(atoms), basis)
    back = (weight * ((atoms.value == today[rows, None]) & atoms.usable)[:, None]).sum(axis=2)  # at today's price
    for at, (row, end) in enumerate(zip(rows.tolist(), last.tolist(), strict=True)):
        rest = horizon - 1 - end
        found.quantiles[row, end + 1 :] = later.quantiles[at, :rest]
        found.mean[row, end + 1 :] = later.mean[at, :rest]
        found.p_change[row, end + 1 :] = np.clip(1 - back[at, :rest], 0, 1)
        price = planned[row, end]
        if rest:
            odds = _odds(atoms.value[at], weight[at, rest - 1] * atoms.usable[at], today[row])
        else:
            odds = _odds(np.array([price]), np.ones(1, np.float32), today[row])
        found.trend[row], found.p_trend[row] = int(odds.argmax()), odds.max()
    found.quantiles[certain] = planned[certain][:, None]
    found.mean[certain] = planned[certain]
    found.p_change[certain] = (planned != today[:, None])[certain]
    return found


def _after(batch: PriceBatch, rows: I64, last: I64) -> PriceBatch:
    """The lines as they will stand on their last announced day: what is announced has become runs."""
    assert batch.planned is not None  # noqa: S101 - asked before
    assert batch.promo is not None  # noqa: S101 - `checked` gives one
    part, width = take_prices(batch, rows), batch.price.shape[1]
    out = np.full((3, len(rows), width), np.nan, np.float32)
    for at, end in enumerate(last.tolist()):
        price, began, promo = (list(v[at]) for v in (part.price, part.began, batch.promo[rows]))
        began = [value + end + 1 for value in began]
        for day in range(end + 1):
            planned = batch.planned[rows[at], day]
            if np.isfinite(planned) and planned != price[0]:
                price, began, promo = [planned, *price], [float(end - day), *began], [np.nan, *promo]
        out[:, at] = price[:width], began[:width], promo[:width]
    return replace(part, price=out[0], began=out[1], promo=out[2], day=part.day + last + 1, planned=None)


def _odds(value: F32, weight: F32, today: float) -> F32:
    """Odds of flat, up and down, as `Trend` orders them."""
    up, down = float(weight[value > today].sum()), float(weight[value < today].sum())
    return np.array([max(0.0, 1 - up - down), up, down], np.float32).clip(0, 1)


def _joined(parts: list[PriceForecast]) -> PriceForecast:
    names = ("quantiles", "mean", "p_change", "trend", "p_trend", "basis")
    return PriceForecast(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _ordered_sum(values: F32) -> F32:
    total = values[:, 0].copy()
    for index in range(1, values.shape[1]):
        total += values[:, index]
    return total
