"""The learner of a shard and the engine's parts: what it is asked, what it is told, and when.

In: requests for forecasts and their answers; buckets that close and turn final. Out: corrections on requests; records.
Must not know: how anything is learned, events. Rule: a correction is taken when a request is made, so that its answer
rests on one instant; a bucket teaches once it is final, and not where what was sold is less than what was wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.forecast import Bools
from online.drift import Change
from online.learner import LAYOUT, OF_MODEL, READS, SUMS, Learner, Truth
from streams.buckets import Buckets
from streams.due import Request
from streams.panes import SHUT, flags_of, stock_of
from streams.refresh import Refresh
from streams.state import Record, SnapshotError, pack, unpack

I64 = npt.NDArray[np.int64]
Slots = npt.NDArray[np.integer[Any]]


MOST_RESTING = 4
"""Models that no longer answer and of which is kept what was learned: they may be brought back."""


class Pupil(Protocol):
    """Who else is told what turns out true."""

    def learn(self, truth: Truth) -> Any:
        """Take in a final bucket."""

    def clear(self, slot: int) -> None:
        """Forget a slot that is freed."""


class Learning:
    """Learns while a shard runs; every part is the engine's.

    Parameters
    ----------
    buckets, refresh
        Of the engine.
    on
        False: nothing is learned, and forecasts are published as the model gives them.

    Attributes
    ----------
    pupils
        Others that are told of final buckets and freed slots.
    """

    def __init__(self, buckets: Buckets, refresh: Refresh, *, on: bool) -> None:
        self._buckets, self._refresh, self._on = buckets, refresh, on
        self.learner = self.fresh()
        self.pupils: list[Pupil] = []
        self._resting: dict[str, dict[str, Any]] = {}  # by record key, the newest last
        self._gone: list[str] = []  # keys of records that no longer hold
        self._rested = ""  # key of what rests since the last commit

    def adopt(self) -> None:
        """Learn of the model that answers now; of the one before is kept what does not concern single series."""
        former = self.learner
        if not self._on or former.model == self._refresh.forecaster.name:
            return
        self._gone += former.waiting()
        self._resting[former.key] = former.snapshot(0)
        self.learner = self.fresh()
        if (learned := self._resting.pop(self.learner.key, None)) is not None:
            self.learner.restore(self.learner.key, learned)
        for key in list(self._resting)[:-MOST_RESTING]:
            self._gone.append(key)
            del self._resting[key]
        self._rested = former.key

    def fresh(self) -> Learner:
        """A learner of the same model that has seen nothing."""
        panes = self._buckets.panes
        rows = panes.max_series if self._on else 0
        return Learner(self._refresh.forecaster.name, rows, self._buckets.width.season, panes.config.open_buckets)

    # -- requests and answers

    def expect(self, opened: int) -> None:
        """Note that forecasts which begin with a bucket will be asked for."""
        if self._on:
            self.learner.expect(opened)

    def prepare(self, request: Request) -> None:
        """Give a request what has been learned by now; one that a close asked for is learned from as well."""
        if self._on:
            request.correction = self.learner.correction(request.slots, request.batch.group.astype(np.int64))
            request.learned = self.learner.learned(request.slots) if request.at_close else request.learned

    def keep(self, request: Request, stay: Bools) -> None:
        """Let what a request kept of its answer wait for its truth, but for slots that were freed meanwhile."""
        correction = request.correction
        if request.kept is None or correction is None or correction.model != self.learner.model:
            return
        if self._buckets.zones[request.zone].open == request.opened:
            kept = request.kept.of(stay[request.kept.rows])
            self.learner.keep(request.slots[kept.rows], request.opened, kept)

    # -- buckets

    def meet(self, slots: Slots, bucket: int) -> list[Change]:
        """Learn from a bucket that is final; changes of the shard's world that it shows come back."""
        own = slots[self.learner.learned(slots)]
        if not len(own):
            return []
        panes = self._buckets.panes
        demand = panes.demand(own, bucket + 1)[:, -SUMS[-1] :]
        shelf = panes.channel("shelf", own, bucket + 1)[:, -SUMS[-1] :]
        begun = self._buckets.series["first"][own].astype(np.int64)
        before = np.arange(bucket + 1 - SUMS[-1], bucket + 1)[None] < begun[:, None]
        demand[(stock_of(shelf) < 1) | (flags_of(shelf) & SHUT > 0) | before] = np.nan
        groups = self._refresh.table["group"][own].astype(np.int64) - 1
        truth = Truth(bucket, own, demand, groups)
        for pupil in self.pupils:
            pupil.learn(truth)
        return self.learner.learn(truth)

    def clear(self, slot: int) -> None:
        """Forget a slot that is freed."""
        self.learner.clear(slot)
        for pupil in self.pupils:
            pupil.clear(slot)

    # -- state

    def changes(self, used: int) -> Iterator[Record]:
        """Yield what changed since the last call; what no longer holds is deleted."""
        for key in self._gone:
            yield key, None
        self._gone.clear()
        if not self._on:
            return
        if (rested := self._resting.get(self._rested)) is not None:
            yield self._rested, pack({**rested, "layout": LAYOUT})
        self._rested = ""
        for key, payload in self.learner.changes(used):
            yield key, pack({**payload, "layout": LAYOUT})

    def restore(self, key: str, value: bytes) -> None:
        """Take over one record; where nothing is learned, it is let go.

        What waits for the sake of another model, or where nothing is learned, nobody takes when its bucket is final.
        It must not lie there until somebody does: its column belongs to another bucket by then.

        Raises
        ------
        SnapshotError
            If the record is of another layout than this program reads.
        """
        payload = unpack(key, value)
        layout = dict(payload).get("layout", 1)  # the first programs named none
        if layout not in READS:
            raise SnapshotError(
                f"state record {key!r} has layout {layout}, this program reads {READS[0]} and {READS[-1]}; "
                "use the program that wrote it, or start a new application id"
            )
        of_model = key.startswith(OF_MODEL)
        if not of_model and not (self._on and payload["model"] == self.learner.model):
            self._gone.append(key)
        elif self._on and of_model and key != self.learner.key:
            self._resting[key] = Learner.of_shard(payload)
        elif self._on:
            self.learner.restore(key, payload)
