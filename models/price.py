"""What a forecaster of price lines is: runs of prices in, a hurdle of change and prices per day out.

In: a `PriceBatch`: the newest runs of each line's price, how long ago each began, what is announced.
Out: a `PriceForecast`: quantiles per day, their mean, the probability that the price differs from today's, a trend.
Must not know: shops, currencies, clocks. Rule: row i of the result answers row i of the batch, and no other row
changes it.

A price mostly stays, and where it changes it mostly goes to one it has had before. So a line is its *runs*: stretches
of days on one price. They are all of its history in a hundred bytes, however old.

Shapes: B lines, K runs, H days, Q levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from models.forecast import F32, LEVELS, Basis, ForecastError, HorizonError

I64 = npt.NDArray[np.int64]

PriceModel = Literal["net", "hurdle", "off"]
"""Who forecasts prices: the net in the package, the plain hurdle, or nobody."""

RUNS = 16
"""Runs of a line that are read: half a year of a shop with a weekly offer, and six bytes of state each."""

HORIZON = 30
"""Days of a published forecast."""

LONGEST = 90
"""Days that can be asked for."""

DEAREST = 1e9
"""No price of the contract is above it; what is above it here is not a price."""


class Trend(IntEnum):
    """Where the price of the last day lies beside today's; the name in lower case is published."""

    FLAT = 0
    UP = 1
    DOWN = 2


@dataclass(frozen=True, slots=True)
class PriceBatch:
    """The lines that are forecast together; step 1 is the day after today.

    Attributes
    ----------
    price
        Price of each run, the newest first, float32 (B, K); NaN where no more are known. Column 0 is today's price.
        What is no price (zero, negative, not finite, above `DEAREST`) is passed over.
    began
        Days from the first day of each run to today, float32 (B, K): 0 where it began today. Never falls along K.
    day
        Local day number of today (days since 1970-01-01), int64 (B,).
    horizon
        Days asked for.
    promo
        1 where a run was announced as a promotion, 0 where not, NaN where nobody says, float32 (B, K), or None.
    planned
        Prices that are announced for the days ahead, float32 (B, H), NaN where none is, or None.
    """

    price: F32
    began: F32
    day: I64
    horizon: int = HORIZON
    promo: F32 | None = None
    planned: F32 | None = None

    def __len__(self) -> int:
        return len(self.price)


@dataclass(frozen=True, slots=True)
class PriceForecast:
    """Prices per line, day and level; finite, above zero, never crossing along Q.

    Attributes
    ----------
    quantiles
        Float32 (B, H, Q).
    mean
        Mean of the same, float32 (B, H).
    p_change
        Probability that the price in force differs from today's, float32 (B, H). It may fall along H: offers end.
    trend
        `Trend` on the last day, uint8 (B,): the likeliest of the three.
    p_trend
        Its probability, float32 (B,).
    basis
        `Basis` per row, uint8 (B,).
    """

    quantiles: F32
    mean: F32
    p_change: F32
    trend: npt.NDArray[np.uint8]
    p_trend: F32
    basis: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.quantiles)


class PriceForecaster(Protocol):
    """Anything that answers a batch of price lines. ``name`` is published as ``model``."""

    @property
    def name(self) -> str:
        """Name; it must change with the weights."""
        ...

    def forecast(self, batch: PriceBatch) -> PriceForecast:
        """Forecast every row of the batch.

        Raises
        ------
        HorizonError
            If the horizon is zero or above `LONGEST`.
        ForecastError
            If a row has no price at all, or shapes do not fit.
        """
        ...


def take_prices(batch: PriceBatch, rows: npt.NDArray[Any] | slice) -> PriceBatch:
    """Select rows of a batch, in the order given."""
    return PriceBatch(
        price=batch.price[rows],
        began=batch.began[rows],
        day=batch.day[rows],
        horizon=batch.horizon,
        promo=None if batch.promo is None else batch.promo[rows],
        planned=None if batch.planned is None else batch.planned[rows],
    )


def runs_of(daily: F32, promo: F32 | None = None, runs: int = RUNS) -> tuple[F32, F32, F32]:
    """Read the newest runs off prices per day.

    Parameters
    ----------
    daily
        Price in force each day, oldest first, the last column today's, float32 (B, T); NaN where unknown: the price
        before it is taken to have stayed.
    promo
        Whether each day was on an announced promotion, float32 (B, T), or None.
    runs
        How many are kept.

    Returns
    -------
    `price`, `began` and `promo` of a `PriceBatch`, each float32 (B, runs).

    Examples
    --------
    >>> price, began, _ = runs_of(np.array([[np.nan, 9, 9, 7, np.nan, 9]], np.float32), runs=4)
    >>> price.tolist(), began.tolist()
    ([[9.0, 7.0, 9.0, nan]], [[0.0, 2.0, 4.0, nan]])
    """
    rows, days = daily.shape
    out = np.full((3, rows, runs), np.nan, np.float32)
    known = ~np.isnan(daily)
    newest = np.maximum.accumulate(np.where(known, np.arange(days), -1), axis=1)  # last known column up to each
    before = np.concatenate([np.full((rows, 1), -1), newest[:, :-1]], axis=1)
    last = np.take_along_axis(daily, np.maximum(before, 0), axis=1)
    begins = known & ((before < 0) | (last != daily))
    place = begins[:, ::-1].cumsum(axis=1)[:, ::-1] - 1  # 0 = the newest run
    row, day = np.nonzero(begins & (place < runs))
    at = place[row, day]
    out[0, row, at] = daily[row, day]
    out[1, row, at] = days - 1 - day
    if promo is not None:
        out[2, row, at] = promo[row, day]
    return out[0], out[1], out[2]


def checked(batch: PriceBatch) -> PriceBatch:
    """Check a batch and pass over what is no price: runs before it close up, in float32 copies.

    Raises
    ------
    HorizonError
        If the horizon is zero or above `LONGEST`.
    ForecastError
        If a row has no price at all, or shapes do not fit.
    """
    if not 1 <= batch.horizon <= LONGEST:
        raise HorizonError(f"the horizon is {batch.horizon}; ask for 1 to {LONGEST} days")
    if batch.planned is not None and batch.planned.shape != (len(batch), batch.horizon):
        raise ForecastError(f"planned has shape {batch.planned.shape}, not ({len(batch)}, {batch.horizon})")
    if batch.price.shape != batch.began.shape or len(batch.day) != len(batch):
        raise ForecastError(f"prices have shape {batch.price.shape}, but their beginnings {batch.began.shape}")
    price, began = batch.price.astype(np.float32), batch.began.astype(np.float32)
    good = is_price(price) & np.isfinite(began)
    if len(price) and not good.any(axis=1).all():
        raise ForecastError(f"row {int(np.argmin(good.any(axis=1)))} has no price; forecast lines that were priced")
    order = np.argsort(~good, axis=1, kind="stable")
    kept = np.take_along_axis(good, order, axis=1)
    promo = np.full_like(price, np.nan) if batch.promo is None else batch.promo.astype(np.float32)
    price, began, promo = (
        np.where(kept, np.take_along_axis(values, order, axis=1), np.float32(np.nan))
        for values in (price, began, promo)
    )
    began = np.maximum.accumulate(np.where(kept, np.maximum(began, 0), 0), axis=1)
    planned = None if batch.planned is None else np.where(is_price(batch.planned), batch.planned, np.float32(np.nan))
    return PriceBatch(price, np.where(kept, began, np.float32(np.nan)), batch.day, batch.horizon, promo, planned)


def is_price(values: F32) -> npt.NDArray[np.bool_]:
    """Tell which values can be prices.

    Examples
    --------
    >>> is_price(np.array([9.99, 0, -1, np.nan, np.inf, 1e10], np.float32)).tolist()
    [True, False, False, False, False, False]
    """
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.bool_] = np.isfinite(values) & (values > 0) & (values <= DEAREST)
    return found


class LastPrice:
    """Today's price for every day ahead, as a point: what a forecast of prices has to beat.

    Examples
    --------
    >>> batch = PriceBatch(np.array([[9.0]], np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.int64), 2)
    >>> LastPrice().forecast(batch).mean.tolist()
    [[9.0, 9.0]]
    """

    @property
    def name(self) -> str:
        """Published as ``model``."""
        return "last-price-1"

    def forecast(self, batch: PriceBatch) -> PriceForecast:
        """Repeat today's price."""
        today = checked(batch).price[:, :1]
        rows, horizon = len(batch), batch.horizon
        mean = np.repeat(today, horizon, axis=1)
        return PriceForecast(
            quantiles=np.repeat(mean[:, :, None], len(LEVELS), axis=2),
            mean=mean,
            p_change=np.zeros((rows, horizon), np.float32),
            trend=np.full(rows, Trend.FLAT, np.uint8),
            p_trend=np.ones(rows, np.float32),
            basis=np.full(rows, Basis.BASELINE, np.uint8),
        )
