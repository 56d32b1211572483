"""What the state of a shard must hold at some offsets, from the raw records alone.

In: the input topics, read from their beginnings; offsets. Out: `Expected`; what an engine restored from state holds, in
the same form; sentences on how the two differ.
Must not know: how the engine counts. Rule: it parses, drops repeats and groups by itself; of the engine it knows where
sums lie when they are read.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from streams.engine import Engine
from streams.kafka.settings import KafkaSettings
from streams.panes import UNIT

I64 = npt.NDArray[np.int64]
TOPICS = ("shop.catalog.v1", "shop.prices.v1", "shop.stock.v1", "shop.orders.v1", "shop.clicks.v1")
CHANNELS = ("units", "cancelled", "orders", "views", "carts")
"""Sums of a bucket that are compared; the first two in thousandths of a unit."""

_CHANNEL = {"order_placed": 0, "order_cancelled": 1, "item_viewed": 3, "cart_added": 4}
_NONE, _BUCKETS = -1, 1 << 24
NAMED = 5
"""Cells that are named one by one where many differ."""

Place = tuple[str, int]
Cell = tuple[str, str, int]


class _Event(msgspec.Struct, gc=False):
    type: str
    event_id: str
    event_time: int
    sku: str
    location: str = "default"
    quantity: float = 0
    original_time: int = -1


_EVENT = msgspec.json.Decoder(_Event)


@dataclass
class Expected:
    """What is to be found of one shard.

    Attributes
    ----------
    cells
        SKU, location and bucket -> sums by `CHANNELS`; cells of zeros are left out.
    counts
        Records: accepted, duplicate, late, and lost (no event, or not of this shard).
    """

    cells: dict[Cell, tuple[int, ...]]
    counts: dict[str, int]


@dataclass
class _Part:
    """Records of one partition as columns."""

    offset: array[int] = field(default_factory=lambda: array("q"))
    what: array[int] = field(default_factory=lambda: array("q"))  # 0 counts, 1 came before, 2 late, 3 lost
    channel: array[int] = field(default_factory=lambda: array("q"))
    cell: array[int] = field(default_factory=lambda: array("q"))  # number of the series, and its bucket
    milli: array[int] = field(default_factory=lambda: array("q"))


_WHAT = ("accepted", "duplicate", "late", "lost")


class RawRecords:
    """Records of the input topics, and what they come to.

    Parameters
    ----------
    partitions
        Of the item topics.
    bucket_ms
        Width of a bucket; the shop's days end at midnight UTC.
    """

    def __init__(self, partitions: int, bucket_ms: int) -> None:
        self.records = 0
        self._bucket_ms = bucket_ms
        self._parts: dict[Place, _Part] = {(t, p): _Part() for t in TOPICS for p in range(partitions)}
        self._series: dict[tuple[str, str], int] = {}
        self._seen = bytearray()

    def take(self, place: Place, offset: int, value: bytes) -> None:
        """Take in one record of a topic, named without the prefix, and partition."""
        self.records += 1
        part = self._parts[place]
        try:
            event = _EVENT.decode(value)
        except msgspec.MsgspecError:
            self._note(part, offset, 3)
            return
        name, _, number = event.event_id.partition("-")
        if name != "n":
            self._note(part, offset, 2 if name == "late" else 3)
            return
        at = int(number)
        if at >= len(self._seen):
            self._seen.extend(bytes(at + 100_000 - len(self._seen)))
        what, self._seen[at] = self._seen[at], 1
        series = self._series.setdefault((event.sku, event.location), len(self._series))
        channel = _CHANNEL.get(event.type, _NONE)
        own, named = event.event_time // self._bucket_ms, event.original_time // self._bucket_ms
        bucket = named if event.type == "order_cancelled" and 0 <= named <= own else own
        self._note(part, offset, what, channel, series * _BUCKETS + bucket, round(event.quantity * UNIT))

    def _note(self, part: _Part, offset: int, what: int, channel: int = _NONE, cell: int = 0, milli: int = 0) -> None:
        assert not part.offset or offset > part.offset[-1], "a record was read twice"
        part.offset.append(offset)
        part.what.append(what)
        part.channel.append(channel)
        part.cell.append(cell)
        part.milli.append(milli)

    def reaches(self, shard: int, offsets: Mapping[str, int]) -> bool:
        """Whether everything before these offsets was taken in."""
        return all(self._next(topic, shard) >= offset for topic, offset in offsets.items())

    def within(self, shard: int, offsets: Mapping[str, int]) -> bool:
        """Whether everything that was taken in lies before these offsets."""
        return all(self._next(topic, shard) <= offset for topic, offset in offsets.items())

    def _next(self, topic: str, shard: int) -> int:
        seen = self._parts[topic, shard].offset
        return seen[-1] + 1 if seen else 0

    def expected(self, shard: int, offsets: Mapping[str, int]) -> Expected:
        """What a shard's state at these offsets (by topic without prefix) must hold."""
        cells: Counter[tuple[int, int]] = Counter()
        counts: Counter[str] = Counter()
        for topic in TOPICS:
            part = self._parts[topic, shard]
            stop = int(np.searchsorted(_column(part.offset), offsets.get(topic, 0)))
            what = _column(part.what)[:stop]
            counts.update(dict(zip(_WHAT, np.bincount(what, minlength=4).tolist(), strict=True)))
            self._sum(part, np.flatnonzero(what == 0), cells)
        names = {number: key for key, number in self._series.items()}
        sums: dict[Cell, list[int]] = {}
        for (cell, channel), amount in cells.items():
            if amount:
                series, bucket = divmod(cell, _BUCKETS)
                sums.setdefault((*names[series], bucket), [0] * len(CHANNELS))[channel] += amount
        return Expected({cell: tuple(values) for cell, values in sums.items()}, dict(counts))

    def _sum(self, part: _Part, rows: I64, cells: Counter[tuple[int, int]]) -> None:
        channel, milli = _column(part.channel)[rows], _column(part.milli)[rows]
        cell = _column(part.cell)[rows]
        for number in range(len(CHANNELS)):
            own = channel == (0 if number == 2 else number)  # each order placed is one more order too
            amounts = milli[own] if number < 2 else np.ones(int(own.sum()), np.int64)
            found, where = np.unique(cell[own], return_inverse=True)
            sums = np.zeros(len(found), np.int64)
            np.add.at(sums, where, amounts)
            cells.update({(int(at), number): int(total) for at, total in zip(found, sums, strict=True)})

    def lost(self) -> dict[tuple[str, int, int], str]:
        """Topic, partition and offset of every record that must be a dead letter, and whether it is late or lost."""
        return {
            (topic, partition, part.offset[row]): _WHAT[part.what[row]]
            for (topic, partition), part in self._parts.items()
            for row in np.flatnonzero(_column(part.what) >= 2).tolist()
        }


class RawTopics(RawRecords):
    """Follows the input topics.

    Parameters
    ----------
    kafka
        Where, and which.
    bucket_ms
        As of `RawRecords`.
    """

    def __init__(self, kafka: KafkaSettings, bucket_ms: int) -> None:
        super().__init__(kafka.partitions, bucket_ms)
        self._prefix = kafka.topic_prefix
        self._consumer = Consumer({
            **kafka.librdkafka(), "group.id": "nobody", "enable.auto.commit": False, "fetch.wait.max.ms": 20,
            "log_level": 0, "reconnect.backoff.max.ms": 500,
        })  # fmt: skip
        self._places = [TopicPartition(kafka.topic(topic), part, OFFSET_BEGINNING) for topic, part in self._parts]
        self._consumer.assign(self._places)

    def poll(self, timeout_s: float = 0.0) -> int:
        """Take in what has come; how many records comes back."""
        messages = [one for one in self._consumer.consume(5_000, timeout_s) if one.error() is None]
        for message in messages:
            place = ((message.topic() or "").removeprefix(self._prefix), message.partition() or 0)
            self.take(place, message.offset() or 0, message.value() or b"")
        return len(messages)

    def written(self) -> int:
        """How many records lie on the topics now."""
        return sum(self._consumer.get_watermark_offsets(place, timeout=20)[1] for place in self._places)

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


def _column(values: array[int]) -> I64:
    return np.array(values, np.int64)


def held(engine: Engine) -> Expected:
    """What a restored engine holds, in the same form; parked events are not accepted yet."""
    counts = engine.intake.counts
    told = {name: int(counts[name]) for name in ("accepted", "duplicate", "late")}
    return Expected(dict(_cells(engine)), told)


def _cells(engine: Engine) -> Iterator[tuple[Cell, tuple[int, ...]]]:
    live, panes = engine.series.live(), engine.panes
    state, ring, width = engine.buckets.zones[0], panes.config.buckets, panes.config.open_buckets
    for bucket in range(max(0, state.open - ring), state.final + width):
        columns = []
        for name in CHANNELS:
            if bucket < state.open:
                values = panes.ring[name][live, bucket % ring]
                scale = UNIT if name in CHANNELS[:2] else 1
                columns.append(np.rint(values.astype(np.float64) * scale).astype(np.int64))
            else:
                columns.append(panes.open[name][live, bucket % width].astype(np.int64))
        sums = np.stack(columns, axis=1)
        for row in np.flatnonzero(sums.any(axis=1)).tolist():
            yield (*engine.series.key(int(live[row])), bucket), tuple(sums[row].tolist())


def differences(found: Expected, wanted: Expected) -> list[str]:
    """How what was found differs from what must be, a sentence each."""
    out = [
        f"{found.counts.get(name, 0)} events counted as {name}, {wanted.counts.get(name, 0)} came"
        for name in ("accepted", "duplicate", "late")
        if found.counts.get(name, 0) != wanted.counts.get(name, 0)
    ]
    wrong = [cell for cell in {*found.cells, *wanted.cells} if found.cells.get(cell) != wanted.cells.get(cell)]
    if wrong:
        named: list[Any] = [(cell, found.cells.get(cell), wanted.cells.get(cell)) for cell in sorted(wrong)[:NAMED]]
        out.append(f"{len(wrong)} of {len(wanted.cells)} panes differ: {named}")
    return out
