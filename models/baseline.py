"""The empirical same-phase window: what the same weekday (or hour) sold the last twelve times it was open.

In: a `ForecastBatch`; for young series also a `Pool`, which `pool_of` makes from older ones, or what each borrows.
Out: a `Forecast`; quantiles are those of the window, cumulative quantiles those of whole seasons drawn again.
Must not know: shops, calendars, clocks. Rule: every sum runs over a fixed order of one row's own values, so that a
row's answer has the same bits whatever rows stand beside it.

How a row is read. Its buckets fall into phases of the season (weekdays, or hours of the day); the last column of the
history has the phase before step 1. Per phase the newest `WINDOW` open and observed buckets are its *samples*:

1. phases with `MIN_SAMPLES` or more speak for themselves;
2. phases with fewer use all samples of the row;
3. rows with less than one season of samples are *cold*: they are what `ForecastBatch.borrowed` says, which knows
   their few samples; where it says nothing they borrow from the pool, the more the younger they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from models.forecast import (
    F32,
    LEVELS,
    Basis,
    Forecast,
    ForecastBatch,
    ForecastError,
    HorizonError,
    Pool,
    borrowing,
    take,
)
from models.mixture import mixture
from models.quantiles import I64, Cuts, cuts_of, interpolate, quantiles_of

WINDOW = 12
"""Samples per phase: twelve weeks span a quarter; the value of the yardstick that everything must beat."""

MIN_SAMPLES = 4
"""Below this many samples a phase's own quantiles are mostly noise, and the whole row speaks for it."""

ROUNDS = 5
"""Every season of the window starts this many paths: 60 paths resolve the outer levels, and sort as fast as 64."""

PATH_SEED = 20100412
"""Names the one table of paths that all rows share; another value changes published cumulative quantiles."""

MID_LEVELS = tuple((season + 0.5) / WINDOW for season in range(WINDOW))
"""One level per season of the window: twelve equally likely values stand for a distribution."""

TILE_ROWS = 512
"""Rows worked on together."""

PATH_ROWS = 256
"""Rows whose paths are added up together: 60 over 28 steps take 1.7 MB, less than a second-level cache of 2 MiB."""


@dataclass(frozen=True, slots=True)
class _Phases:
    """What the rows of one tile say about each phase of the season."""

    quantiles: F32  # (R, S, Q)
    mean: F32  # (R, S)
    seasons: F32  # (R, S, WINDOW), newest first, no NaN: the blocks that paths are made of
    cold: npt.NDArray[np.bool_]  # (R,)


class SeasonalWindow:
    """Quantiles of the last twelve buckets of the same phase.

    Examples
    --------
    A shop that sells 1 on its first phase, 2 on its second, …, and is closed on step 3:

    >>> import numpy as np
    >>> from models.forecast import ForecastBatch
    >>> batch = ForecastBatch(
    ...     demand=np.tile(np.arange(1, 8, dtype=np.float32), (1, 12)), is_open=np.ones((1, 84), bool),
    ...     future_open=np.array([[True, True, False, True]]), observed=np.zeros(1, np.float32),
    ...     elapsed=np.zeros(1, np.float32), day=np.array([19000]), hour=np.array([0]), season=7,
    ...     group=np.array([-1], np.int32))
    >>> forecast = SeasonalWindow().forecast(batch)
    >>> forecast.mean[0].tolist(), forecast.cumulative[0, :, 6].tolist()
    ([1.0, 2.0, 0.0, 4.0], [1.0, 3.0, 3.0, 7.0])
    """

    @property
    def name(self) -> str:
        """Published as ``model``; changes when a figure would."""
        return "baseline-1"

    @property
    def channels(self) -> tuple[str, ...]:
        """None: demand says it all."""
        return ()

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Forecast every row of the batch.

        Raises
        ------
        HorizonError
            If the horizon is zero.
        ForecastError
            If the pool was made for another season or other levels.
        """
        rows, horizon, levels = len(batch), batch.horizon, len(LEVELS)
        if horizon < 1:
            raise HorizonError("the horizon is 0; ask for at least one step")
        if batch.pool is not None and batch.pool.quantiles.shape[1:] != (batch.season, levels):
            raise ForecastError(
                f"the pool has shape {batch.pool.quantiles.shape}, not (groups, {batch.season}, {levels})"
            )
        result = Forecast(
            quantiles=np.empty((rows, horizon, levels), np.float32),
            mean=np.empty((rows, horizon), np.float32),
            cumulative=np.empty((rows, horizon, levels), np.float32),
            cumulative_mean=np.empty((rows, horizon), np.float32),
            basis=np.empty(rows, np.uint8),
        )
        for start in range(0, rows, TILE_ROWS):
            tile = slice(start, start + TILE_ROWS)
            _forecast_tile(batch, tile, result)
        return result


def pool_of(batch: ForecastBatch, groups: int) -> Pool | None:
    """Mix what the mature rows of each group sell, for rows that have no history of their own.

    Parameters
    ----------
    batch
        The rows to mix; ``group`` says where each belongs, -1 counts for "all" alone.
    groups
        Number of groups. The pool has one more, the last: all mature rows. A group without any gets the same.

    Returns
    -------
    The pool, or None while no row has one season of samples.

    Examples
    --------
    >>> import numpy as np
    >>> from models.forecast import ForecastBatch
    >>> batch = ForecastBatch(
    ...     demand=np.array([[2.0] * 14, [4.0] * 14], np.float32), is_open=np.ones((2, 14), bool),
    ...     future_open=np.ones((2, 1), bool), observed=np.zeros(2, np.float32), elapsed=np.zeros(2, np.float32),
    ...     day=np.zeros(2, int), hour=np.zeros(2, int), season=7, group=np.array([0, -1], np.int32))
    >>> pool_of(batch, groups=2).quantiles[:, 0, [6, 7]].tolist()
    [[2.0, 2.0], [2.0, 4.0], [2.0, 4.0]]
    """
    mature = np.flatnonzero((np.isfinite(batch.demand) & batch.is_open).sum(axis=1) >= batch.season)
    if not len(mature):
        return None
    atoms, group = phase_quantiles(take(batch, mature)), batch.group[mature]
    everyone = mixture(atoms, np.ones((1, len(atoms))))[0]
    quantiles = np.tile(everyone, (groups + 1, 1, 1))
    for own in np.unique(group[(group >= 0) & (group < groups)]).tolist():
        some = atoms[group == own]
        quantiles[own] = mixture(some, np.ones((1, len(some))))[0]
    return Pool(quantiles)


def phase_quantiles(batch: ForecastBatch) -> F32:
    """Quantiles of each row's samples per phase of the season, (B, S, Q): what the row is forecast as, closures apart.

    Examples
    --------
    >>> import numpy as np
    >>> from models.forecast import ForecastBatch
    >>> batch = ForecastBatch(
    ...     demand=np.array([[2.0] * 14], np.float32), is_open=np.ones((1, 14), bool),
    ...     future_open=np.ones((1, 1), bool), observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32),
    ...     day=np.zeros(1, int), hour=np.zeros(1, int), season=7, group=np.array([-1], np.int32))
    >>> phase_quantiles(batch)[0, :2, 6].tolist()
    [2.0, 2.0]
    """
    out = np.empty((len(batch), batch.season, len(LEVELS)), np.float32)
    for start in range(0, len(batch), TILE_ROWS):
        tile = slice(start, start + TILE_ROWS)
        out[tile] = _phases(batch.demand[tile], batch.is_open[tile], batch.season, None, batch.group[tile]).quantiles
    return out


def _forecast_tile(batch: ForecastBatch, tile: slice, result: Forecast) -> None:
    """Write the forecasts of one tile of rows into the result."""
    phases = _phases(batch.demand[tile], batch.is_open[tile], batch.season, batch.pool, batch.group[tile])
    if batch.borrowed is not None:
        _put_borrowed(phases, borrowing(take(batch, tile)), batch.borrowed[tile])
    horizon, season = batch.horizon, batch.season
    quantiles, mean = result.quantiles[tile], result.mean[tile]
    for first in range(0, horizon, season):
        steps = min(season, horizon - first)
        quantiles[:, first : first + steps] = phases.quantiles[:, :steps]
        mean[:, first : first + steps] = phases.mean[:, :steps]
    future_open = batch.future_open[tile]
    if not future_open.all():
        quantiles[~future_open] = 0
        mean[~future_open] = 0
    remaining = np.float32(1) - np.clip(batch.elapsed[tile], 0, 1)  # (R,) of step 1
    quantiles[:, 0] *= remaining[:, None]
    mean[:, 0] *= remaining
    cumulative = result.cumulative[tile]
    cumulative[:, 0] = quantiles[:, 0]
    _add_paths(phases.seasons, future_open, remaining, cumulative)
    np.cumsum(mean, axis=1, out=result.cumulative_mean[tile])  # the mean of a sum is the sum of the means
    observed = np.maximum(batch.observed[tile], 0)
    quantiles[:, 0] += observed[:, None]
    mean[:, 0] += observed
    result.basis[tile] = np.where(phases.cold, np.uint8(Basis.COLD_START), np.uint8(Basis.BASELINE))


def _put_borrowed(phases: _Phases, rows: npt.NDArray[np.bool_], borrowed: F32) -> None:
    """Let rows be what they borrow. The days of a season keep their rank: a good seller sells well all week."""
    spread = interpolate(borrowed[rows], _between_levels())  # (r, S, WINDOW)
    phases.quantiles[rows], phases.seasons[rows] = borrowed[rows], spread
    phases.mean[rows] = _ordered_sum(spread) / np.float32(WINDOW)


def _add_paths(seasons: F32, future_open: npt.NDArray[np.bool_], remaining: F32, cumulative: F32) -> None:
    """Fill steps 2 to H of the cumulative quantiles from paths of whole seasons; step 1 is there already.

    All steps at once: a call of NumPy gives the interpreter away and has to wait for it again, where others want it.
    """
    (rows, season, _), horizon = seasons.shape, future_open.shape[1]
    step = np.arange(horizon)
    table = paths(-(-horizon // season))  # (blocks, paths)
    drawn = table[step // season] + (step % season * WINDOW)[:, None]  # (H, paths)
    cuts = cuts_of(LEVELS, table.shape[1])
    flat = seasons.reshape(rows, season * WINDOW)
    for first in range(0, rows, PATH_ROWS):
        part = slice(first, first + PATH_ROWS)
        sums = np.take(flat[part], drawn, axis=1)  # (R, H, paths)
        sums[:, 0] *= remaining[part, None]
        shut = ~future_open[part]
        if shut.any():
            sums[shut] = 0
        for at in range(1, horizon):  # a fifth of the time of `add.accumulate` over a middle axis
            sums[:, at] += sums[:, at - 1]
        sums.sort(axis=2)
        level, below = interpolate(sums, cuts), cumulative[part]
        for at in range(1, horizon):  # interpolation rounds; sums never fall
            np.maximum(level[:, at], below[:, at - 1], out=below[:, at])


def _phases(
    demand: F32, is_open: npt.NDArray[np.bool_], season: int, pool: Pool | None, group: npt.NDArray[np.int32]
) -> _Phases:
    """Read the samples of each row; rows without a gap take the short way."""
    rows, span = len(demand), WINDOW * season
    window, opened = demand[:, -span:], is_open[:, -span:]
    full = np.isfinite(window).all(axis=1) & opened.all(axis=1) if window.shape[1] == span else np.zeros(rows, bool)
    if full.all():
        return _full_phases(window, season)
    result = _Phases(
        quantiles=np.empty((rows, season, len(LEVELS)), np.float32),
        mean=np.empty((rows, season), np.float32),
        seasons=np.empty((rows, season, WINDOW), np.float32),
        cold=np.empty(rows, bool),
    )
    gaps = ~full
    parts = [(gaps, _gappy_phases(phase_samples(demand[gaps], is_open[gaps], season), pool, group[gaps]))]
    if full.any():
        parts.append((full, _full_phases(window[full], season)))
    for where, part in parts:
        result.quantiles[where], result.mean[where] = part.quantiles, part.mean
        result.seasons[where], result.cold[where] = part.seasons, part.cold
    return result


def _full_phases(window: F32, season: int) -> _Phases:
    """Rows whose last twelve seasons are all open and observed."""
    rows = len(window)
    newest_first = np.maximum(window, 0).reshape(rows, WINDOW, season)[:, ::-1]
    seasons = np.ascontiguousarray(newest_first.transpose(0, 2, 1))  # (R, S, WINDOW)
    mean = _ordered_sum(seasons) / np.float32(WINDOW)
    return _Phases(interpolate(np.sort(seasons, axis=2), cuts_of(LEVELS, WINDOW)), mean, seasons, np.zeros(rows, bool))


def phase_samples(demand: F32, is_open: npt.NDArray[np.bool_], season: int) -> F32:
    """Collect the newest open and observed values of each phase.

    Returns
    -------
    Newest first, then NaN; float32, shape (R, S, WINDOW); phase 0 is that of step 1.

    Examples
    --------
    >>> demand = np.array([[1, 2, 3, np.nan, 5]], np.float32)
    >>> phase_samples(demand, np.ones((1, 5), bool), season=2)[0, :, :3].tolist()
    [[2.0, nan, nan], [5.0, 3.0, 1.0]]
    """
    rows, buckets = demand.shape
    blocks = max(1, -(-buckets // season))
    values = np.full((rows, blocks * season), np.nan, np.float32)
    if buckets:
        values[:, -buckets:] = np.where(is_open & np.isfinite(demand), np.maximum(demand, 0), np.nan)
    by_phase = values.reshape(rows, blocks, season)[:, ::-1].transpose(0, 2, 1)  # (R, S, blocks)
    seen = ~np.isnan(by_phase)
    place = np.cumsum(seen, axis=2) - 1
    row, phase, block = np.nonzero(seen & (place < WINDOW))
    samples = np.full((rows, season, WINDOW), np.nan, np.float32)
    samples[row, phase, place[row, phase, block]] = by_phase[row, phase, block]
    return samples


def _gappy_phases(samples: F32, pool: Pool | None, group: npt.NDArray[np.int32]) -> _Phases:
    """Rows with closed, missing or not yet existing buckets (the three cases of the module's head)."""
    rows, season, _ = samples.shape
    seen = ~np.isnan(samples)
    count = seen.sum(axis=2)  # (R, S)
    sums = _ordered_sum(np.where(seen, samples, 0))
    everything = np.sort(samples.reshape(rows, -1), axis=1)  # (R, S * WINDOW), NaN last
    total = count.sum(axis=1)  # (R,)
    # 2. the row as a whole, at the levels published and at one level per season of the window
    row_quantiles = np.nan_to_num(quantiles_of(everything, total, LEVELS))  # (R, Q)
    row_spread = np.nan_to_num(quantiles_of(everything, total, MID_LEVELS))  # (R, WINDOW)
    row_mean = (_ordered_sum(sums) / np.maximum(total, 1)).astype(np.float32)
    # 3. borrowed
    lent_quantiles, own = _lent(pool, group, total, season)
    lent_spread = interpolate(lent_quantiles, _between_levels())
    share = own[:, None, None]
    few_quantiles = row_quantiles[:, None] * share + lent_quantiles * (1 - share)
    few_spread = row_spread[:, None] * share + lent_spread * (1 - share)
    few_mean = row_mean[:, None] * own[:, None] + _ordered_sum(lent_spread) / np.float32(WINDOW) * (1 - own[:, None])
    # 1. phases that speak for themselves; fewer seasons than the window come round again
    enough = (count >= MIN_SAMPLES) & (total >= season)[:, None]
    again = np.arange(WINDOW) % np.maximum(count, 1)[:, :, None]
    quantiles = quantiles_of(np.sort(samples, axis=2), count, LEVELS)
    spread_out = np.take_along_axis(few_spread, _shuffles(season)[None], axis=2)
    return _Phases(
        quantiles=np.maximum.accumulate(np.where(enough[:, :, None], quantiles, few_quantiles), axis=2),
        mean=np.where(enough, (sums / np.maximum(count, 1)).astype(np.float32), few_mean),
        seasons=np.where(enough[:, :, None], np.take_along_axis(samples, again, axis=2), spread_out),
        cold=total < season,
    )


def _lent(pool: Pool | None, group: npt.NDArray[np.int32], total: I64, season: int) -> tuple[F32, F32]:
    """Look up what each row may borrow, (R, S, Q), and the weight of what is its own, (R,).

    Nothing to borrow means that a row's few values stand alone, and that a row with none is forecast as zero.
    """
    if pool is None:
        return np.zeros((len(total), season, len(LEVELS)), np.float32), np.ones(len(total), np.float32)
    everyone = len(pool.quantiles) - 1
    place = np.where((group >= 0) & (group < everyone), group, everyone)
    own = np.where(total < season, total / (total + season), 1.0).astype(np.float32)
    return pool.quantiles[place], own


def _ordered_sum(values: F32) -> F32:
    """Sum the last axis in its own order: a library's reduction may add in another one for another shape."""
    total = values[..., 0].copy()
    for index in range(1, values.shape[-1]):
        total += values[..., index]
    return total


@lru_cache(maxsize=1)
def _between_levels() -> Cuts:
    """The mid levels among the published ones."""
    at = np.interp(MID_LEVELS, LEVELS, np.arange(len(LEVELS)))
    low = np.floor(at).astype(np.int64)
    return Cuts(low, np.minimum(low + 1, len(LEVELS) - 1), (at - low).astype(np.float32))


def _shuffled(*name: int) -> I64:
    """Put the seasons of the window in an order drawn for this name; raw draws are the same in every NumPy."""
    return np.argsort(np.random.PCG64([PATH_SEED, *name]).random_raw(WINDOW), kind="stable")


@lru_cache(maxsize=64)
def paths(blocks: int) -> I64:
    """The season that each path takes as its n-th block; shape (blocks, paths), the same for all rows.

    The first twelve paths are the contiguous stretches of the window (running into its start again at its end); the
    others are combinations. In each block every season occurs equally often. Longer tables begin with the shorter.
    """
    stretches = np.arange(WINDOW)  # index 0 is the newest season, so time runs downwards
    return np.stack(
        [
            np.concatenate([(stretches - block) % WINDOW, *(_shuffled(0, block, turn) for turn in range(1, ROUNDS))])
            for block in range(blocks)
        ]
    )


@lru_cache(maxsize=8)
def _shuffles(season: int) -> I64:
    """An order of the window per phase, (S, WINDOW): days of a distribution without dates become independent."""
    return np.stack([_shuffled(1, phase) for phase in range(season)])
