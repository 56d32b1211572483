"""What a running worker tells over HTTP: readiness, life, and metrics that agree with what was produced."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from streams.decode import TOPICS, decode
from streams.files import read_records
from streams.kafka.arrivals import ITEM_TOPICS
from streams.kafka.broker_properties import HOST, free_port
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.partition import murmur2_partition
from tests.kafka.workers import Worker, Workers
from tests.program import wait_for

POISON = {
    "decode": b"{",
    "validate": b'{"type":"order_placed","event_id":"p","event_time":1704700000000,"sku":"TEA","order_id":"o"}',
    "route": b'{"type":"item_viewed","event_id":"r","event_time":1704700000000,"sku":"A","session_id":"s"}',
}
"""Records under the key TEA that are no events of it, by the stage that finds out."""

REPLAY: dict[str, Any] = {"clock": "record", "backlog_forecasts": "all", "forecast_wait_ms": 30_000, "metrics_port": 0}


def ask(port: int, path: str) -> tuple[int, str]:
    """Status and text of an answer; status 0 while nobody listens."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionRefusedError:
        return 0, ""
    finally:
        connection.close()


def port_of(worker: Worker) -> int:
    """The port that a worker has taken."""
    worker.wait_told("serving metrics")
    return int(worker.told("serving metrics")[0]["port"])


def samples(port: int) -> Iterator[Sample]:
    """Every sample that a worker tells now."""
    for family in text_string_to_metric_families(ask(port, "/metrics")[1]):
        yield from family.samples


def totals(port: int, name: str, label: str = "") -> dict[str, float]:
    """Values of a metric, summed under each value of a label."""
    found = Counter[str]()
    for sample in samples(port):
        if sample.name == name:
            found[sample.labels.get(label, "")] += sample.value  # type: ignore[assignment]  # a Counter of floats
    return dict(found)


@pytest.fixture
def produced(kafka: KafkaSettings, shop: Path) -> Counter[str]:
    """Events of a few days on their topics, with poison among them; how many of each topic."""
    apply(kafka)
    produce([shop], kafka)
    producer = Producer(kafka.librdkafka())
    for stage, value in POISON.items():
        topic = kafka.topic("shop.clicks.v1" if stage == "route" else "shop.orders.v1")
        at = murmur2_partition(b"TEA", kafka.partitions)
        producer.produce(topic, value, b"TEA", at, timestamp=1704700000000)
    assert producer.flush(10) == 0
    topic_of = {kind: topic for topic, kinds in TOPICS.items() for kind in kinds}
    found = Counter[str]()
    for chunk in read_records(shop):
        found.update(topic_of[kind] for kind in decode(chunk, clock_ms=1 << 61)[0].kind.tolist())
    return found


def test_a_worker_tells_what_it_did_once_it_is_ready(
    kafka: KafkaSettings, produced: Counter[str], workers: Workers
) -> None:
    port = port_of(workers.start(**REPLAY))
    assert ask(port, "/live") == (200, "live\n")
    seen = []

    def ready() -> bool:
        seen.append(ask(port, "/ready"))
        return seen[-1][0] == 200

    wait_for(ready, "readiness")
    assert seen[0][0] == 503
    reasons = {text for status, text in seen if status == 503}
    assert reasons <= {"Kafka has not answered yet\n", "shards are being taken over\n"}
    workers.wait_committed()
    check_events(port, produced, kafka.partitions)
    check_life(port, produced, kafka.partitions)


def check_events(port: int, produced: Counter[str], shards: int) -> None:
    """Every record is counted, by what became of it."""
    events = totals(port, "shelftide_events_total", "outcome")
    assert events.pop("parked") <= events["accepted"] + events["ahead"]
    shared = sum(count for topic, count in produced.items() if topic not in ITEM_TOPICS)
    assert sum(events.values()) == sum(produced.values()) + shared * (shards - 1)
    ages = totals(port, "shelftide_event_age_seconds_count", "topic")
    assert ages == {topic: count for topic, count in produced.items() if topic in ITEM_TOPICS}
    letters = totals(port, "shelftide_dead_letters_total", "stage")
    assert {stage: letters[stage] for stage in POISON} == dict.fromkeys(POISON, 1)
    assert letters["late"] == events["late"]
    assert totals(port, "shelftide_outputs_total", "topic")["engine.deadletter.v1"] == sum(letters.values())


def check_life(port: int, produced: Counter[str], shards: int) -> None:
    """Commits, forecasts, recoveries and lag are told."""

    def value(name: str) -> float:
        return sum(totals(port, f"shelftide_{name}").values())

    wait_for(lambda: value("lag_records") == value("lag_seconds") == 0, "a lag of 0")
    assert set(totals(port, "shelftide_lag_records", "topic")) == {*TOPICS, "engine.candidates.v1"}
    assert value("ready") == value("rebalances_total") == 1
    assert value("recovery_seconds_count") == shards + 1
    assert value("commit_seconds_count") == value("commit_bytes_count") >= shards + 1
    assert value("commit_bytes_sum") > value("state_bytes_total") > 10_000
    assert value("forecasts_total") == value("forecast_batch_rows_sum") > 0
    assert value("outputs_total") >= value("forecasts_total")
    assert totals(port, "shelftide_model_info", "model") == {"baseline-1": 1}
    assert value("chunk_records_sum") >= sum(produced[topic] for topic in ITEM_TOPICS)
    assert value("buffered_records") == value("buffered_bytes") == value("lost_records_total") == 0
    assert value("transactions_aborted_total") == 0
    assert 0 < value("series") <= 24


def test_waits_are_measured_from_the_arrival_of_events(kafka: KafkaSettings, workers: Workers) -> None:
    apply(kafka)
    worker = workers.start(metrics_port=0)
    worker.wait_assigned()
    now_ms = time.time_ns() // 1_000_000
    about = {"sku": "TEA", "currency": "GBP"}
    times_ms = [now_ms, now_ms + 40 * 60_000]  # time is told by orders: the refresh of a quarter of an hour is due
    orders = [{"type": "order_placed", "order_id": "o", "quantity": 1, "unit_price": 2} | about for _ in times_ms]
    price = {"type": "price_set", "price": 0} | about
    producer, at = Producer(kafka.librdkafka()), murmur2_partition(b"TEA", kafka.partitions)
    for number, (event, time_ms) in enumerate(zip([*orders, price], [*times_ms, now_ms], strict=True)):
        topic = kafka.topic("shop.prices.v1" if event is price else "shop.orders.v1")
        value = json.dumps(event | {"event_id": str(number), "event_time": time_ms})
        producer.produce(topic, value, b"TEA", at)
    assert producer.flush(10) == 0
    port = port_of(worker)
    check_wait(port, "event_to_forecast_seconds")
    check_wait(port, "event_to_alert_seconds")


def check_wait(port: int, name: str) -> None:
    """A wait is measured, and from the arrival of its event, not from the time of the event."""
    wait_for(lambda: totals(port, f"shelftide_{name}_count")[""] > 0, name)
    buckets = totals(port, f"shelftide_{name}_bucket", "le")
    assert buckets["60"] == buckets["+Inf"]


def test_without_kafka_a_worker_lives_and_is_not_ready(workers: Workers) -> None:
    settings = workers.kafka.model_copy(update={"bootstrap_servers": f"{HOST}:{free_port()}"})
    worker = Workers(settings, workers.folder, started=workers.started).start(metrics_port=0, connect_timeout_s=2)
    port = port_of(worker)
    assert ask(port, "/live")[0] == 200
    assert ask(port, "/ready") == (503, "Kafka has not answered yet\n")
    assert totals(port, "shelftide_ready") == {"": 0}
    assert worker.ended() == 1
    assert "no Kafka answers" in worker.text.splitlines()[-1]


def test_a_port_that_is_taken_is_one_sentence(workers: Workers) -> None:
    with socket.create_server((HOST, 0)) as taken:
        worker = workers.start(metrics_port=taken.getsockname()[1])
        assert worker.ended() == 1
    [line] = worker.text.splitlines()
    assert line.startswith("shelftide: port ")
    assert "is taken; stop what listens there, or set worker.metrics_port" in line
