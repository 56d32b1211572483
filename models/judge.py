"""A backtest held against what came true: its figures, and single windows to look at.

In: a task, and answers of a forecaster for its windows. Out: a `Tally` of measures; `Fan`s.
Must not know: how forecasts are made or shown. Rule: the future is read here alone, after it was forecast; where a task
does not tell it, figures are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.backtest import Watch, answer_of, answers
from models.forecast import F32, LEVELS, Forecast, Forecaster
from models.measures import F64, I64, Figures, Tally, seasonal_scale
from models.task import Task, bucket_times

HISTORY_SEASONS = 8
"""What a fan shows of the past: eight weeks of days."""


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
