"""What each input of a forecaster is worth to a task: its loss where it is not told that input.

In: a judged task, the forecaster. Out: an `InputWorth` for each input.
Must not know: pages, how forecasters are made. Rule: the forecaster stays as it is and answers the same windows; what
it cannot see is unknown to it, as it would be in a shop that does not know it. A forecaster that was fitted without an
input would lose less: it would lean on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from models.backtest import answers
from models.forecast import Forecast, ForecastBatch, Forecaster
from models.judge import Judge
from models.panel import known_name
from models.task import Task

RECENT_SEASONS = 4
"""What is left of the history where most of it is blank: the least that features by week can be made of."""

HISTORY = f"history beyond {RECENT_SEASONS} seasons"
WEEKS = "weeks of two years"

Blank = Callable[[ForecastBatch], ForecastBatch]
"""A batch less one input."""


@dataclass(frozen=True, slots=True)
class InputWorth:
    """What one input is worth: the WQL of the model without it, and by how much that is more."""

    name: str
    wql_without: float
    change: float


def blanks(task: Task) -> dict[str, Blank]:
    """Ways to leave out each input that windows of a task have, by name."""
    known = [known_name(name) for name in task.known if name != task.file.open]
    return {
        HISTORY: _without_history,
        WEEKS: lambda batch: replace(batch, weeks=None),
        **{name: partial(_without_known, name) for name in known},
        **{name: partial(_without_attribute, name) for name in task.attributes},
    }


def _without_history(batch: ForecastBatch) -> ForecastBatch:
    """Less all but the last seasons of demand."""
    demand = batch.demand.copy()
    demand[:, : -RECENT_SEASONS * batch.season] = np.nan
    return replace(batch, demand=demand)


def _without_known(name: str, batch: ForecastBatch) -> ForecastBatch:
    """Less a covariate, in the past and ahead."""
    known, channels = dict(batch.known), dict(batch.channels)
    for part in (known, channels):
        if name in part:
            part[name] = np.full_like(part[name], np.nan)
    return replace(batch, known=known, channels=channels)


def _without_attribute(name: str, batch: ForecastBatch) -> ForecastBatch:
    """Less what kind of item a row is."""
    return replace(batch, attributes={**batch.attributes, name: np.full_like(batch.attributes[name], -1)})


class Blanked:
    """A forecaster that is not told one input.

    Parameters
    ----------
    forecaster
        Who answers.
    blank
        Takes the input out of a batch.

    Examples
    --------
    >>> from models.baseline import SeasonalWindow
    >>> from tests.batches import batch_of
    >>> Blanked(SeasonalWindow(), _without_history).forecast(batch_of([[9.0] * 35 + [1.0] * 28])).mean[0, 0].item()
    1.0
    """

    def __init__(self, forecaster: Forecaster, blank: Blank) -> None:
        self.name, self.channels = forecaster.name, forecaster.channels
        self._forecaster, self._blank = forecaster, blank

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Forecast every row without it."""
        return self._forecaster.forecast(self._blank(batch))


def inputs_worth(judge: Judge, forecaster: Forecaster) -> Iterator[InputWorth]:
    """Forecast a task anew without each input in turn.

    Parameters
    ----------
    judge
        That has watched the forecaster's answers with all inputs.
    forecaster
        The same.

    Examples
    --------
    >>> from models.baseline import SeasonalWindow
    >>> from models.judge import judged
    >>> from tests.test_backtest_report import small_task
    >>> import pathlib, tempfile
    >>> task = small_task(pathlib.Path(tempfile.mkdtemp()))
    >>> [one.name for one in inputs_worth(judged(task, SeasonalWindow()), SeasonalWindow())]
    ['history beyond 4 seasons', 'weeks of two years']
    """
    with_all = float(judge.tally.in_all().wql)
    for name, blank in blanks(judge.task).items():
        without = Judge(judge.task)
        for part, answer in answers(judge.task, Blanked(forecaster, blank)):
            without.watch(part, answer)
        wql = float(without.tally.in_all().wql)
        yield InputWorth(name, wql, wql - with_all)
