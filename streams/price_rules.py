"""What is wrong with one price: hard rules, and "outside the line's own range of accepted prices".

In: one published price and what is known of its line (accepted prices, currency, cost, exchange rates).
Out: a `Finding` (kind and form), or None for a price that nothing speaks against.
Must not know: lines, slots, alerts, time. Rule: a pure function of its arguments; the column form of the same
comparison in `price_lines` uses the same tables, so that a price is judged alike one by one and in bulk.

Why this statistic: of ten measured on real prices with injected faults, the distance beyond the range of the line's
last 30 accepted prices found most at one false alert per 10,000; medians and deviations lose on lines that alternate
between two prices, of which shops have many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal[
    "zero_or_negative",
    "placeholder",
    "decimal_shift",
    "transposed",
    "currency_mismatch",
    "sudden_jump",
    "out_of_range",
    "below_cost",
    "stuck",
    "feed_fault",
]
Form = Literal["zero", "currency", "high", "low"]

CERTAIN: frozenset[Kind] = frozenset(("zero_or_negative", "placeholder", "decimal_shift", "currency_mismatch"))
"""Kinds that are hardly ever meant."""

RING = 30
"""Accepted prices remembered per line: a month of daily prices, half a year of weekly ones; 120 bytes."""

SMALLEST = 0.00005
"""Below half of 1/10,000 of the currency, the finest money the engine counts, a price is zero."""

PLACEHOLDERS = (0.01, 9999.0, 9999.99, 99999.0, 99999.99, 999999.0, 999999.99, 1234.56, 12345.0, 12345.67, 123456.0)
"""Values that people type to fill a field. Each is some shop's honest price, so it also has to lie far off (`far`)."""

_SHIFTS = (0.001, 0.01, 0.1, 10.0, 100.0, 1000.0)
_FEW_TOLERANCE = 0.02  # of a shifted decimal, while the range of the line is not known yet
_SHIFT_TOLERANCE = 0.10  # once the price is known to be abnormal: the true price may itself have moved a little
# A configured rate is a day or two old. A match names a price that is abnormal anyhow and finds none: between them ten
# rates explain so many genuine changes that false alerts rose from 0.5 to 2.2 per 10,000, for no fault more.
_RATE_TOLERANCE = 0.015

SLIP = 1.1
"""Two digits swapped are a fault from 10 % beyond the range on. A genuine change hardly ever hits the one price in a
hundred that swaps two digits; below 10 % it does, because price endings repeat (1.89 and 1.98)."""

MATERIAL = 0.98
"""Below cost counts when it is also 2 % below every accepted price; otherwise the shop has long known."""


@dataclass(frozen=True, slots=True)
class PriceAlertConfig:
    """What counts as abnormal.

    Attributes
    ----------
    reach
        How many times beyond its own range of accepted prices a price must lie, for a line with a full ring. 1.4 = 40 %
        above the highest or below 1/1.4 of the lowest.
    min_accepted
        Accepted prices from which on the range counts; before that only the hard rules speak.
    few_penalty
        Widens the reach of lines with few prices to ``reach ** (1 + few_penalty / n)``: of n prices seen, the
        next one lies outside their range with probability 2 / (n + 1) by chance alone.
    far
        How many times beyond its range a placeholder or a shifted decimal must lie.
    deep
        An announced promotion is abnormal below the median price divided by this.
    accept_after
        Consecutive observations on one side after which a new level is accepted. Stuck faults of up to 8 observations
        were measured; a genuine change must be closed within ten.
    update_step
        A further price of an open alert is worth a revision when it moved by this factor.
    exposure_days
        Days of forecast units that stand at risk until someone acts.
    rates
        Currency -> value of one unit in the base currency. Currencies without a rate are not compared.
    """

    reach: float = 1.4
    min_accepted: int = 5
    few_penalty: float = 5.0
    far: float = 3.0
    deep: float = 4.0
    accept_after: int = 9
    update_step: float = 1.03
    exposure_days: float = 1.0
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse thresholds that would flag everything or never accept.

        Raises
        ------
        ValueError
            With the name of the field and what it must be.
        """
        for name in ("reach", "far", "deep", "update_step"):
            if not getattr(self, name) > 1.0:
                raise ValueError(f"{name} must be above 1, got {getattr(self, name)}")
        if not 2 <= self.accept_after <= RING // 2:
            raise ValueError(f"accept_after must be 2 to {RING // 2}, got {self.accept_after}")
        if not 1 <= self.min_accepted <= RING:
            raise ValueError(f"min_accepted must be 1 to {RING}, got {self.min_accepted}")
        if bad := [code for code, rate in self.rates.items() if not (rate > 0.0 and math.isfinite(rate))]:
            raise ValueError(f"rates must be finite and above 0, wrong for {', '.join(sorted(bad))}")

    def reaches(self) -> npt.NDArray[np.float64]:
        """Give the reach by number of accepted prices, shape (RING + 1,).

        Examples
        --------
        >>> [round(float(r), 2) for r in PriceAlertConfig().reaches()[[5, 10, 30]]]
        [1.96, 1.66, 1.48]
        """
        counts = np.maximum(np.arange(RING + 1), self.min_accepted)
        return np.power(self.reach, 1.0 + self.few_penalty / counts)


def convert(amount: float, source: str, target: str, rates: Mapping[str, float]) -> float | None:
    """Convert money, or None where a rate is missing.

    Examples
    --------
    >>> convert(10.0, "USD", "GBP", {"USD": 0.8, "GBP": 1.0}), convert(1.0, "USD", "SEK", {"USD": 0.8})
    (8.0, None)
    """
    if source == target:
        return amount
    if source not in rates or target not in rates:
        return None
    return amount * rates[source] / rates[target]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a price.

    Attributes
    ----------
    kind
        As in the contract of alerts.
    form
        What faults of one cause have in common; faults of one form are grouped.
    """

    kind: Kind
    form: Form


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a line when a price of its own currency arrives.

    Attributes
    ----------
    prices
        Accepted prices, oldest first, all above 0.
    currency
        The line's usual code.
    reach
        How far beyond the range a price must lie, from `PriceAlertConfig.reaches`.
    cost
        Cost of a unit in the line's currency, None where unknown or not comparable.
    level
        A price that was flagged and waits to be accepted: a fault may sit on top of it.
    """

    prices: Sequence[float]
    currency: str
    reach: float
    cost: float | None = None
    level: float | None = None


def judge(price: float, known: Known, config: PriceAlertConfig) -> Finding | None:
    """Say what is wrong with a price above 0 in the line's own currency.

    Parameters
    ----------
    price
        The published price.
    known
        At least one accepted price.
    config
        Thresholds.

    Examples
    --------
    >>> line = Known([9.99, 10.49, 9.99, 9.99, 10.49, 9.99], "GBP", reach=1.5)
    >>> judge(99.9, line, PriceAlertConfig())
    Finding(kind='decimal_shift', form='high')
    >>> judge(5.01, line, PriceAlertConfig())
    Finding(kind='sudden_jump', form='low')
    >>> judge(11.5, line, PriceAlertConfig())
    """
    low, high = min(known.prices), max(known.prices)
    form: Form = "high" if price > high else "low"
    beyond = max(price / high, low / price)
    few = len(known.prices) < config.min_accepted
    if kind := _hard(price, known, config, beyond, few):
        return Finding(kind, form)
    if known.cost is not None and price < known.cost and price < low * MATERIAL:
        return Finding("below_cost", "low")
    last = known.prices[-1]
    if not few and beyond > SLIP and is_transposed(price, last):
        return Finding("transposed", form)
    if few or beyond <= known.reach:
        return None
    if _is_converted(price, known, config.rates):
        return Finding("currency_mismatch", "currency")
    return Finding("sudden_jump" if max(price / last, last / price) > known.reach else "out_of_range", form)


def judge_announced(price: float, known: Known, config: PriceAlertConfig, rise: float) -> Finding | None:
    """Say what is wrong with an announced price: only what is beyond reason.

    Parameters
    ----------
    price, known, config
        As in `judge`.
    rise
        How far above the range is still in reason: the reach for a promotion, which is no rise, `deep` for a price that
        was announced with a window.

    Examples
    --------
    >>> line = Known([10.0] * 6, "GBP", reach=1.5)
    >>> judge_announced(4.0, line, PriceAlertConfig(), rise=1.5)
    >>> judge_announced(1.0, line, PriceAlertConfig(), rise=1.5)
    Finding(kind='decimal_shift', form='low')
    """
    if price * config.deep >= quantile(sorted(known.prices), 0.5) and price <= max(known.prices) * rise:
        return None
    return judge(price, known, config)


def is_transposed(price: float, last: float) -> bool:
    """Tell whether two neighbouring digits of the last price were swapped.

    Examples
    --------
    >>> is_transposed(21.95, 12.95), is_transposed(19.25, 12.95), is_transposed(15.92, 12.95)
    (True, True, False)
    """
    old, new = f"{last:.2f}", f"{price:.2f}"
    if len(old) != len(new):
        return False
    apart = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    if len(apart) != 2 or "." in (old[apart[0]], old[apart[1]]):
        return False
    near = apart[1] - apart[0] == 1 or (apart[1] - apart[0] == 2 and old[apart[0] + 1] == ".")
    return near and old[apart[0]] == new[apart[1]] and old[apart[1]] == new[apart[0]]


def quantile(ordered: Sequence[float], level: float) -> float:
    """Interpolate a quantile linearly between order statistics (Hyndman and Fan 1996, type 7).

    Examples
    --------
    >>> quantile([1.0, 2.0, 4.0], 0.5), quantile([1.0, 2.0], 0.25)
    (2.0, 1.25)
    """
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _hard(price: float, known: Known, config: PriceAlertConfig, beyond: float, few: bool) -> Kind | None:
    """Name the hard kind, if the price is one; `beyond` is how many times outside the range it lies."""
    if beyond > config.far:
        if any(abs(price - value) < 0.005 for value in PLACEHOLDERS):
            return "placeholder"
        if _is_shifted(price, _references(known), _FEW_TOLERANCE if few else _SHIFT_TOLERANCE):
            return "decimal_shift"
    return None


def _references(known: Known) -> list[float]:
    """List the prices that a fault may have been made from."""
    usual = [known.prices[-1], quantile(sorted(known.prices), 0.5)]
    return usual if known.level is None else [*usual, known.level]


def _is_shifted(price: float, references: Sequence[float], tolerance: float) -> bool:
    for reference in references:
        for shift in _SHIFTS:
            # prices are rounded to the cent: 0.85 / 100 is published as 0.01
            if abs(price - reference * shift) <= max(tolerance * reference * shift, 0.0051):
                return True
    return False


def _is_converted(price: float, known: Known, rates: Mapping[str, float]) -> bool:
    for code in rates:
        for reference in _references(known) if code != known.currency else ():
            value = convert(reference, known.currency, code, rates)
            if value is not None and abs(price - value) <= _RATE_TOLERANCE * value:
                return True
    return False
