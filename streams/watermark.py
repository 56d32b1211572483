"""Event time of a shard: the watermark, and events too far ahead of it to be believed at once.

In: per record its source (orders, clicks or neither), event time, the shell's clock at its arrival, its SKU.
Out: the order in which records are applied, the watermark at each, those parked and those given up.
Must not know: what records mean. Rule: the result depends on the order of records, never on how they are chunked.

The watermark is the newest event time of the flows less a bound, the smallest over the sources that are active. A
source that the clock has left behind for a while is idle and left out; when all are, the clock itself carries the
watermark, so that a quiet shop closes its day. A flow event more than six hours ahead of watermark and clock is parked
until events of three SKUs pass it or watermark or clock come near: one wrong clock must not make everyone else late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]

NEVER = -(1 << 62)
"""An instant before all others, epoch ms."""

SOURCES = 2  # orders, clicks: the flows that have a partition of their own


@dataclass(frozen=True, slots=True)
class TimeConfig:
    """Rules of event time, all in milliseconds.

    Attributes
    ----------
    bound_ms
        Disorder expected within a source: the watermark stays this far behind its newest event.
    lateness_ms
        How far behind the watermark a flow event is still counted.
    ahead_ms
        How far ahead of watermark and clock a flow event is believed at once; also how far one source may lag another.
    idle_ms
        A source from which nothing came for this long on the shell's clock is left out of the watermark.
    ahead_skus
        SKUs whose events must pass a parked event before it is believed.
    ahead_events
        Later events after which a parked event that nobody confirmed is given up.
    """

    bound_ms: int = 5 * 60_000
    lateness_ms: int = 2 * 3_600_000
    ahead_ms: int = 6 * 3_600_000
    idle_ms: int = 10 * 60_000
    ahead_skus: int = 3
    ahead_events: int = 1000


@dataclass(slots=True)
class Plan:
    """What to do with the records of one call: indices refer to the parked ones followed by the new ones.

    Attributes
    ----------
    apply
        Records in the order of application, int64 (M,).
    at
        The record at whose arrival each of them was applied: itself, or a later one that set it free, int64 (M,).
    watermark_ms
        The watermark once each of them has been seen, never falling, int64 (M,).
    parked
        Records that wait, in order of arrival.
    given_up
        ``(record, at)``: parked records that nobody confirmed, with the record at whose arrival that was settled.
    """

    apply: I64
    at: I64
    watermark_ms: I64
    parked: list[int]
    given_up: list[tuple[int, int]]


class Watermark:
    """The shard's event-time clock.

    Examples
    --------
    >>> clock = Watermark(TimeConfig())
    >>> hour = 3_600_000
    >>> at = np.array([10 * hour, 10 * hour + 60_000], np.int64)
    >>> plan = clock.plan(np.zeros(2, np.int8), at, np.array([10 * hour] * 2, np.int64), ["a", "b"])
    >>> (clock.ms - 10 * hour) // 60_000, plan.apply.tolist()
    (-4, [0, 1])
    """

    def __init__(self, config: TimeConfig) -> None:
        self._config = config
        self.ms = NEVER
        self.tick_ms = NEVER
        self._newest = [NEVER] * SOURCES
        self._seen_ms = [NEVER] * SOURCES
        self._parked: list[tuple[int, set[str]]] = []  # per parked record: later events so far, SKUs that passed it

    def plan(self, source: I8, time_ms: I64, tick_ms: I64, skus: Sequence[str]) -> Plan:
        """Order the parked and the new records for application, and move the watermark past them.

        Parameters
        ----------
        source
            0 orders, 1 clicks, -1 neither (facts), of the records still parked followed by the new ones, int8 (N,).
        time_ms
            Event times, int64 (N,).
        tick_ms
            The shell's clock at arrival, int64 (N,); a record sees at least the newest clock before it.
        skus
            SKU of each record.

        Returns
        -------
        The plan; its ``parked`` records must come first in the next call.
        """
        waiting = list(range(len(self._parked)))
        at, n = len(waiting), len(source)
        ticks = np.maximum.accumulate(np.maximum(tick_ms, self.tick_ms)) if n else tick_ms
        apply: list[I64] = []
        arrival: list[I64] = []
        marks: list[I64] = []
        given_up: list[tuple[int, int]] = []
        while at < n:
            stop = self._undisturbed(at, source, time_ms, ticks, waiting)
            if stop > at:
                marks.append(self._pass(source[at:stop], time_ms[at:stop], ticks[at:stop]))
                apply.append(np.arange(at, stop, dtype=np.int64))
                arrival.append(apply[-1])
                self._grow_older(stop - at)
                at = stop
                continue
            self.tick_ms = int(ticks[at])
            if source[at] >= 0:
                self._confirm(int(time_ms[at]), skus[at], [int(time_ms[i]) for i in waiting])
            released = self._release(waiting, time_ms)
            for i in released:
                apply.append(np.array([i], np.int64))
                arrival.append(np.array([at], np.int64))
                marks.append(self._pass(source[i : i + 1], time_ms[i : i + 1], ticks[at : at + 1]))
            if released:
                continue
            self._grow_older(1)
            given_up.extend((i, at) for i in self._expire(waiting))
            if self._is_ahead(at, source, time_ms):
                waiting.append(at)
                self._parked.append((0, set()))
            else:
                apply.append(np.array([at], np.int64))
                arrival.append(apply[-1])
                marks.append(self._pass(source[at : at + 1], time_ms[at : at + 1], ticks[at : at + 1]))
            at += 1
        empty = np.zeros(0, np.int64)
        order, settled = np.concatenate([*apply, empty]), np.concatenate([*arrival, empty])
        return Plan(order, settled, np.concatenate([*marks, empty]), waiting, given_up)

    def tick(self, now_ms: int, source: I8, time_ms: I64) -> Plan:
        """Let the clock pass without a new record; parked records that it passes are believed on its way.

        Parameters
        ----------
        now_ms
            The shell's clock.
        source, time_ms
            Of the parked records, as in `plan`.

        Returns
        -------
        The plan for the parked records; the watermark itself may end up further, at what `ms` says.
        """
        waiting = list(range(len(self._parked)))
        order: list[int] = []
        marks: list[I64] = []
        ahead_ms = self._config.ahead_ms
        while near := [int(time_ms[i]) - ahead_ms for i in waiting if time_ms[i] <= now_ms + ahead_ms]:
            # The clock stops where each comes within reach: jumping to the end at once would make them late.
            self.tick_ms = max(self.tick_ms, min(near))
            for i in self._release(waiting, time_ms):
                order.append(i)
                marks.append(self._pass(source[i : i + 1], time_ms[i : i + 1], np.array([self.tick_ms], np.int64)))
        self._pass(np.array([-1], np.int8), np.zeros(1, np.int64), np.array([max(now_ms, self.tick_ms)], np.int64))
        empty = np.zeros(0, np.int64)
        return Plan(
            np.array(order, np.int64), np.zeros(len(order), np.int64), np.concatenate([*marks, empty]), waiting, []
        )

    # -- stretches without parked or far-ahead records, all at once

    def _undisturbed(self, at: int, source: I8, time_ms: I64, ticks: I64, waiting: list[int]) -> int:
        """Index before which no record parks, confirms, releases or gives up another one."""
        config = self._config
        stop = len(source)
        flow = source >= 0
        if waiting:
            oldest = max(later for later, _ in self._parked)
            stop = min(stop, at + max(0, config.ahead_events - oldest - 1))
        if stop == at:
            return at
        marks = self._marks(source[at:stop], time_ms[at:stop], ticks[at:stop])
        reach = np.maximum(np.concatenate([[self.ms], marks[:-1]]), ticks[at:stop]) + config.ahead_ms
        stirs = flow[at:stop] & (time_ms[at:stop] > reach)
        # The very first record of a shard has nothing to be ahead of: without a clock it sets the time.
        if self.ms == NEVER and int(ticks[at]) == NEVER and stirs.any():
            stirs[int(flow[at:stop].argmax())] = False
        if waiting:
            first = min(int(time_ms[i]) for i in waiting)
            stirs |= (first <= reach) | (flow[at:stop] & (time_ms[at:stop] >= first))
        return at + int(stirs.argmax()) if stirs.any() else stop

    def _marks(self, source: I8, time_ms: I64, ticks: I64) -> I64:
        """The watermark after each record, were all of them believed."""
        config = self._config
        lowest = np.full(len(source), np.iinfo(np.int64).max)
        newest = np.full(len(source), NEVER)
        for s in range(SOURCES):
            own = source == s
            top = np.maximum.accumulate(np.where(own, time_ms, NEVER))
            seen = np.maximum.accumulate(np.where(own, ticks, NEVER))
            top, seen = np.maximum(top, self._newest[s]), np.maximum(seen, self._seen_ms[s])
            active = (top > NEVER) & (seen + config.idle_ms >= ticks)
            np.minimum(lowest, top, out=lowest, where=active)
            np.maximum(newest, top, out=newest, where=active)
        none = newest == NEVER
        mark = np.maximum(lowest, newest - config.ahead_ms) - config.bound_ms
        mark = np.where(none, np.where(ticks > NEVER, ticks - config.bound_ms, NEVER), mark)
        return np.maximum.accumulate(np.maximum(mark, self.ms))

    def _pass(self, source: I8, time_ms: I64, ticks: I64) -> I64:
        """Believe these records: move sources, clock and watermark past them."""
        marks = self._marks(source, time_ms, ticks)
        for s in range(SOURCES):
            own = source == s
            if own.any():
                self._newest[s] = max(self._newest[s], int(time_ms[own].max()))
                self._seen_ms[s] = max(self._seen_ms[s], int(ticks[own].max()))
        self.ms = int(marks[-1])
        self.tick_ms = int(ticks[-1])
        return marks

    # -- parked records, one at a time

    def _is_ahead(self, at: int, source: I8, time_ms: I64) -> bool:
        return bool(source[at] >= 0) and int(time_ms[at]) > max(self.ms, self.tick_ms) + self._config.ahead_ms

    def _grow_older(self, events: int) -> None:
        self._parked = [(later + events, passed) for later, passed in self._parked]

    def _confirm(self, time_ms: int, sku: str, parked_ms: list[int]) -> None:
        for (_, passed), at in zip(self._parked, parked_ms, strict=True):
            if time_ms >= at:
                passed.add(sku)

    def _release(self, waiting: list[int], time_ms: I64) -> list[int]:
        """Take the parked records that are believed now off the list, in order of arrival."""
        reach = max(self.ms, self.tick_ms) + self._config.ahead_ms
        confirmed = [
            int(time_ms[i]) - self._config.bound_ms + self._config.ahead_ms
            for i, (_, passed) in zip(waiting, self._parked, strict=True)
            if len(passed) >= self._config.ahead_skus
        ]
        # What one release makes of the watermark, others are no longer too far ahead of.
        reach = max([reach, *confirmed])
        free = [int(time_ms[i]) <= reach for i in waiting]
        released = [i for i, go in zip(waiting, free, strict=True) if go]
        self._parked = [entry for entry, go in zip(self._parked, free, strict=True) if not go]
        waiting[:] = [i for i, go in zip(waiting, free, strict=True) if not go]
        return released

    def _expire(self, waiting: list[int]) -> list[int]:
        old = [later >= self._config.ahead_events for later, _ in self._parked]
        gone = [i for i, out in zip(waiting, old, strict=True) if out]
        self._parked = [entry for entry, out in zip(self._parked, old, strict=True) if not out]
        waiting[:] = [i for i, out in zip(waiting, old, strict=True) if not out]
        return gone

    def snapshot(self) -> dict[str, Any]:
        """The clock as plain values, parked records' counts included (not the records themselves)."""
        return {
            "ms": self.ms,
            "tick_ms": self.tick_ms,
            "newest": self._newest,
            "seen_ms": self._seen_ms,
            "parked": [[later, sorted(passed)] for later, passed in self._parked],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave."""
        self.ms, self.tick_ms = state["ms"], state["tick_ms"]
        self._newest, self._seen_ms = list(state["newest"]), list(state["seen_ms"])
        self._parked = [(later, set(passed)) for later, passed in state["parked"]]
