"""Backtest: what a forecaster would have said at each cutoff of a task, as one table.

In: a task folder (`models.task`) and any `Forecaster`.
Out: one row per (series, cutoff, step): unique_id, cutoff, ds, h, q…, mean, and with cumulative c…, cmean.
Must not know: which forecaster it is, scores (whoever watches may keep them). Rule: a window holds nothing later than
its cutoff but known columns, so that changing the future changes no byte of the table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from models.baseline import pool_of
from models.forecast import LEVELS, Forecast, ForecastBatch, Forecaster, take
from models.lender import Lender
from models.panel import Panel
from models.task import Task, TaskError, bucket_times, read_task

BATCH_ROWS = 4096
"""Windows forecast at once: at 28 steps and 13 levels a batch's answer takes 12 MB."""

Watch = Callable[[slice, Forecast], None]
"""Is told of each answer as it is given: which windows of the task it answers, in their order, and the answer."""

Said = Iterable[tuple[slice, Forecast]]
"""Answers, each with the windows of the task that it answers, in their order."""


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


def write_backtest(
    task: Task | Path,
    forecaster: Forecaster,
    out: Path,
    *,
    cumulative: bool = False,
    watch: Watch | None = None,
    said: Said | None = None,
) -> int:
    """Forecast every window of a task into a Parquet file; the file appears when it is complete.

    Parameters
    ----------
    task
        As read, or its folder.
    watch
        Told of each answer.
    said
        Answers to lay out instead of the forecaster's own.

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
    task = task if isinstance(task, Task) else read_task(task)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backtest-", dir=out.parent) as parts:
        rows = 0
        try:
            for number, frame in enumerate(frames(task, forecaster, cumulative=cumulative, watch=watch, said=said)):
                frame.write_parquet(Path(parts) / f"{number:08d}.parquet")
                rows += len(frame)
            whole = Path(parts) / "whole"
            pl.scan_parquet(Path(parts) / "*.parquet").sink_parquet(whole)
        except pl.exceptions.PolarsError as error:  # how a full disk is told
            raise OSError(f"{out}: cannot be written ({str(error).splitlines()[0]})") from error
        whole.replace(out)
    return rows


def frames(
    task: Task,
    forecaster: Forecaster,
    *,
    cumulative: bool = False,
    watch: Watch | None = None,
    said: Said | None = None,
) -> Iterator[pl.DataFrame]:
    """Forecast a task piece by piece, in the order of cutoff, series, step.

    Raises
    ------
    TaskError
        If the task asks for a quantile level that forecasts do not have.
    """
    unknown = [level for level in task.file.levels if level not in LEVELS]
    if unknown:
        levels = ", ".join(f"{level:g}" for level in LEVELS)
        raise TaskError(f"task.json: level {unknown[0]:g} is not forecast; the levels are {levels}")
    for part, answer in answers(task, forecaster) if said is None else said:
        yield _frame(task, task.series[part], task.cutoff[part], answer, cumulative)
        if watch is not None:
            watch(part, answer)


def answers(task: Task, forecaster: Forecaster) -> Iterator[tuple[slice, Forecast]]:
    """Forecast a task piece by piece: which windows, in their order, and the answer.

    Windows of one cutoff form a batch: what young series borrow comes from the others as they were on that day.
    """
    panel = Panel(task)
    lender = Lender(panel)
    starts = np.flatnonzero(np.diff(task.cutoff, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(task.cutoff)], strict=True):
        day = day_of(panel, lender, task.series[start:stop], task.cutoff[start:stop])
        for first in range(start, stop, BATCH_ROWS):
            last = min(first + BATCH_ROWS, stop)
            yield slice(first, last), forecaster.forecast(take(day, slice(first - start, last - start)))


def answer_of(task: Task, forecaster: Forecaster, window: int) -> Forecast:
    """Forecast one window again, as `answers` did; row 0 is the answer."""
    day = np.flatnonzero(task.cutoff == task.cutoff[window])
    panel = Panel(task)
    batch = day_of(panel, Lender(panel), task.series[day], task.cutoff[day])
    at = int(np.searchsorted(day, window))
    return forecaster.forecast(take(batch, slice(at, at + 1)))


def day_of(panel: Panel, lender: Lender, series: npt.NDArray[np.int64], cutoff: npt.NDArray[np.int64]) -> ForecastBatch:
    """The windows of one cutoff; the young among them, if there are any, borrow from all series."""
    batch = panel.batch(series, cutoff)
    young = (np.isfinite(batch.demand) & batch.is_open).sum(axis=1) < batch.season
    if not young.any():
        return batch
    return replace(batch, pool=pool_of(batch, groups=0), borrowed=lender.borrowed(series, int(cutoff[0]), young))


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
