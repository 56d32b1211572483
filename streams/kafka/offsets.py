"""Where partitions begin and end, asked of the broker without reading anything.

In: places. Out: offsets.
Must not know: what lies there. Rule: all partitions are asked for at once, and nobody waits longer than was said.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, cast

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # what the package exports is untyped

from streams.kafka.settings import KafkaSettings
from streams.kafka.source import Place, SourceError


class Offsets:
    """Asks for offsets; for one thread.

    Parameters
    ----------
    kafka
        Where Kafka is.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._admin = AdminClient({**kafka.librdkafka(), "log_level": 0, "reconnect.backoff.max.ms": 1000})

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

    def _ask(self, places: Iterable[Place], what: OffsetSpec, timeout_s: float) -> dict[Place, int]:
        asked = {TopicPartition(topic, partition): what for topic, partition in places}
        if not asked:
            return {}
        until_s = time.monotonic() + timeout_s
        try:
            told = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_s
            )
            return {
                (at.topic, at.partition): future.result(max(0.01, until_s - time.monotonic())).offset
                for at, future in told.items()
            }
        except KafkaException as error:
            raise SourceError(f"offsets of partitions cannot be read: {error.args[0].str()}") from error
        except TimeoutError as error:
            raise SourceError(f"offsets of partitions cannot be read within {timeout_s:g} s") from error
