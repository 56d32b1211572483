"""Why a worker does not start: one sentence, an exit code, no traceback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from models.baseline import SeasonalWindow
from models.executor import Executor
from streams.engine import EngineConfig
from streams.kafka.broker import LocalBroker, free_port
from streams.kafka.champion import Models
from streams.kafka.connection import admin
from streams.kafka.ending import WorkerError
from streams.kafka.ledger import OFFSETS_KEY, STATE_TOPIC, LedgerError
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.shards import Shards, steady_ms
from streams.kafka.topics import apply
from streams.kafka.worker import check_topics
from streams.outputs import DEADLETTER_TOPIC
from streams.state import SnapshotError, pack
from tests.kafka.workers import Workers
from tests.program import wait_for

SHARDS = 1


def write_state(kafka: KafkaSettings, records: dict[str, bytes]) -> None:
    """Put records on the state topic of shard 0 as if a worker had."""
    producer = Producer({**kafka.librdkafka(), "transactional.id": f"{kafka.application_id}-shard-0"})
    producer.init_transactions(20)
    producer.begin_transaction()
    for key, value in records.items():
        producer.produce(kafka.topic(STATE_TOPIC), value, key, 0)
    producer.commit_transaction(20)


def offsets(shards: int = SHARDS) -> dict[str, bytes]:
    """The record of a position at the beginning."""
    return {OFFSETS_KEY: pack({"offsets": {}, "clock_ms": 0, "shards": shards})}


STATES = {
    "a newer program's state": offsets() | {"clock/engine": msgspec.msgpack.encode([99, {}])},
    "a newer program's position": {OFFSETS_KEY: msgspec.msgpack.encode([99, {}])},
    "an unknown record": offsets() | {"hologram/3": pack({})},
    "a damaged record": offsets() | {"clock/engine": b"\xc1\xff"},
    "a record without its fields": offsets() | {"clock/engine": pack({})},
    "state of four shards": offsets(4),
    "no position": {"clock/engine": pack({})},
}
"""State that a worker cannot go on from."""


@pytest.fixture
def kafka(broker: LocalBroker, prefix: str) -> KafkaSettings:
    """An application of one shard; it has no topics yet."""
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap, application_id=prefix.rstrip("."), topic_prefix=prefix, partitions=SHARDS
    )


def recover(kafka: KafkaSettings) -> None:
    """What a worker does once it is assigned its only shard."""

    async def assign() -> None:
        baseline = SeasonalWindow()
        executor = Executor(baseline, fallback=baseline, timeout_s=10, rows=100)
        models = Models(baseline, lambda name: baseline)
        shards = Shards(EngineConfig(max_series=10), kafka, WorkerSettings(), "murmur2", executor, models, steady_ms)
        try:
            await shards.assign({(kafka.topic("shop.orders.v1"), 0)})
        finally:
            await shards.close()
            executor.close()

    asyncio.run(assign())


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (offsets() | {"clock/engine": msgspec.msgpack.encode([99, {}])}, ["clock/engine", "version 99", "the program"]),
        ({OFFSETS_KEY: msgspec.msgpack.encode([99, {}])}, ["version 99", "use the program that wrote it"]),
        (offsets() | {"hologram/3": pack({})}, ["hologram/3", "newer"]),
        (offsets() | {"clock/engine": b"\xc1\xff"}, ["clock/engine", "damaged"]),
        (offsets() | {"clock/engine": pack({})}, ["clock/engine", "damaged"]),
        (offsets(4), ["state of shard-0 is that of 4 shards", "1 partitions", "set partitions back"]),
        ({"clock/engine": pack({})}, ["no offsets", "another application id"]),
    ],
    ids=["a newer program's record", "a newer program's position", "an unknown record", "no record of ours",
         "a record without its fields", "state of four shards", "no position"],
)  # fmt: skip
def test_state_that_cannot_be_gone_on_from_is_refused_in_a_sentence(
    kafka: KafkaSettings, records: dict[str, bytes], words: list[str]
) -> None:
    apply(kafka)
    write_state(kafka, records)
    with pytest.raises((LedgerError, SnapshotError)) as refused:
        recover(kafka)
    assert [word for word in words if word not in str(refused.value)] == [], refused.value


def test_a_missing_topic_is_named_with_the_command_that_makes_it(kafka: KafkaSettings) -> None:
    with pytest.raises(
        WorkerError, match=r"topic .*shop\.catalog\.v1' is missing; run `shelftide topics apply`"
    ) as told:
        check_topics(kafka, AdminClient(kafka.librdkafka()))
    assert told.value.code == 1


def test_topics_that_a_worker_writes_to_are_looked_for_as_well(kafka: KafkaSettings) -> None:
    apply(kafka)
    with admin(kafka, 20) as client:
        client.delete_topics([kafka.topic(DEADLETTER_TOPIC)])
    plain = AdminClient(kafka.librdkafka())
    wait_for(lambda: kafka.topic(DEADLETTER_TOPIC) not in plain.list_topics().topics, "a deleted topic")
    with pytest.raises(WorkerError, match=r"engine\.deadletter\.v1' is missing"):
        check_topics(kafka, plain)


def test_another_number_of_partitions_is_wrong_input(kafka: KafkaSettings) -> None:
    apply(kafka)
    with pytest.raises(
        WorkerError, match=r"has 1 partitions and the settings ask for 2; set kafka\.partitions"
    ) as told:
        check_topics(kafka.model_copy(update={"partitions": 2}), AdminClient(kafka.librdkafka()))
    assert told.value.code == 2


def test_a_worker_that_cannot_go_on_ends_with_a_sentence_and_no_traceback(
    kafka: KafkaSettings, workers: Workers
) -> None:
    apply(kafka)
    write_state(kafka, offsets() | {"clock/engine": msgspec.msgpack.encode([99, {}])})
    worker = workers.start()
    assert worker.ended(60) == 1
    assert "has version 99" in worker.text.rstrip().splitlines()[-1]
    assert "Traceback" not in worker.text


def test_without_a_broker_a_worker_says_so_tries_again_and_gives_up(tmp_path: Path) -> None:
    nowhere = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    workers = Workers(nowhere, tmp_path)
    try:
        worker = workers.start(connect_timeout_s=2)
        assert worker.ended(60) == 1
        last = worker.text.rstrip().splitlines()[-1]
        assert worker.text.count(f"no Kafka at {nowhere.bootstrap_servers} yet, trying for") >= 1
        assert f"no Kafka answers at {nowhere.bootstrap_servers} within" in last
        assert "Connection refused" in last
        assert "gave up after 2 s" in last
        assert "Traceback" not in worker.text
    finally:
        workers.close()
