"""The book of one shard: state, offsets and decisions in one transaction, and the state read back.

In: state records, offsets, outputs. Out: transactions; the newest value of every state record.
Must not know: what a record means. Rule: whoever opens a book shuts every earlier holder out of it before reading.

A commit in five numbered steps, numbered alike in the code: 1. begin; 2. the state's records; 3. the offsets they
contain, as a record beside them (the group's committed offsets serve lag tools only: read straight after a transaction
they were seen to lag); 4. outputs; 5. commit, which waits for every delivery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streams.kafka.settings import KafkaSettings
from streams.outputs import Output
from streams.state import Record, pack, unpack

STATE_TOPIC = "engine.state.v1"
OFFSETS_KEY = "shell/offsets"
"""The record of offsets; keys under ``shell/`` are this shell's, all others the engine's."""


def of_engine(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """State records of an engine, without those of the shell around it."""
    return {key: value for key, value in records.items() if not key.startswith("shell/")}


MAX_RECORD_BYTES = 16 << 20
"""Of a state record, as the topic is set up."""

TRANSACTION_TIMEOUT_MS = 60_000
FULL_WAIT_S = 0.05


class LedgerError(Exception):
    """A transaction or the state failed; the shard cannot go on in this process. One sentence."""


class FencedError(LedgerError):
    """Another worker has taken this shard over."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An output and the partition that it goes to; -1 lets the client choose by key.

    `since_ms` is the shard's clock when what led to it arrived, 0 where nobody asks how long that took.
    """

    output: Output
    partition: int = -1
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """How far the state has come.

    Attributes
    ----------
    offsets
        Per topic the offset of the next record.
    clock_ms
        The shard's clock.
    shards
        Number of shards of the application.
    """

    offsets: dict[str, int]
    clock_ms: int
    shards: int


class Ledger:
    """The transactional producer of a shard, and its partition of the state topic.

    Parameters
    ----------
    kafka
        Where Kafka is, and who we are.
    name
        Of the shard, part of the transactional id.
    partition
        Of the state topic.
    """

    def __init__(self, kafka: KafkaSettings, name: str, partition: int) -> None:
        self.name = name
        self._kafka = kafka
        self._state_topic, self._partition = kafka.topic(STATE_TOPIC), partition
        self._producer: Producer | None = None

    def open(self, timeout_s: float) -> None:
        """Become the only writer: whoever held the book before can commit no more.

        Raises
        ------
        LedgerError
            If Kafka does not answer in time.
        """
        self._producer = Producer(
            {
                **self._kafka.librdkafka(),
                "client.id": f"{self._kafka.application_id}-{self.name}",
                "transactional.id": f"{self._kafka.application_id}-{self.name}",
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "compression.type": "zstd",
                "compression.level": 1,
                "linger.ms": 1,
                "batch.size": 1 << 20,
                "message.max.bytes": MAX_RECORD_BYTES,
                "queue.buffering.max.kbytes": 256 << 10,
                "queue.buffering.max.messages": 1_000_000,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )
        self._patiently(lambda left_s: self._book.init_transactions(left_s), timeout_s, "opened")

    @property
    def _book(self) -> Producer:
        if self._producer is None:
            raise LedgerError(f"{self.name} is not open")
        return self._producer

    def commit(self, records: Iterable[Record], position: Position, outputs: Sequence[Placed], timeout_s: float) -> int:
        """Write one transaction; the bytes of state in it come back.

        Raises
        ------
        FencedError
            If another worker has taken over.
        LedgerError
            If it cannot be written; nothing of it is visible then.
        """
        try:
            self._book.begin_transaction()  # 1
            written = sum(self._put_state(key, value) for key, value in records)  # 2
            offsets = {"offsets": position.offsets, "clock_ms": position.clock_ms, "shards": position.shards}
            self._put_state(OFFSETS_KEY, pack(offsets))  # 3
            for placed in outputs:  # 4
                self._put_output(placed)
        except KafkaException as error:
            raise self._explain(error.args[0], "written") from error
        self._patiently(lambda left_s: self._book.commit_transaction(left_s), timeout_s, "committed")  # 5
        return written

    def _put_state(self, key: str, value: bytes | None) -> int:
        self._put(self._state_topic, key.encode(), value, self._partition, None)
        return len(key) + len(value or b"")

    def _put_output(self, placed: Placed) -> None:
        output = placed.output
        self._put(self._kafka.topic(output.topic), output.key, output.value, placed.partition, output.headers)

    def _put(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int,
        headers: Any,
    ) -> None:
        deadline_s = time.monotonic() + TRANSACTION_TIMEOUT_MS / 1000
        while True:
            try:
                self._book.produce(topic, value, key, partition, headers=headers)
                return
            except BufferError as error:
                if time.monotonic() > deadline_s:
                    raise LedgerError(f"{self.name}: Kafka takes no more records; is it reachable?") from error
                self._book.poll(FULL_WAIT_S)

    def _patiently(self, step: Callable[[float], Any], timeout_s: float, what: str) -> None:
        """Repeat a step while Kafka says that it may be repeated."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = max(0.1, deadline_s - time.monotonic())
            try:
                step(left_s)
                return
            except KafkaException as error:
                fault = error.args[0]
                if not fault.retriable() or time.monotonic() > deadline_s:
                    raise self._explain(fault, what) from error
                time.sleep(FULL_WAIT_S)

    def _explain(self, fault: KafkaError, what: str) -> LedgerError:
        if fault.code() in _FENCED:
            return FencedError(f"{self.name} was taken over by another worker")
        return LedgerError(f"{self.name}: its state could not be {what}: {fault.str()}")

    def read(self, timeout_s: float) -> tuple[dict[str, bytes], Position | None]:
        """The newest value of every record of the engine, and the position they stand for (None: nothing there yet).

        Raises
        ------
        LedgerError
            If the state topic cannot be read to its end in time.
        """
        records = self._read_all(timeout_s)
        found = records.pop(OFFSETS_KEY, None)
        if found is None:
            if records:
                raise LedgerError(f"{self.name}: its state has records but no offsets; use another application id")
            return {}, None
        state = unpack(OFFSETS_KEY, found)
        return records, Position(dict(state["offsets"]), state["clock_ms"], state["shards"])

    def _read_all(self, timeout_s: float) -> dict[str, bytes]:
        consumer = Consumer(
            {
                **self._kafka.librdkafka(),
                "group.id": f"{self._kafka.application_id}-state",  # required, never joined
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.message.max.bytes": 16 << 20,
                "queued.max.messages.kbytes": 128 << 10,
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 10,  # the end of a partition is told after a fetch of nothing: 500 by default
                "message.max.bytes": 64 << 20,
                "receive.message.max.bytes": (64 << 20) + 4096,
                "log_level": 0,
            }
        )
        newest: dict[bytes, bytes | None] = {}
        deadline_s = time.monotonic() + timeout_s
        try:
            consumer.assign([TopicPartition(self._state_topic, self._partition, 0)])
            while True:
                for message in consumer.consume(10_000, 0.05):  # it waits for the whole time unless it gets them all
                    error = message.error()
                    if error is None:
                        newest[message.key() or b""] = message.value()
                    elif error.code() == KafkaError._PARTITION_EOF:
                        return {key.decode(): value for key, value in newest.items() if value is not None}
                    elif not error.retriable() and error.code() not in _PASSING:
                        raise LedgerError(f"{self.name}: its state cannot be read: {error.str()}")
                if time.monotonic() > deadline_s:
                    raise LedgerError(f"{self.name}: its state was not read to the end in {timeout_s:.0f} s")
        finally:
            consumer.close()

    def close(self) -> None:
        """Let go of the producer; an open transaction is aborted by whoever opens the book next."""
        self._producer = None


def positions_of(records: Mapping[str, bytes]) -> Position | None:
    """The position among state records, for tools that read the state topic themselves."""
    found = records.get(OFFSETS_KEY)
    if found is None:
        return None
    state = unpack(OFFSETS_KEY, found)
    return Position(dict(state["offsets"]), state["clock_ms"], state["shards"])


_FENCED = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)
_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
