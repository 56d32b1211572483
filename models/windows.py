"""What the encoder reads: a batch of histories as tensors, and from these columns and anchors per row and step.

In: a `ForecastBatch`, and which of its known covariates count. Out: `Windows`, and `StepInputs` of chosen steps.
Must not know: weights, shops, files. Rule: a column is made of one row's own values, on whatever device they lie; the
same code makes it for training, backtests and serving, so that these cannot differ.

Every level is divided by the row's scale ``s = max(mean of 8 seasons, 1/4 mean of 16 weeks, 1/10 mean of all weeks,
least)`` and passed through asinh: large and small sellers look alike, and a tail stays a tail. Nothing tells the date
apart but what is asked for by `dates`: a series' age or a trend of the whole panel lets a model learn days by heart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.forecast import LEVELS, ForecastBatch

SEASONS = 12
"""Seasons of history read: what the panes of the engine hold of days."""

WEEKS = 103
"""Whole weeks read before the week of step 1."""

LEAST = 0.02
"""Units a day taken for the scale of a series that sells less."""

ANCHORS = ("phase", "recent", "long", "state")
"""Empirical quantile sets: the step's phase, 4 seasons, 8 seasons, and the step's phase under its own known state."""

MIN_STATE = 3
"""Samples that a state must have; with fewer the phase stands for it."""

PRICE = "price"
"""The covariate that is a price."""

YEAR_WEEKS = 52
EFFECT_PRIOR = 2.0
"""Days of a row's own mean that an effect of a covariate is shrunk by."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch as tensors; B rows, T buckets of history (oldest first), H steps, C covariates, W weeks.

    Attributes
    ----------
    demand
        Float32 (B, T), NaN where a bucket was closed or says nothing.
    future_open
        Bool (B, H).
    past_open
        Bool (B, T).
    observed, elapsed
        Of step 1, float32 (B,).
    day, hour
        Of step 1, int64 (B,).
    weeks
        Demand of whole weeks before that of step 1, oldest first, float32 (B, W), NaN where unknown.
    known
        Covariates over history and steps, float32 (B, C, T + H), NaN where unknown.
    price
        Price charged, float32 (B, T), NaN where unknown.
    prices
        Which covariates are prices, by index: their ratios count, not their values.
    season
        Buckets per season.
    """

    demand: Tensor
    future_open: Tensor
    past_open: Tensor
    observed: Tensor
    elapsed: Tensor
    day: Tensor
    hour: Tensor
    weeks: Tensor
    known: Tensor
    price: Tensor
    prices: tuple[int, ...]
    season: int

    def __len__(self) -> int:
        return len(self.demand)

    @property
    def horizon(self) -> int:
        """Steps."""
        return int(self.future_open.shape[1])

    def to(self, device: torch.device | str) -> Windows:
        """The same on another device."""
        moved: dict[str, Any] = {
            one.name: value.to(device, non_blocking=True)
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), Tensor)
        }
        return replace(self, **moved)


def windows_of(batch: ForecastBatch, covariates: Sequence[str]) -> Windows:
    """Lay out a batch as tensors; what it does not have is unknown.

    Examples
    --------
    >>> batch = ForecastBatch(
    ...     demand=np.ones((1, 84), np.float32), is_open=np.ones((1, 84), bool), future_open=np.ones((1, 2), bool),
    ...     observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32), day=np.array([19723]),
    ...     hour=np.array([0]), season=7, group=np.array([-1], np.int32))
    >>> windows = windows_of(batch, ("promo",))
    >>> tuple(windows.demand.shape), tuple(windows.known.shape), bool(windows.known.isnan().all())
    ((1, 84), (1, 1, 86), True)
    """
    rows, span, horizon = len(batch), SEASONS * batch.season, batch.horizon
    demand = np.where(batch.is_open, np.maximum(batch.demand, 0), np.float32(np.nan))
    known = np.full((rows, len(covariates), span + horizon), np.nan, np.float32)
    for index, name in enumerate(covariates):
        if name in batch.known:
            known[:, index] = _newest(batch.known[name], span + horizon, np.nan)
    weeks = batch.weeks if batch.weeks is not None else np.empty((rows, 0), np.float32)
    price = batch.channels.get("price", np.empty((rows, 0), np.float32))
    return Windows(
        demand=torch.from_numpy(_newest(demand, span, np.nan)),
        future_open=_own(batch.future_open),
        past_open=torch.from_numpy(_newest(batch.is_open, span, True)),
        observed=_own(batch.observed),
        elapsed=_own(batch.elapsed),
        day=_own(batch.day),
        hour=_own(batch.hour),
        weeks=torch.from_numpy(_newest(weeks, WEEKS, np.nan)),
        known=torch.from_numpy(known),
        price=torch.from_numpy(_newest(price, span, np.nan)),
        prices=tuple(index for index, name in enumerate(covariates) if name == PRICE),
        season=batch.season,
    )


def _own(values: npt.NDArray[Any]) -> Tensor:
    """A copy: what is handed in may be read-only, or a view of something that changes."""
    return torch.from_numpy(np.array(values))


def _newest(values: npt.NDArray[Any], span: int, missing: float) -> npt.NDArray[Any]:
    """The newest columns, in front of them what is missing."""
    out = np.full((len(values), span), missing, values.dtype)
    have = min(span, values.shape[1])
    if have:
        out[:, -have:] = values[:, values.shape[1] - have :]
    return out


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What the net reads; F columns per row, K per row and step, N steps, A anchors, Q levels.

    Attributes
    ----------
    series
        Float32 (B, F).
    steps
        Float32 (B, N, K).
    anchors
        Quantiles over scale, float32 (B, N, A, Q).
    scale
        Float32 (B,).
    """

    series: Tensor
    steps: Tensor
    anchors: Tensor
    scale: Tensor


def step_inputs(windows: Windows, steps: Tensor | None = None, *, dates: bool = False) -> StepInputs:
    """Columns and anchors of some steps.

    Parameters
    ----------
    steps
        Which, int64 (B, N) counted from 0; all where none are named.
    dates
        Whether day of month and day of year are told.
    """
    w = windows
    if steps is None:
        steps = torch.arange(w.horizon, device=w.demand.device).expand(len(w), -1)
    past = _Past(w)
    anchors = _anchors(past, steps)
    series = torch.stack(_series(past), dim=1)
    columns = [*_phase_columns(past, steps), *_calendar(w, steps, dates), *_last_year(past, steps)]
    columns += [*_open_columns(w, steps), *_known_columns(past, steps)]
    return StepInputs(series, torch.stack(columns, dim=2), anchors, past.scale)


class _Past:
    """One batch, with what several columns share computed once."""

    def __init__(self, w: Windows) -> None:
        self.w, season = w, w.season
        self.newest = w.demand.flip(1)
        self.seen = torch.isfinite(self.newest)
        self.filled = torch.nan_to_num(self.newest, nan=0.0)
        self.sums, self.counts = self.filled.cumsum(1), self.seen.to(torch.float32).cumsum(1)
        self.blocks = w.demand.reshape(len(w), SEASONS, season).flip(1).transpose(1, 2)  # (B, S, 12), newest first
        self.week_known = torch.isfinite(w.weeks)
        self.week_rate = torch.nan_to_num(w.weeks, nan=0.0) / (7 * (24 if season == 24 else 1))
        self.mean_all = self.mean(SEASONS * season)
        self.mean_16w, self.mean_life = self.week_mean(16), self.week_mean(WEEKS)
        least = LEAST * 7 / season
        floor = torch.maximum(self.mean_16w / 4, self.mean_life / 10).clamp_min(least)
        self.scale = torch.maximum(self.mean(8 * season), floor)

    def mean(self, buckets: int) -> Tensor:
        """Mean of the newest buckets, 0 where nothing was seen."""
        return self.sums[:, buckets - 1] / self.counts[:, buckets - 1].clamp_min(1)

    def week_mean(self, weeks: int) -> Tensor:
        """Mean demand per bucket over the newest weeks; that of the buckets where no week is known."""
        known, rate = self.week_known[:, -weeks:], self.week_rate[:, -weeks:]
        count = known.sum(1)
        return torch.where(count > 0, rate.sum(1) / count.clamp_min(1), self.mean_all)

    def level(self, values: Tensor) -> Tensor:
        """Units as the net reads them."""
        scale = self.scale.reshape(-1, *[1] * (values.dim() - 1))
        return torch.asinh(values / scale)


def _anchors(past: _Past, steps: Tensor) -> Tensor:
    """Empirical quantiles over scale, (B, N, A, Q)."""
    season, scale = past.w.season, past.scale[:, None, None]
    phase = torch.remainder(steps, season)
    recent = quantiles(past.newest[:, : 4 * season])
    long = quantiles(past.newest[:, : 8 * season])
    recent = torch.where((past.counts[:, 4 * season - 1] > 0)[:, None], recent, long)
    by_phase = quantiles(past.blocks)  # (B, S, Q)
    some = torch.isfinite(past.blocks).any(2)
    by_phase = torch.where(some[:, :, None], by_phase, recent[:, None])
    own = _rows(by_phase, phase)
    state = _state_set(past, steps, phase, own)
    wide = [own, recent[:, None].expand_as(own), long[:, None].expand_as(own), state]
    return torch.stack([one / scale for one in wide], dim=2)


def _state_set(past: _Past, steps: Tensor, phase: Tensor, fallback: Tensor) -> Tensor:
    """Quantiles of the phase's buckets that had the step's own state of the covariates."""
    w, season = past.w, past.w.season
    if not w.known.shape[1]:
        return fallback
    span = w.demand.shape[1]
    places = [0.0 if n in w.prices else 31.0**n for n in range(w.known.shape[1])]
    weight = torch.tensor(places, device=w.known.device, dtype=torch.float64)
    code = torch.einsum("bct,c->bt", torch.nan_to_num(w.known).round().to(torch.float64), weight)
    past_code = code[:, :span].reshape(len(w), SEASONS, season).flip(1).transpose(1, 2)  # (B, S, 12)
    own = code[:, span:].gather(1, steps)
    same = _rows(past_code, phase) == own[:, :, None]
    samples = torch.where(same, _rows(past.blocks, phase), torch.nan)
    enough = torch.isfinite(samples).sum(2) >= MIN_STATE
    return torch.where(enough[:, :, None], quantiles(samples), fallback)


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """``table[b, index[b, n]]`` of a (B, S, X) table, (B, N, X)."""
    return table.gather(1, index[:, :, None].expand(-1, -1, table.shape[2]))


def quantiles(samples: Tensor) -> Tensor:
    """Quantiles at `LEVELS` along the last axis, linear between order statistics; NaN is left out, nothing is 0.

    Examples
    --------
    >>> quantiles(torch.tensor([[4.0, torch.nan, 2.0]]))[0, 6].item()
    3.0
    """
    count = torch.isfinite(samples).sum(-1, keepdim=True)
    ordered = torch.nan_to_num(samples, nan=torch.inf, posinf=torch.inf).sort(-1).values
    last = (count - 1).clamp_min(0)
    at = last * torch.tensor(LEVELS, device=samples.device)
    low = at.floor().to(torch.int64)
    below = ordered.gather(-1, low)
    above = ordered.gather(-1, torch.minimum(low + 1, last))
    return torch.where(count > 0, below + (above - below) * (at - low), 0.0)


_MEAN_SEASONS = (1, 2, 4, 8, 12)
_MEAN_WEEKS = (16, 26, 52, WEEKS)
_DECAYS = (0.1, 0.3)


def _series(past: _Past) -> list[Tensor]:
    """Columns per row, each (B,)."""
    w, season, level = past.w, past.w.season, past.level
    out = [past.scale.log()]
    out += [level(past.mean(3)), *(level(past.mean(n * season)) for n in _MEAN_SEASONS)]
    out += [level(past.week_mean(n)) for n in _MEAN_WEEKS]
    age = torch.arange(past.filled.shape[1], device=w.demand.device)
    for decay in _DECAYS:
        weight = (1 - decay) ** age * (7 / season if season != 7 else 1)
        out.append(level(past.filled @ weight / (past.seen.to(torch.float32) @ weight).clamp_min(1e-6)))
    for n in (4, 12):
        seen, filled = past.seen[:, : n * season], past.filled[:, : n * season]
        gap = torch.where(seen, filled - past.mean(n * season)[:, None], 0.0)
        out.append(level((gap.square().sum(1) / past.counts[:, n * season - 1].clamp_min(1)).sqrt()))
    for n in (4, 8, 12):
        cuts = quantiles(past.newest[:, : n * season])
        out += [level(cuts[:, LEVELS.index(one)]) for one in (0.1, 0.5, 0.9)]
    sold = (past.filled > 0).to(torch.float32)
    out += [sold[:, : n * season].sum(1) / past.counts[:, n * season - 1].clamp_min(1) for n in (1, 4, 12)]
    since = torch.where(sold.any(1), sold.argmax(1), sold.shape[1]).to(torch.float32)
    out += [since.log1p(), past.counts[:, -1] / sold.shape[1]]
    out += [level(past.filled[:, n]) for n in range(3)]
    return out + _price_columns(w)


def _price_columns(w: Windows) -> list[Tensor]:
    """The price charged against what it was, as logarithms; 0 where unknown."""
    price = w.price.clamp_min(1e-6).log()
    known = torch.isfinite(price)
    filled = torch.nan_to_num(price, nan=0.0)
    count = known.sum(1).clamp_min(1)
    mean = filled.sum(1) / count
    newest = torch.where(known.any(1), filled.gather(1, _last(known)[:, None])[:, 0], 0.0)
    high = torch.where(known, price, -torch.inf).amax(1)
    any_known = known.any(1)
    return [torch.where(any_known, newest - mean, 0.0), torch.where(any_known, newest - high, 0.0)]


def _last(known: Tensor) -> Tensor:
    """Index of the last true value of each row."""
    place = torch.arange(known.shape[1], device=known.device)
    return torch.where(known, place, 0).amax(1)


def _phase_columns(past: _Past, steps: Tensor) -> list[Tensor]:
    """What the step's phase sold: the last four, means over 2 to 12, quantiles of 12; each (B, N)."""
    known = torch.isfinite(past.blocks)
    filled = torch.nan_to_num(past.blocks, nan=0.0)
    sums, counts = filled.cumsum(2), known.to(torch.float32).cumsum(2)
    own_mean = past.mean_all[:, None]
    tables = [torch.where(known[:, :, n], filled[:, :, n], own_mean) for n in range(4)]
    tables += [(sums[:, :, n - 1] + own_mean) / (counts[:, :, n - 1] + 1) for n in (2, 4, 8, 12)]
    cuts = quantiles(past.blocks)
    tables += [cuts[:, :, LEVELS.index(one)] for one in (0.1, 0.5, 0.9)]
    phase = torch.remainder(steps, past.w.season)
    levels = past.level(torch.stack(tables, dim=2))
    return list(_rows(levels, phase).unbind(2))


def _calendar(w: Windows, steps: Tensor, dates: bool) -> list[Tensor]:
    """How far ahead, which weekday and hour; day of month and of year where they are told."""
    if w.season == 24:
        hours = w.hour[:, None] + steps
        day, hour = w.day[:, None] + hours // 24, torch.remainder(hours, 24).to(torch.float32)
    else:
        day, hour = w.day[:, None] + steps, torch.zeros_like(steps, dtype=torch.float32)
    weekday = torch.remainder(day + 3, 7)
    ahead = (steps + 1).to(torch.float32) / w.season
    out = [ahead / 4, ahead.log(), *((weekday == n).to(torch.float32) for n in range(7))]
    turn = hour * (2 * torch.pi / 24)
    out += [turn.sin(), turn.cos() - 1]
    if dates:
        year = torch.remainder(day.to(torch.float64), 365.2425).to(torch.float32) * (2 * torch.pi / 365.2425)
        month = _day_of_month(day).to(torch.float32) / 31
        out += [month, (2 * torch.pi * month).sin(), (2 * torch.pi * month).cos()]
        out += [one for n in (1, 2) for one in ((n * year).sin(), (n * year).cos())]
    return out


def _day_of_month(day: Tensor) -> Tensor:
    """Day of the month of a day number, by arithmetic alone (Howard Hinnant, "chrono-compatible date algorithms")."""
    shifted = day + 719_468
    of_era = torch.remainder(shifted, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return of_year - (153 * month + 2) // 5 + 1


def _last_year(past: _Past, steps: Tensor) -> list[Tensor]:
    """The week a year before: its level, that level grown as the year did, how it stood out; known or not."""
    w = past.w
    day = w.day[:, None] + (steps if w.season != 24 else (w.hour[:, None] + steps) // 24)
    ahead = (day + 3) // 7 - ((w.day + 3) // 7)[:, None]
    at = (WEEKS - YEAR_WEEKS + ahead).clamp(0, WEEKS - 1)
    known = past.week_known.gather(1, at) & (WEEKS - YEAR_WEEKS + ahead < WEEKS)
    then = torch.where(known, past.week_rate.gather(1, at), 0.0)
    around = slice(WEEKS - YEAR_WEEKS - 8, WEEKS - YEAR_WEEKS)
    count = past.week_known[:, around].sum(1)
    before = (past.week_rate[:, around].sum(1) / count.clamp_min(1))[:, None]
    little = past.scale[:, None] * 0.1
    growth = ((past.week_mean(8)[:, None] + little) / (before + little)).clamp(0.2, 5)
    told = known & (count >= 4)[:, None]
    stood = torch.where(told, ((then + little) / (before + little)).log(), 0.0)
    grown = torch.where(told, then * growth, past.mean_all[:, None])
    return [past.level(torch.where(known, then, past.mean_all[:, None])), past.level(grown), stood,
            told.to(torch.float32)]  # fmt: skip


def _open_columns(w: Windows, steps: Tensor) -> list[Tensor]:
    """Whether the day before and after the step is closed, and how many of the week before it were."""
    shut = 1 - torch.cat([w.past_open, w.future_open], 1).to(torch.float32)
    return _around(shut, w.demand.shape[1] + steps)[1:]


def _around(values: Tensor, at: Tensor) -> list[Tensor]:
    """A column at places, the place before, the one after, and its mean over 7 and 14 up to it; each (B, N)."""
    total = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    sums = [(total.gather(1, at + 1) - total.gather(1, at + 1 - n)) / n for n in (7, 14)]
    after = values.gather(1, (at + 1).clamp_max(values.shape[1] - 1))
    return [values.gather(1, at), values.gather(1, at - 1), after, *sums]


def _known_columns(past: _Past, steps: Tensor) -> list[Tensor]:
    """Of each covariate: what `_around` says, and what days of the step's own state sold against all; each (B, N)."""
    w, out = past.w, list[Tensor]()
    span = w.demand.shape[1]
    demand, seen = past.filled.flip(1), past.seen.flip(1)
    for index in range(w.known.shape[1]):
        values = w.known[:, index]
        told = torch.isfinite(values)
        values = _log_ratio(values, told, span) if index in w.prices else torch.nan_to_num(values, nan=0.0)
        out += _around(values, span + steps)
        own = values[:, span:].gather(1, steps)
        same = ((values[:, None, :span] - own[:, :, None]).abs() < 0.02) & (seen & told[:, :span])[:, None]
        same = same.to(torch.float32)
        count = same.sum(2)
        mean = (torch.einsum("bnt,bt->bn", same, demand) + EFFECT_PRIOR * past.mean_all[:, None]) / (
            count + EFFECT_PRIOR
        )
        little = past.scale[:, None] * 0.05
        out += [((mean + little) / (past.mean_all[:, None] + little)).log(), count / span]
    return out


def _log_ratio(values: Tensor, told: Tensor, span: int) -> Tensor:
    """A price as logarithm over its own past mean, 0 where it is not told."""
    known = told[:, :span]
    logs = torch.nan_to_num(values, nan=1.0).clamp_min(1e-6).log()
    mean = torch.where(known, logs[:, :span], 0.0).sum(1) / known.sum(1).clamp_min(1)
    told = told & known.any(1)[:, None]
    return torch.where(told, logs - mean[:, None], 0.0)
