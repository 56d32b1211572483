"""Files of events to Kafka, open loop: each record at its time, whatever the broker does.

In: files of events, or chunks of records. Out: records on the input topics, and `Produced`: what became of them.
Must not know: what an event means; `streams.kafka.addresses` says where each belongs. Rule: the schedule is fixed by
the rate alone. A slow broker makes the sender late, which is measured and told; the sender waits for nothing but room
in the client's bounded queue, and catches up as fast as it can.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer

from streams.decode import TOPICS
from streams.files import CHUNK_ROWS
from streams.kafka.addresses import I64, Addressed, Addresses, Timestamps, TopicMissingError
from streams.kafka.connection import reach
from streams.kafka.settings import KafkaSettings
from streams.partition import PartitionerName
from streams.replay import merged

Compression = Literal["none", "gzip", "lz4", "snappy", "zstd"]

QUEUE_MESSAGES, QUEUE_KIB = 200_000, 128 << 10
"""What the client holds at most; beyond it the sender waits for room."""

BATCH_BYTES = 200_000
"""Below the 1 MiB that a broker takes by default; 16 kB, 200 kB and 1 MB measured alike (2 cores, 2026)."""

PACE_S = 0.001
"""Shortest sleep between records: shorter ones cost more than they space out."""

FAREWELL_S = 10.0
"""How long an interrupted sender waits for answers; a second interrupt ends that too."""


class ProduceError(Exception):
    """Kafka lacks a topic, or went away; one sentence with what to do."""

    wrong_input = False


class ProduceInterruptedError(KeyboardInterrupt):
    """The user interrupted a sender, which has ended in order.

    Attributes
    ----------
    produced
        What became of the records until then.
    """

    def __init__(self, produced: Produced) -> None:
        super().__init__()
        self.produced = produced


@dataclass(frozen=True, slots=True)
class Produced:
    """What became of the records.

    Attributes
    ----------
    records
        Read.
    sent
        Given to the client.
    acknowledged
        Of these, written by the broker.
    failed
        Of these, given up by the client or refused by the broker. What is neither is in doubt: an interrupted sender
        did not wait for the answer.
    left_out
        Records that name no type and were not sent.
    poison
        Records that name no type and were sent all the same.
    by_topic
        Sent, by topic without the shop's prefix.
    named
        The first records that were left out or failed, a sentence each.
    seconds
        From the first record to the last answer.
    behind_s
        How far the sender fell behind its schedule at most; 0 without a rate.
    blocked_s
        Time spent waiting for room in the client's queue.
    """

    records: int
    sent: int
    acknowledged: int
    failed: int
    left_out: int
    poison: int
    by_topic: dict[str, int]
    named: list[str]
    seconds: float
    behind_s: float
    blocked_s: float


class Sender:
    """Sends chunks of records to the topics they belong to.

    Parameters
    ----------
    kafka
        Where to.
    rate
        Records per second, or None: as fast as it goes.
    timestamps
        What stamps the records: ``event``, the event-time clock at their arrival; ``now``, this machine's clock: with a
        rate the instant at which the record was to be sent, not the one at which it was.
    poison
        Send records that name no type, without a key, to the topic of orders; else they are left out.
    partitioner
        How keys spread over partitions.
    compression
        Codec of the batches. zstd costs less in all than none, and every client of this project reads it.
    connect_timeout_s
        How long Kafka may take to answer at first.
    delivery_timeout_s
        How long a record may take to be acknowledged.

    Raises
    ------
    UnreachableError
        If Kafka does not answer in time, or does not let us in.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        rate: float | None = None,
        timestamps: Timestamps = "event",
        poison: bool = False,
        partitioner: PartitionerName = "murmur2",
        compression: Compression = "zstd",
        connect_timeout_s: float = 30.0,
        delivery_timeout_s: float = 120.0,
    ) -> None:
        self._kafka = kafka
        self._rate = rate
        self._failed = 0
        self._named: list[str] = []
        self._producer = Producer({
            **kafka.librdkafka(),
            "enable.idempotence": True,
            "compression.codec": compression,
            "linger.ms": 5,
            "batch.size": BATCH_BYTES,
            "message.max.bytes": 1_100_000,  # a cut line has 1 MiB: the broker shall say what it takes
            "queue.buffering.max.messages": QUEUE_MESSAGES,
            "queue.buffering.max.kbytes": QUEUE_KIB,
            "reconnect.backoff.max.ms": 1_000,
            "delivery.timeout.ms": math.ceil(delivery_timeout_s * 1000),
            "delivery.report.only.error": True,
            "on_delivery": self._refused,
            "error_cb": _pass_over,  # what it means for a record is told when the record fails
            "log_level": 2,
        })  # fmt: skip
        self._addresses = Addresses(
            self._partition_counts(connect_timeout_s),
            partitioner=partitioner,
            timestamps=timestamps,
            poison=poison,
            intended_ms=self._intended_ms,
        )
        self._sent = 0
        self._by_topic: Counter[str] = Counter()
        self._behind_s = self._blocked_s = 0.0
        self._start_s, self._start_ms = time.perf_counter(), time.time_ns() / 1e6

    def send(self, values: Sequence[bytes]) -> None:
        """Send records in order, each at its time; returns when the client holds them all.

        Raises
        ------
        ProduceError
            If the topic of one of them does not exist; none of these records is sent then.
        """
        if not self._addresses.records:
            self._start_s, self._start_ms = time.perf_counter(), time.time_ns() / 1e6
        try:
            records = self._addresses.of(values)
        except TopicMissingError as error:
            topic, where = self._kafka.topic(error.topic), self._kafka.bootstrap_servers
            raise ProduceError(
                f"topic {topic!r} does not exist on {where}; create it with `shelftide topics apply`"
            ) from error
        if self._rate is None:
            self._hand_over(records)
        else:
            self._paced(records, self._rate)

    def finish(self, *, within_s: float | None = None) -> Produced:
        """Wait for the broker's answers, ``within_s`` at most, and say what became of the records."""
        until = None if within_s is None else time.monotonic() + within_s
        while len(self._producer) and (until is None or time.monotonic() < until):
            self._producer.flush(0.1)  # short: an interrupt is seen in between
        in_doubt = len(self._producer)
        return Produced(
            records=self._addresses.records,
            sent=self._sent,
            acknowledged=self._sent - self._failed - in_doubt,
            failed=self._failed,
            left_out=self._addresses.left_out,
            poison=self._addresses.poisoned,
            by_topic=dict(sorted(self._by_topic.items())),
            named=[*self._addresses.named, *self._named],
            seconds=time.perf_counter() - self._start_s,
            behind_s=self._behind_s,
            blocked_s=self._blocked_s,
        )

    def _intended_ms(self, numbers: I64) -> I64:
        """When records are to be sent, by this machine's clock; without a rate, now."""
        if self._rate is None:
            return np.full(len(numbers), time.time_ns() // 1_000_000)
        return (self._start_ms + numbers * (1000 / self._rate)).astype(np.int64)

    def _partition_counts(self, timeout_s: float) -> dict[str, int]:
        """Number of partitions of each input topic that exists."""
        reach(self._kafka, timeout_s)
        try:
            seen = self._producer.list_topics(timeout=timeout_s)
        except KafkaException as error:  # it went away in between
            where = self._kafka.bootstrap_servers
            raise ProduceError(f"Kafka at {where} answers no more ({error.args[0].str()}); try again") from error
        there = {name: len(topic.partitions) for name, topic in seen.topics.items() if topic.partitions}
        return {topic: there[name] for topic in TOPICS if (name := self._kafka.topic(topic)) in there}

    def _paced(self, records: list[Addressed], rate: float) -> None:
        """Hand over what is due, then sleep until the next record is."""
        first, at = self._sent, 0
        while at < len(records):
            elapsed_s = time.perf_counter() - self._start_s
            due = min(int(elapsed_s * rate) + 1 - first, len(records))
            if due > at:
                self._hand_over(records[at:due])
                at = due
                late_s = time.perf_counter() - self._start_s - (first + at - 1) / rate
                self._behind_s = max(self._behind_s, late_s)
            else:
                self._producer.poll(0)
                time.sleep(max(PACE_S, (first + at) / rate - elapsed_s))

    def _hand_over(self, records: Sequence[Addressed]) -> None:
        """Give records to the client; where its queue is full, wait for room."""
        produce, full_name = self._producer.produce, {name: self._kafka.topic(name) for name in TOPICS}
        done = 0
        try:
            while done < len(records):
                try:
                    for topic, value, key, partition, stamp_ms in records[done:] if done else records:
                        done += 1  # first, for an interrupt most likely comes as the call returns
                        produce(full_name[topic], value, key, partition, None, None, stamp_ms)
                except BufferError:
                    done -= 1
                    since_s = time.perf_counter()
                    self._producer.poll(0.05)
                    self._blocked_s += time.perf_counter() - since_s
                except KafkaException as error:
                    self._refused(error.args[0], None)
        finally:
            self._sent += done
            self._by_topic.update(map(itemgetter(0), records[:done]))
        self._producer.poll(0)

    def _refused(self, error: KafkaError | None, _: object) -> None:
        """Count a record that was given up; the client calls this for failures alone."""
        if error is None:
            return
        self._failed += 1
        if self._failed <= Addresses.NAMED:
            self._named.append(f"a record was not acknowledged: {error.str()}")


def _pass_over(_: KafkaError) -> None:
    pass


def produce(
    sources: Sequence[Path | str],
    kafka: KafkaSettings,
    *,
    rate: float | None = None,
    sort: bool = False,
    progress: Callable[[int], None] | None = None,
    **how: Any,
) -> Produced:
    """Send files of events to Kafka.

    Parameters
    ----------
    sources
        Files, or ``-`` for standard input; several are merged by their next event time.
    kafka
        Where to.
    rate
        Records per second, or None: as fast as it goes.
    sort
        Sort by event time first, in memory.
    progress
        Called with the number of records of each chunk.
    how
        As for `Sender`.

    Raises
    ------
    UnreachableError
        If Kafka does not answer in time, or does not let us in.
    ProduceError
        If a topic is missing.
    ProduceInterruptedError
        If the user interrupts; it says what was acknowledged.
    streams.files.FileError
        If a file cannot be read.
    """
    sender = Sender(kafka, rate=rate, **how)
    # With a rate, chunks that are addressed within a few milliseconds: doing it must not hold up the schedule.
    rows = CHUNK_ROWS if rate is None else max(64, min(CHUNK_ROWS, int(rate / 50)))
    return _send_all(sender, merged(sources, sort=sort, rows=rows), progress)


def _send_all(sender: Sender, chunks: Iterable[list[bytes]], progress: Callable[[int], None] | None) -> Produced:
    try:
        for chunk in chunks:
            sender.send(chunk)
            if progress is not None:
                progress(len(chunk))
        return sender.finish()
    except KeyboardInterrupt:
        try:
            produced = sender.finish(within_s=FAREWELL_S)
        except KeyboardInterrupt:
            produced = sender.finish(within_s=0)
        raise ProduceInterruptedError(produced) from None
