"""Windows out of a task's matrices: what a forecaster may see of some series at some buckets, and what came after.

In: a `Task`; rows and columns of its matrices. Out: `ForecastBatch`es and actual demand.
Must not know: which windows are scored, forecasters. Rule: a window holds nothing later than its cutoff but known
columns; only `actual` looks ahead, and it says how far it may.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.forecast import F32, ForecastBatch
from models.task import Task

CONTEXT_SEASONS = 24
"""Seasons of history per window: twice the baseline's twelve, for shops that were closed on some of them."""

WEEKS = 103
"""Whole weeks per window, as the engine's panes hold before the week that runs."""

KNOWN_NAMES = {"sell_price": "price", "promotion": "promo", "stateholiday": "holiday", "event_any": "holiday"}
"""What public data sets call the covariates that features know; a column of another name keeps its own."""

CODE_VALUES = (3, 60)
"""Fewest and most values of a known column that is taken for a code (which holiday, which campaign)."""

LEAST_SERIES = 4
"""Series that share a kind; one with fewer would be a name of its series, to be learned by heart."""

I64 = npt.NDArray[np.int64]
_MOST = float(np.finfo(np.float32).max)


class Panel:
    """Cuts windows out of a task's matrices, which are padded once so that every cut has the same shape.

    Parameters
    ----------
    task
        Whose.
    horizon
        Steps of a window; those of the task if not given.
    """

    def __init__(self, task: Task, horizon: int | None = None) -> None:
        self.task = task
        self.horizon = task.file.horizon if horizon is None else horizon
        self.context = CONTEXT_SEASONS * task.file.season
        self._per_day = 1 if task.file.freq == "D" else 24
        self._demand = self._history(task.demand)
        self._past = {known_name(name): self._history(matrix) for name, matrix in task.past.items()}
        self._known = {known_name(name): self._history(matrix, self.horizon) for name, matrix in task.known.items()}
        self._open = None if task.file.open is None else self._history(task.known[task.file.open], self.horizon)
        self._ahead = np.lib.stride_tricks.sliding_window_view(
            np.pad(task.demand, ((0, 0), (0, self.horizon)), constant_values=np.nan), self.horizon, axis=1
        )
        self._weeks, self._first_week = self._week_totals()

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the known columns but the one that says what is closed, which every window has."""
        return tuple(known_name(name) for name in self.task.known if name != self.task.file.open)

    def codes(self, last: int) -> dict[str, list[int]]:
        """Values, up to the column `last`, of known columns that hold few whole numbers: no amounts, but names."""
        out = {}
        for name, matrix in self.task.known.items():
            values = np.unique(matrix[:, : last + 1])
            values = values[np.isfinite(values)]
            whole = bool(len(values)) and values[0] >= 0 and bool((np.rint(values) == values).all())
            if name != self.task.file.open and whole and CODE_VALUES[0] <= len(values) <= CODE_VALUES[1]:
                out[known_name(name)] = values.astype(np.int64).tolist()
        return out

    @property
    def kinds(self) -> dict[str, list[int]]:
        """Codes of attributes that several series share, by name."""
        out = {}
        for name, codes in self.task.attributes.items():
            values, counts = np.unique(codes[codes >= 0], return_counts=True)
            if len(shared := values[counts >= LEAST_SERIES].tolist()) > 1:
                out[name] = shared
        return out

    def _history(self, matrix: F32, ahead: int = 0) -> F32:
        """Views of every window: [series, cutoff] gives the context up to the cutoff and `ahead` buckets more."""
        padded = np.pad(matrix, ((0, 0), (self.context - 1, ahead)), constant_values=np.nan)
        return np.lib.stride_tricks.sliding_window_view(padded, self.context + ahead, axis=1)

    def _week_totals(self) -> tuple[F32, int]:
        """Demand per calendar week, NaN before a series began; views of `WEEKS` weeks by the week after them."""
        demand = self.task.demand
        week = self._week_of(self.task.first_bucket + np.arange(demand.shape[1]))
        starts = np.flatnonzero(np.diff(week, prepend=week[0] - 1))
        known = np.where(np.isfinite(demand), demand, 0).astype(np.float64)  # what lies ahead may be anything
        totals = np.add.reduceat(known, starts, axis=1)
        begun = np.maximum.accumulate(np.logical_or.reduceat(np.isfinite(demand), starts, axis=1), axis=1)
        totals = np.where(begun, np.clip(totals, -_MOST, _MOST), np.nan).astype(np.float32)
        padded = np.pad(totals, ((0, 0), (WEEKS, 0)), constant_values=np.nan)
        return np.lib.stride_tricks.sliding_window_view(padded, WEEKS, axis=1), int(week[0])

    def _week_of(self, bucket: I64) -> I64:
        week: I64 = (bucket // self._per_day + 3) // 7  # 1970-01-01 was a Thursday
        return week

    def batch(self, series: I64, cutoff: I64) -> ForecastBatch:
        """The windows of these rows that end at these columns."""
        at, rows = (series, cutoff), len(series)
        known = {name: views[at] for name, views in self._known.items()}
        for name, said in self.task.ahead.items():
            said.put(known[known_name(name)], series, cutoff, self.context)
        opened = np.ones((rows, self.context + self.horizon), bool) if self._open is None else self._open[at] != 0
        start = self.task.first_bucket + cutoff + 1
        return ForecastBatch(
            demand=self._demand[at],
            is_open=opened[:, : self.context],
            future_open=opened[:, self.context :],
            observed=np.zeros(rows, np.float32),
            elapsed=np.zeros(rows, np.float32),
            day=start // self._per_day,
            hour=start % self._per_day,
            season=self.task.file.season,
            group=np.full(rows, -1, np.int32),
            channels={name: views[at] for name, views in self._past.items()},
            known=known,
            attributes={name: codes[series] for name, codes in self.task.attributes.items()},
            weeks=self._weeks[series, self._week_of(start) - self._first_week],
        )

    def actual(self, series: I64, cutoff: I64, last: int) -> F32:
        """Demand of the steps, float32 (rows, H), NaN where there is none or it lies after the column `last`."""
        demand: F32 = self._ahead[series, cutoff + 1].copy()
        demand[(cutoff[:, None] + 1 + np.arange(self.horizon)) > last] = np.nan
        return demand


def known_name(column: str) -> str:
    """The name under which features look for a covariate."""
    return KNOWN_NAMES.get(column.lower(), column.lower())
