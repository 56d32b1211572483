"""A task in the order of time: each day is met, learned from, and forecast, as an engine would have done.

In: a task and a forecaster. Out: its answers at the cutoffs, corrected by what was learned up to each.
Must not know: scores that somebody else makes of the answers. Rule: what is published at a cutoff rests on buckets up
to that cutoff alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.backtest import day_of
from models.baseline import SeasonalWindow
from models.forecast import Forecast, Forecaster, take, take_forecast
from models.lender import Lender
from models.panel import Panel
from models.task import Task
from online.drift import Change
from online.learner import SUMS, Learner, Truth, kept

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Plays a task to a learner, day by day.

    Attributes
    ----------
    task
        Whose cutoffs are answered.
    forecaster
        Who answers.
    warm_buckets
        Buckets before the first cutoff from which on it is learned; none for a forecaster that was fitted to them.
    """

    task: Task
    forecaster: Forecaster
    warm_buckets: int = 0

    def answers(
        self, learner: Learner, progress: Callable[[float], None] | None = None
    ) -> Iterator[tuple[slice, Forecast]]:
        """Answers at each cutoff: which windows of the task, in their order, and what is published."""
        task, panel = self.task, Panel(self.task)
        lender, baseline, cutoffs = Lender(panel), SeasonalWindow(), task.cutoff
        first, last = int(cutoffs.min()) - self.warm_buckets, int(cutoffs.max())
        groups = groups_of(task)
        for day in range(max(first, 1), last + 1):
            self._meet(learner, groups, day)
            windows = np.flatnonzero(cutoffs == day)
            rows = np.union1d(np.flatnonzero(np.isfinite(task.demand[:, day])), task.series[windows])
            batch = day_of(panel, lender, rows, np.full(len(rows), day))
            said = self.forecaster.forecast(batch)
            learner.expect(day + 1)
            correction = learner.correction(rows, groups[rows])
            learned = learner.learned(rows)
            base = None if self.forecaster.name == baseline.name else baseline.forecast(take(batch, learned))
            waiting = kept(correction, said, base, learned)
            learner.keep(rows[waiting.rows], day + 1, waiting)
            if len(windows):
                published = correction.applied(said, batch.observed)
                at = np.searchsorted(rows, task.series[windows])
                yield slice(int(windows[0]), int(windows[-1]) + 1), take_forecast(published, at)
            if progress is not None:
                progress((day - first + 1) / (last - first + 1))

    def _meet(self, learner: Learner, groups: I64, day: int) -> list[Change]:
        """Let what waits for a day be met by it."""
        rows = learner.learned(np.arange(len(self.task.demand)))
        begin = max(0, day + 1 - SUMS[-1])
        demand = self.task.demand[rows, begin : day + 1]
        missing = np.full((len(rows), SUMS[-1] - demand.shape[1]), np.nan, np.float32)
        return learner.learn(Truth(day, rows, np.concatenate([missing, demand], axis=1), groups[rows]))


def groups_of(task: Task) -> I64:
    """Group of each series by the first of the task's attributes, -1 for none, (series,)."""
    for name in sorted(task.attributes):
        _, place = np.unique(task.attributes[name], return_inverse=True)
        return np.where(task.attributes[name] < 0, -1, place).astype(np.int64)
    return np.full(len(task.ids), -1, np.int64)
