"""Which series wait for a forecast, which of them come first, and what a request for forecasts carries.

In: slots that changed, closes of buckets. Out: slots to forecast next; state records.
Must not know: events, models, outputs. Rule: a series is due until its forecast was taken over, also across a restart;
a series that becomes due again while it is being forecast stays due.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.baseline import SeasonalWindow
from models.forecast import Forecast, ForecastBatch, take
from online.correction import Correction
from online.learner import Kept, kept
from streams.outputs import ForecastSet
from streams.state import Table

Slots = npt.NDArray[np.integer[Any]]

CHANGED, CLOSED = 1, 2
"""Why a series is due: it changed since its last forecast, or its bucket has closed."""

_BASELINE = SeasonalWindow()

Rows = list[dict[str, npt.NDArray[Any]]]


@dataclass(slots=True)
class Request:
    """Forecasts to be made: what the model reads, and what is needed to take the answer over.

    Attributes
    ----------
    batch
        For the forecaster.
    slots
        Rows of the batch, (B,).
    keys
        SKU and location per row.
    zone
        Index of their zone.
    opened
        Bucket of step 1.
    steps
        Starts of the buckets asked for, epoch ms.
    as_of_ms
        Instant the forecasts stand for.
    at_close
        Whether a bucket's close asked for them.
    day, hour, freq, time_zone, shard
        As in `ForecastSet`.
    positions
        Stock of the rows at that instant, for the decisions.
    left
        Slots that were freed, or whose trigger was answered, since: nothing is decided for them.
    correction
        What was learned by that instant, or None.
    learned
        Rows that are learned from.
    kept
        What of the answer waits for its truth, once there is an answer of the model that `correction` knows.
    """

    batch: ForecastBatch
    slots: Slots
    keys: list[tuple[str, str]]
    zone: int
    opened: int
    steps: list[int]
    as_of_ms: int
    at_close: bool
    day: int = 0
    hour: int = 0
    freq: str = "D"
    time_zone: str = "UTC"
    shard: int = 0
    positions: Rows = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    correction: Correction | None = None
    learned: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    kept: Kept | None = None

    def __len__(self) -> int:
        return len(self.slots)

    def answer(self, forecast: Forecast, model: str, reason: str | None = None) -> ForecastSet:
        """Forecasts as readers see them; may be called by any thread, for it touches no state of the engine.

        What was learned is applied to the answers of the model that it was learned of, and to no other's.
        """
        if self.correction is not None and reason is None and model == self.correction.model:
            if len(self.learned):
                other = None if model == _BASELINE.name else _BASELINE.forecast(take(self.batch, self.learned))
                self.kept = kept(self.correction, forecast, other, self.learned)
            forecast = self.correction.applied(forecast, self.batch.observed)
        return ForecastSet(
            keys=self.keys,
            forecast=forecast,
            as_of_ms=self.as_of_ms,
            at_close=self.at_close,
            day=self.day,
            hour=self.hour,
            freq=self.freq,
            time_zone=self.time_zone,
            steps=self.steps,
            observed=self.batch.observed,
            model=model,
            shard=self.shard,
            reason=reason,
        )


class Due:
    """Series that changed, series that are due, and requests under way.

    Parameters
    ----------
    max_series
        Number of slots.

    Examples
    --------
    >>> due = Due(8)
    >>> due.touch(np.array([3, 5]))
    >>> due.mark_changed(8)
    >>> due.waiting(8).tolist(), due.level(np.array([5])).tolist()
    ([3, 5], [1])
    """

    def __init__(self, max_series: int) -> None:
        self.table = Table("dirty", max_series, {"dirty": (np.bool_, ()), "due": (np.uint8, ())})
        self.shed = 0
        self.requests: list[Request] = []
        # Not part of the state: after a restart nothing is under way, and what was is still due.
        self._under_way = np.zeros(max_series, np.bool_)

    def touch(self, slots: Slots) -> None:
        """Note that forecasts or decisions of series are out of date."""
        self.table["dirty"][slots] = True
        self.table.touch(slots)

    def mark_changed(self, used: int) -> None:
        """Make all changed series due."""
        changed = np.flatnonzero(self.table["dirty"][:used])
        self._mark(changed, CHANGED)

    def mark_closed(self, slots: Slots) -> None:
        """Make series due because their bucket closed."""
        self._mark(slots, CLOSED)

    def _mark(self, slots: Slots, level: int) -> None:
        self.table["dirty"][slots] = False
        due = self.table["due"]
        self.shed += int(np.count_nonzero(due[slots]))
        due[slots] = np.maximum(due[slots], level)
        self._under_way[slots] = False  # what is being forecast now no longer counts
        self.table.touch(slots)

    def waiting(self, used: int) -> Slots:
        """Slots that are due and not being forecast."""
        return np.flatnonzero((self.table["due"][:used] > 0) & ~self._under_way[:used])

    def level(self, slots: Slots) -> npt.NDArray[np.uint8]:
        """Why each slot is due: `CLOSED`, `CHANGED` or 0."""
        levels: npt.NDArray[np.uint8] = self.table["due"][slots]
        return levels

    def count(self, used: int) -> tuple[int, int]:
        """How many series have changed, and how many are due."""
        return int(np.count_nonzero(self.table["dirty"][:used])), int(np.count_nonzero(self.table["due"][:used]))

    def begin(self, request: Request) -> None:
        """Note that a request is under way."""
        self._under_way[request.slots] = True
        self.requests.append(request)

    def end(self, request: Request) -> None:
        """Note that a request was answered: its series are no longer due, unless they have become so again."""
        self.requests = [other for other in self.requests if other is not request]
        mine = request.slots[self._under_way[request.slots]]
        self._under_way[mine] = False
        self.table["due"][mine] = 0
        self.table.touch(mine)

    def leave(self, slot: int) -> None:
        """Let no decision follow for a slot from requests that are under way; it counts as changed instead."""
        if self._under_way[slot]:
            self.touch(np.array([slot]))
        for request in self.requests:
            request.left.add(slot)

    def clear(self, slot: int) -> None:
        """Forget a slot that is freed."""
        self.leave(slot)
        self._under_way[slot] = False
        self.table.clear(slot)


def copy_rows(tables: Sequence[Table], slots: Slots) -> Rows:
    """Copies of some rows of tables."""
    return [{name: array[slots] for name, array in table.arrays.items()} for table in tables]


@contextmanager
def as_of(tables: Sequence[Table], slots: Slots, rows: Rows) -> Iterator[None]:
    """Let rows of tables be as they were when copied, for as long as the context lasts."""
    now = copy_rows(tables, slots)
    _write(tables, slots, rows)
    try:
        yield
    finally:
        _write(tables, slots, now)


def _write(tables: Sequence[Table], slots: Slots, rows: Rows) -> None:
    for table, values in zip(tables, rows, strict=True):
        for name, array in table.arrays.items():
            array[slots] = values[name]
