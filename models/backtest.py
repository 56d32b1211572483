"""Backtest: what a forecaster would have said at each cutoff of a task, as one table.

In: a task folder (`models.task`) and any `Forecaster`.
Out: one row per (series, cutoff, step): unique_id, cutoff, ds, h, q…, mean, and with cumulative c…, cmean.
Must not know: which forecaster it is, scores. Rule: a window holds nothing later than its cutoff but known columns, so
that changing the future changes no byte of the table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from models.baseline import pool_of
from models.forecast import F32, LEVELS, Forecast, ForecastBatch, Forecaster, take
from models.task import Task, TaskError, bucket_times, read_task

CONTEXT_SEASONS = 24
"""Seasons of history per window: twice the baseline's twelve, for shops that were closed on some of them."""

BATCH_ROWS = 4096
"""Windows forecast at once: at 28 steps and 13 levels a batch's answer takes 12 MB."""

KNOWN_NAMES = {"sell_price": "price", "promotion": "promo", "stateholiday": "holiday", "event_any": "holiday"}
"""What public data sets call the covariates that features know; a column of another name keeps its own."""


def backtest(folder: Path, forecaster: Forecaster, *, cumulative: bool = False) -> pl.DataFrame:
    """Forecast every window of a task; `write_backtest` does the same within bounded memory.

    Returns
    -------
    Rows in the order of cutoff, series, step.

    Raises
    ------
    TaskError
        If the folder cannot be used.
    """
    return pl.concat(list(frames(read_task(folder), forecaster, cumulative=cumulative)))


def write_backtest(folder: Path, forecaster: Forecaster, out: Path, *, cumulative: bool = False) -> int:
    """Forecast every window of a task into a Parquet file; the file appears when it is complete.

    Returns
    -------
    Number of rows written.

    Raises
    ------
    TaskError
        If the folder cannot be used.
    OSError
        If the file cannot be written.
    """
    task = read_task(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backtest-", dir=out.parent) as parts:
        rows = 0
        try:
            for number, frame in enumerate(frames(task, forecaster, cumulative=cumulative)):
                frame.write_parquet(Path(parts) / f"{number:08d}.parquet")
                rows += len(frame)
            whole = Path(parts) / "whole"
            pl.scan_parquet(Path(parts) / "*.parquet").sink_parquet(whole)
        except pl.exceptions.PolarsError as error:  # how a full disk is told
            raise OSError(f"{out}: cannot be written ({str(error).splitlines()[0]})") from error
        whole.replace(out)
    return rows


def frames(task: Task, forecaster: Forecaster, *, cumulative: bool = False) -> Iterator[pl.DataFrame]:
    """Forecast a task piece by piece, in the order of cutoff, series, step.

    Windows of one cutoff form a batch: what young series borrow comes from the others as they were on that day.

    Raises
    ------
    TaskError
        If the task asks for a quantile level that forecasts do not have.
    """
    unknown = [level for level in task.file.levels if level not in LEVELS]
    if unknown:
        levels = ", ".join(f"{level:g}" for level in LEVELS)
        raise TaskError(f"task.json: level {unknown[0]:g} is not forecast; the levels are {levels}")
    windows = _Windows(task)
    starts = np.flatnonzero(np.diff(task.cutoff, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(task.cutoff)], strict=True):
        day = _with_pool(windows.batch(start, stop))
        for first in range(start, stop, BATCH_ROWS):
            last = min(first + BATCH_ROWS, stop)
            answer = forecaster.forecast(take(day, slice(first - start, last - start)))
            yield _frame(task, task.series[first:last], task.cutoff[first:last], answer, cumulative)


def _with_pool(batch: ForecastBatch) -> ForecastBatch:
    """Let the young series of one cutoff, if there are any, borrow from all of it."""
    young = (np.isfinite(batch.demand) & batch.is_open).sum(axis=1) < batch.season
    return replace(batch, pool=pool_of(batch, groups=0)) if young.any() else batch


class _Windows:
    """Cuts windows out of a task's matrices, which are padded once so that every cut has the same shape."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.context = CONTEXT_SEASONS * task.file.season
        self.demand = self._history(task.demand)
        self.past = {_name(name): self._history(matrix) for name, matrix in task.past.items()}
        self.known = {_name(name): self._history(matrix, task.file.horizon) for name, matrix in task.known.items()}
        self.open = None if task.file.open is None else self._history(task.known[task.file.open], task.file.horizon)

    def _history(self, matrix: F32, ahead: int = 0) -> F32:
        """Views of every window: [series, cutoff] gives the context up to the cutoff and `ahead` buckets more."""
        padded = np.pad(matrix, ((0, 0), (self.context - 1, ahead)), constant_values=np.nan)
        return np.lib.stride_tricks.sliding_window_view(padded, self.context + ahead, axis=1)

    def batch(self, first: int, last: int) -> ForecastBatch:
        """The windows from first to before last."""
        task, file = self.task, self.task.file
        at = (task.series[first:last], task.cutoff[first:last])
        rows = len(at[0])
        opened = np.ones((rows, self.context + file.horizon), bool) if self.open is None else self.open[at] != 0
        start = task.first_bucket + at[1] + 1
        per_day = 1 if file.freq == "D" else 24
        return ForecastBatch(
            demand=self.demand[at],
            is_open=opened[:, : self.context],
            future_open=opened[:, self.context :],
            observed=np.zeros(rows, np.float32),
            elapsed=np.zeros(rows, np.float32),
            day=start // per_day,
            hour=start % per_day,
            season=file.season,
            group=np.full(rows, -1, np.int32),
            channels={name: views[at] for name, views in self.past.items()},
            known={name: views[at] for name, views in self.known.items()},
        )


def _name(column: str) -> str:
    """The name under which features look for a covariate."""
    return KNOWN_NAMES.get(column.lower(), column.lower())


def _frame(
    task: Task, series: npt.NDArray[np.int64], cutoff: npt.NDArray[np.int64], answer: Forecast, cumulative: bool
) -> pl.DataFrame:
    """Lay out forecasts as a table, one row per window and step."""
    file = task.file
    window = np.repeat(np.arange(len(series)), file.horizon)
    h = np.tile(np.arange(1, file.horizon + 1, dtype=np.int64), len(series))
    seen = task.first_bucket + cutoff[window]
    columns: dict[str, pl.Series | npt.NDArray[np.generic]] = {
        "unique_id": pl.Series(task.ids, dtype=pl.String).gather(series[window]),
        "cutoff": bucket_times(seen, file.freq),
        "ds": bucket_times(seen + h, file.freq),
        "h": h.astype(np.int32),
    }
    for level in file.levels:
        columns[f"q{level:g}"] = answer.quantiles[:, :, LEVELS.index(level)].ravel()
    columns["mean"] = answer.mean.ravel()
    if cumulative:
        for index, level in enumerate(LEVELS):
            columns[f"c{level:g}"] = answer.cumulative[:, :, index].ravel()
        columns["cmean"] = answer.cumulative_mean.ravel()
    return pl.DataFrame(columns)
