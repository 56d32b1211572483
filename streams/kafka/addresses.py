"""Where a record of a file of events belongs: topic, key, partition and timestamp, as the contract has them.

In: chunks of records in order of arrival, the number of partitions of each topic.
Out: addressed records; sentences about those that name no type.
Must not know: Kafka clients, rates. Rules: a record that is no valid event but names a known type goes to the topic of
that type, for judging it is the worker's work; timestamps are the ticks that `streams.replay` gives the same records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from streams.decode import TOPICS, decode
from streams.events import Ack, DayDescribed, Event, EventBatch, Kind
from streams.fields import EARLIEST_MS
from streams.outputs import key_of
from streams.partition import Partitioner, PartitionerName
from streams.replay_clock import ReplayClock

I64 = npt.NDArray[np.int64]
Timestamps = Literal["event", "now"]
Addressed = tuple[str, bytes, bytes | None, int, int]
"""Topic without the shop's prefix, value, key, partition, timestamp in epoch ms."""

POISON_TOPIC = "shop.orders.v1"
"""Where records go that name no type, if they are sent at all."""

COMPACTED = {"shop.catalog.v1", "shop.calendar.v1", "engine.command.v1"}
"""Topics that take no record without a key (contracts.md, section 1)."""

_NAMES = list(TOPICS)
_NOWHERE = -1
_OF_KIND = np.zeros(max(Kind) + 1, np.int64)
for _at, _kinds in enumerate(TOPICS.values()):
    _OF_KIND[list(_kinds)] = _at
_OF_TYPE = {kind.name.lower(): int(_OF_KIND[kind]) for kind in Kind}


class TopicMissingError(Exception):
    """A record belongs to a topic that does not exist.

    Attributes
    ----------
    topic
        Its name without the shop's prefix.
    """

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} does not exist")
        self.topic = topic


class _Loose(msgspec.Struct, gc=False):
    """What is asked of a record that is no valid event."""

    type: Any = None
    sku: Any = None
    date: Any = None
    location: Any = None
    event_id: Any = None
    idempotency_key: Any = None


_LOOSE = msgspec.json.Decoder(_Loose)


class Addresses:
    """Addresses the records of one stream, chunk by chunk.

    Parameters
    ----------
    partitions
        Number of partitions of each topic that exists, named without the shop's prefix.
    partitioner
        How keys spread over them.
    timestamps
        What stamps the records: ``event``, the event-time clock at their arrival; ``now``, what `intended_ms` says.
    poison
        Address records that name no type to the topic of orders, without a key; else they are left out.
    intended_ms
        When the addressed records of these numbers, counted from 0, are to be sent, epoch ms; now, where it is missing.

    Examples
    --------
    >>> addresses = Addresses({"shop.reviews.v1": 12})
    >>> for topic, _, key, partition, timestamp_ms in addresses.of([
    ...     b'{"type":"review_posted","event_id":"r1","event_time":1700000000123,"sku":"21","rating":5,"text":""}',
    ...     b'{"type":"review_posted","sku":"21"}',
    ...     b'{"type":',
    ... ]):
    ...     print(topic, key, partition, timestamp_ms)
    shop.reviews.v1 b'21' 0 1700000000000
    shop.reviews.v1 b'21' 0 1700000000000
    >>> addresses.left_out, addresses.named
    (1, ['record 3 is no event and was left out: Input data was truncated'])
    """

    NAMED = 10
    """Records that are named one by one before only their number is told."""

    def __init__(
        self,
        partitions: Mapping[str, int],
        *,
        partitioner: PartitionerName = "murmur2",
        timestamps: Timestamps = "event",
        poison: bool = False,
        intended_ms: Callable[[I64], I64] | None = None,
    ) -> None:
        self.records = 0
        self.addressed = 0
        self.poisoned = 0
        self.left_out = 0
        self.named: list[str] = []
        self._counts = partitions
        self._rule = partitioner
        self._partitioners: dict[int, Partitioner] = {}
        self._timestamps = timestamps
        self._poison = poison
        self._intended_ms = intended_ms or _now
        self._clock, self._tick_ms = ReplayClock(), EARLIEST_MS
        self._turns = _Turns()

    def of(self, values: Sequence[bytes]) -> list[Addressed]:
        """Address one chunk; order is kept, records that are left out are missing.

        Raises
        ------
        TopicMissingError
            If the topic of one of them does not exist.
        """
        batch, letters = decode(values, clock_ms=time.time_ns() // 1_000_000)
        count = len(values)
        topics = np.full(count, _NOWHERE)
        topics[batch.row] = _OF_KIND[batch.kind]
        keys = np.full(count, None, object)
        keys[batch.row] = batch.sku
        for at, event in batch.facts:
            if event.event_kind >= Kind.DAY_DESCRIBED:
                keys[batch.row[at]] = _key_beside_items(event)
        for letter in letters:
            topics[letter.row], keys[letter.row] = self._loosely(values[letter.row], letter.row, letter.reason)
        kept = topics != _NOWHERE
        stamps = self._stamps(batch, kept)
        if self._timestamps == "event":
            stamps[kept] = self._turns.apart(topics[kept], stamps[kept])
        columns = (topics.tolist(), values, keys.tolist(), self._partitions(topics, keys), stamps.tolist())
        self.records += count
        self.addressed += int(kept.sum())
        return [
            (_NAMES[topic], value, None if key is None else key.encode(), partition, stamp_ms)
            for topic, value, key, partition, stamp_ms in zip(*columns, strict=True)
            if topic != _NOWHERE
        ]

    def _loosely(self, value: bytes, row: int, reason: str) -> tuple[int, str | None]:
        """Topic and key of a record that is no valid event."""
        try:
            loose = _LOOSE.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            loose = _Loose()
        topic = _OF_TYPE.get(loose.type) if isinstance(loose.type, str) else None
        if topic is not None:
            key = _loose_key(_NAMES[topic], loose)
            if key is None and _NAMES[topic] in COMPACTED:
                key = f"keyless-{xxhash.xxh3_64_hexdigest(value)}"  # the broker would refuse the whole batch
            return topic, key
        if self._poison:
            self.poisoned += 1
            return _NAMES.index(POISON_TOPIC), None
        self.left_out += 1
        if self.left_out <= self.NAMED:
            self.named.append(f"record {self.records + row + 1} is no event and was left out: {reason}")
        return _NOWHERE, None

    def _partitions(self, topics: I64, keys: npt.NDArray[np.object_]) -> list[int]:
        """Partition of each record: by its key, or by its place in the stream where it has none."""
        found = [index for index in np.unique(topics).tolist() if index != _NOWHERE]
        counts = np.ones(len(_NAMES) + 1, np.int64)  # the last entry is nowhere's
        counts[found] = [self._count(_NAMES[index]) for index in found]
        of = counts[topics]
        out = np.zeros(len(topics), np.int64)
        texts = [key or "" for key in keys.tolist()]
        for count in sorted({*counts[found].tolist()} - {1}):
            if count not in self._partitioners:
                self._partitioners[count] = Partitioner(self._rule, count)
            out = np.where(of == count, self._partitioners[count].of(texts), out)
        keyless = np.array([at for at, key in enumerate(keys.tolist()) if key is None], np.int64)
        out[keyless] = (self.records + keyless) % of[keyless]
        return out.tolist()

    def _count(self, topic: str) -> int:
        if topic not in self._counts:
            raise TopicMissingError(topic)
        return self._counts[topic]

    def _stamps(self, batch: EventBatch, kept: npt.NDArray[np.bool_]) -> I64:
        """Timestamps of all records of a chunk; a bad record has that of the event before it."""
        count = len(kept)
        if self._timestamps == "now":
            return self._intended_ms(self.addressed + np.cumsum(kept) - 1)
        if not len(batch):
            return np.full(count, self._tick_ms, np.int64)
        ticks = self._clock.ticks(batch.time_ms)
        before = np.searchsorted(batch.row, np.arange(count), side="right") - 1
        stamps = np.where(before < 0, self._tick_ms, ticks[before])
        self._tick_ms = int(ticks[-1])
        return stamps


class _Turns:
    """Keeps the order of records of different topics: a worker merges topics by timestamp, and the clock has seconds.

    Within a second each change of topic takes a millisecond more; beyond 999 changes order is the worker's again.
    """

    def __init__(self) -> None:
        self._topic, self._stamp_ms, self._turns = -1, -1, 0

    def apart(self, topics: I64, stamps: I64) -> I64:
        """Timestamps that tell topics apart, int64 (N,)."""
        if not len(topics):
            return stamps
        same = np.diff(stamps, prepend=self._stamp_ms) == 0
        turns = np.cumsum((np.diff(topics, prepend=self._topic) != 0) & same) + self._turns
        fresh = np.maximum.accumulate(np.where(same, 0, turns))  # turns so far when the second began
        if not same[0]:
            turns -= self._turns
            fresh -= self._turns
        turns = turns - np.where(fresh > 0, fresh, 0)
        self._topic, self._stamp_ms, self._turns = int(topics[-1]), int(stamps[-1]), int(turns[-1])
        apart: I64 = stamps + np.minimum(turns, 999)
        return apart


def _now(numbers: I64) -> I64:
    return np.full(len(numbers), time.time_ns() // 1_000_000)


def _key_beside_items(event: Event) -> str:
    """Key of an event that belongs to no item."""
    match event:
        case DayDescribed():
            return key_of(event.date.isoformat(), event.location or "")
        case Ack():
            return event.idempotency_key
        case _:
            return event.event_id


def _loose_key(topic: str, loose: _Loose) -> str | None:
    """Key of a record that is no valid event, or None where the field is missing or no text."""
    match topic:
        case "shop.calendar.v1":
            parts = (loose.date, loose.location or "")
            key = key_of(*parts) if all(isinstance(part, str) for part in parts) else None
        case "replenishment.ack.v1":
            key = loose.idempotency_key
        case "engine.command.v1":
            key = loose.event_id
        case _:
            key = loose.sku
    return key if isinstance(key, str) and key else None
