"""A backtest held against what came true: its figures, and single windows to look at.

In: a task, and answers of a forecaster for its windows. Out: a `Tally` of measures; `Fan`s.
Must not know: how forecasts are made or shown. Rule: the future is read here alone, after it was forecast; where a task
does not tell it, figures are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from models.backtest import Watch, answer_of, answers
from models.forecast import F32, LEVELS, Forecast, Forecaster
from models.measures import F64, I64, Figures, Tally, seasonal_scale
from models.task import Task, bucket_times

HISTORY_SEASONS = 8
"""What a fan shows of the past: eight weeks of days."""


TENTHS = 10
"""Groups of series by what they sell."""

MOSTLY = 0.5
"""Share of buckets with demand above which a series is not mostly zero. Of others q0.1 is 0: coverage says little."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """Tenths of the series that are not mostly zero, from those that sell least to those that sell most.

    Attributes
    ----------
    tenth
        Number of each group, 1 to 10; groups without a series are left out.
    series
        Series in each.
    demand
        Mean demand per bucket before the cutoff.
    figures
        Of each.
    left_out
        Series that are mostly zero.
    """

    tenth: I64
    series: I64
    demand: F64
    figures: Figures
    left_out: int


@dataclass(frozen=True, slots=True)
class Fan:
    """One series at one cutoff: what was seen, what was said, what came.

    Attributes
    ----------
    unique_id, cutoff
        Which.
    wql
        Of the series over all its cutoffs.
    past_times, past
        The last buckets up to the cutoff, (P,), NaN before the series began.
    times, actual, quantiles
        Steps of the horizon, (H,), (H,), (H, Q) with `LEVELS`.
    """

    unique_id: str
    cutoff: np.datetime64
    wql: float
    past_times: npt.NDArray[np.datetime64]
    past: F32
    times: npt.NDArray[np.datetime64]
    actual: F32
    quantiles: F32


class Judge:
    """Holds answers for windows of a task against what came true.

    Parameters
    ----------
    task
        Whose windows.

    Attributes
    ----------
    tally
        Sums of what was judged so far.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.tally = Tally(len(task.cutoff), task.file.horizon, LEVELS)

    def watch(self, part: slice, answer: Forecast) -> None:
        """Judge some windows; fits `models.backtest.Watch`."""
        series, cutoff = self.task.series[part], self.task.cutoff[part]
        past = self.task.demand[series, : int(cutoff.max()) + 1]
        past = np.where(np.arange(past.shape[1]) <= cutoff[:, None], past, np.nan)
        scale = seasonal_scale(past, self.task.file.season)
        self.tally.add(part, actual(self.task, series, cutoff), answer.quantiles, scale)

    def telling(self, progress: Callable[[float], None]) -> Watch:
        """Judge as `watch` does, and tell which share of the windows is done."""

        def watch(part: slice, answer: Forecast) -> None:
            self.watch(part, answer)
            progress(part.stop / len(self.task.cutoff))

        return watch

    def by_cutoff(self) -> tuple[npt.NDArray[np.datetime64], Figures]:
        """Cutoffs in order, and the figures of each."""
        columns, group = np.unique(self.task.cutoff, return_inverse=True)
        return bucket_times(self.task.first_bucket + columns, self.task.file.freq), self.tally.by(group)

    def by_series(self) -> Figures:
        """Figures of each series of the task."""
        return self.tally.by(self.task.series)

    def by_volume(self) -> Volumes:
        """Figures of series in tenths by volume.

        A series is not mostly zero where more than half of the buckets up to its first cutoff, since it began, had
        demand above 0; its volume is the mean of these buckets. Nothing after a first cutoff is looked at.
        """
        task = self.task
        series, windows = np.unique(task.series, return_index=True)  # windows are in the order of cutoffs
        past = np.where(np.arange(task.demand.shape[1]) <= task.cutoff[windows][:, None], task.demand[series], np.nan)
        known = np.isfinite(past)
        count = np.maximum(known.sum(axis=1), 1)
        volume = np.where(known, past, 0).sum(axis=1, dtype=np.float64) / count
        sells = np.flatnonzero((np.where(known, past, 0) > 0).sum(axis=1) > MOSTLY * count)
        order = sells[np.argsort(volume[sells], kind="stable")]
        group = np.full(len(task.ids), TENTHS)
        group[series[order]] = np.arange(len(order)) * TENTHS // max(len(order), 1)
        tenths, members = np.unique(group[series[order]], return_counts=True)
        figures = self.tally.by(group[task.series])
        sums = np.bincount(group[series[order]], volume[order], TENTHS)[tenths]
        return Volumes(
            tenth=tenths + 1, series=members, demand=sums / members, figures=_some(figures, tenths),
            left_out=len(series) - len(order),
        )  # fmt: skip


def _some(figures: Figures, at: I64) -> Figures:
    """Figures of some groups."""
    return Figures(**{field.name: getattr(figures, field.name)[at] for field in fields(Figures)})


def judged(task: Task, forecaster: Forecaster) -> Judge:
    """Forecast all windows of a task and hold them against what came true."""
    judge = Judge(task)
    for part, answer in answers(task, forecaster):
        judge.watch(part, answer)
    return judge


def actual(task: Task, series: I64, cutoff: I64) -> F32:
    """Demand of the steps after some cutoffs, float32 (rows, H), NaN where the task does not tell it."""
    column = cutoff[:, None] + 1 + np.arange(task.file.horizon)
    last = task.demand.shape[1] - 1
    demand = task.demand[series[:, None], np.minimum(column, last)]
    return np.where((column <= last) & np.isfinite(demand), demand, np.float32(np.nan))


def ranked(judge: Judge) -> I64:
    """Series that had demand after their cutoffs, from the least weighted quantile loss to the greatest."""
    wql: F64 = judge.by_series().wql
    order: I64 = np.argsort(np.where(np.isfinite(wql), wql, np.inf), kind="stable")
    return order[: int(np.isfinite(wql).sum())]


def fan(judge: Judge, forecaster: Forecaster, series: int) -> Fan:
    """A series at its last cutoff after which demand is known."""
    task = judge.task
    windows = np.flatnonzero(task.series == series)
    known = np.isfinite(actual(task, task.series[windows], task.cutoff[windows])).any(axis=1)
    window = int(windows[known][-1] if known.any() else windows[-1])
    at, cutoff = task.series[window : window + 1], int(task.cutoff[window])
    first = max(0, cutoff + 1 - HISTORY_SEASONS * task.file.season)
    return Fan(
        unique_id=task.ids[series],
        cutoff=bucket_times(np.array([task.first_bucket + cutoff]), task.file.freq)[0],
        wql=float(judge.by_series().wql[series]),
        past_times=bucket_times(task.first_bucket + np.arange(first, cutoff + 1), task.file.freq),
        past=task.demand[series, first : cutoff + 1],
        times=bucket_times(task.first_bucket + cutoff + 1 + np.arange(task.file.horizon), task.file.freq),
        actual=actual(task, at, task.cutoff[window : window + 1])[0],
        quantiles=answer_of(task, forecaster, window).quantiles[0],
    )
