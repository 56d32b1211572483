"""Models promoted and brought back while workers run: at one place in each shard, and kept through kill -9."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from models.model_folder import published_name
from models.named import PRETRAINED, SHIPPED, forecaster_named
from shelftide.cli import run
from streams.engine import EngineConfig
from streams.kafka.champion import MODEL_TOPIC
from streams.kafka.commands import COMMAND_TOPIC, tell_workers
from streams.kafka.doctor import examine
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.topics import apply
from streams.outputs import DEADLETTER_TOPIC, DEMAND_TOPIC
from tests.kafka.reading import read_all
from tests.kafka.test_worker_end_to_end import LOCKSTEP
from tests.kafka.test_worker_input import send
from tests.kafka.weeks import make_week
from tests.kafka.workers import Workers
from tests.program import wait_for
from tests.test_commands_registry import trained

BASELINE = "baseline-1"
HALF = 0.6
"""Of the week, after which another model answers."""


def changes(kafka: KafkaSettings) -> list[dict[str, Any]]:
    """What shards said of models, in the order of each."""
    return [orjson.loads(found.value or b"") for found in read_all(kafka, MODEL_TOPIC)]


def wait_changed(kafka: KafkaSettings, command: str) -> list[dict[str, Any]]:
    """Wait until every shard has said what became of a command."""
    found: list[dict[str, Any]] = []

    def all_said() -> bool:
        found[:] = [one for one in changes(kafka) if one["command"] == command]
        return {one["shard"] for one in found} == set(range(kafka.partitions))

    wait_for(all_said, f"{command} at all shards", 60)
    assert len(found) == kafka.partitions
    return found


def models_found(kafka: KafkaSettings) -> list[str]:
    """What the doctor finds of models."""
    found = examine(kafka, WorkerSettings(metrics_port=-1), EngineConfig(max_series=100), "murmur2")
    return [str(one) for one in found if one.check == "models"]


class Desk:
    """Somebody who promotes models and brings them back, at a terminal."""

    def __init__(self, kafka: KafkaSettings, registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.kafka, self.registry, self.capsys = kafka, registry, capsys

    def says(self, what: str, *arguments: str) -> dict[str, Any]:
        """Run a command that tells the workers, and wait for what they say; all must say the same."""
        where = ["--registry", str(self.registry), "--live", "--bootstrap", self.kafka.bootstrap_servers]
        where += ["--prefix", self.kafka.topic_prefix, "--json"]
        self.capsys.readouterr()
        assert run(["models", what, *arguments, *where]) == 0
        told = json.loads(self.capsys.readouterr().out)
        said = wait_changed(self.kafka, told["command"])
        assert {(one["type"], one["model"]) for one in said} == {(said[0]["type"], told["name"])}
        return said[0]


def test_all_shards_change_their_model_without_a_restart_and_keep_it_through_one(
    kafka: KafkaSettings, workers: Workers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tmp_path / "registry"
    digests = []
    for n in (1, 2):
        folder = str(trained(tmp_path / f"net{n}", n))
        assert run(["models", "add", folder, "--registry", str(registry), "--json"]) == 0
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    one, two = (published_name("tea-shop", digest) for digest in digests)
    bytes_of_one = {path: path.read_bytes() for path in (registry / "models" / digests[0]).rglob("*.*")}
    shop = {"model__registry": str(registry)}
    apply(kafka)
    worker = workers.start("one", shop=shop)
    workers.wait_assigned([worker], 60)
    desk = Desk(kafka, registry, capsys)
    assert models_found(kafka) == []
    first = desk.says("promote", digests[0])
    assert (first["type"], first["model"], first["former"]) == ("model_promoted", one, BASELINE)
    assert first["event_id"] == f"{first['command']}-shard-{first['shard']}"
    assert desk.says("promote", digests[1])["former"] == one
    assert models_found(kafka) == [f"ok       models: {two} answers in all {kafka.partitions} shards"]
    worker.kill()
    worker = workers.start("one", shop=shop)
    workers.wait_assigned([worker], 60)
    back = desk.says("rollback")
    assert (back["type"], back["model"], back["former"]) == ("model_rolled_back", one, two)
    assert {path: path.read_bytes() for path in bytes_of_one} == bytes_of_one

    nobody = tell_workers(kafka, "promote", "tea-shop@sha256:0123456789ab")
    refused = wait_changed(kafka, nobody)
    assert {(said["type"], said["model"]) for said in refused} == {("model_refused", one)}
    assert "has no model 'tea-shop@sha256:0123456789ab'" in refused[0]["reason"]
    assert models_found(kafka)[0].startswith("warning  models: shard 0 refused the last command (")
    (letter,) = read_all(kafka, DEADLETTER_TOPIC)
    assert (letter.headers["x-stage"], orjson.loads(letter.value or b"")["event_id"]) == (b"apply", nobody)

    assert worker.stop() == 0
    other = workers.start("one", shop={**shop, "model__name": digests[1]})
    workers.wait_assigned([other], 60)
    other.wait_told("the settings name another model than before, which answers")
    assert desk.says("promote", digests[0])["former"] == two
    assert other.stop() == 0
    assert not [line for each in workers.started for line in each.said if line["level"] == "critical"]


def test_a_command_that_comes_twice_is_obeyed_once_and_the_same_model_is_no_change(
    kafka: KafkaSettings, workers: Workers
) -> None:
    apply(kafka)
    worker = workers.start("one", shop={"model__name": PRETRAINED})
    workers.wait_assigned([worker], 60)
    shipped = forecaster_named(PRETRAINED, SHIPPED).name
    tell_workers(kafka, "promote", shipped, "same")
    for _ in range(2):
        tell_workers(kafka, "promote", BASELINE, "first")
    wait_changed(kafka, "first")
    tell_workers(kafka, "rollback", shipped, "second")
    tell_workers(kafka, "promote", BASELINE, "first")
    wait_changed(kafka, "second")
    workers.wait_committed(60)
    assert [one["model"] for one in changes(kafka) if one["shard"] == 0] == [BASELINE, shipped]
    assert worker.stop() == 0


def test_forecasts_up_to_the_command_are_of_one_model_and_all_after_it_of_the_other(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    week = make_week(kafka.partitions, days=9, items=8)
    shipped = forecaster_named(PRETRAINED, SHIPPED).name
    apply(kafka)
    workers = Workers(kafka, tmp_path, LOCKSTEP)
    try:
        produce([week.write(tmp_path / "a.jsonl", 0, HALF)], kafka, poison=True)
        worker = workers.start("one")
        workers.wait_committed(120)
        begun_ms = orjson.loads(week.records[int(HALF * len(week.records)) - 1])["event_time"]
        command = {"type": "promote", "event_id": "c1", "event_time": begun_ms, "model": shipped}
        send(kafka, [(COMMAND_TOPIC, orjson.dumps(command), b"model", 0)], stamp_ms=begun_ms)
        workers.wait_committed(120)
        before = {found.offset for found in read_all(kafka, DEMAND_TOPIC)}
        worker.kill()
        worker = workers.start("one")
        produce([week.write(tmp_path / "b.jsonl", HALF, 1)], kafka, poison=True)
        workers.wait_committed(120)
        assert worker.stop() == 0
    finally:
        workers.close()
    assert before
    found = [(one, orjson.loads(one.value or b"")) for one in read_all(kafka, DEMAND_TOPIC)]
    early = {said["model"] for one, said in found if said["as_of"] <= begun_ms}
    late = {said["model"] for one, said in found if said["as_of"] > begun_ms}
    assert (early, late) == ({BASELINE}, {shipped})
