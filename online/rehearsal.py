"""A task in the order of time: each day is met, learned from, and forecast, as an engine would have done.

In: a task and a forecaster, and a lineage of nets where they shall learn on. Out: answers at the cutoffs, corrected by
what was learned up to each.
Must not know: scores that somebody else makes of the answers. Rule: what is published at a cutoff rests on buckets up
to that cutoff alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.backtest import day_of
from models.encoder import load
from models.forecast import Forecast, Forecaster, take_forecast
from models.lender import Lender
from models.panel import Panel
from models.serving import EncoderForecaster
from models.task import Task
from online.continual import Contest, Rival
from online.learner import SUMS, Learner, Truth
from online.lineage import Lineage

I64 = npt.NDArray[np.int64]

CHALLENGER = "continued"
"""Name under which descendants answer, and under which it is learned of them."""


@dataclass(slots=True)
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
    lineage
        Descendants of the forecaster's nets: each forecasts in the shadow, and takes the champion's place once
        `online.trial` says that it is better.
    promoted
        Days since the first cutoff on which one did.
    """

    task: Task
    forecaster: Forecaster
    warm_buckets: int = 0
    lineage: Lineage | None = None
    promoted: list[int] = field(default_factory=list)

    def answers(
        self, learner: Learner, progress: Callable[[float], None] | None = None
    ) -> Iterator[tuple[slice, Forecast]]:
        """Answers at each cutoff: which windows of the task, in their order, and what is published."""
        task, panel = self.task, Panel(self.task)
        lender, groups, cutoffs = Lender(panel), groups_of(task), task.cutoff
        first, last = max(int(cutoffs.min()) - self.warm_buckets, 1), int(cutoffs.max())
        contest = Contest(Rival(self.forecaster, learner))
        for day in range(first, last + 1):
            contest.learn(self._truth(learner, groups, day))
            if contest.is_won:
                self.promoted.append(day - int(cutoffs.min()))
                contest.settle()
            self._descend(contest, day)
            windows = np.flatnonzero(cutoffs == day)
            rows = np.union1d(np.flatnonzero(np.isfinite(task.demand[:, day])), task.series[windows])
            batch = day_of(panel, lender, rows, np.full(len(rows), day))
            published = contest.answer(batch, rows, groups[rows], task.first_bucket + day + 1)
            if len(windows):
                at = np.searchsorted(rows, task.series[windows])
                yield slice(int(windows[0]), int(windows[-1]) + 1), take_forecast(published, at)
            if progress is not None:
                progress((day - first + 1) / (last - first + 1))

    def _descend(self, contest: Contest, day: int) -> None:
        """Let the next generation be the challenger where that is due; what was learned of the one before holds."""
        if self.lineage is None or not self.lineage.is_due(day):
            return
        forecaster = EncoderForecaster([load(folder) for folder in self.lineage.next(day)], CHALLENGER)
        former = contest.challenger
        learner = former.learner if former else Learner(CHALLENGER, len(self.task.ids), self.task.file.season)
        contest.challenger = Rival(forecaster, learner)

    def _truth(self, learner: Learner, groups: I64, day: int) -> Truth:
        """Demand of a day and of those before it."""
        rows = learner.learned(np.arange(len(self.task.demand)))
        demand = self.task.demand[rows, max(0, day + 1 - SUMS[-1]) : day + 1]
        missing = np.full((len(rows), SUMS[-1] - demand.shape[1]), np.nan, np.float32)
        return Truth(self.task.first_bucket + day, rows, np.concatenate([missing, demand], axis=1), groups[rows])


def groups_of(task: Task) -> I64:
    """Group of each series by the first of the task's attributes, -1 for none, (series,)."""
    for name in sorted(task.attributes):
        _, place = np.unique(task.attributes[name], return_inverse=True)
        return np.where(task.attributes[name] < 0, -1, place).astype(np.int64)
    return np.full(len(task.ids), -1, np.int64)
