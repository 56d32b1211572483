"""What lies in a partition between two offsets, read once, by somebody who belongs to no group.

In: a place, offsets. Out: messages of confluent-kafka, in order, read committed.
Must not know: what they mean. Rule: nothing is written, nobody is fenced, and no offset is committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from streams.kafka.settings import KafkaSettings
from streams.kafka.source import Place, SourceError

ROWS = 10_000


class Reread:
    """Reads partitions one after the other; for one thread.

    Parameters
    ----------
    kafka
        Where Kafka is.
    timeout_s
        How long Kafka may give nothing.
    """

    def __init__(self, kafka: KafkaSettings, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._consumer = Consumer(
            {
                **kafka.librdkafka(),
                "group.id": f"{kafka.application_id}-reread",  # required, never joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 10,
                "fetch.message.max.bytes": 4 << 20,
                "message.max.bytes": 64 << 20,
                "receive.message.max.bytes": (64 << 20) + 4096,
                "log_level": 0,
            }
        )

    def read(self, place: Place, start: int, stop: int) -> Iterator[Message]:
        """Messages from one offset up to another, which is not included; fewer where the partition ends before.

        Raises
        ------
        SourceError
            If Kafka refuses, or gives nothing for too long.
        """
        if start >= stop:
            return
        topic, partition = place
        self._consumer.assign([TopicPartition(topic, partition, start)])
        waiting_s = time.monotonic()
        while True:
            messages = self._consumer.consume(ROWS, 0.05)
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return
                    if not error.retriable() and error.code() not in _PASSING:
                        raise SourceError(f"topic {topic!r} cannot be read: {error.str()}")
                elif (message.offset() or 0) >= stop:
                    return
                else:
                    yield message
            if messages:
                waiting_s = time.monotonic()
            elif time.monotonic() - waiting_s > self._timeout_s:
                raise SourceError(f"topic {topic!r} gave nothing for {self._timeout_s:g} s; is Kafka still there?")

    def close(self) -> None:
        """Let go of all connections."""
        self._consumer.close()


def headers_of(message: Message) -> dict[str, bytes]:
    """Headers of a message; of two with one name the last."""
    found: Any = message.headers() or []
    return dict(found)


_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
