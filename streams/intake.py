"""Which events count, and in which order: time, lateness and repeats.

In: decoded batches in order of arrival, and ticks. Out: events to apply with the watermark at each; dead letters.
Must not know: panes, prices, decisions. Rule: the outcome depends on the order of events, never on chunking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.dedupe import Dedupe, DedupeConfig
from streams.events import EventBatch, Kind, concat
from streams.outputs import Output, dead_letter
from streams.parked import Parked
from streams.series import SeriesMap, sku_seed
from streams.state import Record, pack, unpack
from streams.watermark import NEVER, Plan, TimeConfig, Watermark

I64 = npt.NDArray[np.int64]

_SOURCE = np.full(256, -1, np.int8)  # kind -> source of the watermark
_SOURCE[[Kind.ORDER_PLACED, Kind.ORDER_CANCELLED, Kind.ORDER_RETURNED]] = 0
_SOURCE[[Kind.ITEM_VIEWED, Kind.CART_ADDED, Kind.CART_REMOVED]] = 1


@dataclass(frozen=True, slots=True)
class Accepted:
    """Events that count, in order of application.

    Attributes
    ----------
    batch
        The events.
    slots
        Slot of each event's series as far as known now, -1 otherwise, int32 (N,).
    watermark_ms
        The watermark once each has been seen, int64 (N,).
    letters
        ``(row, dead letter)`` of those that do not count.
    """

    batch: EventBatch
    slots: npt.NDArray[np.int32]
    watermark_ms: I64
    letters: list[tuple[int, Output]]


class Intake:
    """The gate in front of the panes: parked, late and repeated events stop here.

    Parameters
    ----------
    time, dedupe
        The rules.
    series
        Known series: their SKU hashes are cached there.
    """

    def __init__(self, time: TimeConfig, dedupe: DedupeConfig, series: SeriesMap) -> None:
        self.time = time
        self.clock = Watermark(time)
        self.counts: Counter[str] = Counter()
        self._dedupe = Dedupe(replace(dedupe, lateness_ms=time.lateness_ms))
        self._series = series
        self._parked = Parked()

    @property
    def watermark_ms(self) -> int:
        """The shard's watermark, epoch ms."""
        return self.clock.ms

    @property
    def parked(self) -> int:
        """Events that wait for others to confirm their time."""
        return len(self._parked.batch)

    @property
    def dedupe_wraps(self) -> int:
        """How often the table of ids was full before its horizon had passed; repeats may have been missed since."""
        return self._dedupe.wraps

    def accept(self, batch: EventBatch) -> Accepted:
        """Sort out the events of a batch, and those parked before that they set free."""
        waiting = self.parked
        whole = concat([self._parked.batch, batch]) if waiting else batch
        before_ms = self.clock.ms
        plan = self.clock.plan(_SOURCE[whole.kind], whole.time_ms, whole.tick_ms, whole.sku)
        freed = plan.apply[plan.at != plan.apply].tolist()
        gone = [i for i, _ in plan.given_up]
        self.counts["parked"] += sum(1 for i in [*plan.parked, *freed, *gone] if i >= waiting)  # all that had to wait
        return self._sort_out(whole, plan, before_ms)

    def tick(self, now_ms: int) -> Accepted:
        """Let the shell's clock pass; parked events that it passes come out."""
        whole = self._parked.batch
        whole.row[:] = 0  # they came in chunks before: a tick has no row
        before_ms = self.clock.ms
        plan = self.clock.tick(now_ms, _SOURCE[whole.kind], whole.time_ms)
        return self._sort_out(whole, plan, before_ms)

    def _sort_out(self, whole: EventBatch, plan: Plan, before_ms: int) -> Accepted:
        """Keep what waits, take out what is late or came before, in the order of the plan."""
        letters = [(int(whole.row[at]), self._give_up(whole, i)) for i, at in plan.given_up]
        self._parked.keep(whole, plan.parked)
        whole, marks = _in_order(whole, plan), plan.watermark_ms
        slots = self._series.find(whole.sku, whole.location, whole.series)
        late = (_SOURCE[whole.kind] >= 0) & (whole.time_ms < marks - self.time.lateness_ms)
        letters += [(int(whole.row[i]), self._late(whole, i, int(marks[i]))) for i in np.flatnonzero(late).tolist()]
        keep = ~late
        keep[keep] = self._first(whole, slots, marks, keep, before_ms)
        self.counts["duplicate"] += len(keep) - int(late.sum()) - int(keep.sum())
        if not keep.all():
            rows = np.flatnonzero(keep)
            whole, slots, marks = whole.take(rows), slots[rows], marks[rows]
        self.counts["accepted"] += len(whole)
        return Accepted(whole, slots, marks, letters)

    def _first(
        self, whole: EventBatch, slots: npt.NDArray[np.int32], marks: I64, keep: npt.NDArray[np.bool_], before_ms: int
    ) -> npt.NDArray[np.bool_]:
        """Tell which of the kept rows are no repeats."""
        if not len(whole):
            return np.zeros(0, np.bool_)
        seeds = self._series.id_seed[slots]
        for i in np.flatnonzero(slots < 0).tolist():
            seeds[i] = sku_seed(whole.sku[i])
        # A fact may be older than the horizon: whether its id is still known then depends on when generations turned,
        # so it is not looked up at all; of facts the newest event time wins anyway.
        known = whole.time_ms >= marks - self.time.lateness_ms
        fresh = np.ones(len(whole), np.bool_)
        asked = keep & known
        fresh[asked] = self._dedupe.first(
            whole.id_hash[asked] ^ (seeds[asked] * _ODD), before_ms, int(whole.time_ms[asked].max(initial=NEVER))
        )
        return fresh[keep]

    def _late(self, whole: EventBatch, i: int, watermark_ms: int) -> Output:
        self.counts["late"] += 1
        self.counts["late_milliunits"] += int(whole.quantity[i])
        behind = (watermark_ms - int(whole.time_ms[i])) // 1000
        reason = f"event time is {behind} s behind the watermark, more than {self.time.lateness_ms // 1000} s"
        return dead_letter(whole.values[i], whole.keys[i], "late", reason, "$.event_time")

    def _give_up(self, whole: EventBatch, i: int) -> Output:
        self.counts["ahead"] += 1
        self.counts["ahead_milliunits"] += int(whole.quantity[i])
        reason = f"event time is far ahead and none of {self.time.ahead_events} later events confirmed it"
        return dead_letter(whole.values[i], whole.keys[i], "ahead", reason, "$.event_time")

    def changes(self) -> Iterator[Record]:
        """Yield the clock, events parked and ids seen since the last call."""
        yield "clock/intake", pack({"clock": self.clock.snapshot(), "counts": dict(self.counts)})
        yield from self._parked.changes()
        yield from self._dedupe.changes(self.clock.ms)

    def discard_changes(self) -> None:
        """Forget what `changes` would yield, for a shell that keeps no state."""
        self._dedupe.discard_changes()
        self._parked.discard_changes()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        if key.startswith("dedupe/"):
            self._dedupe.restore(key, value)
        elif key.startswith("parked/"):
            self._parked.restore(key, value)
        elif value is not None:
            state: dict[str, Any] = unpack(key, value)
            self.clock.restore(state["clock"])
            self.counts = Counter(state["counts"])

    def settle(self) -> None:
        """All records were taken over."""
        self._parked.settle()


_ODD = np.uint64(0xD6E8FEB86659FD93)  # odd, so that multiplying loses nothing of a SKU's hash


def _in_order(whole: EventBatch, plan: Plan) -> EventBatch:
    """Events in the order of the plan; what a later record set free has that one's row."""
    n, order = len(whole), plan.apply
    if len(order) == n and (order == np.arange(n)).all() and (plan.at == order).all():
        return whole
    out = whole.take(order)
    out.row = whole.row[plan.at]
    return out
