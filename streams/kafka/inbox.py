"""What was fetched of a shard's topics and not yet applied, and the order in which it will be.

In: `Chunk`s, and word of partitions that were read to their end. Out: `Slice`s in one order over all topics.
Must not know: events, engines, clients. Rule: records are applied in the order of their timestamps, then of their
topics, then of their offsets, however they were fetched, as long as topics that have more to give can be waited for.

The order matters when a worker comes back after an hour: orders read an hour ahead of prices would be judged by old
prices. Kafka Streams merges the partitions of a task by timestamp for the same reason.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.kafka.source import I64, Chunk

FIRST = -(1 << 62)
"""Time of records of topics that come before everything else."""

FOREVER = 1 << 62


@dataclass(slots=True)
class Slice:
    """Records of one topic to be applied.

    Attributes
    ----------
    topic, partition
        Where they came from.
    values, keys, offsets
        As in `Chunk`.
    clock_ms
        The newest timestamp of the topic up to each record, int64 (N,): a producer's clock may go back, ours does not.
    """

    topic: str
    partition: int
    values: list[bytes | None]
    keys: list[bytes | None]
    offsets: I64
    clock_ms: I64

    def __len__(self) -> int:
        return len(self.values)


class Inbox:
    """Records of one partition that wait.

    Parameters
    ----------
    topic, partition
        Which.
    position
        Offset of the next record to be taken in.
    first
        Whether its records come before those of all other topics (the calendar: it is read before anything is judged).
    """

    def __init__(self, topic: str, partition: int, position: int, *, first: bool = False) -> None:
        self.topic, self.partition, self.first = topic, partition, first
        self.next = self.applied = self.expected = position
        self.rows = self.size_bytes = 0
        self.applied_ms = FIRST
        self._waiting: deque[tuple[Slice, int]] = deque()
        self._clock_ms = FIRST
        self._end = -1

    def offer(self, chunk: Chunk, now_ms: int = FOREVER) -> bool:
        """Take a chunk in; False where one before it is missing. What was taken in before is left out.

        A timestamp ahead of the machine's clock counts as `now_ms`: a wrong clock must not put a topic last for hours.
        """
        if chunk.follows > self.next:
            return False
        start = int(np.searchsorted(chunk.offsets, self.next))
        if start == len(chunk):
            return True
        times = np.full(len(chunk) - start, FIRST) if self.first else chunk.times_ms[start:]
        clock = np.maximum.accumulate(np.maximum(np.minimum(times, now_ms), self._clock_ms))
        values, keys = (chunk.values, chunk.keys) if start == 0 else (chunk.values[start:], chunk.keys[start:])
        part = Slice(self.topic, self.partition, values, keys, chunk.offsets[start:], clock)
        self._waiting.append((part, chunk.size_bytes))
        self._clock_ms = int(clock[-1])
        self.next = chunk.next
        self.rows += len(values)
        self.size_bytes += chunk.size_bytes
        return True

    def end(self, offset: int) -> None:
        """Note that the partition was read to its end."""
        self._end = offset

    @property
    def at_end(self) -> bool:
        """Whether all there is was taken in; not while something fetched is still on its way here."""
        return self.expected <= self.next <= self._end

    @property
    def missing(self) -> bool:
        """Whether something that was fetched has not come: it is on its way, or lost."""
        return self.expected > self.next

    def note(self, part: Slice) -> None:
        """Note that records were applied."""
        self.applied, self.applied_ms = int(part.offsets[-1]) + 1, int(part.clock_ms[-1])

    @property
    def done(self) -> int:
        """Offset before which nothing is left to apply: behind the last record lie marks of transactions."""
        return max(self.applied, self._end) if self.at_end and not self.rows else self.applied

    @property
    def oldest_ms(self) -> int | None:
        """Clock of the oldest record that waits; may be asked by any thread."""
        try:
            return int(self._waiting[0][0].clock_ms[0])
        except IndexError:
            return None

    def point(self) -> int:
        """Begin to fetch anew: nothing is on its way, and where the end is shows again; the offset to fetch from."""
        self.expected, self._end = self.next, -1
        return self.next

    def skip_to(self, offset: int) -> None:
        """Go on behind records that are no longer there; those before them that wait are still to be applied."""
        self.next = self.expected = offset
        if not self.rows:
            self.applied = offset

    @property
    def newest_ms(self) -> int:
        """Clock of the newest record that waits."""
        return self._clock_ms

    def clock_of(self, row: int) -> int:
        """Clock of the nth record that waits, or of the newest where there are fewer."""
        for part, _ in self._waiting:
            if row < len(part):
                return int(part.clock_ms[row])
            row -= len(part)
        return self._clock_ms

    def take(self, until_ms: int, *, inclusive: bool) -> list[Slice]:
        """Take out records up to a time."""
        out = []
        side = "right" if inclusive else "left"
        while self._waiting:
            part, size_bytes = self._waiting[0]
            n = int(np.searchsorted(part.clock_ms, until_ms, side))  # type: ignore[call-overload]
            if n == 0:
                break
            self._waiting.popleft()
            if n < len(part):
                head, part = _cut(part, 0, n), _cut(part, n, len(part))
                share = size_bytes * n // (n + len(part))
                self._waiting.appendleft((part, size_bytes - share))
                part, size_bytes = head, share
            out.append(part)
            self.rows -= len(part)
            self.size_bytes -= size_bytes
        return out


def _cut(part: Slice, start: int, stop: int) -> Slice:
    return Slice(
        part.topic,
        part.partition,
        part.values[start:stop],
        part.keys[start:stop],
        part.offsets[start:stop],
        part.clock_ms[start:stop],
    )


class Patience:
    """How long records wait for those of another topic that cannot be fetched.

    Time in which nobody looked counts for little: a worker that was busy for seconds has not been given anything
    meanwhile, and must not go on without a topic for that. What is applied out of order may be late, and lost.

    Parameters
    ----------
    most_s
        How long.
    look_s
        What counts between two looks, at most.

    Examples
    --------
    >>> patience = Patience(most_s=0.05, look_s=0.02)
    >>> [patience.lasts(at_s) for at_s in (0.0, 60.0, 60.02, 60.03, 60.05)]
    [True, True, True, True, False]
    >>> patience.renew()
    >>> patience.lasts(60.07)
    True
    """

    def __init__(self, most_s: float, look_s: float) -> None:
        self._most_s, self._look_s = most_s, look_s
        self._waited_s, self._looked_s = 0.0, math.inf

    def lasts(self, now_s: float) -> bool:
        """Look; False once it has been long enough."""
        self._waited_s += min(max(0.0, now_s - self._looked_s), self._look_s)
        self._looked_s = now_s
        return self._waited_s < self._most_s

    def renew(self) -> None:
        """Begin anew: what was waited for has come, or nothing is waited for."""
        self._waited_s, self._looked_s = 0.0, math.inf


def hungry(inboxes: Sequence[Inbox]) -> list[Inbox]:
    """Inboxes that are empty although their partition has more: what others hold has to wait for them."""
    return [inbox for inbox in inboxes if not inbox.rows and not inbox.at_end]


def take_next(inboxes: Sequence[Inbox], rows: int, *, wait: bool = True) -> list[Slice]:
    """Records that can be applied now, about so many of each topic at most; none where some topic must be waited for.

    Parameters
    ----------
    inboxes
        Of one shard, in the order of topics.
    rows
        Records of each topic.
    wait
        False: go on without topics that gave nothing for too long.
    """
    if wait and hungry(inboxes):
        return []
    holding = [(inbox, at) for at, inbox in enumerate(inboxes) if inbox.rows]
    # Beyond the last record of a topic that has more to come, nothing is known; nor beyond what is wanted.
    bounds = [(inbox.newest_ms, at) for inbox, at in holding if not inbox.at_end]
    bounds += [(inbox.clock_of(rows - 1), at) for inbox, at in holding if inbox.rows > rows]
    until_ms, last = min(bounds, default=(1 << 62, len(inboxes)))
    out = []
    for inbox, at in holding:
        out += inbox.take(until_ms, inclusive=at <= last)
    return out
