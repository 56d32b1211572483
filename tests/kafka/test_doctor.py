"""What the doctor finds where all is in order, and each thing that may be wrong, on a real Kafka."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from shelftide.cli import run
from streams.engine import EngineConfig
from streams.kafka import machine
from streams.kafka.broker_properties import HOST, free_port
from streams.kafka.doctor import examine
from streams.kafka.findings import Finding
from streams.kafka.ledger import Ledger, Position
from streams.kafka.metrics import Metrics
from streams.kafka.metrics_server import MetricsServer
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.state_topic import state_sizes
from streams.kafka.topics import apply
from streams.partition import crc32_partition, murmur2_partition
from tests.kafka.workers import Workers, environment
from tests.program import finished, wait_for

CONFIG = EngineConfig(max_series=1_000)
ORDERS = "shop.orders.v1"
SKUS = [f"sku-{n}" for n in range(60)]
Looked = dict[str, list[Finding]]


@pytest.fixture
def applied(kafka: KafkaSettings) -> KafkaSettings:
    """An application with its topics."""
    apply(kafka)
    return kafka


@pytest.fixture
def look(kafka: KafkaSettings, tmp_path: Path) -> Callable[..., Looked]:
    """Has everything looked at; findings by check."""

    def examined(**changes: Any) -> Looked:
        worker = WorkerSettings(metrics_port=0, state_folder=tmp_path)
        found: Looked = {}
        for finding in examine(kafka.model_copy(update=changes), worker, CONFIG, "murmur2", samples=100):
            found.setdefault(finding.check, []).append(finding)
        return found

    return examined


def send(kafka: KafkaSettings, keys: Mapping[str, bytes | None], rule: Any = murmur2_partition, **more: Any) -> None:
    """An order of each SKU, under a key, where a rule puts that."""
    producer = Producer(kafka.librdkafka())
    for sku, key in keys.items():
        at = rule(key, kafka.partitions) if key is not None else 0
        producer.produce(kafka.topic(ORDERS), json.dumps({"sku": sku}).encode(), key, at, **more)
    assert producer.flush(10) == 0


def own_keys(skus: list[str]) -> dict[str, bytes | None]:
    """Each SKU under itself."""
    return {sku: sku.encode() for sku in skus}


def one(found: Looked, check: str) -> Finding:
    """The only finding of a check."""
    [finding] = found[check]
    return finding


# ------------------------------------------------------------------------------------------------ all in order
def test_with_workers_that_run_all_is_in_order(
    applied: KafkaSettings, shop: Path, workers: Workers, tmp_path: Path
) -> None:
    worker = workers.start(clock="record")
    worker.wait_assigned()
    produce([shop], applied)
    workers.wait_committed()
    program = finished("doctor", "--json", env=environment(applied, state_folder=tmp_path))
    told = json.loads(program.stdout)
    assert [finding for finding in told["findings"] if finding["level"] != "ok"] == []
    assert (program.returncode, told["level"]) == (0, "ok")
    found = {finding["check"]: finding for finding in told["findings"]}
    assert found["Kafka"]["facts"]["brokers"] == 1
    assert found["group"]["facts"] == {"members": 1, "state": "Stable"}
    assert found["partitioner"]["facts"]["records"] > 500
    assert found["lag"]["facts"]["records"] == 0
    assert len(found["lag"]["facts"]["positions"]) == applied.partitions + 1
    assert 0 < found["state"]["facts"]["live_bytes"] <= found["state"]["facts"]["size_bytes"]
    assert found["memory"]["facts"]["shards"] == applied.partitions
    program = finished("doctor", "--verify", env=environment(applied, state_folder=tmp_path))
    assert program.returncode == 0, program.stderr
    assert program.stdout.decode().split()[-1] == "equal"


def test_before_anything_runs_only_the_worker_is_missing(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    found = look()
    wrong = [str(finding) for findings in found.values() for finding in findings if finding.level != "ok"]
    name = f"group {applied.application_id!r}"
    assert wrong == [f"warning  group: {name} has no members: no worker runs; start `shelftide worker`"]
    assert "no records yet" in one(found, "partitioner").found
    assert "no records yet" in one(found, "clocks").found


# ------------------------------------------------------------------------------------------------ Kafka and topics
def test_without_kafka_the_machine_is_looked_at_all_the_same() -> None:
    worker = WorkerSettings(connect_timeout_s=0.3, metrics_port=0)
    found = examine(KafkaSettings(bootstrap_servers=f"{HOST}:{free_port()}"), worker, CONFIG, "murmur2")
    assert [finding.check for finding in found] == ["Kafka", "memory", "metrics port", "disk"]
    assert found[0].level == "fault"
    assert "no Kafka answers" in found[0].found
    assert found[0].advice.startswith("start it")


def test_missing_topics_are_named_at_once(look: Callable[..., Looked]) -> None:
    found = look()
    assert one(found, "topics").level == "fault"
    assert one(found, "topics").found.startswith("17 are missing: ")
    assert one(found, "topics").advice == "run `shelftide topics apply`"
    assert "state" not in found


def test_topics_that_differ_are_named(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    with KafkaAdminClient(**applied.kafka_python()) as client:
        name = applied.topic("engine.state.v1")
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": "delete"})])
    text = f"{name!r} has cleanup.policy=delete and must have compact; run `shelftide topics apply`"
    wait_for(lambda: [str(one) for one in look()["topics"]] == [f"warning  topics: {text}"], text)
    text = (
        f"{applied.topic(ORDERS)!r} has 3 partitions and must have 2; set kafka.partitions to what the item topics have"
    )
    assert f"fault    topics: {text}" in [str(finding) for finding in look(partitions=2)["topics"]]


# ------------------------------------------------------------------------------------------------ records
def test_producers_of_another_partitioner_are_found_out(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    send(applied, own_keys(SKUS), crc32_partition)
    found = one(look(), "partitioner")
    assert found.level == "fault"
    assert "60 lie where crc32 does: set partitioner = 'crc32'" in found.advice
    fits = {"murmur2": sum(murmur2_partition(s.encode(), 3) == crc32_partition(s.encode(), 3) for s in SKUS)}
    assert found.facts == {"records": 60, "fits": {**fits, "crc32": 60}}


def test_a_stray_record_is_a_warning(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    send(applied, own_keys(SKUS * 2 + [f"{sku}-{n}" for sku in SKUS for n in range(2)]))
    send(applied, {"TEA": b"TEA"}, lambda key, count: (murmur2_partition(key, count) + 1) % count)
    found = one(look(), "partitioner")
    assert found.level == "warning"
    assert found.found.startswith("1 of ")
    assert found.advice == "have all producers use murmur2; dead letters of stage route name the records"


def test_keys_that_are_no_skus_are_named(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    send(applied, own_keys(SKUS))
    assert one(look(), "keys").level == "ok"
    send(applied, {"TEA": b"order-7"})
    found = one(look(), "keys")
    assert (found.level, found.facts[ORDERS]) == ("fault", {"records": 61, "keyless": 0, "foreign": 1})
    assert found.found.endswith(f"of {ORDERS} do not have their SKU as key, such as 'TEA' under 'order-7'")
    send(applied, {"POT": None})
    assert one(look(), "keys").facts[ORDERS]["keyless"] == 1


def test_clocks_of_producers_are_compared_with_this_one(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    now_ms = time.time_ns() // 1_000_000
    send(applied, own_keys(SKUS[:1]), timestamp=now_ms - 7_300_000)
    assert str(one(look(), "clocks")) == (
        "ok       clocks: the newest record of producers is 2 h old by this machine's clock"
    )
    send(applied, own_keys(SKUS[:1]), timestamp=now_ms + 1_800_000)
    found = one(look(), "clocks")
    assert found.level == "warning"
    assert 1_700 < found.facts["ahead_s"] <= 1_800
    assert found.advice == "let all machines follow one time server (NTP)"


# ------------------------------------------------------------------------------------------------ state
def commit(kafka: KafkaSettings, records: dict[str, bytes | None], orders: int, shards: int = 3) -> None:
    """A commit of the first shard."""
    ledger = Ledger(kafka, "shard-0", 0)
    ledger.open(20)
    ledger.commit(records.items(), Position({kafka.topic(ORDERS): orders}, 5, shards), [], 20)
    ledger.close()


def test_how_far_state_has_come_and_how_much_of_it_is_live(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    mine = [sku for sku in SKUS if murmur2_partition(sku.encode(), 3) == 0][:5]
    send(applied, own_keys(mine))
    commit(applied, {"a": b"x" * 1000, "b": b"x" * 1000}, 1)
    commit(applied, {"a": b"x" * 1000, "b": None}, 2)
    found = look()
    lag = one(found, "lag")
    assert lag.level == "warning"
    assert lag.found.startswith("3 records are in no committed state yet, most of them (3) in partition 0 of ")
    assert lag.facts["partitions"][f"{ORDERS}/0"] == lag.facts["records"] == 3
    shard = one(found, "state").facts["shards"][0]
    assert (shard["records"], shard["live_records"]) == (6, 2)
    assert 1000 < shard["live_bytes"] < 1200
    [first, *others] = state_sizes(applied, 10, whole=False)
    assert first.position is not None
    assert (first.position.offsets[applied.topic(ORDERS)], [other.position for other in others]) == (2, [None] * 3)


def test_state_of_another_number_of_shards_is_a_fault(applied: KafkaSettings, look: Callable[..., Looked]) -> None:
    commit(applied, {}, 1, shards=4)
    sizes, found = look()["state"]
    assert sizes.level == "ok"
    assert str(found).startswith(
        "fault    state: the state is that of 4 shards, the settings say 3; set kafka.partitions"
    )


# ------------------------------------------------------------------------------------------------ this machine
def test_memory_is_what_the_arrays_take() -> None:
    worker = WorkerSettings()
    few = machine.memory(replace(CONFIG, max_series=1_000), worker, 1)
    assert few.level == "ok"
    many = machine.memory(replace(CONFIG, max_series=10_000_000), worker, 100)
    assert many.level == "warning"
    assert many.advice == "lower max_series, give more memory, or run more workers"
    grown = many.facts["needed_bytes"] - few.facts["needed_bytes"]
    assert grown / (10_000_000 * 100 - 1_000) == pytest.approx(few.facts["series_bytes"], rel=0.01)
    allowed, whose = machine.allowance()
    assert allowed > 1 << 28
    assert whose in ("the machine has", "the container allows")


def test_the_port_of_metrics_is_tried() -> None:
    def found(port: int | None, host: str = HOST) -> str:
        return str(machine.metrics_port(WorkerSettings(metrics_port=port, metrics_host=host)))

    assert found(-1) == "ok       metrics port: none is served"
    assert found(0) == "ok       metrics port: any free one is taken"
    assert found(free_port()).endswith("is free")
    assert found(free_port(), "192.0.2.1").startswith("fault    metrics port: port ")
    server = MetricsServer(Metrics(), HOST, 0, ready=lambda: False, health=lambda: True)
    assert found(server.port) == f"ok       metrics port: a worker answers at port {server.port} of {HOST}"
    server.close()
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert found(port).startswith(f"fault    metrics port: port {port} of {HOST} is taken by another program; set ")


def test_the_folder_of_state_is_looked_at(tmp_path: Path) -> None:
    found = machine.disk(WorkerSettings(state_folder=tmp_path / "a" / "b"))
    assert found.level == "ok"
    assert found.facts["free_bytes"] > 1 << 30
    (tmp_path / "file").touch()
    found = machine.disk(WorkerSettings(state_folder=tmp_path / "file" / "b"))
    assert str(found) == f"fault    disk: {str(tmp_path / 'file' / 'b')!r} cannot be written; set worker.state_folder"


# ------------------------------------------------------------------------------------------------ the command
def test_exit_codes_say_how_grave_it_is(applied: KafkaSettings, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--bootstrap", applied.bootstrap_servers, "--prefix", applied.topic_prefix]
    assert run(["doctor", *options, "--partitions", "3"]) == 3
    told = capfd.readouterr().out
    assert "warning  group: " in told
    assert "→ start `shelftide worker`" in told
    assert run(["doctor", *options, "--partitions", "2"]) == 1
    assert run(["doctor", *options, "--partitions", "0"]) == 2
    assert run(["doctor", "--verify", *options, "--partitions", "2"]) == 1
    assert "must have 2; see `shelftide topics`" in capfd.readouterr().err


def test_a_state_that_differs_is_exit_code_3(applied: KafkaSettings) -> None:
    commit(applied, {}, 7)
    program = finished("doctor", "--verify", "--json", env=environment(applied))
    assert program.returncode == 3, program.stderr
    report = json.loads(program.stdout)
    assert report["equal"] is False
    assert report["shards"][0]["faults"] == [
        f"shard-0: its state says that {ORDERS} was read up to 7, and the topic ends at 0"
    ]
