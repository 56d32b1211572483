"""Where partitions begin and end, asked of the broker without reading anything.

In: places. Out: offsets.
Must not know: what lies there. Rule: all partitions are asked for at once, and nobody waits longer than was said.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, cast

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import (
    ListOffsetsResultInfo,
    OffsetSpec,
)  # the package does not export their types

from streams.kafka.settings import KafkaSettings
from streams.kafka.source import Place, SourceError

ASK_AGAIN_S = 0.1


class Offsets:
    """Asks for offsets; for one thread.

    Parameters
    ----------
    kafka
        Where Kafka is.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._group = kafka.application_id
        self._quiet = {**kafka.librdkafka(), "log_level": 0, "reconnect.backoff.max.ms": 1000}
        self._admin = AdminClient(self._quiet)

    def ends(self, places: Iterable[Place], timeout_s: float) -> dict[Place, int]:
        """The offset behind the last record of each partition that a reader of committed records may see.

        Raises
        ------
        SourceError
            If the broker does not answer in time.
        """
        return self._ask(places, cast(Any, OffsetSpec).latest(), timeout_s)

    def beginnings(self, places: Iterable[Place], timeout_s: float) -> dict[Place, int]:
        """The offset from which on each partition still has records; as `ends`."""
        return self._ask(places, cast(Any, OffsetSpec).earliest(), timeout_s)

    def newest_ms(self, places: Iterable[Place], timeout_s: float) -> dict[Place, int]:
        """The greatest timestamp in each partition that has records, epoch ms; as `ends`."""
        told = self._told(places, cast(Any, OffsetSpec).max_timestamp(), timeout_s)
        return {place: one.timestamp for place, one in told.items() if one.offset >= 0}

    def committed(self, places: Iterable[Place], timeout_s: float) -> dict[Place, int]:
        """The offsets that the application's group has committed: they serve lag tools, state has its own; as `ends`.

        A consumer asks, which never joins: librdkafka's admin client dies of the answer that a broker gives while it
        loads its groups (2.16, a null pointer in `rd_kafka_cgrp_op`).
        """
        asked = [TopicPartition(topic, partition) for topic, partition in places]
        consumer = Consumer({**self._quiet, "group.id": self._group, "enable.auto.commit": False})
        until_s = time.monotonic() + timeout_s
        try:
            while True:
                try:
                    told = consumer.committed(asked, timeout=max(0.01, until_s - time.monotonic()))
                    return {(at.topic, at.partition): at.offset for at in told if at.offset >= 0}
                except KafkaException as error:
                    self._again(error, f"group {self._group!r}", until_s)
        finally:
            consumer.close()

    def _ask(self, places: Iterable[Place], what: OffsetSpec, timeout_s: float) -> dict[Place, int]:
        return {place: one.offset for place, one in self._told(places, what, timeout_s).items()}

    def _told(self, places: Iterable[Place], what: OffsetSpec, timeout_s: float) -> dict[Place, ListOffsetsResultInfo]:
        asked = {TopicPartition(topic, partition): what for topic, partition in places}
        until_s = time.monotonic() + timeout_s
        found: dict[Place, ListOffsetsResultInfo] = {}
        while asked:
            told = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=max(0.1, timeout_s)
            )
            for at, future in told.items():
                try:
                    found[at.topic, at.partition] = future.result(max(0.01, until_s - time.monotonic()))
                except TimeoutError as error:
                    raise SourceError(f"offsets of partitions cannot be read within {timeout_s:g} s") from error
                except KafkaException as error:
                    self._again(error, repr(at.topic), until_s)
            asked = {at: what for at in asked if (at.topic, at.partition) not in found}
        return found

    def _again(self, error: KafkaException, whose: str, until_s: float) -> None:
        """Wait a little before the question is asked again, or give up."""
        fault = error.args[0]
        if (not fault.retriable() and fault.code() not in _PASSING) or time.monotonic() > until_s:
            raise SourceError(f"the offsets of {whose} cannot be read: {fault.str()}") from error
        time.sleep(ASK_AGAIN_S)


_PASSING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # made a moment ago
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TRANSPORT,
)
