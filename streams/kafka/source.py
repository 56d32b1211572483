"""Records from librdkafka: whole fetches, grouped into chunks of one partition each.

In: partitions and the offsets to start at. Out: `Chunk`s of raw bytes; which partitions were read to their end.
Must not know: groups, assignments, events. Rule: pointed anew, it gives nothing of what it fetched before; a chunk says
at which offset it began, so that a lost one shows.

librdkafka and not aiokafka: 0.8-1.4 µs a record against 2.5 (design §5). Its default of waiting a second once its own
queue is full idles two thirds of the time: `fetch.queue.backoff.ms` is 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka.settings import KafkaSettings

Place = tuple[str, int]
"""A topic and a partition of it."""

I64 = npt.NDArray[np.int64]

QUEUE_KIB = 16_384
"""What librdkafka may hold fetched: a second of records at 16 MB/s, and a small part of a worker's memory."""


MOST_PARTITIONS = 1 << 20


class SourceError(Exception):
    """Records cannot be fetched, and trying again would not help; one sentence."""

    wrong_input = False


@dataclass(slots=True)
class Chunk:
    """Records of one partition as they were fetched.

    Attributes
    ----------
    place
        Topic and partition.
    follows
        Offset after the last record of the chunk before, or at which the source was pointed.
    values, keys
        Raw bytes, None where there are none.
    offsets
        Offsets, ascending, with gaps where records were compacted or belong to transactions, int64 (N,).
    times_ms
        Kafka's timestamps, epoch ms, int64 (N,).
    size_bytes
        Bytes of keys and values.
    """

    place: Place
    follows: int
    values: list[bytes | None]
    keys: list[bytes | None]
    offsets: I64
    times_ms: I64
    size_bytes: int

    @property
    def next(self) -> int:
        """Offset after the last record."""
        return int(self.offsets[-1]) + 1

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Fetch:
    """What one fetch gave.

    Attributes
    ----------
    chunks
        One of each partition that had records, oldest first.
    ends
        Partitions that were read to their end, with the offset there.
    lost
        Partitions whose records were deleted before they were read: the offset asked for and the first there is.
    """

    chunks: list[Chunk]
    ends: dict[Place, int]
    lost: dict[Place, tuple[int, int]]


class Source:
    """A librdkafka consumer that is told what to read; it joins no group and commits nothing.

    Not for several threads at once.

    Parameters
    ----------
    kafka
        Where Kafka is.
    name
        Of the client, in the broker's logs.
    """

    def __init__(self, kafka: KafkaSettings, name: str) -> None:
        self._consumer = Consumer(
            {
                **kafka.librdkafka(),
                "client.id": f"{kafka.application_id}-{name}",
                "group.id": f"{kafka.application_id}-{name}",  # required, never joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": QUEUE_KIB,
                "fetch.message.max.bytes": 4 << 20,
                "message.max.bytes": 64 << 20,
                "receive.message.max.bytes": (64 << 20) + 4096,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )
        self._next: dict[Place, int] = {}
        self._topics: dict[str, int] = {}

    def point(self, positions: Mapping[Place, int]) -> None:
        """Read these partitions from these offsets on, and no others."""
        self._next = dict(positions)
        for topic, _ in positions:  # those of earlier assignments stay: some of their records may still come
            self._topics.setdefault(topic, len(self._topics))
        self._consumer.assign([TopicPartition(topic, part, at) for (topic, part), at in sorted(positions.items())])

    def hold(self, places: list[Place]) -> None:
        """Fetch nothing of these partitions for a while."""
        self._consumer.pause([TopicPartition(topic, part) for topic, part in places])

    def release(self, places: list[Place]) -> None:
        """Fetch these partitions again."""
        self._consumer.resume([TopicPartition(topic, part) for topic, part in places])

    def fetch(self, rows: int, timeout_s: float) -> Fetch:
        """Wait for records, at most so many and so long.

        Raises
        ------
        SourceError
            If Kafka refuses for good: not authorized, topic gone.
        """
        messages = self._consumer.consume(rows, timeout_s)
        ends: dict[Place, int] = {}
        lost: dict[Place, tuple[int, int]] = {}
        if any(map(Message.error, messages)):
            for message in messages:
                if (error := message.error()) is not None:
                    self._note(message, error, ends, lost)
            messages = [message for message in messages if message.error() is None]
        chunks = self._chunks(messages)
        ends |= {chunk.place: chunk.next for chunk in chunks if self._known_end(chunk.place) == chunk.next}
        return Fetch(chunks, ends, lost)

    def _known_end(self, place: Place) -> int:
        """Where a partition ended when the broker was asked last, as the client remembers it.

        The client itself tells of an end only after it asked for more in vain, which under load it hardly ever does.
        """
        return int(self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1])

    def _note(
        self, message: Any, error: KafkaError, ends: dict[Place, int], lost: dict[Place, tuple[int, int]]
    ) -> None:
        code, place = error.code(), (message.topic(), message.partition())
        if code == KafkaError._PARTITION_EOF:
            ends[place] = message.offset()
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            lost[place] = (self._next[place], self._first_offset(place))
        elif code in _FOR_GOOD or error.fatal():
            where = f" of {place[0]!r}" if place[0] else ""
            raise SourceError(f"records{where} cannot be fetched: {error.str()}; check topics and rights")

    def _first_offset(self, place: Place) -> int:
        try:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=5.0)
        except KafkaException as error:
            raise SourceError(f"the first offset of {place[0]!r} cannot be read: {error.args[0].str()}") from error
        return int(low)

    def _chunks(self, messages: list[Any]) -> list[Chunk]:
        """Group a fetch by partition; it comes in runs of one partition, so the work is by the run."""
        n = len(messages)
        kind: Any = Message  # whose topic is never None here: errors were taken out
        codes = np.fromiter(map(self._topics.__getitem__, map(kind.topic, messages)), np.int64, n) * MOST_PARTITIONS
        codes += np.fromiter(map(kind.partition, messages), np.int64, n)
        groups: dict[int, list[Any]] = {}
        for start, stop in pairwise([0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), n] if n else []):
            groups.setdefault(int(codes[start]), []).extend(messages[start:stop])
        names = list(self._topics)
        places = {code: (names[code // MOST_PARTITIONS], code % MOST_PARTITIONS) for code in groups}
        return [self._chunk(places[code], group) for code, group in groups.items() if places[code] in self._next]

    def _chunk(self, place: Place, messages: list[Any]) -> Chunk:
        n = len(messages)
        values, keys = list(map(Message.value, messages)), list(map(Message.key, messages))
        offsets = np.fromiter(map(Message.offset, messages), np.int64, n)
        times = np.fromiter(map(itemgetter(1), map(Message.timestamp, messages)), np.int64, n)
        size = sum(map(len, filter(None, values))) + sum(map(len, filter(None, keys)))
        chunk = Chunk(place, self._next[place], values, keys, offsets, times, size)
        self._next[place] = chunk.next
        return chunk

    def ends(self, places: list[Place], timeout_s: float) -> dict[Place, int]:
        """The offset after the newest record of each partition, asked of the broker.

        Raises
        ------
        SourceError
            If the broker does not answer in time.
        """
        try:
            return {p: self._consumer.get_watermark_offsets(TopicPartition(*p), timeout=timeout_s)[1] for p in places}
        except KafkaException as error:
            raise SourceError(f"the ends of partitions cannot be read: {error.args[0].str()}") from error

    def close(self) -> None:
        """Let go of all connections."""
        self._consumer.close()


_FOR_GOOD = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
)
