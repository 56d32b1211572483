"""What a running worker tells over HTTP: readiness, life, and metrics that agree with what was produced."""

from __future__ import annotations

import http.client
import socket
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


def test_waits_are_measured_from_the_arrival_of_events(kafka: KafkaSettings, shop: Path, workers: Workers) -> None:
    apply(kafka)
    workers.start(metrics_port=0).wait_assigned()
    port = port_of(workers.started[0])
    produce([shop], kafka, timestamps="now")
    wait_for(lambda: totals(port, "shelftide_event_to_forecast_seconds_count")[""] > 0, "a forecast")
    count = totals(port, "shelftide_event_to_forecast_seconds_bucket", "le")
    assert 0 < count["60"] == count["+Inf"], "arrival counts, not the time of the event"


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
