"""Everything that lies on a topic, for tests that look at it afterwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, TopicPartition

from streams.kafka.settings import KafkaSettings


@dataclass(frozen=True)
class Found:
    """One record as it lies on its topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: dict[str, bytes]


def read_all(kafka: KafkaSettings, topic: str, *, committed: bool = True) -> list[Found]:
    """Records of a topic, named without the prefix, from its beginning to its end, partition by partition."""
    return read_topics(kafka, [topic], committed=committed)[topic]


def read_topics(
    kafka: KafkaSettings, topics: Sequence[str], *, committed: bool = True, timeout_s: float = 20
) -> dict[str, list[Found]]:
    """As `read_all`, several at once."""
    consumer = Consumer({
        **kafka.librdkafka(), "group.id": "test-reading", "enable.auto.commit": False, "fetch.wait.max.ms": 20,
        "isolation.level": "read_committed" if committed else "read_uncommitted", "enable.partition.eof": True,
    })  # fmt: skip
    seen = consumer.list_topics(timeout=10).topics
    open_ones = {(name, partition) for name in map(kafka.topic, topics) for partition in seen[name].partitions}
    consumer.assign([TopicPartition(name, partition, 0) for name, partition in open_ones])
    found: dict[str, list[Found]] = {kafka.topic(topic): [] for topic in topics}
    until = time.monotonic() + timeout_s
    while open_ones:
        assert time.monotonic() < until, f"{open_ones} were not read to their ends"
        for message in consumer.consume(10_000, 0.1):
            name, partition = message.topic() or "", message.partition() or 0
            if message.error():
                open_ones.discard((name, partition))  # its end
            else:
                headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
                stamp_ms = message.timestamp()[1]
                offset, key, value = message.offset() or 0, message.key(), message.value()
                found[name].append(Found(partition, offset, key, value, stamp_ms, headers))
    consumer.close()
    return {
        topic: sorted(found[kafka.topic(topic)], key=lambda record: (record.partition, record.offset))
        for topic in topics
    }
