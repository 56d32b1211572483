"""A champion and its challenger side by side: both forecast what closes, both are met by what comes true.

In: batches at the close of a bucket, the demand of final buckets. Out: what the champion would publish; whether the
challenger is better.
Must not know: shops, processes, where nets come from. Rule: both are judged on the same outcomes alone. A challenger
may be judged by what would be published on the day it takes over (`Rival.bare`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from models.baseline import SeasonalWindow
from models.forecast import Forecast, ForecastBatch, Forecaster, take
from online.drift import Change
from online.learner import Learner, Truth, kept
from online.trial import Trial

I64 = npt.NDArray[np.int64]
_BASELINE = SeasonalWindow()


@dataclass(slots=True)
class Rival:
    """Who forecasts, and what was learned of it.

    Attributes
    ----------
    forecaster, learner
        Of one model.
    bare
        Whether answers stay as the model gives them: who takes over a shop with a new model begins to learn of it then.
    """

    forecaster: Forecaster
    learner: Learner
    bare: bool = False

    def answer(self, batch: ForecastBatch, rows: I64, groups: I64, opened: int) -> Forecast:
        """What it would publish of a batch whose first bucket is `opened`; the answer waits for its truth."""
        said, learner = self.forecaster.forecast(batch), self.learner
        learner.expect(opened)
        correction = learner.correction(rows, groups)
        if self.bare:
            correction = replace(
                correction, acts=[0] * len(correction.acts), reads=[False] * len(correction.reads),
                sum_reads=[False] * len(correction.sum_reads),
            )  # fmt: skip
        learned = learner.learned(rows)
        base = None if self.forecaster.name == _BASELINE.name else _BASELINE.forecast(take(batch, learned))
        waiting = kept(correction, said, base, learned)
        learner.keep(rows[waiting.rows], opened, waiting)
        return correction.applied(said, batch.observed)


@dataclass(slots=True)
class Contest:
    """A champion, and who may take its place.

    Attributes
    ----------
    champion, challenger
        The latter is None until there is one.
    trial
        What has been seen of both so far; it goes on when a challenger's next generation takes its place.
    """

    champion: Rival
    challenger: Rival | None = None
    trial: Trial = field(default_factory=Trial)

    def learn(self, truth: Truth, *, judge: bool = True) -> list[Change]:
        """Let both meet a final bucket; changes of the world that the champion's outcomes show come back.

        Without `judge` they learn of it alone: the trial has seen this bucket before.
        """
        found = self.champion.learner.learn(truth)
        if self.challenger is not None:
            self.challenger.learner.learn(truth)
            if judge:
                self._judge(self.champion.learner, self.challenger.learner)
        return found

    def answer(self, batch: ForecastBatch, rows: I64, groups: I64, opened: int) -> Forecast:
        """What the champion would publish; the challenger answers in the shadow."""
        published = self.champion.answer(batch, rows, groups, opened)
        if self.challenger is not None:
            self.challenger.answer(batch, rows, groups, opened)
        return published

    def clear(self, slot: int) -> None:
        """Forget a series whose slot is freed."""
        for rival in (self.champion, self.challenger):
            if rival is not None:
                rival.learner.clear(slot)

    @property
    def is_won(self) -> bool:
        """Whether the challenger is better, by a test that may be looked at at any time."""
        return self.challenger is not None and self.trial.is_better

    def settle(self, champion: Rival | None = None) -> None:
        """Let the challenger take the champion's place, or somebody else; whoever comes next is judged anew."""
        if champion is None:
            if self.challenger is None:
                raise ValueError("there is no challenger to take the champion's place")
            champion = self.challenger
        self.champion, self.challenger, self.trial = champion, None, Trial()

    def _judge(self, champion: Learner, challenger: Learner) -> None:
        """Show the trial what both published at horizons at which the same outcomes met both."""
        pairs = [
            (own, challenger.met[index])
            for index, own in champion.met.items()
            if index in challenger.met and challenger.met[index].outcomes == own.outcomes
        ]
        if outcomes := sum(own.outcomes for own, _ in pairs):
            covered = sum(own.inside for own, _ in pairs) / outcomes, sum(other.inside for _, other in pairs) / outcomes
            self.trial.add(sum(own.loss for own, _ in pairs), sum(other.loss for _, other in pairs), covered)
