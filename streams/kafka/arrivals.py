"""Slices of several topics to one batch of events, in the order in which a shard applies them.

In: `Slice`s of the topics of one shard. Out: an `EventBatch`, the clock at each event, dead letters with their origin.
Must not know: engines, clients. Rule: records of one timestamp come in the order of topics; what is no event, or is
of another shard, is a dead letter that names topic, partition and offset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.decode import decode, topic_of
from streams.events import EventBatch, concat
from streams.kafka.inbox import Slice
from streams.kafka.listener import NOBODY, Listener
from streams.outputs import Origin, Output, dead_letter
from streams.packed import Packed, Texts
from streams.partition import Partitioner

ITEM_TOPICS = (
    "shop.catalog.v1",
    "shop.prices.v1",
    "shop.stock.v1",
    "shop.orders.v1",
    "shop.clicks.v1",
    "shop.reviews.v1",
)
"""Topics of which a shard has one partition. Of records with one timestamp, facts come before flows."""

SHARED_TOPICS = ("shop.calendar.v1", "engine.command.v1", "replenishment.ack.v1")
"""Topics that every shard reads whole."""


MOST_KNOWN = 1_000_000
"""SKUs remembered as this shard's: beyond it they are looked up anew."""

LARGEST_VALUE_BYTES, LARGEST_KEY_BYTES = 12 << 20, 1 << 20
"""Of a dead letter; beyond it has the beginning, and its origin says where the rest is. Its topic takes 16 MiB."""


class Origins:
    """Where the rows of a batch came from, looked up for the few that ask."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._parts: list[tuple[Slice, int]] = []
        self._rows: npt.NDArray[np.int32] | None = None
        self._count = 0

    def add(self, part: Slice, start: int, stop: int) -> int:
        """Number the records of a part of a slice; the first number comes back."""
        first = self._count
        self._starts.append(first)
        self._parts.append((part, start))
        self._count += stop - start
        return first

    def reorder(self, rows: npt.NDArray[np.int32]) -> None:
        """Let row i be what was numbered ``rows[i]``."""
        self._rows = rows

    def of(self, row: int) -> Origin:
        """Topic, partition and offset of a row."""
        at = row if self._rows is None else int(self._rows[row])
        index = bisect_right(self._starts, at) - 1
        part, start = self._parts[index]
        return origin_of(part, start + at - self._starts[index])


@dataclass(slots=True)
class Arrived:
    """Events of some slices.

    Attributes
    ----------
    batch
        In the order of application; ``row`` numbers them for `origins`.
    clock_ms
        Kafka's clock at each, int64 (N,).
    origins
        Where each came from.
    letters
        Dead letters.
    """

    batch: EventBatch
    clock_ms: npt.NDArray[np.int64]
    origins: Origins
    letters: list[Output]


class Arrivals:
    """Decodes and merges what arrives at one shard.

    Parameters
    ----------
    partitioner
        How producers spread SKUs.
    number
        Of the shard.
    """

    def __init__(self, partitioner: Partitioner, number: int) -> None:
        self._partitioner, self._number = partitioner, number
        self._known: set[str] = set()  # SKUs that were seen to belong here
        self.listener: Listener = NOBODY

    def decoded(self, slices: Sequence[Slice], now_ms: int) -> Arrived:
        """Events of all slices; `now_ms` is the machine's clock, which events may be ahead of by an hour."""
        origins, letters = Origins(), list[Output]()
        batches, clocks = [], []
        for part in slices:
            for start, stop in _between_deletions(part):
                deleted = part.values[start] is None  # its time is that of the record
                clock_ms = min(now_ms, max(int(part.clock_ms[start]), 0)) if deleted else now_ms
                whole = stop - start == len(part)
                values, keys = (part.values, part.keys) if whole else (part.values[start:stop], part.keys[start:stop])
                batch, refused = decode(values, clock_ms=clock_ms, keys=keys, topic=part.topic)
                if self._number and topic_of(part.topic) in SHARED_TOPICS:
                    refused = []  # of topics that all shards read, the first one says what is wrong
                for letter in refused:
                    value, key = _head(letter.value, LARGEST_VALUE_BYTES), _head(letter.key, LARGEST_KEY_BYTES)
                    origin = origin_of(part, start + letter.row)
                    letters.append(dead_letter(value, key, letter.stage, letter.reason, letter.field, origin))
                batch = self._routed(batch, part, start, letters)
                clocks.append(part.clock_ms[start + batch.row])
                self.listener.arrived(part.topic, clocks[-1] - batch.time_ms)
                batch.row += np.int32(origins.add(part, start, stop))
                batches.append(batch)
        if len(batches) == 1:
            return Arrived(batches[0], clocks[0], origins, letters)
        return _merged(batches, clocks, origins, letters)

    def _routed(self, batch: EventBatch, part: Slice, start: int, letters: list[Output]) -> EventBatch:
        """Leave out events of SKUs that belong to another shard; they are dead letters."""
        if not len(batch) or topic_of(part.topic) not in ITEM_TOPICS:
            return batch
        packed = isinstance(batch.sku, Texts)  # which a kernel looks up
        if not packed and self._known.issuperset(batch.sku):  # a quarter of the time that looking up each takes
            return batch
        shards = self._partitioner.of(batch.sku)
        right = shards == self._number
        if right.all():
            if not packed:
                if len(self._known) > MOST_KNOWN:
                    self._known.clear()
                self._known.update(batch.sku)
            return batch
        for i in np.flatnonzero(~right).tolist():
            home = f"{shards[i]} by {self._partitioner.name}"
            reason = f"the key belongs to partition {home}, the record is in {self._number}"
            origin = origin_of(part, start + int(batch.row[i]))
            letters.append(dead_letter(batch.values[i], batch.keys[i], "route", reason, "", origin))
        return batch.take(np.flatnonzero(right))


def _merged(
    batches: list[EventBatch], clocks: list[npt.NDArray[np.int64]], origins: Origins, letters: list[Output]
) -> Arrived:
    whole = concat(batches)
    clock = np.concatenate([*clocks, np.zeros(0, np.int64)])
    order = np.argsort(clock, kind="stable")
    whole, clock = whole.take(order), clock[order]
    origins.reorder(whole.row)
    whole.row = np.arange(len(whole), dtype=np.int32)
    return Arrived(whole, clock, origins, letters)


def _head(text: bytes | None, size_bytes: int) -> bytes | None:
    return text if text is None or len(text) <= size_bytes else text[:size_bytes]


def origin_of(part: Slice, at: int) -> Origin:
    """Where one record of a slice came from."""
    return Origin(part.topic, part.partition, int(part.offsets[at]))


def _between_deletions(part: Slice) -> Iterator[tuple[int, int]]:
    """Runs of records; a null value is a run of its own, for its time is that of the record."""
    start = 0
    if part.values.absent.any() if isinstance(part.values, Packed) else None in part.values:
        for at, value in enumerate(part.values):
            if value is None:
                if at > start:
                    yield start, at
                yield at, at + 1
                start = at + 1
    if start < len(part):
        yield start, len(part)
