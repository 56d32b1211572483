"""A reader of committed outputs that notes when each came.

In: output topics. Out: records with the moment at which this process had them.
Must not know: what they mean. Rule: it asks the broker again every 10 ms where there is nothing new; a reader with
librdkafka's default of 500 ms is told as soon, for the broker answers when there is something.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from streams.kafka.ledger import OFFSETS_KEY, STATE_TOPIC, positions_of
from streams.kafka.settings import KafkaSettings

PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Got:
    """One record, and when it was had by the monotonic clock."""

    at_s: float
    topic: str
    partition: int
    key: bytes
    value: bytes


class Reader:
    """Reads topics from now on, or from their beginnings.

    Parameters
    ----------
    topics
        Without the prefix.
    """

    def __init__(self, kafka: KafkaSettings, topics: list[str], *, from_now: bool = True) -> None:
        self._prefix = kafka.topic_prefix
        self._consumer = Consumer({
            **kafka.librdkafka(), "group.id": "nobody", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": 10,
            "fetch.message.max.bytes": 8 << 20, "log_level": 0,
        })  # fmt: skip
        there = self._consumer.list_topics(timeout=10).topics
        places = [
            TopicPartition(kafka.topic(topic), part)
            for topic in topics
            for part in there[kafka.topic(topic)].partitions
        ]
        for place in places:  # asked now: what comes while the client gets going is not to be missed
            place.offset = OFFSET_BEGINNING
            if from_now:
                place.offset = end_of(self._consumer, place)
        self._consumer.assign(places)

    def poll(self, timeout_s: float = 0.002) -> list[Got]:
        """What has come."""
        messages = self._consumer.consume(500, timeout_s)
        now_s = time.monotonic()
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
        return [
            Got(
                now_s,
                (m.topic() or "").removeprefix(self._prefix),
                m.partition() or 0,
                m.key() or b"",
                m.value() or b"",
            )
            for m in messages
        ]

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


def end_of(consumer: Consumer, place: TopicPartition) -> int:
    """Where a partition ends now; of a topic that was made just now, the leader may not know yet that it is one."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=PATIENCE_S)[1])
        except KafkaException:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)


class Positions:
    """Offsets that committed state contains, from now on: cheap to follow, since nothing else of the state is kept.

    Parameters
    ----------
    topics
        Of which offsets are summed, without the prefix; each has a partition per shard.
    """

    def __init__(self, kafka: KafkaSettings, topics: tuple[str, ...]) -> None:
        self._topics = [kafka.topic(topic) for topic in topics]
        self._reader = Reader(kafka, [STATE_TOPIC])
        self._by_shard: dict[int, int] = {}

    def poll(self) -> int:
        """Records of these topics that committed state contains, as far as commits were seen."""
        for one in self._reader.poll(0.0):
            if one.key.decode() == OFFSETS_KEY and (position := positions_of({OFFSETS_KEY: one.value})) is not None:
                self._by_shard[one.partition] = sum(position.offsets.get(topic, 0) for topic in self._topics)
        return sum(self._by_shard.values())

    def close(self) -> None:
        """Let go of the broker."""
        self._reader.close()
