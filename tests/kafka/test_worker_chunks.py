"""Chunks that are lost between a fetch and a shard are fetched again, before newer records of other topics."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.outputs import DEADLETTER_TOPIC
from streams.partition import murmur2_partition
from tests.kafka.reading import read_all
from tests.kafka.test_worker_input import SHARDS, Record, counted, orders, send
from tests.kafka.workers import Workers, command_of

DAY_MS = 86_400_000
DAYS = 5
EACH_DAY = 40
SKUS = [f"sku-{n}" for n in range(12)]


def counts(sku: str, time_ms: int) -> Record:
    """A stock count, where it belongs."""
    value = {"type": "stock_counted", "event_id": f"s-{sku}", "event_time": time_ms, "sku": sku, "on_hand": 9}
    return "shop.stock.v1", orjson.dumps(value), sku.encode(), murmur2_partition(sku.encode(), SHARDS)


@pytest.mark.parametrize("word", ["early", "lossy"])
def test_orders_that_were_lost_on_the_way_are_applied_before_newer_records_of_other_topics(
    word: str, kafka: KafkaSettings, workers: Workers
) -> None:
    apply(kafka)
    now_ms = time.time_ns() // 1_000_000
    for day in range(DAYS):
        at_ms = now_ms - (DAYS - day) * DAY_MS
        send(kafka, [one for sku in SKUS for one in orders(sku, 1, at_ms, day)], stamp_ms=at_ms)
    send(kafka, [counts(sku, now_ms) for sku in SKUS])
    worker = workers.start(command=command_of(Path(__file__).with_name("hasty_worker.py"), word))
    workers.wait_committed(60)
    assert worker.stop() == 0
    assert bool(worker.told("chunks were lost on their way, and are fetched again")) == (word == "lossy")
    assert read_all(kafka, DEADLETTER_TOPIC) == []
    assert counted(kafka, now_ms)[0] == dict.fromkeys(SKUS, DAYS)


def test_a_worker_whose_buffer_is_full_still_knows_which_topics_are_empty(
    kafka: KafkaSettings, workers: Workers
) -> None:
    apply(kafka)
    now_ms = time.time_ns() // 1_000_000
    send(kafka, [counts(sku, now_ms - (DAYS + 1) * DAY_MS) for sku in SKUS], stamp_ms=now_ms - (DAYS + 1) * DAY_MS)
    for day in range(DAYS):
        at_ms = now_ms - (DAYS - day) * DAY_MS
        several = [large(one) for sku in SKUS for one in orders(sku, EACH_DAY, at_ms, day * EACH_DAY)]
        send(kafka, several, stamp_ms=at_ms)
    send(kafka, [counts(sku, now_ms) for sku in SKUS])  # behind megabytes of orders
    worker = workers.start(max_buffered_bytes=1 << 20, chunk_rows=100)
    workers.wait_committed(60)
    assert worker.stop() == 0
    assert not worker.told("records are applied without those of topics that cannot be fetched")
    assert read_all(kafka, DEADLETTER_TOPIC) == []
    assert counted(kafka, now_ms)[0] == dict.fromkeys(SKUS, DAYS * EACH_DAY)


def large(record: Record) -> Record:
    """The same with ten kilobytes that nobody reads."""
    topic, value, key, partition = record
    return topic, (value or b"{}")[:-1] + b',"note":"%b"}' % (b"x" * 10_000), key, partition
