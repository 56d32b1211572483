"""What the encoder reads of windows: columns and anchors per row and step.

In: `Windows`, which steps. Out: `StepInputs`.
Must not know: weights, shops, files. Rule: a column is made of one row's own values, on whatever device they lie; the
same code makes it for training, backtests and serving, so that these cannot differ.

Every level is divided by the row's scale ``s = max(mean of 8 seasons, 1/4 mean of 16 weeks, 1/10 mean of all weeks,
least)`` and passed through asinh: large and small sellers look alike, and a tail stays a tail. Nothing tells the date
apart but what is asked for by `dates`: a series' age or a trend of the whole panel lets a model learn days by heart.

What it costs is memory, not sums: a column is written once, columns lie one after another (the net's first product
reads them across), what many steps share is made once per phase of the season, and rows are sorted by NumPy, whose sort
of short rows takes a fifth of torch's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from models.forecast import LEVELS, buckets_per_day
from models.windows import SEASONS, WEEKS, Windows

LEAST = 0.02
"""Units a day taken for the scale of a series that sells less."""

ANCHORS = ("phase", "recent", "long", "state")
"""Empirical quantile sets: the step's phase, 4 seasons, 8 seasons, and the step's phase under its own known state."""

MIN_STATE = 3
"""Samples that a state must have; with fewer the phase stands for it."""

ALIKE = 0.02
"""Values of a covariate that differ by less are one state: two hundredths of a price's logarithm are rounding."""

PART_ROWS = 64
"""Rows whose buckets are compared with 28 steps at once: 0.6 MB, inside a second-level cache."""

YEAR_WEEKS = 52
EFFECT_PRIOR = 2.0
"""Days of a row's own mean that an effect of a covariate is shrunk by."""


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What the net reads; F columns per row, K per row and step, N steps, A anchors, Q levels.

    Attributes
    ----------
    series
        Float32 (B, F).
    steps
        Float32 (B, N, K); the values of a column lie together in memory.
    anchors
        Quantiles over scale, float32 (B, N, A, Q).
    scale
        Float32 (B,).
    codes
        Of covariates that are codes, values at the step, the bucket before and the one after, int64 (B, N, C, 3); -1
        where unknown.
    attributes
        As in `Windows`.
    """

    series: Tensor
    steps: Tensor
    anchors: Tensor
    scale: Tensor
    codes: Tensor
    attributes: Tensor


INPUTS = tuple(one.name for one in fields(StepInputs))


def tensors(inputs: StepInputs) -> dict[str, Tensor]:
    """The tensors of inputs by name, as a trainer wants them."""
    return {name: getattr(inputs, name) for name in INPUTS}


def step_inputs(
    windows: Windows, steps: Tensor | None = None, *, dates: bool = False, codes: Sequence[int] = ()
) -> StepInputs:
    """Columns and anchors of some steps.

    Parameters
    ----------
    steps
        Which, int64 (B, N) counted from 0; all where none are named.
    dates
        Whether day of month and day of year are told.
    codes
        Which covariates are codes, by index.
    """
    past, ahead = _Past(windows), _Ahead(windows, steps)
    columns = torch.cat([
        _phase_columns(past, ahead), _calendar(windows, ahead, dates), _last_year(past, ahead),
        _around(1 - torch.cat([windows.past_open, windows.future_open], 1).to(torch.float32), ahead)[1:],
        _known_columns(past, ahead),
    ])  # fmt: skip
    return StepInputs(
        _series(past), columns.permute(1, 2, 0), _anchors(past, ahead), past.scale, _codes(windows, ahead, codes),
        windows.attributes,
    )  # fmt: skip


class _Ahead:
    """The steps asked for, and values at them: views and rows by phase where all are, gathered one by one otherwise."""

    def __init__(self, w: Windows, steps: Tensor | None) -> None:
        self._span, self._every = w.demand.shape[1], steps is None
        self.steps = torch.arange(w.horizon, device=w.demand.device)[None] if steps is None else steps  # (1 or B, N)
        self.shape = (len(w), self.steps.shape[1])
        self.phase = torch.remainder(self.steps, w.season)

    def values(self, table: Tensor, offset: int = 0) -> Tensor:
        """Of (…, B, T + H), those at steps or so far behind them, (…, B, N); the last where there are no more."""
        last = table.shape[-1] - 1
        if self._every and self._span + offset + self.shape[1] <= last + 1:
            return table[..., self._span + offset : self._span + offset + self.shape[1]]
        at = (self.steps + (self._span + offset)).clamp_max(last)
        return table.gather(-1, at.expand(*table.shape[:-1], -1))

    def rows(self, table: Tensor) -> Tensor:
        """Of (B, S, X), those of the steps' phases, (B, N, X)."""
        if self._every:
            return table.index_select(1, self.phase[0])
        return table.gather(1, self.phase[:, :, None].expand(-1, -1, table.shape[2]))


class _Past:
    """One batch, with what several columns share computed once."""

    def __init__(self, w: Windows) -> None:
        self.w, self.season = w, w.season
        self.newest = w.demand.flip(1)
        self.seen = torch.isfinite(self.newest)
        self.filled = torch.where(self.seen, self.newest, 0.0)
        self.told = self.seen.to(torch.float32)
        self.sums, self.counts = self.filled.cumsum(1), self.told.cumsum(1)
        # (B, S, 12), newest first
        self.blocks = self.newest.reshape(len(w), SEASONS, w.season).flip(2).transpose(1, 2).contiguous()
        self.blocks_seen = torch.isfinite(self.blocks)
        self.week_known = torch.isfinite(w.weeks)
        self.week_rate = torch.where(self.week_known, w.weeks, 0.0) / (7 * buckets_per_day(w.season))
        self.mean_all = self.mean(SEASONS * w.season)
        self.mean_16w, self.mean_life = self.week_mean(16), self.week_mean(WEEKS)
        least = LEAST * 7 / w.season
        floor = torch.maximum(self.mean_16w / 4, self.mean_life / 10).clamp_min(least)
        self.scale = torch.maximum(self.mean(8 * w.season), floor)
        self.cuts = {n: quantiles(self.newest[:, : n * w.season]) for n in (4, 8, 12)}  # (B, Q), of so many seasons
        self.cuts_by_phase = quantiles(self.blocks)  # (B, S, Q)

    def mean(self, buckets: int) -> Tensor:
        """Mean of the newest buckets, 0 where nothing was seen."""
        return self.sums[:, buckets - 1] / self.counts[:, buckets - 1].clamp_min(1)

    def week_mean(self, weeks: int) -> Tensor:
        """Mean demand per bucket over the newest weeks; that of the buckets where no week is known."""
        known, rate = self.week_known[:, -weeks:], self.week_rate[:, -weeks:]
        count = known.sum(1)
        return torch.where(count > 0, rate.sum(1) / count.clamp_min(1), self.mean_all)

    def level(self, values: Tensor) -> Tensor:
        """Units (…, B) as the net reads them."""
        return (values / self.scale).asinh_()


def _anchors(past: _Past, ahead: _Ahead) -> Tensor:
    """Empirical quantiles over scale, (B, N, A, Q)."""
    season, scale = past.season, past.scale[:, None, None]
    recent = torch.where((past.counts[:, 4 * season - 1] > 0)[:, None], past.cuts[4], past.cuts[8])
    own = ahead.rows(torch.where(past.blocks_seen.any(2)[:, :, None], past.cuts_by_phase, recent[:, None]))
    out = torch.empty((*ahead.shape, len(ANCHORS), len(LEVELS)), device=scale.device)
    sets = own, recent[:, None], past.cuts[8][:, None], _state_set(past, ahead, own)
    for n, one in enumerate(sets):
        out[:, :, n] = one / scale
    return out


def _state_set(past: _Past, ahead: _Ahead, fallback: Tensor) -> Tensor:
    """Quantiles of the phase's buckets that had the step's own state of the covariates."""
    w, season = past.w, past.season
    if not w.known.shape[1]:
        return fallback
    places = [0.0 if n in w.prices else 31.0**n for n in range(w.known.shape[1])]
    weight = torch.tensor(places, device=w.known.device, dtype=torch.float64)
    code = torch.einsum("bct,c->bt", torch.nan_to_num(w.known).round().to(torch.float64), weight)
    past_code = code[:, : w.demand.shape[1]].reshape(len(w), SEASONS, season).flip(1).transpose(1, 2)  # (B, S, 12)
    same = ahead.rows(past_code) == ahead.values(code)[:, :, None]
    enough = (same & ahead.rows(past.blocks_seen)).sum(2) >= MIN_STATE
    samples = ahead.rows(past.blocks).masked_fill_(~same, torch.nan)
    if samples.device.type != "cpu":  # there it is cheaper to compute all than to look which are needed
        return torch.where(enough[:, :, None], quantiles(samples), fallback)
    differ = enough & ~same.all(2)  # where all are the same the phase is its own state
    return fallback.index_put((differ,), quantiles(samples[differ]))


def quantiles(samples: Tensor) -> Tensor:
    """Quantiles at `LEVELS` along the last axis, linear between order statistics; NaN is left out, nothing is 0.

    Examples
    --------
    >>> quantiles(torch.tensor([[4.0, torch.nan, 2.0]]))[0, 6].item()
    3.0
    """
    last = (torch.isfinite(samples).sum(-1, keepdim=True) - 1).clamp_min_(0)
    ordered = _sorted(samples)
    at = last * torch.tensor(LEVELS, device=samples.device)
    low = at.to(torch.int64)  # of what is never negative, the floor
    below = ordered.gather(-1, low)
    above = ordered.gather(-1, torch.minimum(low + 1, last))
    return torch.lerp(below, above, at - low).nan_to_num_(nan=0.0)  # undefined where nothing is known alone


def _sorted(samples: Tensor) -> Tensor:
    """Rising along the last axis, NaN last."""
    if samples.device.type != "cpu":
        return samples.sort(-1).values
    return torch.from_numpy(np.sort(samples.numpy(), axis=-1))


_MEAN_SEASONS = (1, 2, 4, 8, 12)
_MEAN_WEEKS = (16, 26, 52, WEEKS)
_DECAYS = (0.1, 0.3)
_SPREAD = tuple(LEVELS.index(one) for one in (0.1, 0.5, 0.9))


def _series(past: _Past) -> Tensor:
    """Columns per row, (B, F)."""
    w, season = past.w, past.season
    levels = [past.mean(3), *(past.mean(n * season) for n in _MEAN_SEASONS), *map(past.week_mean, _MEAN_WEEKS)]
    age = torch.arange(past.filled.shape[1], device=w.demand.device)
    for decay in _DECAYS:
        weight = (1 - decay) ** age * (7 / season if season != 7 else 1)
        levels.append(past.filled @ weight / (past.told @ weight).clamp_min(1e-6))
    for n in (4, 12):
        gap = past.filled[:, : n * season] - past.mean(n * season)[:, None]
        square = gap.square_().mul_(past.told[:, : n * season]).sum(1)
        levels.append((square / past.counts[:, n * season - 1].clamp_min(1)).sqrt())
    levels += [past.cuts[n][:, place] for n in (4, 8, 12) for place in _SPREAD]
    sold = (past.filled > 0).to(torch.float32)
    since = torch.where(sold.any(1), sold.argmax(1), sold.shape[1]).to(torch.float32)
    shares = [sold[:, : n * season].sum(1) / past.counts[:, n * season - 1].clamp_min(1) for n in (1, 4, 12)]
    shares += [since.log1p(), past.counts[:, -1] / sold.shape[1]]
    levels += [past.filled[:, n] for n in range(3)]
    read = past.level(torch.stack(levels))
    return torch.cat([
        past.scale.log()[None], read[:-3], torch.stack(shares), read[-3:], torch.stack(_price_columns(w))
    ]).T  # fmt: skip


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


def _phase_columns(past: _Past, ahead: _Ahead) -> Tensor:
    """What the step's phase sold: the last four, means over 2 to 12, quantiles of 12; (K, B, N)."""
    known = past.blocks_seen
    filled = torch.where(known, past.blocks, 0.0)
    sums, counts = filled.cumsum(2), known.to(torch.float32).cumsum(2)
    own_mean = past.mean_all[:, None, None]
    some = [n - 1 for n in (2, 4, 8, 12)]
    tables = torch.cat([
        torch.where(known[:, :, :4], filled[:, :, :4], own_mean),
        (sums[:, :, some] + own_mean) / (counts[:, :, some] + 1),
        past.cuts_by_phase[:, :, _SPREAD],
    ], dim=2)  # fmt: skip
    return ahead.rows((tables / past.scale[:, None, None]).asinh_()).permute(2, 0, 1)


def _calendar(w: Windows, ahead: _Ahead, dates: bool) -> Tensor:
    """How far ahead, which weekday and hour; day of month and of year where they are told; (K, B, N)."""
    steps = ahead.steps
    if w.season == 24:
        hours = w.hour[:, None] + steps
        day, turn = w.day[:, None] + hours // 24, torch.remainder(hours, 24).to(torch.float32) * (2 * torch.pi / 24)
    else:
        day = w.day[:, None] + steps
        turn = torch.zeros(ahead.shape, device=steps.device)
    weekday = torch.remainder(day + 3, 7)
    weeks = ((steps + 1).to(torch.float32) / w.season).expand(ahead.shape)
    out = [weeks / 4, weeks.log(), *((weekday == n).to(torch.float32) for n in range(7)), turn.sin(), turn.cos() - 1]
    if dates:
        year = torch.remainder(day.to(torch.float64), 365.2425).to(torch.float32) * (2 * torch.pi / 365.2425)
        month = _day_of_month(day).to(torch.float32) / 31
        out += [month, (2 * torch.pi * month).sin(), (2 * torch.pi * month).cos()]
        out += [one for n in (1, 2) for one in ((n * year).sin(), (n * year).cos())]
    return torch.stack(out)


def _day_of_month(day: Tensor) -> Tensor:
    """Day of the month of a day number, by arithmetic alone (Howard Hinnant, "chrono-compatible date algorithms")."""
    shifted = day + 719_468
    of_era = torch.remainder(shifted, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return of_year - (153 * month + 2) // 5 + 1


def _last_year(past: _Past, ahead: _Ahead) -> Tensor:
    """Of the week a year before: its level, that grown as the year did, how it stood out, known or not; (4, B, N)."""
    w, steps = past.w, ahead.steps
    day = w.day[:, None] + (steps if w.season != 24 else (w.hour[:, None] + steps) // 24)
    at = (day + 3) // 7 - ((w.day + 3) // 7)[:, None] + (WEEKS - YEAR_WEEKS)
    here = at.clamp(0, WEEKS - 1)
    known = past.week_known.gather(1, here) & (at < WEEKS)
    then = torch.where(known, past.week_rate.gather(1, here), 0.0)
    around = slice(WEEKS - YEAR_WEEKS - 8, WEEKS - YEAR_WEEKS)
    count = past.week_known[:, around].sum(1)
    before = (past.week_rate[:, around].sum(1) / count.clamp_min(1))[:, None]
    little = past.scale[:, None] * 0.1
    growth = ((past.week_mean(8)[:, None] + little) / (before + little)).clamp(0.2, 5)
    told = known & (count >= 4)[:, None]
    own_mean = past.mean_all[:, None]
    levels = torch.stack([torch.where(known, then, own_mean), torch.where(told, then * growth, own_mean)])
    stood = torch.where(told, ((then + little) / (before + little)).log(), 0.0)
    return torch.cat([(levels / past.scale[:, None]).asinh_(), stood[None], told[None].to(torch.float32)])


def _around(values: Tensor, ahead: _Ahead) -> Tensor:
    """Of (…, B, T + H): at the steps, before, after, and means over 7 and 14 up to them; (5, …, B, N)."""
    total = torch.nn.functional.pad(values.cumsum(-1), (1, 0))
    upto = ahead.values(total, 1)
    means = [(upto - ahead.values(total, 1 - n)) / n for n in (7, 14)]
    return torch.stack([*(ahead.values(values, offset) for offset in (0, -1, 1)), *means])


def _known_columns(past: _Past, ahead: _Ahead) -> Tensor:
    """Of each covariate what `_around` says, and what days of the step's own state sold against all; (7 C, B, N)."""
    w = past.w
    span, known = w.demand.shape[1], w.known.transpose(0, 1)  # (C, B, T + H)
    told = torch.isfinite(known)
    values = torch.where(told, known, 0.0)
    for index in w.prices:
        values[index] = _log_ratio(known[index], told[index], span)
    demand, seen = past.filled.flip(1), past.told.flip(1)
    own, little = ahead.values(values), past.scale[:, None] * 0.05
    out = torch.empty((len(known), 7, *ahead.shape), device=known.device)
    out[:, :5] = _around(values, ahead).transpose(0, 1)
    for index in range(len(known)):
        usable = seen * told[index, :, :span]
        usable = torch.stack([usable, usable * demand], dim=2)  # (B, T, 2)
        count, total = _sums_alike(values[index, :, :span], own[index], usable).unbind(2)
        mean = (total + EFFECT_PRIOR * past.mean_all[:, None]) / (count + EFFECT_PRIOR)
        out[index, 5] = ((mean + little) / (past.mean_all[:, None] + little)).log_()
        out[index, 6] = count / span
    return out.flatten(0, 1)


def _sums_alike(past: Tensor, own: Tensor, values: Tensor) -> Tensor:
    """Sums of (B, T, X) values over the buckets whose state is the step's own, (B, N, X).

    In parts: which buckets are alike, (rows, N, T), is by far the largest array of all here.
    """
    out = []
    for past_part, own_part, part in zip(*(one.split(PART_ROWS) for one in (past, own, values)), strict=True):
        alike = (past_part[:, None] - own_part[:, :, None]).abs_().lt_(ALIKE)
        out.append(torch.bmm(alike, part))
    return torch.cat(out)


def _codes(w: Windows, ahead: _Ahead, codes: Sequence[int]) -> Tensor:
    """Values of codes at the step, before and after it, (B, N, C, 3)."""
    out = torch.empty((*ahead.shape, len(codes), 3), dtype=torch.int64, device=ahead.steps.device)
    for n, index in enumerate(codes):
        values = torch.nan_to_num(w.known[:, index], nan=-1.0).clamp(-1, 2**31).to(torch.int64)
        for place, offset in enumerate((0, -1, 1)):
            out[:, :, n, place] = ahead.values(values, offset)
    return out


def _log_ratio(values: Tensor, told: Tensor, span: int) -> Tensor:
    """A price as logarithm over its own past mean, 0 where it is not told."""
    known = told[:, :span]
    logs = torch.nan_to_num(values, nan=1.0).clamp_min(1e-6).log()
    mean = torch.where(known, logs[:, :span], 0.0).sum(1) / known.sum(1).clamp_min(1)
    told = told & known.any(1)[:, None]
    return torch.where(told, logs - mean[:, None], 0.0)
