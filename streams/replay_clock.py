"""The clock of a replay: event times in order of arrival in, ticks out.

In: event times of all events of a file. Out: per event the shell's clock when it arrived, in whole seconds.
Must not know: shards, watermarks. Rule: the ticks depend on the order of events, never on chunking.

A time more than six hours ahead is believed when three events in a row confirm it: a wrong clock is followed by events
back at the right time, a night or a weekend is not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

AHEAD_MS = 6 * 3_600_000
"""What the engine parks as well (contracts.md, section 1)."""
CONFIRMING = 3
"""Events in a row that make a jump believed, as the engine asks for three SKUs."""
_UNSET = -(1 << 62)

MOST_TICKS = 96
"""Ticks made up for an interval without events: a day of refreshes, at every quarter of an hour."""


def ticks_between(before_ms: int, now_ms: int, every_ms: int) -> list[int]:
    """Ticks that a live shell would have made from one event to the next, at whole multiples of an interval.

    Before the first event (`before_ms` 0) there is the newest one alone.

    Examples
    --------
    >>> ticks_between(1_000, 4_500, 1_000), ticks_between(0, 4_500, 1_000), ticks_between(4_100, 4_500, 1_000)
    ([2000, 3000, 4000], [4000], [])
    """
    before, now = before_ms // every_ms, now_ms // every_ms
    first = max(before + 1, now - MOST_TICKS + 1) if before_ms else now
    return [at * every_ms for at in range(first, now + 1)]


class ReplayClock:
    """Follows event time, and is not led astray by single events far ahead.

    Examples
    --------
    >>> hour = 3_600_000
    >>> clock = ReplayClock()
    >>> [int(t) // hour for t in clock.ticks(np.array([1, 2, 40, 3, 30, 30, 31]) * hour)]
    [1, 2, 2, 3, 3, 3, 31]
    """

    def __init__(self) -> None:
        self._now_ms = _UNSET
        self._ahead: list[int] = []

    def ticks(self, time_ms: I64) -> I64:
        """The clock at each event, whole seconds in epoch ms, int64 (N,)."""
        out = np.empty(len(time_ms), np.int64)
        at = 0
        while at < len(time_ms):
            if not self._ahead:
                at += self._follow(time_ms[at:], out[at:])
                if at == len(time_ms):
                    break
            self._weigh(int(time_ms[at]))
            out[at] = self._now_ms
            at += 1
        return out // 1000 * 1000

    def finish(self) -> int:
        """The clock at the end: what nobody contradicted is believed. Epoch ms, negative where there was no event."""
        if self._ahead:
            self._now_ms = max(self._ahead)
            self._ahead = []
        return self._now_ms

    def _follow(self, time_ms: I64, out: I64) -> int:
        """Follow times that are not far ahead; how many those are comes back."""
        first = max(self._now_ms, int(time_ms[0])) if self._now_ms == _UNSET else self._now_ms
        top = np.maximum.accumulate(np.maximum(time_ms, first))
        before = np.concatenate([[first], top[:-1]])
        far = time_ms > before + AHEAD_MS
        stop = int(far.argmax()) if far.any() else len(time_ms)
        out[:stop] = top[:stop]
        if stop:
            self._now_ms = int(top[stop - 1])
        return stop

    def _weigh(self, time_ms: int) -> None:
        """Take one event while, or because, some time far ahead is in doubt."""
        if time_ms <= self._now_ms + AHEAD_MS:
            self._now_ms = max(self._now_ms, time_ms)
            self._ahead = []
            return
        self._ahead.append(time_ms)
        if len(self._ahead) >= CONFIRMING:
            # The least of them is confirmed by all; the others by not being far ahead of it.
            self._now_ms = min(self._ahead)
            believed = [t for t in self._ahead if t <= self._now_ms + AHEAD_MS]
            self._ahead = [t for t in self._ahead if t > self._now_ms + AHEAD_MS]
            self._now_ms = max(believed)
