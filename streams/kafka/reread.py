"""What lies in a partition between two offsets, read once, by somebody who belongs to no group.

In: a place, offsets. Out: messages of confluent-kafka, in order, read committed.
Must not know: what they mean. Rule: nothing is written, nobody is fenced, and no offset is committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaError, Message, TopicPartition

from streams.kafka.settings import KafkaSettings
from streams.kafka.source import Place, SourceError

ROWS, WAIT_S = 10_000, 0.02


class Reread:
    """Reads partitions; for one thread, and one reading at a time.

    Parameters
    ----------
    kafka
        Where Kafka is.
    topics
        What will be read. A topic that is met later is found by a timer of librdkafka's, up to a second late.
    timeout_s
        How long Kafka may give nothing.
    """

    def __init__(self, kafka: KafkaSettings, topics: Iterable[str], timeout_s: float) -> None:
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
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_END) for topic in topics])

    def read(self, spans: Mapping[Place, tuple[int, int]]) -> Iterator[Message]:
        """Messages from one offset of each place up to another, which is not included, those of a place in order.

        A partition that ends before gives fewer.

        Raises
        ------
        SourceError
            If Kafka refuses, or gives nothing for too long.
        """
        left = {place: span for place, span in spans.items() if span[0] < span[1]}
        self._consumer.assign([TopicPartition(*place, start) for place, (start, _) in left.items()])
        heard_s = time.monotonic()
        while left:
            rows = sum(stop - start for start, stop in left.values())
            messages = self._consumer.consume(min(ROWS, rows), WAIT_S)  # fewer would be waited for
            for message in messages:
                place = (message.topic() or "", message.partition() or 0)
                if message.error() is not None:
                    if self._ends(message):
                        left.pop(place, None)
                elif place in left:
                    at, (_, stop) = message.offset() or 0, left[place]
                    if at < stop:
                        yield message
                    left[place] = (at + 1, stop)
                    if at + 1 >= stop:
                        del left[place]
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > self._timeout_s:
                names = ", ".join(sorted({topic for topic, _ in left}))
                raise SourceError(f"{names} gave nothing for {self._timeout_s:g} s; is Kafka still there?")

    def _ends(self, message: Message) -> bool:
        """Whether an error is none, but says that a partition ends."""
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return True
        if error.retriable() or error.code() in _PASSING:
            return False
        raise SourceError(f"topic {message.topic()!r} cannot be read: {error.str()}")

    def close(self) -> None:
        """Let go of all connections."""
        self._consumer.close()


def headers_of(message: Message) -> dict[str, bytes]:
    """Headers of a message; of two with one name the last."""
    found: Any = message.headers() or []
    return dict(found)


_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
