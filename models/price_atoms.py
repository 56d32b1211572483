"""Candidates for a price: levels a line has had, and steps to levels it has not, with what speaks for each.

In: a checked `PriceBatch`. Out: `Atoms`; from them and their weights a `PriceForecast`.
Must not know: where weights come from. Rule: a forecast of a price is a weighted set of candidates, the first of which
is today's price: p_change, quantiles, mean and trend are all read off the same weights, and so agree.

Shapes: B lines, K runs, A candidates (K levels, then the steps), H days, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.forecast import F32, LEVELS, Basis
from models.price import PriceBatch, PriceForecast, Trend

Bools = npt.NDArray[np.bool_]

STEPS = (-0.4, -0.25, -0.16, -0.1, -0.06, -0.03, -0.01, 0.01, 0.03, 0.06, 0.1, 0.16, 0.25, 0.4)
"""Steps to levels that a line has not had yet, in log of today's price."""

FADE_DAYS = 112.0
"""Days after which time spent on a level counts e times less."""

PRIOR_CHANGES, PRIOR_DAYS = 1.0, 40.0
"""What a line without a past is taken to have seen: one change in forty days."""


@dataclass(frozen=True, slots=True)
class Atoms:
    """Candidates of each line, with features.

    Attributes
    ----------
    value
        Prices, float32 (B, A); candidate 0 is today's.
    usable
        False where a candidate is none (no such run, or a level that stands before it already), bool (B, A).
    time
        Days spent on the level, counted less the longer ago, float32 (B, A); 0 for steps.
    followed
        How often the level came straight after today's, float32 (B, A).
    candidate, line, day
        Features: float32 (B, A, `CANDIDATE_FEATURES`), (B, `LINE_FEATURES`) and (B, H, `DAY_FEATURES`).
    hazard
        Changes expected up to day h, by the line's own past, float32 (B, H).
    """

    value: F32
    usable: Bools
    time: F32
    followed: F32
    candidate: F32
    line: F32
    day: F32
    hazard: F32


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of each line with what is known of each, float32 (B, K); zeros where there is none."""

    price: F32
    there: Bools
    began: F32
    length: F32
    faded: F32
    promo: F32
    same: Bools  # (B, K, K): same price


def atoms_of(batch: PriceBatch) -> Atoms:
    """List the candidates of each line of a checked batch.

    Examples
    --------
    >>> from models.price import PriceBatch, checked
    >>> price, began = np.array([[9, 7, 9, 8]], np.float32), np.array([[2, 5, 20, 30]], np.float32)
    >>> atoms = atoms_of(checked(PriceBatch(price, began, np.zeros(1, np.int64), horizon=2)))
    >>> atoms.value[0, atoms.usable[0]][:3].tolist(), atoms.usable[0, :4].tolist()
    ([9.0, 7.0, 8.0], [True, True, False, True])
    """
    runs = _runs(batch)
    today = runs.price[:, :1]
    same = runs.same
    lead = runs.there & ~np.tril(same, -1).any(axis=2)
    total = _ordered_sum(runs.faded)[:, None]
    time = _over(same, runs.faded)
    count = _over(same, runs.there.astype(np.float32))
    older_is_today = np.zeros_like(runs.there)
    older_is_today[:, :-1] = same[:, 0, 1:]
    followed = _over(same, (older_is_today & runs.there).astype(np.float32))
    left = count[:, 0] - 1  # times that today's price was left before
    usual = runs.price[np.arange(len(today)), np.where(lead, time, -1).argmax(axis=1)][:, None]
    mean_length = _over(same, runs.length) / np.maximum(count, 1)
    ended = np.concatenate([np.zeros((len(today), 1), np.float32), runs.began[:, :-1]], axis=1)
    ratio = _log(runs.price, runs.there) - np.log(today)
    features = (
        np.log(time / np.maximum(total, 1e-6) + 0.01), np.log1p(ended) / 3, np.log1p(count),
        ratio * 4, np.abs(ratio) * 4, (runs.price == usual).astype(np.float32), (ratio - np.log(usual / today)) * 4,
        (followed + 0.1) / (np.maximum(left, 0)[:, None] + 0.5), np.log1p(mean_length) / 3, runs.promo,
    )  # fmt: skip
    known = np.stack(features, axis=2).astype(np.float32)
    known[~lead] = 0
    hazard, day = _days(batch, runs, left)
    line = _line(batch, runs, usual, (time / np.maximum(total, 1e-6)).astype(np.float32), count)
    value, flags = _with_steps(runs.price, known, np.log(usual / today))
    pad = np.zeros((len(today), len(STEPS)), np.float32)
    return Atoms(
        value=value,
        usable=np.concatenate([lead, pad == 0], axis=1),
        time=np.concatenate([time * lead, pad], axis=1),
        followed=np.concatenate([followed * lead, pad], axis=1),
        candidate=flags, line=line, day=day, hazard=hazard,
    )  # fmt: skip


CANDIDATE_FEATURES, LINE_FEATURES, DAY_FEATURES = 13, 14, 6


def _runs(batch: PriceBatch) -> _Runs:
    there = np.isfinite(batch.price)
    price, began = np.where(there, batch.price, 0), np.where(there, batch.began, 0)
    newer = np.concatenate([np.full((len(price), 1), -1, np.float32), began[:, :-1]], axis=1)
    length = np.where(there, began - newer, 0)
    faded = np.where(there, FADE_DAYS * (np.exp(-(newer + 1) / FADE_DAYS) - np.exp(-(began + 1) / FADE_DAYS)), 0)
    promo = np.zeros_like(price) if batch.promo is None else np.nan_to_num(batch.promo)
    same = (price[:, :, None] == price[:, None, :]) & there[:, :, None] & there[:, None, :]
    return _Runs(price, there, began, length, faded.astype(np.float32), promo * there, same)


def _days(batch: PriceBatch, runs: _Runs, left: F32) -> tuple[F32, F32]:
    """Changes expected by each day ahead, (B, H), and the features of the days, (B, H, F).

    Changes fall on the weekdays on which the line has changed before: a shop that prices on Wednesdays will again.
    """
    ahead = np.arange(1, batch.horizon + 1)
    rows, changed = len(batch), runs.there.copy()
    changed[np.arange(rows), runs.there.sum(axis=1) - 1] = False  # the oldest run has no beginning that is a change
    weekday = (batch.day[:, None] - runs.began.astype(np.int64)) % 7  # (B, K) of each change
    per_weekday = np.zeros((rows, 7), np.float32)
    for index in range(7):
        per_weekday[:, index] = ((weekday == index) & changed).sum(axis=1)
    changes, window = changed.sum(axis=1).astype(np.float32), runs.began.max(axis=1) + 1
    rate = (changes + np.float32(PRIOR_CHANGES)) / (window + np.float32(PRIOR_DAYS))  # a day
    share = (per_weekday + np.float32(1 / 7)) / (changes + 1)[:, None]  # of the weekdays, sums to one
    per_day = np.take_along_axis(share, (batch.day[:, None] + ahead) % 7, axis=1) * rate[:, None] * 7
    hazard = np.cumsum(per_day, axis=1, dtype=np.float32)
    # how runs on today's price went on that had lasted as long as this one has
    again = runs.same[:, 0] & (np.arange(runs.price.shape[1]) > 0)
    survived = again & (runs.length > runs.began[:, :1])
    alive = survived.sum(axis=1)[:, None]
    longer = np.stack([(survived & (runs.length > runs.began[:, :1] + h)).sum(axis=1) for h in ahead], axis=1)
    stays = np.exp(-np.minimum(hazard, 20))
    stay = (longer + stays) / (alive + 1)
    on_weekday = np.log(per_day * 7 / (rate[:, None] * 7) + 0.05) / 2
    features = (
        np.broadcast_to(np.log(ahead) / 2, hazard.shape), np.log(hazard + 0.01), stays, stay,
        np.broadcast_to(np.log1p(alive), hazard.shape), on_weekday,
    )  # fmt: skip
    return hazard, np.stack(features, axis=2).astype(np.float32)


def _line(batch: PriceBatch, runs: _Runs, usual: F32, share: F32, count: F32) -> F32:
    """Features of lines, (B, F)."""
    there, today = runs.there, runs.price[:, 0]
    logs = _log(runs.price, there)
    pair = there[:, 1:]
    moves = np.where(pair, logs[:, :-1] - logs[:, 1:], 0)
    number = np.maximum(pair.sum(axis=1), 1)
    window = runs.began.max(axis=1) + 1
    again = (there & (count > 1)).sum(axis=1) / there.sum(axis=1)
    lengths = np.where(there[:, 1:], np.log1p(runs.length[:, 1:]), 0)
    above = np.where(there, runs.price, 0).max(axis=1)
    features = (
        np.log1p(there.sum(axis=1)), np.log(window) / 3, np.log1p(runs.began[:, 0]) / 3,
        np.log(today / usual[:, 0]) * 4, share[:, 0], share.max(axis=1),
        np.abs(moves).sum(axis=1) / number * 10, moves.sum(axis=1) / number * 20, again,
        runs.promo[:, 0], lengths.sum(axis=1) / number / 3, np.log(today / above) * 4,
        (runs.length[:, 1:] % 7 == 0).sum(axis=1, where=pair) / number,
        np.nan_to_num(batch.promo).any(axis=1) if batch.promo is not None else np.zeros(len(today)),
    )  # fmt: skip
    return np.stack(features, axis=1).astype(np.float32)


def _with_steps(price: F32, known: F32, off: F32) -> tuple[F32, F32]:
    """Values of all candidates, (B, A), and their features, (B, A, F): the steps have some of their own."""
    rows, levels, features = known.shape
    steps = np.array(STEPS, np.float32)
    value = np.concatenate([price, price[:, :1] * np.exp(steps)], axis=1)
    out = np.zeros((rows, levels + len(STEPS), features + 3), np.float32)
    out[:, :levels, :features] = known
    out[:, levels:, 3] = steps * 4
    out[:, levels:, 4] = np.abs(steps) * 4
    out[:, levels:, 6] = (steps - off) * 4
    out[:, 0, features] = 1  # today's price
    out[:, levels:, features + 1] = 1  # a step
    out[:, levels:, features + 2] = np.abs(steps) < 0.05
    return value, out


def forecast_of(atoms: Atoms, weight: F32, basis: Basis) -> PriceForecast:
    """Read a forecast off weights.

    Parameters
    ----------
    weight
        Of each candidate on each day, float32 (B, H, A), at least zero, one in sum; zero where not usable.
    """
    value = np.where(atoms.usable, atoms.value, np.float32(np.inf))
    order = np.argsort(value, axis=1, kind="stable")
    ordered = np.take_along_axis(value, order, axis=1)  # (B, A)
    sums = np.cumsum(np.take_along_axis(weight, order[:, None], axis=2), axis=2, dtype=np.float64)
    last = (atoms.usable.sum(axis=1) - 1)[:, None]
    quantiles = np.empty((*weight.shape[:2], len(LEVELS)), np.float32)
    for index, level in enumerate(LEVELS):
        below = (sums < level - 1e-6).sum(axis=2)  # (B, H)
        quantiles[:, :, index] = np.take_along_axis(ordered, np.minimum(below, last), axis=1)
    known = np.where(atoms.usable, atoms.value, 0)
    today = atoms.value[:, :1]
    end = weight[:, -1]
    up = (end * (known > today)).sum(axis=1)
    down = (end * (atoms.usable & (known < today))).sum(axis=1)
    odds = np.stack([np.maximum(0, 1 - up - down), up, down], axis=1)  # (B, 3), as `Trend`
    return PriceForecast(
        quantiles=quantiles,
        mean=(weight * known[:, None]).sum(axis=2).astype(np.float32),
        p_change=np.clip(1 - weight[:, :, 0], 0, 1).astype(np.float32),
        trend=odds.argmax(axis=1).astype(np.uint8),
        p_trend=np.clip(odds.max(axis=1), 0, 1).astype(np.float32),
        basis=np.full(len(today), basis, np.uint8),
    )


assert len(Trend) == 3  # noqa: S101 - `forecast_of` lists their odds in this order


def _over(same: Bools, values: F32) -> F32:
    """Sum values over the runs of equal price, (B, K), in the order of runs."""
    total = np.zeros_like(values)
    for run in range(values.shape[1]):
        total += same[:, :, run] * values[:, run, None]
    return total


def _ordered_sum(values: F32) -> F32:
    total = values[:, 0].copy()
    for run in range(1, values.shape[1]):
        total += values[:, run]
    return total


def _log(price: F32, there: Bools) -> F32:
    logs: F32 = np.log(np.where(there, price, 1))
    return logs
