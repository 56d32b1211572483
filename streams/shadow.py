"""A shop played beside its workers: its days are kept, and a champion and a challenger forecast them for a comparison.

In: events in the order in which a shard would apply them, ticks. Out: tasks of the days so far; a `Contest` that is up
to date.
Must not know: Kafka, processes, where models come from. Rule: a challenger answers for no day that its nets have read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.forecast import Forecaster
from online.continual import Contest, Rival
from online.drift import Change
from online.learner import Learner, Truth
from streams.engine import EngineConfig
from streams.events import EventBatch
from streams.task_of_events import EventDays

I64 = npt.NDArray[np.int64]

FOLLOWED = 4_096
"""Series that are followed at most: the first that there are. Half of them are judged by (`online.learner`)."""


NEVER = 1 << 40


class Shadow:
    """Plays events, keeps days, lets two models forecast them.

    Parameters
    ----------
    config
        Of the shop's engines; where it learns nothing, the champion is judged by what its model says.
    clock_ms
        The machine's clock.
    champion
        Who answers in the shop.
    reader
        A forecaster that reads all that nets read; it is never asked.

    Attributes
    ----------
    days
        What was played, day by day.
    contest
        Of the champion and, once there is one, a challenger.
    asking_from
        First bucket of which anybody is asked: history from long ago says nothing of who is better today.
    judged
        Newest final bucket that the trial has seen.
    changes
        Changes of the world that were seen since somebody last looked.
    """

    def __init__(self, config: EngineConfig, clock_ms: int, champion: Forecaster, reader: Forecaster) -> None:
        self._learning = config.learning
        config = replace(config, max_series=min(config.max_series, FOLLOWED), learning=True)
        self._config = config
        self.days = EventDays(config, clock_ms, reader, self._closed)
        self.contest = Contest(self.rival(champion))
        self.asking_from, self.judged = NEVER, -1
        self.changes: list[Change] = []
        self._after = -1
        self.days.engine.learning.pupils.append(self)

    def rival(self, forecaster: Forecaster, *, bare: bool = False) -> Rival:
        """Somebody of whom nothing is learned yet."""
        panes = self._config.panes
        learner = Learner(forecaster.name, self._config.max_series, self._config.width.season, panes.open_buckets)
        return Rival(forecaster, learner, bare or not self._learning)

    def challenge(self, forecaster: Forecaster, last: int) -> None:
        """Let somebody be the challenger who has read days up to `last`; the trial of the one before goes on."""
        former = self.contest.challenger
        bare = self.rival(forecaster, bare=True) if former is None else replace(former, forecaster=forecaster)
        self.contest.challenger = bare
        self._after = last

    # -- what is played

    def apply(self, batch: EventBatch) -> None:
        """Play events that have their ticks."""
        self.days.apply(batch)

    def tick(self, now_ms: int) -> None:
        """Let a clock pass."""
        self.days.tick(now_ms)

    def _closed(self, zone: int, slots: I64) -> None:
        """Have both forecast what begins now."""
        engine = self.days.engine
        own = slots[self.contest.champion.learner.learned(slots)]
        state = engine.buckets.zones[zone]
        if state.open < self.asking_from or not len(own):
            return
        batch = engine.refresh.request(own, zone, state.zone.start_ms(state.open), at_close=True).batch
        groups = batch.group.astype(np.int64)
        challenger = self.contest.challenger
        if challenger is not None and state.open <= self._after:
            self.contest.champion.answer(batch, own, groups, state.open)
        else:
            self.contest.answer(batch, own, groups, state.open)

    # -- what turns out true

    def learn(self, truth: Truth) -> None:
        """Let both meet a final bucket."""
        self.changes += self.contest.learn(truth, judge=truth.bucket > self.judged)
        self.judged = max(self.judged, truth.bucket)

    def clear(self, slot: int) -> None:
        """Forget a series whose slot is freed."""
        self.contest.clear(slot)
