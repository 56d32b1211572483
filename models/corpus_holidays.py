"""Holidays of made-up shops: fixed days, days that move with Easter, days that only this shop keeps.

In: a generator, day numbers, how many shops. Out: `Holidays`, and what each series makes of them.
Must not know: demand. Rule: a holiday is felt before it, on it and after it, and each series feels it in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.corpus_spells import I64, Mask, chosen, days_since, days_until, log_uniform
from models.forecast import F32

FIXED = ((1, 1), (12, 25), (12, 26))
CHRISTMAS = 1
EASTER_OFFSETS = (-2, 1, 39, 50)
"""Good Friday, Easter Monday, Ascension, Whit Monday."""

OWN = 4
SALE = len(FIXED) + len(EASTER_OFFSETS)
"""The kind that is a day of sales in late November: never closed."""

KINDS = SALE + 1 + OWN
FELT_DAYS = 30
"""Days before a holiday that may feel it."""


@dataclass(frozen=True, slots=True)
class Holidays:
    """Holidays of S shops over D days, K kinds.

    Attributes
    ----------
    told
        Whether a day is announced as a holiday, bool (S, D).
    shut
        Whether the shop is closed for one, bool (S, D).
    near
        How near each kind is before, on and after its day, 0 to 1, float32 (S, 3K, D).
    """

    told: Mask
    shut: Mask
    near: F32


def holidays(rng: np.random.Generator, day: I64, shops: int) -> Holidays:
    """Draw the holidays of shops.

    Parameters
    ----------
    day
        Day numbers since 1970-01-01, one after the other, int64 (D,).
    """
    longer = np.concatenate([day, day[-1] + 1 + np.arange(FELT_DAYS)])  # a day past the end is felt before it
    shared = np.broadcast_to(_shared(longer), (shops, SALE + 1, len(longer)))
    own: Mask = _day_of_year(longer) == rng.integers(1, 365, (shops, OWN))[:, :, None]
    kept = chosen(rng, 0.65, shops * KINDS).reshape(shops, KINDS)
    on = np.logical_and(np.concatenate([shared, own], axis=1), kept[:, :, None])
    closes = np.logical_and(chosen(rng, 0.6, shops * KINDS).reshape(shops, KINDS), chosen(rng, 0.6, shops)[:, None])
    closes[:, SALE] = False
    told = chosen(rng, 0.85, shops * KINDS).reshape(shops, KINDS)
    days = len(day)
    shut = (on & closes[:, :, None]).any(axis=1)[:, :days]
    return Holidays((on & told[:, :, None]).any(axis=1)[:, :days], shut, _near(rng, on)[:, :, :days])


def _near(rng: np.random.Generator, on: Mask) -> F32:
    lead = log_uniform(rng, 0.7, 4, on.shape[0] * KINDS).reshape(-1, KINDS, 1)
    lead[:, CHRISTMAS] = log_uniform(rng, 3, 12, len(lead))[:, None]
    until, since = days_until(on), days_since(on)
    before = np.where((until > 0) & (until <= FELT_DAYS), np.exp(-(until - 1) / lead), 0)
    after = np.where((since > 0) & (since <= FELT_DAYS), np.exp(-(since - 1) / 1.5), 0)
    near: F32 = np.concatenate([before, on, after], axis=1).astype(np.float32)
    return near


def effects(rng: np.random.Generator, shop: I64, shops: int) -> F32:
    """What each kind does to the logarithm of demand before, on and after its day, float32 (N, 3K).

    Parameters
    ----------
    shop
        Of each series, int64 (N,).
    """

    def drawn(spread: float, own: float) -> npt.NDArray[np.float64]:
        return rng.normal(0, spread, (shops, KINDS))[shop] + rng.normal(0, own, (len(shop), KINDS))

    before, on, after = np.abs(drawn(0.25, 0.1)), drawn(0.5, 0.3), drawn(0.15, 0.1) - 0.05
    before[:, CHRISTMAS] += np.abs(rng.normal(0, 0.5, len(shop)))
    after[:, CHRISTMAS] -= np.abs(rng.normal(0, 0.3, len(shop)))
    on[:, SALE] = np.abs(on[:, SALE]) * 1.5
    return np.concatenate([before, on, after], axis=1).astype(np.float32)


def _shared(day: I64) -> Mask:
    """Days of the kinds that all shops may keep, bool (K, D)."""
    date = day.astype("datetime64[D]")
    month = date.astype("datetime64[M]").astype(np.int64) % 12 + 1
    of_month = (date - date.astype("datetime64[M]")).astype(np.int64) + 1
    fixed = [(month == at[0]) & (of_month == at[1]) for at in FIXED]
    easter_day = easter(np.unique(date.astype("datetime64[Y]").astype(np.int64) + 1970))
    moving = [np.isin(day, easter_day + offset) for offset in EASTER_OFFSETS]
    sale = (month == 11) & (of_month > 21) & (of_month <= 28) & ((day + 3) % 7 == 4)
    return np.stack([*fixed, *moving, sale])


def _day_of_year(day: I64) -> I64:
    date = day.astype("datetime64[D]")
    number: I64 = (date - date.astype("datetime64[Y]")).astype(np.int64) + 1
    return number


def easter(year: I64) -> I64:
    """Day number of Easter Sunday (Meeus, "Astronomical Algorithms", ch. 8: the anonymous Gregorian rule).

    Examples
    --------
    >>> easter(np.array([2015, 2024])).astype("datetime64[D]").astype(str).tolist()
    ['2015-04-05', '2024-03-31']
    """
    golden, century, rest = year % 19, year // 100, year % 100
    shift = (century - (century + 8) // 25 + 1) // 3
    moon = (19 * golden + century - century // 4 - shift + 15) % 30
    sunday = (32 + 2 * (century % 4) + 2 * (rest // 4) - moon - rest % 4) % 7
    late = (golden + 11 * moon + 22 * sunday) // 451
    place = moon + sunday - 7 * late + 114
    month = ((year - 1970) * 12 + place // 31 - 1).astype("datetime64[M]")
    number: I64 = month.astype("datetime64[D]").astype(np.int64) + place % 31
    return number
